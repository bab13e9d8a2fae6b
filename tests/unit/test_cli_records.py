"""Records as a table's cells."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import attrs
import pytest

from jobtrio import JobError, JobPriority, JobRecord, JobState
from jobtrio.cli._records import attempt_text, moment_text, note_text, took_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOW = datetime(2026, 1, 31, tzinfo=UTC)
RECORD = JobRecord("a", "e", None, "q", JobPriority.LOW, {}, {}, None, JobState.RUNNING, 1, 2, NOW)


@pytest.fixture
def set_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Return how to choose the zone of this process, until the test is over."""

    def choose(zone: str) -> None:
        monkeypatch.setenv("TZ", zone)
        time.tzset()

    yield choose
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "moment", "shown"),
    [
        ("UTC0", None, "-"),
        ("JST-9", NOW, "2026-01-31 09:00:00"),
        ("EST5", NOW, "2026-01-30 19:00:00"),
        ("JST-9", datetime.min.replace(tzinfo=UTC), "0001-01-01 09:00:00"),
        ("EST5", datetime.min.replace(tzinfo=UTC), "0001-01-01 00:00:00Z"),
        ("JST-9", datetime.max.replace(tzinfo=UTC), "9999-12-31 23:59:59Z"),
        ("XXX-30", NOW, "2026-01-31 00:00:00Z"),
    ],
)
def test_moment(set_zone: Callable[[str], None], zone: str, moment: datetime | None, shown: str) -> None:
    """A time is shown by this machine's zone, and by UTC where there is none such in that."""
    set_zone(zone)
    assert moment_text(moment) == shown


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
