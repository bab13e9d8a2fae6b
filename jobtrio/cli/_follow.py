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
    from collections.abc import Awaitable, Callable, Iterable, Sequence

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
    except (trio.EndOfChannel, ValueError):  # the latter of a job that ended before it reached the number given
        return []


class Sieve:
    """Picks the messages that are wanted: not those that were shown before, by an attempt that was lost here."""

    def __init__(self) -> None:
        self._attempt = 0  # of the last message that was handed over
        self._before = 0  # the number of the last message before that attempt
        self._is_over = False  # its restart was handed over
        self._awaits_restart = False
        self._gap: Gap | None = None  # in which that restart may be

    def wanted(self, messages: Iterable[Message]) -> list[Message]:
        """Return those that are wanted."""
        return [each for message in messages for each in self._wanted(message)]

    def start_over(self) -> bool:
        """Expect the stream from its beginning once more, and the last attempt's part in it to differ.

        This process ran the job and lost it. What it showed and had not stored is not part of the stream, and its
        numbers stand for other messages now: the stream goes on with that attempt's `Restart`. Returns False where
        nothing was shown yet, so that the stream goes on where it was to begin.
        """
        self._awaits_restart = self._attempt > 0
        self._gap = None
        return self._awaits_restart

    def _wanted(self, message: Message) -> Sequence[Message]:
        """Return what to hand over for a message: itself, nothing, or a gap that was kept back and then itself."""
        if isinstance(message, Gap):
            return self._put_off(message) if self._awaits_restart else (message,)
        gap, self._gap = self._gap, None
        if self._awaits_restart and not isinstance(message, End):
            if isinstance(message, Restart) and message.attempt == self._attempt and not self._is_over:
                gap = None  # what is gone before it was shown
            elif message.attempt <= self._attempt:
                return ()
        self._awaits_restart = False
        self._is_over = isinstance(message, Restart)
        if not isinstance(message, End) and message.attempt != self._attempt:
            self._attempt, self._before = message.attempt, message.seq - 1
        return (message,) if gap is None else (gap, message)

    def _put_off(self, gap: Gap) -> Sequence[Message]:
        """Keep a gap back until the next message tells whether the restart is in it, and the part that was shown."""
        first = max(gap.first, self._before + 1) if self._gap is None else self._gap.first
        if first <= gap.last:
            self._gap = Gap(first, gap.last)
        return ()
