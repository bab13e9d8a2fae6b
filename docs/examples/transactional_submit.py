"""An order and the job that ships it are stored together, or not at all."""

import os

import psycopg
import trio

import jobtrio
from jobtrio import psycopg_trio
from jobtrio.stores.postgres import PostgresJobStore

executors = jobtrio.Executors()


@executors.register("ship", queue="orders")
async def ship(job: jobtrio.JobContext) -> str:
    return f"order {job.payload['order']} is on its way"


async def order(store: PostgresJobStore, number: int, paid: bool) -> str | None:
    async with await psycopg_trio.connect(os.environ["DATABASE_URL"]) as connection:
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO orders VALUES (%s, %s)", [number, paid])
                record = await store.submit_in(connection, "ship", {"order": number}, key=f"ship {number}")
                if not paid:
                    raise ValueError("not paid")
        except ValueError as exc:
            print(f"order {number}: {exc}, so nothing is stored")
            return None
    return record.id


async def main() -> None:
    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE orders (number int PRIMARY KEY, paid boolean)")
    store = PostgresJobStore(os.environ["DATABASE_URL"])
    async with jobtrio.open_registry(executors, store=store) as registry:
        for number, paid in ((1, True), (2, False)):
            job_id = await order(store, number, paid)
            if job_id is not None:
                print(await (await registry.get(job_id)).result())
        print([record.payload for record in await registry.find()])


if __name__ == "__main__":
    trio.run(main)
