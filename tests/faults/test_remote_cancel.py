"""Cancelling jobs that run on another machine, or do not run yet, or whose worker is dead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Cancelled, Completed, End, Executors, JobContext, JobState, Restart, RetryPolicy, Token

if TYPE_CHECKING:
    from trio.testing import MockClock

LEASE = 30.0


class Here:
    """A process that only watches, and the server that it shares with workers."""

    def __init__(self) -> None:
        self.server = Server()
        self.store = RemoteStore(self.server)
        self.executors = Executors()
        self.executors.register("work", retry=RetryPolicy(initial=50, jitter=0))(self.work)
        self.log: list[Any] = []  # what the executor does, and when

    def note(self, what: str) -> None:
        """Note what the executor does."""
        self.log.append((what, trio.current_time()))

    def seconds(self, first: str, second: str) -> float:
        """Return the time between two notes."""
        times = dict(self.log)
        return float(times[second] - times[first])

    async def work(self, job: JobContext) -> None:
        """Do what the payload says."""
        self.note("started")
        await job.send("first")
        try:
            if job.payload == "fail":
                raise ValueError("no")
            if job.payload == "graceful":
                await job.stopping.wait()
                self.note("stopping")
            await trio.sleep_forever()
        finally:
            self.note("gone")

    def open(self, **options: Any) -> Any:
        """Open the registry that only watches."""
        return jobtrio.open_registry(self.executors, store=self.store, queues={}, lease=LEASE, **options)

    def open_worker(self, store: RemoteStore | None = None, **options: Any) -> Any:
        """Open a worker's registry."""
        store = RemoteStore(self.server) if store is None else store
        return jobtrio.open_registry(self.executors, store=store, lease=LEASE, worker="there", **options)


@pytest.fixture
def here() -> Here:
    """Give a process that only watches."""
    return Here()


async def read(job: jobtrio.Job) -> list[jobtrio.Message]:
    with job.subscribe() as messages:
        return [message async for message in messages]


@pytest.mark.parametrize("deaf", [False, True])
async def test_running(autojump_clock: MockClock, here: Here, deaf: bool) -> None:
    """A running job is cancelled from another process: at once, or with the next renewal if the signal is lost."""
    worker = RemoteStore(here.server)
    worker.network.deaf = deaf
    async with here.open() as registry, here.open_worker(worker) as there:
        job = await registry.submit("work")
        await trio.sleep(8)
        here.note("asked")
        assert await job.cancel("enough")
        assert await read(job) == [Token(1, 1, "first"), End(2, Cancelled("enough"))]
        assert here.seconds("asked", "gone") < (LEASE / 3 if deaf else 0.1)
        assert (await there.get(job.id)).outcome == Cancelled("enough")
        assert await job.cancel("again") is False
        assert await registry.cancel(job.id, "enough") is False
        assert job.record.cancel_reason == "enough"


