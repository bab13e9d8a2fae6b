"""What SQLite's errors mean for a store's callers, decided once.

It owns which of them pass by themselves and which do not. It must not know what was being done.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from jobtrio._errors import StoreError, StoreUnavailableError

FAILURES: Final = (sqlite3.Error, MemoryError)
"""What Python's module raises: the latter where SQLite says SQLITE_NOMEM."""

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT})

_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_SCHEMA,
    }
)
"""Nothing is wrong with the file: once the cause is gone, the same call succeeds."""


def primary_code(exc: Exception) -> int:
    """Return SQLite's primary result code, or 0 for an error of the Python module's own."""
    code: int = getattr(exc, "sqlite_errorcode", 0) or 0
    return code & 0xFF


def is_locked(exc: Exception) -> bool:
    """Whether all that is wrong is a lock that another connection holds."""
    return primary_code(exc) == sqlite3.SQLITE_BUSY


def is_read_only(exc: Exception) -> bool:
    """Whether the connection can't write, and never will: SQLite opens for reading alone what it may not write then."""
    return isinstance(exc, sqlite3.Error) and primary_code(exc) == sqlite3.SQLITE_READONLY


def is_undecodable(exc: Exception) -> bool:
    """Whether a text in the file is no UTF-8, as somebody else may have written it: Python says so, not SQLite."""
    return isinstance(exc, sqlite3.OperationalError) and not primary_code(exc)


def translate(exc: sqlite3.Error | MemoryError, path: str) -> StoreError:
    """Return one of `FAILURES` as the store's own error; raise it ``from`` the original."""
    if isinstance(exc, MemoryError):
        return StoreUnavailableError(f"{path}: out of memory (SQLITE_NOMEM)")
    name = getattr(exc, "sqlite_errorname", None) or type(exc).__name__
    if primary_code(exc) in _PASSING:
        return StoreUnavailableError(f"{path}: {exc} ({name})")
    if primary_code(exc) in _DAMAGED:
        return StoreError(f"{path} is damaged, or no SQLite file: {exc} ({name})")
    return StoreError(f"{path}: {exc} ({name})")
