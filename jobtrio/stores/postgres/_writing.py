"""The writer: what running jobs write, and whatever changes single jobs, in groups that share their trips.

What most attempts do, appending the next messages and completing, is one statement for a whole group. All else, and
what that statement could not do, takes a group two trips: one locks the jobs, they are changed here, and the other
writes them back. It must not know who waits for the answers.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs
import psycopg

from jobtrio._errors import StoreUnavailableError
from jobtrio._records import Completed
from jobtrio._state import JobState
from jobtrio.stores import _settling as settling
from jobtrio.stores._chunks import body_of, cut, length_of
from jobtrio.stores._claims import Recent
from jobtrio.stores._hints import Hints
from jobtrio.stores._rowstore import itself
from jobtrio.stores._texts import value_of
from jobtrio.stores.postgres._arrays import MOST, array, arrays
from jobtrio.stores.postgres._calls import singly
from jobtrio.stores.postgres._connections import BEGIN, COMMIT, PATIENTLY, WAIT, is_held_up
from jobtrio.stores.postgres._rows import line_end
from jobtrio.stores.postgres._transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobtrio.abc import Claim
    from jobtrio.stores._announcer import Announcer
    from jobtrio.stores._chunks import Item
    from jobtrio.stores._settling import Identity
    from jobtrio.stores.postgres._calls import Call
    from jobtrio.stores.postgres._connections import Connections, Link, Rows, Step
    from jobtrio.stores.postgres._notices import Notices


@attrs.define(eq=False)
class Change:
    """Something to do with one job.

    Attributes:
        job_id: The job.
        order: Its number, where what users gave is not needed; else it is found by its id.
        do: Does it, given the transaction that has locked the job, if it is there.
        after: Makes the answer of what that returned, once all is committed.
        length: How many characters it brings.
    """

    job_id: str
    order: int | None
    do: Callable[[Transaction], Any]
    after: Callable[[Any], Any]
    length: int = 0

    def size(self) -> int:
        """Return how many characters it brings."""
        return self.length


@attrs.define(eq=False)
class Append:
    """Messages that an attempt appends.

    Attributes:
        claim: The claim.
        items: The messages.
    """

    claim: Claim
    items: Sequence[Item]

    @property
    def job_id(self) -> str:
        """The job."""
        return self.claim.entry.id

    def size(self) -> int:
        """Return how many characters it brings."""
        return length_of(self.items)


@attrs.define(eq=False)
class Complete(Append):
    """An attempt's last messages, and its end as most end.

    Attributes:
        result: What it returned, as text.
    """

    result: str

    def size(self) -> int:
        """Return how many characters it brings."""
        return len(self.result) + length_of(self.items)


Write: TypeAlias = Change | Append


class Writer:
    """Carries out groups of writes.

    Args:
        connections: The way to the server.
        identity: Who writes.
        announcer: Tells the listener.
        notices: What other processes are told.
    """

    def __init__(self, connections: Connections, identity: Identity, announcer: Announcer, notices: Notices) -> None:
        self._connections = connections
        self._identity = identity
        self._announcer = announcer
        self._notices = notices
        self._suspects: Final = Recent[str]()  # jobs that others may have locked: what is written of them goes apart

    async def carry_out(self, calls: list[Call[Write]]) -> list[Call[Write]]:
        """Carry out a group of writes, and answer them; return those that others hold up.

        Cancellation: some may have been carried out.
        """
        rest = free = [call for call in calls if call.work.job_id not in self._suspects]
        suspected = [call for call in calls if call.work.job_id in self._suspects]
        try:
            while rest:
                rest = await self._round(rest)
        except StoreUnavailableError:
            for call in free:  # it may be that one of them waits for somebody, and all others wait for it
                self._suspects.add(call.work.job_id)
            raise
        return await singly(suspected, self._is_carried_out, lambda work: {work.job_id})

    async def _is_carried_out(self, calls: list[Call[Write]]) -> bool:
        """Carry out the first write of each job; False where others hold one up, several fail, or there are more."""
        firsts: dict[str, Call[Write]] = {}
        for call in calls:
            firsts.setdefault(call.work.job_id, call)
        try:
            await self._slowly([*firsts.values()], first=[("limit_waits", WAIT)], last=[PATIENTLY, COMMIT])
        except StoreUnavailableError as exc:
            if len(firsts) > 1 or is_held_up(exc):
                return False  # what the server has no room for may be in one of them
            raise
        for job_id in firsts:
            self._suspects.discard(job_id)
        return len(firsts) == len(calls)

    async def _round(self, calls: list[Call[Write]]) -> list[Call[Write]]:
        """Carry out the first write of each job; return the others."""
        firsts: dict[str, Call[Write]] = {}
        rest = []
        for call in calls:
            if firsts.setdefault(call.work.job_id, call) is not call:
                rest.append(call)
        quick = _Quick()
        slow = [call for call in firsts.values() if not quick.takes(call)]
        if quick.calls:
            slow += await self._quickly(quick)
        if slow:
            await self._slowly(slow)
        return rest

    # -- the quick way

    async def _quickly(self, quick: _Quick) -> list[Call[Write]]:
        """Carry out what can be done by one statement; return what it could not be done with."""
        ends, others = self._quick_hints(quick.completions), self._quick_hints(quick.appends)
        plan: list[Step] = []
        behind: list[Step] = []
        if quick.appends:
            told, later = self._notices.ways(others)
            plan.append((*self._append(quick.appends), *told))
            behind += later
        if quick.completions:
            told, later = self._notices.ways(ends)
            plan.append((*self._complete(quick.completions), *told))
            behind += later

        async def write(link: Link) -> list[Rows] | None:
            try:
                if behind:
                    _, _, *rows = await link.fetch_all([BEGIN, link.limit, *plan, COMMIT, *behind])
                    return rows[: len(plan)]
                if len(plan) == 1:
                    return [await link.fetch(*plan[0])]
                _, *rows = await link.fetch_all([link.limit, *plan])
                return rows
            except psycopg.errors.UniqueViolation:
                return None  # messages that a call which was cut off had brought, just now

        asked = time.monotonic()
        answers = await self._connections.use(write)
        self._notices.answered(asked)
        if answers is None:
            return quick.calls
        if quick.appends:
            held = {seq for seq, _ in answers[0]}
            for call, append in quick.appends:
                if append.claim.entry.order in held:
                    call.succeed(True)
        if quick.completions:
            self._end(quick.completions, {seq: finished_at for seq, finished_at, _ in answers[-1]})
        others.ready |= ends.ready
        self._announcer.heed(others)  # of each end the listener has heard
        return [call for call in quick.calls if not call.is_answered]

    def _quick_hints(self, writes: Sequence[tuple[Call[Write], Append]]) -> Hints:
        hints = Hints()
        for _, work in writes:
            hints.messages.add(work.job_id)
            if isinstance(work, Complete) and self._identity.totals.find(work.claim.entry.plan.queue) is not None:
                hints.ready = True
        return hints

    def _append(self, appends: Sequence[tuple[Call[Write], Append]]) -> Step:
        rows = sorted((*_claim_row(work.claim), *_chunk(work.items)) for _, work in appends)
        return ("append", *arrays(rows, 7), str(min(self._identity.retention.tokens_per_job, MOST)))

    def _complete(self, completions: Sequence[tuple[Call[Write], Complete]]) -> Step:
        rows = sorted((*_claim_row(work.claim), work.result, *_chunk(work.items)) for _, work in completions)
        return ("complete", *arrays(rows, 8), line_end(self._identity.worker))

    def _end(self, completions: Sequence[tuple[Call[Write], Complete]], ended: dict[int, float]) -> None:
        """Bring the entries of those that were completed to their end, tell of it, and answer."""
        for call, work in completions:
            entry = work.claim.entry
            finished_at = ended.get(entry.order)
            if finished_at is None:
                continue
            self._announcer.ended(entry, Completed(value_of(work.result)), None, self._identity.worker, finished_at)
            call.succeed(True)

    # -- the slow way

    async def _slowly(
        self, calls: list[Call[Write]], first: Sequence[Step] = (), last: Sequence[Step] = (COMMIT,)
    ) -> None:
        changes = [(call, self._change_of(call.work)) for call in calls]

        async def write(link: Link) -> tuple[Transaction, dict[Call[Write], Any], dict[Call[Write], Exception]]:
            orders = array([change.order for _, change in changes if change.order is not None])
            ids = array([change.job_id for _, change in changes if change.order is None])
            *_, locked, lasts = await link.begin(*first, ("lock", orders, ids), ("lasts", orders, ids))
            tx, values, failures = self._perform(changes, locked, lasts)
            plan = tx.steps()
            # Behind the commit, where they hold up nobody: see `Notices`.
            tx.took(await link.fetch_all([*plan, *last, *self._notices.steps(tx.hints)]))
            return tx, values, failures

        tx, values, failures = await self._connections.use(write)
        for call, change in changes:
            if call in failures:
                call.fail(failures[call])
            else:
                call.succeed(change.after(values[call]))
        self._notices.told(tx.hints)
        self._announcer.heed(tx.hints)

    def _perform(
        self, changes: list[tuple[Call[Write], Change]], locked: Rows, lasts: Rows
    ) -> tuple[Transaction, dict[Call[Write], Any], dict[Call[Write], Exception]]:
        """Do all changes; those that fail leave nothing behind, since the others are then done anew without them."""
        failures: dict[Call[Write], Exception] = {}
        while True:
            tx = Transaction(self._identity, locked, lasts)
            values: dict[Call[Write], Any] = {}
            for call, change in changes:
                if call in failures:
                    continue
                try:
                    values[call] = change.do(tx)
                except Exception as exc:
                    failures[call] = exc
                    break
            else:
                if any(entry.state is JobState.QUEUED and not entry.is_held for entry in tx.jobs()):
                    tx.hints.ready = True  # who claims may have passed over it, while it was locked for this
                return tx, values, failures

    def _change_of(self, work: Write) -> Change:
        """Return a write as one that takes the slow way."""
        match work:
            case Complete(claim=claim, result=result, items=items):
                outcome = Completed(value_of(result))
                finish = partial(settling.finish, claim=claim, outcome=outcome, error=None, items=items)
                settled = partial(self._announcer.settled, claim.entry)
                return Change(claim.entry.id, claim.entry.order, finish, settled)
            case Append(claim=claim, items=items):
                append = partial(settling.append, claim=claim, items=items)
                return Change(claim.entry.id, claim.entry.order, append, itself)
            case Change():
                return work


class _Quick:
    """Writes that one statement of each kind may do.

    Attributes:
        calls: All of them.
        appends: The appends, and their calls.
        completions: The completions, and their calls.
    """

    def __init__(self) -> None:
        self.calls: list[Call[Write]] = []
        self.appends: list[tuple[Call[Write], Append]] = []
        self.completions: list[tuple[Call[Write], Complete]] = []

    def takes(self, call: Call[Write]) -> bool:
        """Take in a call, or say that it is none of these: messages have to be one chunk."""
        work = call.work
        match work:
            case Complete(items=items) if not items or _is_chunk(items):
                self.completions.append((call, work))
            case Append(items=items) if items and _is_chunk(items):
                self.appends.append((call, work))
            case _:
                return False
        self.calls.append(call)
        return True


def _is_chunk(items: Sequence[Item]) -> bool:
    return len(list(cut(items))) == 1


def _chunk(items: Sequence[Item]) -> tuple[int | None, int | None, str | None]:
    """Return messages as a chunk: the numbers of the first and the last, and their text."""
    return (items[0][0], items[-1][0], body_of(items)) if items else (None, None, None)


def _claim_row(claim: Claim) -> tuple[int, str, str, int]:
    return claim.entry.order, claim.entry.id, claim.id, claim.attempt
