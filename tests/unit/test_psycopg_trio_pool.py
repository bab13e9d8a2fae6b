"""A pool is bounded, and hands on no connection that is broken or not at rest."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg_bridge import check_at_rest, scalar, sessions, wait_for_sessions
from trio.testing import wait_all_tasks_blocked
from wire import open_wire

from jobtrio.psycopg_trio import PoolStatistics, TrioConnection, _pool, connect, open_pool

if TYPE_CHECKING:
    from postgres_server import PostgresServer


def pid(connection: TrioConnection[Any]) -> int:
    return connection.info.backend_pid


async def test_used_again(postgres: str) -> None:
    """Connections are opened when they are needed, and used again, the one used last first."""
    async with open_pool(postgres, size=3, autocommit=True) as pool:
        assert pool.statistics == PoolStatistics(size=3, idle=0, in_use=0, waiting=0)
        async with pool.connection() as one:
            assert await scalar(one, "SELECT 1") == 1
            async with pool.connection() as other:
                await check_at_rest(other)
                assert pool.statistics == PoolStatistics(size=3, idle=0, in_use=2, waiting=0)
        for _ in range(3):
            async with pool.connection() as again:
                assert again is one
        assert pool.statistics == PoolStatistics(size=3, idle=2, in_use=0, waiting=0)
    assert one.closed
    assert other.closed
    await wait_for_sessions(postgres, 0)


async def test_one_block_each(postgres: str) -> None:
    """What gives a connection to one block is refused to another, which would be given the same one by and by."""
    async with open_pool(postgres, size=2, autocommit=True) as pool:
        lease = pool.connection()
        async with lease as connection:
            with pytest.raises(RuntimeError, match="for one block"):
                async with lease:
                    raise AssertionError("entered")
            await check_at_rest(connection)
        assert pool.statistics == PoolStatistics(size=2, idle=1, in_use=0, waiting=0)


async def test_rows_are_formed_as_asked(postgres: str) -> None:
    """All connections of a pool form rows as its `row_factory` says; tuples without one."""
    for factory, row in ((None, (1,)), (dict_row, {"n": 1})):
        async with open_pool(postgres, size=2, row_factory=factory) as pool, pool.connection() as one:
            async with pool.connection() as other:
                for connection in (one, other):
                    assert await (await connection.execute("SELECT 1 AS n")).fetchone() == row


async def test_bounded(postgres: str) -> None:
    """Tasks beyond the size wait in order, for as long as their scopes let them."""
    order: list[int] = []
    most = 0
    async with open_pool(postgres, size=2, autocommit=True) as pool:

        async def work(number: int) -> None:
            nonlocal most
            async with pool.connection() as connection:
                order.append(number)
                most = max(most, pool.statistics.in_use, len(sessions(postgres)))
                assert await scalar(connection, "SELECT %s::int", number) == number

        # One place is kept all along, so that one task at a time gets the other.
        async with pool.connection(), trio.open_nursery() as nursery:
            async with pool.connection():
                for number in range(10):
                    nursery.start_soon(work, number)
                    await wait_all_tasks_blocked()
                assert pool.statistics.waiting == 10
                with trio.move_on_after(0.01) as scope:
                    async with pool.connection():
                        raise AssertionError
                assert scope.cancelled_caught
                assert pool.statistics.waiting == 10
    assert order == list(range(10))
    assert most == 2


async def test_another_comes_back_sooner(
    postgres: str, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    """Who waits for a connection that is not to be had, as from a pooler that is full, takes one that comes back."""
    attempts = 0

    async def connect_once(*args: Any, **options: Any) -> TrioConnection[Any]:
        nonlocal attempts
        attempts += 1
        if attempts > 1:
            await trio.sleep_forever()
        return await connect(*args, **options)

    monkeypatch.setattr(_pool, "connect", connect_once)
    used: list[TrioConnection[Any]] = []

    async def use() -> None:
        async with pool.connection() as connection:
            await check_at_rest(connection)
            used.append(connection)

    async with open_pool(postgres, size=4, autocommit=True) as pool, trio.open_nursery() as nursery:
        async with pool.connection() as first:
            for _ in range(2):
                nursery.start_soon(use)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert (used, pool.statistics.idle) == ([], 1)  # a moment is given to a new one
        mock_clock.jump(_pool.SLOW)
        while not used:
            await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        mock_clock.jump(_pool.SLOW)
        while len(used) < 2:
            await trio.lowlevel.checkpoint()
        assert used == [first, first]
    assert first.closed


async def test_others_come_back_sooner(
    postgres: str, monkeypatch: pytest.MonkeyPatch, mock_clock: trio.testing.MockClock
) -> None:
    """Each that comes back is for another one of those who wait for a new connection."""
    used: list[TrioConnection[Any]] = []

    async def connect_never(*args: Any, **options: Any) -> TrioConnection[Any]:
        await trio.sleep_forever()
        raise AssertionError

    async def use() -> None:
        async with pool.connection() as connection:
            used.append(connection)
            await trio.sleep_forever()

    async with open_pool(postgres, size=4, autocommit=True) as pool, trio.open_nursery() as nursery:
        async with pool.connection() as first, pool.connection() as second:
            monkeypatch.setattr(_pool, "connect", connect_never)
            for _ in range(2):
                nursery.start_soon(use)
            await wait_all_tasks_blocked()
            mock_clock.jump(_pool.SLOW - 1)
        await wait_all_tasks_blocked()
        assert used == []
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert {*used} == {first, second}
        nursery.cancel_scope.cancel()


async def test_open_transaction_is_rolled_back(postgres: str) -> None:
    """What a block leaves open is rolled back before the connection is used again."""
    async with open_pool(postgres, size=1) as pool:
        async with pool.connection() as first:
            await first.execute("CREATE TABLE t (a int)")
        async with pool.connection() as second:
            assert second is first
            assert await scalar(second, "SELECT to_regclass('t')") is None
            with suppress(psycopg.errors.DivisionByZero):
                await second.execute("SELECT 1 / 0")
        async with pool.connection() as third:
            assert third is first
            await check_at_rest(third)


async def test_cancelled_block(postgres: str) -> None:
    """A block that is cancelled gives its connection back, with nothing left open."""
    async with open_pool(postgres, size=1) as pool:
        with trio.CancelScope() as scope:
            async with pool.connection() as first:
                await first.execute("CREATE TABLE t (a int)")
                scope.deadline = trio.current_time() + 0.05
                await first.execute("SELECT pg_sleep(100)")
        assert scope.cancelled_caught
        assert pool.statistics.idle == 1
        assert sessions(postgres) == [("idle", "ROLLBACK")]
        async with pool.connection() as second:
            assert second is first
            await check_at_rest(second)


async def test_cancelled_before(postgres: str) -> None:
    """A task that was cancelled is given no connection, not even one that is idle."""
    async with open_pool(postgres, size=1, autocommit=True) as pool:
        async with pool.connection():
            pass
        with trio.CancelScope() as scope:
            scope.cancel()
            async with pool.connection():
                raise AssertionError("entered")
        assert scope.cancelled_caught
        assert pool.statistics == PoolStatistics(size=1, idle=1, in_use=0, waiting=0)


async def test_left_in_the_middle(postgres: str) -> None:
    """A connection in the middle of something is not used again."""
    async with open_pool(postgres, size=1, autocommit=True) as pool:
        async with pool.connection() as first:
            first.pgconn.enter_pipeline_mode()
        assert first.closed
        async with pool.connection() as second:
            second.pgconn.send_query(b"SELECT 1")
        assert second.closed
        async with pool.connection() as third:
            await third.close()
        async with pool.connection() as fourth:
            await fourth.lock.__aenter__()  # as in the midst of a COPY whose rows are read
        assert fourth.closed
        assert pool.statistics == PoolStatistics(size=1, idle=0, in_use=0, waiting=0)


async def test_left_in_two_phases(postgres: str) -> None:
    """A connection whose two-phase transaction has not ended is not used again, at whichever phase it is."""
    async with open_pool(postgres, size=1) as pool:
        async with pool.connection() as first:
            await first.tpc_begin("begun")
        assert first.closed
        async with pool.connection() as second:
            await second.tpc_begin("to be prepared")
            with suppress(psycopg.NotSupportedError):  # as it is by default
                await second.tpc_prepare()
        assert second.closed
        async with pool.connection() as third:
            await check_at_rest(third)
            await third.commit()


async def test_server_restarted(own_postgres: PostgresServer) -> None:
    """Connections that the server has closed meanwhile are not handed out."""
    async with open_pool(own_postgres.conninfo(), size=3, autocommit=True) as pool:
        async with pool.connection(), pool.connection(), pool.connection():
            pass
        assert pool.statistics.idle == 3
        own_postgres.restart()
        for _ in range(3):
            async with pool.connection() as connection:
                await check_at_rest(connection)
        assert pool.statistics.idle == 1


async def test_server_away(own_postgres: PostgresServer) -> None:
    """While the server is away taking a connection fails, and takes no place; then it is well again."""
    async with open_pool(own_postgres.conninfo(), size=1, autocommit=True) as pool:
        own_postgres.stop()
        for _ in range(3):
            with pytest.raises(psycopg.OperationalError):
                await pool.connection().__aenter__()
        own_postgres.start()
        async with pool.connection() as connection:
            await check_at_rest(connection)


async def test_half_open(postgres_server: PostgresServer, autojump_clock: trio.testing.MockClock) -> None:
    """A connection that was idle for long is asked first; when one does not answer in time, none of them is used."""
    async with open_wire(postgres_server.port) as wire:
        # The virtual clock would be over with any time limit for connecting.
        where = postgres_server.conninfo(port=wire.port, connect_timeout=0)
        opening = open_pool(where, size=3, autocommit=True, check_after=10.0, check_limit=5.0)
        async with opening as pool:
            async with pool.connection() as first, pool.connection() as second, pool.connection() as third:
                pass
            await trio.sleep(11)
            wire.lose()
            begun = trio.current_time()
            async with pool.connection() as new:
                await check_at_rest(new)
            assert new not in (first, second, third)
            assert first.closed
            assert second.closed
            assert third.closed
            assert trio.current_time() - begun == 5


async def test_asked_and_well(postgres: str) -> None:
    """A connection that was idle for long, and answers, is used again."""
    async with open_pool(postgres, size=1, autocommit=True, check_after=0) as pool:
        async with pool.connection() as first:
            await first.execute("SELECT 'used'")
        async with pool.connection() as again:
            assert again is first
            assert sessions(postgres) == [("idle", "")]


async def test_one_lost_makes_all_suspect(postgres_server: PostgresServer) -> None:
    """When one connection is lost, the idle ones are asked before they are used."""
    async with (
        open_wire(postgres_server.port) as wire,
        open_pool(postgres_server.conninfo(port=wire.port), size=2, autocommit=True, check_limit=0.5) as pool,
    ):
        async with pool.connection() as first:
            async with pool.connection() as second:
                pass
            first.cancel_grace = 0.05
            wire.lose()
            with trio.move_on_after(0.05):
                await first.execute("SELECT 1")
            assert first.closed
        async with pool.connection() as third:
            await check_at_rest(third)
        assert second.closed


async def test_lost_while_rolled_back(postgres_server: PostgresServer) -> None:
    """A connection that turns out to be lost only as its block's transaction is rolled back was lost all the same."""
    async with (
        open_wire(postgres_server.port) as wire,
        open_pool(postgres_server.conninfo(port=wire.port), size=2, check_limit=0.5) as pool,
    ):
        with trio.CancelScope() as scope:
            async with pool.connection() as first:
                async with pool.connection() as second:
                    pass
                await first.execute("SELECT 1")
                first.cancel_grace = 0.05
                wire.lose()
                scope.cancel()
        assert first.closed
        async with pool.connection() as third:
            await check_at_rest(third)
        assert second.closed


