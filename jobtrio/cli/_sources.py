"""Where the messages of a watched job come from: a store, or a server of the bridge.

Each source reads a job's stream to its end and then says how that was. It must not know what becomes of the
messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import trio

from jobtrio._errors import JobtrioError
from jobtrio._messages import End, Restart
from jobtrio.cli._follow import follow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._job import Job
    from jobtrio._messages import Message
    from jobtrio._records import JobRecord, Outcome
    from jobtrio._registry import JobRegistry
    from jobtrio.websocket import RemoteJob


class Source(Protocol):
    """One job's stream.

    Attributes:
        attempts: How many attempts the job may have.
        hint: How to end the job, for those who stop watching it.
    """

    attempts: int
    hint: str

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over messages as they come, to the `End`."""

    async def ending(self) -> tuple[Outcome, float | None, int]:
        """Return how the job ended, the seconds of its last attempt, and how many there were."""


class StoreSource:
    """A job in a store."""

    def __init__(self, registry: JobRegistry, job: Job) -> None:
        self._registry = registry
        self._job = job
        self.attempts: int = job.record.max_attempts
        self.hint: str = f"; to end it: jobtrio cancel {job.id}"

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over messages as they come, to the `End`, whichever process the job runs in.

        Raises:
            UnknownJobError: The job is no longer kept.

        *Cancellation*: the job goes on.
        """
        await follow(self._registry, self._job, show, after=after)

    async def ending(self) -> tuple[Outcome, float | None, int]:
        """Return how the job ended. *Cancellation*: nothing has changed."""
        await trio.lowlevel.checkpoint()
        outcome, record = self._job.outcome, self._job.record
        assert outcome is not None  # follow() returns behind the End
        return outcome, record.duration, record.attempt


class BridgeSource:
    """A job of a server."""

    def __init__(self, job: RemoteJob, record: JobRecord | None) -> None:
        """Prepare to read.

        Args:
            job: The job.
            record: What is known of it; None where the server doesn't tell.
        """
        self._job = job
        self._outcome: Outcome | None = None
        self._attempt = 1
        self.attempts: int = 1 if record is None else record.max_attempts
        self.hint: str = ""

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over messages as they come, to the `End`, over as many connections as that takes.

        Raises:
            JobtrioError: The server can't give this stream.
            ValueError: ``after`` is beyond the job's last message.

        *Cancellation*: the job goes on.
        """
        with self._job.subscribe(after, on_gap="yield") as messages:
            while True:
                try:
                    batch = await messages.receive_batch()
                except trio.EndOfChannel:
                    return
                self._note(batch)
                await show(batch)

    async def ending(self) -> tuple[Outcome, float | None, int]:
        """Return how the job ended.

        Raises:
            JobtrioError: The server can't give the end that `follow` was told to begin behind.

        *Cancellation*: nothing has changed.
        """
        outcome = self._outcome if self._outcome is not None else await self._job.wait()
        try:
            record = await self._job.refresh()
        except JobtrioError:  # it may be watched and not looked up, or is gone already
            return outcome, None, self._attempt
        return outcome, record.duration, record.attempt

    def _note(self, batch: list[Message]) -> None:
        for message in batch:
            if isinstance(message, Restart):
                self._attempt = message.attempt + 1
            elif isinstance(message, End):
                self._outcome = message.outcome
