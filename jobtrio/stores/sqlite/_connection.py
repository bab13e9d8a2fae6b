"""Opening the file: what is refused, what is made, and how connections are set up.

It owns the paths, the pragmas and the check that the file is still the one that was opened. It must not know what
is read or written.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import stat
import threading
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import quote

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio.stores.sqlite import _schema as schema
from jobtrio.stores.sqlite._errors import FAILURES, is_locked, translate

if TYPE_CHECKING:
    from collections.abc import Callable

Synchronous: TypeAlias = Literal["FULL", "NORMAL"]

FileId: TypeAlias = tuple[int, int]
"""What tells a file from another one at the same path."""

BUSY: Final = 1.0
"""Seconds that one statement waits for another process's lock."""

OLDEST: Final = (3, 35, 0)
"""The oldest SQLite that knows all that the statements use."""

CACHED: Final = 128
"""Statements that a connection keeps prepared: more than there are."""

LONGEST: Final = 504
"""Bytes of the longest path that SQLite takes: it has room for 512, and puts something behind it."""

OWN_CHECKPOINTS: Final = "PRAGMA wal_autocheckpoint = 0"
"""Leaves checkpoints to the writer, which makes them in its own way."""

log: Final = logging.getLogger("jobtrio.stores.sqlite")

connect: Callable[..., sqlite3.Connection] = sqlite3.connect
"""Where connections come from."""


_opened: Final[set[Location]] = set()
"""What this process has open, and what the one had open that it was forked from."""


