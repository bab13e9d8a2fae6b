"""aiojobs: ``python -m benchmarks.peers.aiojobs_peer JOBS AT_ONCE``."""

from __future__ import annotations

import asyncio
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING

from benchmarks._rounds import serve_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence


async def execute(payload: int) -> int:
    return payload


async def main(jobs: int, at_once: int) -> None:
    """Serve rounds: spawn every job, then wait for each one's result."""
    aiojobs = import_module("aiojobs")
    async with aiojobs.Scheduler(limit=at_once, pending_limit=0, wait_timeout=None) as scheduler:

        async def side() -> Sequence[float]:
            started = time.thread_time()
            spawned = [await scheduler.spawn(execute(n)) for n in range(jobs)]
            results = [await job.wait() for job in spawned]
            seconds = time.thread_time() - started
            assert results == list(range(jobs))
            return [seconds / jobs]

        await serve_rounds(side)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
