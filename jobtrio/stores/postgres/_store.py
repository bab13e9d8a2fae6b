"""`PostgresJobStore`: the front of the store.

It turns the contract's calls into questions to the server and operations of the lanes, and their answers into what
callers are given. What is asked is decided in the modules that the operations are in; what the listener is told, in
`_announcer`.
"""

from __future__ import annotations

import time
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar
from urllib.parse import parse_qsl, unquote

import psycopg
import trio
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from jobtrio._checks import check_count, check_flag, check_seconds, show
from jobtrio._errors import UnknownJobError
from jobtrio._policies import JobPriority
from jobtrio._records import Completed, Outcome
from jobtrio._submission import DEFAULT_QUEUE
from jobtrio.abc import Backlog, Claim, JobQuery, LeaseReport, StoreSettings
from jobtrio.stores import _settling as settling
from jobtrio.stores._announcer import Placed
from jobtrio.stores._chunks import encoded
from jobtrio.stores._claims import Recent, Wanted, report
from jobtrio.stores._hints import Hints
from jobtrio.stores._pace import first_wait
from jobtrio.stores._rowstore import RowStore
from jobtrio.stores._texts import text_of, value_of
from jobtrio.stores.postgres import _claiming as claiming
from jobtrio.stores.postgres import _finding as finding
from jobtrio.stores.postgres._connections import Connections
from jobtrio.stores.postgres._inserting import Insertion
from jobtrio.stores.postgres._reading import Follow, Load
from jobtrio.stores.postgres._rows import new_row
from jobtrio.stores.postgres._schema import check_schema_name
from jobtrio.stores.postgres._session import Session
from jobtrio.stores.postgres._submitting import put_in, put_in_async
from jobtrio.stores.postgres._writing import Append, Change, Complete

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime

    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio._policies import RetryPolicy
    from jobtrio._records import JobError, JobRecord, WorkerReport
    from jobtrio._state import JobState
    from jobtrio.stores._announcer import Answer
    from jobtrio.stores._settling import JobSteps

T = TypeVar("T")
R = TypeVar("R")

PATIENCE: Final = 0.5
"""The share of the outage limit that one try may take: behind a server that is silent, there is time for the next."""


