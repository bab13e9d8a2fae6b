"""Hands an attempt's messages over to a store that keeps them elsewhere, in batches, in order.

Local consumers read the log and do not wait for it. It follows the log as any consumer does; what the
log no longer keeps by the time the store is back is gone there as it is here. It must not know what the
messages mean.
"""

from __future__ import annotations

import logging
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._checks import clean_text, show
from jobtrio._codec import encode_value
from jobtrio._errors import PayloadError
from jobtrio._messages import Token
from jobtrio._outage import keep_trying, never

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._messages import Message
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import Claim, JobStore

logger = logging.getLogger("jobtrio")

BATCH = 256
"""Messages handed over at once."""

WINDOW = 0.006
"""Seconds in which messages are collected for one batch, while there are many. Half of it and a commit are what those
who watch elsewhere wait for at any pace; a job that never pauses makes 167 writes a second. Where more come during a
write, the next follows at once: a store that takes its time collects them by that, and who watches waits enough."""

REPR_LIMIT = 10_000
"""Characters of a `repr` that stands for a value."""

FIRST = 0.001
"""Seconds after which a message is handed over that comes after a pause: those who watch elsewhere wait for it. A job
that sends a little and ends needs no write besides its end's."""


class Spool:
    """The way from one attempt's log to the store; made when the attempt begins to send."""

    def __init__(self, store: JobStore, claim: Claim, log: TokenLog) -> None:
        """Hand over what comes behind the log's last message."""
        self._store = store
        self._claim = claim
        self._log = log
        self._saved = log.last
        self._scope = trio.CancelScope()
        log.set_stored(self._saved)

    @trio.lowlevel.enable_ki_protection
    async def run(self, on_refused: Callable[[], object]) -> None:
        """Hand over messages as they come, until stopped; call ``on_refused`` once the store says the claim is lost.

        Cancellation: a batch under way may have been stored; `rest` gives it again, and the store passes over it.
        """
        with self._scope:
            # Of an attempt that is over a batch may be refused because its end was quicker, which then says by itself.
            if not await self._hand_over() and not self._scope.cancel_called:
                on_refused()

    def stop(self) -> None:
        """Hand over nothing more; what is left is given by `rest`."""
        self._scope.cancel(reason="the attempt is over")

    async def _hand_over(self) -> bool:
        log = self._log
        last = -inf
        while log.end is None:  # a job that others have ended gets no more messages from here
            await log.wait_beyond(self._saved)
            await trio.sleep_until(max(trio.current_time() + FIRST, last + WINDOW))
            last = trio.current_time()
            while batch := self._next(BATCH):
                if not await write_with(batch, partial(self._store.append_messages, self._claim), never):
                    return False
                if self._scope.cancel_called:
                    return True  # an answer may come although it was stopped; the rest goes with the end
                self._saved += len(batch)
                log.set_stored(self._saved)
        return True

    def rest(self) -> list[Message]:
        """Return what has not been handed over, for the write that ends the attempt."""
        return self._next(self._log.last)

    def settled(self) -> None:
        """Note that the rest is stored as well."""
        self._log.set_stored(None)

    def _next(self, most: int) -> list[Message]:
        log = self._log
        if log.lost_before(self._saved, lossless=False):
            log.trim()  # what is left is there for lossless readers, and has to be stored: they get it as stored
        self._saved = max(self._saved, log.lost_before(self._saved, lossless=True))
        batch = log.slice(self._saved, most)
        return batch[:-1] if batch and batch[-1] is log.end else batch  # the `End` is the store's to append


def check_value(value: Any) -> None:
    """Raise `PayloadError` unless ``value`` can be stored."""
    encode_value("what is sent or returned", value)


async def write_with(
    messages: list[Message], write: Callable[..., Awaitable[bool]], is_pointless: Callable[[], bool]
) -> bool | None:
    """Make a write that takes messages, however long that takes; None once it is pointless.

    A value that can't be stored any more, because it was changed since it was sent, is stored as its `repr`: it harms
    nobody but its own job.

    Raises:
        PayloadError: What can't be stored is none of the messages.

    Cancellation: it may have been carried out.
    """
    while True:
        try:
            return await keep_trying(partial(write, messages=messages), is_pointless)
        except PayloadError as exc:
            storable = [_storable(message) for message in messages]
            if all(each is message for each, message in zip(storable, messages, strict=True)):
                raise  # it is something else that can't be stored
            logger.warning("a message was changed since it was sent, and is stored as its repr: %s", exc)
            messages = storable  # another one may be changed while the store is away


def _storable(message: Message) -> Message:
    if isinstance(message, Token):
        try:
            encode_value("a token", message.value)
        except PayloadError:
            return Token(message.seq, message.attempt, {"repr": clean_text(show(message.value, REPR_LIMIT))})
    return message
