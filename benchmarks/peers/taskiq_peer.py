"""taskiq with its broker in memory: ``python -m benchmarks.peers.taskiq_peer JOBS AT_ONCE``."""

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
    """Serve rounds: kick every task, then wait for all, and take each result."""
    taskiq = import_module("taskiq")
    broker = taskiq.InMemoryBroker(max_async_tasks=at_once, max_stored_results=jobs)
    task = broker.register_task(execute, task_name="execute")
    await broker.startup()

    async def side() -> Sequence[float]:
        started = time.thread_time()
        kicked = [await task.kiq(n) for n in range(jobs)]
        await broker.wait_all()
        results = [(await one.get_result()).return_value for one in kicked]
        seconds = time.thread_time() - started
        assert results == list(range(jobs))
        return [seconds / jobs]

    await serve_rounds(side)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
