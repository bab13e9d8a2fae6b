"""From how an attempt ended to what becomes of its job: pure, by the job's policy.

It owns which failures are retried and after which delay. It must not know stores or tasks.
"""

from __future__ import annotations

import traceback
from collections import deque
from functools import partial
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from jobtrio._checks import check_seconds, clean_text, text_by
from jobtrio._errors import GiveUp, RetryLater
from jobtrio._exceptions import EXITS, frames_of, holds, is_all, is_more_than, leaves, lone_leaf
from jobtrio._policies import RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, JobError, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._entry import JobEntry

TEXT_LIMIT = 64 * 1024
"""Characters kept of a traceback, the last ones, or of an exception's text, of which the first are kept as well."""

FIRST = 1_000
"""Characters from an exception's text's beginning that are among those: as many as a job's history has of it."""

TOLD = 500
FRAMES = 10_000
"""Exceptions that a traceback tells of, and frames of them all: the text of a tenth is cut, and each takes time."""

LAST = 1_000
"""Frames that it tells of where there are more."""

NAMED = 3
"""Exceptions of a group that stand behind its text."""

CANCELLED = "cancelled"  # by a request
SELF = "self"  # the executor cancelled its own scope
SHUTDOWN = "shutdown"  # the registry goes; also the reason then given
LOST = "lost"  # the lease is lost

# -- how an attempt ended


@attrs.define(eq=False)
class Returned:
    """The executor returned, and all its child tasks are over."""

    result: Any


@attrs.define(eq=False)
class Raised:
    """The attempt failed with an exception, of the executor's or of a child task's."""

    exception: BaseException


@attrs.define(eq=False)
class TimedOut:
    """Its time was up. ``exception`` is what its clean-up raised, or None."""

    limit: float
    exception: BaseException | None


@attrs.define(eq=False)
class Stopped:
    """It was asked to end. ``exception`` is what its clean-up raised, or None."""

    cause: str
    exception: BaseException | None


Verdict: TypeAlias = Returned | Raised | TimedOut | Stopped

# -- what becomes of the job


@attrs.define(eq=False)
class Finish:
    """It ends. ``error`` is what a cancelled attempt's clean-up raised, or None."""

    outcome: Outcome
    error: JobError | None = None


@attrs.define(eq=False)
class Again:
    """Another attempt follows. ``counts`` says whether the one that has failed is one of those the job may have."""

    error: JobError
    delay: float
    counts: bool = True


@attrs.define(eq=False)
class GiveBack:
    """It returns to its queue, unfinished."""


@attrs.define(eq=False)
class LetGo:
    """It is no longer this process's: nothing is written."""


RetryOn: TypeAlias = "Callable[[JobEntry], tuple[type[BaseException], ...]]"
NextStep: TypeAlias = Finish | Again | GiveBack | LetGo


def settle(entry: JobEntry, verdict: Verdict, *, retry_on: RetryOn, outlives: bool) -> NextStep:
    """Return what becomes of a job whose current attempt has ended.

    Where what the user gave gets in the way, such as a `RetryLater` without a delay, the job fails with that.

    Args:
        entry: The job.
        verdict: How the attempt ended.
        retry_on: Says which exceptions a job's policy retries.
        outlives: Whether the job outlives this process, so that a shutdown gives it back.
    """
    try:
        match verdict:
            case Returned(result=result):
                return Finish(Completed(result))
            case Raised(exception=exception):
                return _after_exception(entry, exception, retry_on)
            case TimedOut(limit=limit, exception=exception):
                return _again_or_finish(_timed_out(limit, exception), _policy_delay(entry))
            case Stopped(cause=cause, exception=exception):
                return _after_stop(entry, cause, exception, outlives=outlives)
    except EXITS:
        raise
    except BaseException as exc:
        return Finish(Failed(describe(exc)))


