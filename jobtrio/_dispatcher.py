"""Claims ready jobs within the free capacity and starts them: one loop for every store.

It is woken by submissions, by ends that free capacity, by the store, and by the next due time; a slow
poll is only the backstop. It must not know what becomes of an attempt.
"""

from __future__ import annotations

import secrets
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from jobtrio._entry import JobEntry
    from jobtrio._runner import Runner
    from jobtrio.abc import Claim, JobStore

RETRY_AFTER = 1.0
"""Seconds until the next try when the store was away."""


class Dispatcher:
    """Starts jobs while there is room for them.

    Attributes:
        closing: Set to claim nothing more.
    """

    def __init__(
        self,
        store: JobStore,
        runner: Runner,
        *,
        max_running: int,
        queues: Mapping[str, int] | None,
        executors: Collection[str] | None,
        lease: float,
        adopt: Callable[[Claim], Claim],
        publish: Callable[[JobEntry], None],
    ) -> None:
        self.closing = False
        self._store = store
        self._runner = runner
        self._max_running = max_running
        self._queues = queues
        self._executors = executors
        self._lease = lease
        self._adopt = adopt
        self._publish = publish
        self._rung = False
        self._waiting: trio.lowlevel.Task | None = None
        self._wants_room = False  # the last claim took all it could: an end makes room for more
        self._prefix = secrets.token_hex(8)
        self._claims = 0

    def ring(self) -> None:
        """Have it look again. Returns at once; ringing twice is ringing once."""
        self._rung = True
        if self._waiting is not None:
            trio.lowlevel.reschedule(self._waiting)
            self._waiting = None

    def room_made(self) -> None:
        """Note that a job has ended here."""
        if self._wants_room:
            self.ring()

    async def run(self, jobs: trio.Nursery) -> None:
        """Start attempts in ``jobs`` until cancelled.

        Cancellation: what was claimed is started or, where a claim's answer was lost, lapses with its lease.
        """
        while True:
            self._rung = False
            try:
                due = await self._turn(jobs)
            except StoreUnavailableError:
                due = RETRY_AFTER
            if not self._rung:
                await self._wait(min(due, self._store.poll_interval))

    async def _turn(self, jobs: trio.Nursery) -> float:
        """Do what is due, claim and start what there is room for; return the seconds until more is due."""
        advance = await self._store.advance()
        for entry in advance.changed:
            self._publish(entry)
        free = self._max_running - len(self._runner.running)
        room = self._room()
        self._wants_room = free <= 0 or room is not None
        if self.closing or free <= 0 or (room is not None and not room):
            return advance.next_due
        self._claims += 1
        claims = await self._store.claim(
            f"{self._prefix}-{self._claims}",
            limit=free,
            lease=self._lease,
            room=room,
            executors=self._executors,
        )
        self._wants_room = room is not None or len(claims) >= free
        for claim in claims:
            self._start(claim, jobs)
        return advance.next_due

    def _start(self, claim: Claim, jobs: trio.Nursery) -> None:
        claim = self._adopt(claim)
        attempt = self._runner.prepare(claim)
        self._publish(claim.entry)
        jobs.start_soon(self._runner.run, attempt, claim)

    def _room(self) -> dict[str, int] | None:
        if self._queues is None:
            return None
        room = dict(self._queues)
        for attempt, _ in self._runner.running.values():
            room[attempt.entry.plan.queue] -= 1
        return {name: free for name, free in room.items() if free > 0}

    async def _wait(self, seconds: float) -> None:
        if seconds == inf:
            await self._park()
        else:
            with trio.move_on_after(seconds):
                await self._park()

    async def _park(self) -> None:
        self._waiting = trio.lowlevel.current_task()

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._waiting = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
