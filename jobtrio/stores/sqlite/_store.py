"""`SqliteJobStore`: the front of the store, in Trio's thread.

It turns the contract's calls into operations of the writer and the readers, and their answers into what callers are
given. What is done in the file is decided in the modules that the operations are in; what the listener is told, in
`_announcer`.
"""

from __future__ import annotations

import os
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobtrio._checks import check_seconds, show
from jobtrio._errors import StoreError
from jobtrio._records import Completed, Outcome
from jobtrio.abc import Backlog, Claim, JobQuery, LeaseReport, StoreSettings
from jobtrio.stores import _settling as settling
from jobtrio.stores._chunks import encoded
from jobtrio.stores._claims import Wanted, report
from jobtrio.stores._pace import first_wait
from jobtrio.stores._rowstore import RowStore, itself
from jobtrio.stores._texts import text_of, value_of
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _finding as finding
from jobtrio.stores.sqlite import _finishing as finishing
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite._connection import Location, Synchronous
from jobtrio.stores.sqlite._rows import new_job
from jobtrio.stores.sqlite._session import Session
from jobtrio.stores.sqlite._transaction import load_by_id

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio._records import JobError, JobRecord, WorkerReport
    from jobtrio._state import JobState
    from jobtrio.stores._announcer import Answer, Settled
    from jobtrio.stores._chunks import Item
    from jobtrio.stores._settling import JobSteps
    from jobtrio.stores.sqlite._claiming import Claimed
    from jobtrio.stores.sqlite._transaction import Transaction

T = TypeVar("T")
R = TypeVar("R")


class SqliteJobStore(RowStore[Session]):
    """Keeps jobs in one SQLite file, for the processes of one machine.

    What a call has acknowledged survives the process and, with ``synchronous="FULL"``, a power cut. With ``"NORMAL"``,
    which is faster where the disk is slow, a power cut may undo the latest commits; a ``kill -9`` undoes nothing either
    way. Payloads, tokens and results are JSON of at most 8 MiB each.

    An object serves one registry at a time.
    """

    in_time = True
    checks_values = True

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: Synchronous = "FULL", outage_limit: float = 10.0
    ) -> None:
        """Choose the file; it is opened, or created, by `open_registry`.

        Args:
            path: The file. Beside it there will be a log, the log's index, and a folder for waking other processes.
            synchronous: ``"FULL"`` or ``"NORMAL"``.
            outage_limit: Seconds that a caller waits for a file that is locked, full or away.

        Raises:
            TypeError, ValueError: A parameter is invalid.
            StoreError: The path is relative, and the current folder is gone.
        """
        if synchronous not in ("FULL", "NORMAL"):
            raise ValueError(f"synchronous must be 'FULL' or 'NORMAL'; got {show(synchronous)}")
        self.outage_limit: float = check_seconds("outage_limit", outage_limit, zero=False)
        self._location: Final = Location(_check_path(path), synchronous)

    @property
    def path(self) -> str:
        """The file, as an absolute path."""
        return self._location.path

    def _new_session(self, settings: StoreSettings) -> Session:
        return Session(self._location, settings, self.outage_limit, self.poll_interval)

    def __repr__(self) -> str:
        return f"<SqliteJobStore {self.path!r}>"

    # -- putting in, finding, taking out

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        """Store new jobs, all or none."""
        putting_in = _PuttingIn(self._opened, entries, submission)
        return await self._opened.write(putting_in.write, putting_in.heed)

    async def load(self, job_id: str) -> JobEntry | None:
        """Return a job, or None."""
        return await self._opened.read(lambda connection: load_by_id(connection, job_id))

    async def look(self, job_id: str) -> JobEntry | None:
        """Return a job, or None, without what never changes."""
        return await self._opened.read(lambda connection: load_by_id(connection, job_id, light=True), is_short=True)

    async def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the matching jobs, in the order of their submission."""
        return await self._opened.read(lambda connection: finding.find(connection, query))

    async def counts(self) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs, how many are in each state."""
        return await self._opened.read(finding.counts)

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        """Return the same of the jobs that have all of these tags."""
        if len(tags) > finding.FEW:
            return await super().counts_of(tags)
        return await self._opened.read(lambda connection: finding.counts_of(connection, tags))

    async def workers(self) -> list[WorkerReport]:
        """Return the workers that are present, by name."""
        return await self._opened.read(finding.workers)

    async def pause(self, queue: str, seconds: float = inf) -> None:
        """Have no claim start a job of this queue, until `resume`, or for some seconds at least."""
        await self._opened.write(lambda tx: claiming.pause(tx, queue, seconds), itself)

    async def resume(self, queue: str) -> None:
        """Have claims start jobs of this queue again."""
        await self._opened.write(lambda tx: claiming.resume(tx, queue), itself)

    async def paused(self) -> dict[str, float]:
        """Return the queues that are paused, by name, in order, and for how many seconds more."""
        return await self._opened.read(finding.paused)

    async def backlog(self, queues: Collection[str] | None, executors: Collection[str] | None = None) -> Backlog:
        """Return how many jobs of ``executors`` wait in ``queues``, without held ones and what waits for `resume`."""
        return await self._opened.read(lambda connection: finding.backlog(connection, queues, executors))

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
        wanted = Wanted(claim_id, limit, lease, room, executors)

        def claimed(found: Claimed) -> list[Claim]:
            if found.at is not None:
                self._opened.claimed_at = found.at
                self._opened.announcer.changed(found.entries)
            return [Claim(entry, claim_id, entry.attempt) for entry in found.entries]

        return await self._opened.write(lambda tx: claiming.claim(tx, wanted), claimed)

    async def next_start(self, room: Mapping[str, int] | None = None) -> float:
        """Return the seconds until a job may start that a rate limit held back in the last claim."""
        session = self._opened
        starts = await session.read(lambda connection: finding.next_starts(connection, session.claimed_at))
        return first_wait(session.identity.rates, room, starts)

    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        """Let claims last ``lease`` seconds from now, and report on each, in order."""
        session = self._opened
        session.is_shown = True
        return await session.write(
            lambda tx: claiming.renew(tx, claims, lease, session.started_at), partial(report, claims)
        )

    async def finish(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        error: JobError | None = None,
        messages: Sequence[Message] = (),
    ) -> bool:
        """End a running job, after appending ``messages``."""
        under_way = _Finishing(self._opened, claim, _ending(outcome, error), encoded(messages))
        return await self._opened.write(under_way.write, under_way.heed)

    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        """Append an attempt's messages; those that are stored already are skipped."""
        items = encoded(messages)
        return await self._opened.write(lambda tx: settling.append(tx, claim, items), itself)

    async def follow(self, job_id: str, after: int, limit: int) -> tuple[list[Message] | None, JobEntry | None]:
        """Return what `read_messages` returns, and what `look` does, both of one moment."""
        return await self._opened.read(
            lambda connection: finding.follow(connection, job_id, after, limit), is_short=True
        )

    # -- as the calls of `RowStore` are carried out

    async def _change(self, job_id: str, do: Callable[[JobSteps], T], after: Callable[[T], R]) -> R:
        return await self._opened.write(do, after)

    async def _write(self, claim: Claim, size: int, do: Callable[[JobSteps], T], after: Callable[[T], R]) -> R:
        return await self._opened.write(do, after)


