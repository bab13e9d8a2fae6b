"""The way to the server: pooled connections, each used for one piece of work, within a limit of time.

It owns how long is waited, what is tried again at once, and what the errors are turned into. It must not know what is
asked.
"""

from __future__ import annotations

import logging
import random
import time
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

import psycopg
import trio
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio.psycopg_trio import TrioConnection, open_pool
from jobtrio.psycopg_trio._addresses import said_of
from jobtrio.stores._outages import OutageLog
from jobtrio.stores.postgres import _schema as schema
from jobtrio.stores.postgres._adapting import AS_THEY_COME
from jobtrio.stores.postgres._errors import (
    is_conflict,
    is_crowded,
    is_forbidden,
    is_refusal,
    is_statement_lost,
    translate,
)
from jobtrio.stores.postgres._statements import statements

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from jobtrio.psycopg_trio import Pool

T = TypeVar("T")

Rows = list[tuple[Any, ...]]

log: Final = logging.getLogger("jobtrio.stores.postgres")

TRIES: Final = 5
"""How often the same is tried where a pooler has lost a statement, or notices have no room."""

CONFLICTS: Final = 20
"""How often after a deadlock or another conflict: of several that are in each other's way, one gets on each time."""

PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.2
"""Seconds between two such tries, at most, at first and in the end; drawn at random, so that two don't meet again."""

IDLE: Final = "5s"
"""How long a transaction may stand still, as the server's settings say it."""

LINGER: Final = 1.0
"""Seconds that a transaction may last beyond the patience of him who made it, before the server ends it."""

MOST_TIME: Final = 2**31 - 1
"""The longest time that the server's settings can say, in milliseconds."""

WAIT: Final = "50ms"
"""How long, likewise, one waits for rows that others have locked, where other calls can go on meanwhile."""

PREPARED_AFTER: Final = 2
"""How often a statement is planned anew before its plan is kept."""

_TUNING: Final = """
SELECT
    pg_catalog.set_config('enable_seqscan', 'off', false),
    pg_catalog.set_config('jit', 'off', false),
    pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false),
    pg_catalog.set_config('array_nulls', 'on', false),
    pg_catalog.set_config('tcp_keepalives_idle', '30', false),
    pg_catalog.set_config('tcp_keepalives_interval', '5', false),
    pg_catalog.set_config('tcp_keepalives_count', '3', false),
    pg_catalog.set_config('tcp_user_timeout', '45s', false)
"""
"""A plan is kept while its table grows from nothing to a million rows, so it has to be made with those in mind.

A role or a database may have it that NULL in an array is a text. And the server is to notice within a minute that this
machine is gone, for it keeps the locks until then.
"""

DEFAULTS: Final[dict[str, str]] = {
    "fallback_application_name": "jobtrio",
    "connect_timeout": "0",  # no bound of its own: all addresses share what time there is
    "keepalives_idle": "30",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}
"""What connections are given where nothing says otherwise: a dead server is noticed within a minute."""


class Link:
    """One connection, and the statements for it.

    Attributes:
        connection: The connection.
        patience: Seconds that one piece of work may take.
        limit: The step that has the server end a transaction that stands still, or lasts too long. All have it that
            lock rows before all of their statements have arrived: a process that has died or was stopped in the midst
            of one must not keep others from the rows.
    """

    def __init__(self, connection: TrioConnection[Any], sql: dict[str, str], patience: float) -> None:
        self.connection: Final = connection
        self.patience: Final = patience
        self.limit: Final[Step] = ("limit_transaction", IDLE, f"{min(1000 * (patience + LINGER), MOST_TIME):.0f}ms")
        self._sql = sql

    async def fetch(self, name: str, *parameters: Any) -> Rows:
        """Run one statement; return its rows."""
        cursor: psycopg.AsyncRawCursor[tuple[Any, ...]] = psycopg.AsyncRawCursor(self.connection)
        await cursor.execute(self._sql[name], parameters, binary=True)
        return await _rows_of(cursor)

    async def fetch_all(self, steps: Iterable[Step]) -> list[Rows]:
        """Run several statements with one trip to the server, as one transaction unless one is open.

        A transaction may be begun and committed among them.
        """
        cursors = []
        async with self.connection.pipeline():
            for step in steps:
                name: str = step[0]
                cursor: psycopg.AsyncRawCursor[tuple[Any, ...]] = psycopg.AsyncRawCursor(self.connection)
                await cursor.execute(self._sql.get(name, name), step[1:] or None, binary=True)
                cursors.append(cursor)
        return [await _rows_of(cursor) for cursor in cursors]

    async def begin(self, *steps: Step) -> list[Rows]:
        """Begin a transaction that takes several trips, with the first statements of it.

        The last statement goes alone: behind several that go together, the server does not count how long it stands
        still, only how long it lasts.
        """
        *firsts, last = steps
        _, _, *answers = await self.fetch_all([BEGIN, self.limit, *firsts])
        return [*answers, await self.fetch(*last)]


