"""Retries: how often, when, for what, and who decides."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Completed, Failed, JobContext, Restart, RetryPolicy

if TYPE_CHECKING:
    from trio.testing import MockClock


async def fail(job: JobContext) -> None:
    """Raise what the payload says."""
    raise job.payload


async def restarts(job: jobtrio.Job) -> list[Restart]:
    """Receive a job's stream and return what it says of attempts that were over."""
    async with job.subscribe() as messages:
        return [message async for message in messages if isinstance(message, Restart)]


async def test_delays_grow_up_to_their_limit(autojump_clock: MockClock) -> None:
    """The delays are those of the policy, each is told in the stream, and each is kept to."""

    async def executor(job: JobContext) -> None:
        started.append(trio.current_time())
        raise ValueError(f"attempt {job.attempt}")

    started: list[float] = []
    policy = RetryPolicy(max_attempts=6, initial=2, multiplier=3, max_delay=20, jitter=0)
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=policy)
        told = await restarts(job)
        assert [restart.delay for restart in told] == [2, 6, 18, 20, 20]
        assert [restart.error.message for restart in told] == [f"attempt {n}" for n in range(1, 6)]
        assert [later - earlier for earlier, later in pairwise(started)] == pytest.approx([2, 6, 18, 20, 20])
        assert isinstance(job.outcome, Failed)
        assert job.outcome.error.message == "attempt 6"
        assert (job.record.attempt, job.record.max_attempts) == (6, 6)


async def test_jitter_moves_a_delay_by_its_share(autojump_clock: MockClock) -> None:
    """Jitter spreads the delays of many jobs around the policy's, after the cap, and no further than its share."""
    policy = RetryPolicy(max_attempts=2, initial=1000, max_delay=100, jitter=0.5)
    async with jobtrio.open_registry() as registry:
        jobs = [await registry.submit(fail, ValueError("no"), retry=policy) for _ in range(100)]
        delays = [restart.delay for job in jobs for restart in await restarts(job)]
    assert len(delays) == 100
    assert 50 <= min(delays) < 75
    assert 125 < max(delays) <= 150


async def test_without_a_policy_there_is_one_attempt() -> None:
    """A job is not tried again unless somebody asked for it."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(fail, OSError("no"))
        assert await restarts(job) == []
        assert (job.state, job.record.attempt, job.record.max_attempts) == ("FAILED", 1, 1)


RETRIED = (
    (OSError("x"), True),
    (ConnectionResetError("x"), True),
    (ValueError("x"), False),
    (ExceptionGroup("x", [OSError("a"), ConnectionResetError("b")]), True),
    (ExceptionGroup("x", [OSError("a"), ValueError("b")]), False),
)


@pytest.mark.parametrize(("error", "again"), RETRIED, ids=lambda value: ascii(value)[:40])
@pytest.mark.parametrize("inside", ["the function", "a child task"])
async def test_retry_on(inside: str, error: Exception, again: bool, autojump_clock: MockClock) -> None:
    """Only exceptions of the registered classes are tried again, a group only if all in it are."""

    async def executor(job: JobContext) -> None:
        if inside == "a child task":
            job.nursery.start_soon(fail, job)
            await trio.sleep_forever()
        await fail(job)

    executors = jobtrio.Executors()
    executors.register("it", retry=RetryPolicy(max_attempts=2), retry_on=(OSError,))(executor)
    async with jobtrio.open_registry(executors) as registry:
        job = await registry.submit("it", error)
        assert len(await restarts(job)) == again
        assert job.state == "FAILED"


@pytest.mark.parametrize(("error", "runs"), [(OSError, 2), (ValueError, 1)])
async def test_retry_on_where_another_process_submits(
    error: type[Exception], runs: int, autojump_clock: MockClock
) -> None:
    """Which exceptions are tried again is said by the worker's registration, whoever has submitted the job."""
    server, executors = Server(), jobtrio.Executors()

    @executors.register("it", retry=RetryPolicy(max_attempts=2), retry_on=(OSError,))
    async def executor(job: JobContext) -> None:
        raise error

    async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there:
        job = await there.submit("it")
        async with jobtrio.open_registry(executors, store=RemoteStore(server)):
            await job.wait()
        assert (job.state, job.record.attempt) == ("FAILED", runs)


async def test_what_submit_is_given_wins(autojump_clock: MockClock) -> None:
    """Registered options are the job's unless `submit` was given others."""

    async def executor(job: JobContext) -> None:
        seen.append((job.queue, job.deadline - trio.current_time()))
        raise OSError("no")

    seen: list[Any] = []
    executors = jobtrio.Executors()
    policy = RetryPolicy(max_attempts=2, initial=0, jitter=0)
    executors.register("it", retry=policy, time_limit=50, queue="gpu")(executor)
    async with jobtrio.open_registry(executors) as registry:
        await (await registry.submit("it")).wait()
        await (await registry.submit("it", retry=RetryPolicy(max_attempts=1), time_limit=9, queue="cpu")).wait()
        await (await registry.submit("it", queue="default")).wait()
    assert seen == [*[("gpu", 50)] * 2, ("cpu", 9), *[("default", 50)] * 2]


async def test_retried_job_makes_room_for_others(autojump_clock: MockClock) -> None:
    """A job that waits for its next attempt takes no place among those that run."""

    async def quick(job: JobContext) -> str:
        return "through"

    async with jobtrio.open_registry(max_running=1) as registry:
        retrying = await registry.submit(fail, OSError("no"), retry=RetryPolicy(max_attempts=2, initial=1000))
        await trio.sleep(1)
        assert await (await registry.submit(quick)).wait() == Completed("through")
        assert retrying.state == "RETRYING"
        assert retrying.record.error is not None


@pytest.mark.parametrize(("policy", "attempts"), [(None, 3), (RetryPolicy(max_attempts=5), 5)], ids=["none", "five"])
async def test_asking_for_later_is_bounded(
    policy: RetryPolicy | None, attempts: int, autojump_clock: MockClock
) -> None:
    """An executor that always asks for another attempt gets what its policy, or the default one, allows."""

    async def executor(job: JobContext) -> None:
        started.append(trio.current_time())
        raise jobtrio.RetryLater(50, "not yet")

    started: list[float] = []
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=policy)
        outcome = await job.wait()
        assert isinstance(outcome, Failed)
        assert (outcome.error.kind, outcome.error.message) == ("exception", "not yet")
        assert [later - earlier for earlier, later in pairwise(started)] == pytest.approx([50] * (attempts - 1))


async def test_giving_up_ends_it() -> None:
    """An executor that gives up is not tried again, whatever attempts are left."""

    async def executor(job: JobContext) -> None:
        raise jobtrio.GiveUp("hopeless")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy(max_attempts=5))
        outcome = await job.wait()
        assert isinstance(outcome, Failed)
        assert (outcome.error.kind, outcome.error.message) == ("gave_up", "hopeless")
        assert job.record.attempt == 1


async def test_saved_state_reaches_the_next_attempt(autojump_clock: MockClock) -> None:
    """A retry goes on where the last attempt was; the first attempt, and another job, find nothing."""

    async def executor(job: JobContext) -> list[object]:
        found.append(job.saved_state)
        await job.save_state({"row": job.attempt})
        if job.attempt < 3:
            raise OSError("again")
        return found

    found: list[object] = []
    async with jobtrio.open_registry() as registry:
        for _ in range(2):
            found.clear()
            job = await registry.submit(executor, retry=RetryPolicy())
            assert await job.result() == [None, {"row": 1}, {"row": 2}]
