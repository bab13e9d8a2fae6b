"""Doing what has fallen due: starts, retries, expiries, leases that lapsed.

In slices, each a transaction; what other processes are about to see to is left to them. All times are the server's. It
must not know when it is called.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import attrs

from jobtrio._records import Failed
from jobtrio.stores import _rules as rules
from jobtrio.stores._hints import Hints
from jobtrio.stores._settling import lapse
from jobtrio.stores.postgres._arrays import ANSWERED, array
from jobtrio.stores.postgres._connections import COMMIT
from jobtrio.stores.postgres._statements import ENTRY
from jobtrio.stores.postgres._transaction import Transaction

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio.stores._settling import Identity
    from jobtrio.stores.postgres._connections import Link, Rows
    from jobtrio.stores.postgres._notices import Notices

SLICE: Final = 500
"""Jobs changed in one go, of each kind."""

LOCKED_FOR: Final = 0.1
"""Seconds until one looks again where others have locked all that is due: they may be at it, or keep it for long."""

_SEQ: Final = ENTRY.index("seq")


@attrs.frozen
class Progress:
    """What was done.

    Attributes:
        changed: The jobs, as each change left them, in order.
        next: Seconds until there is more to do; inf for nothing known.
        is_cut: Whether there is more to do at once.
        now: The server's time.
        hints: What it has made possible.
    """

    changed: list[JobEntry]
    next: float
    is_cut: bool
    now: float
    hints: Hints


async def advance(link: Link, identity: Identity, notices: Notices) -> Progress:
    """Do what is due now, if anything is.

    Cancellation: it may have been done.
    """
    now, following = _times(await link.fetch("next"))
    if following > 0:
        return Progress([], following, False, now, Hints())
    size = str(SLICE), str(ANSWERED)
    due, expired, lapsed, resumed = await link.begin(
        ("lock_due", *size), ("lock_expired", *size), ("lock_lapsed", *size), ("end_pauses",)
    )
    # Behind the locks: it sees what the workers of those that lapsed have appended until then.
    lasts = await link.fetch("lasts", array([row[_SEQ] for row in lapsed]), array(())) if lapsed else []
    tx = Transaction(identity, due + expired + lapsed, lasts)
    _change(tx, len(due), len(expired))
    tx.hints.ready |= bool(resumed)
    plan = tx.steps()
    # Nothing is asked behind the commit: what is done is told, or else the whole is done again.
    *answers, times, _ = await link.fetch_all([*plan, *notices.steps(tx.hints), ("next",), COMMIT])
    tx.took(answers)
    now, following = _times(times)
    most = max(map(len, (due, expired, lapsed)))
    if not (most or resumed) and following <= 0.0:
        following = LOCKED_FOR
    return Progress(tx.jobs(), following, most >= SLICE, now, tx.hints)


def _change(tx: Transaction, due: int, expired: int) -> None:
    for n, entry in enumerate(tx.jobs()):
        if n < due:
            tx.become_ready(entry, None)
        elif n < due + expired:
            tx.end(entry, Failed(rules.expired(entry, tx.identity.retention)), None)
        else:
            lapse(tx, entry)


def _times(rows: Rows) -> tuple[float, float]:
    """Return the server's time, and the seconds until something is due."""
    ((now, *times),) = rows
    return now, max(min((at - now for at in times if at is not None and at < inf), default=inf), 0.0)  # nor is it NaN
