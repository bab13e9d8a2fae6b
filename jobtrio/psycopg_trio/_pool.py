"""A pool of connections, bounded, that hands on none that is broken or not at rest.

It owns how many there are and which are fit to be used again. It has no task of its own: a connection is opened by
the task that needs it, whose cancel scope bounds all of the wait, and a failure to open one is that task's to handle.
"""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias

import attrs
import psycopg
import trio
from psycopg import generators, pq
from psycopg.rows import Row

from ._connecting import check_conninfo, check_seconds
from ._connection import TrioConnection, connect
from ._notifications import receive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn
    from psycopg.rows import AsyncRowFactory

    Hook: TypeAlias = Callable[[TrioConnection[Any]], Awaitable[object]]

SLOW: Final = 5.0
"""Seconds after which opening a connection is given up if another one has come back meanwhile. Opening takes less,
also where it is slow; with a shorter time the pool would never grow."""

logger = logging.getLogger("psycopg")


@attrs.frozen
class PoolRules:
    """When a connection is fit to be used; the parameters of `open_pool`."""

    check_after: float
    check_limit: float
    max_idle: float
    max_age: float
    configure: Hook | None
    reset: Hook | None


@attrs.frozen
class PoolStatistics:
    """What a pool holds at one moment.

    Attributes:
        size: The most connections there can be.
        idle: Open connections that nobody uses.
        in_use: Places taken, by connections that are used or being opened.
        waiting: Tasks that wait for a place.
    """

    size: int
    idle: int
    in_use: int
    waiting: int


@attrs.define(eq=False)
class _Member(Generic[Row]):
    connection: TrioConnection[Row]
    opened_at: float
    idle_since: float = 0.0
    suspect: bool = False


