"""The PostgreSQL bridge and psycopg on asyncio, given the same program, answer alike: results, errors, and states."""

from __future__ import annotations

import asyncio
import random
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from psycopg import rows, sql
from psycopg.pq import TransactionStatus

from jobtrio import psycopg_trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Connection = psycopg.AsyncConnection[Any]

PROGRAMS = 40
STEPS = 30
DEPTH = 2

TABLES = """
DROP SCHEMA public CASCADE;
CREATE SCHEMA public;
CREATE TABLE t (a int);
CREATE TABLE once (a int PRIMARY KEY);
CREATE TABLE late (a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TYPE pair AS (a int, b text);
"""

PLAIN = ("SELECT 1, NULL, 'x'", "SELECT generate_series(1, 3)", "INSERT INTO t VALUES (1), (2)", "DELETE FROM t", "")
WRONG = ("SELECT 1 / 0", "SELEC", "INSERT INTO once VALUES (1), (1)", "RELEASE unknown", "SELECT 'a'::int", "VACUUM t")
ENDING = ("SELECT 1; SELECT 2, 3", "SELECT 1; SELECT 1 / 0", "BEGIN; SELECT 1", "COMMIT", "ROLLBACK", "DISCARD ALL")
VALUES = (1, 2**40, 1.5, "a'b", b"\0\xff", None, True, [1, None], ["a"], "\0", object())
NUMBERS = "SELECT 6 / (n - 4) FROM generate_series(1, %s::int) AS n"