async def test_not_asked_needlessly(postgres: str) -> None:
    """A connection that was used a moment ago is handed out without a question to the server."""
    async with open_pool(postgres, size=1, autocommit=True) as pool:
        async with pool.connection() as connection:
            await connection.execute("SELECT 'used'")
        async with pool.connection():
            assert sessions(postgres) == [("idle", "SELECT 'used'")]


async def test_asked_once(postgres: str) -> None:
    """A connection that is asked because another one was lost, and answers, is above suspicion again."""
    async with open_pool(postgres, size=2, autocommit=True) as pool:
        async with pool.connection() as lost:
            async with pool.connection() as kept:
                pass
            await lost.close()
        await wait_for_sessions(postgres, 1)
        async with pool.connection() as again:
            assert again is kept
            assert sessions(postgres) == [("idle", "")]
            await again.execute("SELECT 'used'")
        async with pool.connection():
            assert sessions(postgres) == [("idle", "SELECT 'used'")]


async def test_check_keeps_the_grace(postgres: str) -> None:
    """A connection that was asked has the grace that it had before."""
    async with open_pool(postgres, size=1, autocommit=True, check_after=0) as pool:
        async with pool.connection() as connection:
            connection.cancel_grace = 3.0
        async with pool.connection() as again:
            assert again is connection
            assert again.cancel_grace == 3.0


