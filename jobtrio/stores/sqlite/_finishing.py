"""Ending a running job, where a file can do better than by the steps that are common to all rows.

An operation of the writer: it is given the transaction that it is a part of.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from jobtrio._entry import end_of
from jobtrio._state import JobState
from jobtrio.stores import _settling as settling
from jobtrio.stores._texts import line_text
from jobtrio.stores.sqlite._rows import ASIDE
from jobtrio.stores.sqlite._statements import SQL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._records import JobError, Outcome
    from jobtrio.abc import Claim
    from jobtrio.stores._announcer import Settled
    from jobtrio.stores._chunks import Item
    from jobtrio.stores.sqlite._transaction import Transaction


@attrs.frozen
class Ending:
    """How a job is to end.

    Attributes:
        outcome: The outcome, as it will be read again.
        error: What a cancelled attempt's clean-up raised, or None.
        result: What a completed job returned, as text.
    """

    outcome: Outcome
    error: JobError | None
    result: str | None

    @property
    def is_plain(self) -> bool:
        """Whether one statement says it all."""
        return self.result is not None and self.error is None and len(self.result) <= ASIDE


def finish(tx: Transaction, claim: Claim, ending: Ending, items: Sequence[Item]) -> Settled | float | None:
    """End a running job; where it ended as it was to, return when that was, by wall time."""
    if ending.is_plain and (ended := _complete(tx, claim, ending)) is not None:
        tx.append(claim.entry, items)
        tx.hints.messages.add(claim.entry.id)
        tx.made_room(claim.entry)
        return ended
    return settling.finish(tx, claim, ending.outcome, ending.error, items)


def _complete(tx: Transaction, claim: Claim, ending: Ending) -> float | None:
    """End a job as most end, by one statement; None where the claim does not hold it, or it was asked to stop."""
    job = claim.entry
    at = end_of(job, time.time())
    line = line_text(at, JobState.COMPLETED, claim.attempt, tx.identity.worker)
    parameters = (at, ending.result, line, job.order, job.id, claim.id, claim.attempt)
    return at if tx.run(SQL["complete"], parameters).rowcount else None
