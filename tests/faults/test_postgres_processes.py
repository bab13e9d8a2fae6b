"""Processes that share a PostgreSQL schema share the work, hear of tokens and requests elsewhere, and are fenced."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from postgres_invariants import check_schema
from postgres_worker import open_worker
from worker_process import make_executors, read_journal

import jobtrio
from jobtrio import Cancelled, Completed, Executors, JobContext, JobState, Restart, Token
from jobtrio.stores.postgres import PostgresJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the workers write what they have begun and ended."""
    return tmp_path / "jobs.journal"


@pytest.fixture
async def registry(postgres: str, journal: Path) -> AsyncIterator[jobtrio.JobRegistry]:
    """Submits and watches, and runs nothing."""
    store = PostgresJobStore(postgres)
    async with jobtrio.open_registry(make_executors(str(journal)), store=store, queues={}) as registry:
        yield registry


@pytest.mark.parametrize("count", [3])
async def test_no_attempt_runs_twice(postgres: str, journal: Path, registry: jobtrio.JobRegistry, count: int) -> None:
    """Jobs are shared among all processes, and each runs once."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            await stack.enter_async_context(open_worker(postgres, journal, max_running=5))
        specs = [jobtrio.JobSpec("send", {"tokens": 2, "pause": 0.002}) for _ in range(100 * count)]
        jobs = await registry.submit_many(specs)
        with trio.fail_after(60):
            assert [await job.wait() for job in jobs] == [Completed(2)] * len(jobs)
    begun = [(job_id, pid) for what, job_id, _, pid in read_journal(journal) if what == "begun"]
    assert sorted(job_id for job_id, _ in begun) == sorted(job.id for job in jobs)
    assert len(Counter(pid for _, pid in begun)) == count
    assert set(check_schema(postgres, [job.id for job in jobs]).values()) == {"COMPLETED"}


async def test_tokens_are_heard_elsewhere(postgres: str, journal: Path, registry: jobtrio.JobRegistry) -> None:
    """A consumer in another process receives what a job sends while it runs, in order, up to its end."""
    async with open_worker(postgres, journal):
        job = await registry.submit("send", {"tokens": 300, "pause": 0.001})
        with trio.fail_after(60), job.subscribe() as messages:
            first = await messages.receive()
            assert isinstance(first, Token)
            assert (await registry.get(job.id)).state is JobState.RUNNING  # it came before the end
            rest = [message async for message in messages]
    assert [message.seq for message in rest if not isinstance(message, jobtrio.Gap)] == [*range(2, 302)]


async def test_cancelled_from_another_process(postgres: str, journal: Path, registry: jobtrio.JobRegistry) -> None:
    """A request is heard at once: the lease, whose renewal would bring it as well, is far from being renewed."""
    async with open_worker(postgres, journal, lease=600.0):
        job = await registry.submit("hang")
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            assert await registry.cancel(job.id, "enough")
            assert await job.wait() == Cancelled("enough")


async def test_work_is_heard_of_elsewhere(postgres: str, journal: Path, registry: jobtrio.JobRegistry) -> None:
    """A worker that has nothing to do starts a job as it comes, long before it would look by itself."""
    async with open_worker(postgres, journal):
        await trio.sleep(0.3)
        for delay in (None, 0.2):
            job = await registry.submit("send", {"tokens": 0}, delay=delay)
            started = trio.current_time()
            with trio.fail_after(60):
                await job.wait()
            assert trio.current_time() - started < 4.0  # it looks every 5 s


async def test_a_worker_that_stood_still(postgres: str, journal: Path, registry: jobtrio.JobRegistry) -> None:
    """A process that is stopped past its lease has lost its job to another, and writes nothing when it goes on."""
    async with open_worker(postgres, journal, lease=1.0) as first:
        job = await registry.submit("send", {"tokens": 100, "pause": 0.02})
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            first.process.send_signal(signal.SIGSTOP)
            async with open_worker(postgres, journal, lease=600.0) as second:
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
    assert [(what, attempt) for what, _, attempt, _ in read_journal(journal)] == [
        ("begun", 1),
        ("begun", 2),
        ("ended", 2),
    ]
    check_schema(postgres, [job.id])


async def test_a_worker_without_the_executor(postgres: str, journal: Path, registry: jobtrio.JobRegistry) -> None:
    """A process that does not have a job's executor leaves the job to one that has, and runs what it has itself."""
    others = Executors()

    @others.register("other")
    async def other(job: JobContext) -> int:
        return os.getpid()

    async with jobtrio.open_registry(others, store=PostgresJobStore(postgres)) as elsewhere:
        job = await registry.submit("send", {"tokens": 1})
        with pytest.raises(jobtrio.UnknownExecutorError):
            await registry.submit("other")
        assert await (await elsewhere.submit("other")).result() == os.getpid()
        assert (await elsewhere.get(job.id)).state is JobState.QUEUED
        async with open_worker(postgres, journal):
            with trio.fail_after(60):
                assert await job.wait() == Completed(1)


async def test_leaving_by_a_cancellation(postgres: str) -> None:
    """A program that is cancelled still gives its jobs back: the store is there until they are."""
    executors = Executors()
    started = trio.Event()

    @executors.register("hang")
    async def hang(job: JobContext) -> None:
        started.set()
        await trio.sleep_forever()

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with jobtrio.open_registry(executors, store=PostgresJobStore(postgres), lease=600.0) as registry:
            task_status.started((await registry.submit("hang")).id)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        job_id = await nursery.start(serve)
        await started.wait()
        nursery.cancel_scope.cancel()
    async with jobtrio.open_registry(executors, store=PostgresJobStore(postgres), queues={}) as registry:
        steps = [(line.state, line.reason) for line in await registry.history(job_id)]
        assert steps[0] == ("QUEUED", None)
        # A claim that was under way may take the job once more; that is given back as well.
        assert len(steps) > 1
        assert steps[1:] == [("RUNNING", None), ("QUEUED", "shutdown")] * (len(steps) // 2)
        await registry.cancel(job_id)
