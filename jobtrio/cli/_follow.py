"""Reads a job's stream to its end, whichever process it runs in, and wherever it moves meanwhile.

It owns what is passed over: what was seen before, and what a lost attempt showed that was never stored. It must
not know what becomes of the messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio._messages import End, Gap, Restart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from jobtrio._job import Job
    from jobtrio._messages import Message
    from jobtrio._registry import JobRegistry


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
        after: The number of the last message that is not wanted. It may be one that is still to come.
        lossless: Whether the job's ``send`` waits rather than drop what was not shown, where it runs here.

    Raises:
        UnknownJobError: The job is no longer kept.
        StoreUnavailableError: The store was away when that was asked.

    *Cancellation*: the job goes on.
    """
    sieve = Sieve(after)
    while True:
        try:
            # From the beginning: a stream of another process is known here only once it has been read.
            with job.subscribe(lossless=lossless, on_gap="yield") as messages:
                while True:
                    if wanted := sieve.wanted(await messages.receive_batch()):
                        await show(wanted)
        except trio.EndOfChannel:
            return
        except trio.BrokenResourceError:
            await registry.get(job.id)  # raises where the stream was cut off because the job is gone
            sieve.start_over()


class Sieve:
    """Tells the messages that are wanted from those that were seen."""

    def __init__(self, after: int) -> None:
        self._seen = after  # the number of the last message that was seen or isn't wanted
        self._attempt = 0  # of the last one that was handed over
        self._awaits_restart = False

    def wanted(self, messages: Iterable[Message]) -> list[Message]:
        """Return those that are wanted."""
        return [each for message in messages if (each := self._sift(message)) is not None]

    def start_over(self) -> None:
        """Expect the stream from its beginning once more, and the last attempt's part in it to differ.

        This process ran the job and lost it. What it showed and had not stored is not part of the stream, and its
        numbers stand for other messages now: the stream goes on with that attempt's `Restart`.
        """
        self._awaits_restart = self._attempt > 0

    def _sift(self, message: Message) -> Message | None:
        if isinstance(message, End):
            return message
        if self._awaits_restart:
            if isinstance(message, Gap) or message.attempt < self._attempt:
                return None
            if message.attempt == self._attempt and not isinstance(message, Restart):
                return None
            self._awaits_restart = False
            self._seen = message.seq - 1
        last = message.last if isinstance(message, Gap) else message.seq
        if last <= self._seen:
            return None
        if isinstance(message, Gap):
            message = attrs.evolve(message, first=max(message.first, self._seen + 1))
        else:
            self._attempt = message.attempt
        self._seen = last
        return message
