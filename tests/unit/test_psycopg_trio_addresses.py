"""Connection parameters become single addresses to try, in order."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
import trio.testing

from jobtrio.psycopg_trio._addresses import addresses, hosts, rounds, with_environment

if TYPE_CHECKING:
    from pathlib import Path


class Names(trio.abc.HostnameResolver):
    """Knows the addresses of some names."""

    def __init__(self, **known: list[str]) -> None:
        self.known = known
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, *_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        self.asked.append(host.decode() if isinstance(host, bytes) else host)
        found = self.known.get(self.asked[-1])
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in found]

    async def getnameinfo(self, *_: Any) -> Any:
        raise AssertionError


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No parameters come from the environment but the test's own."""
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT", "PGCONNECT_TIMEOUT", "PGTARGETSESSIONATTRS", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_environment_fills_in(environment: pytest.MonkeyPatch) -> None:
    """What the parameters don't say is taken from the environment, where it says where to connect."""
    environment.setenv("PGHOST", "there")
    environment.setenv("PGPORT", "1234")
    environment.setenv("PGUSER", "left to libpq")
    assert with_environment({"host": None, "dbname": "x"}) == {"dbname": "x", "host": "there", "port": "1234"}
    assert with_environment({"host": "here", "port": 1}) == {"host": "here", "port": "1"}


def test_nothing_said(environment: pytest.MonkeyPatch) -> None:
    """Nothing is made up: what libpq was built with stays its own to know."""
    assert with_environment({"dbname": "x"}) == {"dbname": "x"}


def test_service(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A service says where to connect, above the environment and below the parameters."""
    (tmp_path / "services").write_text("[x]\nhost=a,b\nport=1,2\nconnect_timeout=3\nsslmode=require\n")
    environment.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    environment.setenv("PGHOST", "there")
    environment.setenv("PGTARGETSESSIONATTRS", "standby")
    said = {"host": "a,b", "port": "1,2", "connect_timeout": "3", "target_session_attrs": "standby"}
    assert with_environment({"service": "x"}) == {"service": "x", **said}
    assert with_environment({"service": "x", "host": "c,d"}) == {"service": "x", **said, "host": "c,d"}
    environment.delenv("PGHOST")
    assert "host" not in with_environment({"service": "unknown"})


def test_one_host() -> None:
    """One host, or none, is one attempt."""
    assert hosts({"dbname": "x"}) == [{"dbname": "x"}]
    assert hosts({"host": "a", "port": "1"}) == [{"host": "a", "port": "1"}]


def test_several_hosts() -> None:
    """Each host goes with its own address and port; a single port goes with all."""
    assert hosts({"host": "a,b", "port": "1,2"}) == [{"host": "a", "port": "1"}, {"host": "b", "port": "2"}]
    assert [host["port"] for host in hosts({"host": "a,b,c", "port": "7"})] == ["7", "7", "7"]
    assert hosts({"host": "a,b", "hostaddr": "1.1.1.1,2.2.2.2"})[1] == {"host": "b", "hostaddr": "2.2.2.2"}
    assert [host["hostaddr"] for host in hosts({"hostaddr": "1.1.1.1,2.2.2.2"})] == ["1.1.1.1", "2.2.2.2"]


@pytest.mark.parametrize(
    "params", [{"host": "a,b,c", "port": "1,2"}, {"host": "a,b", "hostaddr": "1.1.1.1"}, {"host": "a", "port": "1,2"}]
)
def test_numbers_that_do_not_match(params: dict[str, str]) -> None:
    """Lists of different lengths are refused."""
    with pytest.raises(psycopg.OperationalError, match="values of"):
        hosts(params)


def test_rounds() -> None:
    """A standby that is preferred is looked for at every host first."""
    wanted = [params["target_session_attrs"] for params in rounds({"target_session_attrs": "prefer-standby"})]
    assert wanted == ["standby", "any"]
    assert list(rounds({"target_session_attrs": "read-write"})) == [{"target_session_attrs": "read-write"}]
    assert list(rounds({})) == [{}]


@pytest.mark.parametrize(
    "params",
    [{"host": "/tmp"}, {"host": "@name"}, {"host": ""}, {}, {"host": "x", "hostaddr": "1.1.1.1"}],
)
async def test_nothing_to_look_up(params: dict[str, str]) -> None:
    """A Unix socket, the default and a given address are left alone."""
    trio.socket.set_custom_hostname_resolver(Names())
    assert await addresses(params) == [params]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_address_for_a_name(address: str) -> None:
    """An address in place of a name is not looked up."""
    trio.socket.set_custom_hostname_resolver(Names())
    assert await addresses({"host": address}) == [{"host": address, "hostaddr": address}]


async def test_all_addresses() -> None:
    """A name gives an attempt for each of its addresses, and goes with them."""
    trio.socket.set_custom_hostname_resolver(Names(two=["10.0.0.1", "10.0.0.2"]))
    found = await addresses({"host": "two", "port": "5"})
    assert found == [
        {"host": "two", "port": "5", "hostaddr": "10.0.0.1"},
        {"host": "two", "port": "5", "hostaddr": "10.0.0.2"},
    ]


async def test_unknown_name() -> None:
    """A name that is not known is psycopg's error, which says the name."""
    trio.socket.set_custom_hostname_resolver(Names())
    with pytest.raises(psycopg.OperationalError, match="'nowhere' is not known"):
        await addresses({"host": "nowhere"})


@pytest.mark.parametrize("name", ["a..b", "a" * 64, "bü cher"])
async def test_what_is_no_name(name: str) -> None:
    """What can't be a name is one that is not known."""
    with pytest.raises(psycopg.OperationalError, match=f"'{name}' is not known"):
        await addresses({"host": name})


async def test_no_thread_to_look_it_up_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started for the lookup, that is psycopg's error as well, and may pass."""

    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    with pytest.raises(psycopg.OperationalError, match="'localhost' can't be looked up now: can't start new thread"):
        await addresses({"host": "localhost"})


async def test_a_lookup_that_takes_long(autojump_clock: trio.testing.MockClock) -> None:
    """Who wants a name that is being looked up joins in, whoever has left; it is asked for anew only after a while."""
    may_answer = trio.Event()

    class Slow(Names):
        async def getaddrinfo(self, host: Any, port: Any, *rest: Any) -> Any:
            answer = await super().getaddrinfo(host, port, *rest)
            await may_answer.wait()
            return answer

    names = Slow(one=["10.0.0.1"])
    trio.socket.set_custom_hostname_resolver(names)
    for _ in range(12):
        with trio.move_on_after(0.5):
            await addresses({"host": "one"})
    assert names.asked == ["one", "one"]
    may_answer.set()
    assert [attempt["hostaddr"] for attempt in await addresses({"host": "one"})] == ["10.0.0.1"]
    await addresses({"host": "one"})
    assert names.asked == ["one", "one", "one"]


async def test_load_balancing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``load_balance_hosts=random`` hosts and addresses are tried in any order, all of them."""
    monkeypatch.setattr(random, "sample", lambda items, count: list(reversed(items))[:count])
    trio.socket.set_custom_hostname_resolver(Names(two=["10.0.0.1", "10.0.0.2"]))
    params = {"host": "a,two", "load_balance_hosts": "random"}
    first, second = hosts(params)
    assert (first["host"], second["host"]) == ("two", "a")
    assert [attempt["hostaddr"] for attempt in await addresses(first)] == ["10.0.0.2", "10.0.0.1"]
