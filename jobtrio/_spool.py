"""Hands an attempt's messages over to a store that keeps them elsewhere, in batches, in order.

Local consumers read the log and do not wait for it. It follows the log as any consumer does; what the
log no longer keeps by the time the store is back is gone there as it is here. It must not know what the
messages mean.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._codec import encode_value
from jobtrio._outage import keep_trying

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._messages import Message
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import Claim, JobStore

BATCH = 256
"""Messages handed over at once."""

WINDOW = 0.015
"""Seconds in which messages are collected for one batch, while there are many."""

FIRST = 0.002
"""Seconds after which a message is handed over that comes after a pause: those who watch elsewhere wait for it."""


class Spool:
    """The way from one attempt's log to the store; idle until the attempt begins to send."""

    def __init__(self, store: JobStore, claim: Claim) -> None:
        self._store = store
        self._claim = claim
        self._log: TokenLog | None = None
        self._saved = 0
        self._scope = trio.CancelScope()

    def begin(self, log: TokenLog) -> bool:
        """Hand over what comes behind the log's last message; tell whether `run` has to be started for that."""
        if self._log is not None:
            return False
        self._log = log
        self._saved = log.last
        return True

    @trio.lowlevel.enable_ki_protection
    async def run(self, on_refused: Callable[[], object]) -> None:
        """Hand over messages as they come, until stopped; call ``on_refused`` once the store says the claim is lost.

        Cancellation: a batch under way may have been stored; `rest` gives it again, and the store passes over it.
        """
        with self._scope:
            if not await self._hand_over():
                on_refused()

    def stop(self) -> None:
        """Hand over nothing more; what is left is given by `rest`."""
        self._scope.cancel(reason="the attempt is over")

    async def _hand_over(self) -> bool:
        log = self._log
        assert log is not None  # begin() was called
        last = -inf
        while log.end is None:  # a job that others have ended gets no more messages from here
            await log.wait_beyond(self._saved)
            await trio.sleep_until(max(trio.current_time() + FIRST, last + WINDOW))
            last = trio.current_time()
            while batch := self._next(log, BATCH):
                if not await keep_trying(partial(self._store.append_messages, self._claim, batch), _never):
                    return False
                if self._scope.cancel_called:
                    return True  # an answer may come although it was stopped; the rest goes with the end
                self._saved += len(batch)
        return True

    def rest(self) -> list[Message]:
        """Return what has not been handed over, for the write that ends the attempt."""
        return [] if self._log is None else self._next(self._log, self._log.last - self._saved)

    def check(self, value: Any) -> None:
        """Raise `PayloadError` unless ``value`` can be stored."""
        encode_value("what is sent or returned", value)

    def _next(self, log: TokenLog, most: int) -> list[Message]:
        self._saved = max(self._saved, log.lost_before(self._saved, lossless=False))
        batch = log.slice(self._saved, most)
        return batch[:-1] if batch and batch[-1] is log.end else batch  # the `End` is the store's to append


def _never() -> bool:
    return False