class Program:
    """A connection's life at random, the same for each kind of it.

    Attributes:
        seen: What each step gave, or raised, and how the connection was left.
    """

    def __init__(self, connection: Connection, seed: int) -> None:
        self.connection = connection
        self.dice = random.Random(seed)
        self.seen: list[object] = []

    async def run(self) -> list[object]:
        for _ in range(STEPS):
            await self.step(DEPTH)
        await self.connection.rollback()
        return self.seen

    async def step(self, depth: int) -> None:
        """Do something, within as many blocks as there are levels less than `DEPTH`."""
        step = self.dice.choice(WITH_OTHERS + BY_THEMSELVES if depth else BY_THEMSELVES)
        try:
            said = await step(self, depth)
        except (psycopg.Error, ValueError, TypeError, IndexError) as exc:
            text = re.sub("0x[0-9a-f]+|_pg3_[0-9]+", "…", str(exc))
            self.note(step, type(exc), getattr(exc, "sqlstate", None), text)
            if depth < DEPTH:  # a block that has swallowed an error is refused by the bridge alone
                raise
        else:
            self.note(step, said)
        if depth == DEPTH and self.connection.info.transaction_status == TransactionStatus.INERROR:
            await self.connection.rollback()

    def note(self, step: Callable[..., object], *said: object) -> None:
        status = self.connection.info.transaction_status
        self.seen.append((step.__name__, *said, status, self.connection.closed, self.connection.autocommit))

    async def transaction(self, depth: int) -> None:
        begun = self.dice.random()
        async with self.connection.transaction(self.dice.choice((None, "one")), force_rollback=begun < 0.1):
            for _ in range(self.dice.randrange(4)):
                await self.step(depth - 1)
            if begun > 0.8:
                raise psycopg.Rollback
            if begun > 0.7:
                raise ValueError("enough")

    async def pipeline(self, depth: int) -> object:
        said: list[object] = []
        async with self.connection.pipeline() as pipeline:
            for _ in range(self.dice.randrange(6)):
                statement = self.dice.choice(("SELECT 1 / %s::int", "INSERT INTO t VALUES (%s) RETURNING a"))
                given = [self.dice.randrange(3)]
                try:
                    cursor = await self.connection.execute(statement, given, prepare=self.dice.random() < 0.5)
                    said.append(await cursor.fetchall())
                except psycopg.Error as exc:
                    said.append(type(exc))
                    if depth < DEPTH:
                        raise
                await pipeline.sync()
        return said

    async def execute(self, depth: int) -> object:
        statement = self.dice.choice(PLAIN + WRONG + (ENDING if depth == DEPTH else ()))
        cursor = await self.connection.execute(sql.SQL(statement), prepare=self.dice.choice((None, False)))
        said = []
        more: object = True
        while more:
            said.append(
                (cursor.statusmessage, cursor.rowcount, await cursor.fetchall() if cursor.description else None)
            )
            more = cursor.nextset()
        return said

    async def parameters(self, depth: int) -> object:
        statement = self.dice.choice(("SELECT %s", "SELECT %b", "SELECT %s, %s"))
        cursor = await self.connection.execute(
            sql.SQL(statement), [self.dice.choice(VALUES)], binary=self.dice.random() < 0.5
        )
        return repr(await cursor.fetchone())

    async def prepared(self, depth: int) -> object:
        cursor = await self.connection.execute("SELECT a FROM t WHERE a = %s", [self.dice.randrange(3)], prepare=True)
        return await cursor.fetchall()

    async def many(self, depth: int) -> object:
        cursor = self.connection.cursor()
        given = [[self.dice.choice((1, 2, 3, "x"))] for _ in range(self.dice.randrange(4))]
        returning = self.dice.random() < 0.5
        await cursor.executemany("INSERT INTO t VALUES (%s) RETURNING a", given, returning=returning)
        return cursor.rowcount, await cursor.fetchall() if returning and given else None

    async def fetch(self, depth: int) -> object:
        factory = self.dice.choice((rows.tuple_row, rows.dict_row, rows.scalar_row))
        async with self.connection.cursor(row_factory=factory) as cursor:
            await cursor.execute("SELECT n, 'x' AS b FROM generate_series(1, 9) AS n")
            await cursor.scroll(self.dice.randrange(-1, 10))
            return await cursor.fetchone(), await cursor.fetchmany(2), [row async for row in cursor], cursor.rownumber

    async def on_server(self, depth: int) -> object:
        async with self.connection.cursor("c", scrollable=True, withhold=self.dice.random() < 0.5) as cursor:
            await cursor.execute(NUMBERS, [self.dice.randrange(6)])
            cursor.itersize = 2
            said = [await cursor.fetchone(), await cursor.fetchmany(1)]
            await cursor.scroll(-1)
            return said, [row async for row in cursor]

    async def stream(self, depth: int) -> object:
        said = [row async for row in self.connection.cursor().stream(NUMBERS, [self.dice.randrange(6)])]
        await self.connection.execute("SELECT 1")  # psycopg would take a pipeline's first statement for one to stream
        return said

    async def copy_in(self, depth: int) -> object:
        cursor = self.connection.cursor()
        async with cursor.copy("COPY t FROM STDIN") as copy:
            for _ in range(self.dice.randrange(4)):
                await copy.write_row((self.dice.choice((1, 2, 3, 4, "x")),))
            if self.dice.random() < 0.2:
                raise ValueError("enough")
        return cursor.rowcount, cursor.statusmessage

    async def copy_out(self, depth: int) -> object:
        statement = sql.SQL("COPY ({}) TO STDOUT").format(
            sql.SQL("SELECT 6 / (n - 4) FROM generate_series(1, {}) AS n")
        )
        async with self.connection.cursor().copy(statement.as_string().format(self.dice.randrange(6)).encode()) as copy:
            copy.set_types(["int4"])
            if self.dice.random() < 0.2:
                raise ValueError("enough")
            said = []
            while (row := await copy.read_row()) is not None:
                said.append(row)
        return said

    async def types(self, depth: int) -> object:
        found = await psycopg.types.TypeInfo.fetch(self.connection, self.dice.choice(("pair", "unknown")))
        return found and found.name

    async def conflict(self, depth: int) -> None:
        await self.connection.execute(self.dice.choice(("INSERT INTO late VALUES (1)", "INSERT INTO once VALUES (1)")))

    async def notify(self, depth: int) -> None:
        await self.connection.execute("LISTEN news")
        await self.connection.execute("NOTIFY news, 'x'")

    async def settings(self, depth: int) -> None:
        change: Callable[[], Awaitable[None]] = self.dice.choice(
            (
                lambda: self.connection.set_autocommit(True),
                lambda: self.connection.set_autocommit(False),
                lambda: self.connection.set_read_only(False),
                lambda: self.connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE),
            )
        )
        await change()

    async def commit(self, depth: int) -> None:
        await self.connection.commit()

    async def rollback(self, depth: int) -> None:
        await self.connection.rollback()

    async def closed_cursor(self, depth: int) -> object:
        cursor = await self.connection.execute("SELECT 1")
        if self.dice.random() < 0.5:
            await cursor.close()
        return await cursor.fetchall()


P = Program
WITH_OTHERS = (P.transaction, P.transaction, P.pipeline)
BY_THEMSELVES = (
    *(P.execute, P.execute, P.execute, P.parameters, P.prepared, P.many, P.fetch, P.on_server, P.stream, P.copy_in),
    *(P.copy_out, P.types, P.conflict, P.notify, P.settings, P.commit, P.rollback, P.closed_cursor),
)


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_agrees_with_asyncio(postgres: str, seed: int) -> None:
    """A program gives what it gives with psycopg on asyncio, to the state that each step leaves."""

    async def on_asyncio() -> list[object]:
        async with await psycopg.AsyncConnection.connect(postgres, autocommit=seed % 2 == 0) as connection:
            return await Program(connection, seed).run()

    async def on_trio() -> list[object]:
        async with await psycopg_trio.connect(postgres, autocommit=seed % 2 == 0) as connection:
            return await Program(connection, seed).run()

    set_up(postgres)
    expected = asyncio.run(on_asyncio())
    set_up(postgres)
    assert trio.run(on_trio) == expected


def set_up(conninfo: str) -> None:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(TABLES)
