"""SQLite connections that fail when a test says so, in whichever thread they are used."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

When: TypeAlias = Literal["before", "after"]

CODES = {
    "SQLITE_BUSY": sqlite3.OperationalError,
    "SQLITE_FULL": sqlite3.OperationalError,
    "SQLITE_IOERR": sqlite3.OperationalError,
    "SQLITE_READONLY": sqlite3.OperationalError,
    "SQLITE_CANTOPEN": sqlite3.OperationalError,
    "SQLITE_CORRUPT": sqlite3.DatabaseError,
}


class Faults:
    """What goes wrong with the connections of a test.

    Attributes:
        count: How many statements were executed so far.
        failing: Whether every statement fails now.
        code: As what they fail.
        largest: The number of pages that the file may have; None for any.
        slow: Called before each statement.
        holding: Whether the cursors of statements that fail after they were executed live on, as in a traceback.
        held: These cursors.
    """

    def __init__(self) -> None:
        self.count = 0
        self.failing = False
        self.code = "SQLITE_IOERR"
        self.largest: int | None = None
        self.slow: Callable[[str], None] | None = None
        self.holding = False
        self.held: list[sqlite3.Cursor] = []
        self._at: tuple[int, When] | None = None
        self._lock = threading.Lock()

    def fail_at(self, n: int, when: When) -> None:
        """Have the n-th statement from now fail, before or after it is executed."""
        self._at = (self.count + n, when)

    def never_fail(self) -> None:
        """Have nothing fail any more."""
        self.failing, self._at = False, None

    def fault_of_next(self, statement: str) -> When | None:
        """Count a statement and say whether it fails."""
        if self.slow is not None:
            self.slow(statement)
        with self._lock:
            self.count += 1
            if self.failing:
                return "before"
            if self._at is not None and self._at[0] == self.count:
                return self._at[1]
            return None

    def error(self) -> Exception:
        """Return the error to fail with."""
        if self.code == "SQLITE_NOMEM":
            return MemoryError()  # as Python has it
        error = CODES[self.code](f"on purpose: {self.code}")
        error.sqlite_errorcode = getattr(sqlite3, self.code)
        error.sqlite_errorname = self.code
        return error


class FaultyConnection(sqlite3.Connection):
    """A connection that heeds the test's `Faults`."""

    faults = Faults()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._largest: int | None = None

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
        """Execute a statement, unless it is to fail."""
        faults = self.faults
        if faults.largest != self._largest:
            self._largest = faults.largest
            super().execute(f"PRAGMA max_page_count = {2**32 - 2 if self._largest is None else self._largest}")
        return self._heeding(statement, lambda: super(FaultyConnection, self).execute(statement, *args))

    def executemany(self, statement: str, *args: Any) -> sqlite3.Cursor:
        """Execute a statement many times, unless it is to fail."""
        return self._heeding(statement, lambda: super(FaultyConnection, self).executemany(statement, *args))

    def _heeding(self, statement: str, execute: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        faults = self.faults
        fault = faults.fault_of_next(statement)
        if fault == "before":
            raise faults.error()
        cursor = execute()
        if fault == "after":
            if faults.holding:
                faults.held.append(cursor)
            else:
                cursor.close()
            raise faults.error()
        return cursor


def install(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Have all connections of the store heed the `Faults` that are returned."""
    FaultyConnection.faults = faults = Faults()

    def connect(*args: Any, **options: Any) -> sqlite3.Connection:
        return sqlite3.connect(*args, factory=FaultyConnection, **options)

    monkeypatch.setattr("jobtrio.stores.sqlite._connection.connect", connect)
    return faults
