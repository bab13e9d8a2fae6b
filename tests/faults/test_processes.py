"""Several processes on one store share the work, hear of each other's tokens and requests, and are fenced."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from sqlite_invariants import stop_between_writes
from store_urls import STORES, check_store, new_url
from store_worker import open_worker
from worker_process import journal_of, make_executors, read_journal

import jobtrio
from jobtrio import Cancelled, Completed, End, Executors, Failed, JobContext, JobState, Restart, Token
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from worker_process import WorkerProcess

    from jobtrio.abc import JobStore

pytestmark = pytest.mark.once


@attrs.frozen
class Place:
    """A store, and where the workers write what they have begun and ended.

    Attributes:
        kind: Its kind.
        url: Its URL.
        path: What the journal is called after; the file where it is SQLite's.
    """

    kind: str
    url: str
    path: Path

    @property
    def lease(self) -> float:
        """How long a claim lasts at most whose worker was killed: SQLite's are seen to be dead."""
        return 60.0 if self.kind == "sqlite" else 1.0

    def store(self) -> JobStore:
        """Return the store, not opened yet."""
        return parse_store_url(self.url).make_store()

    def worker(self, **options: Any) -> AbstractAsyncContextManager[WorkerProcess]:
        """Start a worker."""
        return open_worker(self.url, self.path, **options)

    async def stop(self, worker: WorkerProcess) -> None:
        """Let a worker stand still."""
        if self.kind == "sqlite":
            await trio.to_thread.run_sync(stop_between_writes, worker.process.send_signal, self.path)
        else:
            worker.process.send_signal(signal.SIGSTOP)

    def journal(self) -> list[tuple[str, str, int, int]]:
        """Return what, which job, which attempt, by which process."""
        return read_journal(self.path)


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A store of each kind."""
    return Place(request.param, new_url(request.param, request), tmp_path / "jobs.db")


@pytest.fixture
async def registry(place: Place, request: pytest.FixtureRequest) -> AsyncIterator[jobtrio.JobRegistry]:
    """Submits and watches, and runs nothing. What is stored in the end is sound."""
    executors = make_executors(str(journal_of(place.path)))
    async with jobtrio.open_registry(executors, store=place.store(), queues={}) as registry:
        yield registry
    check_store(place.url, request)


async def test_no_attempt_runs_twice(place: Place, registry: jobtrio.JobRegistry) -> None:
    """Jobs are shared among all processes, and each runs once."""
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(place.worker(max_running=5))
        jobs = await registry.submit_many(jobtrio.JobSpec("send", {"tokens": 2, "pause": 0.002}) for _ in range(300))
        with trio.fail_after(60):
            assert [await job.wait() for job in jobs] == [Completed(2)] * len(jobs)
    begun = [(job_id, pid) for what, job_id, _, pid in place.journal() if what == "begun"]
    assert sorted(job_id for job_id, _ in begun) == sorted(job.id for job in jobs)
    assert len(Counter(pid for _, pid in begun)) == 3


async def test_tokens_are_heard_elsewhere(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A consumer in another process receives what a job sends while it runs, in order, up to its end."""
    async with place.worker():
        job = await registry.submit("send", {"tokens": 300, "pause": 0.001})
        with trio.fail_after(60), job.subscribe() as messages:
            first = await messages.receive()
            assert isinstance(first, Token)
            assert (await registry.get(job.id)).state is JobState.RUNNING  # it came before the end
            rest = [message async for message in messages]
    assert [message.seq for message in rest if not isinstance(message, jobtrio.Gap)] == [*range(2, 302)]


