"""Follows the streams of jobs that run in other processes, for this process's consumers.

It copies a job's messages from the store into its local log, as they come, up to the `End`. A hint from the
store makes it look at once; without one it looks again after a while. It must not know who reads.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from jobtrio._errors import StoreUnavailableError
from jobtrio._outage import keep_trying

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._entry import JobEntry
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import JobStore

LOOK_AFTER = 0.25
"""Seconds after which to look although no hint came."""

PIECE = 1024
"""Messages read at once."""


class Tails:
    """All streams that are followed."""

    def __init__(
        self, store: JobStore, runs_here: Callable[[str], bool], refresh: Callable[[JobEntry, JobEntry], None]
    ) -> None:
        self._store = store
        self._runs_here = runs_here
        self._refresh = refresh
        self._hints: dict[str, trio.Event] = {}
        self.nursery: trio.Nursery | None = None

    def follow(self, entry: JobEntry) -> None:
        """Follow a job until its end, unless that is done already."""
        if entry.id not in self._hints and self.nursery is not None:
            self._hints[entry.id] = trio.Event()
            self.nursery.start_soon(self._run, entry)

    def look(self, job_id: str) -> None:
        """Look for new messages at once."""
        if job_id in self._hints:
            self._hints[job_id].set()

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

    async def _run(self, entry: JobEntry) -> None:
        try:
            # The entry's log is another one once this process has lost the job.
            while (log := entry.log) is not None and log.end is None and log.cut is None:
                if not self._runs_here(entry.id) and await self._copy(entry, log):
                    continue
                with trio.move_on_after(LOOK_AFTER):
                    await self._hints[entry.id].wait()
                self._hints[entry.id] = trio.Event()
        finally:
            del self._hints[entry.id]

    async def _copy(self, entry: JobEntry, log: TokenLog) -> bool:
        """Copy what there is; tell whether there was anything."""
        before = log.last
        try:
            messages = await self._store.read_messages(entry.id, before, PIECE)
            fresh = await self._store.load(entry.id)
        except StoreUnavailableError:
            return False
        if fresh is not None:
            self._refresh(entry, fresh)  # before the end is seen, so that the record has it by then
        log.extend(messages or [])
        if messages is None or fresh is None:
            log.cut_off("the job is no longer kept by its store")
        return log.last > before
