"""Records as a table's cells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs
import pytest

from jobtrio import JobError, JobPriority, JobRecord, JobState
from jobtrio.cli._records import attempt_text, note_text, took_text

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


@pytest.mark.parametrize(
    ("state", "asked_at", "shown"),
    [
        (JobState.FAILED, None, "ValueError: row 2"),
        (JobState.FAILED, NOW, "ValueError: row 2"),
        (JobState.RETRYING, None, "ValueError: row 2"),
        (JobState.RETRYING, NOW, "asked to stop"),
        (JobState.COMPLETED, None, "-"),
        (JobState.COMPLETED, NOW, "-"),
    ],
)
def test_note_of_a_job_with_an_error(state: JobState, asked_at: datetime | None, shown: str) -> None:
    """An error is told but of a job that completed in spite of it, and a request as long as it may change the end."""
    error = JobError("exception", "ValueError", "row 2")
    assert note_text(attrs.evolve(RECORD, state=state, cancel_requested_at=asked_at, error=error)) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(None, "-"), (0.25, "0.25 s"), (75, "1 min 15 s")])
def test_took(seconds: float | None, shown: str) -> None:
    """What has not ended took no time yet."""
    finished_at = None if seconds is None else NOW + timedelta(seconds=seconds)
    assert took_text(attrs.evolve(RECORD, started_at=NOW, finished_at=finished_at)) == shown
