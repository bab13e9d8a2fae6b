"""Putting jobs in: alone ones of many callers by one statement, and those that come together in one of their own.

It owns what happens where an id or a key is in use. It must not know who waits for the answers, nor whose transaction
it is that a job is put in with.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import attrs
import psycopg

from jobtrio._errors import DuplicateJobError, StoreUnavailableError
from jobtrio._state import JobState
from jobtrio.stores._announcer import Placed
from jobtrio.stores._hints import Hints
from jobtrio.stores.postgres._arrays import array, arrays, slices
from jobtrio.stores.postgres._calls import singly
from jobtrio.stores.postgres._connections import BEGIN, COMMIT, PATIENTLY, is_held_up
from jobtrio.stores.postgres._rows import NEW, entry_of, size_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from jobtrio._entry import JobEntry
    from jobtrio.stores._announcer import Answer
    from jobtrio.stores.postgres._calls import Call
    from jobtrio.stores.postgres._connections import Connections, Link, Rows, Step
    from jobtrio.stores.postgres._notices import Notices
    from jobtrio.stores.postgres._rows import Row

TRIES = 10
"""How often a job is tried to be put in, where what stood in its way is gone by the time one looks."""


@attrs.frozen(eq=False)
class Insertion:
    """Jobs that are to be stored, all or none.

    Attributes:
        entries: The jobs.
        rows: Their columns.
        submission: Marks the call.
        after: Makes the answer of what stands for each.
    """

    entries: Sequence[JobEntry]
    rows: Sequence[Row]
    submission: str
    after: Callable[[list[Answer]], list[JobEntry]]

    def size(self) -> int:
        """Return how many characters the jobs bring."""
        return sum(map(size_of, self.rows))


class Inserter:
    """Carries out groups of insertions.

    Args:
        connections: The way to the server.
        notices: What other processes are told.
        heed: Called with the hints, once all is committed.
        limit: How long to wait for others that are putting in the same; None where nobody can be.
    """

    def __init__(
        self, connections: Connections, notices: Notices, heed: Callable[[Hints], None], limit: str | None = None
    ) -> None:
        self._connections = connections
        self._notices = notices
        self._heed = heed
        self._first: tuple[Step, ...] = () if limit is None else (("limit_waits", limit),)
        self._last: tuple[Step, ...] = (COMMIT,) if limit is None else (PATIENTLY, COMMIT)

    async def carry_out(self, calls: list[Call[Insertion]]) -> list[Call[Insertion]]:
        """Carry out a group of insertions, and answer them; return those that others hold up.

        Cancellation: some may have been carried out.
        """
        return await singly(calls, self._is_carried_out, _names_of)

    async def _is_carried_out(self, calls: list[Call[Insertion]]) -> bool:
        """Carry out insertions together; False where others hold up one of them, or where several fail."""
        try:
            await self._carry_out(calls)
        except StoreUnavailableError as exc:
            if len(calls) > 1 or (self._first and is_held_up(exc)):
                return False  # what the server has no room for may be in one of them
            raise
        return True

    async def _carry_out(self, calls: list[Call[Insertion]]) -> None:
        alone: dict[str, Call[Insertion]] = {}
        others = []
        for call in calls:
            if len(call.work.entries) == 1 and alone.setdefault(call.work.entries[0].id, call) is not call:
                others.append(call)  # its id is that of one before it
        if alone:
            await self._insert_alone([*alone.values()])
        if others:
            await self._resolve(others)
        for call in calls:
            if not call.is_answered:
                await self._insert_together(call)

    # -- alone

    async def _insert_alone(self, calls: list[Call[Insertion]]) -> None:
        """Put in jobs of many callers; answer those that stand in nobody's way, or in the way of whom we know."""
        rows = [call.work.rows[0] for call in calls]
        entries = [call.work.entries[0] for call in calls]
        insert = partial(self._insert, how=self._at_once, statement="insert", rows=rows, entries=entries)
        placed, hints = await self._connections.use(insert)
        failed = []
        for call in calls:
            place = placed.get(call.work.entries[0])
            if place is None:
                failed.append(call)
            else:
                call.succeed(call.work.after([place]))
        self._committed(hints)
        if failed:
            await self._resolve(failed)

    async def _resolve(self, calls: list[Call[Insertion]]) -> None:
        """Answer calls whose job was not put in, but for those in whose way nothing stands any more."""
        entries = [call.work.entries[0] for call in calls]
        standing = await self._connections.use(lambda link: _find_standing(link, entries))
        for call in calls:
            entry = call.work.entries[0]
            try:
                answer = standing.for_(entry, call.work.submission)
            except DuplicateJobError as exc:
                call.fail(exc)
            else:
                if answer is not None:
                    call.succeed(call.work.after([answer]))

    async def _insert(
        self,
        link: Link,
        how: Callable[[Link, Step, Hints], Awaitable[Rows]],
        statement: str,
        rows: Sequence[Row],
        entries: Sequence[JobEntry],
    ) -> tuple[dict[JobEntry, Placed], Hints]:
        """Put in jobs, and tell of them with the same trip; return what the server has decided of those put in."""
        hints = hints_of(entries, rows)
        found = await how(link, insertion_step(statement, rows, entries), hints)
        by_id = {row[0]: row for row in found}
        return {entry: place_of(by_id.pop(entry.id), entry) for entry in entries if entry.id in by_id}, hints

    async def _at_once(self, link: Link, step: Step, hints: Hints) -> Rows:
        """Run a statement as a transaction."""
        told, behind = self._notices.ways(hints)
        step = (*step, *told)
        asked = time.monotonic()
        if self._first or behind:
            steps = [BEGIN, link.limit, *self._first, step, *self._last, *behind]
            found = (await link.fetch_all(steps))[steps.index(step)]
        else:
            found = await link.fetch(*step)
        self._notices.answered(asked)
        return found

    async def _begin(self, link: Link, step: Step, hints: Hints) -> Rows:
        """Run a statement that others follow in one transaction."""
        return (await link.begin(*self._first, (*step, *self._notices.telling(hints))))[-1]

    async def _go_on(self, link: Link, step: Step, hints: Hints) -> Rows:
        """Run a statement that follows."""
        return await link.fetch(*step, *self._notices.telling(hints))

    def _committed(self, hints: Hints) -> None:
        self._notices.told(hints)
        self._heed(hints)

    # -- together

    async def _insert_together(self, call: Call[Insertion]) -> None:
        work = call.work
        if not work.entries:
            call.succeed([])
            return
        for _ in range(TRIES):
            try:
                answers, hints = await self._connections.use(lambda link: self._insert_all(link, work))
            except DuplicateJobError as exc:
                call.fail(exc)
                return
            if answers is not None:
                call.succeed(work.after(answers))
                self._committed(hints)
                return
            while (await self._connections.fetch("catch_up"))[0][0]:  # or it is their numbers that others have
                pass
        call.fail(StoreUnavailableError("others put in and take out the same jobs all the time"))

    async def _insert_all(self, link: Link, work: Insertion) -> tuple[list[Answer] | None, Hints]:
        pieces = _pieces_of(work)
        # A key is given because it may be in use, which would be an error in the server's log.
        if len(pieces) > 1 or any(entry.key is not None for entry in work.entries):
            return await self._insert_around(link, work, pieces)
        try:
            placed, hints = await self._insert(link, self._at_once, "insert_all", work.rows, work.entries)
        except psycopg.errors.UniqueViolation:
            await link.fetch_all([("ROLLBACK",)])
            return await self._insert_around(link, work, pieces)
        return [placed[entry] for entry in work.entries], hints

    async def _insert_around(
        self, link: Link, work: Insertion, pieces: Sequence[Sequence[tuple[Row, JobEntry]]]
    ) -> tuple[list[Answer] | None, Hints]:
        """Put in those that stand in nobody's way; None where what stood in the way of others is gone."""
        placed, hints = await self._insert_pieces(link, pieces)
        if len(placed) == len(work.entries):
            await link.fetch_all(self._last)
            return [placed[entry] for entry in work.entries], hints
        answers: list[Answer] = []
        standing = await _find_standing(link, work.entries)
        after = {entry.id for entry in placed}
        before: set[str] = set()
        for entry in work.entries:
            answer: Answer | None = placed.get(entry)
            if answer is None:
                answer = standing.for_(entry, work.submission, before, after)
            else:
                before.add(entry.id)
                after.remove(entry.id)
            if answer is None:
                await link.fetch_all([("ROLLBACK",)])
                return None, hints
            answers.append(answer)
        await link.fetch_all(self._last)
        return answers, hints

    async def _insert_pieces(
        self, link: Link, pieces: Sequence[Sequence[tuple[Row, JobEntry]]]
    ) -> tuple[dict[JobEntry, Placed], Hints]:
        """Begin a transaction, and put in all that stand in nobody's way."""
        placed: dict[JobEntry, Placed] = {}
        hints = Hints()
        for n, piece in enumerate(pieces):
            rows, entries = zip(*piece, strict=True)
            more, others = await self._insert(link, self._go_on if n else self._begin, "insert", rows, entries)
            placed.update(more)
            hints.add(others)
        return placed, hints


