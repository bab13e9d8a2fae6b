"""A PostgreSQL server in trouble: running jobs run on, callers are told in time, nothing acknowledged is lost."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, LiteralString, TypeAlias

import postgres_faults
import psycopg
import pytest
import trio
from gate import Gate, open_gate
from patience import until
from postgres_invariants import check_schema
from postgres_server import PostgresServer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from wire import Wire, open_wire

import jobtrio
from jobtrio import Completed, StoreUnavailableError
from jobtrio.psycopg_trio import connect
from jobtrio.stores import _outages
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.postgres._connections import Connections
from jobtrio.testing._workers import new_entry, open_worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from jobtrio.stores.postgres._connections import Link

    Act: TypeAlias = Callable[[PostgresServer, Wire], Awaitable[None]]

FAILING = """
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'on purpose' USING ERRCODE = '{code}'; END $$;
CREATE TRIGGER failing BEFORE INSERT OR UPDATE ON jobtrio.jobs EXECUTE FUNCTION fail();
"""

OUTAGE_LIMIT = 4.0

pytestmark = pytest.mark.timeout(720)  # servers are stopped, started and waited for

ENOUGH = 60.0
"""Seconds after which a wait is one too many."""


def store_on(conninfo: str, *, outage_limit: float = OUTAGE_LIMIT, listen: bool = True) -> PostgresJobStore:
    """Return a store on the server."""
    return PostgresJobStore(conninfo, outage_limit=outage_limit, listen=listen)


async def stopped(server: PostgresServer, _: Wire) -> None:
    await trio.to_thread.run_sync(server.stop)


async def killed(server: PostgresServer, _: Wire) -> None:
    await trio.to_thread.run_sync(server.kill)


async def started(server: PostgresServer, _: Wire) -> None:
    await trio.to_thread.run_sync(server.start)


async def frozen(server: PostgresServer, _: Wire) -> None:
    await trio.to_thread.run_sync(server.freeze)


async def thawed(server: PostgresServer, _: Wire) -> None:
    server.thaw()


async def stalled(_: PostgresServer, wire: Wire) -> None:
    wire.hold()


async def unreachable(_: PostgresServer, wire: Wire) -> None:
    wire.refuse()
    wire.cut()


async def well(_: PostgresServer, wire: Wire) -> None:
    wire.heal()


async def read_only(server: PostgresServer, _: Wire) -> None:
    await trio.to_thread.run_sync(partial(server.restart, default_transaction_read_only="on"))


async def writable(server: PostgresServer, _: Wire) -> None:
    await trio.to_thread.run_sync(server.restart)


OUTAGES = [(stopped, started), (killed, started), (frozen, thawed), (stalled, well), (unreachable, well)]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it said at once that the store is back, also where it has refused something a moment ago."""
    monkeypatch.setattr(_outages, "CALM", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("listen", [True, False])
@pytest.mark.parametrize(("begin", "end"), [*OUTAGES, (read_only, writable)])
async def test_outages_are_survived(
    own_postgres: PostgresServer, begin: Act, end: Act, listen: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Submitting fails within its limit, running jobs run on, and their ends are written when the server is back."""
    conninfo = own_postgres.create_database()
    async with open_wire(own_postgres.port) as wire:
        async with open_gate(store_on(f"{conninfo} port={wire.port}", listen=listen)) as gate:
            job = await gate.start()
            await begin(own_postgres, wire)
            begun = trio.current_time()
            await gate.check_outage(job)
            assert trio.current_time() - begun >= OUTAGE_LIMIT
            await end(own_postgres, wire)
            with trio.fail_after(ENOUGH):
                assert await job.wait() == Completed(job.id)
                after = await submit_when_possible(gate)
                assert await after.wait() == Completed(after.id)
                assert await gate.stream_of(job) == ["before", "behind", None]
    assert gate.runs.count(job.id) == 1
    assert_told(caplog)
    check_schema(conninfo, [job.id, after.id])


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("code", ["25006", "53100", "42501"])
async def test_what_is_refused_while_the_rest_is_done(
    postgres: str, code: LiteralString, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that only answers questions is not back: it is told once that it is away, until it writes again."""
    refuses = True

    async def write(link: Link) -> None:
        if refuses:
            await link.connection.execute(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$")

    async def look(link: Link) -> None:
        await link.connection.execute("SELECT 1")

    connections = Connections(postgres, "jobtrio", 4, 60.0)
    async with connections.opened():
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match=code):
                await connections.use(write)
            await connections.use(look)
        assert [record.message.partition(":")[0] for record in caplog.records] == ["the store is away"]
        refuses = False
        await connections.use(write)
    assert caplog.messages[1:] == ["the store is back"]


async def test_a_connection_that_was_tried_before_the_server_was_back(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that could not be made in time says nothing where another one has been made meanwhile."""
    is_tried, is_back = trio.Event(), trio.Event()

    async def connect_in_vain(link: Link) -> None:
        is_tried.set()
        await is_back.wait()
        raise psycopg.errors.ConnectionTimeout("no connection within 2.5 s")

    async def look(link: Link) -> None:
        await link.connection.execute("SELECT 1")

    async def try_in_vain() -> None:
        with pytest.raises(StoreUnavailableError, match=r"no connection within 2\.5 s"):
            await connections.use(connect_in_vain)

    connections = Connections(postgres, "jobtrio", 4, 60.0)
    async with connections.opened(), trio.open_nursery() as nursery:
        nursery.start_soon(try_in_vain)
        await is_tried.wait()
        await connections.use(look)
        is_back.set()
    assert caplog.messages == []


@pytest.mark.parametrize("is_closed", [False, True])
async def test_what_is_refused_of_some(
    postgres: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    """Where there is room for some values and not for others, the log tells in the end, and not by turns."""
    monkeypatch.setattr(_outages, "CALM", inf)  # however long the turns take
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=OUTAGE_LIMIT)) as worker:
        with psycopg.connect(postgres) as other:
            other.execute(FAILING.format(code="53100").encode())
        for _ in range(3):
            with psycopg.connect(postgres) as other:
                other.execute("ALTER TABLE jobtrio.jobs ENABLE TRIGGER failing")
            with pytest.raises(StoreUnavailableError, match="on purpose"):
                await worker.insert(new_entry())
            with psycopg.connect(postgres) as other:
                other.execute("ALTER TABLE jobtrio.jobs DISABLE TRIGGER failing")
            await worker.insert(new_entry())
        assert [text.partition(":")[0] for text in caplog.messages] == ["the store is away"]
        if not is_closed:
            monkeypatch.setattr(_outages, "CALM", 0.0)
            await until(lambda: len(caplog.messages) > 1)  # also where nothing more is asked for
    assert caplog.messages[1:] == ["the store is back"]


@pytest.mark.usefixtures("at_once")
async def test_pruning_that_is_refused(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    """A server that says what is to be pruned, and refuses to remove it, is told once to be away."""
    async with open_worker(lambda: PostgresJobStore(postgres), jobtrio.Retention(finished_jobs=0)) as worker:
        await worker.end(await worker.start())
        with psycopg.connect(postgres) as other:
            other.execute(FAILING.format(code="53100").replace("INSERT OR UPDATE", "DELETE").encode())
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="on purpose"):
                await worker.store.prune()
        assert [text.partition(":")[0] for text in caplog.messages] == ["the store is away"]
        with psycopg.connect(postgres) as other:
            other.execute("DROP TRIGGER failing ON jobtrio.jobs")
        await worker.store.prune()
    assert caplog.messages[1:] == ["the store is back"]


def assert_told(caplog: pytest.LogCaptureFixture) -> None:
    """Check that the log tells by turns that the store went away and that it came back."""
    told = [text.partition(":")[0] for text in caplog.messages if text.startswith("the store is ")]
    assert told
    assert told == ["the store is away", "the store is back"] * (len(told) // 2)


async def submit_when_possible(gate: Gate) -> jobtrio.Job:
    with trio.fail_after(ENOUGH):
        while True:
            try:
                return await gate.registry.submit("wait")
            except StoreUnavailableError:
                await trio.sleep(0.05)


@pytest.mark.parametrize(("begin", "end"), [*OUTAGES, (read_only, writable)])
async def test_short_outages_are_waited_out(own_postgres: PostgresServer, begin: Act, end: Act) -> None:
    """A call that begins in an outage which ends in time succeeds, and nobody notices more than a delay."""
    conninfo = own_postgres.create_database()
    async with open_wire(own_postgres.port) as wire:
        async with open_gate(store_on(f"{conninfo} port={wire.port}", outage_limit=ENOUGH)) as gate:
            gate.opened.set()
            await (await gate.registry.submit("wait")).wait()
            await begin(own_postgres, wire)
            jobs: list[jobtrio.Job] = []

            async def submit() -> None:
                jobs.append(await gate.registry.submit("wait"))

            with trio.fail_after(ENOUGH):
                async with trio.open_nursery() as nursery:
                    for _ in range(5):
                        nursery.start_soon(submit)
                    await trio.sleep(0.3)
                    await end(own_postgres, wire)
                for job in jobs:
                    assert await job.wait() == Completed(job.id)
    assert sorted(gate.runs[1:]) == sorted(job.id for job in jobs)
    check_schema(conninfo, [job.id for job in jobs])


@pytest.mark.once
async def test_half_open(own_postgres: PostgresServer) -> None:
    """Connections that are lost without a word cost a delay, and are made anew."""
    conninfo = own_postgres.create_database()
    async with open_wire(own_postgres.port) as wire:
        async with open_gate(store_on(f"{conninfo} port={wire.port}", outage_limit=10.0)) as gate:
            job = await gate.start()
            wire.lose()
            with trio.fail_after(ENOUGH):
                other = await gate.registry.submit("wait")
                gate.opened.set()
                assert await job.wait() == Completed(job.id)
                assert await other.wait() == Completed(other.id)
    check_schema(conninfo, [job.id, other.id])


@pytest.mark.once
async def test_silent_addresses_leave_time_for_others(
    own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many addresses a name has, there is a connection if one of them answers in its share of the time."""
    silent = [f"127.0.0.{n}" for n in range(2, 8)]
    monkeypatch.setattr(trio.socket, "getaddrinfo", partial(resolve, [*silent, "127.0.0.1"]))
    with ExitStack() as stack:
        for address in silent:
            listener = stack.enter_context(socket.socket())
            listener.bind((address, own_postgres.port))
            listener.listen()
        conninfo = make_conninfo(own_postgres.create_database(), host="db.example")
        async with open_worker(lambda: PostgresJobStore(conninfo, outage_limit=20.0)) as worker:
            await worker.insert(new_entry())


async def resolve(addresses: list[str], *_: object, **__: object) -> list[Any]:
    """Name a host's addresses."""
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in addresses]


def test_how_long_a_try_may_take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All addresses get half of the time that one piece of work may take, unless somebody says how long each may."""
    (tmp_path / "services").write_text("[shop]\nhost=g,h,i\n[patient]\nconnect_timeout=7\nkeepalives_idle=8\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for name in ("PGCONNECT_TIMEOUT", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)

    def limits(conninfo: str) -> tuple[float, object, object]:
        connections = Connections(conninfo, "jobtrio", 4, 6.0)
        given = conninfo_to_dict(connections._conninfo)
        return connections._within, given.get("connect_timeout"), given.get("keepalives_idle")

    for conninfo in ("host=a,b,c", "hostaddr=::1,::2", "service=shop", ""):
        assert limits(conninfo) == (3.0, "0", "30")
    assert limits("connect_timeout=2") == (6.0, "2", "30")
    assert limits("service=patient") == (6.0, None, None)  # the service says more than we do


@pytest.mark.once
async def test_another_address(own_postgres: PostgresServer) -> None:
    """Where the connection string names several hosts, the store goes on at the next, be the first silent or shut."""
    conninfo = own_postgres.create_database()
    for trouble in ("hold", "refuse"):
        async with open_wire(own_postgres.port) as first, open_wire(own_postgres.port) as second:
            where = f"{conninfo} host=127.0.0.1,127.0.0.1 port={first.port},{second.port}"
            async with open_gate(store_on(where, outage_limit=10.0)) as gate:
                job = await gate.start()
                assert first.accepted
                assert not second.accepted
                getattr(first, trouble)()
                if trouble == "refuse":
                    first.cut()
                with trio.fail_after(ENOUGH):
                    other = await gate.registry.submit("wait")
                    gate.opened.set()
                    assert await job.wait() == Completed(job.id)
                    assert await other.wait() == Completed(other.id)
                assert second.accepted


@pytest.mark.once
async def test_commits_that_take_long(own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits but a moment for locks waits for his turn to commit, however long it takes, and does nothing twice."""
    conninfo = own_postgres.create_database()
    own_postgres.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    own_postgres.execute("ALTER SYSTEM SET synchronous_commit = 'local'")
    own_postgres.execute("SELECT pg_reload_conf()")
    try:
        async with open_worker(lambda: PostgresJobStore(conninfo, outage_limit=12.0)) as worker:
            claim = await worker.start()
            with psycopg.connect(conninfo) as other:  # behind this its writes are made apart from others
                other.execute("SELECT FROM jobtrio.jobs WHERE id = %s FOR UPDATE", [claim.entry.id])
                with pytest.raises(StoreUnavailableError):
                    await worker.store.finish(claim, Completed())
            faults = postgres_faults.install(monkeypatch)
            with trio.fail_after(ENOUGH):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(commit_for_long, conninfo)
                    await seen(own_postgres, 1, "SyncRep")
                    nursery.start_soon(worker.insert, new_entry(key="one"))
                    nursery.start_soon(worker.store.finish, claim, Completed())
                    await seen(own_postgres, 2, "object")
                    await trio.sleep(0.3)
                    own_postgres.execute(
                        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                    )
            assert sum("COMMIT" in names for names in faults.asked) == 2
    finally:
        own_postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
        own_postgres.execute("ALTER SYSTEM RESET synchronous_commit")
        own_postgres.restart()


async def commit_for_long(conninfo: str) -> None:
    """Commit a notice, which waits for a standby that is not there, and keeps others from committing theirs."""
    async with await connect(conninfo, options="-c synchronous_commit=on") as connection:
        await connection.execute("SELECT pg_notify('long', ''), pg_logical_emit_message(true, '', 'is waited for')")


async def seen(server: PostgresServer, sessions: int, event: str) -> None:
    """Return when so many sessions wait for something."""
    with trio.fail_after(ENOUGH):
        while True:
            waits = server.execute("SELECT wait_event FROM pg_stat_activity WHERE backend_type = 'client backend'")
            if waits.count((event,)) == sessions:
                return
            await trio.sleep(0.01)


async def test_failover(own_postgres: PostgresServer) -> None:
    """When a standby takes over from a server that was killed, everything acknowledged is there, and work goes on."""
    if not own_postgres.can_be_copied:
        pytest.skip("these programs of PostgreSQL have no pg_basebackup")
    own_postgres.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    alone = {"synchronous_standby_names": ""}
    standby = await trio.to_thread.run_sync(PostgresServer, alone, own_postgres)
    try:
        await trio.to_thread.run_sync(standby.start)
        own_postgres.execute("SELECT pg_reload_conf()")
        both = {"host": "127.0.0.1,127.0.0.1", "port": f"{own_postgres.port},{standby.port}"}
        conninfo = own_postgres.create_database(**both, target_session_attrs="read-write")
        database = str(conninfo_to_dict(conninfo)["dbname"])
        async with open_gate(store_on(conninfo, outage_limit=ENOUGH)) as gate:
            job = await gate.start()
            acknowledged = [await gate.registry.submit("wait") for _ in range(10)]
            own_postgres.kill()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, standby.promote)
                with trio.fail_after(ENOUGH):
                    acknowledged.append(await gate.registry.submit("wait"))
            gate.opened.set()
            with trio.fail_after(ENOUGH):
                for each in (job, *acknowledged):
                    assert await each.wait() == Completed(each.id)
        check_schema(standby.conninfo(database), [job.id for job in acknowledged])
    finally:
        standby.close()
        own_postgres.start(synchronous_standby_names="")
        own_postgres.execute("ALTER SYSTEM RESET synchronous_standby_names")
        own_postgres.restart()


async def test_sessions_that_can_only_read(own_postgres: PostgresServer) -> None:
    """A session that was begun where nothing could be written may stay so: others are begun, once that has changed."""
    conninfo = own_postgres.create_database()
    database = str(conninfo_to_dict(conninfo)["dbname"])
    async with open_gate(store_on(conninfo)) as gate:
        job = await gate.start()
        own_postgres.execute("ALTER DATABASE {} SET default_transaction_read_only = on", database)
        end_sessions(own_postgres, database)
        await gate.check_outage(job, "read-only")
        own_postgres.execute("ALTER DATABASE {} RESET default_transaction_read_only", database)
        await gate.check_recovery(job)


async def test_ended_by_an_administrator(own_postgres: PostgresServer) -> None:
    """Sessions that an administrator ends, that of the listener as well, are made anew, and no call fails for it."""
    conninfo = own_postgres.create_database()
    database = str(conninfo_to_dict(conninfo)["dbname"])
    async with open_gate(store_on(conninfo)) as gate:
        gate.opened.set()
        for _ in range(3):
            end_sessions(own_postgres, database)
            with trio.fail_after(ENOUGH):
                job = await gate.registry.submit("wait")
                end_sessions(own_postgres, database)
                assert await job.wait() == Completed(job.id)
    check_schema(conninfo, [])


def end_sessions(server: PostgresServer, database: str) -> None:
    with psycopg.connect(server.conninfo(), autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])


