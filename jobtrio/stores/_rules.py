"""What every store decides alike: about jobs that were lost, released, expired or cancelled, and which match a query.

Pure: it knows entries and outcomes, neither clocks nor where jobs are kept.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from jobtrio._entry import CancelRequest
from jobtrio._errors import IllegalTransitionError
from jobtrio._records import Cancelled, Failed, JobError
from jobtrio._state import JobState

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio._policies import Retention
    from jobtrio._records import JobRecord, Outcome
    from jobtrio.abc import JobQuery

LOSSES = 3
"""Leases lost in a row after which a job fails: whatever kills its workers must stop somewhere."""

COUNTED = (JobState.QUEUED, JobState.RETRYING, JobState.SCHEDULED, JobState.RUNNING)
"""The states of jobs that a `Backlog` counts, in the order of its fields."""


def lost(entry: JobEntry) -> JobError:
    """Return what is said of an attempt whose worker is gone or did not renew its lease."""
    return JobError("lost", "LeaseLost", f"worker {entry.worker!r} is gone or did not renew its lease")


def released(reason: str) -> JobError:
    """Return what is said of an attempt that its worker gave back."""
    return JobError("lost", "Released", reason)


def expired(entry: JobEntry, retention: Retention) -> JobError:
    """Return what is said of a job that was not started in time."""
    if entry.is_held and (entry.expires_in is None or entry.expires_in > entry.delay + retention.held_for):
        return JobError("expired", "Expired", "nobody executed it within the time that it is held (held_for)")
    if entry.expires_in is None:
        return JobError("expired", "Expired", "not started in time")  # somebody else has written when it expires
    return JobError("expired", "Expired", f"not started within {entry.expires_in:g} s (expires_in)")


def wait_of(entry: JobEntry, retention: Retention) -> float | None:
    """Return within how many seconds from its insertion a job has to start; None where it has time."""
    held_for = entry.delay + retention.held_for if entry.is_held else inf
    wait = held_for if entry.expires_in is None else min(held_for, entry.expires_in)
    return None if wait == inf else wait


def ask_to_cancel(entry: JobEntry, now: float, reason: str | None, grace: float) -> CancelRequest:
    """Note a request to cancel a living job, and return what counts: the first one, with the shortest grace of all."""
    if entry.cancel is None:
        entry.cancel = CancelRequest(now, reason, grace)
    elif grace < entry.cancel.grace:
        entry.cancel = entry.cancel._replace(grace=grace)
    return entry.cancel


def heeding_cancel(entry: JobEntry, outcome: Outcome, error: JobError | None) -> tuple[Outcome, JobError | None]:
    """Return how a running job ends: a request to cancel that was accepted wins, and a failure becomes its error."""
    if entry.cancel is None:
        return outcome, error
    return Cancelled(entry.cancel.reason), outcome.error if isinstance(outcome, Failed) else error


def still_lives(job_id: str, state: JobState) -> IllegalTransitionError:
    """Return the error of who removes a job that has not ended."""
    why = f"job {job_id!r} is {state}: only an ended job can be removed; cancel it first"
    return IllegalTransitionError(state, None, why)


def can_match(query: JobQuery) -> bool:
    """Whether a job can be what is looked for: names and tags are printable, which UTF-8 can hold, and not empty."""
    names = [name for name in (query.queue, query.executor, query.key) if name is not None]
    names += (part for tag in (query.tags or {}).items() for part in tag)
    return all(name and name.isprintable() for name in names)


def matches(entry: JobEntry, query: JobQuery) -> bool:
    """Whether a job has the state, queue, executor and tags that are looked for."""
    if query.states is not None and entry.state not in query.states:
        return False
    if query.queue is not None and entry.plan.queue != query.queue:
        return False
    if query.executor is not None and entry.plan.executor != query.executor:
        return False
    tags = entry.tags or {}
    return not query.tags or all(tags.get(key) == value for key, value in query.tags.items())


def found_by_key(entry: JobEntry | None, query: JobQuery, after: int | None) -> list[JobRecord]:
    """Return what a query finds that names a key: the record of the job that has it, if all else matches as well.

    Args:
        entry: The job that the store's index of keys names, or None.
        query: The query.
        after: The number behind which to look, in the order that is asked for; None for all.
    """
    if entry is None or entry.key != query.key or not matches(entry, query):
        return []
    is_behind = after is None or (entry.order < after if query.newest_first else entry.order > after)
    return [entry.record()] if is_behind else []


def lapse(entry: JobEntry) -> Outcome | JobError:
    """Note a lost lease; return how the job ends by it, or the error of its attempt where it returns to its queue."""
    entry.claim = None
    entry.losses += 1
    if entry.cancel is not None:
        return Cancelled(entry.cancel.reason)
    entry.error = lost(entry)
    return Failed(entry.error) if entry.losses >= LOSSES else entry.error
