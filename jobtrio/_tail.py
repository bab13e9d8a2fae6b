"""Follows the streams of jobs that run in other processes, for this process's consumers.

It copies a job's messages from the store into its local log, as they come, up to the `End`. A hint from the
store makes it look at once; without one it looks again after a while, ever more seldom. A stream where nothing happens
has no task: one for all knows when to look at which. It must not know who reads, but for whether anybody still could.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio._codec import takes_more
from jobtrio._errors import StoreUnavailableError
from jobtrio._horizon import Horizon
from jobtrio._known import conclude, refresh
from jobtrio._messages import End, Gap
from jobtrio._outage import keep_trying, try_for
from jobtrio._shared import SharedWork

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import JobStore

GONE = "the job is no longer kept by its store"
"""What readers are told of a job that was removed before its end was seen here."""

TAKEN_BACK = "the store has lost a part of the stream that was read here: subscribe again"
"""What readers are told who have got more than the store has by now, as where a replica took over."""

LOOK_AFTER = 0.25
"""Seconds after which to look although no hint came; doubled each time that there is nothing new."""

LOOK_AT_LEAST = 2.0
"""Seconds between two looks, at most: what a lost hint costs."""

LOOK_FIRST = 0.02
"""Seconds after which to look at a job that may come to run here: most then do, and there is nothing to copy."""

LONGER = 1 / 8
"""How much longer one may have waited for a job's end because of the pauses between looks at what it sends, where
nobody reads that."""

LOOK_FOR_END = 0.1
"""Seconds of such a pause, at most."""

LOOKS_A_SECOND = 500
"""Looks without a hint, at most: where there are many streams, each is looked at more seldom. First looks, and those
after hints may have been lost, are counted apart: a stream does not wait for its own while all others are looked at."""

TOGETHER = 1 / 16
"""Seconds whose looks without a hint begin at one moment, if each comes after a pause of eight times that or more:
a store that is asked for many streams at once answers them together, for a fifth of the work."""

REMEMBERED = 1000
"""Jobs of which a hint came while nobody followed them."""

PIECE = 1024
"""Messages read at once."""

FEW = 16
"""Messages that are all that had come by then, as a rule, where there was nothing more a look before."""

MUCH = 8 * 1024
"""Bytes of messages that may be but a part: stores cut what they give at 16 KiB or more, where many ask at once."""


@attrs.define(eq=False)
class _Tail:
    """One log that is followed, for as long as somebody else holds it."""

    job_id: str
    order: int  # the job's: its id may be given anew once it is removed
    log: weakref.ref[TokenLog]
    entry: weakref.ref[JobEntry]
    look_at: float = inf
    pause: float = LOOK_AFTER
    began_at: float = attrs.field(factory=trio.current_time)
    looked_at: float = -inf  # when the last look began
    listed_at: float = inf  # where it stands among those to be looked at: no later than that
    is_looking: bool = False  # a task does so
    is_hinted: bool = False  # and there may be more than it finds
    was_read: bool = False  # the store has answered, or an attempt here has fed it
    has_ended: bool = False  # the store has said so of the job
    close_until: float = -inf  # when one look is no longer taken to give all that there is
    looks: SharedWork | None = None  # what those wait for who want to have all there is by now, once somebody does

    @property
    def is_wanted(self) -> bool:
        """Whether anybody can read what comes."""
        log = self.log()
        return log is not None and log.end is None and log.cut is None

    @property
    def is_read(self) -> bool:
        """Whether there is, or was, anybody who reads, not only waits for the end."""
        log = self.log()
        return log is None or log.is_read


class Tails:
    """All streams that are followed.

    Args:
        store: Where they are.
        is_fed_here: Whether an attempt in this process writes to this log of this job.
        give_up: Is told of a log that can't be followed, why, and by which error to say so: the store was away too long
            as it was to be begun, or has lost a part of it.
        claims: Whether jobs come to run in this process at all.
    """

    def __init__(
        self,
        store: JobStore,
        is_fed_here: Callable[[str, TokenLog], bool],
        give_up: Callable[[JobEntry | None, TokenLog, str, type[Exception]], None],
        *,
        claims: bool,
    ) -> None:
        self._claims = claims
        self._store = store
        self._is_fed_here = is_fed_here
        self._give_up = give_up
        self._tails: dict[str, list[_Tail]] = {}  # by job: an old log may be followed beside a new one
        self._listed: list[tuple[float, int, _Tail]] = []  # a heap: when to look, as of when they were listed
        self._count = count()
        self._next_soon = -inf  # when the last has its turn of those to be looked at soon
        self._pause = trio.CancelScope()  # in which `run` waits for the first of them
        self._hinted: dict[str, None] = {}  # jobs of which a hint came while nobody followed them, the oldest first
        self.nursery: trio.Nursery | None = None

    def follow(self, entry: JobEntry) -> None:
        """Follow a job in the log that its entry has, until its end or until nobody holds that log."""
        log = entry.log
        if log is None:
            return
        tails = self._tails.get(entry.id, [])
        for tail in tails:
            if tail.log() is log:
                if tail.look_at <= trio.current_time() + LOOK_FOR_END:
                    self._look(tail)  # which may have been put off as nobody read it
                return
        tail = _Tail(entry.id, entry.order, weakref.ref(log), weakref.ref(entry))
        self._tails[entry.id] = [*tails, tail]
        if self._claims and entry.never_started and entry.id not in self._hinted:
            self._look_soon(tail)
        else:
            self._look(tail)

    def look(self, job_id: str) -> None:
        """Look for new messages at once."""
        tails = self._tails.get(job_id)
        if tails is None:
            self._hinted[job_id] = None  # whoever is about to follow it has to look at once
            if len(self._hinted) > REMEMBERED:
                del self._hinted[next(iter(self._hinted))]
            return
        now = trio.current_time()
        for tail in tuple(tails):
            pause = 0.0 if tail.is_read else min(LONGER * (now - tail.began_at), LOOK_FOR_END)
            if tail.looked_at + pause <= now:
                self._look(tail)
            elif tail.look_at > tail.looked_at + pause:
                self._look_at(tail.looked_at + pause, tail)

    def look_at_all(self) -> None:
        """Look for new messages of all jobs soon, one after the other: hints may have been lost."""
        for tails in self._tails.values():
            for tail in tails:
                self._look_soon(tail)

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Look in time at those of which no hint came, until cancelled. Cancellation: what was copied stays."""
        while True:
            with trio.CancelScope(deadline=self._listed[0][0] if self._listed else inf) as self._pause:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._listed and self._listed[0][0] <= now:
                moment, _, tail = heappop(self._listed)
                if moment != tail.listed_at:
                    continue  # it was listed anew, for an earlier look
                tail.listed_at = inf
                if tail.is_looking or tail.look_at == inf:
                    continue  # it is listed again at the end of that, or is followed no more
                if tail.look_at > now:
                    self._list(tail)  # it was looked at meanwhile
                else:
                    if tail.is_read:
                        tail.close_until = -inf  # what no hint told of may be more than one look gives
                    self._look(tail)

    # -- when to look

    def _look_soon(self, tail: _Tail) -> None:
        now = trio.current_time()
        turn = min(self._next_soon + 1 / LOOKS_A_SECOND, now + len(self._tails) / LOOKS_A_SECOND)
        self._next_soon = max(now + LOOK_FIRST, turn)
        self._look_at(min(self._next_soon, tail.look_at), tail)

    def _look_in(self, seconds: float, tail: _Tail) -> None:
        pause = max(seconds, len(self._tails) / LOOKS_A_SECOND)
        moment = trio.current_time() + pause
        if pause >= 8 * TOGETHER:
            moment -= moment % TOGETHER
        self._look_at(min(moment, tail.look_at), tail)  # a look may have been put off during the last one

    def _look_at(self, moment: float, tail: _Tail) -> None:
        tail.look_at = moment
        if tail.look_at < tail.listed_at:
            self._list(tail)

    def _list(self, tail: _Tail) -> None:
        tail.listed_at = tail.look_at
        heappush(self._listed, (tail.look_at, next(self._count), tail))
        if tail.look_at < self._pause.deadline:
            self._pause.deadline = tail.look_at

    def _look(self, tail: _Tail) -> None:
        log = tail.log()
        if tail.is_looking:
            tail.is_hinted = True
        elif not tail.is_wanted or log is None:
            self._drop(tail)
        elif self.nursery is None:
            pass  # all is about to be cut off
        elif self._is_fed_here(tail.job_id, log):
            tail.was_read, tail.pause, tail.look_at = True, LOOK_AFTER, inf
            self._look_in(LOOK_AFTER, tail)
        else:
            tail.is_looking, tail.looked_at, tail.look_at = True, trio.current_time(), inf
            self.nursery.start_soon(self._copy_all, tail)

    def _drop(self, tail: _Tail) -> None:
        tails = self._tails.get(tail.job_id, [])
        if tail in tails:
            tails.remove(tail)
        if not tails:
            self._tails.pop(tail.job_id, None)

    def cut_off(self, why: str) -> None:
        """Follow nothing any more, and tell all who read, whether or not they hold their jobs as well."""
        for tails in self._tails.values():
            for tail in tails:
                if (log := tail.log()) is not None:
                    log.cut_off(why)
        self._tails.clear()

    async def look_now(self, entry: JobEntry) -> None:
        """Copy all that the store has by now of a job that is followed, whatever comes meanwhile.

        Raises:
            StoreUnavailableError: The store is away.
            trio.ClosedResourceError: Nothing is followed any more.

        Cancellation: what was copied stays.
        """
        if self.nursery is None:
            raise trio.ClosedResourceError("the registry is closed")
        for tail in self._tails.get(entry.id, ()):
            if (log := tail.log()) is not None and log is entry.log:
                tail.looks = tail.looks or SharedWork()
                await tail.looks.share(partial(self._copy_up, tail, log))

    async def _copy_up(self, tail: _Tail, log: TokenLog) -> None:
        horizon = Horizon(partial(self._store.read_messages, tail.job_id))
        while tail.is_wanted and await self._copy(tail) and not await horizon.is_reached(log.last):
            pass

    async def see_end(self, entry: JobEntry) -> None:
        """Copy what there is of a job that is followed and about to be let go, if the store answers.

        Who reads it is owed its end. Cancellation: what was copied stays.
        """
        with suppress(StoreUnavailableError, trio.ClosedResourceError):
            await self.look_now(entry)

    async def see_ends(self) -> None:
        """Do so for all jobs that are known to have ended. Cancellation: what was copied stays."""
        for tail in [tail for tails in self._tails.values() for tail in tails]:
            if (entry := tail.entry()) is not None and entry.outcome is not None:
                await self.see_end(entry)

    async def catch_up(self, entry: JobEntry, log: TokenLog, is_pointless: Callable[[], bool]) -> None:
        """Copy what the store has of a job that is to run here, so that its attempt's numbers go on from there.

        Returns early once ``is_pointless`` says that the attempt need not run any more.

        Cancellation: what was copied stays.
        """
        while not is_pointless():
            read = partial(self._store.read_messages, entry.id, log.last, PIECE)
            before = log.last
            messages = await keep_trying(read, is_pointless) or []
            if _ends(messages):
                messages.pop()  # others have ended it: the record and the stream end in one step, in a look of `_copy`
            log.extend(messages)
            if messages and isinstance(messages[-1], Gap):
                log.pass_over(messages[-1].last)
            if log.last == before:
                return

    # -- looking

    @trio.lowlevel.enable_ki_protection
    async def _copy_all(self, tail: _Tail) -> None:
        """Copy until there is nothing more for now; what comes then is hinted at."""
        must_look = True
        pause = min(2 * tail.pause, LOOK_AT_LEAST)
        while must_look and tail.is_wanted:
            tail.is_hinted = False
            try:
                is_news = await (self._copy(tail) if tail.was_read else self._begin(tail))
            except StoreUnavailableError as exc:
                is_news = False
                if not tail.was_read and (log := tail.log()) is not None and log.last == 0:
                    self._give_up(tail.entry(), log, str(exc), StoreUnavailableError)
            must_look = tail.is_hinted or (is_news and tail.close_until <= trio.current_time())
            if is_news or must_look:
                pause = LOOK_AFTER
        tail.is_looking = False
        tail.pause = pause
        if tail.is_wanted:
            self._look_in(tail.pause, tail)
        else:
            self._drop(tail)

    async def _begin(self, tail: _Tail) -> bool:
        """Copy the first piece, or raise `StoreUnavailableError`: who begins to watch waits as long as callers do."""
        return await try_for(self._store.outage_limit, partial(self._copy, tail), in_time=self._store.in_time)

    async def _copy(self, tail: _Tail) -> bool:
        """Copy a piece of what there is; tell whether there was anything."""
        log, entry = tail.log(), tail.entry()
        if log is None or self._is_fed_here(tail.job_id, log):
            return False
        before, had_ended = log.last, tail.has_ended
        messages, fresh = await self._store.follow(tail.job_id, before, PIECE)
        tail.was_read = True
        if messages is None or (fresh is not None and fresh.order != tail.order):
            log.cut_off(GONE)
            return False
        is_lost = log.cut is not None and entry is not None and entry.log is not log
        if is_lost or self._is_fed_here(tail.job_id, log):
            return False  # by an attempt that began meanwhile, with all that there was, or lost the job again by now
        if had_ended and not messages and log.end is None:
            # The `End` is not behind what is here: that is more than there is.
            self._give_up(entry, log, TAKEN_BACK, trio.BrokenResourceError)
            return False
        tail.has_ended = fresh is not None and fresh.outcome is not None
        if not messages:
            tail.close_until = trio.current_time() + LOOK_AT_LEAST
        elif len(messages) >= FEW or tail.has_ended or takes_more(MUCH, messages):
            tail.close_until = -inf
        # The record and the stream end in one step.
        if entry is not None and fresh is not None and (fresh.outcome is None or _ends(messages)):
            refresh(entry, fresh, light=True)
        if entry is not None and messages and isinstance(end := messages[-1], End):
            conclude(entry, end.outcome)  # where it was removed since
        log.extend(messages)
        return log.last > before


def _ends(messages: list[Message]) -> bool:
    return bool(messages) and isinstance(messages[-1], End)
