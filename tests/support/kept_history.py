"""What a store has of a job's history and of its stream, checked from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobtrio._state import TRANSITIONS, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

RESTART = 2
"""The kind of a `Restart`, as stores write it."""


def check_changes(job_id: str, flat: list[Any], delay: float) -> tuple[JobState, int]:
    """Check that each change, five parts, follows from the one before; return the state and the attempt at the end.

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


def check_stream(job_id: str, chunks: Iterable[tuple[int, int, list[list[Any]]]]) -> int:
    """Check that numbers are dense, attempts only go up, and a `Restart` ends each; return the last number.

    Args:
        job_id: The job.
        chunks: The numbers of each chunk's first and last message, and the messages, in order.
    """
    last, attempt, is_over = None, 0, False
    for first, last_of_these, messages in chunks:
        assert last in (None, first - 1), f"{job_id}: {first} behind {last}"
        assert last_of_these - first + 1 == len(messages), job_id
        last = last_of_these
        for kind, of_attempt, *_ in messages:
            assert of_attempt >= attempt, f"{job_id}: attempt {of_attempt} behind {attempt}"
            assert of_attempt == attempt or attempt == 0 or is_over, f"{job_id}: no Restart before {of_attempt}"
            attempt, is_over = of_attempt, kind == RESTART
    return last or 0
