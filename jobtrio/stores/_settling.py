"""What becomes of jobs, in stores that keep them as rows: how attempts end, leases lapse, jobs are cancelled and go.

Each operation is given the transaction that it is a part of, and decides what becomes of a job there; what has to be
written for that is the transaction's. Whatever needs a claim returns what became of the job, or None where the claim no
longer holds it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import attrs

from jobtrio import _entry as steps
from jobtrio._patterns import Limits
from jobtrio._policies import RateLimits
from jobtrio._records import Cancelled, JobError
from jobtrio._state import FINAL_STATES, WAITING_STATES, JobState
from jobtrio.abc import CancelReply
from jobtrio.stores import _rules as rules
from jobtrio.stores._announcer import Settled
from jobtrio.stores._chunks import restart_text
from jobtrio.stores._hints import Hints

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._entry import JobEntry, Plan
    from jobtrio._policies import JobPriority, Retention
    from jobtrio._records import Outcome
    from jobtrio.abc import Claim
    from jobtrio.stores._chunks import Item


@attrs.frozen
class Identity:
    """Who writes.

    Attributes:
        worker: This process's name in the history.
        session: The name of this opened store, by which others tell it.
        retention: What to keep.
        totals: How many jobs may run over all workers, by queue.
        rates: How many may start in a time, likewise.
    """

    worker: str
    session: str
    retention: Retention
    totals: Limits = attrs.field(factory=Limits, converter=Limits)
    rates: RateLimits = attrs.field(factory=RateLimits, converter=RateLimits)


class JobSteps(ABC):
    """What a transaction can do to a job.

    Attributes:
        identity: Who writes.
        hints: What to tell other processes once all is committed.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity: Final = identity
        self.hints: Hints = Hints()

    # -- as each store can

    @property
    @abstractmethod
    def now(self) -> float:
        """The time of day by which jobs change."""

    @abstractmethod
    def job(self, order: int) -> JobEntry | None:
        """Return a job by its number, or None; what its user gave may be missing."""

    @abstractmethod
    def job_of(self, job_id: str) -> JobEntry | None:
        """Return a job by its id, or None."""

    @abstractmethod
    def last_number(self, entry: JobEntry) -> int:
        """Return the number of a job's last message, its `End` not counted; 0 before the first."""

    @abstractmethod
    def append(self, entry: JobEntry, items: Sequence[Item]) -> None:
        """Append a job's messages; those that are stored are passed over."""

    @abstractmethod
    def save(self, entry: JobEntry, *, is_ready: bool = False) -> None:
        """Write a job after one of its steps; one that ``is_ready`` gets a place behind all that are."""

    @abstractmethod
    def replan(self, entry: JobEntry) -> None:
        """Write a held job's plan; one that is queued gets a place behind all that are ready."""

    @abstractmethod
    def prioritize(self, entry: JobEntry) -> None:
        """Write the priority of a job that waits, with a place behind all that are ready."""

    @abstractmethod
    def ask_to_cancel(self, entry: JobEntry) -> None:
        """Write a request to cancel a running job."""

    @abstractmethod
    def keep_state(self, entry: JobEntry, text: str) -> None:
        """Write a value for a job's next attempt."""

    @abstractmethod
    def remove(self, entry: JobEntry) -> None:
        """Take out a job and all that belongs to it."""

    # -- as all do, unless one has a quicker way

    def holds(self, claim: Claim) -> bool:
        """Whether a claim holds its job."""
        settled = look(self, claim)
        return settled is not None and settled.is_news

    def restart(self, entry: JobEntry, error: JobError, delay: float) -> None:
        """Append the `Restart` behind a job's current attempt."""
        self.append(entry, ((self.last_number(entry) + 1, restart_text(entry.attempt, error, delay)),))

    def become_ready(self, entry: JobEntry, reason: str | None) -> None:
        """Return a job to its queue, behind all that are ready."""
        steps.become_ready(entry, worker=self.identity.worker, now=self.now, reason=reason)
        self.save(entry, is_ready=True)
        if not entry.is_held:
            self.hints.ready = True

    def retry(self, entry: JobEntry, error: JobError, delay: float, counts: bool) -> None:
        """Let a job wait for its next attempt."""
        steps.retry(entry, error, counts=counts, worker=self.identity.worker, now=self.now)
        entry.due = self.now + delay
        self.save(entry)
        self.falls_due(entry.due)
        self.made_room(entry)

    def end(self, entry: JobEntry, outcome: Outcome, error: JobError | None) -> None:
        """End a job: its state and its `End` in one."""
        steps.finish(entry, outcome, worker=self.identity.worker, now=self.now, error=error)
        self.save(entry)
        self.hints.messages.add(entry.id)
        self.made_room(entry)

    def made_room(self, entry: JobEntry) -> None:
        """Note that a job runs no more: where all workers share a limit, the others may start one."""
        if self.identity.totals.find(entry.plan.queue) is not None:
            self.hints.ready = True

    def falls_due(self, at: float) -> None:
        """Note a time by the clock of `now`."""
        self.hints.falls_due(time.monotonic() + at - self.now)


