"""Claiming ready jobs, and keeping the claims.

Operations of the writer: each is given the transaction that it is a part of. Ready jobs stand in lines, one for each
queue and executor; only the heads of lines are compared, so that jobs which others are to run cost nothing.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from functools import cache
from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING, TypeAlias

import attrs

from jobtrio import _entry as steps
from jobtrio._policies import LONGEST_PERIOD
from jobtrio.stores._pace import STEADY, Pace
from jobtrio.stores._room import room_for
from jobtrio.stores._texts import history_text, readable_cancel
from jobtrio.stores.sqlite._rows import rank_of
from jobtrio.stores.sqlite._statements import MOST, SQL
from jobtrio.stores.sqlite._transaction import load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._entry import JobEntry
    from jobtrio.abc import Claim
    from jobtrio.stores._claims import Renewal, Wanted
    from jobtrio.stores._room import Room
    from jobtrio.stores.sqlite._rows import Row
    from jobtrio.stores.sqlite._transaction import Transaction

Line: TypeAlias = tuple[str, str]
"""A queue and an executor."""


@attrs.frozen
class Claimed:
    """What a call has claimed.

    Attributes:
        entries: The jobs, as claimed.
        at: When this call claimed them, by wall time; None where it repeats one that did.
    """

    entries: list[JobEntry]
    at: float | None


def claim(tx: Transaction, wanted: Wanted) -> Claimed:
    """Start ready jobs, by priority, then in the order in which they became ready."""
    kept = tx.run(SQL["claimed"], (tx.identity.session, wanted.claim_id)).fetchall()
    if kept:
        return Claimed([load(tx.connection, row) for row in kept], None)
    # One reading: a process that stands still in the middle must not start what expired meanwhile.
    now = time.time()
    entries = _choose(tx, wanted, now)
    until = time.monotonic() + wanted.lease
    rows = []
    for entry in entries:
        steps.start(entry, claim=wanted.claim_id, worker=tx.identity.worker, now=now)
        entry.lease_until = until
        rows.append(
            (
                *(str(entry.state), entry.attempt, entry.claim, tx.identity.session, entry.worker, now),
                *(wanted.lease, until, history_text(entry), entry.order),
            )
        )
    tx.connection.executemany(SQL["start"], rows)
    if entries:
        tx.hints.falls_due(until)
    return Claimed(entries, now)


def _choose(tx: Transaction, wanted: Wanted, now: float) -> list[JobEntry]:
    """Return the jobs to start: of several lines always the job that comes first."""
    pace = _pace(tx, now)
    room = _room(tx, wanted, pace)
    heap = [
        ((-priority, ticket), (queue, executor))
        for queue, executor, priority, ticket in tx.run(SQL["lines"], (now,)).fetchall()
        if wanted.takes(executor) and (room is None or room.of(queue) > 0)
    ]
    heapify(heap)
    page = max(1, min(wanted.limit, MOST) // max(1, len(heap)))
    lines = {line: _Line(tx, line, page, now) for _, line in heap}
    chosen: list[Row] = []
    while heap and len(chosen) < wanted.limit:
        _, line = heappop(heap)
        following = heap[0][0] if heap else None
        while len(chosen) < wanted.limit and (row := lines[line].first()) is not None:
            if room is not None and room.of(line[0]) <= 0:
                break
            if following is not None and rank_of(row) > following:
                heappush(heap, (rank_of(row), line))
                break
            chosen.append(lines[line].pop())
            if room is not None:
                room.take(line[0])
    entries = [load(tx.connection, row) for row in chosen]
    if pace.limits:
        tx.connection.executemany(SQL["set_next_at"], pace.after(entry.plan.queue for entry in entries))
    return entries


def pause(tx: Transaction, queue: str, seconds: float) -> None:
    """Have no claim start a job of this queue: none is under way in any process meanwhile."""
    until = time.time() + seconds
    tx.run(SQL["pause"], (queue, until))
    if until < inf:
        tx.falls_due(until)


def resume(tx: Transaction, queue: str) -> None:
    """Have claims start jobs of this queue again."""
    tx.run(SQL["resume"], (queue,))
    tx.hints.ready = True


def _pace(tx: Transaction, now: float) -> Pace:
    """Return how many jobs may start now."""
    if not tx.identity.rates:
        return STEADY

    @cache  # it is asked for with each job that is looked at
    def next_at(queue: str) -> float | None:
        row: tuple[float] | None = tx.run(SQL["next_at"], (queue,)).fetchone()
        return None if row is None else row[0]

    return Pace(tx.identity.rates, next_at, now)


def _room(tx: Transaction, wanted: Wanted, pace: Pace) -> Room | None:
    """Return how many jobs may be taken from each queue; no other process writes meanwhile."""
    totals = tx.identity.totals
    running = Counter(queue for (queue,) in tx.run(SQL["running_queues"])) if totals else Counter()
    return room_for(wanted.room, totals, running.__getitem__, pace=pace)


class _Line:
    """The ready jobs of one queue and executor, read page by page; those whose time is up are passed over."""

    def __init__(self, tx: Transaction, line: Line, page: int, now: float) -> None:
        self._tx = tx
        self._line = line
        self._page = page
        self._now = now
        self._rows: deque[Row] = deque()
        self._read = 0

    def first(self) -> Row | None:
        """Return the job at the front, or None."""
        if not self._rows and self._read % self._page == 0:
            parameters = (*self._line, self._now, self._page, self._read)
            self._rows.extend(self._tx.run(SQL["line"], parameters).fetchall())
            self._read += len(self._rows) or 1  # a page that is not full is the last
        return self._rows[0] if self._rows else None

    def pop(self) -> Row:
        """Take the job at the front."""
        return self._rows.popleft()


def renew(tx: Transaction, claims: Sequence[Claim], lease: float, started_at: float) -> list[Renewal]:
    """Let claims last from now, and report on each, in order; note that this worker is there for as long."""
    who, now = tx.identity, time.time()
    tx.run(SQL["leave"], (None, now))
    if who.rates:
        tx.run(SQL["forget_rates"], (now - LONGEST_PERIOD,))
    tx.run(SQL["be_there"], (who.session, who.worker, started_at, now, now + lease))
    return [_renew(tx, claim, lease) for claim in claims]


def _renew(tx: Transaction, claim: Claim, lease: float) -> Renewal:
    holder = tx.holder(claim)
    if holder is None:
        return None
    session, cancel = holder
    until, job = time.monotonic() + lease, claim.entry.order
    tx.run(SQL["renew"], (lease, until, job))
    if session != tx.identity.session:
        tx.run(SQL["take_over"], (tx.identity.session, job))
    return until, readable_cancel(cancel)


def leave(tx: Transaction) -> None:
    """Note that this worker is closed."""
    tx.run(SQL["leave"], (tx.identity.session, time.time()))
