"""Pipelines and COPY: interrupted at any time, they leave the connection at rest."""

from __future__ import annotations

import gc
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
import trio
from psycopg.waiting import Ready
from psycopg_bridge import check_at_rest, scalar, sessions
from trio.testing import wait_all_tasks_blocked
from wire import open_wire

from jobtrio.psycopg_trio import _driving, connect
from jobtrio.psycopg_trio._driving import BUSY_LIMIT, ready_now

if TYPE_CHECKING:
    from postgres_server import PostgresServer
    from psycopg.waiting import Wait

    from jobtrio.psycopg_trio import TrioConnection

SLOW_ROWS = """
CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(100); RETURN NEW; END';
CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION sleep();
"""
"""Has the server stop taking rows at the first one."""

ENDLESS = "COPY (SELECT generate_series(1, 100000000)) TO STDOUT"


async def test_pipeline(postgres: str) -> None:
    """Statements of a pipeline get their answers, in one trip."""
    async with await connect(postgres, autocommit=True) as connection:
        async with connection.pipeline() as pipeline:
            cursors = [await connection.execute("SELECT %s::int", [n]) for n in range(100)]
            await pipeline.sync()
            assert [await cursor.fetchone() for cursor in cursors] == [(n,) for n in range(100)]
        await check_at_rest(connection)


async def test_pipeline_behind_a_stream(postgres: str) -> None:
    """A pipeline behind rows that were streamed gets its own rows in the ordinary way, also within `executemany`."""
    async with await connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        for _ in range(2):
            assert [row async for row in cursor.stream("SELECT generate_series(1, 3)")] == [(1,), (2,), (3,)]
            async with connection.pipeline():
                one = await connection.execute("SELECT 1")
                two = await connection.execute("SELECT 2")
            assert (await one.fetchall(), await two.fetchall()) == ([(1,)], [(2,)])
        assert [row async for row in cursor.stream("SELECT 4")] == [(4,)]
        await cursor.executemany("SELECT %s::int", [(5,), (6,)], returning=True)
        assert await cursor.fetchall() == [(5,)]
        await check_at_rest(connection)


