"""How attempts end, how jobs are asked to cancel, how leases lapse and ended jobs go, in stores that keep jobs as rows.

Each operation is given the transaction that it is a part of, and decides what becomes of a job there; what has to be
written for that is the transaction's. Whatever needs a claim returns what became of the job, or None where the claim no
longer holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from jobtrio._entry import CancelRequest
from jobtrio._records import Cancelled
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.stores import _rules as rules
from jobtrio.stores._announcer import Reply, Settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._entry import JobEntry
    from jobtrio._records import JobError, Outcome
    from jobtrio.abc import Claim
    from jobtrio.stores._chunks import Item


class JobSteps(Protocol):
    """What a transaction can do to a job."""

    @property
    def now(self) -> float:
        """The time of day by which jobs change."""

    def job(self, order: int) -> JobEntry | None:
        """Return a job by its number, or None; what its user gave may be missing."""

    def job_of(self, job_id: str) -> JobEntry | None:
        """Return a job by its id, or None."""

    def append(self, entry: JobEntry, items: Sequence[Item]) -> None:
        """Append a job's messages."""

    def restart(self, entry: JobEntry, error: JobError, delay: float) -> None:
        """Append the `Restart` behind a job's current attempt."""

    def become_ready(self, entry: JobEntry, reason: str | None) -> None:
        """Return a job to its queue, behind all that are ready."""

    def retry(self, entry: JobEntry, error: JobError, delay: float) -> None:
        """Let a job wait for its next attempt."""

    def end(self, entry: JobEntry, outcome: Outcome, error: JobError | None) -> None:
        """End a job: its state and its `End` in one."""

    def ask_to_cancel(self, entry: JobEntry) -> None:
        """Keep a request to cancel a running job."""

    def remove(self, entry: JobEntry) -> None:
        """Take out a job and all that belongs to it."""


def finish(
    tx: JobSteps, claim: Claim, outcome: Outcome, error: JobError | None, items: Sequence[Item]
) -> Settled | None:
    """End a running job."""
    entry, held = look(tx, claim)
    if entry is not None and held:
        tx.append(entry, items)
        tx.end(entry, *rules.heeding_cancel(entry, outcome, error))
    return None if entry is None else Settled(entry, held)


def retry(tx: JobSteps, claim: Claim, error: JobError, delay: float, items: Sequence[Item]) -> Settled | None:
    """Let a failed attempt be followed by another."""
    entry, held = look(tx, claim)
    if entry is None or not held:
        return None if entry is None else Settled(entry, False)
    tx.append(entry, items)
    if entry.cancel is not None:
        tx.end(entry, Cancelled(entry.cancel.reason), error)
    else:
        tx.restart(entry, error, delay)
        tx.retry(entry, error, delay)
    return Settled(entry, True)


def release(tx: JobSteps, claim: Claim, reason: str, items: Sequence[Item]) -> Settled | None:
    """Return a running job to its queue unfinished."""
    entry, held = look(tx, claim)
    if entry is None or not held:
        return None if entry is None else Settled(entry, False)
    tx.append(entry, items)
    if entry.cancel is not None:
        tx.end(entry, Cancelled(entry.cancel.reason), None)
    else:
        entry.losses = 0
        tx.restart(entry, rules.released(reason), 0.0)
        tx.become_ready(entry, reason)
    return Settled(entry, True)


def request_cancel(tx: JobSteps, job_id: str, reason: str | None, grace: float) -> Reply | None:
    """Ask to cancel: a job that does not run ends at once."""
    entry = tx.job_of(job_id)
    if entry is None:
        return None
    if entry.state in FINAL_STATES:
        return Reply(entry, False)
    if entry.cancel is None:
        entry.cancel = CancelRequest(tx.now, reason, grace)
    elif grace < entry.cancel.grace:
        entry.cancel = entry.cancel._replace(grace=grace)
    if entry.state is JobState.RUNNING:
        tx.ask_to_cancel(entry)
        return Reply(entry, True)
    tx.end(entry, Cancelled(entry.cancel.reason), None)
    return Reply(entry, True, is_news=True)


def lapse(tx: JobSteps, entry: JobEntry) -> None:
    """Take a running job from a worker that is gone or did not renew its lease."""
    outcome = rules.lapse(entry)
    if outcome is not None:
        tx.end(entry, outcome, None)
        return
    assert entry.error is not None  # the lapse set it
    tx.restart(entry, entry.error, 0.0)
    tx.become_ready(entry, "lost lease")


def delete(tx: JobSteps, job_id: str) -> bool:
    """Remove an ended job and all that belongs to it; False for an unknown one."""
    entry = tx.job_of(job_id)
    if entry is None:
        return False
    if entry.state not in FINAL_STATES:
        raise rules.still_lives(job_id, entry.state)
    tx.remove(entry)
    return True


def look(tx: JobSteps, claim: Claim) -> tuple[JobEntry | None, bool]:
    """Return a claim's job if the claim holds it, or was the last to, and whether it holds it now."""
    entry = tx.job(claim.entry.order)
    if entry is None or entry.id != claim.entry.id or (entry.claim, entry.attempt) != (claim.id, claim.attempt):
        return None, False
    return entry, entry.state is JobState.RUNNING
