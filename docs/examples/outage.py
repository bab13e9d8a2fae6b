"""The file is locked by another program for longer than anybody wants to wait."""

import sqlite3

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

executors = jobtrio.Executors()


@executors.register("count")
async def count(job: jobtrio.JobContext) -> int:
    for n in range(10):
        await job.send(n)
        await trio.sleep(0.1)
    return 10


def lock(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def main() -> None:
    store = SqliteJobStore("jobs.db", outage_limit=2)
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("count")
        await trio.sleep(0.3)
        other = lock("jobs.db")
        try:
            await registry.submit("count", key="second")
        except jobtrio.StoreUnavailableError as exc:
            print("submit:", type(exc).__name__)
        await trio.sleep(0.5)
        print("while it is locked:", job.outcome)
        other.rollback()
        other.close()
        print("afterwards:", await job.wait())
        print("sent:", [token async for token in job.tokens()])
        again = await registry.submit("count", key="second")  # the same key: it is there once, whatever became of it
        print("the second:", await again.wait())


if __name__ == "__main__":
    trio.run(main)