class Standing:
    """The jobs that may stand for others."""

    def __init__(self, by_ids: Rows, by_keys: Rows) -> None:
        self._ids = {entry.id: entry for entry in map(entry_of, by_ids)}
        self._keys = {entry.key: entry for entry in map(entry_of, by_keys)}

    def for_(
        self, entry: JobEntry, submission: str, before: Collection[str] = (), after: Collection[str] = ()
    ) -> JobEntry | None:
        """Return the job that a repeated call had stored, or that has the key; None where nothing is in the way.

        Args:
            entry: The job that was not put in.
            submission: Marks the call.
            before: Ids of jobs that the same call has put in before this one's turn.
            after: Ids of those behind it, whose keys were free when it was this one's turn.

        Raises:
            DuplicateJobError: The id is in use.
        """
        kept = self._ids.get(entry.id)
        if kept is not None and kept.submission == submission and kept.id not in before and kept.id not in after:
            return kept
        holder = None if entry.key is None else self._keys.get(entry.key)
        if holder is not None and holder.id in after:
            holder = None
        if holder is None and kept is not None:
            raise DuplicateJobError(entry.id)
        return holder


async def _find_standing(link: Link, entries: Sequence[JobEntry]) -> Standing:
    ids = array([entry.id for entry in entries])
    keys = array([entry.key for entry in entries if entry.key is not None])
    by_ids, by_keys, _ = await link.fetch_all([("by_ids", ids), ("by_keys", keys), ("confirm",)])
    return Standing(by_ids, by_keys)


