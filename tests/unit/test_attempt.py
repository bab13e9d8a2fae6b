"""One attempt: who decides how it ends, what its clean-up says, and what must leave it."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from jobtrio import JobContext, JobEndedError, JobPriority, RetryPolicy
from jobtrio._attempt import Attempt
from jobtrio._entry import JobEntry, Plan, start
from jobtrio._settlement import CANCELLED, LOST, SELF, SHUTDOWN, Raised, Returned, Stopped, TimedOut, Verdict
from jobtrio._token_log import TokenLog
from jobtrio.abc import Claim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trio.testing import MockClock

    Executor = Callable[[JobContext], Awaitable[Any]]


def new_attempt(time_limit: float | None = None, retry: RetryPolicy | None = None) -> Attempt:
    """Return an attempt that was claimed and has not begun."""
    entry = JobEntry("id", Plan("work", None, "default", JobPriority.NORMAL, time_limit, retry, "w"), None, 0.0)
    start(entry, claim="c", worker="w", now=0.0)
    return Attempt(Claim(entry, "c", 1))


def open_log(entry: JobEntry) -> TokenLog:
    """Return the job's log."""
    if entry.log is None:
        entry.log = TokenLog(10)
    return entry.log


async def save(entry: JobEntry, value: Any) -> None:
    """Keep a state."""
    entry.saved_state = value


no_registry: Any = None


async def run(attempt: Attempt, executor: Executor) -> Verdict:
    """Run an attempt with this executor."""
    return await attempt.run(no_registry, lambda _: executor, open_log, save)


async def judge(executor: Executor, time_limit: float | None = None) -> Verdict:
    """Return the verdict on an executor that nobody disturbs."""
    return await run(new_attempt(time_limit), executor)


def shown(verdict: Verdict) -> tuple[Any, ...]:
    """Return a verdict in a form that compares."""
    match verdict:
        case Returned(result=result):
            return ("returned", result)
        case Raised(exception=exception):
            return ("raised", repr(exception))
        case TimedOut(limit=limit, exception=exception):
            return ("timed out", limit, None if exception is None else repr(exception))
        case Stopped(cause=cause, exception=exception):
            return ("stopped", cause, None if exception is None else repr(exception))


async def clean_up(seconds: float) -> None:
    """Take some time that nothing cuts short."""
    with trio.CancelScope(shield=True):
        await trio.sleep(seconds)


async def cleans_up(job: JobContext) -> None:
    """Wait for ever, and then take 5 s to clean up."""
    try:
        await trio.sleep_forever()
    finally:
        await clean_up(5)


# -- to its own end


async def test_its_own_number() -> None:
    """An attempt is told its own number, also where the job is known by then to be in a later attempt elsewhere."""
    attempt = new_attempt()
    attempt.claim.entry.attempt = 2
    numbers = []

    async def executor(job: JobContext) -> None:
        numbers.append(job.attempt)

    await run(attempt, executor)
    assert numbers == [1]


async def test_returned() -> None:
    """What the executor returns is the result."""

    async def executor(job: JobContext) -> list[int]:
        return [job.attempt]

    assert shown(await judge(executor)) == ("returned", [1])


@pytest.mark.parametrize("raised", [ValueError("no"), GeneratorExit("no"), ExceptionGroup("g", [ValueError("no")])])
async def test_raised(raised: BaseException) -> None:
    """What the executor raises is kept as it is, groups whole."""

    async def executor(job: JobContext) -> None:
        raise raised

    verdict = await judge(executor)
    assert isinstance(verdict, Raised)
    assert verdict.exception is raised


async def work() -> None:
    """Do what is not come to."""
    raise AssertionError("entered")


async def words() -> AsyncGenerator[str]:
    """Give what is not asked for."""
    yield "to be"


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (work, "returned a coroutine, of which nothing has run: await it"),
        (words, "returned an async generator: send its values with job.send"),
    ],
)
async def test_what_was_only_made_is_no_result(function: Callable[[], object], why: str) -> None:
    """An executor that returns what it has forgotten to await, or to send, fails; nothing is left unawaited."""

    async def executor(job: JobContext) -> object:
        return function()

    verdict = await judge(executor)
    assert isinstance(verdict, Raised)
    assert isinstance(verdict.exception, TypeError)
    assert why in str(verdict.exception)


