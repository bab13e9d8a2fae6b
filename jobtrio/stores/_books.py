"""The jobs of a memory store and the steps of their lives: what its calls are made of.

All of it is synchronous, so that nothing can come between the parts of a step. It must not know what a call is.
"""

from __future__ import annotations

import time
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from jobtrio import _entry as steps
from jobtrio._patterns import Limits
from jobtrio._policies import RateLimits
from jobtrio._records import Failed, JobError, Outcome
from jobtrio._state import JobState
from jobtrio.stores import _rules as rules
from jobtrio.stores._pauses import Pauses
from jobtrio.stores._presence import Presence
from jobtrio.stores._ready import ReadyQueue
from jobtrio.stores._room import room_for
from jobtrio.stores._shelf import Shelf
from jobtrio.stores._starts import Starts
from jobtrio.stores._timers import Timer, TimerHeap

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio._policies import JobPriority
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import Claim, StoreSettings
    from jobtrio.stores._room import Room

TRIM_EVERY: Final = 64
"""Ends after which times are dropped that nobody waits for any more."""


class MemoryBooks:
    """All that a memory store keeps.

    Attributes:
        settings: What the store was opened with.
    """

    def __init__(self) -> None:
        self._shelf = Shelf()
        self._jobs = self._shelf.jobs
        self._index = self._shelf.index
        self._ready = ReadyQueue()
        self._timers = TimerHeap()
        self._claims: dict[str, list[Claim]] = {}  # the last calls, to recognise a repetition
        self._presence = Presence()
        self._numbers = count(1)  # of insertions, and of places in line
        self._waiting = 0  # submitted and never started
        self._pauses = Pauses()
        self._starts = Starts()
        self._ends = 0
        self._is_open = False
        self._left: tuple[trio.lowlevel.TrioToken, float] | None = None  # when it was closed last, and in which run
        self.settings: StoreSettings
        self._claimed_at = -inf  # when the last claim was made, where starts are limited

    def _room(self, room: Mapping[str, int] | None) -> Room | None:
        return room_for(room, self._totals, self._running, self._pauses.now(), self._starts.pace())

    def _running(self, queue: str) -> int:
        return self._index.in_queue(JobState.RUNNING, queue)

    def _use(self, settings: StoreSettings) -> None:
        self.settings = settings
        self._totals = Limits.of(settings.max_running_total)
        self._starts.limits = RateLimits.of(settings.rate_limits)
        self._changed = settings.listener.changed
        self._shelf.retention = settings.retention

    def _place(self, entry: JobEntry, submission: str) -> None:
        self._waiting += 1
        entry.order = entry.ticket = next(self._numbers)
        entry.submission = submission
        entry.state = JobState.SCHEDULED if entry.delay > 0 else JobState.QUEUED
        self._shelf.put(entry)
        self._changed(entry)
        is_held = entry.plan.executor is None
        if not entry.delay and not is_held:
            self._ready.push(entry)
        if entry.delay or is_held or entry.expires_in is not None:
            self._set_timers(entry)

    def _set_timers(self, entry: JobEntry) -> None:
        now = trio.current_time()
        if entry.delay > 0:
            entry.due = now + entry.delay
            self._add_timer(entry.due, Timer.DUE, entry)
        wait = rules.wait_of(entry, self.settings.retention)
        if wait is not None:
            entry.expires = now + wait
            self._add_timer(entry.expires, Timer.EXPIRY, entry)

    def _fall_due(self) -> float:
        if self._timers.next() == inf:
            return inf
        now = trio.current_time()
        while found := self._timers.pop(now):
            timer, entry = found
            if timer is Timer.DUE:
                self._requeue(entry, None)
            elif timer is Timer.EXPIRY:
                self._end(entry, Failed(rules.expired(entry, self.settings.retention)), None)
            else:
                self._lapse(entry)
        return self._timers.next() - now

    def _note_starts(self, entries: Sequence[JobEntry]) -> None:
        """Note that jobs were started, where that is limited."""
        if self._starts.limits and self._starts.note(entry.plan.queue for entry in entries):
            self.settings.listener.due_changed()

    def _add_timer(self, at: float, timer: Timer, entry: JobEntry) -> None:
        earliest = self._timers.next()
        self._timers.add(at, timer, entry)
        if at < earliest:
            self.settings.listener.due_changed()

    def _holds(self, claim: Claim) -> bool:
        entry = self._jobs.get(claim.entry.id)
        return (
            entry is not None
            and entry.state is JobState.RUNNING
            and entry.claim == claim.id
            and entry.attempt == claim.attempt
        )

    def _has_settled(self, claim: Claim) -> bool:
        """Whether this claim's attempt is over by its own doing, so that a repetition is answered like the first."""
        entry = self._jobs.get(claim.entry.id)
        return entry is not None and entry.claim == claim.id and entry.attempt == claim.attempt

    def _append(self, claim: Claim, messages: Sequence[Message]) -> JobEntry:
        entry = self._jobs[claim.entry.id]
        if messages:
            self._log(entry).extend(list(messages))
        return entry

    def _log(self, entry: JobEntry) -> TokenLog:
        if entry.log is None:
            entry.log = self.settings.new_log()
            if entry.outcome is not None:
                entry.log.finish(entry.outcome)
        return entry.log

    def _lapse(self, entry: JobEntry) -> None:
        lapsed = rules.lapse(entry)
        if isinstance(lapsed, JobError):
            self._log(entry).restart(entry.attempt, lapsed, 0.0)
            self._requeue(entry, "lost lease")
        else:
            self._end(entry, lapsed, None)

    def _requeue(self, entry: JobEntry, reason: str | None) -> None:
        previous = entry.state
        steps.become_ready(entry, worker=self.settings.worker, now=time.time(), reason=reason)
        self._index.moved(entry, previous)
        self._changed(entry)
        if not entry.is_held:
            entry.ticket = next(self._numbers)
            self._ready.push(entry)
            self.settings.listener.work_ready()

    def _prioritize(self, entry: JobEntry, priority: JobPriority) -> None:
        in_line = entry.state is JobState.QUEUED and not entry.is_held
        if in_line:
            self._ready.leave(entry)
        entry.plan = entry.plan.with_priority(priority)
        entry.ticket = next(self._numbers)
        if in_line:
            self._ready.push(entry)

    def _end(self, entry: JobEntry, outcome: Outcome, error: JobError | None) -> None:
        previous = entry.state
        in_line = previous is JobState.QUEUED and not entry.is_held
        if entry.attempt == 0:
            self._waiting -= 1
        steps.finish(entry, outcome, worker=self.settings.worker, now=time.time(), error=error)
        self._index.moved(entry, previous)
        if in_line:
            self._ready.gone(entry)
        if entry.log is not None:
            entry.log.finish(outcome)
            if entry.log.last == 1:
                entry.log = None  # it has nothing but the end, which `_log` tells anew: most are not asked any more
        self._changed(entry)
        self._shelf.end(entry)
        self._ends += 1
        if not self._ends % TRIM_EVERY:
            self._timers.trim(self._shelf.living)
        self._made_room(entry)

    def _made_room(self, entry: JobEntry) -> None:
        """Note that a job runs no more: where all workers share a limit, the others may start one."""
        if self._totals.find(entry.plan.queue) is not None:
            self.settings.listener.work_ready()
