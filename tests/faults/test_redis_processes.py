"""Several processes on one Redis share the work, hear of each other's tokens and requests, and are fenced."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from redis_invariants import check_jobs
from redis_worker import Place, open_worker
from valkey_server import new_prefix, shared_server
from worker_process import read_journal

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, JobState, Restart, Token
from jobtrio.stores.redis._hints import Hints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A prefix of the test's own."""
    return Place(shared_server().url, new_prefix(), tmp_path / "jobs")


@pytest.fixture
async def registry(place: Place) -> AsyncIterator[jobtrio.JobRegistry]:
    """Submits and watches, and runs nothing."""
    async with jobtrio.open_registry(place.executors(), store=place.store(), queues={}) as registry:
        yield registry
    check_jobs(shared_server(), place.prefix)


async def test_no_attempt_runs_twice(place: Place, registry: jobtrio.JobRegistry) -> None:
    """Jobs are shared among all processes, and each runs once."""
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(open_worker(place, max_running=5))
        specs = [jobtrio.JobSpec("send", {"tokens": 2, "pause": 0.002}) for _ in range(300)]
        jobs = await registry.submit_many(specs)
        with trio.fail_after(60):
            assert [await job.wait() for job in jobs] == [Completed(2)] * len(jobs)
    begun = [(job_id, pid) for what, job_id, _, pid in read_journal(place.path) if what == "begun"]
    assert sorted(job_id for job_id, _ in begun) == sorted(job.id for job in jobs)
    assert len(Counter(pid for _, pid in begun)) == 3


async def test_tokens_are_heard_elsewhere(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A consumer in another process receives what a job sends while it runs, in order, up to its end."""
    async with open_worker(place):
        job = await registry.submit("send", {"tokens": 300, "pause": 0.001})
        with trio.fail_after(60), job.subscribe() as messages:
            first = await messages.receive()
            assert isinstance(first, Token)
            assert (await registry.get(job.id)).state is JobState.RUNNING  # it came before the end
            rest = [message async for message in messages]
    assert [message.seq for message in rest if not isinstance(message, jobtrio.Gap)] == [*range(2, 302)]


async def test_cancelled_from_another_process(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A request is heard at once: the lease, whose renewal would bring it as well, is far from being renewed."""
    async with open_worker(place, lease=600.0):
        job = await registry.submit("hang")
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            assert await registry.cancel(job.id, "enough")
            assert await job.wait() == Cancelled("enough")


async def test_cancelled_before_hints_are_heard(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request made while a worker did not listen yet, or not for a moment, is found when it does."""
    listens, run = trio.Event(), Hints.run

    async def run_late(hints: Hints) -> None:
        await listens.wait()
        await run(hints)

    monkeypatch.setattr(Hints, "run", run_late)
    executors = jobtrio.Executors()
    begun = trio.Event()

    @executors.register("hang")
    async def hang(job: jobtrio.JobContext) -> None:
        begun.set()
        await trio.sleep_forever()

    async with jobtrio.open_registry(executors, store=place.store(), lease=600.0) as worker:
        job = await worker.submit("hang")
        with trio.fail_after(60):
            await begun.wait()
            async with jobtrio.open_registry(executors, store=place.store(), queues={}) as registry:
                assert await registry.cancel(job.id, "enough")
            listens.set()
            assert await job.wait() == Cancelled("enough")


async def test_a_worker_that_stood_still(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A process that is stopped past its lease has lost its job to another, and writes nothing when it goes on."""
    async with open_worker(place, lease=1.0) as first:
        job = await registry.submit("send", {"tokens": 100, "pause": 0.02})
        with trio.fail_after(60), job.subscribe() as messages:
            await messages.receive()
            first.process.send_signal(signal.SIGSTOP)
            async with open_worker(place, lease=600.0) as second:
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
    journal = [(what, attempt) for what, _, attempt, _ in read_journal(place.path)]
    assert journal == [("begun", 1), ("begun", 2), ("ended", 2)]


async def test_killed_while_it_is_watched(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A consumer in another process sees the stream go on with a `Restart`, and no number twice."""
    job = await registry.submit("send", {"tokens": 40, "pause": 0.01})
    seen: list[jobtrio.Message] = []
    with job.subscribe() as messages, trio.fail_after(60):
        async with open_worker(place, lease=1.0) as worker:
            while len(seen) < 10:
                seen.append(await messages.receive())
            await worker.kill()
        async with open_worker(place):
            seen += [message async for message in messages]
    assert [message.seq for message in seen if not isinstance(message, jobtrio.Gap)] == [*range(1, len(seen) + 1)]
    (restart,) = (message for message in seen if isinstance(message, Restart))
    assert (restart.error.kind, restart.attempt) == ("lost", 1)
    assert [m.value[1] for m in seen[restart.seq :] if isinstance(m, Token)] == [*range(40)]
    assert seen[-1] == End(len(seen), Completed(40))


async def test_three_losses_end_it(place: Place, registry: jobtrio.JobRegistry) -> None:
    """A job that kills its worker three times fails as lost, and runs no fourth time."""
    job = await registry.submit("die", retry=jobtrio.RetryPolicy(max_attempts=100))
    with trio.fail_after(60):
        for _ in range(3):
            async with open_worker(place, lease=1.0) as worker:
                await worker.process.wait()
        outcome = await job.wait()
    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, job.record.attempt) == ("lost", 3)
    assert len(read_journal(place.path)) == 3


async def test_workers_are_named(place: Place, registry: jobtrio.JobRegistry) -> None:
    """Each process that works is named with what it runs, until it is stopped or has been dead for a lease."""
    async with open_worker(place, worker="one", lease=600.0) as one, open_worker(place, worker="two", lease=1.0) as two:
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
