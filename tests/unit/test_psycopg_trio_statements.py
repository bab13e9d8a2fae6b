"""Statements: interrupted at any time, they leave the connection at rest or closed."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
import trio
from psycopg import pq
from psycopg_bridge import SLOW_COMMIT, check_at_rest, scalar, sessions, wait_for_session
from trio.testing import wait_all_tasks_blocked
from wire import open_wire

from jobtrio.psycopg_trio import TrioConnection, _cancelling, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres_server import PostgresServer


async def test_cancelled_on_the_server(postgres: str) -> None:
    """A cancelled statement stops on the server as well, and the connection goes on."""
    async with await connect(postgres, autocommit=True) as connection:
        with trio.move_on_after(0.05) as scope:
            await connection.execute("SELECT pg_sleep(100)")
        assert scope.cancelled_caught
        assert [state for state, _ in sessions(postgres)] == ["idle"]
        await check_at_rest(connection)


async def test_cancelled_before(postgres: str) -> None:
    """A statement of a task that is cancelled already is not sent."""
    async with await connect(postgres, autocommit=True) as connection:
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.execute("CREATE TABLE t (a int)")
        assert scope.cancelled_caught
        assert sessions(postgres) == [("idle", "")]


async def test_cancelled_late(postgres: str) -> None:
    """A statement that was carried out as the cancellation came leaves no answer for the next one."""
    async with await connect(postgres, autocommit=True) as connection:
        for _ in range(50):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.execute, "SELECT 'late'")
                    await wait_all_tasks_blocked()
                    scope.cancel()
            await check_at_rest(connection)


async def test_each_step_is_cancelled(postgres: str) -> None:
    """Where a statement takes several, all of them are cancelled, not only the first."""
    async with await connect(postgres) as connection:
        # Opens a transaction first, and prepares.
        with trio.move_on_after(0.05) as scope:
            await connection.execute("SELECT pg_sleep(100 + %s)", [1], prepare=True)
        assert scope.cancelled_caught
        assert not connection.closed
        await connection.rollback()
        await check_at_rest(connection)


async def test_server_ignores_cancel(postgres: str) -> None:
    """A statement that swallows a first cancel request is asked again."""
    stubborn = "DO $$ BEGIN PERFORM pg_sleep(100); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(100); END $$"
    async with await connect(postgres, autocommit=True) as connection:
        with trio.move_on_after(0.05) as scope:
            await connection.execute(stubborn)
        assert scope.cancelled_caught
        await check_at_rest(connection)


async def test_large_statement_half_sent(postgres_server: PostgresServer) -> None:
    """A statement that is interrupted while it is being sent leaves the connection at rest."""
    async with open_wire(postgres_server.port) as wire:
        async with await connect(postgres_server.conninfo(port=wire.port), autocommit=True) as connection:
            wire.hold()
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connection.execute, "SELECT length(%s)", ["x" * 50_000_000])
                    await wait_all_tasks_blocked(0.05)
                    scope.cancel()
                    wire.release()
            await check_at_rest(connection)


async def test_no_answer(postgres_server: PostgresServer) -> None:
    """A server that does not answer holds a cancelled task up for the grace alone, and the connection is closed."""
    async with open_wire(postgres_server.port) as wire:
        async with await connect(postgres_server.conninfo(port=wire.port), autocommit=True) as connection:
            connection.cancel_grace = 0.2
            wire.hold()
            begun = trio.current_time()
            with trio.move_on_after(0.1) as scope:
                await connection.execute("SELECT 1")
            assert scope.cancelled_caught
            assert 0.25 < trio.current_time() - begun < 5
            assert connection.broken
            with pytest.raises(psycopg.OperationalError, match="closed"):
                await connection.execute("SELECT 1")


async def test_cancel_is_refused(own_postgres: PostgresServer) -> None:
    """When the server can't be told any more, the connection is closed."""
    connection = await connect(own_postgres.conninfo(), autocommit=True)
    own_postgres.freeze()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.execute, "SELECT 1")
            await wait_all_tasks_blocked(0.01)
            scope.cancel()
            own_postgres.thaw()
            own_postgres.kill()
    assert connection.closed


