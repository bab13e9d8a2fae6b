"""Reads a job's stream to its end, whichever process it runs in, and wherever it moves meanwhile.

It owns what is passed over: what a lost attempt showed before, stored or not. It must not know what becomes of the
messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio._errors import UnknownJobError
from jobtrio._messages import End, Gap, Restart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from jobtrio._job import Job
    from jobtrio._messages import Message
    from jobtrio._registry import JobRegistry
    from jobtrio._subscription import Subscription


async def follow(
    registry: JobRegistry,
    job: Job,
    show: Callable[[list[Message]], Awaitable[None]],
    *,
    after: int = 0,
    lossless: bool = False,
) -> None:
    """Hand over a job's messages as they come, in batches, to the `End`.

    Args:
        registry: The job's registry.
        job: The job.
        show: What takes a batch.
        after: The number of the last message that is not wanted. Of a job that runs elsewhere it may be still to come.
        lossless: Whether the job's ``send`` waits rather than drop what was not shown, where it runs here.

    Raises:
        UnknownJobError: The job is no longer kept.
        StoreUnavailableError: The store was away when that was asked.

    *Cancellation*: the job goes on.
    """
    sieve = Sieve()
    while True:
        try:
            with job.subscribe(after, lossless=lossless, on_gap="yield") as messages:
                while batch := await _receive(messages):
                    if wanted := sieve.wanted(batch):
                        await show(wanted)
            return
        except trio.BrokenResourceError:
            if await registry.get(job.id) != job:  # raises where the stream was cut off because the job is gone
                raise UnknownJobError(job.id) from None  # and so it is where another one has its id
            if sieve.start_over():
                after = 0


async def _receive(messages: Subscription) -> list[Message]:
    """Return the next messages, or none behind the `End`."""
    try:
        return await messages.receive_batch()
    except trio.EndOfChannel:
        return []
    except ValueError:
        return []  # the job has ended before it reached the number that was given


class Sieve:
    """Tells the messages that are wanted from those that a lost attempt has shown already, or showed in vain."""

    def __init__(self) -> None:
        self._attempt = 0  # of the last message that was handed over
        self._last = 0  # its number
        self._awaits_restart = False

    def wanted(self, messages: Iterable[Message]) -> list[Message]:
        """Return those that are wanted."""
        return [self._rest_of(message) for message in messages if self._is_wanted(message)]

    def start_over(self) -> bool:
        """Expect the stream from its beginning once more, and the last attempt's part in it to differ.

        This process ran the job and lost it. What it showed and had not stored is not part of the stream, and its
        numbers stand for other messages now: the stream goes on with that attempt's `Restart`. Returns False where
        nothing was shown yet, so that the stream goes on where it was to begin.
        """
        self._awaits_restart = self._attempt > 0
        return self._awaits_restart

    def _rest_of(self, message: Message) -> Message:
        """Return of a gap what was not shown before, and any other message whole."""
        return Gap(max(message.first, self._last + 1), message.last) if isinstance(message, Gap) else message

    def _is_wanted(self, message: Message) -> bool:
        if isinstance(message, End):
            return True
        if isinstance(message, Gap):  # of what was shown already, nothing is missed
            return message.last > self._last
        if self._awaits_restart:
            is_behind = message.attempt > self._attempt
            if not is_behind and not (message.attempt == self._attempt and isinstance(message, Restart)):
                return False
            self._awaits_restart = False
        self._attempt, self._last = message.attempt, message.seq
        return True
