"""What running jobs write, and held jobs that are started: operations on locked jobs.

Each is given the transaction that holds the jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio._state import FINAL_STATES, JobState
from jobtrio.stores._settling import look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._entry import Plan
    from jobtrio.abc import Claim
    from jobtrio.stores._chunks import Item
    from jobtrio.stores.postgres._transaction import Transaction


def append(tx: Transaction, claim: Claim, items: Sequence[Item]) -> bool:
    """Append an attempt's messages."""
    entry, held = look(tx, claim)
    if entry is not None and held:
        tx.append(entry, items)
    return held


def save_state(tx: Transaction, claim: Claim, text: str) -> bool:
    """Keep a value for the job's next attempt."""
    entry, held = look(tx, claim)
    if entry is not None and held:
        tx.keep_state(entry, text)
    return held


def start_held(tx: Transaction, job_id: str, plan: Plan) -> bool:
    """Give a held job its plan, and make it ready; False if it is not held (any more)."""
    entry = tx.job_of(job_id)
    if entry is None or not entry.is_held or entry.state in FINAL_STATES:
        return False
    if entry.expires is not None and entry.expires <= tx.now:
        return False  # it has expired, though nobody has made it fail yet
    entry.plan = plan
    if entry.expires_in is None:
        entry.expires = None
    else:
        # Counted from submission, as the end of the time that it is held was.
        entry.expires = entry.created_at + entry.expires_in
        tx.falls_due(entry.expires)
    if entry.state is JobState.QUEUED:
        tx.hints.ready = True
    tx.replan(entry)
    return True