async def test_ages(postgres: str, mock_clock: trio.testing.MockClock) -> None:
    """Connections that are too old are not used again, and those idle for too long are closed."""
    async with open_pool(postgres, size=2, autocommit=True, max_age=1000) as pool:
        async with pool.connection() as first:
            pass
        mock_clock.jump(1001)
        async with pool.connection() as second:
            assert second is not first
            assert first.closed
    async with open_pool(postgres, size=2, autocommit=True, max_idle=1000) as pool:
        async with pool.connection() as first, pool.connection() as second:
            pass
        mock_clock.jump(1001)
        async with pool.connection() as third:
            assert third is first
        assert second.closed
        assert pool.statistics.idle == 1


async def test_hooks(postgres: str) -> None:
    """New connections are configured, and those that come back are reset; one that can't be is closed."""
    seen: list[str] = []

    async def configure(connection: TrioConnection[Any]) -> None:
        seen.append("configure")
        await connection.execute("SET search_path TO nowhere")

    async def reset(connection: TrioConnection[Any]) -> None:
        seen.append("reset")
        if await scalar(connection, "SHOW work_mem") == "1MB":
            raise ValueError("bad")
        await connection.execute("RESET search_path")

    async with open_pool(postgres, size=1, autocommit=True, configure=configure, reset=reset) as pool:
        async with pool.connection() as first:
            assert await scalar(first, "SHOW search_path") == "nowhere"
        with trio.CancelScope() as scope:
            async with pool.connection() as second:
                assert second is first
                assert await scalar(second, "SHOW search_path") == '"$user", public'
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert seen == ["configure", "reset", "reset"]
        with pytest.raises(ValueError, match="bad"):  # noqa: PT012
            async with pool.connection() as third:
                assert third is first
                await third.execute("SET work_mem = '1MB'")
        assert third.closed
        assert pool.statistics == PoolStatistics(size=1, idle=0, in_use=0, waiting=0)


