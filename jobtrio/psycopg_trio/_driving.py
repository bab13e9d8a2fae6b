"""Drives psycopg's generators: waits, by Trio's means, for what they say they wait for.

It owns the waits for a socket and the fairness towards other tasks. It must not know what a generator does,
nor what happens when a wait is interrupted: the generator then stands where it was and can be driven on.
"""

from __future__ import annotations

import contextlib
import select
import time
from typing import TYPE_CHECKING, Any

import psycopg
import trio
from psycopg.waiting import Ready, Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg.abc import RV, PQGen

BUSY_LIMIT = 0.005
"""Seconds for which a socket that never blocks may keep other tasks waiting."""

_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}


class Driver:
    """Drives the generators of one connection."""

    __slots__ = ("_rested_at",)

    def __init__(self) -> None:
        self._rested_at = time.perf_counter()

    async def drive(self, generator: PQGen[RV], fd: int, *, begun: bool = False) -> RV:
        """Run ``generator`` to its end and return its value.

        Args:
            generator: One of psycopg's.
            fd: The socket of the connection.
            begun: Whether the generator was interrupted, and is to go on where it was.

        Raises:
            psycopg.OperationalError: The connection was closed meanwhile.

        *Cancellation*: leaves the generator where it waited. Where nothing has to be waited for there is a
        checkpoint only every 5 ms, so that writing many small pieces does not cost a turn each.
        """
        try:
            wanted = generator.send(Ready.NONE) if begun else next(generator)
            while True:
                wanted = generator.send(await self._ready(fd, Wait(wanted)))
        except StopIteration as end:
            if time.perf_counter() - self._rested_at > BUSY_LIMIT:
                # Its result stands, so it is too late to be cancelled.
                await trio.lowlevel.cancel_shielded_checkpoint()
                self._rested_at = time.perf_counter()
            value: RV = end.value
            return value

    async def _ready(self, fd: int, wanted: Wait) -> Ready:
        if wanted is not Wait.R and (ready := ready_now(fd, wanted)):
            if time.perf_counter() - self._rested_at <= BUSY_LIMIT:
                return ready
            await trio.lowlevel.checkpoint()
        else:
            ready = await wait_for_socket(fd, wanted)
        self._rested_at = time.perf_counter()
        return ready


def give_up(generator: PQGen[Any]) -> None:
    """End a generator that is not driven any more.

    Where its connection is lost, what it still tries fails: when it is collected, that would be printed.
    """
    with contextlib.suppress(psycopg.Error, RuntimeError):
        generator.close()


def ready_now(fd: int, wanted: Wait) -> Ready:
    """Return what of ``wanted`` the socket is ready for at this moment; a broken socket counts as ready."""
    poll = select.poll()
    poll.register(fd, _EVENTS[wanted])
    ready = Ready.NONE
    for _, event in poll.poll(0):
        if event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
            return Ready(wanted)  # the generator's next read or write says what is wrong
        if event & select.POLLIN:
            ready = Ready(ready | Ready.R)
        if event & select.POLLOUT:
            ready = Ready(ready | Ready.W)
    return ready


async def wait_for_socket(fd: int, wanted: Wait) -> Ready:
    """Wait until the socket can be read (`Wait.R`) or written (`Wait.W`), and return what it is ready for.

    *Cancellation*: has no effect on the socket.
    """
    try:
        if wanted is Wait.R:
            await trio.lowlevel.wait_readable(fd)
            return Ready.R
        if wanted is Wait.W:
            await trio.lowlevel.wait_writable(fd)
            return Ready.W
    except (OSError, trio.ClosedResourceError) as exc:
        raise psycopg.OperationalError("the connection was closed while it was in use") from exc
    return await _wait_either(fd)


async def _wait_either(fd: int) -> Ready:
    async def first(wait: Callable[[int], Awaitable[None]]) -> None:
        # What is wrong with the socket comes out of its next use.
        with contextlib.suppress(OSError, trio.ClosedResourceError):
            await wait(fd)
        nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first, trio.lowlevel.wait_readable)
            nursery.start_soon(first, trio.lowlevel.wait_writable)
    except BaseExceptionGroup as both:
        # Only a cancellation comes out of the two; the callers know it by its own type.
        raise both.exceptions[0] from None
    return ready_now(fd, Wait.RW)
