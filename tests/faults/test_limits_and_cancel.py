"""Time limits and cancellation: what is delivered before them, and who is told what."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, JobContext, RetryPolicy, Token

if TYPE_CHECKING:
    from trio.testing import MockClock


async def trickle(job: JobContext) -> str:
    """Send a number each second, as many as the payload says."""
    for n in range(job.payload):
        await job.send(n)
        await trio.sleep(1)
    return "whole"


async def read(job: jobtrio.Job) -> list[Any]:
    """Receive a job's whole stream."""
    async with job.subscribe() as messages:
        return [message async for message in messages]


async def test_tokens_before_the_limit_are_delivered(autojump_clock: MockClock) -> None:
    """What was sent before the time was up arrives, and then the time-out."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(trickle, 100, time_limit=3.5)
        *tokens, end = await read(job)
        assert tokens == [Token(n + 1, 1, n) for n in range(4)]
        assert (end.seq, end.outcome.error.kind) == (5, "timeout")
        assert job.record.duration is not None


async def test_job_that_ends_before_its_limit(autojump_clock: MockClock) -> None:
    """A limit that is not reached changes nothing."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(trickle, 3, time_limit=3.5)
        assert await job.wait() == Completed("whole")


async def test_limit_bounds_each_attempt_anew(autojump_clock: MockClock) -> None:
    """A time-out counts as a failed attempt, and the next one has the whole limit again."""

    async def executor(job: JobContext) -> float:
        started.append(trio.current_time())
        deadlines.append(job.deadline - trio.current_time())
        await trio.sleep(3 if job.attempt == 2 else 10)
        return job.attempt

    started: list[float] = []
    deadlines: list[float] = []
    policy = RetryPolicy(max_attempts=3, initial=2, jitter=0)
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, time_limit=5, retry=policy)
        restart, end = await read(job)
        assert (restart.error.kind, restart.delay, end) == ("timeout", 2, End(2, Completed(2)))
        assert started[1] - started[0] == pytest.approx(7)
        assert deadlines == pytest.approx([5, 5])


async def test_extended_limit(autojump_clock: MockClock) -> None:
    """A job may move its own deadline while it runs."""

    async def executor(job: JobContext) -> str:
        await trio.sleep(4)
        job.extend(5)
        await trio.sleep(5)
        return "in time"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, time_limit=5)
        assert await job.wait() == Completed("in time")


