"""Requests to a service that takes 300 a minute, from all workers together."""

import trio

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

LIMITS = {"answers": jobtrio.RateLimit(300, per=60)}

executors = jobtrio.Executors()
requests: list[str] = []


async def ask_service(question: str) -> tuple[int, int]:
    """Stands for a service that refuses the third request: somebody else has used up the minute."""
    requests.append(question)
    return (429, 1) if len(requests) == 3 else (200, 0)


@executors.register("answer", queue="answers", retry=jobtrio.RetryPolicy())
async def answer(job: jobtrio.JobContext) -> str:
    status, retry_after = await ask_service(job.payload)
    if status == 429:
        await job.registry.pause(job.queue, retry_after)
        raise jobtrio.RetryLater(retry_after, "too many requests", counts=False)
    return f"{job.payload} has an answer"


async def worker(task_status: trio.TaskStatus[jobtrio.JobRegistry]) -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore("jobs.db"), rate_limits=LIMITS) as registry:
        task_status.started(registry)
        await trio.sleep_forever()


async def main() -> None:
    async with trio.open_nursery() as nursery:
        registry = await nursery.start(worker)
        await nursery.start(worker)
        jobs = [await registry.submit("answer", name) for name in ("ann", "bob", "cyd", "dan", "eve", "fay")]
        for job in jobs:
            print(await job.result())
        print(len(requests), "requests, of which one was refused")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
