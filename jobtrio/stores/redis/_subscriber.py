"""What hears hints from other processes, which the server publishes: look now, rather than after a while.

Nothing rests on hints: the link may be lost, and one with it. It owns which channels are listened to, and for how
long, and that a link which has fallen silent is found out. It must not know what is made of a hint.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from jobtrio._errors import StoreError
from jobtrio._tail import LOOKS_A_SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.stores._announcer import Announcer
    from jobtrio.stores.redis._connector import Connector
    from jobtrio.stores.redis._link import Link

WATCHED_FOR: Final = 5.0
"""Seconds since a job's messages were last read, after which hints of new ones are not wanted any more: more, where so
many jobs are followed that each is read but seldom."""

PING_EVERY: Final = 5.0
"""Seconds between two questions whether the server is still there."""

PAUSE: Final = 0.5
"""Seconds until a lost link is made anew."""


class Subscriber:
    """Listens for one opened store.

    Args:
        connector: Connects to the server.
        prefix: What all channels begin with.
        announcer: Is told.
        connected: Gives what is set while the server is there, as far as is known; for each connection another.
    """

    def __init__(
        self, connector: Connector, prefix: str, announcer: Announcer, connected: Callable[[], trio.Event]
    ) -> None:
        self._connector = connector
        self._all = f"{prefix}hints"
        self._messages = f"{prefix}messages:"
        self._announcer = announcer
        self._connected = connected
        self._watched: dict[str, float] = {}  # jobs whose messages are read, and when they last were
        self._link: Link | None = None

    def watch(self, job_id: str) -> None:
        """Listen, for a while, for new messages of a job."""
        if job_id not in self._watched and self._link is not None:
            self._link.subscribe([self._messages + job_id])
        self._watched[job_id] = trio.current_time()

    def forget(self, job_id: str) -> None:
        """Listen for them no more."""
        if self._watched.pop(job_id, None) is not None and self._link is not None:
            self._link.unsubscribe([self._messages + job_id])

    def follow(self) -> None:
        """Listen anew: the server in use was lost, and the next may be another."""
        if self._link is not None:
            self._link.close()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Listen until cancelled, over one link after another."""
        while True:
            connected = self._connected()
            await connected.wait()
            try:
                async with self._connector.connect(turns=False) as self._link:
                    if self._connected() is connected:
                        await self._listen(self._link)
            except StoreError:
                pass
            finally:
                self._link = None
            await trio.sleep(PAUSE)

    async def _listen(self, link: Link) -> None:
        link.subscribe([self._all, *(self._messages + job_id for job_id in self._watched)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._ping, link)
            nursery.start_soon(self._hear, link)
            await link.closed.wait()
            nursery.cancel_scope.cancel()

    @trio.lowlevel.enable_ki_protection
    async def _ping(self, link: Link) -> None:
        while True:
            await trio.sleep(PING_EVERY)
            await link.ping()
            since = trio.current_time() - WATCHED_FOR - 2 * len(self._watched) / LOOKS_A_SECOND
            for job_id in [job_id for job_id, read_at in self._watched.items() if read_at < since]:
                self.forget(job_id)

    @trio.lowlevel.enable_ki_protection
    async def _hear(self, link: Link) -> None:
        async for channel, text in link.published():
            if channel != self._all:
                self._announcer.listener.messages_added(channel.removeprefix(self._messages))
            else:
                self._heed(text)

    def _heed(self, text: str) -> None:
        kind, _, rest = text.partition(":")
        if kind == "work":
            self._announcer.listener.work_ready()
        elif kind == "due":
            with suppress(ValueError):  # others may publish what they like
                self._announcer.falls_due_in(float(rest))
        elif kind == "cancel":
            self._announcer.listener.cancel_requested(rest)
        else:  # the channel is heard from now on
            self._announcer.look_everywhere()
            self._announcer.listener.cancel_requested(None)
