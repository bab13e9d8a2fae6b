"""A job that another worker goes on with: after a retry, a shutdown, or a lost lease, its stream stays one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Completed, End, Executors, Failed, JobContext, JobState, Restart, RetryPolicy, Token

if TYPE_CHECKING:
    from trio.testing import MockClock

LEASE = 10.0


class Worker:
    """One process: a registry with its store and what it was told to do with the jobs it runs."""

    def __init__(self, server: Server, name: str, *, latency: float = 0.01) -> None:
        self.name = name
        self.store = RemoteStore(server, latency=latency)
        self.executors = Executors()
        self.executors.register("work", retry=RetryPolicy(initial=1, jitter=0))(self.work)
        self.runs: dict[int, int] = {}  # by attempt
        self.ends = "return"

    async def work(self, job: JobContext) -> str:
        """Send three tokens, and end as told."""
        self.runs[job.attempt] = self.runs.get(job.attempt, 0) + 1
        for number in range(3):
            await job.send(f"{self.name}{job.attempt}.{number}")
            await trio.sleep(0.1)
        if self.ends == "raise":
            raise ValueError(self.name)
        if self.ends == "hang":
            await trio.sleep_forever()
        return self.name

    def open(self, **options: Any) -> Any:
        """Open the worker's registry."""
        return jobtrio.open_registry(self.executors, store=self.store, worker=self.name, lease=LEASE, **options)


def shown(messages: list[jobtrio.Message]) -> list[Any]:
    """Return a stream in short, having checked that its numbers are dense."""
    short: list[Any] = []
    for number, message in enumerate(messages, 1):
        assert not isinstance(message, jobtrio.Gap)
        assert message.seq == number
        match message:
            case Token(value=value):
                short.append(value)
            case Restart(error=error):
                short.append(f"restart {error.kind}")
            case End(outcome=outcome):
                short.append(outcome)
    return short


async def read(job: jobtrio.Job) -> list[jobtrio.Message]:
    with job.subscribe() as messages:
        return [message async for message in messages]


async def test_retried_elsewhere(autojump_clock: MockClock) -> None:
    """The second attempt runs in another process and goes on behind the first one's numbers."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = "raise"
    async with a.open() as first:
        job = await first.submit("work")
        with job.subscribe() as messages:
            for _ in range(4):
                await messages.receive()
            async with trio.open_nursery() as nursery:
                async with b.open() as second:
                    nursery.start_soon(first.shutdown)
                    there = await read(await second.get(job.id))
    assert shown(there) == ["a1.0", "a1.1", "a1.2", "restart exception", "b2.0", "b2.1", "b2.2", Completed("b")]


async def test_shutdown_hands_over(autojump_clock: MockClock) -> None:
    """A shutdown returns the running job to the queue, and another worker goes on with a `Restart`."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = "hang"
    async with b.open(queues={}) as watcher:
        async with a.open() as first:
            job = await watcher.submit("work")
            await trio.sleep(2)
            assert (await first.get(job.id)).state == JobState.RUNNING
            await first.shutdown()
        assert (await watcher.get(job.id)).state == JobState.QUEUED
        c = Worker(server, "c")
        async with c.open():
            seen = await read(job)
            assert shown(seen) == ["a1.0", "a1.1", "a1.2", "restart lost", "c2.0", "c2.1", "c2.2", Completed("c")]
            assert await b.store.read_messages(job.id, 0, 100) == seen


@pytest.mark.parametrize("how", ["shutdown", "lost"])
async def test_what_was_raised_behind_a_stop_is_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """What an attempt raises that is given back, or was lost, is no outcome of its job, but told by the log."""
    executors = Executors()

    @executors.register("work")
    async def work(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError(how)

    caplog.set_level(logging.INFO, "jobtrio")
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, lease=9) as registry:
        await registry.submit("work")
        await trio.sleep(1)
        if how == "lost":
            store.network.away = True
            await trio.sleep(9)
            store.network.away = False
        await registry.shutdown()
    told = [record.exc_info for record in caplog.records if "raised as it was stopped" in record.message]
    assert [str(raised[1]) for raised in told if raised] == [how]


