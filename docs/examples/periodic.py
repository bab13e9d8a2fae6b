"""A job for each second, submitted by two processes that know nothing of each other, and made once."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

PERIOD = timedelta(seconds=1)

executors = jobtrio.Executors()
ran: list[str] = []
enough = trio.Event()


@executors.register("report", time_limit=30, retry=jobtrio.RetryPolicy(max_attempts=3))
async def report(job: jobtrio.JobContext) -> None:
    ran.append(job.payload)
    if len(ran) == 3:
        enough.set()


def next_time(now: datetime) -> datetime:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    return begin + ((now - begin) // PERIOD + 1) * PERIOD


async def submit_each(registry: jobtrio.JobRegistry, executor: str) -> None:
    with suppress(trio.ClosedResourceError):  # it is shut down
        while True:
            now = datetime.now(UTC)
            due = next_time(now)
            with suppress(jobtrio.StoreUnavailableError):  # it is tried again, as long as its moment has not come
                await registry.submit(executor, f"{due:%H:%M:%S}", run_at=due, key=f"{executor}:{due:%FT%TZ}")
                await trio.sleep((due - now).total_seconds())


async def process(name: str) -> None:
    store = SqliteJobStore("jobs.db")
    async with jobtrio.open_registry(executors, store=store, worker=name) as registry:
        await submit_each(registry, "report")


async def main() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process, "one")
        nursery.start_soon(process, "another")
        await enough.wait()
        nursery.cancel_scope.cancel()
    print("ran twice:", [due for due in set(ran) if ran.count(due) > 1])


if __name__ == "__main__":
    trio.run(main)