async def test_old_libpq(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a libpq whose cancel requests block they are made in a thread, where psycopg lets others run meanwhile."""
    monkeypatch.setattr(_cancelling, "SAFE_CANCEL_VERSION", pq.version() + 1)
    monkeypatch.setattr(pq, "__impl__", "python")
    called = []
    run_sync = trio.to_thread.run_sync

    async def record(function: Any, **options: Any) -> None:
        called.append(function.__name__)
        await run_sync(function, **options)

    monkeypatch.setattr(trio.to_thread, "run_sync", record)
    async with await connect(postgres, autocommit=True) as connection:
        with trio.move_on_after(0.05) as scope:
            await connection.execute("SELECT pg_sleep(100)")
        assert scope.cancelled_caught
        await check_at_rest(connection)
    assert called == ["cancel"]


async def test_old_libpq_from_c(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where such a request would hold the whole process the server is not told, and the connection is closed."""
    monkeypatch.setattr(_cancelling, "SAFE_CANCEL_VERSION", pq.version() + 1)
    monkeypatch.setattr(pq, "__impl__", "c")
    async with await connect(postgres, autocommit=True) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.execute, "SELECT pg_sleep(100)")
            await wait_all_tasks_blocked(0.01)
            with pytest.raises(psycopg.NotSupportedError, match=r"takes libpq 17, and this is \d+\.\d+"):
                await connection.cancel_safe()
            nursery.cancel_scope.cancel()
        assert connection.closed


async def test_time_bound_of_wait(postgres: str) -> None:
    """Psycopg's own time bound of a wait cancels as a scope does."""
    async with await connect(postgres, autocommit=True) as connection:
        async with connection.lock:
            connection.pgconn.send_query(b"SELECT pg_sleep(100)")
            with pytest.raises(trio.TooSlowError):
                await connection.wait(psycopg.generators.execute(connection.pgconn), timeout=0.05)
        await check_at_rest(connection)


async def test_shared_by_tasks(postgres: str) -> None:
    """Tasks that share a connection get their own answers, also while others are cancelled."""
    async with await connect(postgres, autocommit=True) as connection:
        done = 0

        async def ask(number: int) -> None:
            nonlocal done
            with trio.move_on_after(0.02 if number % 4 == 0 else float("inf")):
                pause = 0.05 if number % 4 == 0 else 0.0
                assert await scalar(connection, "SELECT %s::int FROM pg_sleep(%s)", number, pause) == number
            done += 1

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(ask, number)
        assert done == 40
        await check_at_rest(connection)


async def test_cancelled_while_it_waits_for_its_turn(postgres: str) -> None:
    """A task that is cancelled before its turn does not disturb the one whose turn it is."""
    async with await connect(postgres, autocommit=True) as connection:
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                assert await scalar(connection, "SELECT 7 FROM pg_sleep(0.1)") == 7

            nursery.start_soon(first)
            await wait_all_tasks_blocked(0.01)
            with trio.move_on_after(0.02) as scope:
                await connection.execute("SELECT 1")
            assert scope.cancelled_caught
        await check_at_rest(connection)


async def test_another_task_cancels(postgres: str) -> None:
    """One task can have the server cancel what another one is doing."""
    async with await connect(postgres, autocommit=True) as connection:
        async with trio.open_nursery() as nursery:

            async def sleeper() -> None:
                with pytest.raises(psycopg.errors.QueryCanceled):
                    await connection.execute("SELECT pg_sleep(100)")

            nursery.start_soon(sleeper)
            await wait_for_session(postgres, "active", "SELECT pg_sleep")
            with trio.CancelScope() as scope:
                scope.cancel()  # it is part of cleaning up
                await connection.cancel_safe()
        await connection.cancel_safe(timeout=0)  # psycopg's way to say that there is no limit
        await check_at_rest(connection)
    await connection.cancel_safe()  # closed: nothing to cancel


@pytest.mark.parametrize(("limit", "grace"), [(0.05, 60), (60, 0.05), (0, 0.05)])
async def test_cancelling_takes_too_long(postgres_server: PostgresServer, limit: float, grace: float) -> None:
    """A server that can't be told in time, the grace at most, is an error of psycopg's."""
    async with open_wire(postgres_server.port) as wire:
        async with await connect(postgres_server.conninfo(port=wire.port)) as connection:
            connection.cancel_grace = grace
            wire.hold()
            with pytest.raises(psycopg.errors.CancellationTimeout, match=r"within 0\.05 s"):
                await connection.cancel_safe(timeout=limit)
            wire.release()


async def test_stream(postgres: str) -> None:
    """Rows that are read as they come can be left and cancelled anywhere."""
    async with await connect(postgres, autocommit=True) as connection:
        cursor = connection.cursor()
        rows = [row async for row in cursor.stream("SELECT generate_series(1, 3)")]
        assert rows == [(1,), (2,), (3,)]
        with trio.move_on_after(0.1) as scope:
            async for _ in cursor.stream("SELECT generate_series(1, 100000000)"):
                pass
        assert scope.cancelled_caught
        await check_at_rest(connection)
        stream = cursor.stream("SELECT generate_series(1, 100000000)")
        assert await anext(stream) == (1,)
        await stream.aclose()  # type: ignore[attr-defined]
        await check_at_rest(connection)


