"""The connection: psycopg's own, with Trio's waits and a promise about interruptions.

Whatever interrupts a caller, the connection is afterwards at rest, with the statement cancelled on the server and its
answer read, or it is closed. What ends a transaction is not itself cancelled half-way. How either is done is elsewhere.
"""

from __future__ import annotations

import contextlib
import functools
import math
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import trio
from psycopg import pq
from psycopg.adapt import AdaptersMap
from psycopg.rows import Row

from ._cancelling import bring_to_rest, cancel_on_server, is_busy
from ._connecting import open_wire
from ._driving import Driver, give_up
from ._lock import ConnectionLock
from ._notifications import Inbox, Notifications
from ._pipeline import PipelineBlock
from ._transaction import TransactionBlock, committing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from types import TracebackType
    from typing import Self

    from psycopg.abc import RV, AdaptContext, ConnParam, PQGen
    from psycopg.pq.abc import PGconn
    from psycopg.rows import AsyncRowFactory

_STREAM = "_stream_send_gen"
"""The generator that begins to stream rows."""

_CLOSE = "_close_gen"
"""The generator that closes a cursor on the server."""

_END_COPY = "copy_end"
"""The generator that ends a COPY to the server."""

_AT_REST = (pq.TransactionStatus.IDLE, pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)


class _Finish(NamedTuple):
    """How a task's waits come to their end though it is cancelled; see `TrioConnection._finishing`."""

    stop: bool
    begun: bool


