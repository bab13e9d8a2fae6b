"""taskiq with Redis: ``python -m benchmarks.peers.taskiq_redis_peer URL JOBS PART``.

With uvloop, a stream whose messages are acknowledged, and results that are kept. ``PART`` is what is timed: ``each``
puts jobs in (there is no call for many), ``drain`` runs what is there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from benchmarks._rounds import serve_rounds
from benchmarks.peers._measuring import AT_ONCE, Countdown, each

if TYPE_CHECKING:
    from collections.abc import Sequence

PAUSE = 0.002
"""Seconds between two looks whether all that ran is written."""

KEPT_FOR = 3600
"""Seconds that results are kept, as by jobtrio."""


async def main(url: str, jobs: int, part: str) -> None:
    """Serve rounds, each on an empty database."""
    logging.getLogger("taskiq").setLevel(logging.ERROR)
    redis = import_module("redis.asyncio").from_url(url)
    taskiq_redis = import_module("taskiq_redis")
    run_receiver_task = import_module("taskiq.api").run_receiver_task
    countdown = Countdown(jobs)

    async def side() -> Sequence[float]:
        nonlocal countdown
        await redis.flushdb()
        results = taskiq_redis.RedisAsyncResultBackend(url, result_ex_time=KEPT_FOR)
        broker = taskiq_redis.RedisStreamBroker(url, xread_count=AT_ONCE).with_result_backend(results)

        @broker.task(task_name="nothing")  # type: ignore[untyped-decorator]
        async def nothing(n: int) -> int:
            countdown.count()
            return n

        await broker.startup()
        seconds = await each(jobs, nothing.kiq)
        assert await redis.xlen("taskiq") == jobs
        if part == "drain":
            countdown = Countdown(jobs)
            receiver = asyncio.create_task(run_receiver_task(broker, max_async_tasks=AT_ONCE, max_prefetch=AT_ONCE))
            await countdown.over.wait()
            while (await redis.xpending("taskiq", "taskiq"))["pending"]:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(PAUSE)
            seconds = countdown.seconds()
            receiver.cancel()
            with suppress(asyncio.CancelledError):
                await receiver
            assert await redis.dbsize() > jobs  # each result has a key
        await broker.shutdown()
        return [seconds / jobs]

    await serve_rounds(side)
    await redis.aclose()


if __name__ == "__main__":
    import_module("uvloop").run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
