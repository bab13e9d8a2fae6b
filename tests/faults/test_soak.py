"""Very many jobs: the memory stays flat, and nothing is left behind."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import Cancelled, Completed, Failed, JobContext, Retention, RetryPolicy

if TYPE_CHECKING:
    from trio.testing import MockClock

    from jobtrio import JobRegistry

pytestmark = pytest.mark.once

SMALL = Retention(finished_jobs=100, tokens_per_job=10)


async def nothing(job: JobContext) -> None:
    """Return at once."""


async def speak(job: JobContext) -> int:
    """Send as many tokens as the payload says."""
    for n in range(job.payload):
        job.send_nowait(n)
    await trio.lowlevel.checkpoint()
    return int(job.payload)


async def fail(job: JobContext) -> None:
    """Fail."""
    raise ValueError(job.attempt)


async def hang(job: JobContext) -> None:
    """Wait for ever."""
    await trio.sleep_forever()


def blocks_in_use() -> int:
    """Return how many blocks of memory are in use, the collector having run."""
    gc.collect()
    return sys.getallocatedblocks()


class Flat:
    """Checks that the memory in use does not grow beyond what the first rounds have taken."""

    def __init__(self, slack: int) -> None:
        self.slack = slack  # blocks of memory
        self.first: int | None = None

    def look(self) -> None:
        """Compare with the first look."""
        now = blocks_in_use()
        if self.first is None:
            self.first = now
        assert now - self.first <= self.slack, f"{now - self.first} blocks more than at first"


@pytest.mark.timeout(360)  # four seconds where the machine has nothing else to do
async def test_100_000_jobs() -> None:
    """100,000 jobs run through a registry that keeps 100 of them, in memory that stays flat."""
    done = 0
    async with jobtrio.open_registry(retention=SMALL) as registry:
        flat = Flat(1000)
        for turn in range(100):
            specs = [jobtrio.JobSpec(nothing) for _ in range(1000)]
            jobs = await registry.submit_many(specs)
            await registry.drain()
            done += sum(job.outcome == Completed(None) for job in jobs)
            del jobs, specs
            if turn % 33 == 0:
                flat.look()
        assert len(registry) == 100
        assert registry.stats().states[jobtrio.JobState.COMPLETED] == 100
    assert done == 100_000


async def mixed_round(registry: JobRegistry) -> None:
    """Let jobs live in every way there is, with names, tags, ids and keys that never come again."""
    round_id = str(trio.current_time())
    retry = RetryPolicy(max_attempts=2, initial=1, jitter=0)
    jobs: list[jobtrio.Job] = []
    for n in range(40):
        name = f"{round_id} {n}"
        options: dict[str, Any] = {"tags": {"name": name}, "metadata": {"name": name}, "queue": name}
        jobs += [
            await registry.submit(speak, 25, job_id=name, key=name, **options),
            await registry.submit(fail, retry=retry, expires_in=1e6, **options),
            await registry.submit(hang, time_limit=2, **options),
            await registry.submit(hang, delay=1e6, **options),
            await registry.create_job(expires_in=3, **options),
            await registry.create_job(**options),
        ]
    for job in jobs[3::6]:
        assert await job.cancel("enough")
    for job in jobs[5::6]:
        async with registry.execute_and_stream(job.id, fail) as lines:
            assert [line async for line in lines] == ["[ERROR] 1"]
    for job in jobs[::6]:
        with job.subscribe(on_gap="yield") as messages, job.subscribe(on_gap="yield", lossless=True) as lossless:
            await messages.receive()
            await lossless.receive()
        job.subscribe(lossless=True, on_gap="yield")
        async with job.open_channel() as channel:
            await channel.receive()
    await trio.sleep(10)
    kinds = [type(job.outcome) for job in jobs]
    assert kinds == [Completed, Failed, Failed, Cancelled, Failed, Failed] * 40
    for job in jobs[::7]:
        if job.id in registry:
            await registry.remove(job.id)


async def test_all_kinds_of_jobs_leave_nothing(autojump_clock: MockClock) -> None:
    """However jobs end, and whatever they are called, they leave nothing behind, in jobtrio or in Trio."""
    async with jobtrio.open_registry(retention=SMALL) as registry:
        levels = []
        for _ in range(60):
            await mixed_round(registry)
            levels.append(blocks_in_use())
        assert len(registry) <= 100
        tasks = trio.lowlevel.current_statistics().tasks_living
    assert trio.lowlevel.current_statistics().tasks_living < tasks
    grown = min(levels[-20:]) - min(levels[5:25])  # the lowest, since what is gone is swept out now and then
    assert grown <= 2000, f"{grown} blocks for {35 * 240} jobs"


async def test_a_job_that_never_stops_talking() -> None:
    """A stream of 300,000 tokens to readers that come, lag, and are forgotten is kept within its bound."""

    async def talk(job: JobContext) -> None:
        for n in range(300_000):
            job.send_nowait(n)
            if n % 1000 == 0:
                await trio.lowlevel.checkpoint()
            if n in (5000, 150_000, 299_999):
                flat.look()

    flat = Flat(1000)
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=1000)) as registry:
        job = await registry.submit(talk)
        async with job.subscribe(on_gap="yield") as messages:
            missed = received = 0
            async for message in messages:
                if isinstance(message, jobtrio.Gap):
                    missed += message.last - message.first + 1
                else:
                    received += 1
                job.subscribe(on_gap="yield")
        assert missed + received == 300_001


class Heavy:
    """A payload that is to be let go with its job."""


async def test_times_of_ended_jobs(autojump_clock: MockClock) -> None:
    """Ended jobs that are not kept are let go, although what they might have waited for has not come."""
    async with jobtrio.open_registry(retention=SMALL) as registry:
        first = await registry.submit(nothing, delay=50)
        specs = [jobtrio.JobSpec(nothing, Heavy(), expires_in=100) for _ in range(2_000)]
        payloads = [weakref.ref(spec.payload) for spec in specs]
        await registry.submit_many(specs)
        del specs
        await registry.drain()
        gc.collect()
        assert sum(payload() is not None for payload in payloads) < 200  # of those that are kept, and some others
        assert first.state == "SCHEDULED"


async def test_events_without_listeners() -> None:
    """Listeners that came and went, or never read, cost what their bound says and no more."""
    async with jobtrio.open_registry(retention=SMALL) as registry:
        sleepy = registry.subscribe_events()
        for turn in range(30):
            registry.subscribe_events().close()
            registry.subscribe_events()
            await registry.submit_many([jobtrio.JobSpec(nothing) for _ in range(1000)])
            await registry.drain()
            if turn == 5:
                assert registry._core.events.log is not None
                assert len(registry._core.events.log._items) < 12_000
        assert registry._core.events.log is not None
        assert len(registry._core.events.log._items) < 12_000
        sleepy.close()
        await (await registry.submit(nothing)).wait()
        assert registry._core.events.log is None


async def fail_by_a_child(job: JobContext) -> None:
    """Fail in a child task."""
    job.nursery.start_soon(fail, job)
    await trio.sleep_forever()


async def fail_in_a_nursery(job: JobContext) -> None:
    """Fail in a nursery of its own, with a clean-up that fails, too."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail, job)
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError


async def cancel_itself(job: JobContext) -> None:
    """Cancel the own scope."""
    job.cancel_scope.cancel()
    await trio.sleep_forever()


AGAIN = RetryPolicy(max_attempts=2, initial=0)

WAYS: dict[str, tuple[Any, dict[str, Any]]] = {
    "completed": (nothing, {}),
    "spoken": (speak, {}),
    "failed": (fail, {}),
    "retried": (fail, {"retry": AGAIN}),
    "failed by a child": (fail_by_a_child, {}),
    "failed in a nursery": (fail_in_a_nursery, {"retry": AGAIN}),
    "cancelled": (hang, {}),
    "cancelled by itself": (cancel_itself, {}),
    "timed out": (hang, {"time_limit": 1e-6}),
    "expired": (hang, {"delay": 1e-6, "expires_in": 2e-6}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_garbage_is_not_made_by_the_way(way: str) -> None:
    """Jobs of every ending are freed as they end: the collector finds next to nothing."""
    executor, options = WAYS[way]

    async def one(registry: JobRegistry) -> None:
        job = await registry.submit(executor, 3, **options)
        async with job.subscribe() as messages, job.open_channel() as channel:
            if way == "cancelled":
                await trio.testing.wait_all_tasks_blocked()
                await job.cancel()
            async for _ in messages:
                pass
            async for _ in channel:
                pass
        await job.wait()

    async with jobtrio.open_registry(retention=Retention(finished_jobs=0)) as registry:
        await one(registry)
        gc.collect()
        gc.disable()
        try:
            for _ in range(50):
                await one(registry)
            found = gc.collect()
        finally:
            gc.enable()
        assert found < 50, f"{found} objects of 50 jobs"