async def test_too_many_connections(own_postgres: PostgresServer) -> None:
    """A server with no place left is an outage that says so, and ends when there is a place."""
    own_postgres.restart(max_connections="8", **own_postgres.unreserved)
    conninfo = own_postgres.create_database()
    database = str(conninfo_to_dict(conninfo)["dbname"])
    async with open_gate(store_on(conninfo)) as gate:
        job = await gate.start()
        others = []
        end_sessions(own_postgres, database)
        with pytest.raises(psycopg.OperationalError, match="too many clients"):  # noqa: PT012
            while True:
                others.append(psycopg.connect(own_postgres.conninfo(), autocommit=True))
        said = ""
        while "too many clients" not in said:
            # The store may have been quicker with some of the places.
            others[0].execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [database])
            with suppress(psycopg.OperationalError):
                others.append(psycopg.connect(own_postgres.conninfo(), autocommit=True))
            try:
                with trio.fail_after(ENOUGH):
                    await gate.registry.submit("wait")
            except StoreUnavailableError as exc:
                said = str(exc)
        gate.opened.set()
        for other in others:
            other.close()
        with trio.fail_after(ENOUGH):
            assert await job.wait() == Completed(job.id)
    check_schema(conninfo, [job.id])


@pytest.mark.once
@pytest.mark.parametrize("code", ["53100", "53200", "53400", "58030", "57P03", "40001", "55P03", "54000"])
async def test_each_error_passes(postgres: str, code: str) -> None:
    """While the server says that it is short of something, calls fail as unavailable; then they succeed."""
    async with open_gate(store_on(postgres)) as gate:
        job = await gate.start()
        with psycopg.connect(postgres, autocommit=True) as admin:
            # In a thread: it waits for transactions whose next statement comes from here.
            await trio.to_thread.run_sync(admin.execute, FAILING.format(code=code).encode())
            with trio.fail_after(ENOUGH), pytest.raises(StoreUnavailableError, match=code):
                await gate.registry.submit("wait")
            gate.opened.set()
            with trio.fail_after(ENOUGH):
                await gate.passed.wait()
            await trio.sleep(0.1)
            assert job.outcome is None
            await trio.to_thread.run_sync(admin.execute, "DROP TRIGGER failing ON jobtrio.jobs")
        with trio.fail_after(ENOUGH):
            assert await job.wait() == Completed(job.id)
            after = await submit_when_possible(gate)
            assert await after.wait() == Completed(after.id)
    check_schema(postgres, [job.id, after.id])


