"""Where the command's output goes: onto the process's own stdout and stderr.

Each write is made by a worker thread, unbuffered, so that a reader that stalls (a pager, a full disk's
retry) holds up this consumer alone: Ctrl-C, limits and the job's own clean-up go on. It must not know what
is written.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import termios
from contextlib import suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable

STDOUT = 1
STDERR = 2

STALL = 0.05
"""Seconds between two looks whether a reader reads again."""

LAST_WORD = 1.0
"""Seconds that a line of our own may hold up the rest where the output is stalled."""

Piece: TypeAlias = tuple[int, str]
"""A descriptor, and text for it."""


class _WholeWriter(io.BufferedWriter):
    """Hands on at once what is written, and all of it."""

    def write(self, data: Any) -> int:
        size = super().write(data)
        self.flush()
        return size


def prepare_stdout() -> None:
    """Have stdout show what the locale lacks as escapes, and write all that is printed, or raise."""
    stream = sys.stdout
    if not isinstance(stream, io.TextIOWrapper):
        return
    if isinstance(stream.buffer, io.RawIOBase):
        # As with PYTHONUNBUFFERED: what a disk or a pipe does not take of a write would be dropped.
        # Over a file of its own, or its end would close `sys.__stdout__` as well.
        buffer = _WholeWriter(io.FileIO(stream.fileno(), "wb", closefd=False))
        stream = sys.stdout = io.TextIOWrapper(buffer, stream.encoding, write_through=True)
    stream.reconfigure(errors="backslashreplace")


class _Unread(io.FileIO):
    """Takes also what nobody reads any more."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Have what is printed vanish once its reader has left, as behind a pipe after Ctrl-C, rather than fail a job."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:  # of a class of its own it may have no file
            writer = io.BufferedWriter if type(stream.buffer) is io.BufferedWriter else _WholeWriter
            buffer = writer(_Unread(stream.fileno(), "wb", closefd=False))
            outliving = io.TextIOWrapper(buffer, stream.encoding, stream.errors)
            outliving.reconfigure(line_buffering=stream.line_buffering, write_through=stream.write_through)
            setattr(sys, name, outliving)


def can_draw(stream: TextIO | None) -> bool:
    """Whether a stream goes to a terminal that can show more than lines of plain text."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") not in {None, "", "dumb"}


class Output:
    """The process's stdout and stderr, as a consumer needs them.

    A stream that was closed before the start takes everything and shows nothing.
    """

    def __init__(self) -> None:
        # Not the descriptors alone: where 1 or 2 was closed, something else may have taken its number.
        streams = ((STDOUT, sys.stdout), (STDERR, sys.stderr))
        self._encodings = {fd: stream.encoding for fd, stream in streams if stream is not None}

    async def write(self, pieces: Iterable[Piece]) -> None:
        """Write ``pieces`` in order; what follows on the same descriptor goes in one write.

        Raises:
            BrokenPipeError: The reader left.
            OSError: The descriptor can't be written.

        *Cancellation*: returns at once, though a write that is stalled may still happen.
        """
        for fd, group in groupby(pieces, key=lambda piece: piece[0]):
            if (encoding := self._encodings.get(fd)) is not None:
                data = "".join(text for _, text in group).encode(encoding, "backslashreplace")
                try:
                    # Abandoning leaves a daemon thread in os.write, which holds nothing that others need.
                    await trio.to_thread.run_sync(write_now, fd, data, abandon_on_cancel=True)
                except RuntimeError:  # no thread can be started, perhaps because of a job's processes
                    await _write_without_thread(fd, data)

    async def say(self, line: str) -> None:
        """Write a line of our own to stderr, if that can be written. *Cancellation*: as that of `write`."""
        with suppress(OSError):  # there is nobody to tell
            await self.write([(STDERR, line + "\n")])


def write_now(fd: int, data: bytes) -> None:
    """Write all of some data, however long that takes.

    Raises:
        OSError: The descriptor can't be written.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Another process that shares the terminal or pipe has made it non-blocking.
            select.select([], [fd], [])


async def _write_without_thread(fd: int, data: bytes) -> None:
    """Write all of some data in pieces that do not block.

    *Cancellation*: a part may have been written.
    """
    rest = memoryview(data)
    while rest:
        if select.select([], [fd], [], 0)[1]:
            with suppress(BlockingIOError):
                rest = rest[os.write(fd, rest[: select.PIPE_BUF]) :]
                continue
        await trio.sleep(STALL)


def forget_dead_terminals() -> None:
    """Drop what is written to stdout and stderr from now on, where they are a terminal that is gone.

    Else whatever prints would fail, and the job that prints with it.
    """
    for fd in (STDOUT, STDERR):
        try:
            termios.tcgetattr(fd)
        except termios.error as exc:
            if exc.args[0] == errno.EIO:
                drop(fd)


def drop(fd: int) -> None:
    """Drop what is written to a descriptor from now on."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, fd)
    os.close(null)
