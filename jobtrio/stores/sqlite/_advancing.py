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

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobtrio._entry import JobEntry
    from jobtrio.stores.sqlite._transaction import Transaction

SLICE: Final = 500
"""Jobs changed in one go, so that other writes come in between."""


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
    changed = _become_due(tx) + _expire(tx)
    lapsed, lease_next, emptied = _lapse(tx, gone)
    changed += lapsed
    if len(changed) >= SLICE:
        return Progress(changed, 0.0, True, emptied)
    now = time.time()
    due, expiry = (tx.run(SQL[name]).fetchone()[0] for name in ("next_due", "next_expiry"))
    waits = [at - now for at in (due, expiry) if at is not None]
    return Progress(changed, max(min(lease_next, *waits, inf), 0.0), False, emptied)


def _become_due(tx: Transaction) -> list[JobEntry]:
    entries = tx.load_all("due", time.time(), SLICE)
    for entry in entries:
        tx.become_ready(entry, None)
    return entries


def _expire(tx: Transaction) -> list[JobEntry]:
    entries = tx.load_all("expired", time.time(), SLICE)
    for entry in entries:
        tx.end(entry, Failed(rules.expired(entry, tx.identity.retention)), None)
    return entries


def _lapse(tx: Transaction, gone: Collection[str]) -> tuple[list[JobEntry], float, frozenset[str]]:
    """Take jobs from workers that are gone or late; also return when the next lease is over."""
    now = time.monotonic()
    overdue: list[int] = []
    holding: set[str] = set()
    following = inf
    for seq, session, lease, until in sorted(tx.run(SQL["leases"]).fetchall(), key=itemgetter(3, 0)):
        left = until - now
        if len(overdue) < SLICE and (session in gone or not 0 < left <= lease):
            overdue.append(seq)
        else:
            holding.add(session)
            following = min(following, max(left, 0.0))
    changed = []
    for seq in overdue:
        entry = tx.load("by_seq", seq)
        assert entry is not None  # it was listed in this very transaction
        lapse(tx, entry)
        changed.append(entry)
    return changed, following, frozenset(gone) - holding
