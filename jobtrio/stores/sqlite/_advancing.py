"""Doing what has fallen due: starts, retries, expiries, leases that lapsed, workers that are gone.

An operation of the writer, in slices. Start times and expiries go by wall time, as users say them. Leases go by the
machine's monotonic clock, which all its processes share: setting the clock or sleeping takes no job from its worker.
That clock begins anew with the machine, so a lease of which more is left than it began with is one from before.
"""

from __future__ import annotations

import time
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING, Final

import attrs

from jobtrio._records import Failed
from jobtrio.stores import _rules as rules
from jobtrio.stores._settling import lapse
from jobtrio.stores.sqlite._statements import SQL
from jobtrio.stores.sqlite._transaction import LONGEST, load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from jobtrio._entry import JobEntry
    from jobtrio.stores.sqlite._transaction import Transaction

SLICE: Final = 500
"""Jobs of one kind changed in one go, so that other writes come in between."""

ROUNDED: Final = 0.001
"""Seconds by which a lease may seem to be longer than it was given: where the clock stands still between two readings,
as Windows' does for 16 ms, that is by how much its end was rounded."""


@attrs.frozen
class Progress:
    """What was done.

    Attributes:
        changed: The jobs, as each change left them, in order.
        next: Seconds until there is more to do; inf for nothing known.
        is_cut: Whether there is more to do at once.
        emptied: The sessions of those given that hold no job any more.
    """

    changed: list[JobEntry]
    next: float
    is_cut: bool
    emptied: frozenset[str]


def advance(tx: Transaction, gone: Collection[str]) -> Progress:
    """Do what is due now; ``gone`` are sessions whose processes have ended."""
    over_at = time.monotonic() + LONGEST
    changed = []
    for entry in _some(tx, "due", over_at):
        tx.become_ready(entry, None)
        changed.append(entry)
    for entry in _some(tx, "expired", over_at):
        tx.end(entry, Failed(rules.expired(entry, tx.identity.retention)), None)
        changed.append(entry)
    resumes = _end_pauses(tx)
    lapsed, lease_next, emptied = _lapse(tx, gone, over_at)
    changed += lapsed
    if len(changed) >= SLICE or (changed and time.monotonic() > over_at):
        return Progress(changed, 0.0, True, emptied)
    now = time.time()
    due, expiry = (tx.run(SQL[name]).fetchone()[0] for name in ("next_due", "next_expiry"))
    waits = [at - now for at in (due, expiry, resumes) if at is not None]
    return Progress(changed, max(min(lease_next, *waits, inf), 0.0), False, emptied)


def _some(tx: Transaction, statement: str, over_at: float) -> Iterator[JobEntry]:
    """Give the jobs that a statement finds now: one at least, if there is any, and more while there is time."""
    for row in tx.run(SQL[statement], (time.time(), SLICE)).fetchall():
        yield load(tx.connection, row)
        if time.monotonic() > over_at:
            return


def _end_pauses(tx: Transaction) -> float | None:
    """End what is paused no longer; return when the next pause ends, None for never."""
    tx.hints.ready |= tx.run(SQL["end_pauses"], (time.time(),)).rowcount > 0
    until: float | None = tx.run(SQL["next_resume"]).fetchone()[0]
    return until


def _lapse(tx: Transaction, gone: Collection[str], over_at: float) -> tuple[list[JobEntry], float, frozenset[str]]:
    """Take jobs from workers that are gone or late; also return when the next lease is over."""
    now = time.monotonic()
    overdue: list[tuple[int, str]] = []
    holding: set[str] = set()
    following = inf
    for seq, session, lease, until in sorted(tx.run(SQL["leases"]).fetchall(), key=itemgetter(3, 0)):
        left = until - now
        if len(overdue) < SLICE and (session in gone or not 0 < left <= lease + ROUNDED):
            overdue.append((seq, session))
        else:
            holding.add(session)
            following = min(following, max(left, 0.0))
    changed = []
    for seq, _ in overdue:
        entry = tx.load("by_seq", seq)
        assert entry is not None  # it was listed in this very transaction
        lapse(tx, entry)
        changed.append(entry)
        if time.monotonic() > over_at:
            break
    holding.update(session for _, session in overdue[len(changed) :])
    return changed, following, frozenset(gone) - holding