async def test_lost_lease_hands_over(autojump_clock: MockClock) -> None:
    """A worker that is cut off loses its job to another, whose attempt goes on behind what was stored."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = "hang"
    async with a.open() as first:
        job = await first.submit("work")
        await trio.sleep(2)
        a.store.network.away = True
        async with b.open() as second:
            there = await second.get(job.id)
            seen = await read(there)
            assert shown(seen) == ["a1.0", "a1.1", "a1.2", "restart lost", "b2.0", "b2.1", "b2.2", Completed("b")]
        assert first.stats().running == 0
        a.store.network.away = False
        with trio.fail_after(60):
            assert await job.wait() == Completed("b")
            assert await read(job) == seen


async def test_back_where_it_was(autojump_clock: MockClock) -> None:
    """A job that comes back to a worker after it ran elsewhere is numbered on from what the other one sent."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = b.ends = "hang"
    async with a.open() as first:
        job = await first.submit("work")
        await trio.sleep(1)
        a.store.network.away = True
        async with b.open() as second:
            there = await second.get(job.id)
            with there.subscribe() as messages:
                while not (isinstance(m := await messages.receive(), Token) and m.value == "b2.2"):
                    pass
            a.store.network.away = False
            a.ends = "return"
            await second.shutdown()
        with trio.fail_after(60):
            assert await job.wait() == Completed("a")
        stored = await a.store.read_messages(job.id, 0, 100)
        assert stored is not None
        assert shown(stored) == [
            *("a1.0", "a1.1", "a1.2", "restart lost"),
            *("b2.0", "b2.1", "b2.2", "restart lost"),
            *("a3.0", "a3.1", "a3.2", Completed("a")),
        ]
        assert await read(job) == stored


async def test_losses_are_no_failures(autojump_clock: MockClock) -> None:
    """An attempt that was given back does not count against the retry policy."""
    server = Server()
    a = Worker(server, "a")
    a.ends = "hang"
    policy = RetryPolicy(max_attempts=2, initial=1, jitter=0)
    for _ in range(2):
        async with a.open() as registry:
            job = await registry.submit("work", job_id="job", key="k", retry=policy)
            await trio.sleep(1)
            await registry.shutdown()
    a.ends = "raise"
    async with a.open() as registry:
        job = await registry.get("job")
        assert isinstance(await job.wait(), Failed)
        kinds = [line.state for line in await registry.history("job") if line.state != "QUEUED"]
        assert kinds == ["RUNNING", "RUNNING", "RUNNING", "RETRYING", "RUNNING", "FAILED"]


async def test_subscribed_during_the_run(autojump_clock: MockClock) -> None:
    """Who subscribed while the job ran here sees it through when it goes on elsewhere."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = "raise"
    async with a.open(max_running=1) as first:
        job = await first.submit("work")
        await trio.sleep(0.15)
        assert job.state == JobState.RUNNING
        with job.subscribe() as messages:
            await trio.sleep(1)
            a.ends = "hang"
            blocker = await first.submit("work", priority=jobtrio.JobPriority.CRITICAL)
            async with b.open():
                with trio.fail_after(60):
                    seen = [message async for message in messages]
        assert shown(seen)[-2:] == ["b2.2", Completed("b")]
        await blocker.cancel()


async def test_lost_with_messages_unsaved(autojump_clock: MockClock) -> None:
    """Who was shown messages of a lost run that were never stored gets an error; who asks anew gets the true stream."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = "hang"
    a.executors.register("slow")(self_willed := Slow("a"))
    b.executors.register("slow")(Slow("b"))
    async with a.open() as first:
        job = await first.submit("slow")
        with job.subscribe() as messages:
            await messages.receive()
            await trio.sleep(0.5)
            a.store.network.away = True
            self_willed.go.set()
            seen = [await messages.receive() for _ in range(3)]
            assert [m.value for m in seen if isinstance(m, Token)] == ["a unsaved 0", "a unsaved 1", "a unsaved 2"]
            async with b.open() as second:
                there = await second.get(job.id)
                stream = await read(there)
                assert shown(stream) == ["a first", "restart lost", "b first", Completed("b")]
            with pytest.raises(trio.BrokenResourceError, match="lost the job"):
                await messages.receive()
        a.store.network.away = False
        with trio.fail_after(60):
            assert await job.wait() == Completed("b")
            assert await read(job) == stream


class Slow:
    """An executor that sends one message, and in its first attempt three more when it is told to, and hangs."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.go = trio.Event()

    async def __call__(self, job: JobContext) -> str:
        await job.send(f"{self.name} first")
        if job.attempt == 1:
            await self.go.wait()
            for number in range(3):
                await job.send(f"{self.name} unsaved {number}")
            await trio.sleep_forever()
        return self.name


async def test_an_ending_that_comes_too_late(autojump_clock: MockClock) -> None:
    """A run that returns while its lease lapses unnoticed is no ending, and nothing of it is in the stream."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    async with a.open() as first:
        a.store.network.slow["claim"] = 2 * LEASE  # it runs when its lease is over already
        job = await first.submit("work")
        with job.subscribe() as messages:
            await trio.sleep(LEASE + 1)
            async with b.open() as second:
                stream = await read(await second.get(job.id))
                assert shown(stream) == ["restart lost", "b2.0", "b2.1", "b2.2", Completed("b")]
                a.store.network.slow.clear()
                await trio.sleep(2 * LEASE)
            with trio.fail_after(LEASE):
                try:
                    seen = [message async for message in messages]
                except trio.BrokenResourceError:
                    seen = await read(job)
        assert seen == stream
        assert await job.wait() == Completed("b")
        assert a.runs in ({}, {1: 1})