class PostgresJobStore(RowStore[Session]):
    """Keeps jobs in a schema of a PostgreSQL database, for workers on many machines.

    What a call has acknowledged is committed, and survives whatever the database survives. Payloads, tokens and results
    are JSON of at most 8 MiB each. Leases and due times go by the server's clock.

    An object serves one registry at a time.
    """

    in_time: ClassVar[bool] = True
    is_elsewhere: ClassVar[bool] = True
    checks_values: ClassVar[bool] = True

    def __init__(
        self,
        conninfo: str,
        *,
        schema: str = "jobtrio",
        pool_size: int = 4,
        listen: bool = True,
        create: bool = True,
        outage_limit: float = 10.0,
    ) -> None:
        """Choose the database; `open_registry` connects to it, and creates the schema if it is missing.

        Args:
            conninfo: A connection string or URL, as libpq knows them; what else the command takes in a URL, such as
                ``?schema=…``, is a parameter here.
            schema: The schema, for jobtrio alone: a letter or underscore and up to 47 more letters, digits or
                underscores; it does not begin with ``pg_``.
            pool_size: The most connections at once, besides the one that listens for notifications.
            listen: Whether to listen for notifications. Without it, for example behind a pooler that shares sessions,
                the store polls twice a second; it does so by itself if it finds that none arrive.
            create: Whether to create the schema if it is missing, rather than raise `StoreError`.
            outage_limit: Seconds that a caller waits for a server that is away.

        Raises:
            TypeError, ValueError: A parameter is invalid.
        """
        self.outage_limit: float = check_seconds("outage_limit", outage_limit, zero=False)
        self.schema: Final = check_schema_name(schema)
        self._conninfo: Final = _check_conninfo(conninfo)
        self._pool_size: Final = check_count("pool_size", pool_size)
        self._listen: Final = check_flag("listen", listen)
        self._create: Final = check_flag("create", create)
        self._asked: Final = Recent[str]()  # the last calls to claim: one that is made again waits for the one before
        self._told: Final = Recent[str]()  # those whose jobs were told of

    def _new_session(self, settings: StoreSettings) -> Session:
        # Those who wait get their answer, or none, within five eighths of the time: the rest is for another try.
        connections = Connections(self._conninfo, self.schema, self._pool_size, PATIENCE * self.outage_limit)
        return Session(
            connections, self.schema, settings, create=self._create, listen=self._listen, on_pace=self._set_pace
        )

    def _set_pace(self, seconds: float) -> None:
        self.poll_interval: float = seconds

    def __repr__(self) -> str:
        place = conninfo_to_dict(self._conninfo)
        return f"<PostgresJobStore {place.get('dbname', '')!s}/{self.schema} on {place.get('host', 'this machine')!s}>"

    # -- putting in, finding, taking out

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        """Store new jobs, all or none."""
        session = self._opened
        rows = [new_row(entry, submission, session.settings.retention) for entry in entries]
        asked = time.monotonic()

        def inserted(answers: list[Answer]) -> list[JobEntry]:
            if answers and isinstance(answers[0], Placed):
                session.clock.note(answers[0].created_at, asked)
            return session.announcer.inserted(entries, answers, submission)

        lane = session.inserts if all(map(_is_unheard_of, entries)) else session.named_inserts
        with session.announcer.putting_in(entries, submission):
            stored: list[JobEntry] = await lane.make(Insertion(entries, rows, submission, inserted))
        return stored

    async def submit_in(
        self,
        connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any],
        executor: Callable[[Any], Any] | str,
        payload: Any = None,
        *,
        job_id: str | None = None,
        key: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: JobPriority = JobPriority.NORMAL,
        time_limit: float | None = None,
        retry: RetryPolicy | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        expires_in: float | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> JobRecord:
        """Submit a job within the caller's own transaction; return its record, or that of the job that has its key.

        The job exists for others, and workers are notified of it, once that transaction commits; never, if it is rolled
        back. Until then `JobRegistry.get` does not find it. A delay counts from now, not from the commit. The
        parameters are those of `JobRegistry.submit`; the executors' defaults are those of the registry that has opened
        this store.

        Args:
            connection: A psycopg connection to the same database: a synchronous one, which is used in a worker thread,
                or an asynchronous one that runs on Trio, such as those of `jobtrio.psycopg_trio`. If no transaction is
                open, the job is stored at once, or with the one that this begins, as with any statement.
            executor: A registered executor, or its name.
            payload: What the executor is given.
            job_id: The job's id.
            key: The job's idempotency key, for as long as the job is kept.
            queue: The queue to wait in.
            priority: Its `JobPriority`.
            time_limit: Seconds an attempt may take.
            retry: The retry policy.
            delay: Seconds to the earliest start.
            run_at: The earliest start, an aware datetime.
            expires_in: Seconds within which the first attempt has to start.
            tags: Strings by name, to find the job by; at most 1,000.
            metadata: Any values by name.

        Raises:
            TypeError, ValueError, UnknownExecutorError, PayloadError: As `JobRegistry.submit`, or the connection's
                encoding lacks a character; nothing was sent.
            DuplicateJobError: ``job_id`` is in use. The transaction can go on.
            psycopg.Error: What the connection raises, as it is: it is the caller's transaction that has failed.

        Cancellation: as the connection's own; a synchronous one is waited for.
        """
        new_entry = self._opened.settings.new_entry
        if new_entry is None:
            raise RuntimeError(f"{self!r} was not opened by a registry, which knows the executors")
        if not isinstance(connection, (psycopg.Connection, psycopg.AsyncConnection)):
            raise TypeError(f"connection must be a connection of psycopg's; got {show(connection)}")
        options = (job_id, key, queue, priority, time_limit, retry, delay, run_at, expires_in, tags, metadata)
        entry = new_entry(executor, payload, *options)
        if isinstance(connection, psycopg.AsyncConnection):
            stored = await put_in_async(connection, self.schema, entry)
        else:
            # The thread is never left behind: it is in the midst of somebody's transaction.
            stored = await trio.to_thread.run_sync(put_in, connection, self.schema, entry)
        return stored.record()

    async def load(self, job_id: str) -> JobEntry | None:
        """Return a job, or None."""
        return await self._load(job_id, light=False)

    async def look(self, job_id: str) -> JobEntry | None:
        """Return a job, or None, without what never changes."""
        return await self._load(job_id, light=True)

    async def _load(self, job_id: str, *, light: bool) -> JobEntry | None:
        if not job_id.isprintable():
            return None
        entry: JobEntry | None = await self._opened.reads.make(Load(job_id, light))
        return entry

    async def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the matching jobs, in the order of their submission."""
        if query.after is not None and not query.after.isprintable():
            raise UnknownJobError(query.after)
        return await finding.find(partial(self._opened.connections.use, looks=True), query)

    async def counts(self) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs, how many are in each state."""
        return await self._opened.connections.use(finding.counts, looks=True)

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        """Return the same of the jobs that have all of these tags."""
        return await self._opened.connections.use(partial(finding.counts_of, wanted=tags), looks=True)

    async def workers(self) -> list[WorkerReport]:
        """Return the workers that are present, by name."""
        return await self._opened.connections.use(finding.workers, looks=True)

    async def pause(self, queue: str, seconds: float = inf) -> None:
        """Have no claim start a job of this queue, until `resume`, or for some seconds at least."""
        session, hints = self._opened, Hints()
        if seconds < inf:
            hints.falls_due(time.monotonic() + seconds)
        pause = partial(claiming.pause, queue=queue, seconds=seconds, hints=hints, notices=session.notices)
        await session.connections.use(pause)
        session.announcer.heed(hints)

    async def resume(self, queue: str) -> None:
        """Have claims start jobs of this queue again."""
        session, hints = self._opened, Hints(ready=True)
        await session.connections.use(partial(claiming.resume, queue=queue, hints=hints, notices=session.notices))
        session.announcer.heed(hints)

    async def paused(self) -> dict[str, float]:
        """Return the queues that are paused, by name, in order, and for how many seconds more."""
        return await self._opened.connections.use(finding.paused, looks=True)

    async def backlog(self, queues: Collection[str] | None, executors: Collection[str] | None = None) -> Backlog:
        """Return how many jobs of ``executors`` wait in ``queues``, without held ones and what waits for `resume`."""
        count = partial(finding.backlog, queues=queues, executors=executors)
        return await self._opened.connections.use(count, looks=True)

    # -- running

    async def claim(
        self,
        claim_id: str,
        *,
        limit: int,
        lease: float,
        room: Mapping[str, int] | None = None,
        executors: Collection[str] | None = None,
    ) -> list[Claim]:
        """Start up to ``limit`` ready jobs, by priority, then in the order in which they became ready."""
        session = self._opened
        wanted = Wanted(claim_id, limit, lease, room, executors)
        is_repeated = claim_id in self._asked
        if wanted.is_nothing and not is_repeated:
            await trio.lowlevel.checkpoint()
            return []
        self._asked.add(claim_id)
        ask = partial(
            claiming.claim, wanted=wanted, identity=session.identity, notices=session.notices, alone=is_repeated
        )
        asked = time.monotonic()
        found = await session.connections.use(ask)
        if found.now is not None:
            session.clock.note(found.now, asked)
            session.notices.told(found.hints)
            session.announcer.heed(found.hints)
        if found.begun is not None and not is_repeated:
            session.claimed_at = found.begun
        if found.missed:
            session.missed.set()
        if claim_id not in self._told:
            self._told.add(claim_id)
            session.announcer.changed(found.entries)
        return [Claim(entry, claim_id, entry.attempt) for entry in found.entries]

    async def next_start(self, room: Mapping[str, int] | None = None) -> float:
        """Return the seconds until a job may start that a rate limit held back in the last claim."""
        session = self._opened
        starts = await session.connections.use(partial(claiming.next_starts, moment=session.claimed_at))
        return first_wait(session.identity.rates, room, starts)

    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        """Let claims last ``lease`` seconds from now, and report on each, in order."""
        session = self._opened
        session.is_shown = True
        renew = partial(claiming.renew, claims=claims, lease=lease, identity=session.identity, notices=session.notices)
        return report(claims, await session.connections.use(renew))

    async def finish(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        error: JobError | None = None,
        messages: Sequence[Message] = (),
    ) -> bool:
        """End a running job, after appending ``messages``."""
        items = encoded(messages)
        if isinstance(outcome, Completed):
            text = text_of("a result", outcome.result)
            if error is None:
                done: bool = await self._opened.writes.make(Complete(claim, items, text))
                return done
            outcome = Completed(value_of(text))
        finish = partial(settling.finish, claim=claim, outcome=outcome, error=error, items=items)
        return await self._settle(claim, items, finish)

    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        """Append an attempt's messages; those that are stored already are skipped."""
        held: bool = await self._opened.writes.make(Append(claim, encoded(messages)))
        return held

    async def follow(self, job_id: str, after: int, limit: int) -> tuple[list[Message] | None, JobEntry | None]:
        """Return what `read_messages` returns, and what `look` does, both of one moment."""
        found: tuple[list[Message], JobEntry] | None = None
        if job_id.isprintable():
            found = await self._opened.reads.make(Follow(job_id, after, limit))
        return found or (None, None)

    # -- as the calls of `RowStore` are carried out

    async def _change(self, job_id: str, do: Callable[[JobSteps], T], after: Callable[[T], R]) -> R:
        found = job_id if job_id.isprintable() else ""  # else it is that of no job
        answer: R = await self._opened.writes.make(Change(found, None, do, after))
        return answer

    async def _write(self, claim: Claim, size: int, do: Callable[[JobSteps], T], after: Callable[[T], R]) -> R:
        answer: R = await self._opened.writes.make(Change(claim.entry.id, claim.entry.order, do, after, size))
        return answer


