"""What there is to know of a job, as short texts for tables and lines.

Pure: values in, texts out. It must not know which command shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio._state import FINAL_STATES, JobState
from jobtrio.cli._endings import brief, duration, one_line

if TYPE_CHECKING:
    from datetime import datetime

    from jobtrio._records import JobRecord


def moment_text(moment: datetime | None) -> str:
    """Return a time in this machine's own zone, to the second; in UTC where that zone has no such date."""
    if moment is None:
        return "-"
    try:
        local = moment.astimezone()
    except (OverflowError, ValueError):  # at the ends of the calendar, or in a zone that is none
        return moment.isoformat(" ", "seconds").replace("+00:00", "Z")
    return local.replace(tzinfo=None).isoformat(" ", "seconds")


def attempt_text(record: JobRecord) -> str:
    """Return which attempt it is of how many."""
    is_beyond = record.attempt > record.max_attempts  # lost ones have numbers, but are not counted
    return str(record.attempt) if record.max_attempts == 1 or is_beyond else f"{record.attempt}/{record.max_attempts}"


def note_text(record: JobRecord) -> str:
    """Return in a few words what there is to know of a job besides its state."""
    if record.state is JobState.CANCELLED:
        return one_line(record.cancel_reason, 60) if record.cancel_reason else "-"
    if record.cancel_requested_at is not None and record.state not in FINAL_STATES:
        return "asked to stop" + (f": {one_line(record.cancel_reason, 46)}" if record.cancel_reason else "")
    if record.error is not None and record.state is not JobState.COMPLETED:
        return brief(str(record.error), 60)
    if record.state is JobState.SCHEDULED:
        return f"due {moment_text(record.run_at)}"
    return "-"


def took_text(record: JobRecord) -> str:
    """Return how long the last attempt took."""
    return "-" if record.duration is None else duration(record.duration)


def tags_text(record: JobRecord) -> str:
    """Return a job's tags as options take them, with spaces between; nothing where it has none."""
    return " ".join(f"{name}={value}" for name, value in record.tags.items())
