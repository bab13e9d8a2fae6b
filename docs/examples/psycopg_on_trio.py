"""PostgreSQL from Trio: a pool, a transaction, a time limit that holds on the server too, and notifications."""

import os

import trio

from jobtrio import psycopg_trio


async def pay(pool: psycopg_trio.Pool, name: str, amount: int) -> None:
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("UPDATE account SET balance = balance - %s WHERE name = %s", [amount, name])
        await connection.execute("SELECT pg_notify('paid', %s)", [name])


async def watch(pool: psycopg_trio.Pool, *, task_status: trio.TaskStatus[None]) -> None:
    async with pool.connection() as connection:
        await connection.execute("LISTEN paid")
        task_status.started()
        async for news in connection.notifies():
            cursor = await connection.execute("SELECT balance FROM account WHERE name = %s", [news.payload])
            [balance] = await cursor.fetchone() or [None]
            print(f"{news.payload} has {balance} left")
            await connection.execute("UNLISTEN paid")
            return


async def main() -> None:
    async with psycopg_trio.open_pool(os.environ["DATABASE_URL"], size=2, autocommit=True) as pool:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE account (name text PRIMARY KEY, balance int)")
            await connection.execute("INSERT INTO account VALUES ('ann', 100)")

        async with trio.open_nursery() as nursery:
            await nursery.start(lambda task_status: watch(pool, task_status=task_status))
            await pay(pool, "ann", 30)

        with trio.move_on_after(0.2) as limit:
            async with pool.connection() as connection, connection.transaction():
                await connection.execute("UPDATE account SET balance = 0 WHERE name = 'ann'")
                await connection.execute("SELECT pg_sleep(60)")
        print("too slow" if limit.cancelled_caught else "done")

        async with pool.connection() as connection:
            async for row in connection.cursor().stream("SELECT name, balance FROM account"):
                print(*row)
        print(pool.statistics)


if __name__ == "__main__":
    trio.run(main)