class Pool(Generic[Row]):
    """Connections to one database, made by `open_pool`."""

    def __init__(self, size: int, rules: PoolRules, new: Callable[[], Awaitable[TrioConnection[Row]]]) -> None:
        self._size = size
        self._rules = rules
        self._new = new
        self._places = trio.Semaphore(size, max_value=size)
        self._waits: set[trio.CancelScope] = set()
        self._openings: dict[trio.CancelScope, float] = {}  # and when they were begun, the first of them first
        self._idle: deque[_Member[Row]] = deque()  # the one used last is at the right end, and is used next
        self._closed = False

    @property
    def statistics(self) -> PoolStatistics:
        """What the pool holds at this moment."""
        return PoolStatistics(
            size=self._size,
            idle=len(self._idle),
            in_use=self._size - self._places.value,
            waiting=self._places.statistics().tasks_waiting,
        )

    def connection(self) -> Lease[Row]:
        """Return the use of a connection, for ``async with``.

        It belongs to the block alone. After the block it goes back to the pool, and a transaction that was left open is
        rolled back, whereas psycopg's own pool commits it: use ``connection.transaction()``, or autocommit. If it was
        lost, or is in the middle of anything, it is closed instead. Notifications that were not read are dropped.

        Raises:
            psycopg.OperationalError: No idle connection works any more, and opening another failed.
            trio.ClosedResourceError: The pool is closed.
        """
        return Lease(self)

    async def _take(self) -> _Member[Row]:
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._places.acquire_nowait()  # whoever gets a connection is about to wait for the server anyway
        except trio.WouldBlock:
            await self._wait_for_place()
        try:
            if self._closed:
                raise trio.ClosedResourceError("the pool is closed")
            return await self._member()
        except BaseException:
            self._places.release()
            raise

    async def _wait_for_place(self) -> None:
        with trio.CancelScope() as wait:
            self._waits.add(wait)
            try:
                await self._places.acquire()
            finally:
                self._waits.remove(wait)
        if wait.cancelled_caught:
            raise trio.ClosedResourceError("the pool was closed")

    async def _member(self) -> _Member[Row]:
        """Return a connection that is idle, or a new one; where that takes long, one that comes back meanwhile."""
        begun = trio.current_time()
        while (member := await self._idle_member()) is None:
            with trio.CancelScope() as opening:
                self._openings[opening] = begun
                try:
                    return await self._open()
                finally:
                    del self._openings[opening]
        return member

    async def _idle_member(self) -> _Member[Row] | None:
        while self._idle:
            member = self._idle.pop()
            fit = False
            try:
                fit = await self._is_fit(member)
            finally:
                if not fit:
                    await member.connection.close()
            if fit:
                member.connection._inbox.unread.clear()  # they were for the block before
                return member
        return None

    async def _is_fit(self, member: _Member[Row]) -> bool:
        now = trio.current_time()
        if now - member.opened_at > self._rules.max_age or not is_quiet(member.connection):
            return False
        if now - member.idle_since <= self._rules.check_after and not member.suspect:
            return True
        member.suspect = False
        if await answers(member.connection, self._rules.check_limit):
            return True
        # The way is gone, or was. To ask the others one by one would take this task as long each time.
        while self._idle:
            await self._idle.popleft().connection.close()
        return False

    def _suspect_all(self) -> None:
        """Have all idle connections asked before they are used: what ended one may have ended them."""
        for member in self._idle:
            member.suspect = True

    async def _open(self) -> _Member[Row]:
        connection = await self._new()
        if self._rules.configure is not None:
            try:
                await _call(self._rules.configure, connection)
            except BaseException:
                await connection.close()
                raise
        return _Member(connection, trio.current_time())

    async def _give_back(self, member: _Member[Row]) -> None:
        kept = False
        try:
            kept = await self._is_reusable(member)
        finally:
            if kept:
                member.idle_since = trio.current_time()
                self._idle.append(member)
                self._offer()
            else:
                if member.connection.closed:
                    self._suspect_all()
                await member.connection.close()
            await self._close_stale()
            self._places.release()

    def _offer(self) -> None:
        """Have the first task that opens a connection look at the idle ones instead, if opening takes long."""
        for opening, begun in self._openings.items():
            if opening.deadline == inf:
                opening.deadline = begun + SLOW
                return

    async def _is_reusable(self, member: _Member[Row]) -> bool:
        connection = member.connection
        if self._closed or connection.closed or not await leave_transaction(connection):
            return False
        if self._rules.reset is not None:
            # At most `check_limit`: a cancelled task's connection is as good as any, if it can be reset.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + self._rules.check_limit) as scope:
                await _call(self._rules.reset, connection)
            return not scope.cancelled_caught
        return True

    async def _close_stale(self) -> None:
        oldest = trio.current_time() - self._rules.max_idle
        while self._idle and (self._closed or self._idle[0].idle_since < oldest):
            await self._idle.popleft().connection.close()

    @trio.lowlevel.enable_ki_protection
    async def aclose(self) -> None:
        """Close the idle connections, and those in use when they come back; tasks that wait for one are refused.

        *Cancellation*: is not a checkpoint.
        """
        self._closed = True
        for wait in self._waits:
            wait.cancel("the pool was closed")
        await self._close_stale()


class Lease(contextlib.AbstractAsyncContextManager[TrioConnection[Row], None]):
    """The use of one of a pool's connections, for one ``async with``; made by `Pool.connection`."""

    __slots__ = ("_is_used", "_member", "_pool")

    def __init__(self, pool: Pool[Row]) -> None:
        self._pool = pool
        self._is_used = False

    @trio.lowlevel.enable_ki_protection  # Ctrl-C comes where something is waited for, or behind the end
    async def __aenter__(self) -> TrioConnection[Row]:
        """Wait for a place, and take or open a connection.

        Raises:
            RuntimeError: It was used before; the connection would be given back for two.

        *Cancellation*: no place is taken.
        """
        if self._is_used:
            raise RuntimeError("what Pool.connection() returns is for one block: call it for each")
        self._is_used = True
        self._member = await self._pool._take()
        return self._member.connection

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(self, *_: object) -> None:
        """Give the connection back.

        *Cancellation*: it is given back or closed all the same; a roll-back is bounded by its ``cancel_grace``.
        """
        await self._pool._give_back(self._member)


