"""Records as a table's cells."""

from __future__ import annotations

from datetime import UTC, datetime

import attrs
import pytest

from jobtrio import JobPriority, JobRecord, JobState
from jobtrio.cli._records import attempt_text, note_text

NOW = datetime(2026, 1, 31, tzinfo=UTC)
RECORD = JobRecord("a", "e", None, "q", JobPriority.LOW, {}, {}, None, JobState.RUNNING, 1, 2, NOW)


@pytest.mark.parametrize(
    ("attempt", "most", "shown"), [(1, 1, "1"), (2, 1, "2"), (1, 2, "1/2"), (2, 2, "2/2"), (3, 2, "3")]
)
def test_attempt(attempt: int, most: int, shown: str) -> None:
    """It is told of how many, but where lost attempts, which don't count, have gone beyond that."""
    assert attempt_text(attrs.evolve(RECORD, attempt=attempt, max_attempts=most)) == shown


@pytest.mark.parametrize(
    ("state", "reason", "shown"),
    [
        (JobState.RUNNING, None, "asked to stop"),
        (JobState.RUNNING, "", "asked to stop"),
        (JobState.RUNNING, "a\nb", "asked to stop: a b"),
        (JobState.CANCELLED, None, "-"),
        (JobState.CANCELLED, "", "-"),
        (JobState.CANCELLED, "a\nb", "a b"),
    ],
)
def test_note_of_a_cancelled_job(state: JobState, reason: str | None, shown: str) -> None:
    """A reason is told where there is one, and an empty one is none."""
    assert note_text(attrs.evolve(RECORD, state=state, cancel_requested_at=NOW, cancel_reason=reason)) == shown
