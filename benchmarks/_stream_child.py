"""Many streams followed by one process: ``python -m benchmarks._stream_child STORE JOBS TOKENS``.

Each round submits the jobs and follows all of them to their ends. It gives this process's seconds of processor time for
a token, then for each token the seconds from `send` to its receipt here, by the machine's monotonic clock. STORE is the
URL of a store whose jobs another process runs, or ``memory``: then they run here too.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import trio

import jobtrio
from benchmarks._rounds import serve_rounds
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MEMORY: Final = "memory"
SPEAK: Final = "speak"
PAUSE: Final = 0.02
"""Seconds from one token of a job to its next."""


class Streams:
    """Jobs that wait until all of them run, and then send at their pace, one after the other within each pause.

    Args:
        jobs: How many there are.
        on_start: Called when all of them run, before the first token.

    Attributes:
        executors: What runs them.
    """

    def __init__(self, jobs: int, on_start: Callable[[], object] = lambda: None) -> None:
        self.executors = jobtrio.Executors()
        self.executors.register(SPEAK)(self._speak)
        self._jobs = jobs
        self._on_start = on_start
        self.begin_round()

    def begin_round(self) -> None:
        """Wait for all of them anew."""
        self._running = 0
        self._start = 0.0
        self._all_run = trio.Event()

    async def _speak(self, job: jobtrio.JobContext) -> None:
        number = self._running
        self._running += 1
        if self._running == self._jobs:
            self._on_start()
            self._start = trio.current_time()
            self._all_run.set()
        await self._all_run.wait()
        for n in range(job.payload):
            await trio.sleep_until(self._start + PAUSE * (n + number / self._jobs))
            await job.send(time.monotonic())


async def follow_all(registry: jobtrio.JobRegistry, jobs: int, tokens: int) -> Sequence[float]:
    """Submit jobs and follow them; what comes before the first token of the last one costs nothing."""
    late: list[float] = []
    begun = 0.0

    async def follow(job: jobtrio.Job) -> None:
        nonlocal begun
        async for sent in job.tokens():
            late.append(time.monotonic() - sent)
            if len(late) == jobs:
                begun = time.process_time()

    async with trio.open_nursery() as nursery:
        for _ in range(jobs):
            nursery.start_soon(follow, await registry.submit(SPEAK, tokens))
    assert len(late) == jobs * tokens
    return [(time.process_time() - begun) / (len(late) - jobs), *late]


async def main(url: str, jobs: int, tokens: int) -> None:
    """Serve rounds."""
    logging.getLogger("jobtrio.stores").setLevel(logging.ERROR)  # warnings would stand in the table
    streams = Streams(jobs)
    options: dict[str, Any] = {} if url == MEMORY else {"store": parse_store_url(url).make_store(), "queues": {}}
    async with jobtrio.open_registry(streams.executors, **options) as registry:

        async def side() -> Sequence[float]:
            streams.begin_round()
            return await follow_all(registry, jobs, tokens)

        await serve_rounds(side)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
