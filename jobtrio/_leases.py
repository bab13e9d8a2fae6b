"""Keeps the leases of running attempts, and tells those that lost theirs.

It renews all at once, three times a lease, and learns from the answers who was asked to cancel elsewhere. While
the store is away it stops each attempt a margin before its lease is over by this process's own clock. It
must not know what the attempts do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio._errors import StoreUnavailableError
from jobtrio._settlement import CANCELLED, LOST

if TYPE_CHECKING:
    from jobtrio._runner import Runner
    from jobtrio.abc import Claim, JobStore, LeaseReport

ROUNDS = 3
"""Renewals a lease."""

MARGIN = 0.1
"""The share of a lease, before its end, in which an attempt that could not renew is stopped."""


class Leases:
    """The leases of all attempts that run in this process."""

    def __init__(self, store: JobStore, runner: Runner, lease: float) -> None:
        self._store = store
        self._runner = runner
        self._lease = lease
        self._until: dict[Claim, float] = {}
        self._woken = trio.Event()

    def started(self, claim: Claim) -> None:
        """Note a new claim, made no later than now."""
        self._until[claim] = trio.current_time() + self._lease

    def look(self) -> None:
        """Renew at once, since the answer may bring news."""
        self._woken.set()

    async def run(self) -> None:
        """Renew until cancelled. Cancellation: the leases lapse in their time."""
        while True:
            with trio.move_on_after(self._lease / ROUNDS):
                await self._woken.wait()
            self._woken = trio.Event()
            await self._round()

    async def _round(self) -> None:
        claims = [attempt.claim for attempt in self._runner.running.values()]
        self._until = {claim: self._until.get(claim, trio.current_time()) for claim in claims}
        if not claims:
            return
        asked = trio.current_time()
        try:
            with trio.fail_after(self._lease / ROUNDS):
                reports = await self._store.renew(claims, self._lease)
        except (StoreUnavailableError, trio.TooSlowError):
            self._stop_overdue()
            return
        for claim, report in zip(claims, reports, strict=True):
            self._heed(claim, report, asked)

    def _heed(self, claim: Claim, report: LeaseReport, asked: float) -> None:
        running = self._runner.running.get(claim.entry.id)
        if running is None or running.claim is not claim:
            return
        if not report.held:
            running.stop(LOST, 0.0)
            return
        self._until[claim] = asked + self._lease
        cancel = report.entry.cancel
        if cancel is not None:
            claim.entry.cancel = claim.entry.cancel or cancel
            running.stop(CANCELLED, cancel.grace)

    def _stop_overdue(self) -> None:
        limit = trio.current_time() + self._lease * (MARGIN + 1 / ROUNDS)
        for attempt in self._runner.running.values():
            if self._until.get(attempt.claim, limit) < limit:
                attempt.stop(LOST, 0.0)