async def test_not_resolved() -> None:
    """An executor that cannot be found fails the attempt."""

    def resolve(entry: JobEntry) -> Executor:
        raise LookupError(entry.id)

    verdict = await new_attempt().run(no_registry, resolve, open_log, save)
    assert shown(verdict) == ("raised", "LookupError('id')")


async def test_children_belong_to_the_attempt(autojump_clock: MockClock) -> None:
    """The attempt ends when its child tasks have, and its context is closed then."""
    contexts: list[JobContext] = []

    async def child(job: JobContext) -> None:
        await trio.sleep(5)
        job.send_nowait("late")

    async def executor(job: JobContext) -> str:
        contexts.append(job)
        job.nursery.start_soon(child, job)
        return "done"

    assert shown(await judge(executor)) == ("returned", "done")
    assert trio.current_time() == 5
    with pytest.raises(JobEndedError):
        contexts[0].send_nowait("too late")


async def test_a_child_that_fails() -> None:
    """A child's exception fails the attempt, bare, also when the executor has returned."""

    async def child() -> None:
        raise ValueError("child")

    async def returns(job: JobContext) -> None:
        job.nursery.start_soon(child)

    async def waits(job: JobContext) -> None:
        job.nursery.start_soon(child)
        await trio.sleep_forever()

    async def waits_in_a_nursery(job: JobContext) -> None:
        job.nursery.start_soon(child)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    for executor in (returns, waits, waits_in_a_nursery):
        assert shown(await judge(executor)) == ("raised", "ValueError('child')")


async def test_an_executor_that_fails_takes_its_children_along(autojump_clock: MockClock) -> None:
    """An executor's exception cancels its child tasks; what they raise in turn is told with it."""
    ended: list[float] = []

    async def child(exc: Exception | None) -> None:
        try:
            await trio.sleep_forever()
        finally:
            await clean_up(2)
            ended.append(trio.current_time())
            if exc is not None:
                raise exc

    def make(exc: Exception | None) -> Executor:
        async def executor(job: JobContext) -> None:
            job.nursery.start_soon(child, exc)
            await trio.testing.wait_all_tasks_blocked()
            raise KeyError("first")

        return executor

    assert shown(await judge(make(None))) == ("raised", "KeyError('first')")
    verdict = await judge(make(ValueError("second")))
    assert isinstance(verdict, Raised)
    assert isinstance(verdict.exception, BaseExceptionGroup)
    assert [repr(exc) for exc in verdict.exception.exceptions] == ["KeyError('first')", "ValueError('second')"]
    assert ended == [2, 4]


async def test_an_executor_that_fails_takes_along_what_others_start_in_it(autojump_clock: MockClock) -> None:
    """A task that somebody outside is about to start in the nursery of an executor that raises is cancelled there."""
    async with trio.open_nursery() as outside:

        async def child(task_status: trio.TaskStatus[None]) -> None:
            await trio.sleep(1)
            task_status.started()
            await trio.sleep(100)

        async def executor(job: JobContext) -> None:
            outside.start_soon(job.nursery.start, child)
            await trio.testing.wait_all_tasks_blocked()
            raise ValueError("own")

        assert shown(await judge(executor)) == ("raised", "ValueError('own')")
        assert trio.current_time() == 1


async def test_several_children_fail() -> None:
    """Several exceptions of children are a group."""

    async def child(exc: Exception) -> None:
        raise exc

    async def executor(job: JobContext) -> None:
        job.nursery.start_soon(child, ValueError("a"))
        job.nursery.start_soon(child, ValueError("b"))

    verdict = await judge(executor)
    assert isinstance(verdict, Raised)
    assert isinstance(verdict.exception, ExceptionGroup)
    assert sorted(map(str, verdict.exception.exceptions)) == ["a", "b"]


# -- the deadline