@pytest.mark.parametrize("hook", ["configure", "reset"])
async def test_hooks_begin_transactions(postgres: str, hook: str) -> None:
    """What a hook sets lasts without autocommit, too, and the block's transaction behind it is one of its own."""

    async def settle(connection: TrioConnection[Any]) -> None:
        await connection.execute("SET work_mem = '1MB'")

    hooks: dict[str, Any] = {hook: settle}
    async with open_pool(postgres, size=1, **hooks) as pool:
        async with pool.connection():
            pass
        async with pool.connection() as connection, connection.transaction():
            assert await scalar(connection, "SHOW work_mem") == "1MB"
            await connection.execute("CREATE TABLE t (a int)")
        async with pool.connection() as connection:
            assert await scalar(connection, "SELECT count(*) FROM t") == 0
            await connection.rollback()
            assert await scalar(connection, "SHOW work_mem") == "1MB"


async def test_reset_that_hangs(postgres: str, autojump_clock: trio.testing.MockClock) -> None:
    """What resets a connection has its time, also where the task is cancelled: past it the connection is closed."""

    async def reset(connection: TrioConnection[Any]) -> None:
        await trio.sleep_forever()

    # The virtual clock would be over with any time limit for connecting.
    where = make_conninfo(postgres, connect_timeout=0)
    async with open_pool(where, size=1, autocommit=True, reset=reset, check_limit=7.0) as pool:
        for _ in range(2):
            with trio.CancelScope() as scope:
                async with pool.connection() as connection:
                    begun = trio.current_time()
                    scope.cancel()
            assert trio.current_time() == begun + 7
            assert connection.closed
            assert pool.statistics == PoolStatistics(size=1, idle=0, in_use=0, waiting=0)


