"""Finding and counting jobs: what the readers do.

Candidates come from whichever of the tags and the groups (queue, executor, state) has the fewest, and are then held
against the rest of the query; where a key is wanted, from the index of keys. Of very many tags only the rarest are
looked for by statements, which would take time by the square of their number; the others are in the jobs that those
find, or not. It must not know how rows are written.
"""

from __future__ import annotations

import sqlite3
import time
from heapq import nlargest, nsmallest
from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

import attrs

from jobtrio._errors import UnknownJobError
from jobtrio._messages import End
from jobtrio._patterns import key_for
from jobtrio._records import WorkerReport, moment
from jobtrio._state import JobState
from jobtrio.abc import Backlog, JobQuery
from jobtrio.stores._chunks import reached
from jobtrio.stores._rules import COUNTED, can_match, found_by_key
from jobtrio.stores._texts import HELD, counts_in
from jobtrio.stores.sqlite import _chunks as chunks
from jobtrio.stores.sqlite._rows import seq_of
from jobtrio.stores.sqlite._statements import MOST, SQL
from jobtrio.stores.sqlite._transaction import load, load_by_id, row_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio._records import JobRecord
    from jobtrio.stores.sqlite._rows import Row

ENOUGH: Final = 1000
"""Candidates beyond which counting them on tells nothing more."""

COMPARED: Final = 200_000
"""Candidates that are counted in all, where each one that has the rarest tag is going to be looked up."""

FEW: Final = 50
"""Tags that a statement looks for."""

PAGE: Final = 100
"""Jobs that are read at once, at least, where more tags than that are wanted."""

Tag: TypeAlias = tuple[str, str]
Group: TypeAlias = tuple[str, str, str]
"""A queue, an executor and a state."""

Span: TypeAlias = tuple[int, int]
"""Two numbers between which the jobs are that a search may find."""


def follow(
    connection: sqlite3.Connection, job_id: str, after: int, limit: int
) -> tuple[list[Message] | None, JobEntry | None]:
    """Return kept messages, with the `End` behind the last, and the job without what never changes, or None twice."""
    entry = load_by_id(connection, job_id, light=True)
    if entry is None:
        return None, None
    messages = chunks.read(connection, entry.order, after, limit)
    if entry.outcome is not None and len(messages) < limit:
        last = chunks.last_number(connection, entry.order)
        if reached(messages, after) == last:
            messages.append(End(last + 1, entry.outcome))
    return messages, entry


# -- finding


def find(connection: sqlite3.Connection, query: JobQuery) -> list[JobRecord]:
    """Return the matching jobs, in the order of their submission."""
    last = None if query.after is None else _last(connection, query.after)
    if not can_match(query):
        return []
    if query.key is not None:
        row = connection.execute(SQL["by_key"], (query.key,)).fetchone()
        holder = None if row is None else load(connection, row)
        return found_by_key(holder, query, None if last is None else seq_of(last))
    span = (0, MOST) if last is None else _behind(last, query)
    if query.states is None and not query.tags and query.queue is None and query.executor is None:
        rows = connection.execute(f"{SQL['between']}{_first('seq', query)}", (*span, min(query.limit, MOST))).fetchall()
        return [load(connection, row).record() for row in rows]
    return [entry.record() for entry in _found(connection, query, span)]


def _last(connection: sqlite3.Connection, job_id: str) -> Row:
    """Return the last row of the page before."""
    row = row_of(connection, job_id)
    if row is None:
        raise UnknownJobError(job_id)
    return row


def _behind(row: Row, query: JobQuery) -> Span:
    return (0, seq_of(row)) if query.newest_first else (seq_of(row), MOST)


def _first(column: str, query: JobQuery) -> str:
    return f" ORDER BY {column}{' DESC' if query.newest_first else ''} LIMIT ?"


def _found(connection: sqlite3.Connection, query: JobQuery, span: Span) -> list[JobEntry]:
    """Return the matching jobs: the rows that have the rarest tags, if they have the others as well."""
    tags = _rarest_first(connection, query.tags or {}, span)
    others = dict(tags[FEW:]).items()
    page = attrs.evolve(query, limit=max(query.limit, PAGE)) if others else query
    found: list[JobEntry] = []
    while True:
        rows = _matching(connection, page, span, tags[:FEW])
        entries = [load(connection, row) for row in rows]
        found += [entry for entry in entries if others <= (entry.tags or {}).items()]
        if len(rows) < page.limit or len(found) >= query.limit:
            return found[: query.limit]
        span = _behind(rows[-1], query)


def _rarest_first(
    connection: sqlite3.Connection, tags: Mapping[str, str], span: Span, enough: int = ENOUGH
) -> list[Tag]:
    return sorted(tags.items(), key=lambda tag: _at_most(connection, SQL["count_tag"], (*tag, *span), enough))


def _matching(connection: sqlite3.Connection, query: JobQuery, span: Span, tags: list[Tag]) -> list[Row]:
    """Return the matching rows, by way of the rarest tag or of the groups, whichever has fewer candidates."""
    is_grouped = query.states is not None or query.queue is not None or query.executor is not None
    if not is_grouped:
        return _by_tag(connection, query, span, tags)
    groups = list(_groups(connection, query))
    if tags:
        fewest = _at_most(connection, SQL["count_tag"], (*tags[0], *span))
        grouped = 0
        for group in groups:
            grouped += _at_most(connection, SQL["count_group"], (*group, *span))
            if grouped >= fewest:
                return _by_tag(connection, query, span, tags)
    return _by_group(connection, query, span, tags, groups)