def insertion_step(statement: str, rows: Sequence[Row], entries: Sequence[JobEntry]) -> Step:
    """Return the statement that puts in jobs, with their tags, but for the last two parameters: whom to tell what."""
    tags = [(entry.id, name, value) for entry in entries for name, value in (entry.tags or {}).items()]
    return (statement, *arrays(rows, NEW), *arrays(tags, 3))


def _names_of(work: Insertion) -> set[tuple[str, str | None]]:
    """Return what others may be putting in as well: ids and keys."""
    ids: set[tuple[str, str | None]] = {("id", entry.id) for entry in work.entries}
    return ids | {("key", entry.key) for entry in work.entries if entry.key is not None}


def hints_of(entries: Sequence[JobEntry], rows: Sequence[Row]) -> Hints:
    """Return what new jobs make possible elsewhere."""
    hints = Hints()
    now = time.monotonic()
    for entry, row in zip(entries, rows, strict=True):
        if entry.delay > 0:
            hints.falls_due(now + entry.delay)
        elif not entry.is_held:
            hints.ready = True
        if row[-1] is not None:  # within how many seconds it has to start
            hints.falls_due(now + row[-1])
    return hints


def _pieces_of(work: Insertion) -> list[Sequence[tuple[Row, JobEntry]]]:
    """Return jobs in pieces that one statement can take, in order: none is large, and in none an id stands twice."""
    runs: list[list[tuple[Row, JobEntry]]] = [[]]
    ids: set[str] = set()
    for pair in zip(work.rows, work.entries, strict=True):
        if pair[1].id in ids:
            runs.append([])
            ids.clear()
        runs[-1].append(pair)
        ids.add(pair[1].id)
    return [piece for run in runs for piece in slices(run, lambda pair: size_of(pair[0]))]


def place_of(row: Row, entry: JobEntry) -> Placed:
    """Return what the server has decided about a new job."""
    _, order, created_at, due, expires, *_ = row
    state = JobState.SCHEDULED if entry.delay > 0 else JobState.QUEUED
    return Placed(order, state, created_at, due, expires)
