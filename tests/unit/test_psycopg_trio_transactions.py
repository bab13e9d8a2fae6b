"""Transactions end: committed, rolled back, or with an error that says that nobody knows."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from postgres_server import open_postgres
from psycopg_bridge import SLOW_COMMIT, check_at_rest, scalar, sessions, wait_for_session, wait_for_sessions
from trio.testing import wait_all_tasks_blocked
from wire import open_wire

from jobtrio.psycopg_trio import OutcomeUnknownError, TrioConnection, connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from postgres_server import PostgresServer


@asynccontextmanager
async def slow_commits(conninfo: str) -> AsyncIterator[TrioConnection[Any]]:
    async with await connect(conninfo, autocommit=True) as connection:
        await connection.execute(SLOW_COMMIT)
        yield connection


async def count(connection: TrioConnection[Any]) -> int:
    found = await scalar(connection, "SELECT count(*) FROM t")
    assert isinstance(found, int)
    return found


async def test_commits(postgres: str) -> None:
    """The end of the block commits."""
    async with await connect(postgres, autocommit=True) as connection:
        async with connection.transaction() as transaction:
            await connection.execute("CREATE TABLE t (a int)")
            assert isinstance(transaction, psycopg.AsyncTransaction)
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        await check_at_rest(connection)
        assert await count(connection) == 0


async def test_exception_rolls_back(postgres: str) -> None:
    """An exception rolls back and passes on."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        with suppress(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                1 / 0  # noqa: B018
        await check_at_rest(connection)
        assert await count(connection) == 0


async def test_cancellation_rolls_back(postgres: str) -> None:
    """A cancelled block is rolled back on the server when it has been left."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        with trio.CancelScope() as scope:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert sessions(postgres) == [("idle", "ROLLBACK")]
        await check_at_rest(connection)
        assert await count(connection) == 0


async def test_cancelled_statement_rolls_back(postgres: str) -> None:
    """A statement that is cancelled takes its transaction with it."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        with trio.move_on_after(0.05) as scope:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                await connection.execute("SELECT pg_sleep(100)")
        assert scope.cancelled_caught
        await check_at_rest(connection)
        assert await count(connection) == 0


async def test_cancelled_before_it_begins(postgres: str) -> None:
    """A task that is cancelled already begins nothing."""
    async with await connect(postgres, autocommit=True) as connection:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with connection.transaction():
                raise AssertionError
        assert scope.cancelled_caught
        await check_at_rest(connection)


