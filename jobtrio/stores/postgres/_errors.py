"""What PostgreSQL's errors mean for a store's callers, decided once.

It owns which of them pass by themselves, which ask for another try at once, and which do neither. It must not know what
was being done.
"""

from __future__ import annotations

from typing import Final

import psycopg

from jobtrio._errors import StoreError, StoreUnavailableError

_CONFLICTS: Final = frozenset({"40001", "40P01"})
"""Serialization failures and deadlocks: nothing was done, and the same may succeed at once."""

_STATEMENTS_LOST: Final = frozenset({"26000", "42P05"})
"""A prepared statement is not there, or there twice: somebody between here and the server changes the sessions."""

_CROWDED: Final = "54000"
"""So many notices that some client of the server's has not taken that there is no room for another."""

_PASSING: Final = (
    *("08", "53", "57P", "58"),  # connections, resources, shutdowns and start-ups, the system's errors
    *("25006", "25P03", "25P04", "55P03", "57014", "40", "26000", "42P05"),  # a standby; time limits, locks, conflicts
    _CROWDED,
)
"""How codes begin that say nothing against the store: once the cause is gone, the same call succeeds."""

_FORBIDDEN: Final = "42501"

_REFUSED: Final = frozenset({"25006", "53100", _FORBIDDEN})
"""Read-only, a full disk, rights that were revoked: a server that says so may do all else."""

_DAMAGED: Final = ("XX001", "XX002")


def is_conflict(exc: psycopg.Error) -> bool:
    """Whether the same may succeed at once."""
    return exc.sqlstate in _CONFLICTS


def is_statement_lost(exc: psycopg.Error) -> bool:
    """Whether prepared statements can't be relied on."""
    return exc.sqlstate in _STATEMENTS_LOST


def is_crowded(exc: psycopg.Error) -> bool:
    """Whether there was no room for another notice."""
    return exc.sqlstate == _CROWDED


def _is_passing(exc: psycopg.Error) -> bool:
    if exc.sqlstate is None:
        # No answer of the server's: the connection was lost or could not be made, or is not what psycopg understands.
        return isinstance(exc, (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError))
    return exc.sqlstate.startswith(_PASSING)


def is_forbidden(exc: psycopg.Error) -> bool:
    """Whether the role may not do this."""
    return exc.sqlstate == _FORBIDDEN


def is_refusal(exc: psycopg.Error) -> bool:
    """Whether the server can't do this, and goes on to do other things, as reading what is there."""
    return exc.sqlstate in _REFUSED


def translate(exc: psycopg.Error, where: str, *, is_open: bool = False) -> StoreError:
    """Return one of psycopg's errors as the store's own; raise it ``from`` the original.

    What a role may do, may be changed: in the way of a store that ``is_open`` that is an outage, which may pass.
    """
    code = type(exc).__name__ if exc.sqlstate is None else exc.sqlstate
    text = " ".join(str(exc).split())
    if _is_passing(exc) or (is_open and is_forbidden(exc)):
        return StoreUnavailableError(f"{where}: {text} ({code})")
    if exc.sqlstate in _DAMAGED:
        return StoreError(f"{where} is damaged: {text} ({code})")
    return StoreError(f"{where}: {text} ({code})")
