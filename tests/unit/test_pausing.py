"""Pausing a queue: what waits meanwhile, what goes on, and who waits for what."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from other_clocks import run_by_other_clocks
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Cancelled, Completed, Executors, Job, JobContext, JobRegistry, JobSpec, RetryPolicy
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from jobtrio.abc import JobStore

executors = Executors()


@executors.register("work")
async def work(job: JobContext) -> Any:
    """Take as long as the payload says."""
    await trio.sleep(job.payload or 0)
    return job.attempt


@executors.register("fail")
async def fail(job: JobContext) -> None:
    """Take a second, and fail."""
    await trio.sleep(1)
    raise ValueError("no")


async def started_in_order(registry: JobRegistry, jobs: list[Job]) -> bool:
    """Tell whether jobs have started one after the other."""
    starts = [(await registry.get(job.id)).record.started_at for job in jobs]
    return all(first and second and first < second for first, second in itertools.pairwise(starts))


STORES: list[Callable[[], JobStore]] = [MemoryJobStore, lambda: RemoteStore(Server())]

stores = pytest.mark.parametrize("make_store", STORES, ids=["memory", "remote"])


@stores
async def test_a_paused_queue(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """No job of a paused queue starts, those of others do, and `resume` starts what waits, in its order."""
    async with jobtrio.open_registry(executors, store=make_store(), max_running=1) as registry:
        await registry.pause("gpu")
        waiting = await registry.submit_many([JobSpec("work", queue="gpu"), JobSpec("work", queue="gpu", delay=2)])
        late = await registry.submit("work", queue="gpu", expires_in=5)
        assert await (await registry.submit("work")).wait() == Completed(1)
        assert await registry.paused() == {"gpu": None}
        await trio.sleep(10)
        assert [job.state for job in [await registry.get(job.id) for job in waiting]] == ["QUEUED"] * 2
        assert (await registry.get(late.id)).state == "FAILED"
        await registry.resume("gpu")
        began = trio.current_time()
        assert [await job.wait() for job in waiting] == [Completed(1)] * 2
        assert trio.current_time() - began < 1
        assert await registry.paused() == {}
        assert await started_in_order(registry, waiting)


@stores
async def test_what_runs_runs_on(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """A running job of a queue that is paused comes to its end; one that fails waits for the queue to go on."""
    policy = RetryPolicy(max_attempts=2, initial=1, jitter=0)
    async with jobtrio.open_registry(executors, store=make_store()) as registry:
        running, failing = await registry.submit("work", 3), await registry.submit("fail", retry=policy)
        await trio.sleep(0.5)
        await registry.pause("default")
        assert await running.wait() == Completed(1)
        await trio.sleep(20)
        again = await registry.get(failing.id)
        assert (again.state, again.record.attempt) == ("QUEUED", 1)
        await registry.resume("default")
        assert (await failing.wait()).error.message == "no"  # type: ignore[union-attr]
        assert failing.record.attempt == 2


@stores
@pytest.mark.parametrize("paused_first", [True, False])
async def test_drain(autojump_clock: MockClock, make_store: Callable[[], JobStore], paused_first: bool) -> None:
    """Who drains does not wait for what waits in a paused queue, nor in one that is paused meanwhile."""
    policy = RetryPolicy(max_attempts=2, initial=1000, jitter=0)
    async with jobtrio.open_registry(executors, store=make_store(), max_running=1) as registry:
        running = await registry.submit("fail", queue="gpu", retry=policy)
        await trio.sleep(0.5)
        await registry.submit("work", queue="gpu")
        if paused_first:
            await registry.pause("gpu")
            await registry.drain()
        else:
            blocker = await registry.submit("work", 50)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(registry.drain)
                await trio.sleep(20)
                await registry.pause("gpu")
            assert blocker.outcome == Completed(1)
        assert trio.current_time() < 100
        assert (await registry.get(running.id)).state == "RETRYING"
        await registry.cancel(running.id)
        await registry.resume("gpu")
        await registry.drain()


async def test_a_drain_that_waits_for_nothing_else(autojump_clock: MockClock) -> None:
    """Who drains, and waits for an attempt to come, leaves off once its queue is paused."""
    policy = RetryPolicy(max_attempts=2, initial=1000, jitter=0)
    async with jobtrio.open_registry() as registry:
        await registry.submit(fail, retry=policy)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(registry.drain)
            await trio.sleep(20)
            await registry.pause("default")
        assert trio.current_time() < 100


async def test_leaving_in_memory(autojump_clock: MockClock) -> None:
    """What waits in a paused queue does not hold up the exit, and ends by it; what runs is waited for."""
    policy = RetryPolicy(max_attempts=2, initial=1000, jitter=0)
    async with jobtrio.open_registry(max_running=2) as registry:
        running, failing = await registry.submit(work, 5), await registry.submit(fail, retry=policy)
        await trio.sleep(0.5)
        later = await registry.submit(work, delay=1000)
        await registry.pause("default")
        queued = await registry.submit(work)
        other = await registry.submit(work, queue="other", delay=10)
    assert trio.current_time() < 100
    assert [job.outcome for job in (running, other)] == [Completed(1)] * 2
    assert [job.outcome for job in (failing, later, queued)] == [Cancelled("shutdown")] * 3


async def test_paused_before_it_came_to_run(autojump_clock: MockClock) -> None:
    """A job that was ready, whose task has not come to claim it yet, waits as well."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(work)
        await registry.pause("default")
        await trio.sleep(1)
        assert job.state == "QUEUED"
        await registry.resume("default")
        assert await job.wait() == Completed(1)


