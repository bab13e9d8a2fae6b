"""What a store has of a job's history, checked from outside: five parts a change, flat."""

from __future__ import annotations

from typing import Any

from jobtrio._state import TRANSITIONS, JobState


def check_changes(job_id: str, flat: list[Any], delay: float) -> tuple[JobState, int]:
    """Check that each change follows from the one before; return the state and the attempt at the end.

    The submission is not among them. Of a long history the oldest attempts are gone, whole ones.
    """
    changes = [flat[n : n + 5] for n in range(0, len(flat), 5)]
    state, attempt = (JobState.SCHEDULED if delay > 0 else JobState.QUEUED), 0
    if changes and changes[0][2] > 1:
        state, attempt = JobState.QUEUED, changes[0][2] - 1
    for _, following, number, _, _ in changes:
        assert following in TRANSITIONS[state], f"{job_id}: {state} to {following}"
        assert number == attempt + (following == "RUNNING"), f"{job_id}: attempt {number} after {attempt}"
        state, attempt = JobState(following), number
    return state, attempt