async def test_stream_closed_by_a_cancelled_task(postgres: str) -> None:
    """A stream that a cancelled task closes stops on the server, and the connection goes on."""
    async with await connect(postgres, autocommit=True) as connection:
        stream = connection.cursor().stream("SELECT generate_series(1, 100000000)")
        assert await anext(stream) == (1,)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()  # type: ignore[attr-defined]
        await check_at_rest(connection)


async def test_server_cursor(postgres: str) -> None:
    """A cursor on the server is read in pieces, and its fetch can be cancelled."""
    async with await connect(postgres) as connection:
        async with connection.cursor("c") as cursor:
            await cursor.execute("SELECT n, pg_sleep(n * n * 10) FROM generate_series(0, 9) AS n")
            assert await cursor.fetchone() == (0, "")
            with trio.move_on_after(0.05) as scope:
                await cursor.fetchone()
            assert scope.cancelled_caught
            await connection.rollback()
        await check_at_rest(connection)


async def test_server_cursor_that_outlives_transactions(postgres: str) -> None:
    """A cursor on the server that a cancelled task leaves is closed there, with or without a transaction."""
    async with await connect(postgres, autocommit=True) as connection:
        for _ in range(2):
            with trio.CancelScope() as scope:
                async with connection.cursor("c", withhold=True) as cursor:
                    await cursor.execute("SELECT generate_series(1, 100)")
                    scope.cancel()
                    await cursor.fetchone()
            assert scope.cancelled_caught
            assert await scalar(connection, "SELECT count(*) FROM pg_cursors") == 0
        await check_at_rest(connection)


async def test_many_at_once(postgres: str) -> None:
    """`executemany` that is cancelled is rolled back, and the connection goes on."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        cursor = connection.cursor()
        await cursor.executemany("INSERT INTO t VALUES (%s)", [(n,) for n in range(1000)])
        with trio.move_on_after(0.1) as scope:
            await cursor.executemany("INSERT INTO t SELECT 1 FROM pg_sleep(%s)", [(n,) for n in range(1000)])
        assert scope.cancelled_caught
        await check_at_rest(connection)
        assert await scalar(connection, "SELECT count(*) FROM t") == 1000


async def test_forgotten_pipeline(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is left in the middle of something, by whatever fault, is closed rather than handed on."""
    async with await connect(postgres, autocommit=True) as connection:
        async with connection.lock:
            connection.pgconn.enter_pipeline_mode()
        assert connection.closed
    async with await connect(postgres, autocommit=True) as connection:
        async with connection.lock:
            connection.pgconn.send_query(b"SELECT 1")
        assert connection.closed


async def test_two_phase(postgres_server: PostgresServer) -> None:
    """Two-phase transactions are psycopg's."""
    async with await connect(postgres_server.conninfo()) as connection:
        await connection.tpc_begin(connection.xid(1, "g", "b"))
        await connection.execute("SELECT 1")
        await connection.tpc_rollback()
        await check_at_rest(connection)
        await connection.tpc_begin("by name")
        with pytest.raises(psycopg.NotSupportedError, match="max_prepared_transactions"):
            await connection.tpc_prepare()
        await connection.close()


@pytest.fixture
def _sigint() -> Iterator[None]:
    """Let SIGINT mean what it means in a program of its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_sigint")
@pytest.mark.parametrize("statement", ["SELECT pg_sleep(100)", "COMMIT"])
def test_interrupted_from_the_keyboard(postgres: str, statement: str) -> None:
    """Ctrl-C stops a statement on the server and passes on; a commit under way is carried out before that."""

    async def main() -> None:
        async with await connect(postgres, autocommit=True) as connection:
            await connection.execute(SLOW_COMMIT)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(interrupt, postgres, statement)
                with pytest.raises(KeyboardInterrupt):
                    await act(connection)
            await check_at_rest(connection)
            assert await scalar(connection, "SELECT count(*) FROM t") == (statement == "COMMIT")

    async def act(connection: TrioConnection[Any]) -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1000)")
            if statement != "COMMIT":
                await connection.execute(statement)
        await trio.sleep_forever()  # Ctrl-C may come late on a busy machine

    trio.run(main)


@trio.lowlevel.enable_ki_protection  # so that it is the main task that is interrupted
async def interrupt(conninfo: str, statement: LiteralString) -> None:
    await wait_for_session(conninfo, "active", statement)
    signal.raise_signal(signal.SIGINT)