async def test_no_limit_unless_asked(autojump_clock: MockClock) -> None:
    """A job without a limit runs for as long as it takes."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(trickle, 600)
        assert await job.wait() == Completed("whole")
        slow = await registry.submit(partial(rest, 7 * 86_400))
        assert await slow.wait() == Completed("rested")


async def rest(seconds: float, job: JobContext) -> str:
    """Sleep; an executor once its seconds are bound."""
    await trio.sleep(seconds)
    return "rested"


async def test_answers_of_cancel(autojump_clock: MockClock) -> None:
    """`cancel` says true while the job lives, false once it has ended, and knows no others."""

    async def fail(job: JobContext) -> None:
        raise ValueError("no")

    async with jobtrio.open_registry(max_running=1) as registry:
        completed = await registry.submit(trickle, 0)
        failed = await registry.submit(fail)
        await completed.wait()
        await failed.wait()
        running = await registry.submit(trickle, 100)
        queued = await registry.submit(trickle, 100)
        scheduled = await registry.submit(trickle, 100, delay=50)
        held = await registry.create_job()
        await trio.sleep(0.5)
        states = [job.state for job in (running, queued, scheduled, held)]
        assert states == ["RUNNING", "QUEUED", "SCHEDULED", "QUEUED"]
        for job, alive in (
            (completed, False),
            (failed, False),
            (queued, True),
            (scheduled, True),
            (held, True),
        ):
            assert await registry.cancel(job.id, "why") is alive
        assert await running.cancel("why") is True
        with pytest.raises(jobtrio.UnknownJobError):
            await registry.cancel("nobody")
        for job in (running, queued, scheduled, held):
            assert await job.wait() == Cancelled("why")
            assert await job.cancel() is False
        assert (completed.state, failed.state) == ("COMPLETED", "FAILED")
        for job in (completed, failed):
            await registry.remove(job.id)
            assert await job.cancel() is False  # which its handle knows


async def test_cancel_while_retrying(autojump_clock: MockClock) -> None:
    """A job that waits for its next attempt is cancelled at once, and there is none."""

    async def executor(job: JobContext) -> None:
        attempts.append(job.attempt)
        raise ValueError("no")

    attempts: list[int] = []
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy(initial=100, jitter=0))
        await trio.sleep(1)
        assert job.state == "RETRYING"
        before = trio.current_time()
        assert await job.cancel("enough")
        assert await job.wait() == Cancelled("enough")
        assert trio.current_time() - before < 1
        await trio.sleep(1000)
        assert attempts == [1]


async def test_cancelled_job_is_never_tried_again(autojump_clock: MockClock) -> None:
    """A job that fails in answer to its cancellation ends cancelled, whatever its policy says."""

    async def executor(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up broke")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy(max_attempts=5))
        await trio.sleep(1)
        await job.cancel("stop")
        assert await read(job) == [End(1, Cancelled("stop"))]
        assert job.record.error is not None
        assert job.record.error.message == "clean-up broke"


async def test_swallowed_cancellation_is_no_success(autojump_clock: MockClock) -> None:
    """An executor that swallows its cancellation, or its time-out, does not become a success."""

    async def executor(job: JobContext) -> str:
        with trio.CancelScope():
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                return "all is well"
        return "unreachable"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        await trio.sleep(1)
        await job.cancel("stop")
        assert await job.wait() == Cancelled("stop")
        timed = await registry.submit(executor, time_limit=1)
        outcome = await timed.wait()
        assert isinstance(outcome, Failed)
        assert outcome.error.kind == "timeout"


async def test_own_scope_cancelled() -> None:
    """An executor that cancels its own scope ends cancelled without a reason, whatever its clean-up does."""

    async def executor(job: JobContext) -> None:
        job.cancel_scope.cancel()
        try:
            await trio.sleep_forever()
        finally:
            if job.payload == "break":
                raise ValueError("clean-up broke")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy())
        assert await job.wait() == Cancelled(None)
        broken = await registry.submit(executor, "break", retry=RetryPolicy())
        assert await broken.wait() == Cancelled(None)
        assert broken.record.error is not None
        assert broken.record.error.message == "clean-up broke"


async def test_own_scope_cancelled_before_its_deadline(autojump_clock: MockClock) -> None:
    """An executor that cancels itself, and returns from its clean-up behind its time limit, is cancelled."""

    async def executor(job: JobContext) -> None:
        job.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, time_limit=5, retry=RetryPolicy(max_attempts=2))
        assert await job.wait() == Cancelled(None)
        assert job.record.attempt == 1


async def test_deadline_that_is_moved_when_it_is_over(autojump_clock: MockClock) -> None:
    """An attempt whose time was up has timed out, also where its clean-up moves the deadline as steps did before."""

    async def executor(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            job.cancel_scope.deadline = trio.current_time() + 10

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, time_limit=5, retry=RetryPolicy(max_attempts=2))
        restart, end = await read(job)
        assert (restart.error.kind, end.outcome.error.kind) == ("timeout", "timeout")


async def test_deadline_that_is_moved_behind_an_answer(autojump_clock: MockClock) -> None:
    """Whom `cancel` has told that the time is up, sees the job time out: it can't give itself more any longer."""

    async def executor(job: JobContext) -> None:
        autojump_clock.jump(6)  # none of its awaits has met the deadline
        assert not await registry.cancel(job.id)
        job.cancel_scope.deadline = trio.current_time() + 10
        await trio.sleep(1)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, time_limit=5)
        outcome = await job.wait()
        assert isinstance(outcome, Failed)
        assert outcome.error.kind == "timeout"


@pytest.mark.parametrize("attempts", [1, 2])
async def test_cancel_behind_the_deadline(attempts: int, autojump_clock: MockClock) -> None:
    """While a timed-out attempt cleans up, a request comes too late unless another attempt would follow."""

    async def executor(job: JobContext) -> None:
        started.append(job.attempt)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    started: list[int] = []
    async with jobtrio.open_registry() as registry:
        policy = RetryPolicy(max_attempts=attempts, initial=0, jitter=0)
        job = await registry.submit(executor, time_limit=1, retry=policy)
        await trio.sleep(3)
        assert await job.cancel("stop") is (attempts == 2)
        outcome = await job.wait()
        assert started == [1]
        if attempts == 2:
            assert outcome == Cancelled("stop")
        else:
            assert isinstance(outcome, Failed)
            assert outcome.error.kind == "timeout"


