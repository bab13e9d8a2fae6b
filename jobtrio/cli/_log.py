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
from datetime import UTC, datetime
from time import monotonic

import jobtrio
from jobtrio.cli._endings import plural, printable, second
from jobtrio.cli._output import STDERR, write_now
from jobtrio.stores._outages import OUTAGE

KEPT = 1000
"""Lines that wait for a stalled reader; further ones are dropped, and it is said how many."""

PATIENCE = 0.5
"""Seconds to wait for one line, or for many together, to be written, so that what is said next comes behind them."""

SHARE = 0.02
"""How much of that each second gives back: a slow reader may hold up whoever logs for no more of the time."""

LAST_WORD = 1.0
"""Seconds that the last lines may take at the end of the process."""


class SpeakerFormatter(logging.Formatter):
    """Begins each line with who says it: jobtrio, or another's logger by its name."""

    def __init__(self, *, dated: bool = False) -> None:
        """Begin each line with the time in UTC as well, where it is ``dated``."""
        super().__init__()
        self._dated = dated

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        is_own = record.name.partition(".")[0] == jobtrio.__name__
        line = f"{jobtrio.__name__}: {printable(record.message)}" if is_own else f"{record.name}: {record.message}"
        return f"{second(datetime.fromtimestamp(record.created, UTC))} {line}" if self._dated else line

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as lines of printable characters: what others say, such as a server, may be in it.

        What jobtrio itself says is one line, with a traceback behind it at most.
        """
        return printable(super().format(record), lines=True)


class StderrHandler(logging.Handler):
    """Writes lines to stderr, and waits for them no longer than a moment."""

    def __init__(self) -> None:
        super().__init__()
        self._begin()
        os.register_at_fork(after_in_child=self._begin)  # no thread goes with it there

    def _begin(self) -> None:
        # Unlike `queue.Queue` it may be called within its own calls, as by a finaliser or a signal's handler that logs.
        self._lines: queue.SimpleQueue[tuple[bytes, threading.Event]] = queue.SimpleQueue()
        self._dropped = 0  # since the last line that was kept
        self._patience = PATIENCE
        self._waited_at = monotonic()
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
        if self._lines.qsize() >= KEPT:
            self._dropped += 1
            return
        written = self._keep(line)
        if self._has_thread():
            self._wait_for(written)

    def flush(self) -> None:
        """Wait a moment until all is written; the logging module does so when the process ends."""
        if (self._thread is not None or not self._lines.empty()) and self._has_thread():
            self._keep(b"").wait(LAST_WORD)

    def _keep(self, line: bytes) -> threading.Event:
        """Leave a line to the thread, and return what is set once it is written."""
        dropped, self._dropped = self._dropped, 0
        if dropped:
            line = f"jobtrio: {plural(dropped, 'line')} came too quickly to be logged\n".encode() + line
        written = threading.Event()
        self._lines.put((line, written))
        return written

    def _wait_for(self, written: threading.Event) -> None:
        now = monotonic()
        self._patience = min(self._patience + SHARE * (now - self._waited_at), PATIENCE)
        written.wait(self._patience)
        self._waited_at = monotonic()
        self._patience = max(self._patience - (self._waited_at - now), 0.0)

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
            written.set()


def log_to_stderr(level: int, *, lasts: bool = False, dated: bool = False) -> None:
    """Show what is logged on stderr, unless the application has configured logging itself.

    That a store is away, or back, is shown at any level: a command that waits for it would seem to hang.

    Args:
        level: The lowest level that is shown.
        lasts: Whether a job runs or is watched here: then warnings about it are shown as well.
        dated: Whether each line begins with the time, as a worker's lines of jobs do.
    """
    handler = StderrHandler()

    def is_shown(record: logging.LogRecord) -> bool:
        return record.levelno >= level or hasattr(record, OUTAGE) or (lasts and record.name == jobtrio.__name__)

    handler.addFilter(is_shown)
    handler.setFormatter(SpeakerFormatter(dated=dated))
    logging.basicConfig(level=min(level, logging.WARNING), handlers=[handler])
