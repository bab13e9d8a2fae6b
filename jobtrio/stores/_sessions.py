"""`SessionStore`: a store of which all that runs while it is open is one session.

It owns how such a store is opened, and that it serves one registry at a time. It must not know what a session is made
of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio._outage import try_for
from jobtrio.abc import JobStore
from jobtrio.stores._announcer import Announcer
from jobtrio.stores._pruner import Pruner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from jobtrio.abc import StoreSettings
    from jobtrio.stores._outages import OutageLog

LEAVE_WITHIN: Final = 1.0
"""Seconds to wait for a store that is away before it is closed without a word."""


class StoreSession(ABC):
    """One opened store.

    Attributes:
        settings: What the store was opened with.
        pruner: Prunes when many jobs have ended.
        announcer: Tells the listener.
        outages: Says when the store is away, and when it is back.
        is_shown: Whether others have been told that this worker is there.
    """

    outages: OutageLog

    def __init__(self, settings: StoreSettings, clock: Callable[[], float]) -> None:
        """Begin with what every session has; ``clock`` tells the time by which things fall due."""
        self.settings: Final = settings
        self.pruner: Final = Pruner(self._prune, settings.retention.finished_jobs)
        self.announcer: Final = Announcer(settings.listener, clock, self.pruner.ended)
        self.is_shown: bool = False

    @abstractmethod
    async def prepare(self) -> None:
        """Check what is there, or make it. Cancellation: it may have been made."""

    @abstractmethod
    def running(self) -> AbstractAsyncContextManager[None]:
        """Run what happens in the background, within the block."""

    @abstractmethod
    async def advance(self) -> float:
        """Do what is due; return the seconds until there is more. Cancellation: it may have been done."""

    @abstractmethod
    async def _prune(self) -> float:
        """Remove what is no longer kept; return the seconds until there may be more. Cancellation: some may be gone."""

    async def _leave(self, leave: Callable[[], Awaitable[object]], within: float = LEAVE_WITHIN) -> None:
        """Take this worker from those that are there; where the store is away, its time runs out."""
        if self.is_shown:
            with trio.move_on_after(within):
                try:
                    await leave()
                except StoreError:
                    pass


S = TypeVar("S", bound=StoreSession)


class SessionStore(JobStore, Generic[S]):
    """A store that works by a session, which is there while it is open."""

    _session: S | None = None

    @abstractmethod
    def _new_session(self, settings: StoreSettings) -> S:
        """Return a session that has not begun to run."""

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def open(self, settings: StoreSettings) -> AsyncIterator[None]:
        """Make the store usable within the block.

        Cancellation: what has been asked for is waited for, a bounded time, and nothing runs when this is left.
        """
        if self._session is not None:
            raise RuntimeError(f"{self!r} is open: it serves one registry at a time")
        session = self._session = self._new_session(settings)
        try:
            await try_for(self.outage_limit, partial(_prepare, session))
            async with session.running():
                yield
        finally:
            self._session = None

    @property
    def _opened(self) -> S:
        if self._session is None:
            raise RuntimeError(f"{self!r} is not open")
        return self._session

    async def advance(self) -> float:
        """Do what has fallen due: starts, retries, expiries, lapsed leases; return the seconds until more is."""
        return await self._opened.advance()

    async def prune(self) -> float:
        """Remove what is no longer kept, in slices; return the seconds until there may be more."""
        return await self._opened.pruner.prune()


async def _prepare(session: StoreSession) -> None:
    """Prepare a session; where the store is away, that is said at once, for it may be waited for."""
    try:
        await session.prepare()
    except StoreUnavailableError as exc:
        session.outages.failed(exc)
        raise
    session.outages.answered()