class Location:
    """One file of jobs.

    Attributes:
        path: Where it is, absolute.
        synchronous: When a commit counts as done.
    """

    def __init__(self, path: str, synchronous: Synchronous) -> None:
        self.path: Final = path
        self.synchronous: Final = synchronous
        self._identity: FileId | None = None
        self._log: dict[str, FileId | None] = {}  # what tells the log and its index in use from others, by path
        self._connections = 0
        self._process = 0  # which has made the connections
        self._changing = threading.Lock()  # the last to close takes the log away, and has to see that it is the last

    def prepare(self) -> None:
        """Check the file, or make it, and bring it to the newest format.

        Raises:
            StoreUnavailableError: It can't be reached for now.
            StoreVersionError: It is newer than this version knows.
            StoreError: It is no file of jobs; nothing was written.
        """
        if sqlite3.sqlite_version_info < OLDEST:
            wanted = ".".join(map(str, OLDEST))
            raise StoreError(f"SQLite {wanted} or newer is needed; Python has {sqlite3.sqlite_version}")
        self._check_place()
        self._check_inherited()
        try:
            self._check_left()
            if _size(self.path):
                self._check_unopened()
            connection = self._connect("rwc")
            try:
                connection.execute(OWN_CHECKPOINTS)
                schema.migrate(connection, self.path)
                mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                if mode != "wal":
                    raise StoreError(f"{self.path}: this file system knows no write-ahead log (journal_mode {mode})")
                self._identity = _identity(self.path)
            finally:
                close(connection)
        except FAILURES as exc:
            raise translate(exc, self.path) from exc

    def _check_place(self) -> None:
        """Refuse what no waiting would mend."""
        place = os.path.realpath(self.path)
        if len(os.fsencode(place)) > LONGEST:
            raise StoreError(f"{self.path} can't be used: SQLite takes paths of at most {LONGEST} bytes")
        mode, _ = self._mode(self.path), self._mode(f"{place}-journal")  # which SQLite has to be able to make
        folder = os.path.dirname(place)
        if mode is not None and stat.S_ISDIR(mode):
            raise StoreError(f"{self.path} is a folder; it must be a file, or not exist yet")
        if mode is not None and not stat.S_ISREG(mode):
            raise StoreError(f"{self.path} is no regular file; it must be one, or not exist yet")
        if not os.path.isdir(folder):
            raise StoreError(f"{self.path} can't be made: there is no folder {folder}")
        if not _may(folder, os.W_OK | os.X_OK):
            raise StoreError(f"{self.path} can't be used: its folder can't be written to")
        if mode is not None and not _may(self.path, os.R_OK | os.W_OK):
            raise StoreError(f"{self.path} can't be read and written by this process")

    def _check_inherited(self) -> None:
        """Refuse a file whose locks SQLite takes for this process's own, where they are those of its parent."""
        found, here = _identity(self.path), os.getpid()
        if any(other._identity == found and other._process != here for other in list(_opened)):
            raise StoreError(
                f"{self.path} was open in the process that this one was forked from, which breaks its locks: "
                "start this one by 'spawn' or 'forkserver', or while the file is closed"
            )

    def _check_left(self) -> None:
        """Make no file where one is away and has left its log: SQLite would remove the log, and what is in it."""
        log = left_log(self.path)
        if log is not None:
            raise StoreUnavailableError(
                f"{self.path} is gone or empty, but its log, {log}, was left: a database seems to have been moved away "
                "or removed. Put it back; or, to start anew, remove that log, which loses what is in it"
            )

    def _mode(self, path: str) -> int | None:
        """Return what is at a path; None where nothing is yet."""
        try:
            return os.stat(path).st_mode
        except OSError as exc:
            if exc.errno in (errno.ELOOP, errno.ENAMETOOLONG, errno.EACCES):
                raise StoreError(f"{self.path} can't be used: {exc.strerror}") from exc
            return None

    def _check_unopened(self) -> None:
        """Look at the file's mark without locks, journals or anything else that would touch it or its folder.

        It is looked at without its log, and so may be in the middle of a checkpoint, also where a process died in one:
        then its first page counts pages that are in the log only.
        """
        connection = self._connect("ro&immutable=1")
        try:
            connection.execute("PRAGMA writable_schema = ON")  # which only means: don't compare that count
            application_id = connection.execute("PRAGMA application_id").fetchone()[0]
        finally:
            connection.close()
        if application_id != schema.APPLICATION_ID:
            raise StoreError(f"{self.path} is an SQLite file of another program (application_id {application_id:#x})")

    def connect(self, busy: float = BUSY) -> sqlite3.Connection:
        """Return a new connection to the file, which has to be there and of the newest format.

        From then on each of its statements waits ``busy`` seconds for the locks of others. `disconnect` closes it.
        """
        with self._changing:
            if self._connections:
                self.check_log()  # else this one would have another than the rest, and might be the last to be closed
            connection = self._connect("rw")
            try:
                if schema.check(connection, self.path) != len(schema.MIGRATIONS):
                    raise StoreUnavailableError(f"{self.path} was replaced by a file of another format")
                connection.execute(f"PRAGMA synchronous = {self.synchronous}")
                connection.execute("PRAGMA fullfsync = ON")  # on macOS a plain sync stops at the drive's cache
                connection.execute(OWN_CHECKPOINTS)
                connection.execute("PRAGMA journal_size_limit = 67108864")
                set_busy_timeout(connection, busy)
            except BaseException:
                close(connection)
                raise
            if not self._connections:
                place = os.path.realpath(self.path)  # which links may have made another since this was made
                self._log = {path: _identity(path) for path in (f"{place}-wal", f"{place}-shm")}
                self._process = os.getpid()
                _opened.add(self)
            self._connections += 1
        return connection

    def disconnect(self, connection: sqlite3.Connection) -> None:
        """Close a connection that `connect` has made."""
        with self._changing:
            close(connection)
            self._connections -= 1
            if not self._connections:
                _opened.discard(self)

    def check_identity(self) -> None:
        """Raise `StoreUnavailableError` unless the file is still there, and the same: then what was stored is away.

        Another file at its path is left alone. What has been acknowledged is in the first one, and the log beside it
        belongs to that one.
        """
        found = _identity(self.path)
        if found is None:
            raise StoreUnavailableError(f"{self.path} is not there")
        if found != self._identity:
            raise StoreUnavailableError(
                f"{self.path} was replaced by another file while it was open: put the first one back, or close all "
                "processes that use it"
            )

    def check_log(self) -> None:
        """Raise `StoreError` where the log beside the file, or its index, is not that of the connections.

        Nobody else sees what is in theirs, nor heeds its locks. Somebody has removed it. Or SQLite has, in another
        process that took itself for the last, as this one had lost its locks: the system drops them when a process
        closes the file that it has opened by other means than SQLite.
        """
        for path, opened in self._log.items():
            if _identity(path) != opened:
                self.check_identity()  # where the file is away, so is its log
                raise StoreError(
                    f"{path} was removed or replaced while it was in use, and what was written last may be lost: "
                    "end all processes that use the file, and start them again"
                )

    def _connect(self, mode: str) -> sqlite3.Connection:
        path = quote(os.fsencode(self.path))
        uri = f"file:{'//' if path.startswith('//') else ''}{path}?mode={mode}"  # else a host would follow two slashes
        return connect(
            uri, uri=True, timeout=BUSY, isolation_level=None, check_same_thread=False, cached_statements=CACHED
        )


