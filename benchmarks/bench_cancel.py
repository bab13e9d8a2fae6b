"""Cancelling: from the request until a running job is gone.

The floor is a bare `scope.cancel()` of a task in a nursery, until that nursery has exited.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

import jobtrio
from benchmarks._result import at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._harness import Session, Side


async def run(session: Session) -> None:
    """Measure with nothing else running, and beside 100 parked jobs or tasks."""
    tries = session.scale(200, 10)
    for others in (0, 100):
        async with jobtrio.open_registry(max_running=others + 1) as registry:
            async with trio.open_nursery() as nursery:
                for _ in range(others):
                    await registry.submit(_park)
                    nursery.start_soon(trio.sleep_forever)
                await session.compare(
                    "cancel to gone, p50",
                    f"beside {others} parked" if others else "a running job",
                    cancel_job(registry, tries),
                    cancel_task(tries),
                    versus="scope.cancel() of a task",
                    goal=None if others else at_most(2.0),
                )
                nursery.cancel_scope.cancel()
            await registry.shutdown()


async def _park(job: jobtrio.JobContext) -> None:
    await trio.sleep_forever()


def cancel_job(registry: jobtrio.JobRegistry, tries: int) -> Side:
    """Make the side that cancels a running job and waits for its outcome."""

    async def once() -> float:
        inside = trio.Event()

        async def park(job: jobtrio.JobContext) -> None:
            inside.set()
            await trio.sleep_forever()

        job = await registry.submit(park)
        await inside.wait()
        started = time.perf_counter()
        await job.cancel()
        outcome = await job.wait()
        seconds = time.perf_counter() - started
        assert outcome == jobtrio.Cancelled(None)
        return seconds

    async def side() -> Sequence[float]:
        return [await once() for _ in range(tries)]

    return side


def cancel_task(tries: int) -> Side:
    """Make the floor: cancel a scope in which a nursery's only task is parked, and leave the nursery."""

    async def once() -> float:
        inside = trio.Event()

        async def park(scope: trio.CancelScope) -> None:
            with scope:
                inside.set()
                await trio.sleep_forever()

        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(park, scope)
            await inside.wait()
            started = time.perf_counter()
            scope.cancel()
        seconds = time.perf_counter() - started
        assert scope.cancelled_caught
        return seconds

    async def side() -> Sequence[float]:
        return [await once() for _ in range(tries)]

    return side
