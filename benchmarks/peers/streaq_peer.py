"""streaQ on Trio: ``python -m benchmarks.peers.streaq_peer URL JOBS PART``.

``PART`` is what is timed: ``each`` or ``many`` puts jobs in, ``drain`` runs what is there, by a worker that ends when
nothing is left. Results are kept for as long as they are by default.
"""

from __future__ import annotations

import logging
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import trio

from benchmarks._in_tasks import in_tasks
from benchmarks._rounds import serve_rounds
from benchmarks.peers._measuring import AT_ONCE, MANY

if TYPE_CHECKING:
    from collections.abc import Sequence


async def main(url: str, jobs: int, part: str) -> None:
    """Serve rounds, each on an empty database."""
    logging.getLogger("streaq").setLevel(logging.WARNING)
    import_module("coredis").Config.optimized = True  # its own benchmarks do so
    streaq = import_module("streaq")

    async def side() -> Sequence[float]:
        worker = streaq.Worker(url, concurrency=AT_ONCE, anyio_backend="trio", handle_signals=False)
        begun: list[float] = []

        @worker.task  # type: ignore[untyped-decorator]
        async def nothing(n: int) -> int:
            begun.append(time.perf_counter())
            return n

        async with worker:
            await worker.redis.flushdb()
            seconds = await _enqueue(worker, nothing, jobs, part)
        if part != "drain":
            return [seconds / jobs]
        worker.burst = True
        await worker.run_async()
        seconds = time.perf_counter() - begun[0]
        assert len(begun) == jobs, len(begun)
        return [seconds / jobs]

    await serve_rounds(side)


async def _enqueue(worker: Any, task: Any, jobs: int, part: str) -> float:
    started = time.perf_counter()
    if part == "each":
        await in_tasks(AT_ONCE, jobs, task.enqueue)
    else:
        for first in range(0, jobs, MANY):
            await worker.enqueue_many([task.enqueue(n) for n in range(first, min(first + MANY, jobs))])
    return time.perf_counter() - started


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3])
