"""An attempt that is over makes room at once, while its end is still being written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
import sqlite_faults
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Completed, Executors, JobContext, RetryPolicy
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


class Count:
    """An executor that counts how many of its kind run."""

    def __init__(self) -> None:
        self.order: list[Any] = []
        self.now = 0
        self.most = 0
        self.executors = Executors()
        self.executors.register("count")(self._executor)

    async def _executor(self, job: JobContext) -> Any:
        self.order.append(job.payload)
        self.now += 1
        self.most = max(self.most, self.now)
        await trio.sleep(1)
        self.now -= 1
        return job.payload


def slow_ends(latency: float = 0.01) -> RemoteStore:
    """Return a store that takes 5 s to say that it has written an end."""
    store = RemoteStore(Server(), latency=latency)
    store.network.slow["finish"] = 5
    return store


async def test_the_next_begins_while_an_end_is_written(autojump_clock: MockClock) -> None:
    """The next job runs before the one before it is told to have ended, and never two at once where one may."""
    count = Count()
    async with jobtrio.open_registry(count.executors, store=slow_ends(), max_running=1) as registry:
        jobs = await registry.submit_many(jobtrio.JobSpec("count", n) for n in range(2))
        await trio.sleep(4.5)
        assert (count.order, [job.outcome for job in jobs]) == ([0, 1], [None, None])
        assert registry.stats().running == 0
        await registry.drain()
        assert [job.outcome for job in jobs] == [Completed(0), Completed(1)]
    assert count.most == 1


async def test_a_queue_is_not_exceeded(autojump_clock: MockClock) -> None:
    """As many jobs of a queue run as may, ends that are being written not counted."""
    count = Count()
    async with jobtrio.open_registry(count.executors, store=slow_ends(), queues={"gpu": 2}) as registry:
        await registry.submit_many(jobtrio.JobSpec("count", n, queue="gpu") for n in range(6))
        await trio.sleep(2.5)
        assert sorted(count.order) == [0, 1, 2, 3, 4, 5]
        assert registry.stats().running_by_queue == {"gpu": 2}
        await registry.drain()
    assert count.most == 2


@pytest.mark.parametrize("leave", ["drain", "shutdown", "exit"])
async def test_what_is_being_written_is_waited_for(leave: str, autojump_clock: MockClock) -> None:
    """Nothing that waits for the jobs returns before their ends are written, though none of them runs."""
    count = Count()
    async with jobtrio.open_registry(count.executors, store=slow_ends()) as registry:
        job = await registry.submit("count")
        await trio.sleep(2)
        assert (registry.stats().running, job.outcome) == (0, None)
        match leave:
            case "drain":
                await registry.drain()
                assert job.outcome is not None
            case "shutdown":
                await registry.shutdown()
                assert job.outcome is not None
    assert job.outcome is not None


async def test_ends_that_cannot_be_written_hold_up_the_others(autojump_clock: MockClock) -> None:
    """Where ends can't be written, no more jobs are there than twice those that may run; then all come to an end."""
    count = Count()
    store = RemoteStore(Server())
    store.network.failing.add("finish")
    store.network.deaf = True
    async with jobtrio.open_registry(count.executors, store=store, max_running=2) as registry:
        jobs = await registry.submit_many(jobtrio.JobSpec("count", n) for n in range(9))
        await trio.sleep(64)
        assert sorted(count.order) == [0, 1, 2, 3]
        store.network.failing.clear()
        await trio.sleep(1.5)  # until the ends are tried again; the next poll is later
        assert len(count.order) > 4
        await registry.drain()
        assert [job.outcome for job in jobs] == [Completed(n) for n in range(9)]
    assert (sorted(count.order), count.most) == (list(range(9)), 2)


async def test_a_job_that_is_claimed_again_while_its_retry_is_answered(autojump_clock: MockClock) -> None:
    """An attempt that is claimed before the one before it has heard of its retry begins when that is gone."""
    executors, attempts = Executors(), []

    @executors.register("flaky", retry=RetryPolicy(initial=0, jitter=0))
    async def flaky(job: JobContext) -> int:
        attempts.append(job.attempt)
        await job.send(job.attempt)
        if job.attempt < 3:
            raise ValueError
        return job.attempt

    store = RemoteStore(Server())
    store.network.slow["retry"] = 5
    async with jobtrio.open_registry(executors, store=store, max_running=1) as registry:
        job = await registry.submit("flaky")
        with job.subscribe() as messages:
            seen = [type(message).__name__ async for message in messages]
        assert seen == ["Token", "Restart", "Token", "Restart", "Token", "End"]
        assert job.outcome == Completed(3)
        await registry.drain()
        assert registry.stats().running_by_queue == {}
    assert attempts == [1, 2, 3]


async def test_while_no_end_can_be_written(autojump_clock: MockClock) -> None:
    """Twice as many attempts as may run are begun before their ends are written; the others wait for that."""
    count, store = Count(), RemoteStore(Server())
    store.network.failing = {"finish"}
    async with jobtrio.open_registry(count.executors, store=store, max_running=2) as registry:
        await registry.submit_many(jobtrio.JobSpec("count", n) for n in range(10))
        await trio.sleep(10)
        assert len(count.order) == 4
        store.network.failing = set()
        await registry.drain()
        assert len(count.order) == 10
    assert count.most == 2


async def test_an_end_and_the_next_claim_share_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The claim of what follows waits beside the end that makes room for it, so that one commit does for both."""
    faults = sqlite_faults.install(monkeypatch)
    executors, seen = Executors(), list[bool]()
    store = SqliteJobStore(tmp_path / "jobs.db")

    def waiting(what: str) -> bool:
        calls = list(store._opened._writer.calls._open)
        return any(what in call.work.__qualname__ for call in calls)

    def wait_for_both(statement: str) -> None:
        """Hold the writer once an end is waiting, until a claim waits as well."""
        if statement == "BEGIN IMMEDIATE" and waiting("Finishing"):
            faults.slow = None
            give_up_at = time.monotonic() + 60
            while not waiting("claim") and time.monotonic() < give_up_at:
                time.sleep(0.001)  # in the writer's thread
            seen.append(waiting("Finishing") and waiting("claim"))

    @executors.register("work")
    async def work(job: JobContext) -> None:
        if job.payload == 0:
            faults.slow = wait_for_both

    async with jobtrio.open_registry(executors, store=store, max_running=1) as registry:
        await registry.submit_many(jobtrio.JobSpec("work", n) for n in range(2))
        await registry.drain()
    assert seen == [True]