class TrioConnection(psycopg.AsyncConnection[Row]):
    """A connection to PostgreSQL for Trio, with psycopg's interface; made by `connect`.

    Tasks may share one: each statement has its turn, in the order in which they came. A transaction, a pipeline and a
    ``COPY`` belong to one task alone.

    *Cancellation*, of every method that talks to the server: before anything was sent there is no effect. After that
    the server is asked to cancel the statement, which it may have carried out already. The cancelled task still waits
    for its answer, for at most ``cancel_grace`` seconds; after that the connection is closed.

    Attributes:
        cancel_grace: Seconds for which the clean-up after a cancellation may hold up the cancelled task, by default 5.
    """

    cancel_grace: float = 5.0

    def __init__(self, pgconn: PGconn, *args: Any, **options: Any) -> None:
        super().__init__(pgconn, *args, **options)
        self._driver = Driver()
        self._finishers: dict[trio.lowlevel.Task, _Finish] = {}
        self._streamed = False
        # Weak, since psycopg warns of a connection that was never closed when nothing refers to it any more.
        me = weakref.ref(self)
        lock = ConnectionLock(functools.partial(_settle, me), functools.partial(_patience, me))
        self.lock: ConnectionLock = lock  # type: ignore[assignment]  # asyncio's, by psycopg's types
        self._inbox = Inbox(pgconn, lock)
        super().add_notify_handler(self._inbox.keep)

    @classmethod
    @trio.lowlevel.enable_ki_protection
    async def connect(  # type: ignore[override]  # psycopg passes its own numbers as whole ones
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Row] | None = None,
        cursor_factory: type[psycopg.AsyncCursor[Row]] | None = None,
        within: float = math.inf,
        **kwargs: ConnParam,
    ) -> Self:
        """Connect as `jobtrio.psycopg_trio.connect` does, whose parameters these are; for subclasses.

        *Cancellation*: no connection is left behind.
        """
        connection = cls(await open_wire(conninfo, kwargs, within))
        connection._autocommit = autocommit
        connection.prepare_threshold = prepare_threshold
        if row_factory is not None:
            connection.row_factory = row_factory
        if cursor_factory is not None:
            connection.cursor_factory = cursor_factory
        if context is not None:
            connection._adapters = AdaptersMap(context.adapters)
        return connection

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Commit what is open, or roll it back behind an exception; then close the connection.

        *Cancellation*: rolls back, within ``cancel_grace``, and closes.
        """
        try:
            if self.closed:
                return
            if exc_type is None:
                await self.commit()
            else:
                with contextlib.suppress(psycopg.Error):
                    await self.rollback()
        finally:
            await self.close()

    @trio.lowlevel.enable_ki_protection
    async def close(self) -> None:
        """Close the connection; what other tasks are doing with it fails.

        *Cancellation*: is not a checkpoint.
        """
        self._let_go_of_socket()
        await super().close()

    def _abandon(self) -> None:
        """Close a connection that nobody can use any more."""
        self._let_go_of_socket()
        self.pgconn.finish()

    def _let_go_of_socket(self) -> None:
        with contextlib.suppress(psycopg.OperationalError):  # it has none any more
            trio.lowlevel.notify_closing(self.pgconn.socket)
        self.lock.changed.unpark_all()

    @trio.lowlevel.enable_ki_protection  # Ctrl-C comes where something is waited for, or behind the end
    async def wait(
        self,
        gen: PQGen[RV],
        interval: float = 0.1,
        timeout: float | None = None,  # noqa: ASYNC109  # psycopg's interface
    ) -> RV:
        """Drive one of psycopg's generators; for those who write their own.

        Args:
            gen: The generator; the caller holds `lock`.
            interval: Has no effect here.
            timeout: Seconds after which the statement is cancelled and `trio.TooSlowError` raised.

        *Cancellation*: as for the whole class.
        """
        if timeout is not None:
            with trio.fail_after(timeout):
                return await self.wait(gen)
        try:
            if self._finishers and (finish := self._finishers.get(trio.lowlevel.current_task())) is not None:
                return await self._finish(gen, finish.stop)
            name = getattr(gen, "__name__", "")
            if name == _CLOSE:
                # It would stay until the session's end, and its name in use.
                return await self._finish(gen, stop=False)
            if name == _END_COPY and self.pgconn.transaction_status in _AT_REST:
                # psycopg knows this error as the answer to its own giving up, and says nothing of it.
                raise psycopg.errors.QueryCanceled("there is no COPY any more: it was interrupted, or has ended before")
            self._streamed = self._streamed or name == _STREAM
            return await self._drive(gen)
        except BaseException:
            give_up(gen)
            raise

    async def _drive(self, gen: PQGen[RV]) -> RV:
        begun: PQGen[Any] | None = None
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            begun = gen
            return await self._driver.drive(gen, self.pgconn.socket)
        except BaseException as exc:
            if not isinstance(exc, Exception):
                await self._come_to_rest(begun)
            raise

    async def _come_to_rest(self, begun: PQGen[Any] | None) -> None:
        pipelined = self.pgconn.pipeline_status != pq.PipelineStatus.OFF
        if self.pgconn.status == pq.ConnStatus.OK and (is_busy(self.pgconn) or (pipelined and begun is not None)):
            await self._stop(begun)

    async def _stop(self, begun: PQGen[Any] | None) -> None:
        try:
            await self._within_grace(functools.partial(bring_to_rest, self.pgconn, self._driver, begun))
        except psycopg.Error:
            # Half of a statement's answer would be taken for the next one's.
            self._abandon()

    async def _finish(self, gen: PQGen[RV], stop: bool) -> RV:
        """Drive ``gen`` to its end: not interrupted, but bounded once the task is cancelled.

        With ``stop`` what the server is doing is cancelled then, and the cancellation is passed on behind the end.
        """
        try:
            return await self._driver.drive(gen, self.pgconn.socket)
        except BaseException as exc:
            if isinstance(exc, Exception):
                raise
            if stop:
                await self._stop(gen)
                raise
            rest = functools.partial(self._driver.drive, gen, self.pgconn.socket, begun=True)
            value = await self._within_grace(rest)
            if isinstance(exc, trio.Cancelled):
                return value  # it was carried out; the task's next checkpoint is cancelled
            raise

    async def _within_grace(self, step: Callable[[], Awaitable[RV]]) -> RV:
        """Run ``step`` though the task is cancelled; close the connection if it does not come to its end in time."""
        try:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self.cancel_grace):
                return await step()
        except BaseException as exc:
            if not isinstance(exc, Exception):
                self._abandon()
            raise
        self._abandon()
        raise psycopg.OperationalError(f"the server did not answer within {self.cancel_grace:g} s of a cancellation")

    @contextlib.contextmanager
    def _finishing(self, *, stop: bool = False, begun: bool = True) -> Iterator[None]:
        """Have this task's waits in the block come to their end, within their bound, though it is cancelled.

        What has not ``begun`` when it is cancelled does not wait for its turn.
        """
        task = trio.lowlevel.current_task()
        before = self._finishers.get(task)
        self._finishers[task] = _Finish(stop, begun)
        try:
            yield
        finally:
            if before is None:
                del self._finishers[task]
            else:
                self._finishers[task] = before

    @trio.lowlevel.enable_ki_protection
    async def commit(self) -> None:
        """Commit the open transaction.

        Raises:
            OutcomeUnknownError: The connection was lost, or time ran out, while it was in progress.
            psycopg.errors.InFailedSqlTransaction: A statement of the transaction has failed, so that the server can't
                commit; it is open until `rollback`.

        *Cancellation*: before it has begun, nothing is committed. Once begun it is carried out, and waited for as long
        as it takes, or for ``cancel_grace`` seconds from the cancellation.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._finishing(begun=False), committing(self.pgconn):
            await super().commit()

    @trio.lowlevel.enable_ki_protection
    async def rollback(self) -> None:
        """Roll back the open transaction.

        *Cancellation*: does not stop it, but bounds it to ``cancel_grace`` seconds; after that the connection is
        closed.
        """
        with self._finishing():
            await super().rollback()

    @trio.lowlevel.enable_ki_protection
    async def tpc_commit(self, xid: psycopg.Xid | str | None = None) -> None:
        """Commit a transaction in two phases, or in one if it was not prepared.

        Args:
            xid: Which prepared transaction; without it, that of this connection.

        Raises:
            OutcomeUnknownError: The connection was lost, or time ran out, while it was in progress. What was prepared
                is among `tpc_recover` for as long as it is not committed.

        *Cancellation*: as for `commit`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        with self._finishing(begun=False), committing(self.pgconn, is_prepared=True):
            await super().tpc_commit(xid)

    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> TransactionBlock:  # type: ignore[override]
        """Return a transaction, or within one a savepoint, for ``async with``.

        It commits at the end of the block, and rolls back after any exception, including a cancellation.
        `psycopg.Rollback` raised in it rolls back and ends the block.

        Args:
            savepoint_name: The savepoint's name; generated if there has to be one.
            force_rollback: Whether to roll back in any case.

        Raises:
            OutcomeUnknownError: The connection was lost, or time ran out, while it committed.
            psycopg.errors.InFailedSqlTransaction: The block has swallowed the error of a statement, so that the server
                can't commit; it is rolled back.
            psycopg.OperationalError: The connection was lost or closed within the block: nothing is committed.
        """
        return TransactionBlock(self, savepoint_name, force_rollback)

    def pipeline(self) -> PipelineBlock:  # type: ignore[override]
        """Return a pipeline, for ``async with``: statements are sent without waiting for the answers of those before.

        When it can no longer be told which answer belongs to what, the connection is closed: after a ``COPY``, say, a
        statement with more parameters than can be sent, or a row factory or callback that raised.

        *Cancellation*: what was sent is cancelled on the server; the end of the block is within ``cancel_grace``.
        """
        return PipelineBlock(self)

    def _pipeline_nolock(self) -> PipelineBlock:  # type: ignore[override]
        return PipelineBlock(self, is_locked=True)

    def _deallocate(self, name: bytes | None) -> PQGen[None]:
        if name is None:
            # All goes, with what a pipeline has prepared since psycopg decided on it.
            self._prepared._names.clear()
        yield from super()._deallocate(name)

    async def _forget_prepared(self) -> None:
        """Have the server forget what it has prepared behind a failure: now, or in a transaction at the next chance."""
        self._prepared._to_flush.append(None)
        if self.pgconn.transaction_status == pq.TransactionStatus.IDLE:
            with self._finishing(), contextlib.suppress(psycopg.Error):
                await self.wait(self._prepared.maintain_gen(self))

    def notifies(self, *, timeout: float | None = None, stop_after: int | None = None) -> Notifications:
        """Return an async iterator over what arrives by ``NOTIFY`` on the channels that were given to ``LISTEN``.

        The connection can be used meanwhile, by this task or others, and the loop left at any time.

        Args:
            timeout: Seconds from the first wait on after which the loop ends by itself; a cancel scope does as well.
                0 for what is there by now.
            stop_after: How many notifications to end after.
        """
        return Notifications(self._inbox, timeout, stop_after)

    def add_notify_handler(self, callback: Callable[[psycopg.Notify], None]) -> None:
        """Have ``callback`` called with every notification as it is received, which is when something is read.

        An idle connection reads nothing by itself: some task has to be in a loop over `notifies`.

        What it raises propagates out of what was reading. If that was a statement, the connection is closed, since the
        rest of the answer was not read.
        """
        super().add_notify_handler(callback)
        self._inbox.handlers += 1

    def remove_notify_handler(self, callback: Callable[[psycopg.Notify], None]) -> None:
        """Have ``callback`` no longer called."""
        super().remove_notify_handler(callback)
        self._inbox.handlers -= 1

    async def cancel_safe(self, *, timeout: float = 30.0) -> None:  # noqa: ASYNC109  # psycopg's interface
        """Ask the server to cancel what is being done with this connection.

        Args:
            timeout: Seconds for the server to be told; no more than ``cancel_grace``.

        Raises:
            psycopg.errors.CancellationTimeout: It could not be told in time.

        *Cancellation*: does not stop it, since it is part of cleaning up; the time is the bound.
        """
        if not self._should_cancel():  # closed
            return
        limit = min(timeout or self.cancel_grace, self.cancel_grace)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + limit) as scope:
            await cancel_on_server(self.pgconn)
        if scope.cancelled_caught:
            raise psycopg.errors.CancellationTimeout(f"the server could not be told within {limit:g} s")


@trio.lowlevel.enable_ki_protection
async def connect(
    conninfo: str = "",
    *,
    autocommit: bool = False,
    prepare_threshold: int | None = 5,
    context: AdaptContext | None = None,
    row_factory: AsyncRowFactory[Row] | None = None,
    cursor_factory: type[psycopg.AsyncCursor[Row]] | None = None,
    within: float = math.inf,
    **kwargs: ConnParam,
) -> TrioConnection[Row]:
    """Connect to the first server that answers and is what ``target_session_attrs`` asks for.

    Names are looked up without blocking, and every address of every host is tried, each for at most ``connect_timeout``
    seconds (10 if nothing says otherwise; 0 for no bound).

    Args:
        conninfo: A connection string or URL; ``kwargs`` win over what it says.
        autocommit: Whether each statement outside of `transaction` stands alone.
        prepare_threshold: How often a statement is run before the server prepares it; None: never.
        context: Where the adapters are taken from, another connection for instance.
        row_factory: How rows are formed; tuples by default.
        cursor_factory: The class of the cursors.
        within: Seconds for all attempts together: each address that is still to be tried has an equal part of what is
            left, and no more than ``connect_timeout``.
        kwargs: Parameters of the connection, such as ``host``, ``sslmode`` or ``application_name``.

    Raises:
        psycopg.OperationalError: No server will do; the message says how each attempt ended. A `ConnectionTimeout` if
            the last attempt took too long.
        psycopg.ProgrammingError: libpq does not understand the connection string, or knows no such parameter.
        TypeError, ValueError: ``conninfo`` is not a string, or ``within`` is not a number of seconds.

    *Cancellation*: no connection is left behind.
    """
    return await TrioConnection[Row].connect(
        conninfo,
        autocommit=autocommit,
        prepare_threshold=prepare_threshold,
        context=context,
        row_factory=row_factory,
        cursor_factory=cursor_factory,
        within=within,
        **kwargs,
    )


def _settle(reference: Callable[[], TrioConnection[Any] | None]) -> None:
    """Close a connection that would be handed on in the middle of a statement or of a forgotten pipeline."""
    if (connection := reference()) is None:
        return
    pgconn = connection.pgconn
    forgotten = pgconn.pipeline_status != pq.PipelineStatus.OFF and connection._pipeline is None
    if forgotten or is_busy(pgconn):
        connection._abandon()


def _patience(reference: Callable[[], TrioConnection[Any] | None]) -> float:
    if (connection := reference()) is None:
        return 0.0
    finish = connection._finishers.get(trio.lowlevel.current_task())
    return connection.cancel_grace if finish is not None and finish.begun else 0.0
