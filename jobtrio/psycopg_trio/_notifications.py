"""What arrives by ``NOTIFY``: kept as it comes, read while no statement needs the connection.

A listener waits for the socket only while the connection's lock is free and steps aside for statements, which
receive notifications too. Nothing is held between two notifications, so a loop over them can be left anywhere.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncGenerator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import psycopg
import trio
from psycopg.waiting import Wait

from ._driving import ready_now, wait_for_socket

if TYPE_CHECKING:
    from types import TracebackType

    from psycopg.pq.abc import PGconn

    from ._lock import ConnectionLock


class Inbox:
    """The notifications that a connection has received and nobody has read."""

    def __init__(self, pgconn: PGconn, lock: ConnectionLock) -> None:
        self._pgconn = pgconn
        self._lock = lock
        self.unread: deque[psycopg.Notify] = deque()
        self.readers: weakref.WeakSet[Notifications] = weakref.WeakSet()
        self.handlers: int = 0

    def keep(self, notification: psycopg.Notify) -> None:
        """Keep a notification, unless callbacks see to them and nobody reads: nothing would ever empty the inbox."""
        if self.readers or not self.handlers:
            self.unread.append(notification)

    async def fill(self) -> None:
        """Wait until something was kept, or might have been.

        *Cancellation*: loses nothing.
        """
        # What came in one piece with the end of a result has been read from the socket already.
        if not self._lock.held and deliver(self._pgconn):
            return
        if await self._lock.idle(partial(wait_for_socket, self._pgconn.socket, Wait.R)):
            self._pgconn.consume_input()
            deliver(self._pgconn)

    async def look(self) -> None:
        """Keep what is there by now; whoever speaks to the server at this moment does so as well.

        *Cancellation*: is no checkpoint.
        """
        if not self._lock.held:
            async with self._lock:  # who waits for the socket finds out what was kept
                receive(self._pgconn)


def receive(pgconn: PGconn) -> None:
    """Read what the server has sent by itself, and hand the notifications in it to the connection's handlers."""
    while ready_now(pgconn.socket, Wait.R):
        pgconn.consume_input()
        deliver(pgconn)


def deliver(pgconn: PGconn) -> bool:
    """Hand what has arrived to the connection's handlers; return whether there was anything."""
    some = False
    while notification := pgconn.notifies():
        some = True
        if pgconn.notify_handler is not None:
            pgconn.notify_handler(notification)
    return some


class Notifications(AsyncGenerator[psycopg.Notify, None]):
    """The notifications of one connection, in ``async for``; made by `TrioConnection.notifies`.

    Leaving the loop is enough: nothing has to be closed, and what was not read yet is there for the next loop.
    """

    def __init__(self, inbox: Inbox, timeout: float | None, stop_after: int | None) -> None:
        self._inbox = inbox
        self._timeout = inf if timeout is None else timeout
        self._deadline: float | None = None
        self._left = stop_after
        self._closed = False

    @trio.lowlevel.enable_ki_protection  # Ctrl-C comes where something is waited for, or behind the end
    async def __anext__(self) -> psycopg.Notify:
        """Return the next notification.

        Raises:
            psycopg.OperationalError: The connection is closed or was lost.

        *Cancellation*: loses nothing.
        """
        if self._closed or self._left == 0:
            raise StopAsyncIteration
        self._inbox.readers.add(self)
        unread = self._inbox.unread
        if unread:
            await trio.lowlevel.checkpoint()  # another loop may read it meanwhile
        if not unread and not await self._wait():
            await self.aclose()
            raise StopAsyncIteration
        if self._left is not None:
            self._left -= 1
            if not self._left:
                await self.aclose()
        return unread.popleft()

    async def _wait(self) -> bool:
        if self._deadline is None:
            self._deadline = trio.current_time() + self._timeout
        with trio.CancelScope(deadline=self._deadline) as scope:
            while not self._inbox.unread:
                await self._inbox.fill()
        if scope.cancelled_caught:
            await self._inbox.look()  # a task that does not wait at all has nobody else who reads
        return bool(self._inbox.unread)

    async def asend(self, value: None) -> psycopg.Notify:
        """Return the next notification.

        *Cancellation*: loses nothing.
        """
        return await self.__anext__()

    async def athrow(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
        /,
    ) -> Any:
        """End the iteration and raise what was given.

        *Cancellation*: is not a checkpoint.
        """
        await self.aclose()
        raise typ

    async def aclose(self) -> None:
        """End the iteration.

        *Cancellation*: is not a checkpoint.
        """
        self._closed = True
        self._inbox.readers.discard(self)
