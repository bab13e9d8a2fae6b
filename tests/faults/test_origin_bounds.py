"""Nothing is kept for ever: ended jobs, streams, and jobs that were made and never executed."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import trio
import trio.testing
from store_urls import STORES, new_url

import jobtrio
from jobtrio import Completed, End, Failed, Gap, JobContext, Retention, Token
from jobtrio.stores._url import parse_store_url


async def work(job: JobContext) -> None:
    """Send one token."""
    await job.send("x")


async def chatter(job: JobContext) -> None:
    """Send as many tokens as the payload says."""
    for n in range(1, job.payload + 1):
        job.send_nowait(n)


async def test_ended_jobs_are_evicted_by_count() -> None:
    """Only the newest ended jobs are kept; the others are unknown everywhere."""
    async with jobtrio.open_registry(retention=Retention(finished_jobs=3)) as registry:
        jobs = []
        for _ in range(10):
            jobs.append(await registry.submit(work, tags={"kind": "small"}))
            await jobs[-1].wait()
        await trio.testing.wait_all_tasks_blocked()
        kept = [job.id for job in jobs[-3:]]
        assert len(registry) == 3
        assert [record.id for record in await registry.find()] == kept
        assert [record.id for record in await registry.find(tags={"kind": "small"})] == kept
        for job in jobs[:-3]:
            assert job.id not in registry
            with pytest.raises(jobtrio.UnknownJobError):
                await registry.get(job.id)
            with pytest.raises(jobtrio.UnknownJobError):
                await registry.history(job.id)
            assert job.outcome == Completed()


async def test_ended_jobs_are_evicted_by_age(autojump_clock: trio.testing.MockClock) -> None:
    """An ended job is gone once its time is over, and not before."""
    async with jobtrio.open_registry(retention=Retention(finished_for=60)) as registry:
        job = await registry.submit(work)
        await job.wait()
        await trio.sleep(50)
        assert await registry.get(job.id) is not None
        await trio.sleep(70)
        with pytest.raises(jobtrio.UnknownJobError):
            await registry.get(job.id)
        assert len(registry) == 0
        assert await registry.find() == []


async def test_living_jobs_are_never_evicted(autojump_clock: trio.testing.MockClock) -> None:
    """Retention is for ended jobs: a living one is kept whatever its age and whatever ends beside it."""

    async def slow(job: JobContext) -> str:
        await trio.sleep(10_000)
        return "there"

    retention = Retention(finished_jobs=1, finished_for=1)
    async with jobtrio.open_registry(retention=retention) as registry:
        slow_job = await registry.submit(slow)
        for _ in range(5):
            await (await registry.submit(work)).wait()
        await trio.sleep(5_000)
        assert (await registry.get(slow_job.id)).state == "RUNNING"
        assert await slow_job.result() == "there"


async def test_log_is_bounded_and_keeps_the_ending() -> None:
    """A stream keeps its newest messages, tells a late consumer what is gone, and never loses the ending."""
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=10)) as registry:
        job = await registry.submit(chatter, 1000)
        await job.wait()
        with job.subscribe(on_gap="yield") as messages:
            seen: list[Any] = [message async for message in messages]
        gap, *tokens, end = seen
        assert end == End(1001, Completed())
        assert gap == Gap(1, tokens[0].seq - 1)
        assert tokens == [Token(n, 1, n) for n in range(tokens[0].seq, 1001)]
        assert 1 <= len(tokens) <= 10


async def test_dropped_tokens_are_freed() -> None:
    """What a living job's stream no longer keeps is let go."""

    class Big:
        """Something to hold on to."""

    async def executor(job: JobContext) -> int:
        for _ in range(1000):
            token = Big()
            alive.append(weakref.ref(token))
            await job.send(token)
        del token
        gc.collect()
        return sum(ref() is not None for ref in alive)

    alive: list[weakref.ref[Big]] = []
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=10)) as registry:
        assert 10 <= await (await registry.submit(executor)).result() < 50


