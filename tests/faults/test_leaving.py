"""Leaving a registry, draining it and shutting it down: what is waited for, and what ends how."""

from __future__ import annotations

import gc
import itertools
import weakref
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from patience import until
from remote_store import RemoteStore, Server
from store_urls import STORES, new_url

import jobtrio
from jobtrio import Cancelled, Completed, JobContext, RetryPolicy
from jobtrio.stores._url import parse_store_url
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from trio.testing import MockClock

SHUT = Cancelled("shutdown")


async def second_time(job: JobContext) -> int:
    """Succeed in the second attempt only, after a second each."""
    await trio.sleep(1)
    if job.attempt == 1:
        raise OSError("not yet")
    return job.attempt


async def rest(job: JobContext) -> float:
    """Sleep for as long as the payload says, and clean up for a second."""
    try:
        await trio.sleep(job.payload)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        raise
    return float(job.payload)


async def populate(registry: jobtrio.JobRegistry) -> dict[str, jobtrio.Job]:
    """Submit a job for each way of living, to a registry that runs two at once."""
    jobs = {
        "retrying": await registry.submit(second_time, retry=RetryPolicy(initial=20, jitter=0)),
        "running": await registry.submit(rest, 50),
    }
    await trio.sleep(2)
    jobs["running too"] = await registry.submit(rest, 50)
    jobs["queued"] = await registry.submit(rest, 50)
    jobs["scheduled"] = await registry.submit(rest, 50, delay=100)
    jobs["held"] = await registry.create_job()
    await trio.sleep(1)
    states = ["RETRYING", "RUNNING", "RUNNING", "QUEUED", "SCHEDULED", "QUEUED"]
    assert [job.state for job in jobs.values()] == states
    return jobs


async def test_leaving_waits(autojump_clock: MockClock) -> None:
    """A normal exit waits for what runs, is queued, scheduled or retrying; held jobs end with it."""
    async with jobtrio.open_registry(max_running=2) as registry:
        jobs = await populate(registry)
        left = trio.current_time()
    assert trio.current_time() - left > 100
    held = jobs.pop("held")
    assert held.outcome == SHUT
    assert {name: job.outcome for name, job in jobs.items()} == {
        "retrying": Completed(2),
        "running": Completed(50.0),
        "running too": Completed(50.0),
        "queued": Completed(50.0),
        "scheduled": Completed(50.0),
    }


async def test_held_jobs_do_not_hold_up_the_exit(autojump_clock: MockClock) -> None:
    """A registry that has nothing but held jobs is left at once, and they end."""
    start = trio.current_time()
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
    assert trio.current_time() == start
    assert (job.outcome, job.state) == (SHUT, "CANCELLED")


@pytest.mark.parametrize("how", ["exception", "cancellation", "shutdown"])
async def test_leaving_early(how: str, autojump_clock: MockClock) -> None:
    """An exception or a cancellation of the body, and `shutdown`, end every living job, clean-up awaited."""
    failure = LookupError("the body's own")
    caught: list[LookupError] = []
    with trio.CancelScope() as scope:
        try:
            async with jobtrio.open_registry(max_running=2) as registry:
                jobs = await populate(registry)
                left = trio.current_time()
                if how == "exception":
                    raise failure
                if how == "cancellation":
                    scope.cancel()
                    await trio.sleep_forever()
                await registry.shutdown()
                assert trio.current_time() - left == pytest.approx(1)
        except LookupError as exc:
            caught.append(exc)
    assert caught == ([failure] if how == "exception" else [])
    assert scope.cancelled_caught is (how == "cancellation")
    assert trio.current_time() - left == pytest.approx(1)
    assert {name: job.outcome for name, job in jobs.items()} == dict.fromkeys(jobs, SHUT)


async def test_drain(autojump_clock: MockClock) -> None:
    """`drain` waits for what is queued, retrying or running; afterwards the registry goes on."""
    async with jobtrio.open_registry(max_running=2) as registry:
        jobs = await populate(registry)
        await registry.drain()
        states = {name: job.state for name, job in jobs.items()}
        assert states == {
            "retrying": "COMPLETED",
            "running": "COMPLETED",
            "running too": "COMPLETED",
            "queued": "COMPLETED",
            "scheduled": "SCHEDULED",
            "held": "QUEUED",
        }
        assert await (await registry.submit(rest, 1)).result() == 1
        await jobs["scheduled"].cancel()