async def test_no_room_for_notices(own_postgres: PostgresServer) -> None:
    """While another client of the server's takes no notices, so that there is no room for more, the store is away."""
    if own_postgres.version < 17:
        pytest.skip("it would take gigabytes of notices")
    own_postgres.restart(max_notify_queue_pages="64")
    conninfo = own_postgres.create_database()
    async with open_gate(store_on(conninfo)) as gate:
        job = await gate.start()
        with psycopg.connect(conninfo) as idle:
            idle.execute("LISTEN other")
            idle.commit()
            idle.execute("SELECT 1")
            with suppress(psycopg.errors.ProgramLimitExceeded), psycopg.connect(conninfo, autocommit=True) as other:
                while True:
                    other.execute("SELECT pg_notify('other', repeat('x', 7000))")
            with trio.fail_after(ENOUGH), pytest.raises(StoreUnavailableError, match="54000"):
                await gate.registry.submit("wait")
            gate.opened.set()
            with trio.fail_after(ENOUGH):
                await gate.passed.wait()
        with trio.fail_after(ENOUGH):
            assert await job.wait() == Completed(job.id)
            after = await submit_when_possible(gate)
            assert await after.wait() == Completed(after.id)
    check_schema(conninfo, [job.id, after.id])


async def test_listener_lost(own_postgres: PostgresServer) -> None:
    """When only the session that listens is lost, news is heard again soon."""
    conninfo = own_postgres.create_database()
    async with open_gate(store_on(conninfo), queues={}) as watcher, open_gate(store_on(conninfo)) as worker:
        for _ in range(2):
            with psycopg.connect(own_postgres.conninfo(), autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%'")
            job = await watcher.registry.submit("wait")
            worker.opened.set()
            with trio.fail_after(ENOUGH):
                assert await job.wait() == Completed(job.id)


async def test_listener_lost_before_it_listens(own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the session that is to listen is lost without a word before it does, another takes its place."""
    conninfo = own_postgres.create_database()
    connect = Connections.connect
    made = 0

    async def lose_second(connections: Connections) -> Any:
        nonlocal made
        made += 1
        connection = await connect(connections)
        if made == 2:  # the first looks at the schema
            wire.lose()
        return connection

    monkeypatch.setattr(Connections, "connect", lose_second)
    async with open_wire(own_postgres.port) as wire:
        store = PostgresJobStore(f"{conninfo} port={wire.port}", outage_limit=OUTAGE_LIMIT)
        async with jobtrio.open_registry(store=store, queues={}):
            with trio.fail_after(ENOUGH):
                while store.poll_interval < 5.0:  # noqa: ASYNC110 - nobody tells when it hears
                    await trio.sleep(0.02)
    assert made == 3


async def test_lease_over(own_postgres: PostgresServer) -> None:
    """A run whose lease is over before the server is back is stopped, and another attempt takes its place."""
    conninfo = own_postgres.create_database()
    async with open_wire(own_postgres.port) as wire:
        async with open_gate(store_on(f"{conninfo} port={wire.port}"), lease=1.0) as gate:
            job = await gate.start()
            gate.begun = trio.Event()
            wire.hold()
            await trio.sleep(1.5)
            wire.heal()
            with trio.fail_after(ENOUGH):
                await gate.begun.wait()
                gate.opened.set()
                assert await job.wait() == Completed(job.id)
            assert gate.runs == [job.id, job.id]
            # A busy machine may lose the lease of the next attempt as well, before that has begun.
            stream = await gate.stream_of(job)
            assert stream[:2] == ["before", None]
            assert [each for each in stream if each is not None] == ["before", "before", "behind"]
    check_schema(conninfo, [job.id])


async def test_leaving_in_an_outage(own_postgres: PostgresServer) -> None:
    """A registry is left in bounded time though its server is away, and its jobs are there for others."""
    conninfo = own_postgres.create_database()
    with trio.fail_after(2 * ENOUGH):
        with suppress(ZeroDivisionError):
            async with open_gate(store_on(conninfo), lease=1.0) as gate:
                job = await gate.start()
                own_postgres.kill()
                1 / 0  # noqa: B018
        own_postgres.start()
        async with open_gate(store_on(conninfo)) as gate:
            gate.opened.set()
            assert await (await gate.registry.get(job.id)).wait() == Completed(job.id)
    check_schema(conninfo, [job.id])


async def test_opening_in_an_outage(own_postgres: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    """A store that can't be opened within its limit raises; one whose server comes in time is opened.

    It is said while it is waited for.
    """
    conninfo = own_postgres.create_database()
    own_postgres.stop()
    begun = trio.current_time()
    with trio.fail_after(ENOUGH), pytest.raises(StoreUnavailableError, match="refused"):
        await open_gate(store_on(conninfo)).__aenter__()
    assert trio.current_time() - begun >= OUTAGE_LIMIT
    assert [text.partition(":")[0] for text in caplog.messages] == ["the store is away"]
    caplog.clear()
    async with trio.open_nursery() as nursery:

        async def start() -> None:
            await until(lambda: bool(caplog.messages))
            await trio.to_thread.run_sync(own_postgres.start)

        nursery.start_soon(start)
        async with open_gate(store_on(conninfo, outage_limit=ENOUGH)) as gate:
            assert [text.partition(":")[0] for text in caplog.messages] == ["the store is away", "the store is back"]
            gate.opened.set()
            job = await gate.registry.submit("wait")
            assert await job.wait() == Completed(job.id)


@pytest.mark.once
async def test_trouble_without_end(own_postgres: PostgresServer) -> None:
    """Whatever goes wrong while jobs are submitted and run, each that was acknowledged ends, and runs once."""
    conninfo = own_postgres.create_database()
    acknowledged: list[jobtrio.Job] = []
    troubled = True
    async with open_wire(own_postgres.port) as wire:
        async with open_gate(store_on(f"{conninfo} port={wire.port}", outage_limit=4.0)) as gate:
            gate.opened.set()

            async def submit() -> None:
                while troubled:
                    with suppress(StoreUnavailableError):
                        acknowledged.append(await gate.registry.submit("wait"))
                    await trio.sleep(0.005)

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(submit)
                for number, (begin, end) in enumerate(OUTAGES, 1):
                    while len(acknowledged) < 4 * number:  # noqa: ASYNC110 - of several tasks
                        await trio.sleep(0.05)
                    await begin(own_postgres, wire)
                    await trio.sleep(0.3)
                    await end(own_postgres, wire)
                    wire.cut()
                    await trio.sleep(0.1)
                    wire.lose()
                await submit_when_possible(gate)
                troubled = False
            with trio.fail_after(2 * ENOUGH):
                for job in acknowledged:
                    assert await job.wait() == Completed(job.id)
    assert len(acknowledged) >= 4 * len(OUTAGES)
    assert len(gate.runs) == len(set(gate.runs))
    states = check_schema(conninfo, [job.id for job in acknowledged])
    assert set(states.values()) == {"COMPLETED"}
