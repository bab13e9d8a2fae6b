"""From how an attempt ended to what becomes of its job."""

from __future__ import annotations

import math
import sys
import time
from operator import itemgetter
from types import TracebackType
from typing import Any

import pytest

from jobtrio import Cancelled, Completed, Failed, GiveUp, JobError, JobPriority, Outcome, RetryLater, RetryPolicy
from jobtrio import _settlement as settlement
from jobtrio._entry import REASON, CancelRequest, JobEntry, Plan, reason_of
from jobtrio._settlement import Again, Finish, GiveBack, LetGo, Raised, Returned, Stopped, TimedOut, settle

TWICE = RetryPolicy(max_attempts=2, initial=7, jitter=0)


def job(retry: RetryPolicy | None = None, attempt: int = 1, cancel: CancelRequest | None = None) -> JobEntry:
    """Return a job in the middle of an attempt."""
    plan = Plan("work", None, "default", JobPriority.NORMAL, None, retry, "w")
    return JobEntry("id", plan, None, 0.0, attempt=attempt, failures=attempt - 1, cancel=cancel)


def decide(
    entry: JobEntry,
    verdict: settlement.Verdict,
    classes: tuple[type[BaseException], ...] = (Exception,),
    outlives: bool = False,
) -> settlement.NextStep:
    """Settle with these classes to retry."""
    return settle(entry, verdict, retry_on=lambda _: classes, outlives=outlives)


def ended(step: settlement.NextStep) -> tuple[Outcome, JobError | None]:
    """Return how a job ends, and what the clean-up of its last attempt raised."""
    assert isinstance(step, Finish)
    return step.outcome, step.error


def failed(step: settlement.NextStep) -> JobError:
    """Return what a job fails with."""
    outcome, _ = ended(step)
    assert isinstance(outcome, Failed)
    return outcome.error


def failure(step: settlement.NextStep) -> tuple[str, str, str]:
    """Return the kind, type and message that a job fails with."""
    error = failed(step)
    return error.kind, error.type, error.message


def again(step: settlement.NextStep) -> Again:
    """Return what says that another attempt follows."""
    assert isinstance(step, Again)
    return step


def test_returned() -> None:
    """A return is a completion with that result."""
    assert ended(decide(job(TWICE), Returned([1]))) == (Completed([1]), None)


def test_raised_without_a_policy() -> None:
    """An exception without a policy is the end, with type, message and traceback."""
    try:
        raise ValueError("no")
    except ValueError as exc:
        step = decide(job(), Raised(exc))
    assert failure(step) == ("exception", "ValueError", "no")
    assert 'raise ValueError("no")' in failed(step).traceback


def test_raised_with_attempts_left() -> None:
    """A policy gives another attempt after its delay, up to the last."""
    step = again(decide(job(TWICE), Raised(ValueError("no"))))
    assert (step.delay, step.error.kind, step.error.message) == (7.0, "exception", "no")
    assert failure(decide(job(TWICE, attempt=2), Raised(ValueError("no"))))[0] == "exception"
    assert failure(decide(job(TWICE, attempt=3), Raised(ValueError("no"))))[0] == "exception"


def test_classes_to_retry() -> None:
    """Only the registered classes are retried; a group is, if everything in it is of them."""
    only = (OSError,)
    assert again(decide(job(TWICE), Raised(ConnectionError()), only)).delay == 7
    assert failure(decide(job(TWICE), Raised(ValueError()), only))[1] == "ValueError"
    group = ExceptionGroup("both", [OSError(), ExceptionGroup("in", [ConnectionError()])])
    assert again(decide(job(TWICE), Raised(group), only)).delay == 7
    mixed = ExceptionGroup("both", [OSError(), ValueError()])
    assert failure(decide(job(TWICE), Raised(mixed), only))[1] == "ExceptionGroup"
    assert again(decide(job(TWICE), Raised(mixed))).delay == 7


def test_base_exceptions_are_not_retried() -> None:
    """What is no `Exception` is retried only where it is asked for."""
    assert failure(decide(job(TWICE), Raised(GeneratorExit())))[1] == "GeneratorExit"
    mixed = BaseExceptionGroup("both", [GeneratorExit(), ValueError()])
    assert failure(decide(job(TWICE), Raised(mixed)))[1] == "BaseExceptionGroup"
    assert again(decide(job(TWICE), Raised(GeneratorExit()), (GeneratorExit,))).delay == 7


def test_give_up() -> None:
    """`GiveUp` is the end whatever attempts are left, with its own kind."""
    assert failure(decide(job(TWICE), Raised(GiveUp("enough")))) == ("gave_up", "GiveUp", "enough")