def _check_path(path: Any) -> str:
    """Return a path as an absolute one."""
    try:
        given = os.fspath(path)
    except TypeError:
        raise TypeError(f"path must be text or a path; got {show(path)}") from None
    if not isinstance(given, str):
        raise TypeError(f"path must be text or a path; got {show(path)}")
    if not given or given == ":memory:" or "\0" in given or not _can_be_encoded(given):
        raise ValueError(f"path must be that of a file; got {show(path)}")
    if given.startswith("sqlite://"):
        raise ValueError(f"path must be that of a file; a URL is for store_from_url; got {show(path)}")
    folder, name = os.path.split(given)
    try:
        if os.pardir in Path(folder).parts:  # behind a link it leads elsewhere than the text says
            given = os.path.join(os.path.realpath(folder), name)
        return os.path.abspath(given)
    except FileNotFoundError:
        raise StoreError(f"{given!r} can't be used: the current folder is gone") from None


def _can_be_encoded(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


class _PuttingIn:
    """New jobs under way. Functions that share variables would be several objects more for each call."""

    __slots__ = ("entries", "jobs", "session", "submission")

    def __init__(self, session: Session, entries: Sequence[JobEntry], submission: str) -> None:
        self.session = session
        self.entries = entries
        self.jobs = [new_job(entry) for entry in entries]
        self.submission = submission

    def write(self, tx: Transaction) -> list[Answer]:
        """Store the jobs in the writer's thread."""
        return inserting.insert(tx, self.jobs, self.submission)

    def heed(self, answers: list[Answer]) -> list[JobEntry]:
        """Tell of what was stored."""
        return self.session.announcer.inserted(self.entries, answers, self.submission)


class _Finishing:
    """A job's end under way, in the same way."""

    __slots__ = ("claim", "ending", "items", "session")

    def __init__(self, session: Session, claim: Claim, ending: finishing.Ending, items: Sequence[Item]) -> None:
        self.session = session
        self.claim = claim
        self.ending = ending
        self.items = items

    def write(self, tx: Transaction) -> Settled | float | None:
        """End the job in the writer's thread."""
        return finishing.finish(tx, self.claim, self.ending, self.items)

    def heed(self, found: Settled | float | None) -> bool:
        """Tell of what became of it."""
        session, entry, ending = self.session, self.claim.entry, self.ending
        if not isinstance(found, float):
            return session.announcer.settled(entry, found)
        session.announcer.ended(entry, ending.outcome, ending.error, session.identity.worker, found)
        return True


def _ending(outcome: Outcome, error: JobError | None) -> finishing.Ending:
    """Return how a job is to end, or raise `PayloadError` for a result that can't be stored."""
    if not isinstance(outcome, Completed):
        return finishing.Ending(outcome, error, None)
    text = text_of("a result", outcome.result)
    return finishing.Ending(Completed(value_of(text)), error, text)
