"""A decorator around executors: log lines that name their job, how long attempts take, and what came with a request."""

import functools
import logging
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import trio

import jobtrio

Executor = Callable[[jobtrio.JobContext], Awaitable[Any]]

now_running: ContextVar[str] = ContextVar("now_running", default="-")
log = logging.getLogger("shop")


class NameTheJob(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.job = now_running.get()
        return True


def observed(executor: Executor) -> Executor:
    @functools.wraps(executor)
    async def observe(job: jobtrio.JobContext) -> Any:
        now_running.set(f"{job.id}#{job.attempt}")
        began = trio.current_time()
        try:
            return await executor(job)
        finally:
            trace = (job.metadata or {}).get("trace")
            log.info("took %.1f s, for the request %s", trio.current_time() - began, trace)

    return observe


executors = jobtrio.Executors()


@executors.register("invoice", retry=jobtrio.RetryPolicy(max_attempts=2, initial=1, jitter=0))
@observed
async def invoice(job: jobtrio.JobContext) -> str:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetch, job.payload)
    if job.attempt == 1:
        raise OSError("the printer is busy")
    return "printed"


async def fetch(number: int) -> None:
    await trio.sleep(0.5)
    log.info("fetched invoice %d", number)


async def main() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(NameTheJob())
    handler.setFormatter(logging.Formatter("%(levelname)s %(job)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    async with jobtrio.open_registry(executors) as registry:
        job = await registry.submit("invoice", 7, job_id="i7", metadata={"trace": "4bf92f35"})
        log.info("%s", await job.result())


if __name__ == "__main__":
    trio.run(main)
