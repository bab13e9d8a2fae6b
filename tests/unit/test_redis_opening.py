"""Opening a store on a Redis: whose the data is, which format it has, and how safe it is."""

from __future__ import annotations

import logging
from math import inf
from typing import Any, NoReturn

import pytest
import trio
from redis_invariants import check_jobs
from valkey_server import DURABLE, FORGETFUL, ValkeyServer, new_prefix, shared_server

from jobtrio import StoreError, StoreUnavailableError, StoreVersionError
from jobtrio.stores.redis import RedisJobStore
from jobtrio.stores.redis._link import LinkError
from jobtrio.stores.redis._opening import ROOM, losses, narrow_limits, prepare, warn_of_losses
from jobtrio.testing._workers import new_entry, open_worker


@pytest.fixture
def prefix() -> str:
    """A prefix of the test's own."""
    return new_prefix()


def _all_keys(prefix: str) -> list[str]:
    keys = shared_server().ask("KEYS", f"{{{prefix}}}:*")
    assert isinstance(keys, list)
    return sorted(keys)


async def _open(prefix: str, **options: bool) -> None:
    async with open_worker(lambda: RedisJobStore(shared_server().url, prefix=prefix, **options)) as worker:
        await worker.insert(new_entry())


async def test_version(prefix: str) -> None:
    """The format's version is under the prefix, and the keys of all else are beside it."""
    await _open(prefix)
    assert shared_server().ask("GET", f"{{{prefix}}}:version") == "1"
    await _open(prefix)
    assert len(check_jobs(shared_server(), prefix)) == 2


async def test_pauses_without_an_end(prefix: str) -> None:
    """What was paused while no pause had an end, stays paused."""
    await _open(prefix)
    shared_server().ask("SADD", f"{{{prefix}}}:paused", "default", "other")
    async with open_worker(lambda: RedisJobStore(shared_server().url, prefix=prefix)) as worker:
        assert await worker.store.paused() == {"default": inf, "other": inf}
        assert await worker.claim() == []
    assert f"{{{prefix}}}:paused" not in _all_keys(prefix)


async def test_newer_version(prefix: str) -> None:
    """A format that this version does not know is refused, and nothing is written."""
    shared_server().ask("SET", f"{{{prefix}}}:version", 2)
    shared_server().ask("SADD", f"{{{prefix}}}:paused", "default")
    with pytest.raises(StoreVersionError, match="has format 2; this version of jobtrio knows 1"):
        await _open(prefix)
    assert _all_keys(prefix) == [f"{{{prefix}}}:paused", f"{{{prefix}}}:version"]


@pytest.mark.parametrize(
    "command",
    [
        ("SET", "version", "3.7"),
        ("SET", "version", ""),
        ("SET", "version", "0"),
        ("SET", "version", "01"),
        ("SET", "version", "9" * 5000),
        ("LPUSH", "version", "1"),
        ("SADD", "all", "1"),
        ("ZADD", "all", "1", "1"),
        ("SET", "keys", "1"),
        ("HSET", "sessions", "a", "b"),
    ],
)
async def test_foreign_data(prefix: str, command: tuple[str, ...]) -> None:
    """What is not the store's is refused at once, and nothing is written."""
    name, key, *rest = command
    shared_server().ask(name, f"{{{prefix}}}:{key}", *rest)
    with trio.fail_after(60), pytest.raises(StoreError, match="is not jobtrio's") as caught:
        await _open(prefix)
    assert not isinstance(caught.value, StoreUnavailableError | StoreVersionError)
    assert _all_keys(prefix) == [f"{{{prefix}}}:{key}"]


async def test_not_to_be_made(prefix: str) -> None:
    """A store that is not to be made is not, and opens where it is."""
    with pytest.raises(StoreError, match="there are no jobs under"):
        await _open(prefix, create=False)
    assert _all_keys(prefix) == []
    await _open(prefix)
    await _open(prefix, create=False)
    assert len(check_jobs(shared_server(), prefix)) == 2


async def test_prefixes_are_apart(prefix: str) -> None:
    """Stores with different prefixes on one server have nothing in common."""
    other = new_prefix()
    async with (
        open_worker(lambda: RedisJobStore(shared_server().url, prefix=prefix)) as one,
        open_worker(lambda: RedisJobStore(shared_server().url, prefix=other)) as two,
    ):
        await one.insert(new_entry(job_id="id", key="key", payload=1))
        assert await two.claim() == []
        await two.insert(new_entry(job_id="id", key="key", payload=2))
        assert (await one.load("id")).payload == 1