async def test_cancelled_before_it_commits(postgres: str) -> None:
    """A task that is cancelled when it comes to the end of the block has rolled back."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        with trio.CancelScope() as scope:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                scope.cancel()
        assert scope.cancelled_caught
        await check_at_rest(connection)
        assert await count(connection) == 0


@pytest.mark.parametrize("way", ["block", "commit", "pipeline"])
async def test_commit_is_not_stopped(postgres: str, way: str) -> None:
    """A commit under way when the task is cancelled is carried out, and the block ends as committed."""
    async with slow_commits(postgres) as connection:
        if way == "commit":
            await connection.set_autocommit(False)
        async with contextlib.AsyncExitStack() as stack:
            if way == "pipeline":
                await stack.enter_async_context(connection.pipeline())
            with trio.CancelScope() as scope:
                if way == "commit":
                    await connection.execute("INSERT INTO t VALUES (300)")
                    scope.deadline = trio.current_time() + 0.1
                    await connection.commit()
                else:
                    async with connection.transaction():
                        await connection.execute("INSERT INTO t VALUES (300)")
                        scope.deadline = trio.current_time() + 0.1
                assert scope.cancel_called
            assert not scope.cancelled_caught
        assert await count(connection) == 1


@pytest.mark.parametrize("way", ["block", "commit", "pipeline"])
async def test_commit_that_does_not_end(postgres: str, way: str) -> None:
    """A commit that does not end within the grace of a cancellation is an outcome that nobody knows."""
    async with slow_commits(postgres) as connection:
        connection.cancel_grace = 0.1
        if way == "commit":
            await connection.set_autocommit(False)
        async with contextlib.AsyncExitStack() as stack:
            if way == "pipeline":
                stack.enter_context(suppress(psycopg.OperationalError))  # the pipeline's end is of no use either
                await stack.enter_async_context(connection.pipeline())
            with trio.CancelScope() as scope:
                with pytest.raises(OutcomeUnknownError, match="may have been carried out, or not"):  # noqa: PT012
                    if way == "commit":
                        await connection.execute("INSERT INTO t VALUES (5000)")
                        scope.deadline = trio.current_time() + 0.1
                        await connection.commit()
                    else:
                        async with connection.transaction():
                            await connection.execute("INSERT INTO t VALUES (5000)")
                            scope.deadline = trio.current_time() + 0.1
            assert connection.broken


async def test_cancelled_commit_that_fails(postgres: str) -> None:
    """What the server says against a commit is told though the task was cancelled, and the connection goes on."""
    async with slow_commits(postgres) as connection:
        await connection.execute("CREATE TABLE u (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        with trio.CancelScope() as scope:
            with pytest.raises(psycopg.errors.UniqueViolation):  # noqa: PT012
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (300)")
                    await connection.execute("INSERT INTO u VALUES (1), (1)")
                    scope.deadline = trio.current_time() + 0.1
            assert scope.cancel_called
        await check_at_rest(connection)


async def test_no_bound_without_cancellation(postgres: str) -> None:
    """A commit of a task that nobody cancels takes as long as it takes."""
    async with slow_commits(postgres) as connection:
        connection.cancel_grace = 0.05
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (300)")
        assert await count(connection) == 1


@pytest.mark.parametrize("way", ["cut", "stop"])
async def test_connection_lost_while_it_commits(own_postgres: PostgresServer, way: str) -> None:
    """A connection that is lost under a commit leaves an outcome that nobody knows, and says so."""
    conninfo = own_postgres.create_database()
    async with open_wire(own_postgres.port) as wire:
        connection = await connect(conninfo, port=wire.port, autocommit=True)
        await connection.execute(SLOW_COMMIT)

        async def lose() -> None:
            await wait_for_session(conninfo, "active", "COMMIT")
            if way == "cut":
                wire.cut()
            else:
                own_postgres.stop()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose)
            with pytest.raises(OutcomeUnknownError) as caught:
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (5000)")
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert not isinstance(caught.value.__cause__, OutcomeUnknownError)
        await connection.close()


@pytest.fixture(scope="module")
def two_phases() -> Iterator[PostgresServer]:
    """Return a server on which transactions can be prepared."""
    with open_postgres(max_prepared_transactions="2") as server:
        yield server


@pytest.mark.parametrize("is_prepared", [False, True])
async def test_connection_lost_while_it_commits_in_two_phases(two_phases: PostgresServer, is_prepared: bool) -> None:
    """A connection that is lost under the commit of two phases leaves an outcome that nobody knows as well."""
    conninfo = two_phases.create_database()
    async with open_wire(two_phases.port) as wire:
        connection = await connect(conninfo, port=wire.port)
        await connection.tpc_begin("lost")
        await connection.execute("CREATE TABLE t (a int)")
        if is_prepared:
            await connection.tpc_prepare()
        wire.left = 1
        with pytest.raises(OutcomeUnknownError):
            await connection.tpc_commit()
        await connection.close()


async def test_commit_in_two_phases(two_phases: PostgresServer) -> None:
    """A commit of two phases is carried out though the task is cancelled, and begins in none that is cancelled."""
    async with await connect(two_phases.create_database()) as connection:
        await connection.execute(SLOW_COMMIT)
        await connection.commit()
        for statement in ("INSERT INTO t VALUES (300)", "SELECT 1 / 0"):
            await connection.tpc_begin("x")
            with suppress(psycopg.errors.DivisionByZero):
                await connection.execute(statement.encode())
            with trio.CancelScope() as scope:
                scope.cancel()
                await connection.tpc_commit()
            assert scope.cancelled_caught
            if "1 / 0" in statement:
                with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                    await connection.tpc_commit()
                await connection.tpc_rollback()
            else:
                with trio.move_on_after(0.05):
                    await connection.tpc_commit()
            await check_at_rest(connection)
        assert await count(connection) == 1
        await connection.rollback()
        await connection.tpc_begin("x")
        await connection.execute("INSERT INTO t VALUES (0)")
        await connection.tpc_prepare()
        await connection.tpc_commit()
        assert await count(connection) == 2


async def test_commit_that_fails(postgres: str) -> None:
    """A commit that the server refuses is the server's error: nothing is committed, and everybody knows."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1), (1)")
        await check_at_rest(connection)
        assert await count(connection) == 0


@pytest.mark.parametrize("way", ["block", "commit"])
async def test_last_words_at_a_commit(postgres_server: PostgresServer, way: str) -> None:
    """Where the server's error at a commit is its last word, whatever it says, nobody knows what became of that."""
    if postgres_server.version < 17:
        pytest.skip("this server ends no session in the midst of a commit with such an error")
    connection = await connect(postgres_server.create_database(), autocommit=way == "block")
    await connection.execute(SLOW_COMMIT)
    await connection.execute("SET transaction_timeout = 1000")
    if way == "commit":
        await connection.commit()
    with pytest.raises(OutcomeUnknownError) as caught:  # noqa: PT012
        if way == "block":
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (5000)")
        else:
            await connection.execute("INSERT INTO t VALUES (5000)")
            await connection.commit()
    assert isinstance(caught.value.__cause__, psycopg.errors.TransactionTimeout)
    assert connection.closed