async def test_timed_out(autojump_clock: MockClock) -> None:
    """An attempt that takes longer than its limit is cut off, whatever it makes of that."""

    async def waits(job: JobContext) -> None:
        assert job.deadline == trio.current_time() + 3
        await trio.sleep_forever()

    async def swallows(job: JobContext) -> str:
        with trio.CancelScope():
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                pass
        return "part"

    async def in_a_nursery(job: JobContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    async def fails(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def waits_for_children(job: JobContext) -> None:
        job.nursery.start_soon(trio.sleep_forever)

    for executor in (waits, swallows, in_a_nursery, waits_for_children):
        assert shown(await judge(executor, 3)) == ("timed out", 3, None)
    assert shown(await judge(fails, 3)) == ("timed out", 3, "ValueError('clean-up')")


async def test_in_time(autojump_clock: MockClock) -> None:
    """An attempt that ends before its deadline has its own end."""

    async def executor(job: JobContext) -> str:
        await trio.sleep(2.999)
        return "done"

    assert shown(await judge(executor, 3)) == ("returned", "done")


async def test_the_deadline_is_earlier_than_the_exit(autojump_clock: MockClock) -> None:
    """An executor that works through its deadline without looking is too late with its result."""

    async def executor(job: JobContext) -> str:
        await clean_up(3)
        return "late"

    assert shown(await judge(executor, 3)) == ("timed out", 3, None)
    assert shown(await judge(executor, 3.001)) == ("returned", "late")


async def test_a_failure_whose_clean_up_outlasts_the_deadline(autojump_clock: MockClock) -> None:
    """The nursery's exit counts, not the executor's: the deadline may still come between the two."""

    async def executor(job: JobContext) -> None:
        job.nursery.start_soon(cleans_up, job)
        await trio.sleep(1)
        raise ValueError("first")

    assert shown(await judge(executor, 3)) == ("timed out", 3, "ValueError('first')")
    assert shown(await judge(executor, 30)) == ("raised", "ValueError('first')")


async def test_inner_scopes_are_no_business_of_the_attempt(autojump_clock: MockClock) -> None:
    """Deadlines and cancellations of an executor's own scopes decide nothing."""

    async def executor(job: JobContext) -> str:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.sleep_forever()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.cancel_scope.cancel()
        return "done"

    assert shown(await judge(executor, 3)) == ("returned", "done")


# -- requests


async def stopped_after(
    attempt: Attempt, executor: Executor, seconds: float, *stops: tuple[str, float]
) -> tuple[Verdict, list[bool]]:
    """Run an attempt and stop it, so many seconds after its start, once for each cause and grace."""
    answers: list[bool] = []
    verdicts: list[Verdict] = []

    async def go() -> None:
        verdicts.append(await run(attempt, executor))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go)
        await trio.sleep(seconds)
        for cause, grace in stops:
            answers.append(attempt.stop(cause, grace))
    return verdicts[0], answers


async def hang(job: JobContext) -> None:
    """Wait for ever."""
    await trio.sleep_forever()


async def returns_a_part(job: JobContext) -> str:
    """Swallow the cancellation and return."""
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        pass
    return "part"


async def returns_when_told(job: JobContext) -> str:
    """Return as soon as it should stop."""
    await job.stopping.wait()
    return "part"


async def hangs_in_a_nursery(job: JobContext) -> None:
    """Wait for ever in two tasks of a nursery of its own."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await trio.sleep_forever()


@pytest.mark.parametrize("cause", [CANCELLED, SHUTDOWN, LOST])
@pytest.mark.parametrize("executor", [hang, returns_a_part, returns_when_told, hangs_in_a_nursery])
async def test_stopped(cause: str, executor: Executor, autojump_clock: MockClock) -> None:
    """An attempt that was stopped is stopped, whatever the executor makes of it."""
    verdict, answers = await stopped_after(new_attempt(9), executor, 1, (cause, 0))
    assert shown(verdict) == ("stopped", cause, None)
    assert answers == [True]
    assert trio.current_time() == 1


@pytest.mark.parametrize("cause", [CANCELLED, SHUTDOWN, LOST])
async def test_stopped_before_it_began(cause: str) -> None:
    """An attempt that is stopped before its task came to run never enters the executor."""

    async def executor(job: JobContext) -> None:
        raise AssertionError("entered")

    attempt = new_attempt()
    assert attempt.stop(cause, 60)
    assert shown(await run(attempt, executor)) == ("stopped", cause, None)
    assert attempt.over
    assert not attempt.stop(CANCELLED, 0)


async def test_a_lost_attempt_sends_nothing(autojump_clock: MockClock) -> None:
    """Once the lease is lost, what the attempt still sends raises, also in a shield."""
    errors: list[str] = []

    async def executor(job: JobContext) -> None:
        await job.send("before")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for call in (job.send, job.save_state):
                    try:
                        await call("after")
                    except JobEndedError as exc:
                        errors.append(exc.job_id)

    for cause, expected in [(LOST, ["id", "id"]), (CANCELLED, [])]:
        errors.clear()
        await stopped_after(new_attempt(), executor, 1, (cause, 0))
        assert errors == expected


async def test_what_a_stopped_clean_up_raises(autojump_clock: MockClock) -> None:
    """An exception in the clean-up is kept beside the cause, without the cancellations around it."""

    async def plain(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def with_a_child(job: JobContext) -> None:
        job.nursery.start_soon(plain, job)
        await trio.sleep_forever()

    async def in_a_nursery(job: JobContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(plain, job)
            await trio.sleep_forever()

    for executor in (plain, with_a_child):
        verdict, _ = await stopped_after(new_attempt(), executor, 1, (CANCELLED, 0))
        assert shown(verdict) == ("stopped", CANCELLED, "ValueError('clean-up')")
    verdict, _ = await stopped_after(new_attempt(), in_a_nursery, 1, (CANCELLED, 0))
    assert shown(verdict) == (
        "stopped",
        CANCELLED,
        "ExceptionGroup('Exceptions from Trio nursery', [ValueError('clean-up')])",
    )


async def test_grace(autojump_clock: MockClock) -> None:
    """With grace, `stopping` is set at once and the scope is cancelled when the grace is over."""
    seen: list[float] = []

    async def executor(job: JobContext) -> None:
        await job.stopping.wait()
        seen.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            seen.append(trio.current_time())

    verdict, _ = await stopped_after(new_attempt(), executor, 1, (CANCELLED, 4))
    assert shown(verdict) == ("stopped", CANCELLED, None)
    assert seen == [1, 5]


@pytest.mark.parametrize(("second", "end"), [(1, 2), (0, 1), (4, 5), (9, 5)])
async def test_a_second_request_shortens_the_grace(second: float, end: float, autojump_clock: MockClock) -> None:
    """A second request may shorten the grace, not lengthen it."""
    verdict, answers = await stopped_after(new_attempt(), hang, 1, (CANCELLED, 4), (CANCELLED, second))
    assert shown(verdict) == ("stopped", CANCELLED, None)
    assert answers == [True, True]
    assert trio.current_time() == end


async def test_a_request_behind_the_grace(autojump_clock: MockClock) -> None:
    """While an attempt whose grace is over cleans up, a further request is accepted as any before."""
    attempt = new_attempt()
    answers: list[bool] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run, attempt, cleans_up)
        await trio.sleep(1)
        answers.append(attempt.stop(CANCELLED, 1))
        await trio.sleep(3)
        answers += [attempt.may_be_cancelled(), attempt.stop(CANCELLED, 1)]
    assert answers == [True, True, True]


@pytest.mark.parametrize(("limit", "end"), [(3, 3), (30, 11)])
async def test_grace_does_not_lengthen_the_time_limit(limit: float, end: float, autojump_clock: MockClock) -> None:
    """The time limit still cuts an attempt off in its grace; the request was first."""
    verdict, _ = await stopped_after(new_attempt(limit), hang, 1, (CANCELLED, 10))
    assert shown(verdict) == ("stopped", CANCELLED, None)
    assert trio.current_time() == end


async def test_the_first_cause_stays(autojump_clock: MockClock) -> None:
    """A shutdown does not take a request's place; a request takes a shutdown's, and a lost lease any."""
    for stops, cause in [
        ((CANCELLED, SHUTDOWN), CANCELLED),
        ((SHUTDOWN, CANCELLED), CANCELLED),
        ((SHUTDOWN, SHUTDOWN), SHUTDOWN),
        ((CANCELLED, LOST), LOST),
        ((SHUTDOWN, LOST), LOST),
        ((LOST, CANCELLED), LOST),
        ((LOST, SHUTDOWN), LOST),
    ]:
        attempt = new_attempt()
        verdict, _ = await stopped_after(attempt, hang, 1, *((each, 5) for each in stops))
        assert shown(verdict) == ("stopped", cause, None)
        assert attempt.is_lost() is (cause == LOST)
        assert attempt.is_stopped()


async def test_returned_within_the_grace_of_a_shutdown(autojump_clock: MockClock) -> None:
    """What comes to its own end within a shutdown's grace has that end, unless it looked at `stopping`."""

    async def returns(job: JobContext) -> str:
        await trio.sleep(2)
        return "done"

    async def fails(job: JobContext) -> None:
        await trio.sleep(2)
        raise ValueError("own")

    async def looks(job: JobContext) -> str:
        assert not job.stopping.is_set()
        await trio.sleep(2)
        return "part"

    async def fails_with_a_child(job: JobContext) -> None:
        job.nursery.start_soon(trio.sleep_forever)
        await fails(job)

    for executor, expected in [
        (returns, ("returned", "done")),
        (fails, ("raised", "ValueError('own')")),
        (fails_with_a_child, ("raised", "ValueError('own')")),
        (looks, ("stopped", SHUTDOWN, None)),
    ]:
        verdict, _ = await stopped_after(new_attempt(), executor, 1, (SHUTDOWN, 5))
        assert shown(verdict) == expected
        verdict, _ = await stopped_after(new_attempt(), executor, 1, (CANCELLED, 5))
        assert shown(verdict)[:2] == ("stopped", CANCELLED)
        verdict, _ = await stopped_after(new_attempt(), executor, 1, (SHUTDOWN, 0.5))
        assert shown(verdict) == ("stopped", SHUTDOWN, None)


async def test_a_child_that_raises_a_foreign_cancellation() -> None:
    """A child whose `trio.Cancelled` no scope has asked for ends the attempt, which then is no success."""

    async def child() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled as exc:
                cancelled = exc
        raise cancelled

    async def executor(job: JobContext) -> str:
        job.nursery.start_soon(child)
        return "done"

    assert shown(await judge(executor)) == ("stopped", SELF, None)


async def test_cut_off_within_the_grace_of_a_shutdown(autojump_clock: MockClock) -> None:
    """What its time limit cuts off in the grace has not come to its own end, also where it moves its deadline then."""

    async def executor(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            job.cancel_scope.deadline = trio.current_time() + 10

    verdict, _ = await stopped_after(new_attempt(2), executor, 1, (SHUTDOWN, 5))
    assert shown(verdict) == ("stopped", SHUTDOWN, None)


# -- request against deadline against exit


async def test_too_late_behind_the_exit() -> None:
    """When the nursery has exited nothing can stop the attempt any more."""

    async def executor(job: JobContext) -> str:
        return "done"

    attempt = new_attempt()
    assert attempt.may_be_cancelled()
    assert shown(await run(attempt, executor)) == ("returned", "done")
    assert attempt.over
    assert attempt.may_be_cancelled()
    attempt.decided = True
    assert not attempt.may_be_cancelled()
    assert not attempt.stop(CANCELLED, 0)
    assert not attempt.is_stopped()
    assert not attempt.stop(LOST, 0)
    assert attempt.is_lost()


@pytest.mark.parametrize("attempts", [1, 2])
async def test_behind_the_deadline(attempts: int, autojump_clock: MockClock) -> None:
    """Behind the deadline of a last attempt a request is too late; of any other it is for the next."""
    attempt = new_attempt(2, RetryPolicy(max_attempts=attempts))
    assert attempt.is_last is (attempts == 1)
    verdict, answers = await stopped_after(attempt, cleans_up, 3, (CANCELLED, 0))
    assert shown(verdict) == ("timed out", 2, None)
    assert answers == [attempts == 2]
    assert not attempt.is_stopped()


async def test_may_be_cancelled_until_the_last_deadline(autojump_clock: MockClock) -> None:
    """A request can decide up to the very moment of the last deadline, and not at it."""
    for attempts, answers in [(1, [True, True, False]), (2, [True, True, True])]:
        attempt = new_attempt(2, RetryPolicy(max_attempts=attempts))
        asked = [attempt.may_be_cancelled()]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, attempt, cleans_up)
            await trio.sleep(1.999)
            asked.append(attempt.may_be_cancelled())
            await trio.sleep(0.001)
            asked.append(attempt.may_be_cancelled())
        assert asked == answers


@pytest.mark.parametrize("cause", [SHUTDOWN, LOST])
async def test_a_shutdown_behind_the_deadline(cause: str, autojump_clock: MockClock) -> None:
    """A shutdown behind the deadline leaves it a time-out; a lost lease is one all the same."""
    verdict, answers = await stopped_after(new_attempt(2), cleans_up, 3, (cause, 0))
    assert shown(verdict) == (("stopped", LOST, None) if cause == LOST else ("timed out", 2, None))
    assert answers == [True]


async def test_a_request_before_the_deadline(autojump_clock: MockClock) -> None:
    """A request that was first stays first when the deadline passes in the clean-up."""
    verdict, _ = await stopped_after(new_attempt(2), cleans_up, 1, (CANCELLED, 0))
    assert shown(verdict) == ("stopped", CANCELLED, None)


async def test_a_request_while_a_failed_attempt_ends(autojump_clock: MockClock) -> None:
    """A request while the children of a failed executor end is earlier than the nursery's exit."""

    async def executor(job: JobContext) -> None:
        job.nursery.start_soon(cleans_up, job)
        await trio.testing.wait_all_tasks_blocked()
        raise ValueError("own")

    verdict, answers = await stopped_after(new_attempt(), executor, 1, (CANCELLED, 0))
    assert shown(verdict) == ("stopped", CANCELLED, "ValueError('own')")
    assert answers == [True]


# -- an executor that cancels its own scope


async def cancels_and_waits(job: JobContext) -> None:
    """Cancel the own scope and see it."""
    job.cancel_scope.cancel()
    await trio.sleep_forever()


async def cancels_and_returns(job: JobContext) -> str:
    """Cancel the own scope and return without looking."""
    job.cancel_scope.cancel()
    return "done"


async def cancels_in_a_nursery(job: JobContext) -> None:
    """Cancel the own scope from within a nursery."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        job.cancel_scope.cancel()


async def cancels_by_a_child(job: JobContext) -> None:
    """Have a child task cancel the scope."""
    job.nursery.start_soon(cancels_and_waits, job)
    await trio.sleep_forever()


async def cancels_by_a_child_and_returns(job: JobContext) -> None:
    """Return, and have a child task cancel the scope."""
    job.nursery.start_soon(cancels_and_waits, job)


@pytest.mark.parametrize(
    "executor",
    [
        cancels_and_waits,
        cancels_and_returns,
        cancels_in_a_nursery,
        cancels_by_a_child,
        cancels_by_a_child_and_returns,
    ],
)
async def test_cancelled_by_itself(executor: Executor) -> None:
    """An executor that cancels its own scope is stopped by itself, however it goes about it."""
    assert shown(await judge(executor, 60)) == ("stopped", SELF, None)


async def test_cancelled_by_itself_with_a_bad_clean_up() -> None:
    """What it raises in its clean-up is kept, also if that took the cancellation's place."""

    async def executor(job: JobContext) -> None:
        job.cancel_scope.cancel()
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def by_its_child(job: JobContext) -> None:
        job.nursery.start_soon(executor, job)
        await trio.sleep_forever()

    async def by_its_child_alone(job: JobContext) -> None:
        job.nursery.start_soon(executor, job)

    for each in (executor, by_its_child, by_its_child_alone):
        assert shown(await judge(each)) == ("stopped", SELF, "ValueError('clean-up')")


async def test_cancelled_by_itself_before_the_deadline(autojump_clock: MockClock) -> None:
    """Its own cancellation was first when the deadline passes in the clean-up."""

    async def executor(job: JobContext) -> None:
        job.cancel_scope.cancel()
        await cleans_up(job)

    assert shown(await judge(executor, 2)) == ("stopped", SELF, None)


async def test_a_request_behind_its_own_cancelling(autojump_clock: MockClock) -> None:
    """A request before the exit gives the reason that its own cancelling lacks."""

    async def executor(job: JobContext) -> None:
        job.cancel_scope.cancel()
        await cleans_up(job)

    verdict, _ = await stopped_after(new_attempt(), executor, 1, (CANCELLED, 0))
    assert shown(verdict) == ("stopped", CANCELLED, None)


async def test_a_cancelled_of_its_own_that_gets_out() -> None:
    """A `Cancelled` raised where nothing is cancelled is a failure, not a cancellation."""

    async def executor(job: JobContext) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep_forever()
            except trio.Cancelled as exc:
                saved = exc
        raise saved

    verdict = await judge(executor)
    assert isinstance(verdict, Raised)
    assert isinstance(verdict.exception, RuntimeError)
    assert "no scope of its own asked for" in str(verdict.exception)


# -- what leaves the attempt


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("where", ["plain", "child", "nursery", "nursery's child", "clean-up", "among others"])
async def test_exits_leave(kind: type[BaseException], where: str) -> None:
    """An exit leaves the attempt bare, wherever it was raised, and the child tasks are gone."""
    ended: list[str] = []

    async def exits() -> None:
        raise kind("now")

    async def fails() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("no")

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("child")

    async def executor(job: JobContext) -> None:
        job.nursery.start_soon(child)
        await trio.testing.wait_all_tasks_blocked()
        match where:
            case "plain":
                await exits()
            case "child":
                job.nursery.start_soon(exits)
                await trio.sleep_forever()
            case "nursery":
                async with trio.open_nursery():
                    await exits()
            case "nursery's child":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(exits)
            case "clean-up":
                job.cancel_scope.cancel()
                try:
                    await trio.sleep_forever()
                finally:
                    await exits()
            case _:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(fails)
                    await trio.testing.wait_all_tasks_blocked()
                    await exits()

    attempt = new_attempt()
    with pytest.raises(kind, match="now"):
        await run(attempt, executor)
    assert ended == ["child"]
    assert attempt.over


@pytest.mark.parametrize("executor", [hang, hangs_in_a_nursery, returns_a_part])
async def test_a_cancelled_caller(executor: Executor, autojump_clock: MockClock) -> None:
    """Where the caller is cancelled the cancellation passes through; a result that came is told."""
    attempt = new_attempt()
    verdicts: list[Verdict] = []
    with trio.move_on_after(1) as scope:
        verdicts.append(await run(attempt, executor))
    assert attempt.over
    if executor is returns_a_part:
        assert [shown(verdict) for verdict in verdicts] == [("returned", "part")]
    else:
        assert verdicts == []
        assert scope.cancelled_caught


async def test_an_exit_in_a_cancelled_caller(autojump_clock: MockClock) -> None:
    """An exit from the clean-up of a cancelled program is not lost to the cancellation."""

    async def executor(job: JobContext) -> None:
        job.nursery.start_soon(trio.sleep_forever)
        try:
            await trio.sleep_forever()
        finally:
            raise SystemExit(3)

    with pytest.raises(SystemExit), trio.move_on_after(1):
        await run(new_attempt(), executor)


async def test_a_child_cancelled_by_the_caller(autojump_clock: MockClock) -> None:
    """The cancellation of a caller passes through a returned executor's children, too."""

    async def executor(job: JobContext) -> str:
        job.nursery.start_soon(trio.sleep_forever)
        return "done"

    with trio.move_on_after(1) as scope:
        await run(new_attempt(), executor)
    assert scope.cancelled_caught


async def test_a_group_too_deep_to_recurse() -> None:
    """A group nested so deeply that Python's own search of it fails, is what the attempt failed with all the same."""
    group: Exception = ValueError("deep")
    for _ in range(100_000):
        group = ExceptionGroup("deeper", [group])

    async def executor(job: JobContext) -> None:
        raise group

    verdict = await judge(executor)
    assert isinstance(verdict, Raised)
    assert verdict.exception is group


async def test_scopes_left_open() -> None:
    """An executor that leaves a cancel scope open fails, and harms nothing around it."""

    async def executor(job: JobContext) -> None:
        trio.CancelScope().__enter__()

    verdict = await judge(executor)
    assert isinstance(verdict, Raised)
    assert isinstance(verdict.exception, RuntimeError)
    assert shown(await judge(returns_when_cancelled)) == ("returned", "untouched")


async def returns_when_cancelled(job: JobContext) -> str:
    """Return after a checkpoint."""
    await trio.lowlevel.checkpoint()
    return "untouched"


# -- memory


class Thing:
    """Something whose end can be seen."""


@pytest.mark.parametrize("how", ["returned", "raised", "raised by child", "timed out", "stopped", "self", "grouped"])
async def test_no_garbage(how: str, autojump_clock: MockClock) -> None:
    """What an attempt held is freed when its verdict is, without the help of the collector."""
    things: list[weakref.ref[Thing]] = []

    async def child(thing: Thing) -> None:
        raise ValueError("child")

    async def executor(job: JobContext) -> None:
        thing = Thing()
        things.append(weakref.ref(thing))
        match how:
            case "raised":
                raise ValueError("no")
            case "raised by child":
                job.nursery.start_soon(child, thing)
            case "timed out" | "stopped":
                await trio.sleep_forever()
            case "self":
                job.cancel_scope.cancel()
                await trio.sleep_forever()
            case "grouped":
                raise ExceptionGroup("g", [ValueError("no")])

    gc.collect()
    gc.disable()
    try:
        attempt = new_attempt(5)
        if how == "stopped":
            verdict, _ = await stopped_after(attempt, executor, 1, (CANCELLED, 0))
        else:
            verdict = await run(attempt, executor)
        assert verdict is not None
        del attempt, verdict
        assert [ref() for ref in things] == [None]
    finally:
        gc.enable()
