"""A job's messages in the file: rows of consecutive messages, bounded by `Retention.tokens_per_job`.

It owns how messages are numbered on, and dropped from the front. It must not know who may append.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from jobtrio.stores import _chunks as texts
from jobtrio.stores.sqlite._statements import SQL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from jobtrio._messages import Message
    from jobtrio.stores._chunks import Item

TRIMMED: Final = 200
"""Chunks dropped at once."""


# -- writing


def last_number(connection: sqlite3.Connection, job: int) -> int:
    """Return the number of a job's last message, its `End` not counted; 0 before the first."""
    row = connection.execute(SQL["chunks_end"], (job,)).fetchone()
    return 0 if row is None else int(row[0])


def append(connection: sqlite3.Connection, job: int, items: Sequence[Item], keep: int) -> None:
    """Append a job's messages, pass over those that are stored, and drop the oldest beyond ``keep``."""
    last = last_number(connection, job)
    fresh = [item for item in items if item[0] > last]
    for chunk in texts.cut(fresh):
        first = chunk[0][0]
        if first > last + 1:
            # What comes before a hole is no longer kept: what can be read has no hole in it.
            connection.execute(SQL["drop_chunks"], (job, job, -1))
        last = chunk[-1][0]
        connection.execute(SQL["insert_chunk"], (job, first, last, texts.body_of(chunk)))
    if last > keep:
        connection.execute(SQL["trim_chunks"], (job, job, last - keep, last - keep, TRIMMED))


# -- reading


def read(connection: sqlite3.Connection, job: int, after: int, limit: int) -> list[Message]:
    """Return up to ``limit`` kept messages behind number ``after``, behind a `Gap` where some are not kept."""
    with closing(connection.execute(SQL["chunks"], (job, job, after + 1))) as chunks:
        return texts.read(chunks, after, limit)