async def test_pipeline_of_a_lost_connection(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    """Where a connection is lost amid a pipeline, that is raised once, and nothing is logged of its end besides."""
    async with await connect(postgres, autocommit=True) as connection, await connect(postgres) as other:
        with pytest.raises(psycopg.OperationalError):  # noqa: PT012
            async with connection.pipeline() as pipeline:
                await connection.execute("SELECT 1")
                await pipeline.sync()
                await other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
                await connection.execute("SELECT 2")
                await pipeline.sync()
        assert connection.broken
        with pytest.raises(psycopg.OperationalError, match="the connection is closed"):
            async with connection.pipeline():
                raise AssertionError("entered")
    assert not caplog.messages


async def test_pipeline_error(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    """A statement that fails takes the rest of the pipeline with it, and the connection goes on; nothing is logged."""
    async with await connect(postgres, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):  # noqa: PT012
            async with connection.pipeline():
                await connection.execute("SELECT 1 / 0")
                await connection.execute("CREATE TABLE t (a int)")
        await check_at_rest(connection)
        for _ in range(10):  # mostly the answer comes alone, and what was sent behind it has none yet
            with pytest.raises(psycopg.errors.DivisionByZero):  # noqa: PT012
                async with connection.pipeline():
                    await connection.execute("SELECT 1 / 0")
                    while True:
                        await connection.execute("CREATE TABLE t (a int)")
        await check_at_rest(connection)
        assert await scalar(connection, "SELECT to_regclass('t')") is None
    assert not caplog.messages


async def test_a_pipeline_that_fails_besides(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    """An error that only the pipeline's end finds is logged where another exception leaves the block."""
    async with await connect(postgres, autocommit=True) as connection:
        with pytest.raises(KeyError):  # noqa: PT012
            async with connection.pipeline():
                await connection.execute("SELECT 1 / 0 FROM pg_sleep(0.05)")
                raise KeyError
        await check_at_rest(connection)
    assert len(caplog.messages) == 1
    assert "division by zero" in caplog.messages[0]


async def test_a_pipeline_that_waits_for_its_turn(postgres_server: PostgresServer) -> None:
    """A pipeline begins behind what another task is doing, all of its steps."""
    async with open_wire(postgres_server.port) as wire:
        async with await connect(postgres_server.conninfo(port=wire.port)) as connection:
            async with trio.open_nursery() as nursery:

                async def other() -> None:
                    assert await scalar(connection, "SELECT 1") == 1  # behind a BEGIN

                async def pipeline() -> None:
                    async with connection.pipeline():
                        assert await scalar(connection, "SELECT 2") == 2

                wire.hold()
                for task in (other, pipeline):
                    nursery.start_soon(task)
                    await wait_all_tasks_blocked()
                wire.release()
            await connection.rollback()
            await check_at_rest(connection)


async def test_a_pipeline_beside_a_listener(postgres: str) -> None:
    """What a pipeline tells the server at its end gets on with a task that waits for notifications."""
    async with await connect(postgres, autocommit=True) as connection, trio.open_nursery() as nursery:

        async def listen() -> None:
            async for _ in connection.notifies():
                raise AssertionError

        nursery.start_soon(listen)
        await wait_all_tasks_blocked()
        for _ in range(10):  # either of the two may be the first to wait
            with pytest.raises(psycopg.errors.DivisionByZero):
                async with connection.pipeline():
                    await connection.execute("SELECT 1 / %s::int", [0], prepare=True)
        assert await scalar(connection, "SELECT count(*) FROM pg_prepared_statements") == 0
        nursery.cancel_scope.cancel()


async def test_a_commit_that_fails(postgres: str) -> None:
    """What the server refuses only as it commits, behind a pipeline or within, is told, and the connection goes on."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(psycopg.errors.UniqueViolation):  # noqa: PT012
            async with connection.pipeline():
                await connection.execute("INSERT INTO t VALUES (1)")
                await connection.execute("INSERT INTO t VALUES (1)")
        await check_at_rest(connection)
        with pytest.raises(psycopg.errors.UniqueViolation):
            await connection.cursor().executemany("INSERT INTO t VALUES (%s)", [(1,), (1,)])
        await check_at_rest(connection)
        async with connection.pipeline() as pipeline:
            await connection.execute("INSERT INTO t VALUES (1), (1)")
            with pytest.raises(psycopg.errors.UniqueViolation):
                await pipeline.sync()
            await connection.execute("INSERT INTO t VALUES (2)")
        await check_at_rest(connection)
        assert await scalar(connection, "SELECT array_agg(a) FROM t") == [2]


@pytest.mark.parametrize("threshold", [0, 1])
@pytest.mark.parametrize("is_open", [False, True])
async def test_what_was_to_be_prepared_behind_a_failure(postgres: str, threshold: int, is_open: bool) -> None:
    """A statement whose turn to be prepared came behind one that failed can be run all the same."""
    async with await connect(postgres, autocommit=True, prepare_threshold=threshold) as connection:
        for _ in range(3):
            async with connection.pipeline():
                await connection.execute("SELECT 1")
                await connection.execute("SELECT 2")
            with pytest.raises(psycopg.errors.DivisionByZero):  # noqa: PT012
                async with connection.pipeline():
                    if is_open:
                        await connection.execute("BEGIN")
                    await connection.execute("SELECT 1 / 0")
                    for n in (2, 3, 4):
                        await connection.execute(f"SELECT {n}".encode())
            await connection.rollback()
            for n in (2, 3, 4, 3):
                assert await scalar(connection, f"SELECT {n}") == n
        await check_at_rest(connection)


async def test_a_pipeline_that_goes_on_behind_a_failure(postgres: str) -> None:
    """A statement whose turn to be prepared came behind one that failed can be run in the same pipeline, too."""
    async with await connect(postgres, autocommit=True, prepare_threshold=1) as connection:
        async with connection.pipeline() as pipeline:
            for _ in range(3):
                await connection.execute("SELECT 1")
                await pipeline.sync()
                failing = await connection.execute("SELECT 1 / 0")
                with suppress(psycopg.errors.DivisionByZero):
                    await connection.execute("SELECT 1")
                with suppress(psycopg.errors.DivisionByZero, psycopg.errors.PipelineAborted):
                    await pipeline.sync()
                assert failing.pgresult is None
                assert await scalar(connection, "SELECT 1") == 1
                assert await scalar(connection, "SELECT 1") == 1
        await check_at_rest(connection)


@pytest.mark.parametrize("first", ["SELECT 1 / 0", "DROP TABLE IF EXISTS t"])
async def test_prepared_as_all_is_forgotten(postgres: str, first: LiteralString) -> None:
    """A statement that is prepared just before the server is told to forget all is prepared again for its next use."""
    async with await connect(postgres, autocommit=True, prepare_threshold=0) as connection:
        await connection.execute("SELECT 1")
        async with connection.pipeline() as pipeline:
            with suppress(psycopg.errors.DivisionByZero):
                await connection.execute(first)
                await pipeline.sync()
            with suppress(psycopg.errors.DivisionByZero, psycopg.errors.PipelineAborted):
                await pipeline.sync()
            for n in range(3):
                assert await scalar(connection, "SELECT %s::int", n) == n
                await pipeline.sync()
        await check_at_rest(connection)


async def test_failures_in_a_row(postgres: str) -> None:
    """A failure behind another takes along nothing that nobody has sent, and leaves nothing prepared behind."""
    async with await connect(postgres, autocommit=True) as connection:
        async with connection.pipeline() as pipeline:
            for prepare in (True, True, False):
                cursor = await connection.execute("SELECT 1 / %s::int", [0], prepare=prepare)
                with pytest.raises(psycopg.errors.DivisionByZero):
                    await cursor.fetchall()
                await pipeline.sync()
        assert await scalar(connection, "SELECT count(*) FROM pg_prepared_statements") == 0
        await check_at_rest(connection)


async def test_a_failure_within_a_transaction(postgres: str) -> None:
    """What was prepared before a failure that only a roll-back ends is forgotten with that."""
    async with await connect(postgres, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):  # noqa: PT012
            async with connection.transaction(), connection.pipeline():
                await connection.execute("SELECT 1", prepare=True)
                await connection.execute("SELECT 1 / 0")
        assert await scalar(connection, "SELECT count(*) FROM pg_prepared_statements") == 0
        await check_at_rest(connection)


async def test_a_failure_where_nothing_is_prepared(postgres: str) -> None:
    """Where nothing was prepared the server is not told to forget it: behind a pooler, the session may be another's."""
    async with await connect(postgres, autocommit=True, prepare_threshold=None) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with connection.pipeline():
                await connection.cursor().executemany("SELECT 1 / %s::int", [(1,), (0,)])
        assert sessions(postgres) == [("idle", "SELECT 1 / $1::int")]


async def test_what_can_not_be_sent(postgres: str) -> None:
    """A statement that can't be sent has no answer: none is taken for it, since the connection is closed."""
    too_many = b"SELECT " + b",".join([b"%s"] * 70_000)
    async with await connect(postgres, autocommit=True) as connection:
        with pytest.raises(psycopg.OperationalError, match="closed"):  # noqa: PT012
            async with connection.pipeline():
                with pytest.raises(psycopg.OperationalError, match="65535"):
                    await connection.execute(too_many, range(70_000))
                assert connection.broken
                await connection.execute("SELECT 1")


@pytest.mark.timeout(60)  # no cancel scope ends a loop in which nothing is waited for
@pytest.mark.parametrize("statement", ["COPY (SELECT 1) TO STDOUT", "COPY t FROM STDIN"])
async def test_copy_within_a_pipeline(postgres: str, statement: LiteralString) -> None:
    """A COPY is refused in a pipeline, also in that of `executemany`, and the connection closed."""

    async def by_itself(connection: TrioConnection[Any]) -> None:
        async with connection.pipeline():
            await connection.execute(statement)

    async def followed(connection: TrioConnection[Any]) -> None:
        async with connection.pipeline() as pipeline:
            await connection.execute(statement)
            await connection.execute("SELECT 1")
            await pipeline.sync()

    async def many(connection: TrioConnection[Any]) -> None:
        await connection.cursor().executemany(statement, [(), ()])

    for way in (by_itself, followed, many):
        async with await connect(postgres, autocommit=True) as connection:
            await connection.execute("CREATE TEMPORARY TABLE t (a int)")
            with pytest.raises(psycopg.Error, match="COPY"):
                await way(connection)
            assert connection.closed


async def test_rows_that_can_not_be_made(postgres: str) -> None:
    """Where psycopg loses what it had read besides an answer that is of no use, none is taken for another's."""

    def fail(cursor: object) -> psycopg.rows.RowMaker[object]:
        raise ZeroDivisionError

    for _ in range(10):  # mostly several are read together
        async with await connect(postgres, autocommit=True) as connection:
            with suppress(ZeroDivisionError, psycopg.OperationalError):
                async with connection.pipeline():
                    await connection.cursor(row_factory=fail).execute("SELECT 0")
                    cursors = []
                    with suppress(ZeroDivisionError):
                        for n in range(100):  # the server sends them as its buffer is full
                            cursors.append(await connection.execute("SELECT %s::int, repeat('x', 10000)", [n]))
                    for n, cursor in enumerate(cursors):
                        assert (await cursor.fetchall())[0][0] == n


@pytest.mark.parametrize("reads", ["while it sends", "behind what was sent"])
async def test_handler_that_fails_in_a_pipeline(postgres: str, monkeypatch: pytest.MonkeyPatch, reads: str) -> None:
    """Where a callback's exception takes along what was read just before, the connection is closed."""

    def late(fd: int, wanted: Wait) -> Ready:
        if reads == "behind what was sent":
            return Ready.W
        time.sleep(0.01)  # so that the server has answered what was sent last
        return ready_now(fd, wanted)

    def fail(notification: psycopg.Notify) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(_driving, "ready_now", late)
    async with (
        await connect(postgres, autocommit=True) as connection,
        await connect(postgres, autocommit=True) as other,
    ):
        await connection.execute("LISTEN c")
        connection.add_notify_handler(fail)
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with connection.pipeline():
                await connection.execute("SELECT repeat('x', 100000)")
                await other.execute("NOTIFY c")
        assert connection.broken


@pytest.mark.parametrize("where", ["fetch", "body", "end", "sync"])
async def test_cancelled_pipeline(postgres: str, where: str) -> None:
    """A pipeline that is cancelled, wherever, stops on the server, and nothing of it is committed."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        with trio.move_on_after(0.05) as scope:
            async with connection.pipeline() as pipeline:
                await connection.execute("INSERT INTO t VALUES (1)")
                cursor = await connection.execute("SELECT pg_sleep(100)")
                await connection.execute("INSERT INTO t VALUES (2)")
                if where == "fetch":
                    await cursor.fetchone()
                elif where == "body":
                    await trio.sleep_forever()
                elif where == "sync":
                    await pipeline.sync()
        assert scope.cancelled_caught
        assert all(state == "idle" for state, _ in sessions(postgres))
        await check_at_rest(connection)
        assert await scalar(connection, "SELECT count(*) FROM t") == 0


async def test_pipeline_given_up(postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pipeline that is given up with its connection nothing is left that complains when it is collected."""
    complaints: list[sys.UnraisableHookArgs] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port), autocommit=True)
        with trio.CancelScope() as scope:
            async with connection.pipeline():
                await connection.execute("SELECT 1")
                wire.refuse()  # also the request to cancel
                scope.cancel()
                time.sleep(2 * BUSY_LIMIT)  # noqa: ASYNC251  # so that there is a checkpoint before anything more is sent
        assert scope.cancelled_caught
        assert connection.broken
        gc.collect()
    assert not complaints


async def test_cancelled_before_pipeline(postgres: str) -> None:
    """A task that is cancelled already opens no pipeline."""
    async with await connect(postgres, autocommit=True) as connection:
        entered = False
        with trio.CancelScope() as scope:
            scope.cancel()
            async with connection.pipeline():
                entered = True
        assert scope.cancelled_caught
        assert not entered
        await check_at_rest(connection)


async def test_cancelled_as_it_begins_within_another(postgres: str) -> None:
    """A pipeline within another that is cancelled as it begins, and begins all the same, ends with it."""
    stubborn = "DO $$ BEGIN PERFORM pg_sleep(0.3); EXCEPTION WHEN query_canceled THEN NULL; END $$"
    async with await connect(postgres, autocommit=True) as connection:
        with trio.move_on_after(0.05) as scope:
            async with connection.pipeline():
                await connection.execute(stubborn)
                async with connection.pipeline():
                    await trio.sleep_forever()
        assert scope.cancelled_caught
        await check_at_rest(connection)


async def test_statement_of_a_cancelled_task_is_not_sent(postgres: str) -> None:
    """Within a pipeline too, a statement of a task that is cancelled already is not sent."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        with trio.CancelScope() as scope:
            async with connection.pipeline():
                await connection.execute("INSERT INTO t VALUES (1)")
                scope.cancel()
                await connection.execute("INSERT INTO t VALUES (2)")
        assert scope.cancelled_caught
        await check_at_rest(connection)
        cursor = await connection.execute("SELECT a FROM t")
        assert (2,) not in await cursor.fetchall()


async def test_pipeline_without_answer(postgres_server: PostgresServer) -> None:
    """A cancelled pipeline that the server does not answer closes the connection."""
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port), autocommit=True)
        connection.cancel_grace = 0.1
        with trio.move_on_after(0.05) as scope:
            async with connection.pipeline():
                wire.hold()
                await connection.execute("SELECT 1")
        assert scope.cancelled_caught
        assert connection.broken


@pytest.mark.parametrize("way", ["hold", "refuse"])
async def test_statement_without_answer(postgres_server: PostgresServer, way: str) -> None:
    """A statement of a pipeline that can't be stopped closes the connection at once, not with the pipeline."""
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port), autocommit=True)
        connection.cancel_grace = 0.1
        with pytest.raises(psycopg.OperationalError):  # noqa: PT012
            async with connection.pipeline():
                cursor = await connection.execute("SELECT pg_sleep(100)")
                getattr(wire, way)()
                with trio.move_on_after(0.05) as scope:
                    await cursor.fetchone()
                assert scope.cancelled_caught
                assert connection.broken