def _at_most(
    connection: sqlite3.Connection, statement: str, parameters: tuple[object, ...], enough: int = ENOUGH
) -> int:
    """Return how many candidates there are, or what is ``enough``."""
    count: int = connection.execute(statement, (*parameters, enough)).fetchone()[0]
    return count


def _by_tag(connection: sqlite3.Connection, query: JobQuery, span: Span, tags: list[Tag]) -> list[Row]:
    conditions, parameters = _having(tags[1:])
    for column, value in (("queue", query.queue), ("executor", query.executor)):
        if value is not None:
            conditions += f" AND job.{column} = ?"
            parameters.append(value)
    if query.states is not None:
        conditions += f" AND job.state IN ({', '.join('?' * len(query.states))})"
        parameters += map(str, query.states)
    statement = f"{SQL['tagged']}{conditions}{_first('tag.job', query)}"
    return connection.execute(statement, (*tags[0], *span, *parameters, min(query.limit, MOST))).fetchall()


def _by_group(
    connection: sqlite3.Connection, query: JobQuery, span: Span, tags: list[Tag], groups: list[Group]
) -> list[Row]:
    conditions, parameters = _having(tags)
    statement = f"{SQL['grouped']}{conditions}{_first('job.seq', query)}"
    found: list[int] = []
    for group in groups:
        rows = connection.execute(statement, (*group, *span, *parameters, min(query.limit, MOST)))
        found += (row[0] for row in rows.fetchall())
    chosen = (nlargest if query.newest_first else nsmallest)(query.limit, found)
    return [_indexed(connection, seq) for seq in chosen]


def _indexed(connection: sqlite3.Connection, seq: int) -> Row:
    """Return the row that an index has named."""
    row: Row | None = connection.execute(SQL["by_seq"], (seq,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError(f"an index names job {seq}, which is not in its table")
    return row


def _having(tags: list[Tag]) -> tuple[str, list[object]]:
    """Return the conditions for a job to have tags, and their parameters."""
    return f" AND {SQL['has_tag']}" * len(tags), [part for tag in tags for part in tag]


def _groups(connection: sqlite3.Connection, query: JobQuery) -> Iterator[Group]:
    for queue, executor in connection.execute(SQL["cells"]).fetchall():
        if query.queue in (None, queue) and query.executor in (None, executor):
            for state in JobState if query.states is None else query.states:
                yield queue, executor, str(state)


# -- counting


def counts(connection: sqlite3.Connection) -> dict[str, dict[JobState, int]]:
    """Return, for each queue that has jobs, how many are in each state."""
    return counts_in(connection.execute(SQL["count_all"]).fetchall())


def counts_of(connection: sqlite3.Connection, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
    """Return the same of the jobs that have all of these tags, of which there may be `FEW`."""
    if not can_match(JobQuery(tags=tags)):
        return {}
    rarest, *others = _rarest_first(connection, tags, (0, MOST), max(COMPARED // len(tags), ENOUGH))
    conditions, parameters = _having(others)
    statement = f"{SQL['count_tagged']}{conditions} GROUP BY job.queue, job.state"
    return counts_in(connection.execute(statement, (*rarest, *parameters)).fetchall())


def workers(connection: sqlite3.Connection) -> list[WorkerReport]:
    """Return the workers that are there, by name."""
    rows = sorted(connection.execute(SQL["workers"], (time.time(),)))
    # One that was seen later than now was so before the time of day was set back: if it lives, it soon says so again.
    now = time.time()  # behind the look: one that lives may have said so just before that
    return [
        WorkerReport(name, moment(started), moment(seen), running)
        for name, started, seen, running in rows
        if seen <= now
    ]


def paused(connection: sqlite3.Connection) -> dict[str, float]:
    """Return the queues that are paused, by name, in order, and for how many seconds more."""
    now = time.time()
    return {queue: until - now for queue, until in connection.execute(SQL["paused"], (now,)).fetchall()}


def next_starts(connection: sqlite3.Connection, moment: float) -> list[tuple[str, float]]:
    """Return the queues that could not start a job at a moment, and how far it is to when they may."""
    now = time.time()
    return [(queue, at - now) for queue, at in connection.execute(SQL["next_starts"], (moment, now)).fetchall()]


def backlog(
    connection: sqlite3.Connection, queues: Collection[str] | None, executors: Collection[str] | None
) -> Backlog:
    """Return how many jobs of ``executors`` wait in ``queues``, without held ones and what waits for `resume`."""
    totals = dict.fromkeys(COUNTED, 0)
    stopped = {queue for queue, left in paused(connection).items() if left == inf}
    for queue, executor in connection.execute(SQL["cells"]).fetchall():
        if executor == HELD or (executors is not None and executor not in executors):
            continue
        if queues is None or key_for(queue, queues) is not None:
            for state in (JobState.RUNNING,) if queue in stopped else COUNTED:
                totals[state] += connection.execute(SQL["count_cell"], (queue, executor, str(state))).fetchone()[0]
    return Backlog(*totals.values())