async def test_drain_waits_for_a_retry(autojump_clock: MockClock) -> None:
    """A job that waits for its next attempt is waited for, although nothing is queued or runs."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(second_time, retry=RetryPolicy(initial=20, jitter=0))
        await trio.sleep(5)
        assert job.state == "RETRYING"
        await registry.drain()
        assert job.outcome == Completed(2)


async def test_shutdown_with_grace(autojump_clock: MockClock) -> None:
    """`shutdown` starts nothing more, tells every job to stop, and cancels what still runs after the grace."""

    async def polite(job: JobContext) -> None:
        await job.stopping.wait()
        stopped.append(trio.current_time())
        await trio.sleep(3)

    async def deaf(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            stopped.append(trio.current_time())

    stopped: list[float] = []
    async with jobtrio.open_registry(max_running=2) as registry:
        jobs = [await registry.submit(executor) for executor in (polite, deaf, rest)]
        await trio.sleep(1)
        start = trio.current_time()
        await registry.shutdown(grace=10)
        assert trio.current_time() - start == pytest.approx(10)
        assert stopped == pytest.approx([start, start + 10])
    assert [job.outcome for job in jobs] == [SHUT] * 3


async def test_shutdown_that_is_cut_off(autojump_clock: MockClock) -> None:
    """A shutdown that was cut off in its grace can be asked for again, and the registry can be left."""
    for again in (True, False):
        async with jobtrio.open_registry(max_running=1) as registry:
            running = await registry.submit(rest, 10_000)
            queued = await registry.submit(rest, 1)
            await trio.sleep(1)
            with trio.move_on_after(1):
                await registry.shutdown(grace=100)
            if again:
                await registry.shutdown()
            start = trio.current_time()
        assert trio.current_time() - start <= 101
        assert [job.outcome for job in (running, queued)] == [SHUT, SHUT]


async def test_ended_jobs_are_let_go_although_nobody_asks(autojump_clock: MockClock) -> None:
    """What an ended job held is freed when its time is over, without a call that would notice."""

    class Big:
        """Something to hold on to."""

    async def executor(job: JobContext) -> Big:
        alive.append(weakref.ref(value := Big()))
        return value

    alive: list[weakref.ref[Big]] = []
    async with jobtrio.open_registry(retention=jobtrio.Retention(finished_for=60)) as registry:
        await (await registry.submit(executor)).wait()
        await trio.sleep(50)
        gc.collect()
        assert alive[0]() is not None
        await trio.sleep(20)
        gc.collect()
        assert alive[0]() is None


async def test_calls_on_a_registry_that_is_closed(tmp_path: Path) -> None:
    """What has to ask a durable store raises once the block was left; what this process knows can be read yet."""
    executors = jobtrio.Executors()
    executors.register("rest")(rest)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db")) as registry:
        ended, waits = await registry.submit("rest", 0), await registry.submit("rest", 0, delay=3600)
        await ended.wait()
    stream = registry.execute_and_stream(waits.id, "rest")
    calls: list[Callable[[], Awaitable[object]]] = [
        partial(registry.submit, "rest"),
        partial(registry.submit_many, []),
        registry.create_job,
        registry.find,
        registry.counts,
        partial(registry.counts, tags={"of": "nobody"}),
        registry.workers,
        partial(registry.get, ended.id),
        partial(registry.history, ended.id),
        partial(registry.cancel, ended.id),
        partial(registry.remove, ended.id),
        stream.__aenter__,
        waits.cancel,
        waits.span,
    ]
    for call in calls:
        with pytest.raises(trio.ClosedResourceError, match=r"the registry is (closed|shut down)"):
            await call()
    with pytest.raises(trio.BrokenResourceError, match="the registry was closed"):
        await waits.wait()
    assert await ended.wait() == Completed(0.0)
    assert await ended.span() == jobtrio.StreamSpan(1, 1, True)
    assert waits.state == "SCHEDULED"
    await registry.drain()
    await registry.shutdown()


@pytest.mark.parametrize("kind", STORES)
async def test_callers_when_it_is_closed(kind: str, request: pytest.FixtureRequest) -> None:
    """Tasks outside that go on asking while the registry is closed are told so; none of them waits for ever."""
    store = parse_store_url(new_url(kind, request)).make_store()
    told: list[str] = []

    async def ask() -> None:
        while True:
            try:
                await registry.get("unknown")
            except jobtrio.UnknownJobError:
                pass
            except trio.ClosedResourceError as exc:
                told.append(str(exc))
                return

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            async with jobtrio.open_registry(store=store) as registry:
                for _ in range(20):
                    nursery.start_soon(ask)
                await trio.sleep(0.05)
    assert told == ["the registry is closed"] * 20


async def test_calls_on_a_registry_in_memory_that_is_closed() -> None:
    """In memory only submitting raises: what is kept can be read for as long as somebody has the registry."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(rest, 0)
    with pytest.raises(trio.ClosedResourceError, match="the registry is shut down"):
        await registry.submit(rest)
    assert [record.id for record in await registry.find()] == [job.id]
    assert await registry.get(job.id) == job
    assert not await job.cancel()
    await registry.remove(job.id)