@trio.lowlevel.disable_ki_protection
async def _call(hook: Hook, connection: TrioConnection[Any]) -> None:
    """Call what the application gave, where Ctrl-C may interrupt it, and commit what it has begun.

    Left open, it would make a savepoint of the next block's transaction, which is rolled back with it.
    """
    await hook(connection)
    await connection.commit()


def is_quiet(connection: TrioConnection[Any]) -> bool:
    """Return whether an idle connection has nothing to say but notices; the server's farewell shows here."""
    pgconn = connection.pgconn
    try:
        receive(pgconn)
    except psycopg.OperationalError:
        return False
    return not connection.closed


async def answers(connection: TrioConnection[Any], limit: float) -> bool:
    """Return whether the server answers within ``limit`` seconds.

    *Cancellation*: the connection is of no more use.
    """
    # The grace of a cancelled statement would come on top of the limit, for a connection given up in any case.
    grace, connection.cancel_grace = connection.cancel_grace, 0.0
    with trio.move_on_after(limit) as scope:
        try:
            async with connection.lock:
                await connection.wait(_question(connection.pgconn))
        except psycopg.Error as exc:
            logger.debug("a pooled connection was lost while idle: %s", exc)
            return False
    connection.cancel_grace = grace
    return not scope.cancelled_caught and not connection.closed


def _question(pgconn: PGconn) -> PQGen[None]:
    pgconn.send_query(b"")
    yield from generators.execute(pgconn)


async def leave_transaction(connection: TrioConnection[Any]) -> bool:
    """Roll back what is open; return whether the connection is at rest.

    *Cancellation*: does not stop it, but bounds it to the connection's ``cancel_grace``.
    """
    pgconn = connection.pgconn
    if pgconn.pipeline_status != pq.PipelineStatus.OFF or connection._tpc or connection.lock.held:
        return False  # a two-phase transaction that is prepared is not for this connection alone to end
    if pgconn.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR):
        with contextlib.suppress(psycopg.Error):
            await connection.rollback()
    return not connection.closed and pgconn.transaction_status == pq.TransactionStatus.IDLE


@contextlib.asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_pool(
    conninfo: str = "",
    *,
    size: int = 4,
    check_after: float = 30.0,
    check_limit: float = 5.0,
    max_idle: float = 600.0,
    max_age: float = 3600.0,
    configure: Hook | None = None,
    reset: Hook | None = None,
    row_factory: AsyncRowFactory[Row] | None = None,
    **options: Any,
) -> AsyncIterator[Pool[Row]]:
    """Open a pool; no connection is opened before one is needed.

    Args:
        conninfo: A connection string or URL.
        size: The most connections at once; further tasks wait, in order, for as long as their scopes let them.
        check_after: Seconds of idleness after which a connection is checked before it is used. All are checked once one
            was lost.
        check_limit: Seconds for such a check.
        max_idle: Seconds of idleness after which a connection is closed, when another one is next returned.
        max_age: Seconds after which a connection is not used again.
        configure: Called with each new connection; what it begins is committed.
        reset: Called with each connection that comes back, likewise; it undoes what the block may have set.
        row_factory: How rows are formed; tuples by default.
        options: What else `connect` takes.

    Raises:
        TypeError, ValueError: A parameter is invalid; the error names it, its value, and what is allowed.

    *Cancellation*: closes the pool.
    """
    check_conninfo(conninfo)
    if isinstance(size, bool) or not isinstance(size, int):
        raise TypeError(f"size must be a whole number, 1 or more; got {size!r}")
    if size < 1:
        raise ValueError(f"size must be a whole number, 1 or more; got {size!r}")
    check_seconds(check_after=check_after, check_limit=check_limit, max_idle=max_idle, max_age=max_age)
    for name, hook in (("configure", configure), ("reset", reset)):
        if hook is not None and not callable(hook):
            raise TypeError(f"{name} must be None or an async function of a connection; got {hook!r}")
    rules = PoolRules(check_after, check_limit, max_idle, max_age, configure, reset)
    pool = Pool(size, rules, lambda: connect(conninfo, row_factory=row_factory, **options))
    try:
        yield pool
    finally:
        await pool.aclose()
