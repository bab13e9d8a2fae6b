"""The PostgreSQL bridge cancelled at every step, and cut at every byte: what it says about a transaction is true."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from cancelled_steps import cancelled_at
from psycopg_bridge import check_at_rest, scalar, sessions, wait_for_sessions
from wire import open_wire

from jobtrio.psycopg_trio import OutcomeUnknownError, TrioConnection, connect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from postgres_server import PostgresServer

    Scenario = Callable[[TrioConnection[Any], trio.Event], Awaitable[None]]

CUTS = 100
"""How often a connection is cut, somewhere."""

MUCH = 1_000_000
"""Bytes, more than any scenario sends."""

ENOUGH = 500
"""Steps after which a scenario should long have ended by itself."""


async def nested(connection: TrioConnection[Any], committed: trio.Event) -> None:
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (1)")
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (2)")
    committed.set()


async def in_pipeline(connection: TrioConnection[Any], committed: trio.Event) -> None:
    async with connection.pipeline():
        async with connection.transaction():
            await connection.execute("INSERT INTO t VALUES (1)")
            await connection.execute("INSERT INTO t VALUES (2)")
        committed.set()


async def by_hand(connection: TrioConnection[Any], committed: trio.Event) -> None:
    await connection.set_autocommit(False)
    try:
        await connection.execute("INSERT INTO t VALUES (1), (2)")
        await connection.commit()
        committed.set()
    finally:
        if not connection.closed:
            await connection.rollback()
            with trio.CancelScope(shield=True):
                await connection.set_autocommit(True)


async def many(connection: TrioConnection[Any], committed: trio.Event) -> None:
    async with connection.transaction():
        await connection.cursor().executemany("INSERT INTO t VALUES (%s)", [(1,), (2,)])
    committed.set()


async def copied(connection: TrioConnection[Any], committed: trio.Event) -> None:
    async with connection.transaction():
        async with connection.cursor().copy("COPY t FROM STDIN") as copy:
            await copy.write_row((1,))
            await copy.write_row((2,))
        async with connection.cursor().copy("COPY t TO STDOUT") as copy:
            assert [row async for row in copy.rows()] == [("1",), ("2",)]
    committed.set()


async def streamed(connection: TrioConnection[Any], committed: trio.Event) -> None:
    async with connection.transaction():
        async for row in connection.cursor().stream("INSERT INTO t VALUES (1), (2) RETURNING a"):
            assert row in ((1,), (2,))
    committed.set()


SCENARIOS = (nested, in_pipeline, by_hand, many, copied, streamed)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_cancelled_at_every_step(postgres: str, scenario: Scenario) -> None:
    """At whatever step a transaction is cancelled, it is committed if it ended normally and else rolled back."""
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute("CREATE TABLE t (a int)")
        for step in range(1, ENOUGH):
            await connection.execute("TRUNCATE t")
            committed = trio.Event()
            with cancelled_at(step) as scope:
                await scenario(connection, committed)
            assert sessions(postgres)[0][0] == "idle"
            await check_at_rest(connection)
            assert await scalar(connection, "SELECT count(*) FROM t") == (2 if committed.is_set() else 0)
            if not scope.cancel_called:
                break
        # Where the server is quicker than this task, a pipeline may need no step at all.
        assert (0 if scenario is in_pipeline else 1) < step < ENOUGH - 1
        assert committed.is_set()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_cut_at_any_byte(postgres_server: PostgresServer, scenario: Scenario) -> None:
    """Wherever a connection is cut, a transaction is committed, not committed, or said to be one or the other."""
    conninfo = postgres_server.create_database()
    unknown = 0
    async with open_wire(postgres_server.port) as wire, await connect(conninfo, autocommit=True) as observer:
        await observer.execute("CREATE TABLE t (a int)")
        async with await connect(conninfo, port=wire.port, autocommit=True) as connection:
            wire.left = MUCH
            await scenario(connection, trio.Event())
            carried = int(MUCH - wire.left)
        for cut in range(CUTS):
            await observer.execute("TRUNCATE t")
            committed = trio.Event()
            possible = {0}
            try:
                async with await connect(conninfo, port=wire.port, autocommit=True) as connection:
                    wire.left = 1 + cut * carried // CUTS  # from the first byte to the last, a few apart
                    await scenario(connection, committed)
            except OutcomeUnknownError:
                possible = {0, 2}
                unknown += 1
            except psycopg.OperationalError:
                pass
            wire.left = math.inf
            assert connection.closed
            await wait_for_sessions(conninfo, 1)
            assert await scalar(observer, "SELECT count(*) FROM t") in ({2} if committed.is_set() else possible)
    assert 0 < unknown < CUTS  # the answer to a commit is longer than two cuts are apart
