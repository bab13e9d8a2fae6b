"""After a job, whatever its ending: no task, no position and no memory of it is left over."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import Cancelled, JobContext, Retention

pytestmark = pytest.mark.once

KEEP_NONE = Retention(finished_jobs=0)


def tasks() -> int:
    """Count the living tasks of this run."""
    return trio.lowlevel.current_statistics().tasks_living


class Payload:
    """Something large whose end can be seen."""

    def __init__(self) -> None:
        self.content = bytes(1_000_000)


async def run(job: JobContext) -> str:
    """Do what the metadata says, after a token."""
    await job.send("token")
    match job.metadata["how"]:
        case "error":
            raise ValueError("no")
        case "partial":
            job.nursery.start_soon(trio.sleep_forever)
            raise ValueError("half done")
        case "time-out" | "cancel" | "disconnect":
            await trio.sleep_forever()
    return "done"


@pytest.mark.parametrize("how", ["completion", "error", "partial", "time-out", "cancel", "disconnect"])
async def test_nothing_is_left(how: str, autojump_clock: trio.testing.MockClock) -> None:
    """Ten jobs with 1 MB each that end this way leave neither tasks nor payloads, twice in a row."""
    async with jobtrio.open_registry(retention=KEEP_NONE) as registry:
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        for _ in range(2):
            payloads: list[weakref.ref[Payload]] = []
            for _ in range(10):
                payload = Payload()
                payloads.append(weakref.ref(payload))
                limit = 1.0 if how == "time-out" else None
                job = await registry.submit(run, payload, time_limit=limit, metadata={"how": how})
                async with job.subscribe() as messages:
                    await messages.receive()
                    if how == "disconnect":
                        await messages.aclose()
                if how in ("cancel", "disconnect"):
                    await job.cancel()
                await job.wait()
                del job, messages, payload
            await trio.testing.wait_all_tasks_blocked()
            gc.collect()
            assert [ref for ref in payloads if ref() is not None] == []
            assert tasks() == before
            assert len(registry) == 0


async def test_rapid_cycles() -> None:
    """Registries opened and left five hundred times leave no task behind."""
    before = tasks()
    for _ in range(500):
        async with jobtrio.open_registry() as registry:
            await registry.submit(run, metadata={"how": "completion"})
    assert tasks() == before


async def test_rapid_cycles_of_cancellation() -> None:
    """Jobs cancelled as soon as they are submitted are gone, and leave no task behind."""
    async with jobtrio.open_registry(retention=KEEP_NONE) as registry:
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        for _ in range(500):
            job = await registry.submit(run, metadata={"how": "cancel"})
            assert await job.cancel("at once")
            assert await job.wait() == Cancelled("at once")
        await trio.testing.wait_all_tasks_blocked()
        assert (tasks(), len(registry)) == (before, 0)


async def test_forgotten_subscription_goes_with_its_job() -> None:
    """A subscription that nobody closes is dropped with its job, and warns of nothing."""
    async with jobtrio.open_registry(retention=KEEP_NONE) as registry:
        job = await registry.submit(run, metadata={"how": "completion"})
        forgotten = weakref.ref(job.subscribe())
        await job.wait()
        del job
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert forgotten() is None


async def test_closing_twice() -> None:
    """A subscription, and a channel, may be closed again; a cancellation may be asked for again."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(run, metadata={"how": "cancel"})
        messages = job.subscribe()
        for _ in range(2):
            await messages.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await messages.receive()
        async with job.open_channel() as channel:
            await channel.aclose()
        for _ in range(2):
            assert await job.cancel() is True
        await job.wait()


async def test_channels_pump_goes_with_its_reader() -> None:
    """Leaving `open_channel` early, with its buffer full, leaves no pump behind."""

    async def chatter(job: JobContext) -> None:
        for n in range(500):
            await job.send(n)
        await trio.sleep_forever()

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(chatter)
        await trio.testing.wait_all_tasks_blocked()
        before = tasks()
        async with job.open_channel(size=1) as channel:
            await channel.receive()
        async with registry.execute_and_stream(job.id, chatter) as lines:
            async for _ in lines:
                break
        await trio.testing.wait_all_tasks_blocked()
        assert tasks() == before
        await job.cancel()


async def lives(registry: jobtrio.JobRegistry, jobs: int) -> None:
    """Let as many jobs live and end, a thousand at a time, each with a token and a tag."""
    for start in range(0, jobs, 1000):
        spec = jobtrio.JobSpec(brief, tags={"batch": str(start % 7000)})
        await registry.submit_many([spec] * min(1000, jobs - start))
        await registry.drain()


async def brief(job: JobContext) -> None:
    """Send one token and no more."""
    job.send_nowait(b"token")


@pytest.mark.parametrize("jobs", [100, 100_000])
async def test_memory_is_back_where_it_was(jobs: int) -> None:
    """Memory after a hundred jobs, and after a hundred thousand, is what it was before them."""
    async with jobtrio.open_registry(retention=Retention(finished_jobs=50)) as registry:
        await lives(registry, 1000)
        gc.collect()
        before = sys.getallocatedblocks()
        await lives(registry, jobs)
        gc.collect()
        grown = sys.getallocatedblocks() - before
        assert len(registry) == 50
        assert grown < 2000, f"{grown} blocks more after {jobs} jobs"


async def test_no_registry_outlives_its_block(autojump_clock: trio.testing.MockClock) -> None:
    """A registry that was left by an exception holds nothing and answers nothing more."""
    kept: list[Any] = []
    with pytest.raises(LookupError, match="the body's own"):  # noqa: PT012
        async with jobtrio.open_registry() as registry:
            kept.append(await registry.submit(run, metadata={"how": "cancel"}))
            kept.append(await registry.submit(run, metadata={"how": "cancel"}, delay=1000))
            kept.append(await registry.create_job(metadata={"how": "cancel"}))
            await trio.testing.wait_all_tasks_blocked()
            raise LookupError("the body's own")
    assert [job.outcome for job in kept] == [Cancelled("shutdown")] * 3
    assert [job.state for job in kept] == ["CANCELLED"] * 3
