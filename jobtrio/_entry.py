"""The live, mutable inside of a job, and the five steps of its life.

One `JobEntry` a job, shared by whoever holds the job in this process; what leaves jobtrio is a frozen
`JobRecord` made from it. Every step checks the transition table and adds a line to the history. It
must not know stores, clocks or tasks: it is told the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import attrs

from jobtrio._checks import LATEST
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, JobError, JobRecord, Outcome, Transition, moment
from jobtrio._state import FINAL_STATES, JobState, check_transition

if TYPE_CHECKING:
    from datetime import datetime

    from jobtrio._token_log import TokenLog


@attrs.frozen(eq=False)
class Plan:
    """How a job is to be run: what jobs submitted alike can share.

    Attributes:
        executor: The executor's name; None for a held job that has none yet.
        function: The executor itself if it was given as such; None if the name stands for it.
        queue: The queue's name.
        priority: The priority.
        time_limit: Seconds an attempt may take, or None.
        retry: The retry policy, or None for a single attempt.
        worker: The name of the process that submitted it.
    """

    executor: str | None
    function: Callable[[Any], Any] | None
    queue: str
    priority: JobPriority
    time_limit: float | None
    retry: RetryPolicy | None
    worker: str

    @property
    def max_attempts(self) -> int:
        """How many attempts the policy allows."""
        return 1 if self.retry is None else self.retry.max_attempts

    def with_priority(self, priority: JobPriority) -> Plan:
        """Return the same plan with this priority."""
        return self if self.priority is priority else attrs.evolve(self, priority=priority)


class CancelRequest(NamedTuple):
    """The first request to cancel a job.

    Attributes:
        at: When, wall time in seconds.
        reason: Why, or None.
        grace: Seconds between setting the job's ``stopping`` and cancelling it, the shortest that was asked for.
    """

    at: float
    reason: str | None
    grace: float


Step: TypeAlias = tuple[float, JobState, int, str, "str | None"]
"""One line of a job's history, in its compact form: when, state, attempt, worker, reason."""

STEP: Final = 5
"""The length of such a line, where lines stand in one list."""

HISTORY: Final = 1_000
"""Changes of state kept of a job: the first one and the newest."""

_MOST = (HISTORY - 1) * STEP

REASON: Final = 1_000
"""Characters of an error that are kept as the reason of a change; the record has all of the newest error."""


