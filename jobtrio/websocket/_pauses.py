"""Which jobs wait because their queue is paused.

It owns how often a store is asked for that, and for how long. It must not know who wants to know.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

import trio

from jobtrio._errors import StoreError
from jobtrio._state import JobState

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobtrio._records import JobRecord
    from jobtrio._registry import JobRegistry
    from jobtrio.websocket._replies import WireRecord

KEPT: Final = 1.0
"""Seconds for which an answer of the store holds, for all clients, and that there was none."""

PATIENCE: Final = 1.0
"""Seconds that the store may take: what is asked for has its answer without it."""


class Pauses:
    """The paused queues of a registry."""

    def __init__(self, registry: JobRegistry) -> None:
        self._registry = registry
        self._lock = trio.Lock()
        self._queues: Collection[str] = ()
        self._asked_at = -inf

    async def hold(self, record: JobRecord | WireRecord) -> bool:
        """Tell whether a job waits in a paused queue; False also where the store doesn't tell.

        Cancellation: nothing has changed.
        """
        if record.state is not JobState.QUEUED:
            return False
        with trio.move_on_after(PATIENCE), suppress(StoreError, trio.ClosedResourceError):
            async with self._lock:
                if trio.current_time() >= self._asked_at + KEPT:
                    self._queues = await self._registry.paused()
                    self._asked_at = trio.current_time()
            return record.queue in self._queues
        self._queues, self._asked_at = (), trio.current_time()  # for others it is not waited as long at once again
        return False
