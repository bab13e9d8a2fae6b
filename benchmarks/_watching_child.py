"""A watcher in another process: ``python -m benchmarks._watching_child URL TOKENS PAUSE``.

Each round submits a job that another process runs, and gives for each token the seconds from `send` there to its
receipt here, by the machine's monotonic clock.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, Final

import trio

import jobtrio
from benchmarks._rounds import serve_rounds
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEAK: Final = "speak"
PACES: Final = (("one every 20 ms", 0.02), ("600 a second", 1 / 600))
"""How fast tokens are sent to the watcher, and the pause before each."""


async def speak(job: jobtrio.JobContext) -> None:
    """Send tokens that say when they are sent, with a pause before each."""
    tokens, pause = job.payload
    for _ in range(tokens):
        await trio.sleep(pause)
        await job.send(time.monotonic())


def speakers() -> jobtrio.Executors:
    """Return what both processes register."""
    executors = jobtrio.Executors()
    executors.register(SPEAK)(speak)
    return executors


async def main(url: str, tokens: int, pause: float) -> None:
    """Serve rounds of watching one job."""
    logging.getLogger("jobtrio.stores").setLevel(logging.ERROR)  # warnings would stand in the table
    async with jobtrio.open_registry(speakers(), store=parse_store_url(url).make_store(), queues={}) as registry:

        async def side() -> Sequence[float]:
            job = await registry.submit(SPEAK, [tokens, pause])
            seconds = [time.monotonic() - sent async for sent in job.tokens()]
            assert len(seconds) == tokens
            return seconds

        await serve_rounds(side)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
