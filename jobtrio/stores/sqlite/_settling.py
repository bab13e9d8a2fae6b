"""What running jobs write: messages, states saved for later, and how their attempts end; and requests to cancel.

Operations of the writer: each is given the transaction that it is a part of. Whatever needs a claim returns the job
as it is stored then, or None where the claim no longer holds it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs

from jobtrio import _entry as steps
from jobtrio._entry import CancelRequest, JobEntry
from jobtrio._records import Cancelled
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.stores import _rules as rules
from jobtrio.stores.sqlite._rows import ASIDE, cancel_text, step_text
from jobtrio.stores.sqlite._statements import SQL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._records import JobError, Outcome
    from jobtrio.abc import Claim
    from jobtrio.stores.sqlite._chunks import Item
    from jobtrio.stores.sqlite._transaction import Transaction


@attrs.frozen
class Reply:
    """What became of a request to cancel.

    Attributes:
        entry: The job, as it is now.
        accepted: Whether it lives and will end `Cancelled`, or just has.
        is_running: Whether its worker has to be told.
        is_news: Whether the request has ended it.
    """

    entry: JobEntry
    accepted: bool
    is_running: bool = False
    is_news: bool = False


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


@attrs.frozen
class Ended:
    """A job ended as it was to. ``step`` has what changed by it, and the one new line of the history."""

    step: JobEntry


def finish(tx: Transaction, claim: Claim, ending: Ending, items: Sequence[Item]) -> JobEntry | Ended | None:
    """End a running job."""
    if ending.is_plain and (ended := _complete(tx, claim, ending)) is not None:
        tx.append(claim.entry, items)
        tx.hints.messages.add(claim.entry.id)
        return ended
    entry, held = _look(tx, claim)
    if entry is not None and held:
        tx.append(entry, items)
        tx.end(entry, *rules.heeding_cancel(entry, ending.outcome, ending.error))
    return entry


def _complete(tx: Transaction, claim: Claim, ending: Ending) -> Ended | None:
    """End a job as most end, by one statement; None where the claim does not hold it, or it was asked to stop."""
    job = claim.entry
    step = JobEntry(job.id, job.plan, None, job.created_at, state=JobState.RUNNING, attempt=claim.attempt)
    step.started_at = job.started_at
    steps.finish(step, ending.outcome, worker=tx.identity.worker, now=time.time())
    parameters = (step.finished_at, ending.result, step_text(step), job.order, job.id, claim.id, claim.attempt)
    return Ended(step) if tx.run(SQL["complete"], parameters).rowcount else None


def retry(tx: Transaction, claim: Claim, error: JobError, delay: float, items: Sequence[Item]) -> JobEntry | None:
    """Let a failed attempt be followed by another."""
    entry, held = _look(tx, claim)
    if entry is None or not held:
        return entry
    tx.append(entry, items)
    if entry.cancel is not None:
        tx.end(entry, Cancelled(entry.cancel.reason), error)
        return entry
    tx.restart(entry, error, delay)
    steps.retry(entry, error, worker=tx.identity.worker, now=time.time())
    entry.due = time.time() + delay
    tx.save(entry)
    tx.hints.falls_due_at(entry.due)
    return entry


def release(tx: Transaction, claim: Claim, reason: str, items: Sequence[Item]) -> JobEntry | None:
    """Return a running job to its queue unfinished."""
    entry, held = _look(tx, claim)
    if entry is None or not held:
        return entry
    tx.append(entry, items)
    if entry.cancel is not None:
        tx.end(entry, Cancelled(entry.cancel.reason), None)
        return entry
    entry.losses = 0
    tx.restart(entry, rules.released(reason), 0.0)
    tx.become_ready(entry, reason)
    return entry


def append(tx: Transaction, claim: Claim, items: Sequence[Item]) -> bool:
    """Append an attempt's messages."""
    if not _holds(tx, claim):
        return False
    tx.append(claim.entry, items)
    return True


def save_state(tx: Transaction, claim: Claim, text: str) -> bool:
    """Keep a value for the job's next attempt."""
    if not _holds(tx, claim):
        return False
    job = claim.entry.order
    tx.run(SQL["save_state"], (tx.inline(job, "saved_state", text), job))
    return True


def request_cancel(tx: Transaction, job_id: str, reason: str | None, grace: float) -> Reply | None:
    """Ask to cancel: a job that does not run ends at once."""
    entry = tx.load_job(job_id)
    if entry is None:
        return None
    if entry.state in FINAL_STATES:
        return Reply(entry, False)
    if entry.cancel is None:
        entry.cancel = CancelRequest(time.time(), reason, grace)
    elif grace < entry.cancel.grace:
        entry.cancel = entry.cancel._replace(grace=grace)
    if entry.state is JobState.RUNNING:
        tx.run(SQL["ask_to_cancel"], (cancel_text(entry.cancel), entry.order))
        tx.hints.cancels.add(job_id)
        return Reply(entry, True, is_running=True)
    tx.end(entry, Cancelled(entry.cancel.reason), None)
    return Reply(entry, True, is_news=True)


def lapse(tx: Transaction, entry: JobEntry) -> None:
    """Take a running job from a worker that is gone or did not renew its lease."""
    outcome = rules.lapse(entry)
    if outcome is not None:
        tx.end(entry, outcome, None)
        return
    assert entry.error is not None  # the lapse set it
    tx.restart(entry, entry.error, 0.0)
    tx.become_ready(entry, "lost lease")


def _look(tx: Transaction, claim: Claim) -> tuple[JobEntry | None, bool]:
    """Return a claim's job if the claim holds it, or was the last to, and whether it holds it now."""
    entry = tx.load("by_seq", claim.entry.order, light=True)
    if entry is None or entry.id != claim.entry.id or (entry.claim, entry.attempt) != (claim.id, claim.attempt):
        return None, False
    return entry, entry.state is JobState.RUNNING


def _holds(tx: Transaction, claim: Claim) -> bool:
    row = tx.run(SQL["holder"], (claim.entry.order, claim.entry.id)).fetchone()
    return row is not None and row[:3] == (JobState.RUNNING, claim.id, claim.attempt)
