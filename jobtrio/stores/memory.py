"""`MemoryJobStore`: jobs in this process, for as long as it lives.

The contract's plainest form: every call is one synchronous step, so that nothing can come between its
parts. The entries and logs that it hands out are the ones that it keeps. Waits and limits go by Trio's clock,
records by wall time.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from jobtrio import _entry as steps
from jobtrio._errors import QueueFullError, UnknownJobError
from jobtrio._messages import Gap, Message
from jobtrio._records import Cancelled, JobError, JobRecord, Outcome, Transition, WorkerReport
from jobtrio._state import FINAL_STATES, WAITING_STATES, JobState
from jobtrio.abc import Backlog, CancelReply, Claim, JobQuery, JobStore, LeaseReport, StoreSettings
from jobtrio.stores import _rules as rules
from jobtrio.stores._books import MemoryBooks
from jobtrio.stores._timers import Timer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from jobtrio._entry import JobEntry, Plan
    from jobtrio._policies import JobPriority

_REMEMBERED = 32  # calls to `claim` whose repetition is recognised


class MemoryJobStore(MemoryBooks, JobStore):
    """Keeps jobs in memory, bounded by `Retention` and ``max_queued``.

    An object serves one registry at a time.
    """

    claims_at_once = True
    durable = False
    outage_limit = inf
    poll_interval = inf

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def open(self, settings: StoreSettings) -> AsyncIterator[None]:
        """Make the store usable within the block."""
        if self._is_open:
            raise RuntimeError(f"{self!r} is open: it serves one registry at a time")
        self._is_open = True
        run = trio.lowlevel.current_trio_token()
        if self._left is not None and self._left[0] is not run:
            away = trio.current_time() - self._left[1]
            self._shelf.shift(away)  # each run has a clock of its own
            self._starts.shift(away)
            self._pauses.shift(away)
        try:
            self._use(settings)
            yield
        finally:
            self._is_open = False
            self.leave(settings.worker)
            self._left = run, trio.current_time()
            self._shelf.stop_clock()

    # -- putting in, finding, taking out

    @trio.lowlevel.enable_ki_protection
    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        """Store new jobs, all or none."""
        if len(entries) == 1 and entries[0].key is None and entries[0].id not in self._jobs:
            placed, answer = entries, list(entries)
        else:
            placed, answer = self._shelf.sort_out(entries, submission)
        if placed:
            if self._waiting + len(placed) > self.settings.max_queued:
                raise QueueFullError(self.settings.max_queued)
            for entry in placed:
                self._place(entry, submission)
            if self._ready:
                self.settings.listener.work_ready()
        return answer

    async def load(self, job_id: str) -> JobEntry | None:
        """Return a job, or None."""
        return self.peek(job_id)

    def peek(self, job_id: str) -> JobEntry | None:
        """Return a job, or None, at once."""
        return self._shelf.get(job_id)

    def __len__(self) -> int:
        self._shelf.evict()
        return len(self._jobs)

    async def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the matching jobs, in the order of their submission."""
        self._shelf.evict()
        after = None
        if query.after is not None:
            last = self._jobs.get(query.after)
            if last is None:
                raise UnknownJobError(query.after)
            after = last.order
        if query.key is not None:
            return rules.found_by_key(self._shelf.holder(query.key), query, after)
        return [entry.record() for entry in self._index.find(query, after)]

    async def history(self, job_id: str) -> list[Transition] | None:
        """Return a job's changes of state, the oldest first, or None for an unknown job."""
        entry = self.peek(job_id)
        return None if entry is None else entry.history()

    async def counts(self) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs, how many are in each state."""
        self._shelf.evict()
        return self._index.counts()

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        """Return the same of the jobs that have all of these tags."""
        self._shelf.evict()
        return self._index.counts_of(tags)

    async def workers(self) -> list[WorkerReport]:
        """Return the workers that are present, by name."""
        running = Counter(entry.worker for entry in self._index.living() if entry.state is JobState.RUNNING)
        return self._presence.reports(running)

    def tally(self) -> dict[JobState, int]:
        """Return how many jobs are in each state, at once."""
        self._shelf.evict()
        return {state: self._index.count(state) for state in JobState}

    def leave(self, worker: str) -> None:
        """Note that a worker is closed."""
        self._presence.leave(worker)

    @trio.lowlevel.enable_ki_protection
    async def pause(self, queue: str, seconds: float = inf) -> None:
        """Have no claim start a job of this queue, until `resume`, or for some seconds at least."""
        if self._pauses.begin(queue, seconds):
            self.settings.listener.due_changed()

    @trio.lowlevel.enable_ki_protection
    async def resume(self, queue: str) -> None:
        """Have claims start jobs of this queue again."""
        self._pauses.end(queue)
        self.settings.listener.work_ready()

    async def paused(self) -> dict[str, float]:
        """Return the queues that are paused, by name, in order, and for how many seconds more."""
        now = trio.current_time()
        return {queue: until - now for queue, until in sorted(self._pauses.now().items())}

    async def backlog(self, queues: Collection[str] | None, executors: Collection[str] | None = None) -> Backlog:
        """Return how many jobs of ``executors`` wait in ``queues``, without held ones and what waits for `resume`."""
        stopped = {queue for queue, until in self._pauses.now().items() if until == inf}

        def count(state: JobState) -> int:
            without = () if state is JobState.RUNNING else stopped
            return self._index.waiting(state, queues, executors, without)

        return Backlog(*map(count, rules.COUNTED))

    @trio.lowlevel.enable_ki_protection
    async def delete(self, job_id: str) -> bool:
        """Remove an ended job and all that belongs to it; False for an unknown one."""
        entry = self.peek(job_id)
        if entry is None:
            return False
        if entry.state not in FINAL_STATES:
            raise rules.still_lives(job_id, entry.state)
        self._shelf.remove(entry)
        return True

    # -- running

    @trio.lowlevel.enable_ki_protection
    async def start_held(self, job_id: str, plan: Plan) -> bool:
        """Give a held job its plan, and make it ready; False if it is not held (any more)."""
        self._fall_due()
        entry = self.peek(job_id)
        if entry is None or not entry.is_held or entry.state in FINAL_STATES:
            return False
        previous, entry.plan = entry.plan, plan.with_priority(entry.plan.priority)
        self._index.replanned(entry, previous)
        if entry.expires_in is None:
            entry.expires = None
        elif entry.expires is not None:
            # Counted from submission, as the end of the time that it is held was.
            held_for = entry.delay + self.settings.retention.held_for
            entry.expires += entry.expires_in - min(held_for, entry.expires_in)
            self._add_timer(entry.expires, Timer.EXPIRY, entry)
        if entry.state is JobState.QUEUED:
            entry.ticket = next(self._numbers)
            self._ready.push(entry)
            self.settings.listener.work_ready()
        return True

    @trio.lowlevel.enable_ki_protection
    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        """Give a job that waits for a start another priority; return the job, or None for an unknown one."""
        entry = self.peek(job_id)
        if entry is not None and entry.state in WAITING_STATES and entry.plan.priority is not priority:
            self._prioritize(entry, priority)
        return entry

    @trio.lowlevel.enable_ki_protection
    async def claim(
        self,
        claim_id: str,
        *,
        limit: int,
        lease: float,
        room: Mapping[str, int] | None = None,
        executors: Collection[str] | None = None,
    ) -> list[Claim]:
        """Start up to ``limit`` ready jobs, by priority, then in the order in which they became ready."""
        return self.claim_nowait(claim_id, limit=limit, lease=lease, room=room, executors=executors)

    @trio.lowlevel.enable_ki_protection
    def claim_nowait(
        self,
        claim_id: str,
        *,
        limit: int,
        lease: float,
        room: Mapping[str, int] | None = None,
        executors: Collection[str] | None = None,
    ) -> list[Claim]:
        """Do what `claim` does, on the spot."""
        if claim_id in self._claims:
            return [claim for claim in self._claims[claim_id] if self._holds(claim)]
        self._fall_due()  # what has expired must not start, although nobody has come to notice
        if self._starts.limits:
            self._claimed_at = trio.current_time()
        entries = self._ready.pop(limit, self._room(room), executors)
        if not entries:
            return []
        self._note_starts(entries)
        worker, now = self.settings.worker, time.time()
        lease_until = inf if lease == inf else trio.current_time() + lease
        claims = []
        for entry in entries:
            previous = entry.state
            if entry.attempt == 0:
                self._waiting -= 1
            steps.start(entry, claim=claim_id, worker=worker, now=now)
            self._index.moved(entry, previous)
            self._changed(entry)
            if lease_until != inf:
                entry.lease_until = lease_until
                self._add_timer(lease_until, Timer.LEASE, entry)
            claims.append(Claim(entry, claim_id, entry.attempt))
        if lease_until != inf:
            self._claims[claim_id] = claims
            if len(self._claims) > _REMEMBERED:
                del self._claims[next(iter(self._claims))]
        return claims

    def ready_nowait(self, room: Mapping[str, int] | None = None, most: int | None = None) -> int:
        """Return how many jobs are ready that there is room for, or a number that is not below ``most``."""
        ready = len(self._ready)
        left = self._room(room) if ready else None
        return ready if left is None else self._ready.count(left, inf if most is None else most)

    @trio.lowlevel.enable_ki_protection
    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        """Let claims last ``lease`` seconds from now, and report on each, in order."""
        self._presence.note(self.settings.worker, lease)
        reports = []
        for claim in claims:
            entry = self._jobs.get(claim.entry.id, claim.entry)
            held = self._holds(claim)
            if held:
                entry.lease_until = trio.current_time() + lease
                self._add_timer(entry.lease_until, Timer.LEASE, entry)
            reports.append(LeaseReport(held, entry))
        return reports

    @trio.lowlevel.enable_ki_protection
    async def finish(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        error: JobError | None = None,
        messages: Sequence[Message] = (),
    ) -> bool:
        """End a running job, after appending ``messages``."""
        if not self._holds(claim):
            return self._has_settled(claim)
        entry = self._append(claim, messages)
        self._end(entry, *rules.heeding_cancel(entry, outcome, error))
        return True

    @trio.lowlevel.enable_ki_protection
    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        """Let a failed attempt be followed by another in ``delay`` seconds, after appending ``messages``."""
        if not self._holds(claim):
            return self._has_settled(claim)
        entry = self._append(claim, messages)
        if entry.cancel is not None:
            self._end(entry, Cancelled(entry.cancel.reason), error)
            return True
        previous = entry.state
        steps.retry(entry, error, counts=counts, worker=self.settings.worker, now=time.time())
        self._index.moved(entry, previous)
        self._log(entry).restart(claim.attempt, error, delay)
        self._changed(entry)
        entry.due = trio.current_time() + delay
        self._add_timer(entry.due, Timer.DUE, entry)
        self._made_room(entry)
        return True

    @trio.lowlevel.enable_ki_protection
    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        """Return a running job to its queue unfinished, after appending ``messages``."""
        if not self._holds(claim):
            return self._has_settled(claim)
        entry = self._append(claim, messages)
        if entry.cancel is not None:
            self._end(entry, Cancelled(entry.cancel.reason), None)
            return True
        entry.losses = 0
        self._log(entry).restart(claim.attempt, rules.released(reason), 0.0)
        self._requeue(entry, reason)
        return True

    @trio.lowlevel.enable_ki_protection
    async def request_cancel(self, job_id: str, reason: str | None, grace: float) -> CancelReply | None:
        """Ask to cancel: a job that does not run ends at once, a running one when its attempt is gone."""
        entry = self.peek(job_id)
        if entry is None:
            return None
        if entry.state in FINAL_STATES:
            return CancelReply(entry, False)
        request = rules.ask_to_cancel(entry, time.time(), reason, grace)
        if entry.state is JobState.RUNNING:
            self.settings.listener.cancel_requested(job_id)
        else:
            self._end(entry, Cancelled(request.reason), None)
        return CancelReply(entry, True)

    async def save_state(self, claim: Claim, value: Any) -> bool:
        """Keep a value for the job's next attempt."""
        if not self._holds(claim):
            return False
        self._jobs[claim.entry.id].saved_state = value
        return True

    @trio.lowlevel.enable_ki_protection
    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        """Append an attempt's messages; those that are stored already are skipped."""
        if not self._holds(claim):
            return False
        self._append(claim, messages)
        self.settings.listener.messages_added(claim.entry.id)
        return True

    @trio.lowlevel.enable_ki_protection
    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        """Return up to ``limit`` kept messages after number ``after``, or None for an unknown job."""
        entry = self.peek(job_id)
        if entry is None:
            return None
        log = self._log(entry)
        missed = log.lost_before(after, lossless=False)
        if not missed:
            return log.slice(after, limit)
        return [Gap(after + 1, missed), *log.slice(missed, limit - 1)]

    # -- time

    @trio.lowlevel.enable_ki_protection
    async def advance(self) -> float:
        """Do what has fallen due: starts, retries, expiries, lapses, pauses; return the seconds until more is."""
        has_resumed, resumes = self._pauses.fall_due()
        if has_resumed:
            self.settings.listener.work_ready()
        return min(self._fall_due(), self._starts.fall_due(), resumes)

    async def next_start(self, room: Mapping[str, int] | None = None) -> float:
        """Return the seconds until a job may start that a rate limit may have held back in the last claim."""
        return self._starts.next_after(self._claimed_at, room)

    async def prune(self) -> float:
        """Remove ended jobs that are too old; return the seconds until there may be more."""
        self._shelf.evict()
        return self._shelf.next_eviction()

    @trio.lowlevel.enable_ki_protection
    async def abandon(self, reason: str) -> None:
        """End every living job: none can outlive the process."""
        for entry in self._index.living():
            outcome = Cancelled(reason if entry.cancel is None else entry.cancel.reason)
            self._end(entry, outcome, None)