async def test_cancelled_statement_without_answer(
    postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancellation that closes the connection of a pipeline is passed on, and nothing is logged of its end."""
    async with open_wire(postgres_server.port) as wire:
        connection = await connect(postgres_server.conninfo(port=wire.port), autocommit=True)
        with trio.move_on_after(0.05) as scope:
            async with connection.pipeline():
                cursor = await connection.execute("SELECT pg_sleep(100)")
                wire.refuse()
                await cursor.fetchone()
        assert scope.cancelled_caught
        assert connection.broken
    assert not caplog.messages


async def test_transaction_in_pipeline(postgres: str) -> None:
    """A transaction within a pipeline commits, or is rolled back, at its own end."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        async with connection.pipeline():
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
            async with await connect(postgres) as other:
                assert await scalar(other, "SELECT count(*) FROM t") == 1
            with suppress(ZeroDivisionError):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (2)")
                    1 / 0  # noqa: B018
            with suppress(psycopg.errors.DivisionByZero):
                async with connection.transaction():
                    await connection.execute("INSERT INTO t VALUES (3)")
                    await connection.execute("SELECT 1 / 0")
        await check_at_rest(connection)
        assert await scalar(connection, "SELECT sum(a) FROM t") == 1


async def test_cancelled_transaction_in_pipeline(postgres: str) -> None:
    """A transaction within a pipeline that is cancelled is rolled back, and stops on the server."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        for wait in (False, True):
            with trio.move_on_after(0.05) as scope:
                async with connection.pipeline():
                    async with connection.transaction():
                        await connection.execute("INSERT INTO t VALUES (1)")
                        await connection.execute("SELECT pg_sleep(100)")
                        if wait:
                            await trio.sleep_forever()
            assert scope.cancelled_caught
            await check_at_rest(connection)
        assert await scalar(connection, "SELECT count(*) FROM t") == 0


async def test_pipeline_in_transaction(postgres: str) -> None:
    """A pipeline within a transaction commits with it, and is rolled back with it when cancelled."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        async with connection.transaction(), connection.pipeline():
            await connection.execute("INSERT INTO t VALUES (1)")
        with trio.move_on_after(0.05) as scope:
            async with connection.transaction(), connection.pipeline():
                await connection.execute("INSERT INTO t VALUES (2)")
                await connection.execute("SELECT pg_sleep(100)")
        assert scope.cancelled_caught
        await check_at_rest(connection)
        assert await scalar(connection, "SELECT sum(a) FROM t") == 1


async def test_copy_in(postgres: str) -> None:
    """Rows are copied to the server."""
    async with await connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        await connection.execute("CREATE TABLE t (a int, b text)")
        async with cursor.copy("COPY t FROM STDIN") as copy:
            for n in range(10_000):
                await copy.write_row((n, "x" * 100))
        assert cursor.rowcount == 10_000
        await check_at_rest(connection)


async def test_copy_out(postgres: str) -> None:
    """Rows are copied from the server."""
    async with await connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        async with cursor.copy("COPY (SELECT generate_series(1, 1000)) TO STDOUT") as copy:
            copy.set_types(["int4"])
            assert [row async for row in copy.rows()] == [(n,) for n in range(1, 1001)]
        await check_at_rest(connection)


@pytest.mark.parametrize("where", ["read", "body", "left", "raised", "once"])
async def test_interrupted_copy_out(postgres: str, where: str) -> None:
    """A COPY from the server that is not read to its end is cancelled there."""
    async with await connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        seconds = 0.05 if where in ("read", "body") else float("inf")
        with trio.move_on_after(seconds) as scope, suppress(ZeroDivisionError):
            async with cursor.copy(ENDLESS) as copy:
                await copy.read()
                if where == "raised":
                    1 / 0  # noqa: B018
                if where == "body":
                    await trio.sleep_forever()
                if where == "read":
                    while await copy.read():
                        pass
                if where == "once":
                    with trio.CancelScope() as inner:
                        inner.cancel()
                        await copy.read()
                    with pytest.raises(psycopg.Error):
                        await copy.read()
                    raise ZeroDivisionError
                if where == "left":
                    scope.cancel()
        assert scope.cancelled_caught == (where in ("read", "body"))
        if where == "left":
            # psycopg takes the end of the block for the end of the reading, and closes what can't be reconciled.
            assert connection.closed
        else:
            await check_at_rest(connection)


@pytest.mark.parametrize("where", ["write", "body", "raised", "inner", "end"])
async def test_interrupted_copy_in(postgres: str, caplog: pytest.LogCaptureFixture, where: str) -> None:
    """A COPY to the server that is interrupted leaves no row and nothing in the log, and the connection goes on."""
    async with await connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        await connection.execute("CREATE TABLE t (a text)")
        if where in ("write", "inner"):
            await connection.execute(SLOW_ROWS)
        seconds = 0.1 if where in ("write", "body") else float("inf")
        with trio.move_on_after(seconds) as scope, suppress(ZeroDivisionError, psycopg.OperationalError):
            async with cursor.copy("COPY t FROM STDIN") as copy:
                await copy.write_row(("x",))
                if where == "raised":
                    1 / 0  # noqa: B018
                elif where == "end":
                    scope.cancel()
                elif where == "body":
                    await trio.sleep_forever()
                elif where == "inner":
                    with trio.move_on_after(0.02):
                        while True:
                            await copy.write("y" * 100_000)
                    await copy.write("z")
                else:
                    while True:
                        await copy.write("y" * 100_000)
        assert scope.cancelled_caught == (where in ("write", "body", "end"))
        await check_at_rest(connection)
        assert await scalar(connection, "SELECT count(*) FROM t") == 0
    assert not caplog.records


async def test_the_end_of_an_interrupted_copy(postgres: str) -> None:
    """A COPY to the server whose block goes on behind an interruption says at its end that it was cancelled."""

    async def interrupt(cursor: psycopg.AsyncCursor[Any]) -> None:
        async with cursor.copy("COPY t FROM STDIN") as copy:
            with trio.CancelScope() as scope:
                scope.cancel()
                await copy.write("y" * 100_000)

    async with await connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        await connection.execute("CREATE TABLE t (a text)")
        with pytest.raises(psycopg.errors.QueryCanceled, match="interrupted"):
            await interrupt(cursor)
        await check_at_rest(connection)


async def test_copy_lets_others_run(postgres: str) -> None:
    """A task that writes many rows at once keeps nobody waiting."""
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async with await connect(postgres, autocommit=True) as connection, connection.cursor() as cursor:
        await connection.execute("CREATE TABLE t (a int)")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            async with cursor.copy("COPY t FROM STDIN") as copy:
                others = 0
                while others < 3:
                    await copy.write_row((1,))
            nursery.cancel_scope.cancel()
