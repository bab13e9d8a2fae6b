"""Changing the priority of a job that waits: what is shown of it, what it is started with, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server, copied

import jobtrio
from jobtrio import Completed, Executors, JobContext, JobPriority, JobSpec, RetryPolicy
from jobtrio._known import KnownEntries
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing._workers import new_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from jobtrio.abc import JobStore

LOW, NORMAL, HIGH, CRITICAL = JobPriority

executors = Executors()


@executors.register("work")
async def work(job: JobContext) -> Any:
    """Take as long as the payload says."""
    await trio.sleep(job.payload or 0)
    return job.attempt, job.priority.name


@executors.register("fail")
async def fail(job: JobContext) -> Any:
    """Fail at once, and succeed the second time."""
    if job.attempt == 1:
        raise ValueError(job.priority.name)
    return job.priority.name


STORES: list[Callable[[], JobStore]] = [MemoryJobStore, lambda: RemoteStore(Server())]

stores = pytest.mark.parametrize("make_store", STORES, ids=["memory", "remote"])


@stores
async def test_to_the_front(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """A job that is given a higher priority overtakes those that wait, and one with a lower one lets them pass."""
    async with jobtrio.open_registry(executors, store=make_store(), max_running=1) as registry:
        blocker = await registry.submit("work", 1)
        await trio.sleep(0.5)
        a, b, c, d = jobs = await registry.submit_many([JobSpec("work")] * 4)
        urgent = await registry.submit("work", priority=HIGH)
        assert await registry.set_priority(c.id, HIGH)
        assert await a.set_priority(LOW)
        assert await d.set_priority(NORMAL)
        for job, priority in zip(jobs, (LOW, NORMAL, HIGH, NORMAL), strict=True):
            shown = job, await registry.get(job.id), registry.peek(job.id)
            assert [each and each.record.priority for each in shown] == [priority] * 3
            assert [record.priority for record in await registry.find() if record.id == job.id] == [priority]
        await blocker.wait()
        order = [urgent, c, b, d, a]
        outcomes = [await job.wait() for job in order]
        assert outcomes == [
            Completed(_sent(make_store, 1, name)) for name in ("HIGH", "HIGH", "NORMAL", "NORMAL", "LOW")
        ]
        started = [(await registry.get(job.id)).record.started_at for job in order]
        assert started == sorted(started, key=lambda at: at or 0)


def _sent(make_store: Callable[[], JobStore], *result: Any) -> Any:
    return result if make_store is MemoryJobStore else [*result]


@stores
async def test_each_state(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """True for what waits, held jobs too, and False for what runs or has ended; no change of state is told."""
    policy = RetryPolicy(max_attempts=2, initial=100, jitter=0)
    async with jobtrio.open_registry(executors, store=make_store(), max_running=2) as registry:
        retrying = await registry.submit("fail", retry=policy)
        ended = await registry.submit("work")
        await ended.wait()
        running = await registry.submit("work", 1000)
        scheduled, held = await registry.submit("work", delay=100), await registry.create_job()
        await trio.sleep(0.5)
        events = registry.subscribe_events()
        histories = {job.id: await registry.history(job.id) for job in (retrying, scheduled, held)}
        for _ in range(2):  # also where it has the priority already
            for job, state in ((retrying, "RETRYING"), (scheduled, "SCHEDULED"), (held, "QUEUED")):
                assert await job.set_priority(CRITICAL)
                assert (job.state, job.record.priority) == (state, CRITICAL)
        for job in (running, ended):
            assert not await job.set_priority(CRITICAL)
            assert not await registry.set_priority(job.id, CRITICAL)
            assert job.record.priority is NORMAL
        assert {job_id: await registry.history(job_id) for job_id in histories} == histories
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()
        async with registry.execute_and_stream(held.id, "work") as lines:
            assert [line async for line in lines] == ["[DONE]"]
        assert await held.result() == _sent(make_store, 1, "CRITICAL")
        assert await retrying.result() == "CRITICAL"
        assert await scheduled.result() == _sent(make_store, 1, "CRITICAL")
        await running.cancel()


@stores
async def test_a_job_that_is_removed(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """The handle of a job that is gone changes no other one that has its id by now."""
    async with jobtrio.open_registry(executors, store=make_store()) as registry:
        old = await registry.submit("work", job_id="id")
        await old.wait()
        await registry.remove("id")
        with pytest.raises(jobtrio.UnknownJobError):
            await registry.set_priority("id", HIGH)
        new = await registry.submit("work", job_id="id", delay=5)
        assert not await old.set_priority(HIGH)
        assert new.record.priority is NORMAL
        assert await registry.set_priority("id", LOW)
        assert (await registry.get("id")).record.priority is LOW


async def test_a_handle_of_a_job_that_is_another_by_now(autojump_clock: MockClock) -> None:
    """A handle whose process has not heard of its job's end changes no other job that has its id by now."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as here,
    ):
        await there.pause("default")
        old = await here.submit("work", job_id="id")
        await there.cancel("id")
        await there.remove("id")
        with pytest.raises(jobtrio.UnknownJobError):
            await old.set_priority(HIGH)
        await there.submit("work", job_id="id")
        assert old.outcome is None
        assert not await old.set_priority(HIGH)
        assert (await there.get("id")).record.priority is NORMAL
        await there.resume("default")