async def test_the_same_worker_again(autojump_clock: MockClock) -> None:
    """A worker that claims its own lost job again runs it once the lost run is gone, and the registry lives on."""
    server = Server()
    store = RemoteStore(server)
    executors = Executors()
    inside: list[int] = []

    @executors.register("work")
    async def work(job: JobContext) -> int:
        assert not inside, "two attempts at once"
        inside.append(job.attempt)
        try:
            await job.send(job.attempt)
            if job.attempt == 1:
                store.network.failing = {"renew"}
                await trio.sleep_forever()
            return job.attempt
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.9 * LEASE)
            inside.clear()

    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await trio.sleep(1)
        with trio.fail_after(20 * LEASE):
            await trio.sleep(LEASE)
            store.network.failing = set()
            assert isinstance(await job.wait(), Completed)
        assert shown(await read(job))[:3] == [1, "restart lost", 2]
        assert registry.stats().running == 0


async def test_lost_replies_to_claims(autojump_clock: MockClock) -> None:
    """Replies to claims that are lost again and again cost no attempt and no lease."""
    server = Server()
    a = Worker(server, "a")
    async with a.open() as registry:
        await trio.sleep(1)
        job = await registry.submit("work", delay=1)
        await trio.sleep(0.5)
        a.store.network.lose_every_other("claim")
        with trio.fail_after(LEASE / 2):
            assert await job.wait() == Completed("a")
        assert [line.state for line in await registry.history(job.id)] == [
            "SCHEDULED",
            "QUEUED",
            "RUNNING",
            "COMPLETED",
        ]


async def test_cancelled_by_a_watcher_that_is_behind(autojump_clock: MockClock) -> None:
    """A watcher that cancels a job before it has seen all of its messages still sees all of them, rightly numbered."""
    server = Server()
    a, watcher = Worker(server, "a"), Worker(server, "watcher")
    a.ends = "raise"
    async with watcher.open(queues={}) as here:
        job = await here.submit("work", retry=RetryPolicy(initial=1000, jitter=0))
        watcher.store.network.slow["read_messages"] = 5
        with job.subscribe() as messages:
            async with a.open():
                await trio.sleep(2)
            assert await job.cancel("enough")
            seen = [message async for message in messages]
        assert shown(seen) == ["a1.0", "a1.1", "a1.2", "restart exception", jobtrio.Cancelled("enough")]


async def test_cancelled_while_it_catches_up(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is cancelled before its new worker has copied the stream ends there behind all of its messages."""
    monkeypatch.setattr("jobtrio._tail.PIECE", 2)
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = "raise"
    b.store.network.slow["read_messages"] = 1
    async with a.open() as first:
        with first.subscribe_events() as changes:
            job = await first.submit("work")
            while (await changes.receive()).state != JobState.RETRYING:
                pass
        await first.shutdown()
    async with b.open() as second:
        there = await second.get(job.id)
        with second.subscribe_events() as changes:
            while (await changes.receive()).state != JobState.RUNNING:
                pass
        await trio.sleep(0.5)
        assert await there.cancel("enough")
        seen = await read(there)
        assert shown(seen) == ["a1.0", "a1.1", "a1.2", "restart exception", jobtrio.Cancelled("enough")]
        assert not b.runs


async def test_expired_under_a_watcher(autojump_clock: MockClock) -> None:
    """Every process that knows a job sees it expire, whichever of them noticed the time."""
    server = Server()
    one, two = Worker(server, "one"), Worker(server, "two")
    async with one.open(queues={}) as first, two.open(queues={}) as second:
        job = await first.submit("work", expires_in=5)
        there = await second.get(job.id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.wait)
            outcome = await job.wait()
        assert isinstance(outcome, Failed)
        assert outcome.error.kind == "expired"
        assert there.outcome == outcome
        assert there.state == job.state == JobState.FAILED


@pytest.mark.parametrize("how", ["leaving", "shutdown"])
async def test_leaving_while_claiming(autojump_clock: MockClock, how: str) -> None:
    """What was claimed by a call whose reply was under way when its worker left goes back to the queue at once."""
    server = Server()
    a, b, watcher = Worker(server, "a"), Worker(server, "b"), Worker(server, "watcher")
    async with watcher.open(queues={}) as here:
        async with a.open() as first:
            await trio.sleep(1)
            a.store.network.slow["claim"] = 1
            job = await here.submit("work")
            await trio.sleep(0.5)
            assert (await here.get(job.id)).state == JobState.RUNNING
            if how == "shutdown":
                await first.shutdown()
                assert (await here.get(job.id)).state == JobState.QUEUED
        assert (await here.get(job.id)).state == JobState.QUEUED
        assert not a.runs
        async with b.open():
            assert await job.wait() == Completed("b")
