"""The lock of a connection: whoever holds it may speak to the server.

Taking a free one is no checkpoint, and any task may release it. Ctrl-C does not come between the two halves of either.
psycopg holds it around everything it does, so its release is where a connection that is not at rest would be handed
on: there it is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class ConnectionLock:
    """A fair lock, in ``async with``.

    Args:
        settle: Called when the holder is done, before anyone else's turn.
        patience: Gives the seconds for which the current task goes on waiting though it was cancelled.
    """

    __slots__ = ("_idler", "_patience", "_settle", "_waiters", "changed", "held")

    def __init__(self, settle: Callable[[], None], patience: Callable[[], float]) -> None:
        self._settle = settle
        self._patience = patience
        self.held: bool = False
        """Whether somebody speaks to the server."""
        self._waiters = trio.lowlevel.ParkingLot()
        self._idler: trio.CancelScope | None = None
        self.changed: trio.lowlevel.ParkingLot = trio.lowlevel.ParkingLot()
        """Where those wait who only listen: woken when the lock or the listener's place is free."""

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> None:
        if self.held:
            await self._wait()
            return
        self.held = True
        if self._idler is not None:
            # Cancelling takes the socket out of the idler's hands before this call returns.
            self._idler.cancel("a statement needs the connection")

    async def _wait(self) -> None:
        try:
            await self._waiters.park()
        except trio.Cancelled:
            if patience := self._patience():
                with trio.CancelScope(shield=True, deadline=trio.current_time() + patience):
                    await self._waiters.park()
                    return
            raise

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        self._settle()
        if self._waiters:
            self._waiters.unpark()  # the lock stays held: it is now that task's
        else:
            self.held = False
            self.changed.unpark_all()

    @trio.lowlevel.enable_ki_protection
    async def idle(self, wait: Callable[[], Awaitable[object]]) -> bool:
        """Run ``wait`` for as long as nobody takes the lock; return whether it came to its end and the lock is free.

        While somebody holds the lock or idles already, wait for a change instead and return False.

        *Cancellation*: another task that waits for a change can idle in this one's place.
        """
        if self.held or self._idler is not None:
            await self.changed.park()
            return False
        with trio.CancelScope() as scope:
            self._idler = scope
            try:
                await wait()
            finally:
                self._idler = None
                self.changed.unpark_all()
        return not (scope.cancelled_caught or self.held)