def describe(exception: BaseException, kind: Any = "exception") -> JobError:
    """Return an exception as a `JobError`; one that can't be shown is named all the same."""
    message = _message(exception)
    trace = text_by(exception, partial(_trace, message=message), "its traceback")
    texts = type(exception).__name__[-TEXT_LIMIT:], _without_middle(message), trace[-TEXT_LIMIT:]
    return JobError(kind, *map(clean_text, texts))


def _without_middle(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[:FIRST]}…{text[FIRST + 1 - TEXT_LIMIT :]}"


def _message(exception: BaseException) -> str:
    """Return an exception's text, and behind that of a group the first exceptions that it holds."""
    text = text_by(exception, str, "its text")
    if not isinstance(exception, BaseExceptionGroup):
        return text
    inner = leaves(exception)
    named = [
        str(JobError("exception", type(leaf).__name__, text_by(leaf, str, "its text"))) for leaf in islice(inner, NAMED)
    ]
    if next(inner, None) is not None:
        named.append("…")
    return f"{text}: {'; '.join(named)}"


def _trace(exception: BaseException, message: str) -> str:
    """Return the traceback, with those of all that it came from unless they are too many."""
    if not is_more_than(TOLD, FRAMES, exception):
        return "".join(traceback.format_exception(exception))
    last = deque(frames_of(exception), maxlen=LAST)
    frames = "".join(traceback.format_tb(last[0] if last else None))
    name = type(exception).__qualname__
    left_out = f"(of more than {TOLD} exceptions, or {FRAMES} frames, the others are left out)"
    return f"Traceback (most recent call last):\n{frames}{name}: {message}\n{left_out}\n"


def _after_exception(entry: JobEntry, exception: BaseException, retry_on: RetryOn) -> NextStep:
    lone = lone_leaf(exception)
    if isinstance(lone, GiveUp):
        return Finish(Failed(describe(lone, "gave_up")))
    if holds(lone, GiveUp):
        return Finish(Failed(describe(exception, "gave_up")))
    if is_all(lone, RetryLater):
        asked = [leaf for leaf in leaves(lone) if isinstance(leaf, RetryLater)]  # as all of them are
        counts = any(leaf.counts for leaf in asked)
        policy = entry.plan.retry or RetryPolicy()
        has_more = not counts or entry.failures + 1 < policy.max_attempts
        return _again_or_finish(describe(lone), max(leaf.delay for leaf in asked) if has_more else None, counts=counts)
    delay = _policy_delay(entry) if is_all(exception, retry_on(entry)) else None
    return _again_or_finish(describe(exception), delay)


def _after_stop(entry: JobEntry, cause: str, exception: BaseException | None, *, outlives: bool) -> NextStep:
    if cause == LOST:
        return LetGo()
    if cause == SHUTDOWN and outlives:
        return GiveBack()
    reason = None
    if cause == SHUTDOWN:
        reason = SHUTDOWN
    elif entry.cancel is not None:
        reason = entry.cancel.reason
    return Finish(Cancelled(reason), None if exception is None else describe(exception))


def _again_or_finish(error: JobError, delay: float | None, *, counts: bool = True) -> NextStep:
    return Finish(Failed(error)) if delay is None else Again(error, check_seconds("delay", delay), counts)


def _policy_delay(entry: JobEntry) -> float | None:
    """Return the seconds until the next attempt by the job's policy, or None where there is none."""
    policy = entry.plan.retry
    if policy is None or entry.is_last_attempt:
        return None
    return policy.delay_after(entry.failures + 1)


def _timed_out(limit: float, exception: BaseException | None) -> JobError:
    message = f"the attempt took longer than its time limit of {limit:g} s"
    if limit == inf:
        message = "the attempt took longer than the deadline that it has set itself"
    if exception is None:
        return JobError("timeout", "TimedOut", message)
    after = describe(exception)
    return JobError("timeout", "TimedOut", f"{message}; its clean-up raised {after}", after.traceback)