@pytest.mark.parametrize(
    "group",
    [
        ExceptionGroup("one", [GiveUp("enough")]),
        ExceptionGroup("outer", [ExceptionGroup("inner", [GiveUp("enough")])]),
    ],
)
def test_give_up_through_nurseries(group: BaseException) -> None:
    """A decision that came through nurseries of the executor's own is still that decision."""
    assert failure(decide(job(TWICE), Raised(group))) == ("gave_up", "GiveUp", "enough")


def test_give_up_among_others() -> None:
    """One `GiveUp` among several exceptions is enough; the group is kept whole."""
    kind, name, _ = failure(decide(job(TWICE), Raised(ExceptionGroup("both", [ValueError(), GiveUp()]))))
    assert (kind, name) == ("gave_up", "ExceptionGroup")


def test_retry_later() -> None:
    """`RetryLater` has its own delay; with a policy the policy's attempts bound it, else the default ones."""
    step = again(decide(job(TWICE), Raised(RetryLater(3, "busy"))))
    assert (step.delay, step.error.type, step.error.message) == (3, "RetryLater", "busy")
    step = again(decide(job(TWICE), Raised(RetryLater(3, OSError("as it came")))))  # type: ignore[arg-type]
    assert step.error.message == "as it came"
    assert failure(decide(job(TWICE, attempt=2), Raised(RetryLater(3))))[0] == "exception"
    assert again(decide(job(attempt=2), Raised(RetryLater()))).delay == 0
    assert failure(decide(job(attempt=3), Raised(RetryLater(3))))[1] == "RetryLater"


def test_retry_later_in_spite_of_the_classes() -> None:
    """`RetryLater` is a request of its own, not one of the exceptions to retry."""
    assert again(decide(job(TWICE), Raised(RetryLater(3)), (OSError,))).delay == 3


def test_retry_later_through_a_nursery() -> None:
    """A request that came alone through a nursery counts; among other failures it does not."""
    step = again(decide(job(TWICE), Raised(ExceptionGroup("one", [RetryLater(3, "busy")]))))
    assert (step.delay, step.error.type) == (3, "RetryLater")
    assert again(decide(job(TWICE), Raised(ExceptionGroup("two", [RetryLater(3), OSError()])))).delay == 7


def test_retry_later_by_several_tasks() -> None:
    """Where all that was raised are requests, there is another attempt once the longest of their delays is over."""
    inner = ExceptionGroup("inner", [RetryLater(5), RetryLater(4)])
    for policy, classes in ((None, (Exception,)), (TWICE, (OSError,))):
        step = again(decide(job(policy), Raised(ExceptionGroup("outer", [RetryLater(3), inner])), classes))
        assert (step.delay, step.error.type) == (5, "ExceptionGroup")
    among_others = ExceptionGroup("outer", [inner, OSError()])
    assert failure(decide(job(), Raised(among_others)))[1] == "ExceptionGroup"


def test_retry_later_that_does_not_count() -> None:
    """An attempt that is not to count has another behind it in any case, unless one beside it counts."""
    for entry in (job(), job(TWICE), job(TWICE, attempt=2), job(attempt=3)):
        step = again(decide(entry, Raised(RetryLater(3, "busy", counts=False))))
        assert (step.delay, step.error.message, step.counts) == (3, "busy", False)
    assert again(decide(job(TWICE), Raised(RetryLater(3)))).counts
    two = ExceptionGroup("two", [RetryLater(3, counts=False), RetryLater(1, counts=False)])
    assert again(decide(job(TWICE, attempt=2), Raised(two))).delay == 3
    mixed = ExceptionGroup("two", [RetryLater(3, counts=False), RetryLater(1)])
    assert again(decide(job(TWICE), Raised(mixed))).counts
    assert failure(decide(job(TWICE, attempt=2), Raised(mixed)))[0] == "exception"


class Busy(RetryLater):
    """A request whose author forgot to call the base class."""

    def __init__(self) -> None:
        self.why = "forgot"


class Odd(RetryPolicy):
    """A policy whose arithmetic fails."""

    def delay_after(self, attempt: int, rng: Any = None) -> float:
        raise ZeroDivisionError("odd")


class Gone(RetryPolicy):
    """A policy that raises what is no `Exception`."""

    def delay_after(self, attempt: int, rng: Any = None) -> float:
        raise GeneratorExit("gone")


class Exits(RetryPolicy):
    """A policy that ends the program."""

    def delay_after(self, attempt: int, rng: Any = None) -> float:
        raise SystemExit


class Never(RetryPolicy):
    """A policy whose delay is no time at all."""

    def delay_after(self, attempt: int, rng: Any = None) -> float:
        return float("nan")