async def test_other_processes(autojump_clock: MockClock) -> None:
    """A worker that waits for room goes by the new priority; other processes show it when they read the job."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), max_running=1) as worker,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        blocker = await worker.submit("work", 10)
        await trio.sleep(1)
        first, second = await here.submit_many([JobSpec("work", 5), JobSpec("work", 5)])
        assert await there.set_priority(second.id, HIGH)
        assert (await here.get(second.id)).record.priority is second.record.priority is HIGH
        await blocker.wait()
        assert await second.result() == [1, "HIGH"]
        assert await there.set_priority(first.id, HIGH) is False
        assert await first.result() == [1, "NORMAL"]


async def test_a_start_from_an_old_look(autojump_clock: MockClock) -> None:
    """Who executes a held job with what it has read before does not take its new priority back."""
    server = Server()
    slow = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=slow, queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
    ):
        job = await there.create_job()
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def execute() -> None:
                async with here.execute_and_stream(job.id, "work") as lines:
                    assert [line async for line in lines] == ["[DONE]"]

            slow.network.slow["load"] = 5
            await trio.sleep(1)
            assert await there.set_priority(job.id, HIGH)
        assert await job.result() == [1, "HIGH"]
        assert (await here.get(job.id)).record.priority is HIGH


async def test_an_answer_that_comes_late(autojump_clock: MockClock) -> None:
    """What was read of a job before its priority was changed, and is told later, does not take that back."""
    known = KnownEntries()
    server = MemoryJobStore()
    reads = []
    async with jobtrio.open_registry(store=server) as registry:
        job = await registry.create_job(priority=LOW)
        entry = server.peek(job.id)
        assert entry is not None
        for priority in (NORMAL, HIGH, HIGH, LOW):
            reads.append(copied(entry))
            await job.set_priority(priority)
        reads.append(copied(entry))
    here = known.entry_of(copied(reads[0]))
    for n in (2, 1, 3, 4, 0, 2, 1, 4, 3):
        assert known.entry_of(reads[n]) is here
    assert here.plan.priority is LOW
    assert here.ticket == reads[4].ticket


def test_a_function_stays_with_its_job() -> None:
    """A job that was submitted with a function keeps it when its priority is read."""
    known = KnownEntries()
    here = new_entry()
    here.plan = type(here.plan)("work", work, *(getattr(here.plan, name) for name in _REST))
    known.entry_of(here)
    fresh = copied(here)
    fresh.plan, fresh.ticket = fresh.plan.with_priority(HIGH), here.ticket + 1
    assert known.entry_of(fresh) is here
    assert (here.plan.function, here.plan.priority) == (work, HIGH)


_REST = ("queue", "priority", "time_limit", "retry", "worker")


async def test_a_call_whose_answer_is_lost(autojump_clock: MockClock) -> None:
    """A call whose answer is lost is made again; where the store stays away, that is said in time."""
    store = RemoteStore(Server(), outage_limit=4)
    async with jobtrio.open_registry(executors, store=store, max_running=1) as registry:
        blocker = await registry.submit("work", 1000)
        await trio.sleep(1)
        job, other = await registry.submit("work"), await registry.submit("work")
        store.network.lose_every_other("set_priority")
        for priority in (HIGH, LOW):
            assert await job.set_priority(priority)
            assert (await registry.get(job.id)).record.priority is priority
        assert not await blocker.set_priority(HIGH)
        assert not await registry.set_priority(blocker.id, NORMAL)
        store.network.failing.add("set_priority")
        began = trio.current_time()
        with pytest.raises(jobtrio.StoreUnavailableError):
            await other.set_priority(HIGH)
        assert trio.current_time() - began <= 4.1
        store.network.failing.clear()
        await blocker.cancel()


@pytest.mark.parametrize("end", [False, True])
async def test_started_behind_a_lost_answer(autojump_clock: MockClock, end: bool) -> None:
    """A change whose answer was lost was made, though the job has been started or has ended since."""
    server = Server()
    store = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=store, queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server)) as worker,
    ):
        await worker.pause("default")
        job = await here.submit("work", 100)
        store.network.fail_at(1, "after")
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def go_on() -> None:
                await trio.sleep(0.02)  # the first try was carried out, and its answer is lost
                await (worker.cancel(job.id) if end else worker.resume("default"))

            assert await here.set_priority(job.id, HIGH)
        assert (await worker.get(job.id)).state == ("CANCELLED" if end else "RUNNING")
        assert (await worker.get(job.id)).record.priority is HIGH
        await worker.cancel(job.id)


async def test_plans_are_not_shared(autojump_clock: MockClock) -> None:
    """Of jobs that were submitted alike only the one that is meant has another priority."""
    async with jobtrio.open_registry(max_running=1) as registry:
        jobs = [await registry.submit(work, delay=1) for _ in range(3)]
        assert await jobs[1].set_priority(HIGH)
        late = await registry.submit(work, delay=1)
        assert [job.record.priority for job in (*jobs, late)] == [NORMAL, HIGH, NORMAL, NORMAL]
        assert [(await job.result())[1] for job in jobs] == ["NORMAL", "HIGH", "NORMAL"]


@stores
async def test_behind_the_end(autojump_clock: MockClock, make_store: Callable[[], JobStore]) -> None:
    """A registry that is closed changes nothing: what lives in its store may be another's by now."""
    store = make_store()
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("work")
        await job.wait()
    assert not await job.set_priority(HIGH)
    if store.durable:
        with pytest.raises(trio.ClosedResourceError):
            await registry.set_priority(job.id, HIGH)
    async with jobtrio.open_registry(executors, store=store) as other:
        late = await other.submit("work", delay=1)
        with pytest.raises(trio.ClosedResourceError):
            await registry.set_priority(late.id, HIGH)
        assert late.record.priority is NORMAL


async def test_it_gives_way(autojump_clock: MockClock) -> None:
    """A task that only changes priorities lets others run, and heeds its cancellation before it changes anything."""
    async with jobtrio.open_registry(max_running=1) as registry:
        job = await registry.submit(work, delay=1000)
        with trio.move_on_after(1) as scope:
            scope.cancel()
            await job.set_priority(HIGH)
        assert scope.cancelled_caught
        assert job.record.priority is NORMAL
        turns = 0
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def count() -> None:
                nonlocal turns
                while True:
                    await trio.lowlevel.checkpoint()
                    turns += 1

            for n in range(200):
                await job.set_priority(JobPriority(n % 4))
            nursery.cancel_scope.cancel()
        assert turns > 3
        await job.cancel()
