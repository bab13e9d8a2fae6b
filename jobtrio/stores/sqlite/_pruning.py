"""Removing what `Retention` no longer keeps, in slices.

An operation of the writer. It must not know when it is called.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from jobtrio.stores._texts import readable_tags
from jobtrio.stores.sqlite import _chunks as chunks
from jobtrio.stores.sqlite._statements import MOST, SQL
from jobtrio.stores.sqlite._transaction import LONGEST

if TYPE_CHECKING:
    import sqlite3

    from jobtrio._policies import Retention
    from jobtrio.stores.sqlite._transaction import Transaction

SLICE: Final = 200
"""Jobs removed in one go."""

CHUNKS: Final = 2000
"""Chunks of messages removed in one go, beyond which the job that they are of has to wait."""

Limit: TypeAlias = tuple[float, float]
"""When the newest job ended that is not kept any more, and its number."""


def limit(connection: sqlite3.Connection, retention: Retention) -> Limit:
    """Return up to which job those that ended are not kept any more. A reader's work: it may be far to go."""
    too_old = (time.time() - retention.finished_for, inf)
    too_many = connection.execute(SQL["ended_beyond"], (min(retention.finished_jobs, MOST),)).fetchone()
    return too_old if too_many is None else max(too_old, too_many)


def prune(tx: Transaction, until: Limit) -> tuple[bool, float]:
    """Remove a slice; return whether there may be more, and in how many seconds the oldest job left is too old."""
    rows = tx.run(SQL["ended_until"], (*until, SLICE)).fetchall()
    left, over_at = CHUNKS, time.monotonic() + LONGEST
    for job, tags in rows:
        left -= tx.run(SQL["drop_chunks"], (job, job, left)).rowcount
        if left <= 0 and chunks.last_number(tx.connection, job):  # without any, it would seem to have sent nothing
            return True, 0.0
        tx.remove_rows(job, _tags(tx, job, tags))
        if time.monotonic() > over_at:
            return True, 0.0
    oldest = tx.run(SQL["oldest_end"]).fetchone()[0]
    finished_for = tx.identity.retention.finished_for
    pause = inf if oldest is None else max(oldest + finished_for - time.time(), 0.0)
    return len(rows) == SLICE, pause


def _tags(tx: Transaction, job: int, tags: str | None) -> dict[str, str]:
    if tags is None:
        kept = tx.run(SQL["aside"], (job, "tags")).fetchone()
        tags = None if kept is None else kept[0]
    return readable_tags(tags)
