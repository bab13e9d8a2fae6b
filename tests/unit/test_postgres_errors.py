"""What PostgreSQL's errors mean for a store's callers."""

from __future__ import annotations

import psycopg
import pytest

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio.psycopg_trio import OutcomeUnknownError
from jobtrio.stores.postgres._errors import is_conflict, is_statement_lost, translate

E = psycopg.errors


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("the connection is lost"),
        psycopg.InterfaceError("the connection is closed"),
        psycopg.InternalError("received 2 results from command 'COMMIT'"),  # the server's farewell, and a pooler's
        OutcomeUnknownError("who knows"),
        E.ConnectionTimeout("no connection"),
        E.ConnectionException("08000"),
        E.AdminShutdown("57P01"),
        E.CrashShutdown("57P02"),
        E.CannotConnectNow("57P03"),
        E.IdleSessionTimeout("57P05"),
        E.TooManyConnections("53300"),
        E.DiskFull("53100"),
        E.OutOfMemory("53200"),
        E.IoError("58030"),
        E.ReadOnlySqlTransaction("25006"),
        E.IdleInTransactionSessionTimeout("25P03"),
        E.LockNotAvailable("55P03"),
        E.ProgramLimitExceeded("54000"),
        E.QueryCanceled("57014"),
        E.SerializationFailure("40001"),
        E.DeadlockDetected("40P01"),
        E.InvalidSqlStatementName("26000"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_those_that_pass(error: psycopg.Error) -> None:
    """What says nothing against the store is a store that is away for now."""
    found = translate(error, "here")
    assert type(found) is StoreUnavailableError
    assert str(error) in str(found)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (E.DataCorrupted("page 3"), "here is damaged: page 3 (XX001)"),
        (E.UndefinedTable('no "jobs"\nLINE 1'), 'here: no "jobs" LINE 1 (42P01)'),
        (E.InsufficientPrivilege("no"), "here: no (42501)"),
        (psycopg.ProgrammingError("misuse"), "here: misuse (ProgrammingError)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_those_that_stay(error: psycopg.Error, text: str) -> None:
    """What will not pass by itself is an error of the store's, in one line."""
    found = translate(error, "here")
    assert type(found) is StoreError
    assert str(found) == text


def test_those_that_are_tried_again() -> None:
    """Conflicts ask for another try, and lost statements for one without any prepared ones."""
    assert is_conflict(E.DeadlockDetected())
    assert is_conflict(E.SerializationFailure())
    assert not is_conflict(E.UniqueViolation())
    assert not is_conflict(psycopg.OperationalError())
    assert is_statement_lost(E.InvalidSqlStatementName())
    assert is_statement_lost(E.DuplicatePreparedStatement())
    assert not is_statement_lost(E.SerializationFailure())