def left_log(path: str) -> str | None:
    """Return the log of a file that is gone or empty, where there is one that holds something; else None."""
    log = f"{os.path.realpath(path)}-wal"
    return log if _size(log) and not _size(path) else None  # in this order, for a file is made before its log


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def set_busy_timeout(connection: sqlite3.Connection, seconds: float) -> None:
    """Let each statement wait so long for the locks of others."""
    connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")


def read_all(connection: sqlite3.Connection) -> None:
    """Have what is no UTF-8 be read as well, with escapes: it is one job's trouble then. All texts take longer."""
    connection.text_factory = _decoded


def _decoded(text: bytes) -> str:
    return text.decode(errors="backslashreplace")


def close(connection: sqlite3.Connection) -> None:
    """Close a connection, having rolled back what it had begun.

    Closing alone would leave that, and its locks, to a cursor that somebody still holds: in a traceback, say.
    """
    for finish in (connection.rollback, connection.close):
        try:
            finish()
        except FAILURES as exc:
            log.debug("a connection failed as it was closed: %s", exc)


def _identity(path: str) -> FileId | None:
    """Return what tells a file from another one at the same path, or None where none can be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Connector:
    """One thread's connection: opened when it is needed, and anew after a failure.

    Attributes:
        path: The file.
        connection: The connection, or None while there is none.
    """

    def __init__(self, location: Location, busy: float = BUSY) -> None:
        self.path: Final = location.path
        self.connection: sqlite3.Connection | None = None
        self._location = location
        self._busy = busy

    def connected(self) -> sqlite3.Connection:
        """Return a connection to the file that the store was opened on.

        Raises:
            StoreError: It is away, for now or for good.
            sqlite3.Error: It can't be opened.
        """
        self._location.check_identity()
        if self.connection is None:
            self.connection = self._location.connect(self._busy)
        self._location.check_log()
        return self.connection

    def check_version(self, connection: sqlite3.Connection) -> None:
        """Raise `StoreVersionError` where a newer jobtrio has changed the format meanwhile."""
        schema.check_version(self.path, schema.version_of(connection))

    def failed(self, exc: Exception) -> StoreError:
        """Give up what was begun, and return the error for callers.

        A lock that others hold, and a file that is away, say nothing against the connection.
        """
        if isinstance(exc, StoreError) or is_locked(exc):
            self.roll_back()
        else:
            self.close()
        if isinstance(exc, StoreError):
            return exc
        if isinstance(exc, FAILURES):
            error = translate(exc, self.path)
        else:
            error = StoreError(f"{self.path}: {type(exc).__name__}: {exc}")
        error.__cause__ = exc
        return error

    def roll_back(self) -> None:
        """Give up what was begun."""
        try:
            if self.connection is not None and self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except FAILURES:
            self.close()

    def close(self) -> None:
        """Close the connection; what it had begun is rolled back."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._location.disconnect(connection)
