"""Hands an attempt's messages over to a store that keeps them elsewhere, in batches, in order.

Local consumers read the log and do not wait for it. It follows the log as any consumer does; what the
log no longer keeps by the time the store is back is gone there as it is here. It must not know what the
messages mean.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._codec import encode_value
from jobtrio._outage import keep_trying

if TYPE_CHECKING:
    from jobtrio._messages import Message
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import Claim, JobStore

BATCH = 256
"""Messages handed over at once."""

WINDOW = 0.015
"""Seconds in which messages are collected for one batch."""


class Spool:
    """The way from one attempt's log to the store."""

    def __init__(self, store: JobStore, claim: Claim, log: TokenLog) -> None:
        self._store = store
        self._claim = claim
        self._log = log
        self._saved = log.last

    async def run(self) -> None:
        """Hand over messages as they come, until cancelled or until the claim is lost.

        Cancellation: a batch under way may have been stored; `rest` gives it again, and the store passes over it.
        """
        while True:
            await self._log.wait_beyond(self._saved)
            await trio.sleep(WINDOW)
            while batch := self._next(BATCH):
                if not await keep_trying(partial(self._store.append_messages, self._claim, batch), _never):
                    return
                self._saved += len(batch)

    def rest(self) -> list[Message]:
        """Return what has not been handed over, for the write that ends the attempt."""
        return self._next(self._log.last - self._saved)

    def check(self, value: Any) -> None:
        """Raise `PayloadError` unless ``value`` can be stored."""
        encode_value("what is sent or returned", value)

    def _next(self, most: int) -> list[Message]:
        self._saved = max(self._saved, self._log.lost_before(self._saved, lossless=False))
        return self._log.slice(self._saved, most)


def _never() -> bool:
    return False
