"""What a type checker has to find of connections and their rows. Checked, and never run."""

from __future__ import annotations

from typing import Any, assert_type

from psycopg import AsyncCursor, AsyncPipeline, Notify
from psycopg.rows import class_row, dict_row

from jobtrio import psycopg_trio


class Account:
    name: str


async def connecting() -> None:
    connection = await psycopg_trio.connect("dbname=jobs", autocommit=True)
    assert_type(connection, psycopg_trio.TrioConnection[tuple[Any, ...]])
    async with connection as entered:
        assert_type(entered, psycopg_trio.TrioConnection[tuple[Any, ...]])
        cursor = await entered.execute("SELECT 1")
        assert_type(cursor, AsyncCursor[tuple[Any, ...]])
        assert_type(await cursor.fetchone(), tuple[Any, ...] | None)
        assert_type(await entered.cursor(row_factory=dict_row).fetchall(), list[dict[str, Any]])
        async with entered.pipeline() as pipeline:
            assert_type(pipeline, AsyncPipeline)
        async for news in entered.notifies():
            assert_type(news, Notify)


async def rows_of_a_connection() -> None:
    mappings = await psycopg_trio.connect(row_factory=dict_row)
    assert_type(await (await mappings.execute("SELECT 1")).fetchone(), dict[str, Any] | None)
    accounts = await psycopg_trio.connect(row_factory=class_row(Account))
    assert_type(accounts, psycopg_trio.TrioConnection[Account])
    async for account in accounts.cursor().stream("SELECT name FROM account"):
        assert_type(account.name, str)


async def rows_of_a_pool() -> None:
    async with psycopg_trio.open_pool("dbname=jobs", size=2, autocommit=True) as pool:
        assert_type(pool, psycopg_trio.Pool[tuple[Any, ...]])
        assert_type(pool.statistics, psycopg_trio.PoolStatistics)
        plain(pool)
    async with (
        psycopg_trio.open_pool(row_factory=dict_row, configure=configured) as mappings,
        mappings.connection() as connection,
    ):
        assert_type(connection, psycopg_trio.TrioConnection[dict[str, Any]])
        plain(mappings)  # type: ignore[arg-type]


def plain(pool: psycopg_trio.Pool) -> None:
    """Without a parameter it is a pool of tuples."""
    assert_type(pool, psycopg_trio.Pool[tuple[Any, ...]])


async def configured(connection: psycopg_trio.TrioConnection[Any]) -> None:
    """A hook may be of any rows."""