class OneCall(trio.abc.Instrument):
    """Makes a call ahead of the nth step that any task takes from now on."""

    def __init__(self, nth: int, call: Callable[[], object]) -> None:
        self.steps = 0
        self.returned: object = None
        self._nth = nth
        self._call = call

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Call, if it is time."""
        self.steps += 1
        if self.steps == self._nth:
            self.returned = self._call()


async def test_subscribing_in_the_midst_of_leaving(autojump_clock: MockClock) -> None:
    """At each step that is taken while a registry is left, a job that goes on elsewhere can be subscribed to."""
    executors = jobtrio.Executors()
    executors.register("rest")(rest)
    for nth in itertools.count(1):
        async with jobtrio.open_registry(executors, store=RemoteStore(Server()), queues={}) as registry:
            job = await registry.submit("rest", 0)
            await trio.testing.wait_all_tasks_blocked()
            call = OneCall(nth, job.subscribe)
            trio.lowlevel.add_instrument(call)
        if call.steps < nth:
            break
        assert isinstance(call.returned, jobtrio.Subscription)
        with pytest.raises(trio.BrokenResourceError, match="the registry was closed"):
            await call.returned.receive()
    assert nth > 5


async def test_span_in_the_midst_of_leaving(autojump_clock: MockClock) -> None:
    """At each step that is taken while a registry is left, a job's span is told rightly or not at all."""

    async def send(job: JobContext) -> None:
        await job.send("a")
        raise jobtrio.RetryLater(1000)

    executors = jobtrio.Executors()
    executors.register("send")(send)
    server = Server()
    async with jobtrio.open_registry(executors, store=RemoteStore(server)) as registry:
        job_id = (await registry.submit("send")).id
        await trio.sleep(1)

    async def ask(job: jobtrio.Job) -> None:
        with suppress(trio.ClosedResourceError):
            told.append((await job.span()).last)

    told: list[int] = []
    for nth in itertools.count(1):
        async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as registry:
            job = await registry.get(job_id)
            await trio.testing.wait_all_tasks_blocked()
            call = OneCall(nth, partial(trio.lowlevel.spawn_system_task, ask, job))
            trio.lowlevel.add_instrument(call)
        if call.steps < nth:
            break
    assert set(told) == {2}


async def test_drain_that_is_overtaken_by_the_end(autojump_clock: MockClock) -> None:
    """Who drains while the store is away is let go when the registry is closed meanwhile."""
    store = RemoteStore(Server())
    async with trio.open_nursery() as nursery:
        async with jobtrio.open_registry(store=store) as registry:
            store.network.failing = {"backlog"}
            nursery.start_soon(registry.drain)
            await trio.testing.wait_all_tasks_blocked()


class LateHint(trio.abc.Instrument):
    """Hints at a job's messages when a registry's services have ended."""

    def __init__(self, registry: jobtrio.JobRegistry, job: jobtrio.Job) -> None:
        self.hints = 0
        self.raised: Exception | None = None
        self._core = registry._core
        self._services = self._core._runner.services
        self._id = job.id

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Hint, if it is time."""
        assert self._services is not None
        if self._services._closed:
            self.hints += 1
            try:
                self._core.messages_added(self._id)
            except Exception as exc:
                self.raised = exc


async def test_a_hint_that_comes_late(tmp_path: Path) -> None:
    """A store may hear of new messages to the last, also when nobody looks at them any more."""
    store = SqliteJobStore(tmp_path / "jobs.db")
    async with jobtrio.open_registry(jobtrio.Executors(), store=store, queues={}) as registry:
        job = await registry.create_job()
        messages = job.subscribe()
        (tail,) = registry._core._tails._tails[job.id]
        await until(lambda: not tail.is_looking)
        hint = LateHint(registry, job)
        trio.lowlevel.add_instrument(hint)
    trio.lowlevel.remove_instrument(hint)
    messages.close()
    assert hint.hints
    assert hint.raised is None