def test_what_the_user_gave_fails_the_job_alone() -> None:
    """A request or policy that does not work ends its job and says why; nothing is raised but an exit."""
    assert failure(decide(job(), Raised(Busy())))[1] == "AttributeError"
    assert failure(decide(job(Odd()), Raised(ValueError())))[1:] == ("ZeroDivisionError", "odd")
    assert failure(decide(job(Gone()), Raised(ValueError())))[1:] == ("GeneratorExit", "gone")
    with pytest.raises(SystemExit):
        decide(job(Exits()), Raised(ValueError()))
    kind, name, message = failure(decide(job(Never()), TimedOut(1, None)))
    assert (kind, name) == ("exception", "ValueError")
    assert "delay must be a number of seconds" in message
    later = RetryLater(1)
    later.delay = "soon"  # type: ignore[assignment]
    assert failure(decide(job(), Raised(later)))[1] == "TypeError"


def test_timed_out() -> None:
    """A time-out counts as a failed attempt, whatever the classes to retry; its kind tells it."""
    step = again(decide(job(TWICE), TimedOut(1.5, None), (OSError,)))
    assert (step.error.kind, step.error.type, step.delay) == ("timeout", "TimedOut", 7)
    assert step.error.message == "the attempt took longer than its time limit of 1.5 s"
    assert step.error.traceback == ""
    assert failure(decide(job(TWICE, attempt=2), TimedOut(1.5, None)))[0] == "timeout"


def test_timed_out_without_a_limit() -> None:
    """An attempt without a limit can move its scope's deadline, and run into that."""
    kind, _, message = failure(decide(job(), TimedOut(math.inf, None)))
    assert (kind, message) == ("timeout", "the attempt took longer than the deadline that it has set itself")


def test_timed_out_with_a_bad_clean_up() -> None:
    """What the clean-up of a timed-out attempt raised is told with the time-out."""
    try:
        raise ValueError("no")
    except ValueError as exc:
        step = decide(job(), TimedOut(1, exc))
    assert failure(step)[2] == (
        "the attempt took longer than its time limit of 1 s; its clean-up raised ValueError: no"
    )
    assert "raise ValueError" in failed(step).traceback


def test_stopped_by_a_request() -> None:
    """A request ends the job with the request's reason, and keeps what the clean-up raised."""
    entry = job(TWICE, cancel=CancelRequest(0, "why", 0))
    assert ended(decide(entry, Stopped(settlement.CANCELLED, None))) == (Cancelled("why"), None)
    outcome, error = ended(decide(entry, Stopped(settlement.CANCELLED, ValueError("no"))))
    assert (outcome, str(error)) == (Cancelled("why"), "ValueError: no")


def test_stopped_by_itself() -> None:
    """An executor that cancelled its own scope has no reason, but where somebody gave one in the end."""
    assert ended(decide(job(), Stopped(settlement.SELF, None)))[0] == Cancelled(None)
    assert ended(decide(job(cancel=CancelRequest(0, "why", 0)), Stopped(settlement.SELF, None)))[0] == Cancelled("why")


def test_stopped_by_a_shutdown() -> None:
    """A shutdown ends what cannot outlive the process, and gives back what can."""
    assert ended(decide(job(), Stopped(settlement.SHUTDOWN, None)))[0] == Cancelled("shutdown")
    assert isinstance(decide(job(), Stopped(settlement.SHUTDOWN, None), outlives=True), GiveBack)


def test_stopped_by_a_lost_lease() -> None:
    """Of a lost job nothing is written."""
    assert isinstance(decide(job(), Stopped(settlement.LOST, ValueError()), outlives=True), LetGo)


def test_a_request_outlives() -> None:
    """A cancelled job ends, also where it could outlive the process."""
    entry = job(cancel=CancelRequest(0, "why", 0))
    assert ended(decide(entry, Stopped(settlement.CANCELLED, None), outlives=True))[0] == Cancelled("why")


class MuteError(Exception):
    """An exception whose text is an exception."""

    def __str__(self) -> str:
        raise GeneratorExit


class LoudError(Exception):
    """An exception whose text is an exit."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_an_exception_without_text() -> None:
    """An exception that cannot be shown is named all the same; an exit on the way is let through."""
    error = settlement.describe(MuteError())
    assert (error.type, error.message) == ("MuteError", "<its text raised GeneratorExit>")
    with pytest.raises(KeyboardInterrupt):
        settlement.describe(LoudError())


def test_a_group_says_what_is_in_it() -> None:
    """Behind a group's own text, which tells nothing, stand its first three exceptions, however deep in it."""
    two = ExceptionGroup("in", [ValueError("row 2"), KeyError()])
    assert settlement.describe(ExceptionGroup("out", [two])).message == (
        "out (1 sub-exception): ValueError: row 2; KeyError"
    )
    more = ExceptionGroup("out", [two, MuteError(), OSError(), OSError()])
    assert settlement.describe(more).message == (
        "out (4 sub-exceptions): ValueError: row 2; KeyError; MuteError: <its text raised GeneratorExit>; …"
    )


