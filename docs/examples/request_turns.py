"""Jobs that make several requests each, to a service that takes 300 a minute: each request waits for its turn."""

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

executors = jobtrio.Executors()
requests: list[str] = []


def ask_service(question: str) -> tuple[int, int]:
    """Stands for a service that refuses the third request: somebody else has used up the minute."""
    requests.append(question)
    return (429, 1) if len(requests) == 3 else (200, 0)


@executors.register("turn", queue="turns", retry=jobtrio.RetryPolicy())
async def turn(job: jobtrio.JobContext) -> None:
    """Let its submitter make one request."""


async def wait_for_turn(job: jobtrio.JobContext) -> None:
    mine = await job.registry.submit("turn", priority=job.priority)
    try:
        await mine.wait()
    except trio.Cancelled:
        with trio.move_on_after(5, shield=True):
            await mine.cancel("nobody waits for it")
        raise


async def request(job: jobtrio.JobContext) -> None:
    while True:
        await wait_for_turn(job)
        status, retry_after = ask_service(job.payload)
        if status != 429:
            return
        await job.registry.pause("turns", retry_after)


@executors.register("answer", queue="answers", retry=jobtrio.RetryPolicy())
async def answer(job: jobtrio.JobContext) -> str:
    for _ in range(2):
        await request(job)
    return f"{job.payload} has an answer"


async def worker(task_status: trio.TaskStatus[jobtrio.JobRegistry]) -> None:
    async with jobtrio.open_registry(
        executors,
        store=SqliteJobStore("jobs.db"),
        queues={"answers": 4, "turns": 1},
        rate_limits={"turns": jobtrio.RateLimit(300, per=60)},
    ) as registry:
        task_status.started(registry)
        await trio.sleep_forever()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        registry = await nursery.start(worker)
        await nursery.start(worker)
        jobs = [await registry.submit("answer", name) for name in ("ann", "bob", "cyd")]
        for job in jobs:
            print(await job.result())
        nursery.cancel_scope.cancel()
    print(len(requests), "requests, of which one was refused")


if __name__ == "__main__":
    trio.run(main)