async def test_conflict_at_commit(postgres: str) -> None:
    """A conflict that comes out at the commit is not taken for a lost connection."""
    async with await connect(postgres, autocommit=True) as one, await connect(postgres, autocommit=True) as other:
        await one.execute("CREATE TABLE t AS SELECT generate_series(1, 2) AS a")
        await one.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        await other.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        with pytest.raises(psycopg.errors.SerializationFailure):  # noqa: PT012
            async with one.transaction():
                await one.execute("INSERT INTO t SELECT sum(a) FROM t")
                async with other.transaction():
                    await other.execute("INSERT INTO t SELECT sum(a) FROM t")
        await one.set_isolation_level(None)
        await check_at_rest(one)


@pytest.mark.parametrize("way", ["block", "commit"])
async def test_failed_transaction_is_not_committed(postgres: str, way: str) -> None:
    """A block that has swallowed an error does not end as if it had committed."""
    async with await connect(postgres, autocommit=way == "block") as connection:
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):  # noqa: PT012
            if way == "commit":
                with suppress(psycopg.errors.DivisionByZero):
                    await connection.execute("SELECT 1 / 0")
                await connection.commit()
            else:
                async with connection.transaction():
                    with suppress(psycopg.errors.DivisionByZero):
                        await connection.execute("SELECT 1 / 0")
        await connection.rollback()
        await check_at_rest(connection)


async def test_lost_connection_is_not_committed(postgres_server: PostgresServer) -> None:
    """A block that has swallowed the loss of its connection does not end as if it had committed."""
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port), autocommit=True)
        with pytest.raises(psycopg.OperationalError, match="nothing is committed") as caught:  # noqa: PT012
            async with connection.transaction():
                wire.cut()
                with suppress(psycopg.OperationalError):
                    await connection.execute("SELECT 1")
        assert not isinstance(caught.value, OutcomeUnknownError)
        assert connection.closed


async def test_roll_back_of_a_lost_connection(postgres_server: PostgresServer) -> None:
    """Behind a block whose connection is lost comes the block's own exception."""
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port), autocommit=True)
        with suppress(ZeroDivisionError):
            async with connection.transaction():
                wire.cut()
                1 / 0  # noqa: B018
        await connection.close()


async def test_roll_back_of_a_cancelled_task(postgres_server: PostgresServer) -> None:
    """A task that is cancelled can roll back all the same, for as long as its grace is."""
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port))
        await check_at_rest(connection)
        await connection.execute("SELECT 1")
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.rollback()
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        await connection.execute("SELECT 1")
        connection.cancel_grace = 0.05
        wire.hold()
        with trio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(psycopg.OperationalError, match=r"within 0\.05 s"):
                await connection.rollback()
        assert connection.broken


async def test_cancelled_before_its_turn(postgres: str) -> None:
    """A transaction that is cancelled while it waits for another task's statement never begins, and waits no longer."""
    async with await connect(postgres, autocommit=True) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(connection.execute, "SELECT pg_sleep(600)")
        await wait_for_session(postgres, "active", "SELECT pg_sleep")
        connection.cancel_grace = 60.0
        begun = trio.current_time()
        with trio.move_on_after(0.05) as scope:
            async with connection.transaction():
                raise AssertionError
        assert scope.cancelled_caught
        assert trio.current_time() - begun < connection.cancel_grace
        nursery.cancel_scope.cancel()


async def test_cancelled_behind_another_that_begins(postgres: str) -> None:
    """A transaction that is cancelled before its turn leaves alone that of another task, which began meanwhile."""
    leave, cancelled = trio.Event(), trio.CancelScope()
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")

        async def first() -> None:
            async with connection.transaction():
                await leave.wait()
                await connection.execute("INSERT INTO t VALUES (1)")

        async def hold() -> None:
            async with connection.lock:
                await leave.wait()

        async def second() -> None:
            with cancelled:
                async with connection.transaction():
                    raise AssertionError

        async with trio.open_nursery() as nursery:
            async with connection.lock:
                for task in (first, hold, second):
                    nursery.start_soon(task)
                    await wait_all_tasks_blocked()
            await wait_for_session(postgres, "idle in transaction", "BEGIN")
            cancelled.cancel()
            await wait_all_tasks_blocked()
            leave.set()
        assert await count(connection) == 1