@attrs.define(eq=False, slots=True)
class JobEntry:
    """All that is known about a job, as it changes.

    Times named ``…_at`` are wall time in seconds; ``due``, ``expires`` and ``lease_until`` are by the clock of the
    store that keeps the job.

    Attributes:
        id: The job's id.
        plan: How it is to be run.
        payload: What the executor is given.
        created_at: When it was submitted, by the submitter's clock; once stored, by the store's if that has one.
        submission: Marks the call that stored it, so that a repetition is recognised.
        state: Its `JobState`.
        tags: Strings by name.
        metadata: Any values by name.
        key: Its idempotency key.
        run_at: The earliest start that was asked for as a moment, or None.
        delay: Seconds from insertion to when it is first ready.
        expires_in: Seconds from insertion to the end of the wait for the first start, or None.
        order: The store's count of insertions.
        ticket: Its place among the ready jobs; each change of its priority raises it, also where it is not ready.
        attempt: The current or last attempt, from 1.
        started_at: When that started.
        finished_at: When the job ended.
        worker: The process that runs or last ran it.
        claim: The id of the claim that holds it while it runs, or last held it; None once lost.
        lease_until: When the claim lapses.
        losses: Leases lost in a row.
        failures: Attempts that failed and were followed by another, as far as they count.
        due: When it becomes ready, while it is scheduled or retrying.
        expires: When its wait for the first start is over, or None.
        cancel: The first request to cancel it, or None.
        error: What ended the last attempt that failed.
        outcome: How it ended, or None.
        saved_state: What an attempt saved last.
        steps: The history after its first line, which the other fields give: of each change the time, state, attempt,
            worker and reason, one after the other in one list. States are members of `JobState`.
        log: This process's copy of the stream. A store that keeps streams elsewhere leaves it as it is.
        unreadable: What can't be read of it in its store, so that it can't be run.
    """

    id: str
    plan: Plan
    payload: Any
    created_at: float
    submission: str = ""
    state: JobState = JobState.QUEUED
    tags: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None
    key: str | None = None
    run_at: float | None = None
    delay: float = 0.0
    expires_in: float | None = None
    order: int = 0
    ticket: int = 0
    attempt: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    claim: str | None = None
    lease_until: float = 0.0
    losses: int = 0
    failures: int = 0
    due: float = 0.0
    expires: float | None = None
    cancel: CancelRequest | None = None
    error: JobError | None = None
    outcome: Outcome | None = None
    saved_state: Any = None
    steps: list[Any] | None = None
    log: TokenLog | None = None
    unreadable: str | None = None

    @property
    def is_last_attempt(self) -> bool:
        """Whether a failure of the current attempt ends the job, by its policy."""
        retry = self.plan.retry
        return retry is None or self.failures + 1 >= retry.max_attempts

    @property
    def is_held(self) -> bool:
        """Whether the job has no executor yet; it may have ended all the same."""
        return self.plan.executor is None

    @property
    def never_started(self) -> bool:
        """Whether it is alive and no attempt has begun."""
        return self.attempt == 0 and self.state not in FINAL_STATES

    def record(self) -> JobRecord:
        """Return a frozen snapshot.

        Another thread may call this while the job ends: what an end brings is written before the state, and read after
        it.
        """
        state = self.state
        has_ended = state in FINAL_STATES
        plan, outcome, cancel = self.plan, self.outcome, self.cancel
        return JobRecord(
            id=self.id,
            executor=plan.executor,
            payload=self.payload,
            queue=plan.queue,
            priority=plan.priority,
            tags=dict(self.tags or ()),
            metadata=dict(self.metadata or ()),
            key=self.key,
            state=state,
            attempt=self.attempt,
            max_attempts=plan.max_attempts,
            created_at=moment(self.created_at),
            run_at=self._earliest_start(),
            started_at=None if self.started_at is None else moment(self.started_at),
            finished_at=moment(self.finished_at) if has_ended and self.finished_at is not None else None,
            worker=self.worker,
            cancel_requested_at=None if cancel is None else moment(cancel.at),
            cancel_reason=None if cancel is None else cancel.reason,
            error=self.error,
            result=outcome.result if has_ended and type(outcome) is Completed else None,
            time_limit=plan.time_limit,
            retry=plan.retry,
            expires_in=self.expires_in,
        )

    def _earliest_start(self) -> datetime | None:
        if self.run_at is not None:
            return moment(self.run_at)
        if self.delay > 0:  # from the submission, by the clock that tells when that was: the store's, where it has one
            return moment(min(self.created_at + self.delay, LATEST))
        return None

    @property
    def progress(self) -> tuple[int, int]:
        """Tells the newer of two entries of a job from the older: the attempt, and how often the state has changed."""
        steps, changes = self.steps or (), 0
        while len(steps) > changes * STEP and steps[2 - (changes + 1) * STEP] == self.attempt:
            changes += 1
        return self.attempt, changes

    def history(self) -> list[Transition]:
        """Return the changes of state that are kept, the oldest first."""
        return [self._transition(n) for n in range(1 + len(self.steps or ()) // STEP)]

    def history_behind(self, progress: tuple[int, int]) -> list[Transition]:
        """Return the changes of state after those that an entry with this `progress` has."""
        attempt, changes = progress
        attempts = (self.steps or ())[2::STEP]
        first = sum(number < attempt for number in attempts)
        told = changes if attempt in attempts else 0
        return [self._transition(n) for n in range(first + told + 1, len(attempts) + 1)]

    def last_transition(self) -> Transition:
        """Return the newest change of state."""
        return self._transition(len(self.steps or ()) // STEP)

    def _step(self, n: int) -> Step:
        if n > 0:
            assert self.steps is not None  # n counts them
            at, state, attempt, worker, reason = self.steps[(n - 1) * STEP : n * STEP]
            return (at, state, attempt, worker, reason)
        first = JobState.SCHEDULED if self.delay > 0 else JobState.QUEUED
        return (self.created_at, first, 0, self.plan.worker, None)

    def _transition(self, n: int) -> Transition:
        at, state, attempt, worker, reason = self._step(n)
        if n == 1 and attempt > 1:
            previous: JobState | None = JobState.QUEUED  # what was between is not kept: see _trim
        else:
            previous = self._step(n - 1)[1] if n else None
        return Transition(self.id, moment(at), previous, state, attempt, worker, reason)


def start(entry: JobEntry, *, claim: str, worker: str, now: float) -> None:
    """QUEUED → RUNNING: the next attempt, held by ``claim``."""
    check_transition(entry.state, JobState.RUNNING)
    entry.attempt += 1
    entry.claim = claim
    entry.worker = worker
    entry.started_at = now
    _move(entry, JobState.RUNNING, worker, now, None)


def become_ready(entry: JobEntry, *, worker: str, now: float, reason: str | None = None) -> None:
    """SCHEDULED, RETRYING or RUNNING → QUEUED: it may be claimed (again)."""
    check_transition(entry.state, JobState.QUEUED)
    _move(entry, JobState.QUEUED, worker, now, reason)


def retry(entry: JobEntry, error: JobError, *, counts: bool = True, worker: str, now: float) -> None:
    """RUNNING → RETRYING: the attempt failed, which counts or not, and another follows."""
    check_transition(entry.state, JobState.RETRYING)
    entry.error = error
    entry.losses = 0
    entry.failures += counts
    _move(entry, JobState.RETRYING, worker, now, reason_of(error))


def finish(entry: JobEntry, outcome: Outcome, *, worker: str, now: float, error: JobError | None = None) -> None:
    """Any living state → its final one. ``error`` is what a cancelled attempt's clean-up raised."""
    state, reason = final_state(outcome), None
    check_transition(entry.state, state)
    if isinstance(outcome, Failed):
        error = outcome.error
        reason = reason_of(error)
    elif isinstance(outcome, Cancelled):
        reason = outcome.reason
    if error is not None:
        entry.error = error
    now = end_of(entry, now)
    entry.outcome = outcome
    entry.finished_at = now
    _move(entry, state, worker, now, reason)


def reason_of(error: JobError) -> str:
    """Return an error as the reason of a change."""
    reason = str(error)
    return reason if len(reason) <= REASON else f"{reason[: REASON - 1]}…"


def end_of(entry: JobEntry, now: float) -> float:
    """Return when a job ends that ends now: wall time may step back, a duration must not."""
    return now if entry.started_at is None else max(now, entry.started_at)


def final_state(outcome: Outcome) -> JobState:
    """Return the state that an outcome stands for."""
    if isinstance(outcome, Completed):
        return JobState.COMPLETED
    return JobState.FAILED if isinstance(outcome, Failed) else JobState.CANCELLED


def _move(entry: JobEntry, state: JobState, worker: str, now: float, reason: str | None) -> None:
    entry.state = state
    if entry.steps is None:
        entry.steps = [now, state, entry.attempt, worker, reason]
    else:
        entry.steps += (now, state, entry.attempt, worker, reason)
        if len(entry.steps) > _MOST:
            _trim(entry.steps)


def _trim(steps: list[Any]) -> None:
    """Drop the oldest attempts, whole ones, so that what is kept begins with a start out of the queue."""
    cut = len(steps) - _MOST
    while cut < len(steps) and steps[cut + 1] is not JobState.RUNNING:
        cut += STEP
    del steps[:cut]
