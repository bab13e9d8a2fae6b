"""The PostgreSQL bridge under cancellations at random: no transaction is left open, no reply is another's."""

from __future__ import annotations

import random
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import trio
from psycopg_bridge import check_at_rest, scalar, sessions

from jobtrio.psycopg_trio import Pool, TrioConnection, connect, open_pool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Action = Callable[[TrioConnection[Any], int], Awaitable[None]]

CANCELLATIONS = 2_000
TASKS = 8

TABLE = "CREATE TABLE t (token int, half text, PRIMARY KEY (token, half))"
BOTH = "INSERT INTO t VALUES (%s, 'a'), (%s, 'b')"


async def select(connection: TrioConnection[Any], token: int) -> None:
    assert await scalar(connection, "SELECT %s::int", token) == token


async def prepared(connection: TrioConnection[Any], token: int) -> None:
    cursor = await connection.execute("SELECT %s::int, pg_sleep(0.001)", [token], prepare=True)
    assert await cursor.fetchone() == (token, "")


async def stream(connection: TrioConnection[Any], token: int) -> None:
    seen = [row async for row in connection.cursor().stream("SELECT %s + generate_series(1, 500)", [token])]
    assert seen == [(token + n,) for n in range(1, 501)]


async def pipeline(connection: TrioConnection[Any], token: int) -> None:
    async with connection.pipeline():
        cursors = [await connection.execute("SELECT %s::int", [token + n]) for n in range(20)]
    assert [await cursor.fetchone() for cursor in cursors] == [(token + n,) for n in range(20)]


async def copy_out(connection: TrioConnection[Any], token: int) -> None:
    async with connection.cursor().copy("COPY (SELECT %s + generate_series(1, 500)) TO STDOUT", [token]) as copy:
        seen = [row async for row in copy.rows()]
    assert seen == [(str(token + n),) for n in range(1, 501)]


async def nested(connection: TrioConnection[Any], token: int) -> None:
    await connection.execute("INSERT INTO t VALUES (%s, 'a')", [token])
    async with connection.transaction():
        await connection.execute("INSERT INTO t VALUES (%s, 'b')", [token])


async def pipelined(connection: TrioConnection[Any], token: int) -> None:
    async with connection.pipeline():
        await connection.execute("INSERT INTO t VALUES (%s, 'a')", [token])
        await connection.execute("INSERT INTO t VALUES (%s, 'b')", [token])


async def copy_in(connection: TrioConnection[Any], token: int) -> None:
    async with connection.cursor().copy("COPY t FROM STDIN") as copy:
        await copy.write_row((token, "a"))
        await copy.write_row((token, "b"))


async def many(connection: TrioConnection[Any], token: int) -> None:
    await connection.cursor().executemany("INSERT INTO t VALUES (%s, %s)", [(token, "a"), (token, "b")])


async def fail(connection: TrioConnection[Any], token: int) -> None:
    try:
        async with connection.transaction():
            await connection.execute(BOTH, [token, token])
            await connection.execute("SELECT %s / 0", [token])
    except psycopg.errors.DivisionByZero:
        pass


READERS: tuple[Action, ...] = (select, prepared, stream, pipeline, copy_out, fail)
WRITERS: tuple[Action, ...] = (nested, pipelined, copy_in, many)
"""What they write is one transaction, which is around them."""


class Soak:
    """Actions that are cancelled at random, and what became of them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.tokens = iter(range(0, 10**9, 1000))
        self.committed: set[int] = set()
        self.refused: set[int] = set()
        self.seen: Counter[str] = Counter()

    def done(self) -> bool:
        return self.seen["cancelled"] >= CANCELLATIONS

    async def act(self, connection: TrioConnection[Any]) -> None:
        """Do something, for a random time from nothing to longer than it takes."""
        action = self.random.choice(READERS + WRITERS)
        token = next(self.tokens)
        seconds = self.random.choice((0, 0.001, 0.002, 0.004)) * self.random.random()
        with trio.move_on_after(seconds) as scope:
            if action in READERS:
                await action(connection, token)
            elif self.random.random() < 0.5:
                async with connection.transaction():
                    await action(connection, token)
                self.committed.add(token)
            else:
                async with connection.pipeline():
                    async with connection.transaction():
                        await (nested if action is copy_in else action)(connection, token)
                    self.committed.add(token)
        if scope.cancelled_caught:
            self.seen["cancelled"] += 1
            self.seen[action.__name__] += 1
            if action in WRITERS and token not in self.committed:
                self.refused.add(token)

    async def check(self, conninfo: str) -> None:
        """Check that what was said to be committed is there, whole, and nothing else."""
        async with await connect(conninfo) as observer:
            rows = await (
                await observer.execute("SELECT token, string_agg(half, '' ORDER BY half) FROM t GROUP BY 1")
            ).fetchall()
        assert {half for _, half in rows} <= {"ab"}
        kept = {token for token, _ in rows}
        assert kept == self.committed
        assert not kept & self.refused
        assert self.refused
        assert all(self.seen[action.__name__] > 20 for action in READERS + WRITERS), self.seen


async def test_random_cancellations_in_a_pool(postgres: str) -> None:
    """After 2,000 cancellations all connections are at rest, and what was said about each transaction is true."""
    soak = Soak(1)
    async with open_pool(postgres, size=4, autocommit=True) as pool:
        async with pool.connection() as connection:
            await connection.execute(TABLE)

        async def work() -> None:
            while not soak.done():
                async with pool.connection() as connection:
                    await soak.act(connection)

        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(work)
        assert {state for state, _ in sessions(postgres)} == {"idle"}
        await check_pool(pool)
    await soak.check(postgres)


async def check_pool(pool: Pool) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(pool.statistics.size):
            nursery.start_soon(partial(check_one, pool))


async def check_one(pool: Pool) -> None:
    async with pool.connection() as connection:
        await check_at_rest(connection)


async def test_random_cancellations_on_shared_connection(postgres: str) -> None:
    """Tasks that share a connection, and are cancelled at random, get their own replies and no others."""
    dice = random.Random(2)
    cancelled = 0
    async with await connect(postgres, autocommit=True) as connection:
        await connection.execute(TABLE)

        async def work() -> None:
            nonlocal cancelled
            while cancelled < 500:
                action = dice.choice((select, prepared, stream, copy_out))
                with trio.move_on_after(0.01 * dice.random()) as scope:
                    await action(connection, dice.randrange(10**6))
                cancelled += scope.cancelled_caught

        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(work)
        await check_at_rest(connection)