async def test_configure_fails(postgres: str) -> None:
    """A connection that can't be configured is closed, and takes no place."""

    async def configure(connection: TrioConnection[Any]) -> None:
        await connection.execute("SELECT 1 / 0")

    async with open_pool(postgres, size=1, configure=configure) as pool:
        for _ in range(2):
            with pytest.raises(psycopg.errors.DivisionByZero):
                await pool.connection().__aenter__()
    await wait_for_sessions(postgres, 0)


async def test_configure_is_cancelled(postgres: str) -> None:
    """A connection is closed, and takes no place, whose configuration is cancelled."""
    configured: list[TrioConnection[Any]] = []

    async def configure(connection: TrioConnection[Any]) -> None:
        configured.append(connection)
        scope.cancel()
        await trio.lowlevel.checkpoint()

    async with open_pool(postgres, size=1, configure=configure) as pool:
        with trio.CancelScope() as scope:
            async with pool.connection():
                raise AssertionError("entered")
        assert scope.cancelled_caught
        assert [connection.closed for connection in configured] == [True]
        assert pool.statistics == PoolStatistics(size=1, idle=0, in_use=0, waiting=0)


async def test_notifications_of_the_block_before(postgres: str) -> None:
    """What a block was notified of and has not read is not given to the next one that has its connection."""
    async with open_pool(postgres, size=1, autocommit=True) as pool, await connect(postgres, autocommit=True) as other:
        async with pool.connection() as connection:
            await connection.execute("LISTEN news")
            await other.execute("SELECT pg_notify('news', n::text) FROM generate_series(1, 2) AS n")
            assert [notice.payload async for notice in connection.notifies(stop_after=1)] == ["1"]
            await connection.execute("UNLISTEN news")
        async with pool.connection() as again:
            assert again is connection
            assert [notice.payload async for notice in again.notifies(timeout=0)] == []


async def test_closed(postgres: str) -> None:
    """A closed pool refuses those who wait as well, and closes what comes back."""
    async with trio.open_nursery() as nursery:
        async with open_pool(postgres, size=1, autocommit=True) as pool:
            lease = pool.connection()
            connection = await lease.__aenter__()

            async def wait() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await pool.connection().__aenter__()

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert not nursery.child_tasks  # it has not waited for what is in use to come back
        await check_at_rest(connection)
        await lease.__aexit__(None, None, None)
        assert connection.closed
    with pytest.raises(trio.ClosedResourceError):
        await pool.connection().__aenter__()


async def test_closed_by_an_exception(postgres: str) -> None:
    """A pool whose block raises is closed as well."""
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with open_pool(postgres, size=1) as pool:
            async with pool.connection() as connection:
                pass
            raise ZeroDivisionError
    assert connection.closed


SECONDS = ("check_after", "check_limit", "max_idle", "max_age")
BAD = [("size", value) for value in (0, -1, 1.5, "3", None, True)]
BAD += [(name, value) for name in SECONDS for value in (-1, math.nan, -math.inf, 10**400, "1", None, True)]
BAD += [("configure", 3), ("reset", "reset")]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda part: ascii(part)[:20])
async def test_bad_parameters(name: str, value: Any) -> None:
    """What makes no sense is refused when the pool is opened, by name, value, and what is allowed."""
    with pytest.raises((TypeError, ValueError), match=rf"{name} must be .*; got {re.escape(repr(value))}$"):
        await open_pool("", **{name: value}).__aenter__()


@pytest.mark.parametrize("value", [None, 3, b"host=127.0.0.1"])
async def test_no_connection_string(value: Any) -> None:
    """What is no text, as of a variable that is not set, is refused when the pool is opened."""
    with pytest.raises(TypeError, match=rf"^conninfo must be text; got {type(value)}$"):
        await open_pool(value).__aenter__()


async def test_parameters_at_their_edges(postgres: str) -> None:
    """No time at all and no end of it make sense."""
    for seconds in (0, math.inf):
        options: dict[str, Any] = dict.fromkeys(SECONDS, seconds)
        async with open_pool(postgres, **options) as pool, pool.connection() as connection:
            assert await scalar(connection, "SELECT 1") == 1