def start_held(tx: JobSteps, job_id: str, plan: Plan) -> bool:
    """Give a held job its plan, and make it ready; False if it is not held (any more)."""
    entry = tx.job_of(job_id)
    if entry is None or not entry.is_held or entry.state in FINAL_STATES:
        return False
    if entry.expires is not None and entry.expires <= tx.now:
        return False  # it has expired, though nobody has made it fail yet
    entry.plan = plan.with_priority(entry.plan.priority)
    if entry.expires_in is None:
        entry.expires = None
    else:
        # Counted from submission: how long it could be held its submitter decided, and here that may be set otherwise.
        # What was noted then is more where it was stored some while after it was made.
        entry.expires = max(entry.expires or 0.0, entry.created_at + entry.expires_in)
        tx.falls_due(entry.expires)
    tx.replan(entry)
    if entry.state is JobState.QUEUED:
        tx.hints.ready = True
    return True


def set_priority(tx: JobSteps, job_id: str, priority: JobPriority) -> JobEntry | None:
    """Give a job that waits for a start another priority; return the job, or None for an unknown one."""
    entry = tx.job_of(job_id)
    if entry is None or entry.state not in WAITING_STATES:
        return entry
    # What stands in the place of one that can't be read is no priority that it has.
    if entry.plan.priority is not priority or entry.unreadable is not None:
        entry.plan = entry.plan.with_priority(priority)
        tx.prioritize(entry)
    return entry


def finish(
    tx: JobSteps, claim: Claim, outcome: Outcome, error: JobError | None, items: Sequence[Item]
) -> Settled | None:
    """End a running job."""
    settled = look(tx, claim)
    if settled is not None and settled.is_news:
        tx.append(settled.entry, items)
        tx.end(settled.entry, *rules.heeding_cancel(settled.entry, outcome, error))
    return settled


def retry(
    tx: JobSteps, claim: Claim, error: JobError, delay: float, counts: bool, items: Sequence[Item]
) -> Settled | None:
    """Let a failed attempt be followed by another."""
    settled, entry = _leave_attempt(tx, claim, error, items)
    if entry is not None:
        tx.restart(entry, error, delay)
        tx.retry(entry, error, delay, counts)
    return settled


def release(tx: JobSteps, claim: Claim, reason: str, items: Sequence[Item]) -> Settled | None:
    """Return a running job to its queue unfinished."""
    settled, entry = _leave_attempt(tx, claim, None, items)
    if entry is not None:
        entry.losses = 0
        tx.restart(entry, rules.released(reason), 0.0)
        tx.become_ready(entry, reason)
    return settled


def _leave_attempt(
    tx: JobSteps, claim: Claim, error: JobError | None, items: Sequence[Item]
) -> tuple[Settled | None, JobEntry | None]:
    """Begin to end an attempt whose job goes on; return what became of the job, and the job if there is more to do.

    A request to cancel that was accepted wins.
    """
    settled = look(tx, claim)
    if settled is None or not settled.is_news:
        return settled, None
    entry = settled.entry
    tx.append(entry, items)
    if entry.cancel is None:
        return settled, entry
    tx.end(entry, Cancelled(entry.cancel.reason), error)
    return settled, None


def request_cancel(tx: JobSteps, job_id: str, reason: str | None, grace: float) -> CancelReply | None:
    """Ask to cancel: a job that does not run ends at once."""
    entry = tx.job_of(job_id)
    if entry is None:
        return None
    if entry.state in FINAL_STATES:
        return CancelReply(entry, False)
    request = rules.ask_to_cancel(entry, tx.now, reason, grace)
    if entry.state is JobState.RUNNING:
        tx.ask_to_cancel(entry)
        tx.hints.cancels.add(entry.id)
    else:
        tx.end(entry, Cancelled(request.reason), None)
    return CancelReply(entry, True)


def append(tx: JobSteps, claim: Claim, items: Sequence[Item]) -> bool:
    """Append an attempt's messages; False where its claim does not hold the job."""
    if not tx.holds(claim):
        return False
    tx.append(claim.entry, items)
    return True


def save_state(tx: JobSteps, claim: Claim, text: str) -> bool:
    """Keep a value for the job's next attempt; False where the claim does not hold the job."""
    if not tx.holds(claim):
        return False
    tx.keep_state(claim.entry, text)
    return True


def lapse(tx: JobSteps, entry: JobEntry) -> None:
    """Take a running job from a worker that is gone or did not renew its lease."""
    lapsed = rules.lapse(entry)
    if isinstance(lapsed, JobError):
        tx.restart(entry, lapsed, 0.0)
        tx.become_ready(entry, "lost lease")
    else:
        tx.end(entry, lapsed, None)


def delete(tx: JobSteps, job_id: str) -> bool:
    """Remove an ended job and all that belongs to it; False for an unknown one."""
    entry = tx.job_of(job_id)
    if entry is None:
        return False
    if entry.state not in FINAL_STATES:
        raise rules.still_lives(job_id, entry.state)
    tx.remove(entry)
    return True


def look(tx: JobSteps, claim: Claim) -> Settled | None:
    """Return a claim's job if the claim holds it, or was the last to; what becomes of it is news if it holds it now."""
    entry = tx.job(claim.entry.order)
    if entry is None or entry.id != claim.entry.id or (entry.claim, entry.attempt) != (claim.id, claim.attempt):
        return None
    return Settled(entry, entry.state is JobState.RUNNING)
