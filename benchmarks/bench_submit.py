"""Submitting: a job of no work from submit to outcome, and the way to its first token.

The floor of the first is a loop written by hand in plain Trio: 100 tasks at once, each in a nursery
of its own whose scope has the deadline, and a task that ends starts the next. The floor of the second
is `start_soon` and a memory channel.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from benchmarks._dict_registry import DictRegistry
from benchmarks._harness import Session, Stopwatch
from benchmarks._result import at_most

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from benchmarks._harness import Side

NAME = "no-op job, submit to outcome"
AT_ONCE = 100
TIME_LIMIT = 30.0
"""Seconds; far away, but both sides have to keep a deadline for each job."""


async def run(session: Session) -> None:
    """Measure both ways of submitting many jobs, then the first token."""
    jobs = session.scale(2_000, 200)
    each, many = f"submit each, {AT_ONCE} at once", f"submit_many, {AT_ONCE} at once"
    loop, kept = loop_by_hand(jobs), loop_by_hand(jobs, DictRegistry())
    bare, full = "loop, nursery + deadline each", "the same + dict registry"
    async with jobtrio.open_registry(max_running=AT_ONCE) as registry:
        one_by_one, at_once = submit_each(registry, jobs), submit_many(registry, jobs)
        await session.compare(NAME, each, one_by_one, loop, versus=bare, goal=at_most(1.5))
        await session.compare(NAME, each, one_by_one, kept, versus=full)
        await session.compare(NAME, many, at_once, loop, versus=bare)
    await _measure_first_token(session)


async def nothing(job: jobtrio.JobContext) -> Any:
    """Return the payload: the executor of a job of no work."""
    return job.payload


def submit_each(registry: jobtrio.JobRegistry, jobs: int) -> Side:
    """Make the side that submits jobs one by one and waits until the last of them has ended."""

    async def side() -> Sequence[float]:
        with Stopwatch() as watch:
            submitted = [await registry.submit(nothing, n, time_limit=TIME_LIMIT) for n in range(jobs)]
            await registry.drain()
        _check_outcomes(submitted)
        return watch.per(jobs)

    return side


def submit_many(registry: jobtrio.JobRegistry, jobs: int) -> Side:
    """Make the side that submits all jobs in one call and waits until the last of them has ended."""

    async def side() -> Sequence[float]:
        with Stopwatch() as watch:
            submitted = await registry.submit_many(
                [jobtrio.JobSpec(nothing, n, time_limit=TIME_LIMIT) for n in range(jobs)]
            )
            await registry.drain()
        _check_outcomes(submitted)
        return watch.per(jobs)

    return side


def _check_outcomes(submitted: list[jobtrio.Job]) -> None:
    for n, job in enumerate(submitted):
        assert job.outcome == jobtrio.Completed(n), job.outcome


def loop_by_hand(jobs: int, registry: DictRegistry | None = None) -> Side:
    """Make the floor: a task that ends starts the next, each in a nursery with a deadline.

    With a ``registry`` written by hand each job is also created, started and completed there.
    """

    async def execute(payload: int) -> int:
        return payload

    async def side() -> Sequence[float]:
        outcomes: dict[int, int] = {}
        waiting = deque(range(jobs))

        async def run_next(payload: int) -> None:
            record = None if registry is None else registry.start(registry.create(payload))
            async with trio.open_nursery() as own:
                own.cancel_scope.deadline = trio.current_time() + TIME_LIMIT
                outcomes[payload] = await execute(payload)
            if record is not None and registry is not None:
                registry.complete(record, outcomes[payload])
            if waiting:
                root.start_soon(run_next, waiting.popleft())

        with Stopwatch() as watch:
            async with trio.open_nursery() as root:
                for _ in range(min(AT_ONCE, jobs)):
                    root.start_soon(run_next, waiting.popleft())
        assert len(outcomes) == jobs
        return watch.per(jobs)

    return side


async def _measure_first_token(session: Session) -> None:
    tries = session.scale(200, 10)
    async with jobtrio.open_registry(max_running=AT_ONCE + 1) as registry:
        for background, goal in (("idle", 2.5), ("running", 1.1)):
            busy = background == "running"
            await session.compare(
                "submit to first token, p50",
                f"{AT_ONCE} running, each a checkpoint a turn" if busy else "idle",
                _first_token_of_job(registry, tries, busy=busy),
                _first_token_by_hand(tries, busy=busy),
                versus="start_soon + memory channel",
                goal=at_most(goal),
            )


def _first_token_of_job(registry: jobtrio.JobRegistry, tries: int, *, busy: bool) -> Side:
    async def speak(job: jobtrio.JobContext) -> None:
        await job.send("token")

    async def once() -> float:
        started = time.perf_counter()
        job = await registry.submit(speak)
        with job.subscribe() as messages:
            await messages.receive()
            seconds = time.perf_counter() - started
        await job.wait()
        return seconds

    async def side() -> Sequence[float]:
        async with _busy_jobs(registry, AT_ONCE if busy else 0):
            return await _repeat(once, tries)

    return side


def _first_token_by_hand(tries: int, *, busy: bool) -> Side:
    async def speak(channel: trio.MemorySendChannel[str]) -> None:
        async with channel:
            await channel.send("token")

    async def once(nursery: trio.Nursery) -> float:
        started = time.perf_counter()
        send, receive = trio.open_memory_channel[str](64)
        nursery.start_soon(speak, send)
        async with receive:
            await receive.receive()
            return time.perf_counter() - started

    async def side() -> Sequence[float]:
        async with _busy_tasks(AT_ONCE if busy else 0), trio.open_nursery() as nursery:
            return await _repeat(lambda: once(nursery), tries)

    return side


async def _repeat(once: Callable[[], Awaitable[float]], tries: int) -> list[float]:
    """Take ``tries`` samples, each behind a turn in which what the one before left behind can end."""
    samples = []
    for _ in range(tries):
        samples.append(await once())
        await trio.lowlevel.checkpoint()
    return samples


async def _keep_busy(stop: trio.Event) -> None:
    while not stop.is_set():
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _busy_tasks(count: int) -> AsyncIterator[None]:
    """Keep plain tasks running that do nothing but give way."""
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(_keep_busy, stop)
        yield
        stop.set()


@asynccontextmanager
async def _busy_jobs(registry: jobtrio.JobRegistry, count: int) -> AsyncIterator[None]:
    """Keep jobs running that do the same."""
    stop = trio.Event()

    async def busy(job: jobtrio.JobContext) -> None:
        await _keep_busy(stop)

    jobs = [await registry.submit(busy) for _ in range(count)]
    while any(job.state is not jobtrio.JobState.RUNNING for job in jobs):
        await trio.lowlevel.checkpoint()
    yield
    stop.set()
    for job in jobs:
        await job.wait()
