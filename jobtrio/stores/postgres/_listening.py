"""Hearing what other processes tell: one connection that listens, and what takes its place where none can.

A connection that was given to ``LISTEN`` hears nothing behind a pooler that shares sessions, and no error says so. So
each new one is tried: a notice of this process's own, sent by another connection, has to arrive. Until it has, and
where it never does, one looks instead. It must not know what the notices lead to.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import psycopg
import trio

from jobtrio._errors import StoreError
from jobtrio.stores.postgres._arrays import array

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.psycopg_trio import TrioConnection
    from jobtrio.stores.postgres._connections import Connections
    from jobtrio.stores.postgres._notices import Notices

ALIVE_AFTER: Final = 15.0
"""Seconds without a notice after which the connection is asked whether it is alive."""

HEARD_WITHIN: Final = 2.0
"""Seconds in which a trial has to arrive; behind them one looks, and it may still."""

PAUSES: Final = (0.05, 1.0)
"""Seconds between two tries to connect: doubled from the first to the last."""

TRIAL: Final = "trial"
"""What a notice begins with that is to show whether any arrive."""

log: Final = logging.getLogger("jobtrio.stores.postgres")


class Listener:
    """The connection that listens.

    Attributes:
        settled: Set once that is known for the first time.
    """

    def __init__(
        self,
        connections: Connections,
        notices: Notices,
        on_notice: Callable[[str], None],
        on_change: Callable[[bool], None],
    ) -> None:
        """Begin deaf.

        Args:
            connections: The way to the server.
            notices: How notices are sent.
            on_notice: Called with each payload.
            on_change: Called when notices begin to arrive, or may not arrive any more.
        """
        self.settled: trio.Event = trio.Event()
        self._connections = connections
        self._notices = notices
        self._listen = f'LISTEN "{notices.channel}"'.encode()
        self._on_notice = on_notice
        self._on_change = on_change
        self._heard = trio.Event()
        self._has_warned = False

    @property
    def hears(self) -> bool:
        """Whether notices are known to arrive."""
        return self._heard.is_set()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Listen until cancelled.

        Cancellation: the connection is closed.
        """
        pause = PAUSES[0]
        while True:
            try:
                async with await self._connections.connect() as connection:
                    with trio.fail_after(self._connections.patience):
                        await connection.execute(self._listen)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._hear, connection)
                        await self._try_out()
                        self.settled.set()
                        pause = PAUSES[0]
            except* (psycopg.Error, StoreError, OSError, trio.TooSlowError) as group:
                log.debug("not listening for now: %s", group.exceptions[0])
            self._become(False)
            self.settled.set()
            await trio.sleep(pause)
            pause = min(2 * pause, PAUSES[1])

    async def _try_out(self) -> None:
        """See whether a notice of our own arrives."""
        trial = array([f"{TRIAL} {self._notices.session}"])
        await self._connections.fetch("notify", self._notices.channel, trial)
        with trio.move_on_after(HEARD_WITHIN):
            await self._heard.wait()
            return
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "notices do not arrive, as behind a pooler that shares sessions: the store looks for news instead, "
                "and so learns of them later (listen=False says so from the start)"
            )

    @trio.lowlevel.enable_ki_protection
    async def _hear(self, connection: TrioConnection[Any]) -> None:
        while True:
            async for notice in connection.notifies(timeout=ALIVE_AFTER):
                if notice.payload == f"{TRIAL} {self._notices.session}":
                    self._become(True)
                else:
                    self._on_notice(notice.payload)
            with trio.fail_after(self._connections.patience / 4):
                await connection.execute(self._listen)  # once more, in case that something has made it forget

    def _become(self, hears: bool) -> None:
        if hears != self.hears:
            if hears:
                self._heard.set()
            else:
                self._heard = trio.Event()
            self._on_change(hears)
