"""Jobs to and from rows: what is in which column.

It owns the order of the columns. It must not know when rows are read or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from jobtrio._entry import JobEntry
from jobtrio.stores._rules import wait_of
from jobtrio.stores._texts import HELD, decode_entry, history_text, plan_text, text_of
from jobtrio.stores.postgres._statements import ENTRY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._policies import Retention

Row: TypeAlias = "tuple[Any, ...]"

WIDTH: Final = len(ENTRY)
"""Columns of an entry, behind which a statement may give others."""

_LARGE: Final = slice(7, 10)

NEW: Final = 14
"""Columns of a job that is to be stored."""


# -- encoding


def new_row(entry: JobEntry, submission: str, retention: Retention) -> Row:
    """Return the columns of a job that is to be stored, in the order in which ``insert`` takes them.

    Raises:
        PayloadError: Its payload, metadata or another of its texts can't be stored.
    """
    plan = entry.plan
    return (
        *(entry.id, entry.key, submission, plan.executor or HELD, plan.queue, int(plan.priority), plan_text(plan)),
        text_of("payload", entry.payload),
        None if entry.metadata is None else text_of("metadata", entry.metadata),
        None if entry.tags is None else text_of("tags", entry.tags),
        *(entry.run_at, entry.delay, entry.expires_in, wait_of(entry, retention)),
    )


def size_of(row: Row) -> int:
    """Return how many characters such columns have that may be large."""
    return sum(len(text) for text in row[_LARGE] if text is not None)


def flat_history(entry: JobEntry) -> str:
    """Return a job's changes behind the first as their column has them: what a comma can be put behind."""
    text = history_text(entry)[1:-1]
    return f",{text}" if text else ""


def line_end(worker: str) -> str:
    """Return how a line of the history ends: who, and no reason."""
    return f",{msgspec.json.encode(worker).decode()},null"


# -- decoding


def entry_of(row: Sequence[Any]) -> JobEntry:
    """Return a row as an entry: the columns `ENTRY`, and maybe others behind them."""
    entry = JobEntry(*row[: WIDTH - 3])  # most columns hold what their fields do; the others are decoded then
    executor, queue, priority = row[WIDTH - 3 : WIDTH]
    return decode_entry(entry, executor, queue, priority, light=False)


def rank_of(entry: JobEntry) -> tuple[int, int]:
    """Return what ready jobs are sorted by."""
    return -entry.plan.priority, entry.ticket