async def test_cancelled_from_another_process(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A request is heard at once: the lease, whose renewal would bring it as well, is far from being renewed."""
    async with place.worker(lease=600.0):
        job = await registry.submit("hang")
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            assert await registry.cancel(job.id, "enough")
            assert await job.wait() == Cancelled("enough")


async def test_work_is_heard_of_elsewhere(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A worker that has nothing to do starts a job as it comes, long before it would look by itself."""
    async with place.worker():
        await trio.sleep(0.3)
        for delay in (None, 0.2):
            waited = []
            for _ in range(3):
                job = await registry.submit("send", {"tokens": 0}, delay=delay)
                started = trio.current_time()
                with trio.fail_after(60):
                    await job.wait()
                waited.append(trio.current_time() - started)
            assert min(waited) < 4.0  # it looks every 5 s, behind each job; a busy machine may hold one of them up


async def test_a_queue_is_paused_everywhere(place: Place, registry: jobtrio.JobRegistry) -> None:
    """No worker starts what waits in a paused queue, one that is started later neither; `resume` wakes all of them."""
    async with place.worker():
        running = await registry.submit("send", {"tokens": 20, "pause": 0.01})
        with running.subscribe() as messages, trio.fail_after(60):
            await messages.receive()
        await registry.pause("default")
        jobs = [await registry.submit("send", {"tokens": 0}) for _ in range(10)]
        assert await running.wait() == Completed(20)
        async with place.worker():
            other = await registry.submit("send", {"tokens": 0}, queue="other")
            with trio.fail_after(60):
                await other.wait()
            assert {(await registry.get(job.id)).state for job in jobs} == {JobState.QUEUED}
            waited = []
            for _ in range(3):
                await registry.pause("default")
                jobs.append(await registry.submit("send", {"tokens": 0}))
                await trio.sleep(0.3)  # all that has been heard of is over
                started = trio.current_time()
                await registry.resume("default")
                with trio.fail_after(60):
                    assert await jobs[-1].wait() == Completed(0)
                waited.append(trio.current_time() - started)
            assert min(waited) < 4.0  # they look every 5 s, behind each job; a busy machine may hold one of them up
        with trio.fail_after(60):
            assert {await job.wait() for job in jobs} == {Completed(0)}


async def test_pausing_amid_claims(place: Place, registry: jobtrio.JobRegistry) -> None:
    """However busy the workers are, what no claim under way has begun when `pause` returns waits for `resume`."""
    async with place.worker(max_running=3), place.worker(max_running=3):
        jobs = await registry.submit_many(jobtrio.JobSpec("send", {"tokens": 0}) for _ in range(300))
        with trio.fail_after(60):
            for n in (20, 100, 180):
                await jobs[n].wait()
                await registry.pause("default")
                late = await registry.submit("send", {"tokens": 0}, priority=jobtrio.JobPriority.HIGH)
                await trio.sleep(0.3)
                assert (await registry.get(late.id)).state is JobState.QUEUED
                await registry.resume("default")
                assert await late.wait() == Completed(0)
            assert {await job.wait() for job in jobs} == {Completed(0)}


async def test_priorities_amid_claims(place: Place, registry: jobtrio.JobRegistry) -> None:
    """However busy the workers are, a job whose priority is changed runs once, with the priority that was answered."""
    async with place.worker(max_running=3), place.worker(max_running=3):
        jobs = await registry.submit_many(jobtrio.JobSpec("send", {"tokens": 0}) for _ in range(300))
        expected = {job.id: jobtrio.JobPriority.NORMAL for job in jobs}
        with trio.fail_after(60):
            await jobs[20].wait()
            for n, job in enumerate(reversed(jobs)):
                priority = jobtrio.JobPriority(2 + n % 2)
                if await registry.set_priority(job.id, priority):
                    expected[job.id] = priority
            assert {await job.wait() for job in jobs} == {Completed(0)}
        records = [(await registry.get(job.id)).record for job in jobs]
        assert {record.id: record.priority for record in records} == expected
        assert {record.attempt for record in records} == {1}
        assert jobtrio.JobPriority.CRITICAL in expected.values()


async def test_a_worker_that_waits_for_room(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A worker whose place becomes free takes the job that another process has moved to the front meanwhile."""
    async with place.worker(max_running=1):
        running = await registry.submit("send", {"tokens": 20, "pause": 0.05})
        with running.subscribe() as messages, trio.fail_after(60):
            await messages.receive()
        jobs = await registry.submit_many(jobtrio.JobSpec("send", {"tokens": 0}) for _ in range(3))
        assert await jobs[2].set_priority(jobtrio.JobPriority.HIGH)
        assert await jobs[0].set_priority(jobtrio.JobPriority.LOW)
        with trio.fail_after(60):
            assert {await job.wait() for job in jobs} == {Completed(0)}
        began = [(await registry.get(jobs[n].id)).record.started_at for n in (2, 1, 0)]
        assert began == sorted(at for at in began if at is not None)


async def test_a_worker_that_stood_still(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A process that is stopped past its lease has lost its job to another, and writes nothing when it goes on."""
    async with place.worker(lease=1.0) as first:
        job = await registry.submit("send", {"tokens": 100, "pause": 0.02})
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            await place.stop(first)
            async with place.worker(lease=600.0) as second:
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
    journal = [(what, attempt) for what, _, attempt, _ in place.journal()]
    assert journal == [("begun", 1), ("begun", 2), ("ended", 2)]


async def test_a_worker_without_the_executor(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A process that does not have a job's executor leaves the job to one that has, and runs what it has itself."""
    others = Executors()

    @others.register("other")
    async def other(job: JobContext) -> int:
        return os.getpid()

    async with jobtrio.open_registry(others, store=place.store()) as elsewhere:
        job = await registry.submit("send", {"tokens": 1})
        with pytest.raises(jobtrio.UnknownExecutorError):
            await registry.submit("other")
        assert await (await elsewhere.submit("other")).result() == os.getpid()
        assert (await elsewhere.get(job.id)).state is JobState.QUEUED
        async with place.worker():
            with trio.fail_after(60):
                assert await job.wait() == Completed(1)


async def test_killed_while_it_is_watched(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A consumer in another process sees the stream go on with a `Restart`, soon, and no number twice."""
    job = await registry.submit("send", {"tokens": 40, "pause": 0.01})
    seen: list[jobtrio.Message] = []
    with job.subscribe() as messages, trio.fail_after(60):
        async with place.worker(lease=place.lease) as worker:
            while len(seen) < 10:
                seen.append(await messages.receive())
            await worker.kill()
        async with place.worker(lease=60.0):
            seen += [message async for message in messages]
    assert [message.seq for message in seen if not isinstance(message, jobtrio.Gap)] == [*range(1, len(seen) + 1)]
    restarts = [message for message in seen if isinstance(message, Restart)]
    # A busy machine may lose the lease of a further attempt as well.
    assert [(each.error.kind, each.attempt) for each in restarts] == [("lost", n + 1) for n in range(len(restarts))]
    assert restarts
    assert [m.value[1] for m in seen[restarts[-1].seq :] if isinstance(m, Token)] == [*range(40)]
    assert seen[-1] == End(len(seen), Completed(40))
    assert (await registry.get(job.id)).record.attempt == 1 + len(restarts)


async def test_three_losses_end_it(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A job that kills its worker three times fails as lost, and runs no fourth time."""
    job = await registry.submit("die", retry=jobtrio.RetryPolicy(max_attempts=100))
    with trio.fail_after(60):
        for _ in range(3):
            async with place.worker(lease=place.lease) as worker:
                await worker.process.wait()
        outcome = await job.wait()
    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, job.record.attempt) == ("lost", 3)
    assert len(place.journal()) == 3


async def test_leaving_by_a_cancellation(place: Place) -> None:
    """A program that is cancelled still gives its jobs back: the store is there until they are."""
    executors = Executors()
    started = trio.Event()

    @executors.register("hang")
    async def hang(job: JobContext) -> None:
        started.set()
        await trio.sleep_forever()

    async def serve(task_status: trio.TaskStatus[str]) -> None:
        async with jobtrio.open_registry(executors, store=place.store(), lease=600.0) as registry:
            task_status.started((await registry.submit("hang")).id)
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        job_id = await nursery.start(serve)
        await started.wait()
        nursery.cancel_scope.cancel()
    async with jobtrio.open_registry(executors, store=place.store(), queues={}) as registry:
        steps = [(line.state, line.reason) for line in await registry.history(job_id)]
        assert steps[0] == ("QUEUED", None)
        # A claim that was under way may take the job once more; that is given back as well.
        assert len(steps) > 1
        assert steps[1:] == [("RUNNING", None), ("QUEUED", "shutdown")] * (len(steps) // 2)
        await registry.cancel(job_id)


async def test_workers_are_named(place: Place, registry: jobtrio.JobRegistry) -> None:
    """Each process that works is named with what it runs, until it is stopped or has been dead for a lease."""
    async with place.worker(worker="one", lease=600.0) as one, place.worker(worker="two", lease=1.0) as two:
        job = await registry.submit("hang")
        with job.subscribe() as messages, trio.fail_after(60):
            await messages.receive()
        with trio.fail_after(60):
            while [each.name for each in await registry.workers()] != ["one", "two"]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.05)
        assert sum(each.running for each in await registry.workers()) == 1
        await registry.cancel(job.id)
        await job.wait()
        await one.stop()
        assert [each.name for each in await registry.workers()] == ["two"]
        await two.kill()
        with trio.fail_after(60):
            while await registry.workers():  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.05)