async def test_grace(autojump_clock: MockClock) -> None:
    """With grace the job is told first, may finish in its own way, and ends cancelled all the same."""

    async def polite(job: JobContext) -> str:
        await job.stopping.wait()
        await job.send("saved")
        return "a part"

    async def deaf(job: JobContext) -> None:
        await trio.sleep_forever()

    async with jobtrio.open_registry() as registry:
        jobs = [await registry.submit(executor) for executor in (polite, deaf)]
        await trio.sleep(1)
        start = trio.current_time()
        for job in jobs:
            assert await job.cancel("please", grace=10)
        assert await read(jobs[0]) == [Token(1, 1, "saved"), End(2, Cancelled("please"))]
        assert trio.current_time() - start < 1
        assert await read(jobs[1]) == [End(1, Cancelled("please"))]
        assert trio.current_time() - start == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("way", ["cancel", "sooner", "later", "shutdown"])
async def test_grace_of_a_job_that_moves_its_deadline(autojump_clock: MockClock, way: str, durable: bool) -> None:
    """A job that gives itself more time with each step, as an idle limit, ends with its grace all the same."""
    executors = jobtrio.Executors()

    @executors.register("busy")
    async def busy(job: JobContext) -> None:
        while True:
            job.cancel_scope.deadline = trio.current_time() + 10
            await trio.sleep(1)

    with trio.fail_after(100):
        async with jobtrio.open_registry(executors, store=RemoteStore(Server()) if durable else None) as registry:
            job = await registry.submit("busy")
            await trio.sleep(3)
            assert job.state == "RUNNING"
            start = trio.current_time()
            if way == "shutdown":
                await registry.shutdown(grace=5)
            else:
                assert await job.cancel("enough", grace=50 if way == "sooner" else 5)
                await trio.sleep(2)
                assert await job.cancel("enough", grace=50 if way == "later" else 3)
                assert await job.wait() == Cancelled("enough")
            assert trio.current_time() - start == pytest.approx(5, abs=0.5)


async def test_grace_that_is_not_needed(autojump_clock: MockClock) -> None:
    """Of a grace that a job ends in nothing stays: neither a task, nor a wait for it at the end."""

    async def polite(job: JobContext) -> None:
        await job.stopping.wait()

    start = trio.current_time()
    async with jobtrio.open_registry() as registry:
        tasks = 0
        for _ in range(20):
            job = await registry.submit(polite)
            await trio.sleep(0.1)
            assert await job.cancel(grace=1000)
            assert await job.wait() == Cancelled(None)
            await trio.sleep(0.1)
            tasks = tasks or trio.lowlevel.current_statistics().tasks_living
        assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert trio.current_time() - start < 10


async def test_second_request_shortens_the_grace_only(autojump_clock: MockClock) -> None:
    """A second request may bring the end nearer, not move it away; the first reason stays."""

    async def deaf(job: JobContext) -> None:
        await trio.sleep_forever()

    async with jobtrio.open_registry() as registry:
        for second, expected in ((20.0, 10.0), (2.0, 2.0), (0.0, 0.0)):
            job = await registry.submit(deaf)
            await trio.sleep(1)
            start = trio.current_time()
            assert await job.cancel("first", grace=10)
            assert await job.cancel("second", grace=second)
            assert await job.wait() == Cancelled("first")
            assert trio.current_time() - start == pytest.approx(expected, abs=0.1)
            assert job.record.cancel_reason == "first"


async def test_expired_in_the_queue_never_runs(autojump_clock: MockClock) -> None:
    """A job whose wait is over before it starts fails as expired, and does not run later."""

    async def executor(job: JobContext) -> None:
        ran.append(job.id)

    ran: list[str] = []
    async with jobtrio.open_registry(max_running=1) as registry:
        await registry.submit(trickle, 10)
        job = await registry.submit(executor, expires_in=5)
        (end,) = await read(job)
        assert end.outcome.error.kind == "expired"
        assert [line.state for line in await registry.history(job.id)] == ["QUEUED", "FAILED"]
    assert ran == []


@pytest.mark.parametrize(
    ("how", "at", "said"),
    [
        ("nothing", 3, "its time limit of 3 s"),
        ("extend", 8, "the deadline that it has set itself"),
        ("shorten", 1, "the deadline that it has set itself"),
    ],
)
async def test_which_limit_was_over(how: str, at: float, said: str, autojump_clock: MockClock) -> None:
    """A time-out names the limit that applied: an executor may have moved its deadline."""

    async def executor(job: JobContext) -> None:
        if how == "extend":
            job.extend(5)
        elif how == "shorten":
            job.cancel_scope.deadline = trio.current_time() + 1
        await trio.sleep_forever()

    async with jobtrio.open_registry() as registry:
        begun = trio.current_time()
        outcome = await (await registry.submit(executor, time_limit=3)).wait()
        assert trio.current_time() - begun == at
    assert isinstance(outcome, Failed)
    assert outcome.error.message == f"the attempt took longer than {said}"
