"""Putting jobs in: what the script ``insert`` is given, and which entry stands for each job then.

It must not know how the script is called.
"""

from __future__ import annotations

from math import isinf
from typing import TYPE_CHECKING, Any, Final

from jobtrio._errors import DuplicateJobError
from jobtrio._state import JobState
from jobtrio.stores._announcer import Placed
from jobtrio.stores.redis._rows import entry_of, new_job
from jobtrio.stores.redis._scripts import Run, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._entry import JobEntry
    from jobtrio._policies import Retention
    from jobtrio.stores._announcer import Announcer, Answer
    from jobtrio.stores.redis._link import Argument

MOST_JOBS: Final = 50_000
MOST_BYTES: Final = 256 * 1024 * 1024
"""Jobs and bytes of one call: the server does nothing else meanwhile, and takes no question of 1 GiB."""

PLACED: Final = 3
"""How many parts the answer has for a job that was stored; for another that stands for it there are more."""


def insert(entries: Sequence[JobEntry], submission: str, retention: Retention) -> Run:
    """Return the call that stores new jobs, all or none.

    Raises:
        PayloadError: A payload or another value can't be stored.
        ValueError: They are too many for one call.
    """
    jobs = [part for entry in entries for part in new_job(entry)]
    _check_size(jobs, len(entries))
    held_for = "" if isinf(retention.held_for) else repr(retention.held_for)
    return run("insert", submission, held_for, len(entries), *jobs)


def _check_size(jobs: list[Argument], count: int) -> None:
    size = sum(len(part) for part in jobs if isinstance(part, bytes))
    if count > MOST_JOBS or size > MOST_BYTES:
        allowed = f"{MOST_JOBS:,} jobs and {MOST_BYTES // 2**20} MiB"
        raise ValueError(f"one call may submit at most {allowed}; got {count:,} jobs and {size / 2**20:.1f} MiB")


def inserted(
    answer: list[Any] | bytes, entries: Sequence[JobEntry], submission: str, announcer: Announcer
) -> list[JobEntry]:
    """Return the entries that stand for the jobs, brought to what is stored, and tell of them."""
    if isinstance(answer, bytes):
        raise DuplicateJobError(answer.decode())
    stored = announcer.inserted(entries, list(map(_answer, entries, answer)), submission)
    for entry, row in zip(entries, answer, strict=True):
        if len(row) == PLACED:
            _tell(entry, row, announcer)
    return stored


def _answer(entry: JobEntry, row: list[Any]) -> Answer:
    if len(row) != PLACED:
        return entry_of(row)
    order, created, _ = row
    return Placed(int(order), JobState.SCHEDULED if entry.delay > 0 else JobState.QUEUED, float(created), 0.0, None)


def _tell(entry: JobEntry, row: list[Any], announcer: Announcer) -> None:
    """Tell of what a new job makes possible."""
    _, created, expires = row
    if entry.delay > 0:
        announcer.falls_due_in(entry.delay)
    if expires:
        announcer.falls_due_in(float(expires) - float(created))
    if entry.state is JobState.QUEUED and not entry.is_held:
        announcer.listener.work_ready()
