"""The way from a program's pipes to a job's stream.

It owns the reading, its end, and what becomes of output that cannot be sent. It must not know what ends the
program; where a line ends belongs to `_lines`.
"""

from __future__ import annotations

import contextlib
import os
import sys
from math import inf
from typing import IO, TYPE_CHECKING, Any

import trio

from jobtrio._lines import LineSplitter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

READ_SIZE = 64 * 1024
"""Bytes read at once: what a pipe holds."""

AT_ONCE = 64
"""Tokens sent without giving way to other tasks, at most, where the time is short."""


class Relay:
    """The way from the program's two pipes to the job's stream.

    It works in a shield, so that a cancelled job still shows what its program said last. The shield's bound is the
    owner's to set, by the deadline of `scope`. Once it has one, many lines are sent in one turn of the event loop:
    where that is busy, the time would be over before all is sent. Where a send fails it reads on and drops, so that
    the program can end.

    Attributes:
        scope: Its shielded scope.
        going: Cancelled when a send has failed.
        failure: What that send raised.
        finished: Set when all output was sent or dropped.
    """

    def __init__(
        self,
        send: Callable[[dict[str, Any]], Awaitable[object]],
        send_nowait: Callable[[dict[str, Any]], object],
        **files: IO[bytes],
    ) -> None:
        self._send = send
        self._send_nowait = send_nowait
        self._pipes = {name: OutputPipe(file) for name, file in files.items()}
        self.scope = trio.CancelScope(shield=True)
        self.going = trio.CancelScope()
        self.failure: Exception | None = None
        self.finished = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Relay both pipes to their ends.

        *Cancellation*: shielded, until the deadline that the owner gives `scope`.
        """
        with self.scope:
            async with trio.open_nursery() as nursery:
                for name, pipe in self._pipes.items():
                    nursery.start_soon(self._relay, name, pipe)
        self.finished.set()

    def close_input(self) -> None:
        """Take what the pipes hold now for all there is: their other ends may be open in strangers."""
        for pipe in self._pipes.values():
            pipe.close_input()

    @trio.lowlevel.enable_ki_protection
    async def _relay(self, name: str, pipe: OutputPipe) -> None:
        lines = LineSplitter(name)
        while data := await self._next(lines, pipe):
            await self._send_all(lines.feed(data))
            await trio.lowlevel.checkpoint()
        await self._send_all(lines.finish())

    async def _next(self, lines: LineSplitter, pipe: OutputPipe) -> bytes:
        while (data := pipe.read_nowait()) is None:
            await self._send_all(lines.idle())
            await pipe.wait_readable()
        return data

    async def _send_all(self, tokens: Iterator[dict[str, Any]]) -> None:
        for number, token in enumerate(tokens):
            if self.failure is not None:
                continue
            try:
                if not (self.scope.deadline < inf and number % AT_ONCE and self._sent_at_once(token)):
                    await self._send(token)
            except Exception as exc:
                self.failure = exc
                self.going.cancel()

    def _sent_at_once(self, token: dict[str, Any]) -> bool:
        """Send a token where no consumer has to be waited for; tell whether it was sent."""
        try:
            self._send_nowait(token)
        except trio.WouldBlock:
            return False
        return True


class OutputPipe:
    """The reading end of a pipe that may be held open by strangers."""

    def __init__(self, file: IO[bytes]) -> None:
        # Not imported above: there are no such modules on Windows, where the rest of jobtrio works. And not only where
        # they are used: there may be no descriptor left then to import them with.
        import fcntl  # noqa: F401
        import termios  # noqa: F401

        self._fd = file.fileno()
        self._left: int | None = None
        os.set_blocking(self._fd, False)

    def read_nowait(self) -> bytes | None:
        """Return the next bytes, ``b""`` at the end, None where nothing is there yet."""
        size = READ_SIZE if self._left is None else min(READ_SIZE, self._left)
        try:
            data = os.read(self._fd, size)
        except BlockingIOError:
            return None if self._left is None else b""
        if self._left is not None:
            self._left -= len(data)  # which may be less than it was asked for: a pipe of packets gives one at a time
        return data

    async def wait_readable(self) -> None:
        """Wait until `read_nowait` has something to say.

        *Cancellation*: nothing is read.
        """
        if self._left is None:
            with contextlib.suppress(trio.ClosedResourceError):  # that is how `close_input` wakes it
                await trio.lowlevel.wait_readable(self._fd)

    def close_input(self) -> None:
        """Let the end come behind what the pipe holds now, whoever could still write to it."""
        import fcntl
        import termios

        held = fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4))
        self._left = int.from_bytes(held, sys.byteorder)
        trio.lowlevel.notify_closing(self._fd)
