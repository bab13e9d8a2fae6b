"""The states of a job and the changes between them, as one table.

Two rules of this file: every change of state anywhere in jobtrio goes through `check_transition`,
and the diagram in the docs is made from `TRANSITIONS`, never drawn by hand. It is pure: it knows
neither records nor time.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

from jobtrio._checks import show
from jobtrio._errors import IllegalTransitionError

if TYPE_CHECKING:
    from collections.abc import Iterable


class JobState(StrEnum):
    """Where a job is in its life. The last three are final."""

    SCHEDULED = "SCHEDULED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether a job in this state has ended."""
        return self in FINAL_STATES


_S = JobState

FINAL_STATES: frozenset[JobState] = frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED})

WAITING_STATES: frozenset[JobState] = frozenset({_S.SCHEDULED, _S.QUEUED, _S.RETRYING})

TRANSITIONS: dict[JobState | None, dict[JobState, str]] = {
    None: {
        _S.SCHEDULED: "submitted with a start time in the future",
        _S.QUEUED: "submitted",
    },
    _S.SCHEDULED: {_S.QUEUED: "due", _S.CANCELLED: "cancelled"},
    _S.QUEUED: {_S.RUNNING: "started", _S.CANCELLED: "cancelled", _S.FAILED: "expired in the queue"},
    _S.RUNNING: {
        _S.COMPLETED: "returned",
        _S.FAILED: "raised, timed out, gave up or was lost too often",
        _S.CANCELLED: "cancelled",
        _S.RETRYING: "failed with attempts left",
        _S.QUEUED: "released by a shutdown or a lost lease",
    },
    _S.RETRYING: {_S.QUEUED: "delay over", _S.CANCELLED: "cancelled"},
    _S.COMPLETED: {},
    _S.FAILED: {},
    _S.CANCELLED: {},
}
"""What may follow what, and when. None stands for a job that does not exist yet."""


def check_transition(previous: JobState | None, state: JobState) -> None:
    """Raise `IllegalTransitionError` unless the table has this change."""
    if state not in TRANSITIONS[previous]:
        raise IllegalTransitionError(previous, state)


def counts_by_queue(rows: Iterable[tuple[str, JobState, int]]) -> dict[str, dict[JobState, int]]:
    """Add up rows of a queue, a state and how many jobs: for each queue that has jobs, all states, 0 where none is."""
    found: dict[str, dict[JobState, int]] = {}
    for queue, state, count in rows:
        if count:
            found.setdefault(queue, dict.fromkeys(JobState, 0))[state] += count
    return found


def check_states(state: Any) -> frozenset[JobState] | None:
    """Return ``state``, one state or several, as a set; None stands for any."""
    if state is None:
        return None
    states = (state,) if isinstance(state, str) else state
    try:
        return frozenset(JobState(each) for each in states)
    except (ValueError, TypeError):
        allowed = ", ".join(JobState)
        raise ValueError(f"state must be one or several of {allowed}; got {show(state)}") from None