async def test_too_old(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is too old is refused with its version."""
    monkeypatch.setattr("jobtrio.stores.redis._opening.OLDEST", 99)
    with pytest.raises(StoreError, match=r"version \d+\.\d+\.\d+ is too old: it takes Redis 7 or Valkey 8"):
        await _open(prefix)


class Lost:
    """A link that was lost once the server had said its version."""

    place = ("host", 6379)

    def __init__(self, version: str) -> None:
        self.version = version

    def send(self, _: object) -> NoReturn:
        raise LinkError("lost")

    async def command(self, _: object) -> NoReturn:
        raise LinkError("lost")


@pytest.mark.parametrize(
    ("version", "error"), [("0", StoreError), ("6.2.18", StoreError), ("7.0.0", LinkError), ("10.1", LinkError)]
)
async def test_oldest(version: str, error: type[Exception]) -> None:
    """Servers before Redis 7 are too old; what Valkey says of itself is newer."""
    link: Any = Lost(version)
    with pytest.raises(error):
        await prepare(link, "{p}:")


async def test_lost_while_it_is_asked() -> None:
    """A link that is lost while the server is asked for its settings is not taken for one that hides them."""
    link: Any = Lost("7.0.0")
    with pytest.raises(LinkError):
        await warn_of_losses(link)


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"aof_enabled": "0", "save": ""}, "a restart loses all jobs"),
        ({"aof_enabled": "0", "save": "3600 1"}, "since the last snapshot"),
        ({"aof_enabled": "0"}, "since the last snapshot"),
        ({"aof_enabled": "1", "appendfsync": "no"}, "a power cut"),
        ({"appendfsync": "always", "no-appendfsync-on-rewrite": "yes"}, "while the file is rewritten"),
        ({"aof_enabled": "1", "maxmemory_policy": "allkeys-lru"}, "allkeys-lru"),
    ],
)
def test_what_may_be_lost(settings: dict[str, str], part: str) -> None:
    """Settings by which acknowledged jobs may be lost are named."""
    (loss,) = losses(settings)
    assert part in loss


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"aof_enabled": "1", "appendfsync": "everysec", "maxmemory_policy": "noeviction", "save": ""},
        {"aof_enabled": "1", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"},
        {"aof_enabled": "1", "appendfsync": "always", "maxmemory_policy": "volatile-lru"},
    ],
)
def test_what_is_safe(settings: dict[str, str]) -> None:
    """Settings that lose nothing, or that the server does not tell, are passed over."""
    assert losses(settings) == []


@pytest.mark.parametrize("name", ["proto-max-bulk-len", "client-query-buffer-limit"])
def test_what_is_too_narrow(name: str) -> None:
    """Limits that a large value would not get through are named; others, and what is no limit, are passed over."""
    assert [each.partition(":")[0] for each in narrow_limits({name: str(ROOM - 1)})] == [f"{name} is {ROOM - 1}"]
    assert not any(narrow_limits({name: limit}) for limit in (str(ROOM), "0", "", "x"))


async def test_what_the_server_tells(caplog: pytest.LogCaptureFixture) -> None:
    """A setting of the append-only file is told by the server under the name that it is asked for."""
    with ValkeyServer(*DURABLE, "--no-appendfsync-on-rewrite", "yes") as server, caplog.at_level(logging.WARNING):
        async with open_worker(lambda: RedisJobStore(server.url)):
            pass
    assert [record.message.partition(": ")[2][:25] for record in caplog.records] == ["no-appendfsync-on-rewrite"]


async def test_warnings(caplog: pytest.LogCaptureFixture) -> None:
    """What may be lost is logged once, when the store is opened; a server that hides its settings is taken as it is."""
    options = (*FORGETFUL, "--maxmemory-policy", "allkeys-lfu", "--proto-max-bulk-len", "1mb")
    with ValkeyServer(*options) as server, caplog.at_level(logging.WARNING):
        async with open_worker(lambda: RedisJobStore(server.url)):
            pass
        assert [record.message.partition(": ")[2][:20] for record in caplog.records] == [
            "nothing is kept on d",
            "maxmemory-policy is ",
            "proto-max-bulk-len i",
        ]
        caplog.clear()
        server.ask("ACL", "SETUSER", "ann", "on", ">pw", "~*", "&*", "+@all", "-config", "-info")
        async with open_worker(lambda: RedisJobStore(server.url.replace("//", "//ann:pw@"))):
            pass
        assert caplog.records == []


async def test_not_allowed_to_tell_others() -> None:
    """Who may not publish under the prefix, as a user is made by default, is told so when the store is opened."""
    with ValkeyServer() as server:
        server.ask("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all")
        with trio.fail_after(60), pytest.raises(StoreError, match="channel") as caught:
            async with open_worker(lambda: RedisJobStore(server.url.replace("//", "//ann:pw@"))):
                raise AssertionError("it was let in")
        assert not isinstance(caught.value, StoreUnavailableError)
        assert server.ask("DBSIZE") == 0
        server.ask("ACL", "SETUSER", "ann", "&{jobtrio}:*")
        async with open_worker(lambda: RedisJobStore(server.url.replace("//", "//ann:pw@"))) as worker:
            await worker.start()
