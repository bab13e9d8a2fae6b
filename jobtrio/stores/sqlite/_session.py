"""`Session`: all that runs while a store is open, from the check of the file to the end of the threads.

It owns the order in which the parts start and stop, and what happens in the background: hearing the doorbell, giving
up on a disk that does not answer, pruning. It must not know the contract's calls.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio._nursery import open_background_nursery
from jobtrio.stores._rowstore import itself
from jobtrio.stores._sessions import StoreSession
from jobtrio.stores._settling import Identity
from jobtrio.stores.sqlite import _advancing as advancing
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _pruning as pruning
from jobtrio.stores.sqlite._checkpoint import warn_of_reset_error
from jobtrio.stores.sqlite._readers import Readers
from jobtrio.stores.sqlite._statements import SQL
from jobtrio.stores.sqlite._wakeup import Doorbell
from jobtrio.stores.sqlite._writer import Writer

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from jobtrio.abc import StoreSettings
    from jobtrio.stores.sqlite._connection import Location
    from jobtrio.stores.sqlite._transaction import Transaction

T = TypeVar("T")
R = TypeVar("R")

PAUSE: Final = 0.01
"""Seconds between two slices of pruning, for others to come in."""


class Session(StoreSession):
    """One opened store.

    Attributes:
        identity: Who writes.
        started_at: When this was, by wall time.
        claimed_at: When the last claim was made, likewise.
    """

    def __init__(self, location: Location, settings: StoreSettings, patience: float, look_after: float) -> None:
        super().__init__(settings, time.monotonic)
        self._location = location
        self._look_after = look_after
        self._doorbell = Doorbell(location.path)
        self.started_at: Final = time.time()
        self.claimed_at: float = self.started_at
        self.identity: Final = Identity(
            settings.worker,
            self._doorbell.name,
            settings.retention,
            settings.max_running_total,
            settings.rate_limits,
        )
        self._patience = patience
        # Overdue calls are looked for every quarter of this, and so end within the whole.
        patience *= 0.75
        self._readers = Readers(location, patience=patience)
        self._writer = Writer(location, self.identity, self._doorbell, self.announcer, patience=patience)
        self.outages = self._writer.outages

    # -- life

    async def prepare(self) -> None:
        """Check the file, or make it.

        Raises:
            StoreUnavailableError: The file is away, or no thread can be started to look at it.

        Cancellation: it may have been made.
        """
        with _threads_needed():
            await trio.to_thread.run_sync(self._location.prepare)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def running(self) -> AsyncIterator[None]:
        """Run the threads and what happens in the background, within the block.

        Raises:
            StoreUnavailableError: No thread can be started.
        """
        self._doorbell.open()
        if self._doorbell.has_others():
            warn_of_reset_error()
        has_threads = False
        try:
            with _threads_needed():
                self._writer.start()
                self._readers.start()
            has_threads = True
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._listen)
                nursery.start_soon(self._give_up_overdue)
                nursery.start_soon(self.pruner.run)
                yield
        finally:
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._close, has_threads)  # in a task of its own, which Ctrl-C does not end

    @trio.lowlevel.enable_ki_protection
    async def _close(self, has_threads: bool) -> None:
        """End the threads, or those of them that could be started."""
        # Bounded by the calls that wait: the writer's fail at once where the file is away.
        with trio.CancelScope(shield=True):
            if has_threads:
                await self._leave(partial(self.write, claiming.leave, itself))
            await self._writer.aclose()
            holds_jobs = has_threads and await self._holds_jobs()
            await self._readers.aclose()
        self._doorbell.close(keep_name=holds_jobs)

    async def _holds_jobs(self) -> bool:
        """Whether jobs are left that this session claimed; others have to see then that it is gone."""
        try:
            found = await self.read(lambda file: file.execute(SQL["running"], (self.identity.session,)).fetchone())
        except StoreError:
            return True
        return found is not None

    # -- calls

    def write(self, work: Callable[[Transaction], T], after: Callable[[T], R]) -> Awaitable[R]:
        """Have the writer do ``work``; once that is committed, return what ``after`` makes of what it returns."""
        return self._writer.calls.make(work, after)

    def read(self, work: Callable[[sqlite3.Connection], T], *, is_short: bool = False) -> Awaitable[T]:
        """Have a reader do ``work``; return what it returns. What is short may be done with others' in one go."""
        return self._readers.calls.make(work, is_short=is_short)

    async def advance(self) -> float:
        """Do what is due; return the seconds until there is more.

        Where this process knows all times and none has come, it is not worth a transaction.
        """
        self._hear()
        if self._doorbell.socket is not None and (idle_for := self.announcer.idle_for()):
            await trio.lowlevel.checkpoint_if_cancelled()
            return idle_for
        more = True
        while more:
            self.announcer.asked()
            more = await self.write(lambda tx: advancing.advance(tx, self._doorbell.gone()), self._advanced)
        return self.announcer.idle_for()

    def _advanced(self, progress: advancing.Progress) -> bool:
        self.announcer.changed(progress.changed)
        self.announcer.looked(progress.next, self._look_after)
        for name in progress.emptied:
            self._doorbell.forget(name)
        return progress.is_cut

    async def _prune(self) -> float:
        """Remove what is no longer kept; return the seconds until there may be more."""
        until = await self.read(lambda connection: pruning.limit(connection, self.identity.retention))
        while True:
            more, left = await self.write(lambda tx: pruning.prune(tx, until), itself)
            if not more:
                return left
            await trio.sleep(PAUSE)

    # -- in the background

    async def _listen(self) -> None:
        bell = self._doorbell.socket
        while bell is not None:
            await trio.lowlevel.wait_readable(bell)
            self._hear()

    def _hear(self) -> None:
        self.announcer.heed(self._doorbell.heard())

    async def _give_up_overdue(self) -> None:
        while True:
            await trio.sleep(self._patience / 4)
            self._writer.calls.give_up_overdue()
            self._readers.calls.give_up_overdue()


@contextmanager
def _threads_needed() -> Iterator[None]:
    """Have the store be away where the system allows no thread more: that passes."""
    try:
        yield
    except RuntimeError as exc:
        raise StoreUnavailableError(str(exc)) from exc
