"""What is said of a job: its record, its outcome, its history. Frozen values, safe to keep.

Records are snapshots: they do not change when the job does. This module knows nothing of how a job
comes by any of it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

import attrs

from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._state import JobState

ErrorKind: TypeAlias = Literal["exception", "timeout", "expired", "gave_up", "lost"]
"""Why a job failed."""


@attrs.frozen
class JobError:
    """What went wrong, all as text.

    Attributes:
        kind: ``"exception"``, ``"timeout"``, ``"expired"``, ``"gave_up"`` or ``"lost"``.
        type: The exception's class, or what stands in for one.
        message: The exception's text; for a group, also what its first three exceptions are.
        traceback: The formatted traceback, or ``""``.
    """

    kind: ErrorKind
    type: str
    message: str
    traceback: str = ""

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type


@attrs.frozen
class Completed:
    """The executor returned.

    Attributes:
        result: What it returned.
    """

    result: Any = None


@attrs.frozen
class Failed:
    """The job failed for good.

    Attributes:
        error: Why.
    """

    error: JobError


@attrs.frozen
class Cancelled:
    """The job was cancelled.

    Attributes:
        reason: The reason given with the first request, or None.
    """

    reason: str | None = None


Outcome: TypeAlias = Completed | Failed | Cancelled
"""How a job ended."""


@attrs.frozen
class Transition:
    """One change of a job's state: a line of the audit log.

    Attributes:
        job_id: The job.
        at: When, an aware UTC datetime by wall time.
        previous: The state before it; None for the first.
        state: The state after it.
        attempt: The attempt it belongs to; 0 before the first start.
        worker: The name of the process that made the change.
        reason: Why, or None.
    """

    job_id: str
    at: datetime
    previous: JobState | None
    state: JobState
    attempt: int
    worker: str
    reason: str | None


@attrs.frozen
class WorkerReport:
    """A worker that is present: a registry that claims jobs.

    Attributes:
        name: Its name in the audit log.
        started_at: When it started; an aware UTC datetime.
        seen_at: When it last reported that it is present.
        running: How many jobs it runs.
    """

    name: str
    started_at: datetime
    seen_at: datetime
    running: int


@attrs.frozen
class JobRecord:
    """All that is known about a job at one moment.

    Attributes:
        id: Its id.
        executor: The executor's name; None while a held job has none.
        payload: What the executor is given.
        queue: The queue it waits in.
        priority: Its `JobPriority`.
        tags: Strings by name, to find it by.
        metadata: Any values by name.
        key: Its idempotency key, or None.
        state: Its `JobState`.
        attempt: The current or last attempt, from 1; 0 before the first start.
        max_attempts: How many attempts its policy allows; 1 without one.
        created_at: When it was submitted. Times are aware UTC datetimes by wall time.
        run_at: The earliest start that was asked for, as a moment or by a delay, or None.
        started_at: When the current or last attempt started, or None.
        finished_at: When it ended, or None.
        duration: Seconds from ``started_at`` to ``finished_at``, or None while either is missing.
        worker: The process that runs or last ran it, or None.
        cancel_requested_at: When it was first asked to stop, or None.
        cancel_reason: The reason then given, or None.
        error: What ended the last attempt that failed, or None.
        result: What the executor returned, once completed.
        time_limit: Seconds that an attempt may take: those that were given, or else its executor's when it was
            submitted. None without a limit; inf where it was to have none whatever its executor has.
        retry: The retry policy, likewise; None for a single attempt.
        expires_in: Seconds from its submission within which the first attempt has to start, or None.
    """

    id: str
    executor: str | None
    payload: Any
    queue: str
    priority: JobPriority
    tags: dict[str, str]
    metadata: dict[str, Any]
    key: str | None
    state: JobState
    attempt: int
    max_attempts: int
    created_at: datetime
    run_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration: float | None = attrs.field(init=False, default=None)
    worker: str | None = None
    cancel_requested_at: datetime | None = None
    cancel_reason: str | None = None
    error: JobError | None = None
    result: Any = None
    time_limit: float | None = None
    retry: RetryPolicy | None = None
    expires_in: float | None = None

    def __attrs_post_init__(self) -> None:
        if self.started_at is not None and self.finished_at is not None:
            object.__setattr__(self, "duration", (self.finished_at - self.started_at).total_seconds())


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def moment(timestamp: float) -> datetime:
    """Return a wall-clock time in seconds as an aware UTC datetime."""
    return _EPOCH + timedelta(0, timestamp)  # which knows more years than some systems' clocks do
