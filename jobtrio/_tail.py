"""Follows the streams of jobs that run in other processes, for this process's consumers.

It copies a job's messages from the store into its local log, as they come, up to the `End`. A hint from the
store makes it look at once; without one it looks again after a while. It must not know who reads, but for whether
anybody still could.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio._errors import StoreUnavailableError
from jobtrio._messages import End
from jobtrio._outage import keep_trying

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import JobStore

LOOK_AFTER = 0.25
"""Seconds after which to look although no hint came."""

PIECE = 1024
"""Messages read at once."""


@attrs.define(eq=False)
class _Tail:
    """One log that is followed, for as long as somebody else holds it."""

    job_id: str
    log: weakref.ref[TokenLog]
    entry: weakref.ref[JobEntry]
    hint: trio.Event


class Tails:
    """All streams that are followed.

    Args:
        store: Where they are.
        is_fed_here: Whether an attempt in this process writes to this log of this job.
        refresh: Brings an entry to what a newer one says.
    """

    def __init__(
        self,
        store: JobStore,
        is_fed_here: Callable[[str, TokenLog], bool],
        refresh: Callable[[JobEntry, JobEntry], None],
    ) -> None:
        self._store = store
        self._is_fed_here = is_fed_here
        self._refresh = refresh
        self._tails: dict[str, list[_Tail]] = {}  # by job: an old log may be followed beside a new one
        self.nursery: trio.Nursery | None = None

    def follow(self, entry: JobEntry) -> None:
        """Follow a job in the log that its entry has, until its end or until nobody holds that log."""
        log = entry.log
        tails = self._tails.get(entry.id, [])
        if self.nursery is None or log is None or any(tail.log() is log for tail in tails):
            return
        tail = _Tail(entry.id, weakref.ref(log), weakref.ref(entry), trio.Event())
        self._tails[entry.id] = [*tails, tail]
        self.nursery.start_soon(self._run, tail)

    def look(self, job_id: str) -> None:
        """Look for new messages at once."""
        for tail in self._tails.get(job_id, ()):
            tail.hint.set()

    async def catch_up(self, entry: JobEntry, log: TokenLog, is_pointless: Callable[[], bool]) -> None:
        """Copy what the store has of a job that is to run here, so that its attempt's numbers go on from there.

        Returns early once ``is_pointless`` says that the attempt need not run any more.

        Cancellation: what was copied stays.
        """
        while not is_pointless():
            read = partial(self._store.read_messages, entry.id, log.last, PIECE)
            before = log.last
            messages = await keep_trying(read, is_pointless)
            log.extend(messages or [])
            if log.last == before:
                return

    @trio.lowlevel.enable_ki_protection
    async def _run(self, tail: _Tail) -> None:
        try:
            while self._is_wanted(tail):
                tail.hint = trio.Event()
                if not await self._copy(tail):
                    with trio.move_on_after(LOOK_AFTER):
                        await tail.hint.wait()
        finally:
            self._tails[tail.job_id].remove(tail)
            if not self._tails[tail.job_id]:
                del self._tails[tail.job_id]

    @staticmethod
    def _is_wanted(tail: _Tail) -> bool:
        log = tail.log()
        return log is not None and log.end is None and log.cut is None

    async def _copy(self, tail: _Tail) -> bool:
        """Copy what there is; tell whether there was anything."""
        log, entry = tail.log(), tail.entry()
        if log is None or self._is_fed_here(tail.job_id, log):
            return False
        before = log.last
        try:
            messages = await self._store.read_messages(tail.job_id, before, PIECE)
            fresh = None if entry is None else await self._store.load(tail.job_id)  # no older than the messages
        except StoreUnavailableError:
            return False
        if messages is None:
            log.cut_off("the job is no longer kept by its store")
            return False
        if entry is not None and fresh is not None and (fresh.outcome is None or _ends(messages)):
            self._refresh(entry, fresh)  # the record and the stream end in one step
        log.extend(messages)
        return log.last > before


def _ends(messages: list[Message]) -> bool:
    return bool(messages) and isinstance(messages[-1], End)