async def test_a_commit_cancelled_before_its_turn(postgres: str) -> None:
    """A commit that is cancelled while it waits for another task's statement commits nothing, and waits no longer."""
    async with await connect(postgres) as connection:
        await connection.execute("SELECT 1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.execute, "SELECT pg_sleep(600)")
            await wait_for_session(postgres, "active", "SELECT pg_sleep")
            connection.cancel_grace = 60.0
            begun = trio.current_time()
            with trio.move_on_after(0.05) as scope:
                await connection.commit()
            assert scope.cancelled_caught
            assert trio.current_time() - begun < connection.cancel_grace
            nursery.cancel_scope.cancel()
        await connection.rollback()


@pytest.mark.parametrize("late", [False, True])
async def test_roll_back_without_answer(postgres_server: PostgresServer, late: bool) -> None:
    """A roll-back of a cancelled task that is not answered closes the connection, and the task is just cancelled."""
    conninfo = postgres_server.create_database()
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(conninfo, port=wire.port, autocommit=True)
        connection.cancel_grace = 0.1
        with trio.CancelScope() as scope:
            async with connection.transaction():
                wire.hold()
                scope.cancel()
                if not late:
                    await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught
        assert connection.broken
        wire.cut()
        await wait_for_sessions(conninfo, 0)


async def test_savepoints(postgres: str) -> None:
    """A block within a block rolls back alone."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            with suppress(psycopg.errors.DivisionByZero):
                async with connection.transaction("named") as inner:
                    assert inner.savepoint_name == "named"
                    await connection.execute("INSERT INTO t VALUES (2)")
                    await connection.execute("SELECT 1 / 0")
            with trio.move_on_after(0.05) as scope:
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (3)")
                    await connection.execute("SELECT pg_sleep(100)")
            assert scope.cancelled_caught
            with suppress(psycopg.errors.InFailedSqlTransaction):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (4)")
                    with suppress(psycopg.errors.DivisionByZero):
                        await connection.execute("SELECT 1 / 0")
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (5)")
        await check_at_rest(connection)
        cursor = await connection.execute("SELECT a FROM t ORDER BY a")
        assert await cursor.fetchall() == [(1,), (5,)]


async def test_savepoint_that_can_not_begin(postgres: str) -> None:
    """A block that can't begin, since the one around it has failed, leaves that one its own end."""
    async with await connect(postgres, autocommit=True) as connection:
        with suppress(psycopg.errors.InFailedSqlTransaction):
            async with connection.transaction():
                with suppress(psycopg.errors.DivisionByZero):
                    await connection.execute("SELECT 1 / 0")
                async with connection.transaction():
                    raise AssertionError
        await check_at_rest(connection)
        async with connection.transaction():
            await connection.execute("SELECT 1")
        await check_at_rest(connection)


async def test_explicit_roll_back(postgres: str) -> None:
    """`psycopg.Rollback` ends the block it is meant for, and ``force_rollback`` commits nothing."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            raise psycopg.Rollback
        async with connection.transaction() as outer:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (2)")
                raise psycopg.Rollback(outer)
        async with connection.transaction(force_rollback=True):
            await connection.execute("INSERT INTO t VALUES (3)")
        await check_at_rest(connection)
        assert await count(connection) == 0


async def test_used_once(postgres: str) -> None:
    """A transaction is for one block."""
    async with await connect(postgres, autocommit=True) as connection:
        block = connection.transaction()
        async with block:
            pass
        with pytest.raises(TypeError, match="only once"):
            await block.__aenter__()
        await check_at_rest(connection)


async def test_entered_within_itself(postgres: str) -> None:
    """A transaction that is entered within its own block refuses that, and goes on."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        block = connection.transaction()
        async with block:
            with pytest.raises(TypeError, match="only once"):
                await block.__aenter__()
            await connection.execute("INSERT INTO t VALUES (1)")
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        await check_at_rest(connection)
        assert await count(connection) == 1


async def test_without_autocommit(postgres: str) -> None:
    """Where statements open transactions by themselves, a block within is a savepoint, and the commit comes later."""
    async with await connect(postgres) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
        await connection.rollback()
        async with await connect(postgres, autocommit=True) as other:
            assert await scalar(other, "SELECT to_regclass('t')") is None


async def test_waits_for_others(postgres: str) -> None:
    """A cancelled task's roll-back waits for the statement of another task that shares the connection."""
    async with await connect(postgres, autocommit=True) as connection:
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                async with connection.transaction():
                    nursery.start_soon(connection.execute, "SELECT pg_sleep(0.1)")
                    await wait_all_tasks_blocked(0.01)
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            assert scope.cancelled_caught
        await check_at_rest(connection)
