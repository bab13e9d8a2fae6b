"""Memory: what a running, a queued and a finished job, a kept token and a subscription weigh.

Bytes as `tracemalloc` counts them, from before the first to behind the last of many, divided by their
number. Nobody keeps the handles, and the tokens' values were there before.
"""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

import jobtrio
from benchmarks._result import bytes_at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._harness import Session, Side

HOUR = 3600.0
KIB = 1024


async def run(session: Session) -> None:
    """Weigh each; a running job also beside a bare task with a nursery and a deadline."""
    many, few = session.scale(10_000, 200), session.scale(1_000, 50)
    await session.compare(
        "memory, a running job",
        f"{few:,} parked, with a time limit",
        running_jobs(few),
        bare_tasks(few),
        versus="task, nursery + deadline",
        goal=bytes_at_most(6 * KIB),
        unit="B",
    )
    for name, variant, side, goal in (
        ("memory, a queued job", f"{many:,} queued", queued_jobs(many), bytes_at_most(KIB / 2)),
        ("memory, a finished job", f"{many:,} kept", finished_jobs(many), None),
        ("memory, a kept token", "beyond its value, never read", kept_tokens(many, 0), bytes_at_most(112)),
        ("memory, a kept token", "read by one and let go", kept_tokens(many, 1), bytes_at_most(112)),
        ("memory, a subscription", "open, everything read", subscriptions(few), None),
    ):
        await session.measure(name, variant, side, goal=goal, unit="B")


class Scales:
    """Weighs what a ``with`` block leaves behind."""

    def __enter__(self) -> Scales:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *_: object) -> None:
        gc.collect()
        self._bytes = tracemalloc.get_traced_memory()[0] - self._before
        tracemalloc.stop()

    def per(self, things: int) -> list[float]:
        """Return the bytes of one of ``things`` as the round's only sample."""
        return [self._bytes / things]


async def _park(job: jobtrio.JobContext) -> None:
    await trio.sleep_forever()


async def _nothing(job: jobtrio.JobContext) -> None:
    pass


def running_jobs(count: int) -> Side:
    """Make the side that weighs jobs whose executor is parked."""

    async def side() -> Sequence[float]:
        async with jobtrio.open_registry(max_running=count + 1) as registry:
            await registry.submit(_park)
            await trio.testing.wait_all_tasks_blocked()
            with Scales() as scales:
                for _ in range(count):
                    await registry.submit(_park, time_limit=HOUR)
                await trio.testing.wait_all_tasks_blocked()
            assert registry.stats().running == count + 1
            await registry.shutdown()
        return scales.per(count)

    return side


def bare_tasks(count: int) -> Side:
    """Make the floor of a running job: a task, its own nursery and a deadline."""

    async def park() -> None:
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.deadline = trio.current_time() + HOUR
            await trio.sleep_forever()

    async def side() -> Sequence[float]:
        async with trio.open_nursery() as nursery:
            with Scales() as scales:
                for _ in range(count):
                    nursery.start_soon(park)
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        return scales.per(count)

    return side


def queued_jobs(count: int) -> Side:
    """Make the side that weighs jobs behind one that never ends."""

    async def side() -> Sequence[float]:
        async with jobtrio.open_registry(max_running=1) as registry:
            await registry.submit(_park)
            await trio.testing.wait_all_tasks_blocked()
            with Scales() as scales:
                for _ in range(count):
                    await registry.submit(_nothing)
                await trio.testing.wait_all_tasks_blocked()
            await registry.shutdown()
        return scales.per(count)

    return side


def finished_jobs(count: int) -> Side:
    """Make the side that weighs jobs that returned None and are kept."""

    async def side() -> Sequence[float]:
        async with jobtrio.open_registry(retention=jobtrio.Retention(finished_jobs=count)) as registry:
            await registry.submit(_nothing)
            await registry.drain()
            with Scales() as scales:
                for _ in range(count):
                    await registry.submit(_nothing)
                await registry.drain()
        return scales.per(count)

    return side


def kept_tokens(count: int, readers: int) -> Side:
    """Make the side that weighs a log of tokens, read ``readers`` times."""
    values: list[Any] = [str(n) for n in range(count)]

    async def side() -> Sequence[float]:
        sent, speak, done = trio.Event(), trio.Event(), trio.Event()

        async def speaker(job: jobtrio.JobContext) -> None:
            await speak.wait()
            for value in values:
                job.send_nowait(value)
            sent.set()
            await done.wait()

        async with jobtrio.open_registry(retention=jobtrio.Retention(tokens_per_job=count)) as registry:
            job = await registry.submit(speaker)
            await trio.testing.wait_all_tasks_blocked()
            with Scales() as scales:
                speak.set()
                await sent.wait()
                for _ in range(readers):
                    await _read(job, count)
            done.set()
        return scales.per(count)

    return side


async def _read(job: jobtrio.Job, count: int) -> None:
    with job.subscribe() as messages:
        while count > 0:
            count -= len(await messages.receive_batch())


def subscriptions(count: int) -> Side:
    """Make the side that weighs open subscriptions to one running job."""

    async def side() -> Sequence[float]:
        async with jobtrio.open_registry() as registry:
            job = await registry.submit(_park)
            await trio.testing.wait_all_tasks_blocked()
            with Scales() as scales:
                opened = [job.subscribe() for _ in range(count)]
            for subscription in opened:
                subscription.close()
            await registry.shutdown()
        return scales.per(count)

    return side