async def test_key_is_free_when_its_job_is_gone() -> None:
    """A key stands for its job while that is kept, ended or not, and for a new one afterwards."""
    async with jobtrio.open_registry(retention=Retention(finished_jobs=1)) as registry:
        first = await registry.submit(work, key="k")
        await first.wait()
        assert (await registry.submit(work, key="k")).id == first.id
        await registry.remove(first.id)
        second = await registry.submit(work, key="k")
        assert second.id != first.id
        await second.wait()
        await (await registry.submit(work)).wait()
        third = await registry.submit(work, key="k")
        assert third.id not in (first.id, second.id)
        assert await third.wait() == Completed()


async def test_evicted_payloads_and_tokens_are_freed() -> None:
    """What a job sent, saved and carried is let go with the job."""

    class Big:
        """Something to hold on to."""

    async def executor(job: JobContext) -> Any:
        token = Big()
        alive.append(weakref.ref(token))
        await job.send(token)
        await job.save_state(token)

    alive: list[weakref.ref[Big]] = []
    async with jobtrio.open_registry(retention=Retention(finished_jobs=0)) as registry:
        for _ in range(20):
            await (await registry.submit(executor, metadata={"big": Big()})).wait()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert len(alive) == 20
        assert [ref for ref in alive if ref() is not None] == []


async def test_job_that_nobody_executes_expires(autojump_clock: trio.testing.MockClock) -> None:
    """A job made and never executed fails as expired, tells its readers, and is evicted in its turn."""
    retention = Retention(held_for=300, finished_for=1000)
    async with jobtrio.open_registry(retention=retention) as registry:
        start = trio.current_time()
        job = await registry.create_job()
        with job.subscribe() as messages:
            end = await messages.receive()
        assert trio.current_time() - start == pytest.approx(300, abs=1)
        assert isinstance(end, End)
        assert isinstance(end.outcome, Failed)
        assert (end.seq, end.outcome.error.kind) == (1, "expired")
        assert job.state == "FAILED"
        async with registry.execute_and_stream(job.id, work) as lines:
            (line,) = [line async for line in lines]
        assert line.startswith("[ERROR] ")
        await trio.sleep(1100)
        assert job.id not in registry


async def test_queue_is_bounded() -> None:
    """Past `max_queued` a submission is refused; what ended, runs or retries leaves room again."""
    gate = trio.Event()

    async def wait(job: JobContext) -> None:
        await gate.wait()

    async with jobtrio.open_registry(max_running=1, max_queued=2) as registry:
        running = await registry.submit(wait)
        await trio.testing.wait_all_tasks_blocked()
        queued = [await registry.submit(wait) for _ in range(2)]
        with pytest.raises(jobtrio.QueueFullError):
            await registry.submit(wait)
        with pytest.raises(jobtrio.QueueFullError):
            await registry.create_job()
        await queued[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        again = await registry.submit(wait)
        gate.set()
        for job in (running, queued[1], again):
            assert await job.wait() == Completed()


@pytest.mark.parametrize("kind", STORES)
async def test_a_durable_queue_is_not_bounded(kind: str, request: pytest.FixtureRequest) -> None:
    """What waits in a durable store takes its room, not a process's memory: `max_queued` is not about that."""
    executors = jobtrio.Executors()
    executors.register("work")(work)
    store = parse_store_url(new_url(kind, request)).make_store()
    async with jobtrio.open_registry(executors, store=store, queues={}, max_queued=1) as registry:
        for _ in range(2):
            await registry.submit("work")
        assert len(await registry.submit_many([jobtrio.JobSpec("work")] * 3)) == 3


async def read_all(events: trio.abc.ReceiveChannel[jobtrio.Transition]) -> None:
    """Receive until there is no more, or an error."""
    async for _ in events:
        pass


async def test_events_are_bounded() -> None:
    """A listener that is 10,000 transitions behind is told so."""
    async with jobtrio.open_registry() as registry:
        events = registry.subscribe_events()
        for _ in range(4):
            specs = [jobtrio.JobSpec(chatter, 0)] * 1000
            for job in await registry.submit_many(specs):
                await job.wait()
        with pytest.raises(jobtrio.LaggedError):
            await read_all(events)
        await events.aclose()