async def _rows_of(cursor: psycopg.AsyncRawCursor[tuple[Any, ...]]) -> Rows:
    result = cursor.pgresult  # whether it has rows is told by that: the cursor would describe each column
    return await cursor.fetchall() if result is not None and result.nfields else []


Step = tuple[Any, ...]
"""A statement's name, or a word of SQL, and its parameters."""

BEGIN: Final[Step] = ("BEGIN ISOLATION LEVEL READ COMMITTED",)
COMMIT: Final[Step] = ("COMMIT",)
PATIENTLY: Final[Step] = ("SET LOCAL lock_timeout TO DEFAULT",)
"""Goes before the commit where waits were limited: those that send notices commit in turn, however long each takes."""


class Connections:
    """The connections of one opened store.

    Attributes:
        where: How the store is called in errors.
        sql: The statements.
        patience: Seconds that one piece of work may take.
        outages: Says when the server is away, and when it is back.
        is_direct: Whether nothing stands between here and the server that shares sessions, so that what is set or
            prepared in one stays there.
    """

    def __init__(self, conninfo: str, schema_name: str, size: int, patience: float) -> None:
        self.where: Final = f"the schema {schema_name!r}"
        self.sql: Final = statements(f'"{schema_name}"')
        self.patience: Final = patience
        given = conninfo_to_dict(conninfo)
        said = said_of(given)
        unsaid = {name: value for name, value in DEFAULTS.items() if name not in said}
        # Texts are any, whatever encoding the environment, the role or the database has for its clients.
        self._conninfo: Final = make_conninfo("", **{**unsaid, **given, "client_encoding": "UTF8"})
        # There may be several addresses, of which the silent ones have to leave time for the others.
        self._within: Final = patience if "connect_timeout" in said else patience / 2
        self._schema = schema_name
        self._size = size
        self._pool: Pool | None = None
        self.is_direct: bool = False
        self.outages: Final = OutageLog(log)
        self._tuned: WeakSet[TrioConnection[Any]] = WeakSet()
        self._looking = trio.Semaphore(max(size // 2, 1))  # for work that only reads, which may take long

    async def prepare(self, *, create: bool) -> None:
        """Check the schema, or make it where it is missing and may be made.

        Cancellation: it may have been made.
        """
        try:
            with trio.move_on_after(self.patience):
                async with await self.connect() as connection:
                    await schema.Schema(connection, self._schema, schema.MIGRATIONS).prepare(create=create)
                    return
        except psycopg.errors.InsufficientPrivilege as exc:
            raise StoreError(f"{self.where} can't be used: {exc}") from exc
        except psycopg.Error as exc:
            raise translate(exc, self.where) from exc
        raise StoreUnavailableError(f"{self.where}: no answer within {self.patience:g} s")

    async def connect(self) -> TrioConnection[Any]:
        """Return a connection of its own, which nothing else uses; errors are psycopg's.

        Cancellation: no connection is left behind.
        """
        connection = await TrioConnection.connect(
            self._conninfo, autocommit=True, prepare_threshold=None, context=AS_THEY_COME, within=self._within
        )
        connection.cancel_grace = self.patience / 4
        return connection

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the pool within the block."""
        async with open_pool(
            self._conninfo,
            size=self._size,
            check_limit=self.patience / 4,
            configure=self._configure,
            autocommit=True,
            prepare_threshold=None,
            context=AS_THEY_COME,
            within=self._within,
        ) as self._pool:
            yield

    async def _configure(self, connection: TrioConnection[Any]) -> None:
        connection.cancel_grace = self.patience / 4
        # Behind a pooler the session may be one that listens for somebody else: nobody reads here what comes then.
        connection.add_notify_handler(lambda _: None)

    async def use(self, work: Callable[[Link], Awaitable[T]], *, looks: bool = False, what: str | None = None) -> T:
        """Return what ``work`` returns, given a connection; it is done again where it was in conflict with others.

        Args:
            work: What to do.
            looks: Whether it only reads, for callers who may ask for any amount. All such work takes half of the
                connections at most, so that leases are renewed however much there is.
            what: What it is called, to be known again where the server refuses it; None for the name of ``work``.

        Raises:
            StoreUnavailableError: There was no answer in time, or the server can't do it for now.
            StoreError: The server refuses.

        Cancellation: it may have been done.
        """
        asked = time.monotonic()
        what = what or _name_of(work)
        with trio.move_on_after(self.patience):
            if not looks:
                return await self._try(work, what)
            async with self._looking:
                return await self._try(work, what)
        error = StoreUnavailableError(f"{self.where}: no answer within {self.patience:g} s")
        self.outages.failed(error, asked)
        raise error

    async def _try(self, work: Callable[[Link], Awaitable[T]], what: str) -> T:
        tries, conflicts, pause = TRIES, CONFLICTS, PAUSE
        attempt = work
        give_up_at = trio.current_time() + self.patience / 2  # while there is time to say why
        while True:
            asked = time.monotonic()
            try:
                answer = await self._use_once(attempt)
                self.outages.answered(asked, what)
                return answer
            except psycopg.Error as exc:
                self.is_direct = self.is_direct and not is_statement_lost(exc)
                tries -= 1 - is_conflict(exc)
                conflicts -= is_conflict(exc)
                is_over = not tries or not conflicts or trio.current_time() >= give_up_at
                if is_over or not (is_conflict(exc) or is_statement_lost(exc) or is_crowded(exc)):
                    raise self._translated(exc, what, asked) from exc
                if is_crowded(exc):
                    attempt = partial(_with_room, work)
            await trio.sleep(random.uniform(0, pause))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _translated(self, exc: psycopg.Error, what: str, asked: float) -> StoreError:
        error = translate(exc, self.where, is_open=True)
        if isinstance(error, StoreUnavailableError) and not isinstance(exc, psycopg.errors.LockNotAvailable):
            why = f"{error} (check what the role is granted)" if is_forbidden(exc) else error
            since = asked if isinstance(exc, psycopg.errors.ConnectionTimeout) else inf
            self.outages.failed(why, since, refused=what if is_refusal(exc) else None)
        return error

    async def _use_once(self, work: Callable[[Link], Awaitable[T]]) -> T:
        assert self._pool is not None  # the store is open
        async with self._pool.connection() as connection:
            if self.is_direct and connection not in self._tuned:
                await connection.execute(_TUNING)
                self._tuned.add(connection)
            connection.prepare_threshold = PREPARED_AFTER if self.is_direct else None
            try:
                return await work(Link(connection, self.sql, self.patience))
            except psycopg.errors.ReadOnlySqlTransaction:
                # The session may stay so: it is with a standby, or was begun while the database was read-only.
                await connection.close()
                raise

    async def fetch(self, name: str, *parameters: Any) -> Rows:
        """Run one statement in a transaction of its own; return its rows.

        Cancellation: it may have been carried out.
        """
        return await self.use(lambda link: link.fetch(name, *parameters), what=name)


def _name_of(work: Callable[[Link], Awaitable[T]]) -> str:
    """Return what a piece of work is called, whatever it is done to."""
    function: Callable[..., Any] = work.func if isinstance(work, partial) else work
    return function.__qualname__


async def _with_room(work: Callable[[Link], Awaitable[T]], link: Link) -> T:
    """Do ``work`` behind a question that has the server forget the notices that all have taken; else it may not."""
    await link.connection.execute("SELECT pg_catalog.pg_notification_queue_usage()")
    return await work(link)


def is_held_up(error: StoreUnavailableError) -> bool:
    """Whether it was a transaction of others that took too long."""
    return isinstance(error.__cause__, psycopg.errors.LockNotAvailable)