def _check_conninfo(conninfo: Any) -> str:
    """Return a connection string that libpq understands; errors don't show it, since it may hold a password."""
    if not isinstance(conninfo, str):
        raise TypeError(f"conninfo must be text; got {show(type(conninfo))}")
    escapes = "; in a URL, / ? @ and % of a password are written %2F %3F %40 and %25"
    try:
        port = str(conninfo_to_dict(conninfo).get("port", ""))
    except (psycopg.Error, UnicodeEncodeError):
        port = None
    if port is None or "\0" in conninfo:  # libpq would read no further than to that
        unknown = _unknown_parameter(conninfo)
        if unknown is not None:
            known = "store_from_url takes schema, pool_size, listen and outage_limit besides"
            raise ValueError(f"conninfo must be a URL that libpq understands, which knows no {show(unknown)}; {known}")
        raise ValueError(f"conninfo must be a connection string or URL that libpq understands{escapes}")
    if not all(part == "" or part.isdecimal() for part in port.split(",")):
        raise ValueError(f"conninfo must be a connection string or URL whose port is a number{escapes}")
    return conninfo


def _unknown_parameter(conninfo: str) -> str | None:
    """Return what stands behind a URL's ? that libpq does not know, unless it may be of a password with a ? or &."""
    query = conninfo.partition("?")[2]
    if "@" in unquote(query) or not conninfo.startswith(("postgresql://", "postgres://")):
        return None
    known = {"ssl": b"", **{option.keyword.decode(): option.dispchar for option in pq.Conninfo.get_defaults()}}
    for name, _ in parse_qsl(query, keep_blank_values=True):
        if known.get(name) == b"*":  # libpq's mark for what is secret
            return None
        if name not in known:
            return name
    return None


def _is_unheard_of(entry: JobEntry) -> bool:
    """Whether nobody else can put in a job with its id or key: the id was made for it, as its submission shows."""
    return entry.key is None and entry.submission == entry.id