async def test_what_the_clean_up_raises(autojump_clock: MockClock, here: Here) -> None:
    """What a cancelled job's clean-up raises is kept with the job."""

    @here.executors.register("untidy")
    async def untidy(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("untidy")

    async with here.open() as registry, here.open_worker():
        job = await registry.submit("untidy")
        await trio.sleep(1)
        assert await job.cancel("enough")
        assert await job.wait() == Cancelled("enough")
        assert job.record.error is not None
        assert job.record.error.message == "untidy"


class SlowToAnswer(RemoteStore):
    """A client for which the answers to its claims take their time."""

    async def claim(self, *args: Any, **options: Any) -> Any:
        """Start jobs, and learn of it later than of anything else."""
        claims = await super().claim(*args, **options)
        await trio.sleep(5)
        return claims


class Forgetful(SlowToAnswer):
    """One that does not say which job is to be cancelled."""

    def signalled(self, signal: str, *args: str | None) -> None:
        """Pass on a signal without the job."""
        super().signalled(signal, *(None if signal == "cancel_requested" else each for each in args))


@pytest.mark.parametrize("kind", [SlowToAnswer, Forgetful])
async def test_while_the_claim_is_under_way(autojump_clock: MockClock, here: Here, kind: type[RemoteStore]) -> None:
    """A request that is heard of before the claim that started its job is not forgotten till the next renewal."""
    async with here.open() as registry, here.open_worker(kind(here.server)) as there:
        job = await registry.submit("work")
        await trio.sleep(1)
        assert (await registry.get(job.id)).state is JobState.RUNNING
        assert await job.cancel("enough")
        assert await job.wait() == Cancelled("enough")
        assert here.seconds("started", "gone") < 0.1
        await trio.sleep(10)
        assert not there._core._dispatcher.asked_early  # such notes don't pile up


async def test_with_grace_while_the_claim_is_under_way(autojump_clock: MockClock, here: Here) -> None:
    """A request with a grace that was accepted before its job's start is known has it never begun."""
    async with here.open() as registry, here.open_worker(SlowToAnswer(here.server)) as there:
        job = await registry.submit("work")
        await trio.sleep(1)
        assert await job.cancel("enough", grace=20)
        known = await there.get(job.id)
        assert known.record.cancel_reason == "enough"
        assert await job.wait() == Cancelled("enough")
        assert here.log == []


async def test_grace(autojump_clock: MockClock, here: Here) -> None:
    """With grace, `stopping` is set there first and the cancellation comes that much later."""
    async with here.open() as registry, here.open_worker() as there:
        job = await registry.submit("work", "graceful")
        await trio.sleep(1)
        known = await there.get(job.id)
        here.note("asked")
        assert await job.cancel("enough", grace=20)
        await trio.sleep(1)
        assert known.record.cancel_reason == "enough"
        assert await job.wait() == Cancelled("enough")
        assert here.seconds("asked", "stopping") < 0.1
        assert 20 <= here.seconds("stopping", "gone") < 20.1


@pytest.mark.parametrize("second", [0, 2, 19.5, 100])
async def test_second_request(autojump_clock: MockClock, here: Here, second: float) -> None:
    """A second request from elsewhere may shorten the grace, not lengthen it; the first reason stays."""
    async with here.open() as registry, here.open_worker():
        job = await registry.submit("work", "graceful")
        await trio.sleep(1)
        assert await job.cancel("first", grace=20)
        await trio.sleep(1)
        here.note("asked again")
        assert await registry.cancel(job.id, "second", grace=second)
        assert await job.wait() == Cancelled("first")
        left = min(second, 19)
        assert left - 0.1 <= here.seconds("asked again", "gone") <= left + 0.1


@pytest.mark.parametrize("when", ["queued", "scheduled", "retrying", "held"])
async def test_not_running(autojump_clock: MockClock, here: Here, when: str) -> None:
    """A job that does not run ends at once, everywhere, and never runs again."""
    async with here.open() as registry, here.open() as other:
        if when == "held":
            job = await registry.create_job()
        else:
            job = await registry.submit("work", "fail", delay=50 if when == "scheduled" else None)
        watched = await other.get(job.id)
        if when == "retrying":
            async with here.open_worker():
                await trio.sleep(1)
        assert (await registry.get(job.id)).state.lower() in (when, "queued")
        assert await registry.cancel(job.id, "enough")
        assert job.state == JobState.CANCELLED
        assert await job.wait() == await watched.wait() == Cancelled("enough")
        stream = await read(watched)
        assert stream == await read(job) == await here.store.read_messages(job.id, 0, 100)
        kinds = [Token, Restart, End] if when == "retrying" else [End]
        assert [type(message) for message in stream] == kinds
        runs = len(here.log)
        async with here.open_worker():
            await trio.sleep(200)
        assert len(here.log) == runs


async def test_removed_at_once(autojump_clock: MockClock, here: Here) -> None:
    """Whoever reads a job here gets its end also where it is cancelled and removed in one go."""
    streams: list[Any] = []

    async def watch(job: jobtrio.Job) -> None:
        streams.append(await read(job))

    async with here.open() as registry, trio.open_nursery() as nursery:
        job = await registry.submit("work")
        nursery.start_soon(watch, job)
        await trio.sleep(1)
        await job.cancel("enough")
        await registry.remove(job.id)
    assert streams == [[End(1, Cancelled("enough"))]]


async def test_worker_is_dead(autojump_clock: MockClock, here: Here) -> None:
    """A cancel acknowledged while the worker is dead ends the job when its lease is over, without another run."""
    dead = RemoteStore(here.server)
    async with here.open() as registry, here.open_worker(dead):
        job = await registry.submit("work")
        await trio.sleep(1)
        dead.network.away = True
        assert await job.cancel("enough")
        with trio.fail_after(LEASE + 10):
            assert await job.wait() == Cancelled("enough")
        assert [what for what, _ in here.log].count("started") == 1
        dead.network.away = False


async def test_acknowledged_wins(autojump_clock: MockClock, here: Here) -> None:
    """A cancel that is acknowledged before the ending is written wins over it."""
    quick = Executors()
    worker = RemoteStore(here.server)

    @quick.register("work")
    async def work(job: JobContext) -> str:
        await trio.sleep(1)
        worker.network.latency = 5  # the ending is long under way
        return "done"

    async with here.open() as registry, jobtrio.open_registry(quick, store=worker, lease=LEASE):
        job = await registry.submit("work")
        await trio.sleep(3)
        assert await job.cancel("enough")
        assert await job.wait() == Cancelled("enough")


async def test_behind_the_limit_of_an_attempt_that_has_asked_for_another(autojump_clock: MockClock, here: Here) -> None:
    """While it is being stored that another attempt follows, the job may be cancelled, also behind its time limit."""
    later = Executors()
    worker = RemoteStore(here.server)

    @later.register("work", time_limit=5)
    async def work(job: JobContext) -> str:
        if job.attempt == 1:
            worker.network.away = True
            raise jobtrio.RetryLater(20)
        return "ran again"

    async with jobtrio.open_registry(later, store=worker, lease=LEASE) as there:
        job = await there.submit("work")
        await trio.sleep(7)
        worker.network.away = False
        assert await job.cancel("enough")
        assert await job.wait() == Cancelled("enough")


async def test_while_a_claim_is_under_way(autojump_clock: MockClock, here: Here) -> None:
    """A cancel that comes between a claim and its reply, from this process or another, is heeded."""
    for is_local in (True, False):
        worker = RemoteStore(here.server)
        worker.network.slow["claim"] = 5
        worker.network.deaf = True
        async with here.open() as registry, here.open_worker(worker) as there:
            job = await registry.submit("work")
            known = await there.get(job.id)
            await trio.sleep(2)
            assert (await registry.get(job.id)).state == JobState.RUNNING
            assert await (known if is_local else job).cancel("enough")
            assert there.stats().running == 0
            with trio.fail_after(5 + LEASE / 3):
                assert await job.wait() == Cancelled("enough")
        assert not here.log or not is_local


async def test_an_old_answer_changes_nothing(autojump_clock: MockClock, here: Here) -> None:
    """An answer that is overtaken by the job's ending does not bring the job back to life."""
    quick = Executors()

    @quick.register("work")
    async def work(job: JobContext) -> str:
        await trio.sleep(1)
        return "done"

    store = RemoteStore(here.server)
    async with jobtrio.open_registry(quick, store=store) as registry, trio.open_nursery() as nursery:
        job = await registry.submit("work")
        await trio.sleep(0.5)
        store.network.slow["load"] = 5
        nursery.start_soon(registry.get, job.id)
        assert await job.wait() == Completed("done")
        await trio.sleep(10)
        assert job.outcome == Completed("done")
        assert job.state == JobState.COMPLETED
