"""Every error that jobtrio raises, as leaves of one root, and the two exceptions an executor may raise.

This module owns their names, attributes and wording. It must not know how any of them comes about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobtrio._checks import NAME_LIMIT, check_flag, check_seconds, show

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from jobtrio._records import JobError

_WHOLE: Final = 2 * NAME_LIMIT + 2
"""Characters that show any id or name in full, with quotes and escapes; what was asked for may be no such thing."""


class JobtrioError(Exception):
    """The root of jobtrio's own errors."""


class UnknownJobError(JobtrioError, LookupError):
    """No job has this id: it never existed, or it ended and is no longer kept.

    Attributes:
        job_id: The id that was asked for.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"no job has the id {show(self.job_id, _WHOLE)}: it never existed or is no longer kept"


class DuplicateJobError(JobtrioError, ValueError):
    """A job with this id exists already.

    Attributes:
        job_id: The id that was given twice.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"job_id {self.job_id!r} is in use: give another, or none to have one made"


class IllegalTransitionError(JobtrioError):
    """A change of state that the transition table does not allow.

    Attributes:
        previous: The state the job is in; None for a job not yet made.
        state: The state that was asked for; None if the job was to be removed.
    """

    def __init__(self, previous: str | None, state: str | None, message: str | None = None) -> None:
        super().__init__(previous, state, message)
        self.previous = previous
        self.state = state
        self.message = message

    def __str__(self) -> str:
        return self.message or f"a job cannot go from {self.previous} to {self.state}"


class UnknownExecutorError(JobtrioError, LookupError):
    """No executor is registered under this name.

    Attributes:
        name: The name that was asked for.
        known: The names that are registered.
    """

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        self.known: tuple[str, ...] = tuple(sorted(known))
        super().__init__(name, self.known)

    def __str__(self) -> str:
        if self.name in self.known:  # a function was given, by whose name another is known
            return f"another function than this is registered as {self.name!r}: give that name, or register this too"
        known = ", ".join(map(repr, self.known)) or "none"
        return f"no executor is registered as {show(self.name, _WHOLE)}; registered: {known}"


class PayloadError(JobtrioError, TypeError):
    """A payload, metadata, token, result or saved state that cannot be kept as it is."""


class QueueFullError(JobtrioError):
    """More jobs than ``max_queued`` would wait for their first start.

    Attributes:
        limit: The value of ``max_queued``.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"max_queued is {self.limit}: more jobs would wait for their first start"


class CommandFailedError(JobtrioError):
    """A program that ``run_command`` ran did not exit with 0.

    Attributes:
        returncode: The exit code, or minus the signal's number.
    """

    def __init__(self, returncode: int, message: str) -> None:
        super().__init__(returncode, message)
        self.returncode = returncode
        self.message = message

    def __str__(self) -> str:
        return self.message


class JobEndedError(JobtrioError):
    """Something was sent for an attempt that is over.

    Attributes:
        job_id: The job's id.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"this attempt of job {self.job_id!r} is over: nothing more can be sent"


class LaggedError(JobtrioError):
    """A consumer fell behind what is kept. Further reading goes on after the gap.

    Attributes:
        first: The number of the first message that is gone.
        last: The number of the last message that is gone.
    """

    def __init__(self, first: int, last: int) -> None:
        super().__init__(first, last)
        self.first = first
        self.last = last

    def __str__(self) -> str:
        return f"messages {self.first} to {self.last} are no longer kept"


class JobFailedError(JobtrioError):
    """The job whose result was asked for has failed.

    Attributes:
        job_id: The job's id.
        error: Its `JobError`.
    """

    def __init__(self, job_id: str, error: JobError) -> None:
        super().__init__(job_id, error)
        self.job_id = job_id
        self.error = error

    def __str__(self) -> str:
        return f"job {self.job_id!r} failed ({self.error.kind}): {self.error}"


class JobCancelledError(JobtrioError):
    """The job whose result was asked for was cancelled.

    Attributes:
        job_id: The job's id.
        reason: The reason that was given, or None.
    """

    def __init__(self, job_id: str, reason: str | None) -> None:
        super().__init__(job_id, reason)
        self.job_id = job_id
        self.reason = reason

    def __str__(self) -> str:
        why = "" if self.reason is None else f": {self.reason}"
        return f"job {self.job_id!r} was cancelled{why}"


class StoreError(JobtrioError):
    """A store is damaged, foreign, or did what it must not."""


class StoreUnavailableError(StoreError):
    """A store is away for now. What was acknowledged is kept; the call may be repeated."""


class StoreVersionError(StoreError):
    """A store's format is newer than this version of jobtrio knows."""


class RetryLater(Exception):  # noqa: N818 - a request, not an error
    """Raised by an executor to get another attempt after a delay of its choice.

    Attributes:
        delay: Seconds until the next attempt; 0 or more, finite.
        message: Why; it becomes the error's message. None for one that names the delay.
        counts: Whether this attempt is one of the ``max_attempts`` of the job's policy. Where it isn't, as one that a
            service had no time for, the executor may ask for another as often as it likes.
    """

    counts: bool = True  # also of a subclass that sets its own attributes alone

    def __init__(self, delay: float = 0.0, message: str | None = None, *, counts: bool = True) -> None:
        self.delay: float = check_seconds("delay", delay)
        self.message = message
        self.counts = check_flag("counts", counts)
        super().__init__(delay, message)

    def __str__(self) -> str:
        # `str`, for an exception is often passed on as it is: what went wrong must not get lost over that.
        return str(self.message or f"asked for another attempt in {self.delay:g} s")


class GiveUp(Exception):  # noqa: N818 - a decision, not an error
    """Raised by an executor to fail the job for good, however many attempts are left.

    Attributes:
        message: Why; it becomes the error's message.
    """

    def __init__(self, message: str = "the executor gave up") -> None:
        super().__init__(message)
        self.message = message


def again(error: StoreError) -> StoreError:
    """Return an error of the same kind for another task: an exception object belongs to one."""
    fresh = type(error)(*error.args)
    fresh.__cause__ = error.__cause__
    return fresh


def call_by_public_names(module: Mapping[str, Any]) -> None:
    """Have tracebacks call the errors that a module exports by its name, rather than by those of private modules.

    Args:
        module: The module's names, with ``__all__``.
    """
    for error in map(module.__getitem__, module["__all__"]):
        if isinstance(error, type) and issubclass(error, BaseException):
            error.__module__ = module["__name__"]