def test_a_traceback_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback that cannot be formatted is told; an exit on the way is let through."""

    def fail(_: BaseException) -> list[str]:
        raise failing

    monkeypatch.setattr("traceback.format_exception", fail)
    failing: BaseException = RecursionError()
    assert settlement.describe(ValueError("no")).traceback == "<its traceback raised RecursionError>"
    failing = SystemExit()
    with pytest.raises(SystemExit):
        settlement.describe(ValueError("no"))


def test_long_texts_are_cut() -> None:
    """Of a long traceback the last 64 Ki characters are kept, of a long text these but for its middle."""
    error = settlement.describe(ValueError("begin" + "x" * 100_000 + "end"))
    assert len(error.message) == len(error.traceback) == 64 * 1024
    assert error.message.startswith("beginx")
    assert error.message.count("…") == 1
    assert error.message.endswith("xend")
    assert error.traceback.endswith("xend\n")
    whole = "y" * 64 * 1024
    assert settlement.describe(ValueError(whole)).message == whole


def test_the_reason_of_a_long_text() -> None:
    """In the history a long text has its beginning, however long it is."""
    for size in (REASON, 100_000):
        text = "".join(f"row {n}, " for n in range(size))[:size]
        reason = reason_of(settlement.describe(ValueError(text)))
        assert reason == f"{f'ValueError: {text}'[: REASON - 1]}…"


LEFT_OUT = "(of more than 500 exceptions, or 10000 frames, the others are left out)\n"


def chained(count: int, how: str) -> BaseException:
    """Return an exception that stands for so many: it came from them by ``how``, or they are nested in it."""
    exc: BaseException = ValueError("first")
    for _ in range(count - 1):
        before = exc
        if how == "nested":
            exc = BaseExceptionGroup("deeper", [before])
            continue
        exc = RuntimeError("next")
        setattr(exc, how, before)
    return exc


@pytest.mark.parametrize("how", ["__cause__", "__context__", "nested"])
def test_a_long_chain(how: str) -> None:
    """A traceback tells of 500 exceptions; of the last one alone where there are more, be there ever so many."""
    assert "left out" not in settlement.describe(chained(500, how)).traceback
    for count in (501, 200_000):
        told = settlement.describe(chained(count, how))
        assert told.traceback.startswith(f"Traceback (most recent call last):\n{told.type}: {told.message}\n")
        assert told.traceback.endswith(LEFT_OUT)


def deep(count: int) -> ValueError:
    """Return an exception that was raised in so many calls within each other."""
    trace: TracebackType | None = None
    for _ in range(count):
        trace = TracebackType(trace, sys._getframe(), 0, 1)
    return ValueError("deep").with_traceback(trace)


@pytest.mark.parametrize("is_cause", [False, True])
def test_a_deep_traceback(is_cause: bool) -> None:
    """A traceback tells of 10,000 frames, of all exceptions together; of the last 1,000 where there are more.

    A program that has raised the limit of recursion may bring a million, and others would wait until all are told.
    """

    def described(count: int) -> tuple[str, float]:
        exc: Exception = deep(count)
        if is_cause:
            before, exc = exc, RuntimeError("behind it")
            exc.__cause__ = before
        began = time.perf_counter()
        trace = settlement.describe(exc).traceback
        return trace, time.perf_counter() - began

    most, seconds = min((described(10_000) for _ in range(2)), key=itemgetter(1))
    assert "left out" not in most
    more, _ = described(10_001)
    assert more.endswith(LEFT_OUT)
    assert ("repeated 997 more times" in more) == (not is_cause)
    assert min(described(200_000)[1] for _ in range(2)) < 10 * seconds


def test_a_chain_that_is_not_told() -> None:
    """What an exception was raised behind does not count where it is not told of; neither does a circle."""
    exc = chained(501, "__context__")
    exc.__suppress_context__ = True
    assert settlement.describe(exc).traceback == "RuntimeError: next\n"
    circle = chained(3, "__cause__")
    assert circle.__cause__ is not None
    circle.__cause__.__cause__ = circle
    assert "left out" not in settlement.describe(circle).traceback


@pytest.mark.parametrize(
    ("leaf", "kind"), [(GiveUp("no"), "gave_up"), (KeyError("no"), "exception"), (ValueError("no"), None)]
)
def test_groups_too_deep_to_recurse(leaf: Exception, kind: str | None) -> None:
    """What is deep within nested groups counts as it would further out."""
    exc: Exception = leaf
    for _ in range(100_000):
        exc = ExceptionGroup("deeper", [exc, ValueError("beside")])
    step = decide(job(TWICE), Raised(exc), (ValueError,))
    assert (None if isinstance(step, Again) else failure(step)[0]) == kind
