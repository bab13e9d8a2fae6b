"""When the write-ahead log is copied into the file, and how.

SQLite's own checkpoints let others commit meanwhile, and up to 3.51.2 that can, very rarely, make it forget a part of
the log. These take the lock of writers instead, which costs the same: none of jobtrio's processes meets the error.
It must not know what was written.
"""

from __future__ import annotations

import os
import sqlite3
import time
from typing import Final

from jobtrio.stores.sqlite._connection import log, set_busy_timeout
from jobtrio.stores.sqlite._errors import FAILURES

FRAMES: Final = 4000
"""Pages that the log is to grow to."""

LARGEST: Final = 64 * 1024 * 1024
"""Bytes of the log beyond which it is copied at once. Up to here it is not cut, only written anew."""

FEWEST, FIRST, MOST = 16, 64, 2048
"""Groups between two checkpoints: at least, at first, at most."""

BUSY: Final = 0.1
"""Seconds that a checkpoint waits for readers. Writers wait for it meanwhile."""

PAUSE: Final = 20 * BUSY
"""Seconds until the next one where readers were in the way: one that stays for hours is not to slow writers down."""

_FIXED: Final = ((3, 44, 6), (3, 45, 0)), ((3, 50, 7), (3, 51, 0)), ((3, 51, 3), (99, 0, 0))


def has_reset_error(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Whether this SQLite may lose a part of the log when one process writes while another makes a checkpoint."""
    return not any(first <= version < after for first, after in _FIXED)


def warn_of_reset_error() -> None:
    """Log, once a process, that a file which several processes have open is safer with a newer SQLite."""
    global _has_warned  # noqa: PLW0603 - a fact about the process
    if not _has_warned and has_reset_error():
        _has_warned = True
        log.warning(
            "SQLite %s has the WAL-reset bug: let no program but jobtrio write to a file of several processes",
            sqlite3.sqlite_version,
        )


_has_warned = False


class Checkpoints:
    """Decides when the next one is due, by how much the last ones found."""

    def __init__(self, path: str) -> None:
        self._log_path = f"{os.path.realpath(path)}-wal"
        self._groups = 0
        self._after = FIRST
        self._not_before = 0.0  # by the monotonic clock

    def committed(self, connection: sqlite3.Connection) -> None:
        """Note a group that was committed; make a checkpoint if it is time."""
        self._groups += 1
        if self._groups >= self._after or self._is_large():
            self.make(connection)

    def idle(self, connection: sqlite3.Connection) -> None:
        """Use the pause, if anything was written before it."""
        if self._groups:
            self.make(connection)

    def make(self, connection: sqlite3.Connection) -> None:
        """Copy the log into the file as far as readers allow. A failure harms nothing, and is met again by writers."""
        if time.monotonic() < self._not_before:
            return
        groups, self._groups = self._groups, 0
        try:
            set_busy_timeout(connection, BUSY)
            try:
                busy, frames, _ = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
            finally:
                set_busy_timeout(connection, 0.0)
        except FAILURES as exc:
            log.debug("no checkpoint: %s", exc)
            busy, frames = 1, 0
        if busy:
            self._groups = groups
            self._not_before = time.monotonic() + PAUSE
        elif groups and frames > 0:
            self._after = min(max(groups * FRAMES // frames, FEWEST), MOST)

    def _is_large(self) -> bool:
        try:
            return os.stat(self._log_path).st_size > LARGEST
        except OSError:
            return False
