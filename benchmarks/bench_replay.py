"""Replay: 10,000 kept tokens to a consumer that comes late, in seconds a token.

The floor is a loop over slices of a plain list that holds the same messages. Both sides take every
message in hand and count it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

import jobtrio
from benchmarks._harness import Session, Stopwatch
from benchmarks._result import at_most
from benchmarks.bench_fanout import read_batches, read_each

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._harness import Side
    from benchmarks.bench_fanout import Reader

SLICE = 256
TIMES = 10
"""Replays a round, so that a round lasts some milliseconds."""


async def run(session: Session) -> None:
    """Measure in batches and one by one."""
    tokens = session.scale(9_999, 100)
    async with jobtrio.open_registry(retention=jobtrio.Retention(tokens_per_job=tokens)) as registry:
        job = await registry.submit(_speak, tokens)
        await job.wait()
        kept = await _all_messages(job)
        assert len(kept) == tokens + 1
        name, late = f"replay of {len(kept):,}", "a late consumer"
        for how, read, limit in (("receive_batch", read_batches, 2.0), ("async for", read_each, 8.0)):
            subject = replay(job, read, len(kept))
            bare, fair = f"loop over slices of {SLICE}", "the same, a checkpoint a slice"
            await session.compare(name, f"{how}, {late}", subject, slices(kept), versus=bare, goal=at_most(limit))
            await session.compare(name, f"{how}, {late}", subject, slices(kept, yielding=True), versus=fair)


async def _speak(job: jobtrio.JobContext) -> None:
    for n in range(job.payload):
        job.send_nowait(n)


async def _all_messages(job: jobtrio.Job) -> list[jobtrio.Message]:
    async with job.subscribe() as messages:
        return [message async for message in messages]


def replay(job: jobtrio.Job, read: Reader, expected: int) -> Side:
    """Make the side that subscribes anew and reads everything, several times over."""

    async def side() -> Sequence[float]:
        with Stopwatch() as watch:
            for _ in range(TIMES):
                async with job.subscribe() as messages:
                    count = await read(messages)
        assert count == expected, count
        return watch.per(expected * TIMES)

    return side


def slices(kept: list[jobtrio.Message], *, yielding: bool = False) -> Side:
    """Make the floor: slices of a list that is there already; ``yielding`` gives way as often as jobtrio does."""

    async def side() -> Sequence[float]:
        with Stopwatch() as watch:
            for _ in range(TIMES):
                count = 0
                for start in range(0, len(kept), SLICE):
                    if yielding and start:
                        await trio.lowlevel.checkpoint()
                    for _ in kept[start : start + SLICE]:
                        count += 1
        assert count == len(kept)
        return watch.per(len(kept) * TIMES)

    return side
