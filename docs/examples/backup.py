"""Copies the jobs while they run, in two ways, and looks into the copies."""

import sqlite3
from contextlib import closing

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

executors = jobtrio.Executors()


@executors.register("count")
async def count(job: jobtrio.JobContext) -> None:
    for n in range(40):
        await job.send(n)
        await trio.sleep(0.05)


def vacuum_into(source: str, copy: str) -> None:
    """Write a new, compact file."""
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as connection:
        connection.execute("VACUUM INTO ?", (copy,))


def back_up(source: str, copy: str) -> None:
    """Copy the file page by page, over what is at the copy's place."""
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as connection,
        closing(sqlite3.connect(copy)) as target,
    ):
        connection.backup(target)


async def main() -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db")) as registry:
        running = await registry.submit("count")
        await registry.submit("count", delay=3600)
        async with running.subscribe() as messages:
            await messages.receive()  # it has begun
        await trio.to_thread.run_sync(vacuum_into, "jobs.db", "vacuumed.db")
        await trio.to_thread.run_sync(back_up, "jobs.db", "backed-up.db")
        print("the job that ran meanwhile:", await running.wait())

    for copy in ("vacuumed.db", "backed-up.db"):
        async with jobtrio.open_registry(store=SqliteJobStore(copy), queues={}) as registry:
            print(f"{copy}:", *[record.state for record in await registry.find()])


if __name__ == "__main__":
    trio.run(main)
