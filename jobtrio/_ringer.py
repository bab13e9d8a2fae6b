"""Wakes the consumers of busy streams a little later, all at once.

Waking costs a step of the scheduler for each consumer that waits. Where many wait for the same log, this task
wakes them two turns after the token that they wait for, so that what is sent meanwhile is taken along. It
must not know what a log holds.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any, Protocol

import trio

from jobtrio._checks import other_run


class Wakeable(Protocol):
    """What can be woken."""

    def wake(self) -> None:
        """Wake all who wait, now."""


class Ringer:
    """One task for all logs of a registry."""

    def __init__(self) -> None:
        self._pending: list[Wakeable] = []
        self._waiting: trio.lowlevel.Task | None = None
        self._thread = 0  # that of the task
        self.is_running: bool = False

    @trio.lowlevel.enable_ki_protection
    def ring(self, log: Wakeable) -> None:
        """Have ``log.wake()`` called in the turn after the next. Call it only while the task is running."""
        self._pending.append(log)
        if self._waiting is not None:
            trio.lowlevel.reschedule(self._waiting)
            self._waiting = None

    def check_run(self, done: str, instead: str, by: str) -> None:
        """Raise `RuntimeError` in another run of Trio, or none, where one could not be woken, nor wake anybody.

        Args:
            done: What is done with a subscription.
            instead: What another thread has to give to `trio.from_thread`.
            by: By which of its functions.
        """
        if get_ident() != self._thread and self.is_running:  # a run stays in its thread, and has it alone
            raise other_run(f"a subscription must be {done}", instead, by)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Wake until cancelled. Cancellation: everybody who is waited for has been woken."""
        self._thread = get_ident()
        self.is_running = True
        try:
            while True:
                await self._park()
                await trio.lowlevel.checkpoint()
                self._wake()
        finally:
            self.is_running = False
            self._wake()

    def _wake(self) -> None:
        pending, self._pending = self._pending, []
        for log in pending:
            log.wake()

    async def _park(self) -> None:
        if self._pending:
            await trio.lowlevel.checkpoint()
            return
        self._waiting = trio.lowlevel.current_task()

        def abort(_: Any) -> trio.lowlevel.Abort:
            self._waiting = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
