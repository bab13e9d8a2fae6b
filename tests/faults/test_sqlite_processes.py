"""Several processes on one SQLite file share the work, hear of each other's tokens and requests, and are fenced."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from sqlite_invariants import check_file, stop_between_writes
from sqlite_worker import open_worker
from worker_process import journal_of, make_executors, read_journal

import jobtrio
from jobtrio import Cancelled, Completed, Executors, JobContext, JobState, Restart, Token
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[jobtrio.JobRegistry]:
    """Submits and watches, and runs nothing."""
    path = tmp_path / "jobs.db"
    executors = make_executors(str(journal_of(path)))
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        yield registry


@pytest.mark.parametrize("count", [2, 4])
async def test_no_attempt_runs_twice(tmp_path: Path, registry: jobtrio.JobRegistry, count: int) -> None:
    """Jobs are shared among all processes, and each runs once."""
    path = tmp_path / "jobs.db"
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(open_worker(path, max_running=5))
        specs = [jobtrio.JobSpec("send", {"tokens": 2, "pause": 0.002}) for _ in range(100 * count)]
        jobs = await registry.submit_many(specs)
        with trio.fail_after(60):
            assert [await job.wait() for job in jobs] == [Completed(2)] * len(jobs)
    begun = [(job_id, pid) for what, job_id, _, pid in read_journal(path) if what == "begun"]
    assert sorted(job_id for job_id, _ in begun) == sorted(job.id for job in jobs)
    assert len(Counter(pid for _, pid in begun)) == count
    assert set(check_file(path, [job.id for job in jobs]).values()) == {"COMPLETED"}


async def test_tokens_are_heard_elsewhere(tmp_path: Path, registry: jobtrio.JobRegistry) -> None:
    """A consumer in another process receives what a job sends while it runs, in order, up to its end."""
    async with open_worker(tmp_path / "jobs.db"):
        job = await registry.submit("send", {"tokens": 300, "pause": 0.001})
        with trio.fail_after(60), job.subscribe() as messages:
            first = await messages.receive()
            assert isinstance(first, Token)
            assert (await registry.get(job.id)).state is JobState.RUNNING  # it came before the end
            rest = [message async for message in messages]
    assert [message.seq for message in rest if not isinstance(message, jobtrio.Gap)] == [*range(2, 302)]


async def test_cancelled_from_another_process(tmp_path: Path, registry: jobtrio.JobRegistry) -> None:
    """A request is heard at once: the lease, whose renewal would bring it as well, is far from being renewed."""
    async with open_worker(tmp_path / "jobs.db", lease=600.0):
        job = await registry.submit("hang")
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            assert await registry.cancel(job.id, "enough")
            assert await job.wait() == Cancelled("enough")


async def test_a_worker_that_stood_still(tmp_path: Path, registry: jobtrio.JobRegistry) -> None:
    """A process that is stopped past its lease has lost its job to another, and writes nothing when it goes on."""
    path = tmp_path / "jobs.db"
    async with open_worker(path, lease=1.0) as first:
        job = await registry.submit("send", {"tokens": 100, "pause": 0.02})
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            await trio.to_thread.run_sync(stop_between_writes, first.process.send_signal, path)
            async with open_worker(path, lease=600.0) as second:
                async for message in messages:
                    if isinstance(message, Restart):
                        break
                message = await messages.receive()
                assert isinstance(message, Token)
                assert message.attempt == 2
                first.process.send_signal(signal.SIGCONT)
                rest = [message async for message in messages]
                await first.stop()
                assert second.process.returncode is None
        assert all(message.attempt == 2 for message in rest if isinstance(message, Token))
        assert await job.wait() == Completed(100)
    assert [(what, attempt) for what, _, attempt, _ in read_journal(path)] == [("begun", 1), ("begun", 2), ("ended", 2)]
    check_file(path, [job.id])


async def test_a_worker_without_the_executor(tmp_path: Path, registry: jobtrio.JobRegistry) -> None:
    """A process that does not have a job's executor leaves the job to one that has, and runs what it has itself."""
    path = tmp_path / "jobs.db"
    others = Executors()

    @others.register("other")
    async def other(job: JobContext) -> int:
        return os.getpid()

    async with jobtrio.open_registry(others, store=SqliteJobStore(path)) as elsewhere:
        job = await registry.submit("send", {"tokens": 1})
        with pytest.raises(jobtrio.UnknownExecutorError):
            await registry.submit("other")
        assert await (await elsewhere.submit("other")).result() == os.getpid()
        assert (await elsewhere.get(job.id)).state is JobState.QUEUED
        async with open_worker(path):
            with trio.fail_after(60):
                assert await job.wait() == Completed(1)


async def test_without_doorbells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sockets can't be had, work and tokens are found by looking."""
    path = tmp_path / ("x" * 60) / ("y" * 60) / "jobs.db"
    path.parent.mkdir(parents=True)
    monkeypatch.setattr("jobtrio.stores.sqlite._wakeup.Doorbell._bind", _refuse)
    executors = make_executors(str(journal_of(path)))
    async with (
        jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as submitter,
        jobtrio.open_registry(executors, store=SqliteJobStore(path)),
    ):
        job = await submitter.submit("send", {"tokens": 3})
        with trio.fail_after(60):
            assert await job.wait() == Completed(3)


async def test_a_long_path(tmp_path: Path) -> None:
    """A path that no socket address has room for has doorbells all the same."""
    path = tmp_path / ("x" * 100) / ("y" * 100) / "jobs.db"
    path.parent.mkdir(parents=True)
    executors = make_executors(str(journal_of(path)))
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as submitter:
        async with open_worker(path, lease=600.0) as worker:
            job = await submitter.submit("hang")
            with trio.fail_after(60), job.subscribe() as messages:
                await messages.receive()
                await worker.kill()
        async with open_worker(path, lease=600.0):
            with trio.fail_after(60), job.subscribe() as messages:
                while not isinstance(await messages.receive(), Restart):
                    pass
        await submitter.cancel(job.id)


def _refuse(_: object) -> None:
    raise OSError("no sockets here")
