"""What is logged, on stderr: written by a thread, so that a reader that stalls holds up nobody but himself.

It must not know who logs.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from contextlib import suppress

import jobtrio
from jobtrio.cli._endings import printable
from jobtrio.cli._output import STDERR, write_now
from jobtrio.stores._outages import OUTAGE

KEPT = 1000
"""Lines that wait for a stalled reader; further ones are dropped."""

PATIENCE = 1.0
"""Seconds to wait until a line is written, so that what is said next comes behind it."""


class SpeakerFormatter(logging.Formatter):
    """Begins each line with who says it: jobtrio, or another's logger by its name."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        is_own = record.name.partition(".")[0] == jobtrio.__name__
        return f"{jobtrio.__name__ if is_own else record.name}: {record.message}"

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as lines of printable characters: what others say, such as a server, may be in it."""
        return printable(super().format(record))


class StderrHandler(logging.Handler):
    """Writes lines to stderr, and waits for none longer than a moment."""

    def __init__(self) -> None:
        super().__init__()
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # no thread goes with it there

    def _begin(self) -> None:
        self._lines: queue.Queue[tuple[bytes, threading.Event]] = queue.Queue(KEPT)
        self._is_stalled = False
        self._thread: threading.Thread | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or leave that to the thread where it takes too long."""
        if sys.stderr is None:
            return
        try:
            line = f"{self.format(record)}\n".encode(sys.stderr.encoding, "backslashreplace")
        except Exception:  # as of arguments that don't fit the message
            self.handleError(record)
            return
        written = threading.Event()
        with suppress(queue.Full):
            self._lines.put_nowait((line, written))
            if self._has_thread() and not self._is_stalled:
                self._is_stalled = not written.wait(PATIENCE)

    def _has_thread(self) -> bool:
        """Start the thread if there is none; tell whether there is one, or the lines have to wait for the next."""
        if self._thread is None:
            thread = threading.Thread(target=self._write, name="jobtrio log", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # perhaps because of a job's processes
                return False
            self._thread = thread
        return True

    def _write(self) -> None:
        while True:
            line, written = self._lines.get()
            with suppress(OSError):  # there is nobody to tell
                write_now(STDERR, line)
            self._is_stalled = False
            written.set()


def log_to_stderr(level: int, *, outages: bool = False) -> None:
    """Show what is logged on stderr, unless the application has configured logging itself.

    Args:
        level: The lowest level that is shown.
        outages: Whether it is shown also below that level that a store is away, and that it is back.
    """
    handler = StderrHandler()
    if outages:
        handler.addFilter(lambda record: record.levelno >= level or hasattr(record, OUTAGE))
        level = min(level, logging.WARNING)
    handler.setFormatter(SpeakerFormatter())
    logging.basicConfig(level=level, handlers=[handler])
