"""Keeps the leases of running attempts, and tells those that lost theirs.

It renews all at once, three times a lease, and learns from the answers who was asked to cancel elsewhere. An
attempt whose lease could not be renewed is stopped a margin before it is over by this process's own clock. It
must not know what the attempts do.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING

import trio

from jobtrio._errors import StoreUnavailableError
from jobtrio._nursery import open_background_nursery
from jobtrio._settlement import CANCELLED, LOST

if TYPE_CHECKING:
    from jobtrio._attempt import Attempt
    from jobtrio.abc import JobStore, LeaseReport

ROUNDS = 3
"""Renewals a lease."""

ANSWER_WITHIN = 0.25
"""The share of a lease in which a renewal has to be answered: where one hangs, there is time for two more."""

PARTS = 10
"""Parts in which that time is counted, each of at least a turn of the event loop: see `Leases._give_up`."""

AGAIN_AFTER = 1.0
"""Seconds from a renewal that fails to the next, at most."""

MARGIN = 0.1
"""The share of a lease, before its end, in which an attempt that could not renew is stopped."""


class Leases:
    """The leases of all attempts that run in this process.

    Attributes:
        closing: Whether there is only to wait for what runs. A store that takes renewals, but not what became of the
            jobs, is not to hold that up: once all attempts are over, they are renewed only while ends are written.
    """

    def __init__(self, store: JobStore, lease: float, *, shows: bool) -> None:
        """Begin with none. ``shows`` tells whether to say that this worker is there while it has none."""
        self.closing = False
        self._has_ended = False  # an attempt, by itself, since the last renewal
        self._shows = shows
        self._store = store
        self._lease = lease
        self._until: dict[Attempt, float] = {}  # when each lease is over, at the earliest
        self._woken = trio.Event()
        self._pause = trio.CancelScope()  # in which the watch waits for the next lease to be about to be over

    def started(self, attempt: Attempt, asked: float) -> None:
        """Note an attempt, whose claim was first asked for at ``asked`` by Trio's clock: its lease began no earlier."""
        self._until[attempt] = asked + self._lease
        stop_at = self._stop_at(self._until[attempt])
        if stop_at < self._pause.deadline:
            self._pause.deadline = stop_at
        if trio.current_time() > asked + self._lease / ROUNDS:
            self.look()  # much of it is gone already

    def ended(self, attempt: Attempt) -> None:
        """Forget an attempt that is over: its lease is of no more use, and its claim holds the job."""
        if self._until.pop(attempt, None) is not None:
            self._has_ended = True

    def look(self) -> None:
        """Renew at once, since the answer may bring news."""
        self._woken.set()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Renew until cancelled. Cancellation: the leases lapse in their time."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            pause = 0.0 if self._shows else self._lease / ROUNDS
            while True:
                with trio.move_on_after(pause):
                    await self._woken.wait()
                self._woken = trio.Event()
                asked = trio.current_time()
                pause = self._lease / ROUNDS
                if not await self._renew(asked):
                    pause = min(pause, AGAIN_AFTER)
                # Counted from the question: on a slow way the answers take no part of the rhythm.
                pause = max(pause - (trio.current_time() - asked), 0.0)

    @trio.lowlevel.enable_ki_protection
    async def _watch(self) -> None:
        """Stop each attempt whose lease is about to be over, whatever became of its renewal."""
        while True:
            stop_at = self._stop_at(min(self._until.values(), default=inf))
            if stop_at > trio.current_time():
                with trio.CancelScope(deadline=stop_at) as self._pause:
                    await trio.sleep_forever()
            else:
                self._stop_overdue()

    def _stop_overdue(self) -> None:
        now = trio.current_time()
        for attempt in [attempt for attempt, until in self._until.items() if self._stop_at(until) <= now]:
            del self._until[attempt]
            attempt.stop(LOST, 0.0)

    def _stop_at(self, until: float) -> float:
        # The one place for this: the same sum on the other side of a comparison may be rounded to the other side.
        return until - MARGIN * self._lease

    async def _renew(self, asked: float) -> bool:
        """Renew once; tell whether that was answered."""
        self._stop_overdue()  # where this process stood still: to renew what it lets go of would only hold the job up
        attempts = [*self._until]
        if self.closing and not self._has_ended and all(attempt.over for attempt in attempts):
            attempts = []
        self._has_ended = False
        if not attempts and not self._shows:
            return True
        is_answered = False
        with trio.CancelScope() as scope:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._give_up, scope)
                with suppress(StoreUnavailableError):
                    reports = await self._store.renew([attempt.claim for attempt in attempts], self._lease)
                    is_answered = True
                    for attempt, report in zip(attempts, reports, strict=True):
                        self._heed(attempt, report, asked)  # here: to leave the nursery takes turns
        return is_answered

    @trio.lowlevel.enable_ki_protection
    async def _give_up(self, scope: trio.CancelScope) -> None:
        """Cancel a renewal that is not answered in time.

        The time passes in parts, each of which takes at least a turn of the event loop: where jobs hold that up for
        long, an answer that has come meanwhile has some turns left in which to be read.
        """
        for _ in range(PARTS):
            await trio.sleep(self._lease * ANSWER_WITHIN / PARTS)
        scope.cancel()

    def _heed(self, attempt: Attempt, report: LeaseReport, asked: float) -> None:
        if attempt not in self._until:
            return  # it has ended meanwhile, or was stopped
        if not report.held:
            del self._until[attempt]
            attempt.stop(LOST, 0.0)
            return
        self._until[attempt] = asked + self._lease
        cancel = report.entry.cancel
        if cancel is not None:
            attempt.claim.entry.cancel = cancel
            attempt.stop(CANCELLED, cancel.grace)
