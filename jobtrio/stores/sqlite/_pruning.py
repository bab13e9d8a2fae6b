"""Removing what `Retention` no longer keeps, in slices.

An operation of the writer. It must not know when it is called.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

from jobtrio._codec import decode_value
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite._statements import SQL

if TYPE_CHECKING:
    from jobtrio.stores.sqlite._transaction import Transaction

SLICE: Final = 200
"""Jobs removed in one go."""

CHUNKS: Final = 2000
"""Chunks of messages removed in one go, beyond which the job that they are of has to wait."""


def prune(tx: Transaction) -> tuple[bool, float]:
    """Remove a slice; return whether there may be more, and in how many seconds the oldest job left is too old."""
    retention = tx.identity.retention
    until = (time.time() - retention.finished_for, inf)
    too_many = tx.run(SQL["ended_beyond"], (retention.finished_jobs,)).fetchone()
    if too_many is not None:
        until = max(until, tuple(too_many))
    rows = tx.run(SQL["ended_until"], (*until, SLICE)).fetchall()
    chunks = CHUNKS
    for job, tags in rows:
        chunks -= tx.run(SQL["drop_chunks"], (job, job, chunks)).rowcount
        if chunks <= 0:
            return True, 0.0
        inserting.remove(tx, job, _tags(tx, job, tags))
    oldest = tx.run(SQL["oldest_end"]).fetchone()[0]
    left = inf if oldest is None else max(oldest + retention.finished_for - time.time(), 0.0)
    return len(rows) == SLICE, left


def _tags(tx: Transaction, job: int, tags: str | None) -> dict[str, str] | None:
    if tags is None:
        tags = dict(tx.run(SQL["asides"], (job,)).fetchall()).get("tags")
    found: dict[str, str] | None = None if tags is None else decode_value(tags)
    return found
