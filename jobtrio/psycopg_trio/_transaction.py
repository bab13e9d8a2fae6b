"""Transactions that end: committed, rolled back, or with an error that says that nobody knows.

It owns what happens at the two ends of a block. psycopg's transaction does the work; here its ends are kept
from being cancelled half-way, which would leave it open, and from passing over a transaction that had failed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import psycopg
import trio
from psycopg import pq

from ._pipeline import PipelineBlock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from psycopg.pq.abc import PGconn

    from ._connection import TrioConnection

_LOST_CLASSES = ("08", "57P")
"""How the codes begin with which a server, or a pooler, that closes the connection answers, whatever it was doing."""

_LAST_WORDS = ("FATAL", "PANIC")
"""How severe an error is behind which the server closes the connection: a disk may have failed under the commit."""


class OutcomeUnknownError(psycopg.OperationalError):
    """The connection was lost, or time ran out, after ``COMMIT`` was sent: it may have been carried out, or not.

    The connection is closed. The cause is what the connection reported, if anything.
    """


class TransactionBlock(contextlib.AbstractAsyncContextManager[psycopg.AsyncTransaction, bool]):
    """A transaction or savepoint for one ``async with``; made by `TrioConnection.transaction`."""

    def __init__(self, connection: TrioConnection[Any], savepoint_name: str | None, force_rollback: bool) -> None:
        self._connection = connection
        self._transaction = psycopg.AsyncTransaction(connection, savepoint_name, force_rollback)
        self._stack = contextlib.AsyncExitStack()
        self._committing = False
        self._refused: BaseException | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> psycopg.AsyncTransaction:
        """Begin.

        *Cancellation*: before it has begun there is no effect. Once begun it is waited for, for at most
        ``cancel_grace`` seconds; what was begun is rolled back by the block's end.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        connection = self._connection
        place = self._transaction._stack_index
        with connection._finishing(begun=connection._pipeline is not None):  # a pipeline's beginning is a part of it
            try:
                async with contextlib.AsyncExitStack() as stack:
                    if connection._pipeline is not None:
                        # Its end sends the commit, and is not to be stopped.
                        await stack.enter_async_context(PipelineBlock(connection, stop=False))
                    await stack.enter_async_context(self._transaction)
                    stack.push_async_exit(self._before_end)
                    if connection._pipeline is not None:
                        await stack.enter_async_context(connection.pipeline())
                    self._stack = stack.pop_all()
            except BaseException:
                if self._transaction._stack_index != place:  # else it had no turn, and the number is that of others
                    # psycopg before 3.3 leaves it one too high.
                    connection._num_transactions = self._transaction._stack_index
                raise
        return self._transaction

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Commit, or roll back if there was an exception or the task is cancelled.

        *Cancellation*: once the commit has begun it is carried out; see `TrioConnection.commit`.
        """
        with self._connection._finishing():
            try:
                return bool(await self._stack.__aexit__(kind, exc, trace))
            except psycopg.Error as error:
                if self._committing and is_lost(error):
                    raise outcome_unknown() from error
                if self._connection.closed and self._refused is not None:
                    # There is nothing left to roll back, so what led here is what matters.
                    raise self._refused from None
                if self._connection.closed and exc is not None:
                    return False
                raise

    async def _before_end(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Turn a commit that is not wanted any more, or not possible, into an exception, behind which is rolled back.

        *Cancellation*: is seen here for the last time.
        """
        if exc is None:
            try:
                await trio.lowlevel.checkpoint_if_cancelled()
                if not self._transaction.force_rollback:
                    refuse_failed(self._connection.pgconn)
            except BaseException as refused:
                self._refused = refused
                raise
            self._committing = self._transaction._outer_transaction and not self._transaction.force_rollback
        return False


def refuse_failed(pgconn: PGconn) -> None:
    """Refuse to commit what the server would roll back without a word, or has lost already.

    Raises:
        psycopg.errors.InFailedSqlTransaction: A statement of the transaction has failed.
        psycopg.OperationalError: The connection is closed.
    """
    if pgconn.status != pq.ConnStatus.OK:
        raise psycopg.OperationalError("the connection was lost within the transaction: nothing is committed")
    if pgconn.transaction_status == pq.TransactionStatus.INERROR:
        raise psycopg.errors.InFailedSqlTransaction("a statement of the transaction has failed: nothing is committed")


@contextlib.contextmanager
def committing(pgconn: PGconn, *, is_prepared: bool = False) -> Iterator[None]:
    """Tell an answer to ``COMMIT`` from none, in the block that sends it.

    Args:
        pgconn: The connection.
        is_prepared: Whether what is committed may have been prepared, and so need not be open here.

    Raises:
        OutcomeUnknownError: There was no answer.
        psycopg.Error: As of `refuse_failed`.
    """
    open_before = pgconn.status == pq.ConnStatus.OK and (
        is_prepared or pgconn.transaction_status != pq.TransactionStatus.IDLE
    )
    if open_before:
        refuse_failed(pgconn)
    try:
        yield
    except psycopg.Error as error:
        if open_before and is_lost(error):
            raise outcome_unknown() from error
        raise


def is_lost(error: psycopg.Error) -> bool:
    """Return whether the error is the connection's end rather than an answer to the statement."""
    if error.diag.severity_nonlocalized in _LAST_WORDS:
        return True
    may_be = error.sqlstate is None or error.sqlstate.startswith(_LOST_CLASSES)
    return may_be and isinstance(error, psycopg.OperationalError)


def outcome_unknown() -> OutcomeUnknownError:
    """Return the error for a commit that was sent and never answered."""
    return OutcomeUnknownError("the connection was lost while it committed: it may have been carried out, or not")