async def test_a_process_that_only_watches(autojump_clock: MockClock) -> None:
    """Whoever has opened the store may pause a queue, for all workers; it stays so when he has left."""
    server = Server()
    async with jobtrio.open_registry(executors, store=RemoteStore(server)) as registry:
        async with jobtrio.open_registry(store=RemoteStore(server), queues={}) as operator:
            await operator.pause("default")
        job = await registry.submit("work")
        await trio.sleep(20)
        assert (await registry.get(job.id)).state == "QUEUED"
        async with jobtrio.open_registry(store=RemoteStore(server), queues={}) as operator:
            assert await operator.paused() == {"default": None}
            began = trio.current_time()
            await operator.resume("default")
            assert await job.wait() == Completed(1)
        assert trio.current_time() - began < 1


@pytest.mark.parametrize("method", ["pause", "resume"])
async def test_a_call_that_is_not_answered(autojump_clock: MockClock, method: str) -> None:
    """A call whose answer is lost is made again; where the store stays away, that is said."""
    store = RemoteStore(Server(), outage_limit=4)
    async with jobtrio.open_registry(executors, store=store) as registry:
        store.network.lose_every_other(method)
        call = getattr(registry, method)
        await call("default")
        assert [*await registry.paused()] == ["default"] * (method == "pause")
        store.network.failing.add(method)
        with pytest.raises(jobtrio.StoreUnavailableError):
            await call("default")


@pytest.mark.parametrize("method", ["pause", "resume"])
@pytest.mark.parametrize(("name", "error"), [("", ValueError), ("a\n", ValueError), (3, TypeError), (None, TypeError)])
async def test_names_that_make_no_sense(method: str, name: Any, error: type[Exception]) -> None:
    """A queue is named as it is to `submit`."""
    async with jobtrio.open_registry() as registry:
        with pytest.raises(error, match="queue must be"):
            await getattr(registry, method)(name)
        assert await registry.paused() == {}


