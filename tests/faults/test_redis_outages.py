"""A Redis that is killed, stopped, cut off, full or busy: running jobs run on, callers are told, nothing is lost."""

from __future__ import annotations

import os
import re
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import pytest
import trio
from patience import until
from redis_gate import open_gate
from redis_invariants import check_jobs
from tcp_proxy import TcpProxy
from until_answered import until_answered
from valkey_server import DURABLE, FORGETFUL, ValkeyServer

import jobtrio
from jobtrio import Cancelled, Completed, JobState, StoreError, StoreUnavailableError, Token
from jobtrio.abc import JobQuery
from jobtrio.stores.redis import RedisJobStore
from jobtrio.stores.redis._calls import Calls
from jobtrio.testing._workers import new_entry, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A server of the test's own."""
    with ValkeyServer() as server:
        yield server


@asynccontextmanager
async def open_proxy(server: ValkeyServer) -> AsyncIterator[TcpProxy]:
    """Open a way to a server."""
    async with TcpProxy(server.port).open() as proxy:
        yield proxy


def url_of(proxy: TcpProxy) -> str:
    return f"redis://127.0.0.1:{proxy.port}"


# -- the server


async def test_killed_and_started_again(server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that was killed has what it acknowledged when it is back, and is given the scripts anew."""
    async with open_gate(server.url) as gate:
        job = await gate.start()
        server.kill()
        await gate.check_outage(job, "refused")
        server.start()
        after = await gate.check_recovery(job)
        assert set(check_jobs(server, "gate", [job.id, after.id]).values()) == {"COMPLETED"}
    told = [text.partition(":")[0] for text in caplog.messages if text.startswith("the store is ")]
    assert told == ["the store is away", "the store is back"]


async def test_stopped_and_resumed(server: ValkeyServer) -> None:
    """A server that stands still is given up in time, and met again when it goes on."""
    async with open_gate(server.url) as gate:
        job = await gate.start()
        server.pause()
        await gate.check_outage(job)
        server.resume()
        after = await gate.check_recovery(job)
        check_jobs(server, "gate", [job.id, after.id])


async def test_still_for_a_moment(server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """A server that goes on just when a call was given up was away as well, and the log says so."""
    async with open_worker(lambda: RedisJobStore(server.url, outage_limit=6)) as worker:
        (entry,) = await worker.insert(new_entry())
        server.pause()
        with pytest.raises(StoreUnavailableError, match="no answer within 2 s"):
            await worker.store.load(entry.id)
        server.resume()
        await until_answered(partial(worker.store.load, entry.id))
    assert caplog.messages == [f"the store is away: 127.0.0.1:{server.port}: no answer within 2 s", "the store is back"]


async def test_without_its_data(server: ValkeyServer) -> None:
    """A server that comes back with nothing is made the store's own again, and what is lost is told as unknown."""
    with ValkeyServer(*FORGETFUL) as forgetful:
        async with open_gate(forgetful.url) as gate:
            gate.opened.set()
            job = await gate.registry.submit("wait")
            await job.wait()
            forgetful.kill()
            forgetful.start()
            with pytest.raises(jobtrio.UnknownJobError):
                await gate.registry.get(job.id)
            after = await gate.registry.submit("wait")
            assert await after.wait() == Completed(after.id)
        assert forgetful.ask("GET", "{gate}:version") == "1"
        check_jobs(forgetful, "gate", [after.id])


@pytest.mark.parametrize("writes", ["insert", "renew"])
async def test_flushed(server: ValkeyServer, writes: str) -> None:
    """When somebody has flushed a server that a process goes on writing to, others can open the store all the same."""
    async with open_workers(lambda: RedisJobStore(server.url), "a") as (a,):
        claim = await a.start()
        server.ask("FLUSHALL")
        if writes == "insert":
            await a.insert(new_entry())
        else:
            (report,) = await a.store.renew([claim], 30.0)
            assert not report.held
        async with open_worker(lambda: RedisJobStore(server.url, create=False)) as b:
            assert len(await b.store.find(JobQuery())) == (writes == "insert")
        assert not await a.store.finish(claim, Completed())


async def test_loading(server: ValkeyServer) -> None:
    """While a server loads its data it is away, as its answers say."""
    async with open_gate(server.url) as gate:
        job = await gate.start()
        for _ in range(200):
            await gate.registry.create_job(metadata={"large": os.urandom(2000).hex()})
        server.ask("BGREWRITEAOF")
        with trio.fail_after(60):
            while "aof_base_size:0" in str(server.ask("INFO", "persistence")):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        server.kill()
        server.begin("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024")
        await gate.check_outage(job, "LOADING")
        server.kill()
        server.start()
        await gate.check_recovery(job)


async def test_scripts_forgotten(server: ValkeyServer) -> None:
    """A server that has forgotten the scripts is given them again, and no call fails."""
    async with open_worker(lambda: RedisJobStore(server.url)) as worker:
        claim = await worker.start()
        for _ in range(5):
            server.ask("SCRIPT", "FLUSH", "SYNC")
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(worker.insert, new_entry())
                nursery.start_soon(worker.store.append_messages, claim, tokens(1, 2))
        assert len(await worker.claim(limit=1000)) == 100
        assert await worker.stream(claim.entry.id) == tokens(1, 2)
    assert len(check_jobs(server, "jobtrio")) == 101


@pytest.mark.parametrize("how", ["cancelled", "raised"])
async def test_left_early(server: ValkeyServer, how: str) -> None:
    """A registry that is left by a cancellation or an exception returns its jobs, and its worker is gone, at once."""
    with trio.CancelScope() as scope, suppress(KeyError):
        async with open_gate(server.url, outage_limit=60.0) as gate:
            job = await gate.start()
            if how == "raised":
                raise KeyError
            scope.cancel()
            await trio.sleep_forever()
    assert server.ask("HGET", f"{{gate}}:job:{job.id}", "state") == "QUEUED"
    assert server.ask("ZCARD", "{gate}:workers") == 0
    check_jobs(server, "gate", [job.id])


async def test_a_fault_of_its_own(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault of jobtrio's own in the background ends the registry, which nobody else could do then."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, allow_unwrapped=True, flatten_subgroups=True):
        async with open_gate(server.url, lease=1.0) as gate:
            await gate.start()
            monkeypatch.setattr(Calls, "fail_overdue", fail)
            await trio.sleep_forever()


# -- the way


@pytest.mark.parametrize("fault", ["refuse", "stall", "half_open", "ignore"])
async def test_cut_off(server: ValkeyServer, fault: str) -> None:
    """However the way to the server is lost, calls fail in time, and the next connection serves."""
    async with open_proxy(server) as proxy, open_gate(url_of(proxy)) as gate:
        job = await gate.start()
        match fault:
            case "refuse":
                proxy.refuse()
                proxy.cut()
            case "stall":
                proxy.stall()
            case "half_open":
                proxy.half_open()
                proxy.ignore()
            case _:
                proxy.ignore()
                proxy.cut()
        await gate.check_outage(job)
        await proxy.heal()
        after = await gate.check_recovery(job)
        check_jobs(server, "gate", [job.id, after.id])


async def test_half_open_in_time(server: ValkeyServer) -> None:
    """A connection that has died unnoticed costs a submission some time, but does not fail it."""
    async with open_proxy(server) as proxy, open_gate(url_of(proxy)) as gate:
        gate.opened.set()
        assert proxy.half_open() > 0
        with trio.fail_after(60):
            job = await gate.registry.submit("wait")
            assert await job.wait() == Completed(job.id)


@pytest.mark.parametrize("way", ["up", "down"])
async def test_cut_in_the_middle(server: ValkeyServer, way: str) -> None:
    """Cut at whatever byte of the question or the answer, a call that is made again is done once."""
    async with open_proxy(server) as proxy:
        async with open_worker(lambda: RedisJobStore(url_of(proxy), outage_limit=9.0)) as worker:
            for count in (1, 10, 50, 120, 250, 400, 700, 1000, 1500, 2500):
                entry = new_entry(payload="x" * 500)
                proxy.cut_after(count, way)  # type: ignore[arg-type]
                await until_answered(partial(worker.store.insert, [entry], entry.id))
                proxy.cut_after(count, way)  # type: ignore[arg-type]
                (claim,) = await until_answered(partial(worker.store.claim, f"c{count}", limit=5, lease=60.0))
                proxy.cut_after(count, way)  # type: ignore[arg-type]
                assert await until_answered(partial(worker.store.append_messages, claim, tokens(1, 20)))
                proxy.cut_after(count, way)  # type: ignore[arg-type]
                done = Completed("y" * 500)
                finish = partial(worker.store.finish, claim, done, messages=tokens(15, 25))
                assert await until_answered(finish)
                await proxy.heal()
                stream = await until_answered(partial(worker.stream, entry.id))  # the cut may follow the last answer
                assert stream == [*tokens(1, 25), jobtrio.End(26, done)]
                assert worker.heard.of(entry.id) == await until_answered(partial(worker.history, entry.id))
    assert set(check_jobs(server, "jobtrio").values()) == {"COMPLETED"}


# -- failover


async def test_another_address(server: ValkeyServer) -> None:
    """Where the URL has several hosts, the one that serves is found, also when another has taken its place."""
    with ValkeyServer(*DURABLE, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        async with open_gate(f"{replica.url},127.0.0.1:{server.port}", outage_limit=9.0) as gate:
            job = await gate.start()
            await _in_step(server, replica)
            server.kill()
            replica.ask("REPLICAOF", "NO", "ONE")
            gate.opened.set()
            await gate.check_recovery(job)
        check_jobs(replica, "gate", [job.id])


async def test_become_a_replica(server: ValkeyServer) -> None:
    """A server that became a replica of another is asked no more."""
    with ValkeyServer() as other:
        async with open_gate(f"{server.url},127.0.0.1:{other.port}", outage_limit=9.0) as gate:
            job = await gate.start()
            other.ask("REPLICAOF", "127.0.0.1", server.port)
            await _in_step(server, other)
            other.ask("REPLICAOF", "NO", "ONE")
            server.ask("REPLICAOF", "127.0.0.1", other.port)
            gate.opened.set()
            await gate.check_recovery(job)
        check_jobs(other, "gate", [job.id])


async def _in_step(server: ValkeyServer, replica: ValkeyServer) -> None:
    """Wait until a replica has all that its server has."""
    with trio.fail_after(60):
        while server.offset() != replica.offset() or "master_link_status:up" not in str(replica.ask("INFO")):  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_replicas_keep_what_is_acknowledged(server: ValkeyServer) -> None:
    """Where a call is answered once a replica has it, a failover at any moment loses nothing; without one, it fails."""
    with ValkeyServer(*DURABLE, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        await _in_step(server, replica)
        hosts = f"{server.url},127.0.0.1:{replica.port}"
        async with open_worker(lambda: RedisJobStore(hosts, replicas=1, outage_limit=9.0)) as worker:
            replica.pause()
            entry = new_entry()
            with pytest.raises(StoreUnavailableError, match="fewer than 1 replicas"):
                await worker.store.insert([entry], "mark")
            replica.resume()
            await worker.store.insert([entry], "mark")
            kept = [*await worker.insert(*(new_entry() for _ in range(200))), entry]
            server.kill()
            replica.ask("REPLICAOF", "NO", "ONE")
        check_jobs(replica, "jobtrio", [job.id for job in kept])


async def test_killed_before_a_replica_had_it(server: ValkeyServer) -> None:
    """What the server has answered, and no replica has when the server dies, is not acknowledged."""
    with ValkeyServer(*DURABLE, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        await _in_step(server, replica)
        async with open_worker(lambda: RedisJobStore(server.url, replicas=1, outage_limit=9.0)) as worker:
            replica.pause()
            entry = new_entry()

            async def insert() -> None:
                with pytest.raises(StoreUnavailableError, match="not known whether replicas have"):
                    await worker.store.insert([entry], "mark")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(insert)
                while not server.ask("EXISTS", f"{{jobtrio}}:job:{entry.id}"):  # noqa: ASYNC110 - nobody tells
                    await trio.sleep(0.01)
                server.kill()
            replica.resume()


async def test_made_again_over_another_connection(server: ValkeyServer) -> None:
    """A call that finds itself done is answered once a replica has what it did over a connection that was lost."""
    with ValkeyServer(*DURABLE, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        await _in_step(server, replica)
        async with open_worker(lambda: RedisJobStore(server.url, replicas=1, outage_limit=9.0)) as worker:
            claim = await worker.start()
            replica.pause()
            finish = partial(worker.store.finish, claim, Completed())
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match="fewer than 1 replicas"):
                    await finish()
                server.ask("CLIENT", "KILL", "TYPE", "normal")
                await trio.sleep(0.2)  # for the store to notice
            replica.resume()
            assert await finish()


async def test_only_a_replica(server: ValkeyServer) -> None:
    """With no other address, a replica is a store that is away, and said to be one."""
    with ValkeyServer(*DURABLE, "--replicaof", f"127.0.0.1 {server.port}") as replica:
        with pytest.raises(StoreUnavailableError, match="READONLY"):
            async with open_gate(replica.url):
                raise AssertionError("a replica was taken for a store")


# -- what the server refuses


async def test_out_of_memory(server: ValkeyServer) -> None:
    """With no memory left submitting fails clearly, while jobs that are there run to their end."""
    async with open_gate(server.url) as gate:
        job = await gate.start()
        waiting = await gate.registry.submit("wait")
        server.ask("CONFIG", "SET", "maxmemory", 1)
        with trio.fail_after(60), pytest.raises(StoreUnavailableError, match=r"OOM command not allowed"):
            await gate.registry.submit("wait")
        gate.opened.set()
        with trio.fail_after(60):
            assert await waiting.wait() == Completed(waiting.id)
            assert await job.wait() == Completed(job.id)
        server.ask("CONFIG", "SET", "maxmemory", 0)
        await gate.check_recovery(job)
        check_jobs(server, "gate", [job.id, waiting.id])


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_refusal_is_told_once(
    server: ValkeyServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    """The log says that a server refuses, and that it does so no more; not where it may do so again any moment."""
    monkeypatch.setattr("jobtrio.stores._outages.CALM", inf)
    async with open_worker(lambda: RedisJobStore(server.url)) as worker:
        claim = await worker.start()
        server.ask("CONFIG", "SET", "maxmemory", 1)
        for n in range(1, 4):
            with pytest.raises(StoreUnavailableError, match="OOM"):
                await worker.insert(new_entry())
            with pytest.raises(StoreUnavailableError, match="OOM"):
                await worker.store.append_messages(claim, tokens(n, n))
            assert await worker.store.find(JobQuery())
            assert (await worker.store.renew([claim], 30.0))[0].held
        server.ask("CONFIG", "SET", "maxmemory", 0)
        await worker.insert(new_entry())
        await worker.store.append_messages(claim, tokens(1, 1))
        told = [message.partition(" command")[0] for message in caplog.messages]
        assert told == [f"the store is away: 127.0.0.1:{server.port}: OOM"]
        if not is_closed:
            monkeypatch.setattr("jobtrio.stores._outages.CALM", 0.0)
            await until(lambda: len(caplog.messages) > 1)  # also where nothing more is asked for
    assert caplog.messages[1:] == ["the store is back"]


async def test_a_missing_replica_is_told(server: ValkeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """The log says why nothing is answered where a replica is to have it, and there is none."""
    async with open_worker(lambda: RedisJobStore(server.url, replicas=1, outage_limit=3)) as worker:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                await worker.insert(new_entry())
    assert re.fullmatch("the store is away: .*replicas have what was written.*", caplog.messages[0])
    assert len(caplog.messages) == 1


async def test_connected_with_no_memory_left(server: ValkeyServer) -> None:
    """Whoever has to connect while there is no memory left, also for the first time, can let jobs come to their end."""
    async with open_gate(server.url) as gate:
        gate.opened.set()
        waiting = await gate.registry.create_job()
        server.ask("CONFIG", "SET", "maxmemory", 1)
        server.ask("CLIENT", "KILL", "TYPE", "normal")
        async with open_worker(lambda: RedisJobStore(server.url, prefix="gate")):
            pass
        with trio.fail_after(60):
            assert await waiting.cancel()
            assert isinstance(await waiting.wait(), Cancelled)
        server.ask("CONFIG", "SET", "maxmemory", 0)
    check_jobs(server, "gate", [waiting.id])


async def test_much_to_say_with_no_memory_left(server: ValkeyServer) -> None:
    """An attempt ends with no memory left however much it has still to say; what others send is refused."""
    async with open_worker(lambda: RedisJobStore(server.url)) as worker:
        claim = await worker.start()
        server.ask("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(StoreUnavailableError, match="OOM"):
            await worker.store.append_messages(claim, tokens(1, 1))
        sent = [Token(seq, 1, "x" * 500_000) for seq in range(1, 13)]
        assert await worker.store.finish(claim, Completed(), messages=sent)
        server.ask("CONFIG", "SET", "maxmemory", 0)
        assert (await worker.record(claim.entry.id)).state is JobState.COMPLETED
    check_jobs(server, "jobtrio", [claim.entry.id])


REFUSED = r"invalid bulk length|(?i:connection lost)"
"""How a value is refused that is too long: the server closes the connection, which may be seen before its answer."""


async def test_values_that_the_server_does_not_take(server: ValkeyServer) -> None:
    """What is longer than the server takes holds up the job that it is of, for as long as it does not, and no other."""
    executors = jobtrio.Executors()

    @executors.register("return")
    async def give_back(job: jobtrio.JobContext) -> str:
        return "x" * int(job.payload)

    server.ask("CONFIG", "SET", "proto-max-bulk-len", 1 << 20)
    store = RedisJobStore(server.url, outage_limit=3.0)
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors, store=store) as registry:
            with pytest.raises(StoreUnavailableError, match=REFUSED):
                await registry.submit("return", "x" * (2 << 20))
            large = await registry.submit("return", 2 << 20)
            try:
                for _ in range(5):
                    assert await (await until_answered(partial(registry.submit, "return", 1))).wait() == Completed("x")
                    await trio.sleep(0.1)
                assert large.state is JobState.RUNNING
            finally:  # else leaving waits for the large job's end, and hides why the test failed
                server.ask("CONFIG", "SET", "proto-max-bulk-len", 512 << 20)
            assert await large.wait() == Completed("x" * (2 << 20))


async def test_calls_behind_a_value_that_the_server_does_not_take(server: ValkeyServer) -> None:
    """They wait for the next connection, rather than fail with the one that the server closes for that value."""
    server.ask("CONFIG", "SET", "proto-max-bulk-len", 1 << 20)
    async with open_worker(lambda: RedisJobStore(server.url)) as worker:

        async def insert_large() -> None:
            with pytest.raises(StoreUnavailableError, match=REFUSED):
                await worker.insert(new_entry(payload="x" * (2 << 20)))

        async def look() -> None:
            assert await worker.store.load("of nobody") is None

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for call in (look, look, look, insert_large, look, look, look):  # in whatever order the tasks run
                    nursery.start_soon(call)


async def test_busy(server: ValkeyServer) -> None:
    """While somebody's script keeps the server busy it is away, as its answers say."""
    server.ask("CONFIG", "SET", "busy-reply-threshold", 100)
    async with open_gate(server.url) as gate, trio.open_nursery() as nursery:
        job = await gate.start()
        busy = socket.create_connection(("127.0.0.1", server.port))
        with busy:
            busy.sendall(b"*3\r\n$4\r\nEVAL\r\n$17\r\nwhile true do end\r\n$1\r\n0\r\n")
            await trio.sleep(0.3)
            await gate.check_outage(job, "BUSY")
            server.ask("SCRIPT", "KILL")
        await gate.check_recovery(job)
        nursery.cancel_scope.cancel()


async def test_too_many_connections(server: ValkeyServer) -> None:
    """A server that takes no more connections is away until it does."""
    async with open_proxy(server) as proxy, open_gate(url_of(proxy)) as gate:
        job = await gate.start()
        proxy.refuse()
        proxy.cut()
        with _all_connections(server):
            await proxy.accept()
            await gate.check_outage(job, "max number of clients|connection lost|away")
        await gate.check_recovery(job)


@contextmanager
def _all_connections(server: ValkeyServer) -> Iterator[None]:
    server.ask("CONFIG", "SET", "maxclients", 10)
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(10)]
    try:
        yield
    finally:
        for connection in held:
            connection.close()
        with socket.create_connection(("127.0.0.1", server.port)):
            pass


@pytest.mark.parametrize("user", ["", "ann:wrong@", ":wrong@"])
async def test_refused_logins(user: str) -> None:
    """A missing or wrong password is an error at once, and names neither."""
    with ValkeyServer() as server:
        server.ask("CONFIG", "SET", "requirepass", "secret")
        url = server.url.replace("//", f"//{user}")
        with trio.fail_after(60), pytest.raises(StoreError, match="check the user") as caught:
            async with open_gate(url):
                raise AssertionError("it was let in")
        assert not isinstance(caught.value, StoreUnavailableError)
        assert "wrong" not in str(caught.value).replace("WRONGPASS", "")
        async with open_gate(server.url.replace("//", "//:secret@")) as gate:
            gate.opened.set()
            job = await gate.registry.submit("wait")
            assert await job.wait() == Completed(job.id)


@pytest.mark.parametrize("rule", ["-@write", "-evalsha", "resetkeys", "off"])
async def test_a_permission_that_is_taken_away(
    server: ValkeyServer, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What the user may not do any more, while the store is open, is an outage until it is allowed again."""
    allowed = ("~*", "&*", "+@all", "on")
    server.ask("ACL", "SETUSER", "jobs", ">secret", *allowed)
    async with open_gate(server.url.replace("//", "//jobs:secret@")) as gate:
        job = await gate.start()
        server.ask("ACL", "SETUSER", "jobs", rule)
        if rule == "off":
            server.ask("CLIENT", "KILL", "USER", "jobs")
        await gate.check_outage(job, "check the user")
        server.ask("ACL", "SETUSER", "jobs", *allowed)
        await gate.check_recovery(job)
    warnings = [text for text in caplog.messages if "check the user" in text]
    assert len(warnings) == 1


@pytest.mark.parametrize("rule", ["-hmget", "-xadd"])
async def test_a_permission_that_only_some_calls_need(server: ValkeyServer, rule: str) -> None:
    """What the user may not do is not taken for what somebody else has put in the place of a job or its stream."""
    allowed = ("~*", "&*", "+@all", "on")
    server.ask("ACL", "SETUSER", "jobs", ">secret", *allowed)
    url = server.url.replace("//", "//jobs:secret@")
    async with open_worker(lambda: RedisJobStore(url)) as worker:
        claim = await worker.start()
        assert await worker.store.append_messages(claim, tokens(1, 2))
        waiting = new_entry()
        await worker.insert(waiting)
        server.ask("ACL", "SETUSER", "jobs", rule)
        with pytest.raises(StoreUnavailableError, match="check the user"):
            await worker.store.append_messages(claim, tokens(3, 4))
        if rule == "-hmget":
            with pytest.raises(StoreUnavailableError, match="check the user"):
                await worker.claim()
        server.ask("ACL", "SETUSER", "jobs", *allowed)
        assert await worker.store.append_messages(claim, tokens(3, 4))
        assert await worker.stream(claim.entry.id) == tokens(1, 4)
        assert (await worker.claim_one()).entry.id == waiting.id
    check_jobs(server, "jobtrio")


# -- hints


async def test_a_hint_that_is_no_text(server: ValkeyServer) -> None:
    """What a stranger publishes on the store's channel need not be text."""
    async with open_gate(server.url) as gate:
        job = await gate.start()
        server.ask("EVAL", "return redis.call('SPUBLISH', KEYS[1], '\\255')", 1, "{gate}:hints")
        server.ask("SPUBLISH", "{gate}:hints", "due:soon")
        await trio.sleep(0.1)
        gate.opened.set()
        await gate.check_recovery(job)


async def test_hints_are_lost(server: ValkeyServer) -> None:
    """Where hints get lost, work and messages are found by looking; hints are heard again once they come."""
    async with (
        open_gate(server.url, outage_limit=9.0) as gate,
        open_worker(lambda: RedisJobStore(server.url, prefix="gate")) as submitter,
    ):
        gate.opened.set()
        for _ in range(3):
            server.ask("CLIENT", "KILL", "TYPE", "pubsub")
            entry = new_entry("wait")
            await submitter.insert(entry)
            with trio.fail_after(60):
                while (await submitter.load(entry.id)).state is not JobState.COMPLETED:  # noqa: ASYNC110
                    await trio.sleep(0.01)


async def test_hints_after_an_outage(server: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints are heard again after an outage in which it was tried in vain to connect, again and again."""
    monkeypatch.setattr("jobtrio.stores.redis._subscriber.PAUSE", 0.01)
    monkeypatch.setattr("jobtrio.stores.redis._session.LONGEST_PAUSE", 0.05)
    async with open_worker(lambda: RedisJobStore(server.url, prefix="gate")):
        server.kill()
        await trio.sleep(0.5)
        server.start()
        with trio.fail_after(60):
            while server.ask("SPUBLISH", "{gate}:hints", "work") == 0:  # noqa: ASYNC110
                await trio.sleep(0.01)
