"""A job that another worker goes on with: after a retry, a shutdown, or a lost lease, its stream stays one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        self.sent: list[Any] = []
        self.ends = "return"

    async def work(self, job: JobContext) -> str:
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
    assert [message.seq for message in messages if not isinstance(message, jobtrio.Gap)] == [
        *range(1, len(messages) + 1)
    ]
    return [
        message.value
        if isinstance(message, Token)
        else f"restart {message.error.kind}"
        if isinstance(message, Restart)
        else message.outcome
        if isinstance(message, End)
        else message
        for message in messages
    ]


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


async def test_subscribed_during_a_run_that_is_lost(autojump_clock: MockClock) -> None:
    """Who subscribed while the job ran here sees it through when it goes on elsewhere."""
    server = Server()
    a, b = Worker(server, "a"), Worker(server, "b")
    a.ends = "raise"
    async with a.open(max_running=1) as first:
        job = await first.submit("work", retry=RetryPolicy(initial=1, jitter=0))
        await trio.sleep(0.15)
        assert job.state == JobState.RUNNING
        with job.subscribe() as messages:
            b_open = b.open()
            async with b_open:
                # the second attempt is b's, since a is busy
                a.ends = "raise"
                blocker = await first.submit("work", priority=jobtrio.JobPriority.CRITICAL)
                with trio.fail_after(60):
                    seen = [message async for message in messages]
            assert blocker.id
    shown(seen)