@stores
async def test_behind_the_end(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """A registry that is closed pauses nothing: its store may be another's by now."""
    async with jobtrio.open_registry(executors, store=make_store()) as registry:
        pass
    for call in (registry.pause, registry.resume):
        with pytest.raises(trio.ClosedResourceError):
            await call("default")


@stores
async def test_for_a_time(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """A pause of some seconds ends by itself, to the moment, and what waits starts then in its order."""
    async with jobtrio.open_registry(executors, store=make_store(), max_running=1) as registry:
        start, now = trio.current_time(), datetime.now(UTC)
        await registry.pause("gpu", 30)
        paused = await registry.paused()
        until = paused["gpu"]
        assert until is not None
        assert paused == {"gpu": until}
        assert timedelta(seconds=29) < until - now < timedelta(seconds=31)
        waiting = await registry.submit_many([JobSpec("work", queue="gpu"), JobSpec("work", queue="gpu")])
        assert await (await registry.submit("work")).wait() == Completed(1)
        await trio.sleep_until(start + 29)
        assert [job.state for job in [await registry.get(job.id) for job in waiting]] == ["QUEUED"] * 2
        assert [await job.wait() for job in waiting] == [Completed(1)] * 2
        assert 30 <= trio.current_time() - start < 32
        assert await registry.paused() == {}
        assert await started_in_order(registry, waiting)


@stores
async def test_several_pauses_of_a_time(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """Each queue goes on in its own time; the longer of two pauses counts, and `resume` ends it."""
    async with jobtrio.open_registry(executors, store=make_store()) as registry:
        start = trio.current_time()
        for queue, seconds in (("a", 60), ("b", 20), ("c", 40), ("a", 10), ("c", 50), ("d", 70), ("d", inf), ("e", 90)):
            await registry.pause(queue, seconds)
        jobs = {queue: await registry.submit("work", queue=queue) for queue in "abcde"}
        began: dict[str, float] = {}

        async def note(queue: str) -> None:
            await jobs[queue].wait()
            began[queue] = round(trio.current_time() - start, -1)

        async with trio.open_nursery() as nursery:
            for queue in jobs:
                nursery.start_soon(note, queue)
            await trio.sleep_until(start + 30)
            await registry.resume("e")
            await trio.sleep_until(start + 100)
            assert await registry.paused() == {"d": None}
            await registry.resume("d")
        assert began == {"b": 20, "e": 30, "c": 50, "a": 60, "d": 100}


@stores
async def test_drain_waits_for_the_end_of_a_pause(
    autojump_clock: MockClock, make_store: Callable[[], JobStore]
) -> None:
    """What a pause of some seconds holds back is waited for, by who drains as by who leaves."""
    async with jobtrio.open_registry(executors, store=make_store()) as registry:
        start = trio.current_time()
        for queue in ("default", "other"):
            await registry.pause(queue, 30)
            drained = await registry.submit("work", queue=queue)
            await registry.drain()
            assert drained.outcome == Completed(1)
            assert trio.current_time() - start >= 30
            start = trio.current_time()


async def test_leaving_in_memory_for_a_time(autojump_clock: MockClock) -> None:
    """In memory the exit waits until the pause is over, and for the jobs behind it."""
    async with jobtrio.open_registry() as registry:
        await registry.pause("default", 30)
        job = await registry.submit(work)
    assert job.outcome == Completed(1)
    assert 30 <= trio.current_time() < 31


def test_a_pause_in_another_run() -> None:
    """What is left of a pause when a store is closed, is left when it is opened in another run, by whatever clock."""
    store, waits = MemoryJobStore(), []

    async def run() -> None:
        async with jobtrio.open_registry(store=store) as registry:
            began = trio.current_time()
            await (await registry.submit(work)).wait()
            waits.append(trio.current_time() - began)
            await registry.pause("default", 10)
            await trio.sleep(3)

    run_by_other_clocks(run)
    assert waits == pytest.approx([0, 7, 7], abs=0.1)


async def test_too_many_requests(autojump_clock: MockClock) -> None:
    """An executor that is told to wait has its whole queue wait, and itself be tried again behind that."""
    asked: list[float] = []

    async def ask(job: JobContext) -> int:
        asked.append(trio.current_time())
        if 3 <= len(asked) <= 8:
            await job.registry.pause(job.queue, 20)
            raise jobtrio.RetryLater(20, counts=False)
        return int(job.payload)

    async with jobtrio.open_registry(max_running=1) as registry:
        jobs = await registry.submit_many([JobSpec(ask, n) for n in range(6)])
        assert [await job.wait() for job in jobs] == [Completed(n) for n in range(6)]
    assert [round(at) for at in asked] == [0, 0, 0, 20, 40, 60, 80, 100, 120, 120, 120, 120]


async def test_no_time_at_all(autojump_clock: MockClock) -> None:
    """A pause of 0 seconds, as a service may ask for, is over at once, and none that is longer ends by it."""
    async with jobtrio.open_registry() as registry:
        await registry.pause("default", 0)
        assert await registry.paused() == {}
        await registry.pause("default")
        await registry.pause("default", 0)
        assert await registry.paused() == {"default": None}


@pytest.mark.parametrize("seconds", [-1, "3", None, float("nan"), 1e12])
async def test_no_time(seconds: Any) -> None:
    """What is no time that a pause can last is refused, and pauses nothing."""
    async with jobtrio.open_registry() as registry:
        with pytest.raises((TypeError, ValueError), match=r"^seconds must (be|end) .*; got "):
            await registry.pause("default", seconds)
        assert await registry.paused() == {}
