"""A registry in an interpreter of its own: ``python -m benchmarks._registry_child KIND LIVE HISTORY``.

Each round creates and cancels jobs with two tags, one after the other, beside so many held jobs and
with so many ended ones kept. The history is full from the start, so that on either side every new
ending makes an old one go.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

import jobtrio
from benchmarks._dict_registry import DictRegistry
from benchmarks._harness import Stopwatch
from benchmarks._registry_access import tags_of
from benchmarks._rounds import serve_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

OPERATIONS = 500
WARM_UP = 100
"""Operations before the clock starts: the collection between two rounds has emptied the caches."""

DAY = 86_400.0
"""Seconds; nothing may expire while it is measured."""


async def serve_jobtrio(live: int, history: int) -> None:
    """Serve rounds of `create_job` and `cancel`.

    *Cancellation*: the registry is closed.
    """
    retention = jobtrio.Retention(finished_jobs=history, finished_for=DAY, held_for=DAY)
    async with jobtrio.open_registry(retention=retention) as registry:

        async def operate(count: int) -> None:
            for number in range(count):
                job = await registry.create_job(tags=tags_of(number))
                assert await registry.cancel(job.id)

        async def side() -> Sequence[float]:
            await operate(WARM_UP)
            with Stopwatch() as watch:
                await operate(OPERATIONS)
            return watch.per(OPERATIONS)

        for number in range(live):
            await registry.create_job(tags=tags_of(number))
        await operate(history)
        await serve_rounds(side)


async def serve_dict(live: int, history: int) -> None:
    """Serve rounds of the same on the registry written by hand.

    *Cancellation*: takes effect between two rounds.
    """
    registry = DictRegistry(keep=history)

    def operate(count: int) -> None:
        for number in range(count):
            job_id = registry.create(tags=tags_of(number))
            assert registry.cancel(job_id)

    async def side() -> Sequence[float]:
        operate(WARM_UP)
        with Stopwatch() as watch:
            operate(OPERATIONS)
        return watch.per(OPERATIONS)

    for number in range(live):
        registry.create(tags=tags_of(number))
    operate(history)
    await serve_rounds(side)


if __name__ == "__main__":
    serve = {"jobtrio": serve_jobtrio, "dict": serve_dict}[sys.argv[1]]
    trio.run(serve, int(sys.argv[2]), int(sys.argv[3]))
