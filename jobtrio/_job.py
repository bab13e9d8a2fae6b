"""`Job`: the handle to one job.

It shows the job and reads its stream; all that changes a job is the registry's. It must not know how
jobs are kept or run.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import trio

from jobtrio._checks import check_count
from jobtrio._messages import Message, Progress
from jobtrio._nursery import open_background_nursery
from jobtrio._streams import TokenStream, unwrap
from jobtrio._subscription import OnGap, Subscription
from jobtrio._token_log import CUT_OFF

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio._entry import JobEntry
    from jobtrio._policies import JobPriority
    from jobtrio._records import JobRecord, Outcome
    from jobtrio._state import JobState
    from jobtrio._token_log import TokenLog


class JobOwner(Protocol):
    """What a handle needs of its registry."""

    def open_log(self, entry: JobEntry) -> TokenLog:
        """Return the job's log."""

    def check_run(self, call: str, instead: str) -> None:
        """Raise `RuntimeError` in another thread than Trio's."""

    def check_awaited(self, call: str, instead: str) -> None:
        """Raise `RuntimeError` in another run of Trio, unless all is over."""

    async def catch_up(self, entry: JobEntry) -> TokenLog:
        """Return the job's log with all that is stored by now."""

    async def has_stored(self, entry: JobEntry, number: int) -> bool:
        """Tell whether the store has a message of which the job's log may not know."""

    async def cancel(
        self, job_id: str, reason: str | None = None, *, grace: float = 0.0, entry: JobEntry | None = None
    ) -> bool:
        """Ask to cancel a job; where its entry is given, no other one with its id."""

    async def set_priority(self, job_id: str, priority: JobPriority, *, entry: JobEntry | None = None) -> bool:
        """Give a job that waits another priority; where its entry is given, no other one with its id."""


@attrs.frozen
class StreamSpan:
    """The range in which a job's stream can be read.

    Attributes:
        first: The number of the oldest message that is kept; ``last`` + 1 if none is kept.
        last: The number of the last message so far; 0 before the first.
        is_complete: Whether ``last`` is the number of the `End`.
        progress: The newest `Progress` of those messages; None where there is none.
    """

    first: int
    last: int
    is_complete: bool
    progress: Progress | None = None


class Job:
    """One job, as its submitter and its watchers see it.

    Handles are cheap, and equal when they stand for the same job of the same registry. They stay readable when the
    registry no longer keeps the job. For a job that runs in another process, ``state``, ``record`` and ``outcome`` show
    what this one has learned: `wait`, reading the stream, and `JobRegistry.get` bring them up to date (durable stores).
    """

    __slots__ = ("__weakref__", "_entry", "_owner")

    def __init__(self, entry: JobEntry, owner: JobOwner) -> None:
        self._entry = entry
        self._owner = owner

    @property
    def id(self) -> str:
        """The job's id."""
        return self._entry.id

    @property
    def state(self) -> JobState:
        """Where the job is in its life."""
        return self._entry.state

    @property
    def record(self) -> JobRecord:
        """All that is known about the job now, as a frozen snapshot."""
        return self._entry.record()

    @property
    def outcome(self) -> Outcome | None:
        """How the job ended; None until it has."""
        return self._entry.outcome

    def subscribe(
        self, after: int = 0, *, on_gap: OnGap = "raise", lossless: bool = False, stored: bool = False
    ) -> Subscription:
        """Return a channel that receives the job's messages after number ``after``, up to its `End`.

        Args:
            after: The number of the last message that is not wanted; 0 for all that are kept.
            on_gap: What to do about messages no longer kept: ``"raise"`` a `LaggedError`, or ``"yield"`` a `Gap`.
            lossless: Whether the job's ``send`` waits rather than drop what this consumer has not read. A job that runs
                in another process waits for nobody here (durable stores).
            stored: Whether to receive a message only once it is stored (durable stores), so that its number means the
                same in every process and after a crash.

        Raises:
            TypeError, ValueError: ``after`` is beyond the last message so far, or a parameter is invalid. For a job
                that does not run in this process, a number that is too high is noticed only at its end, when receiving
                raises ``ValueError`` (durable stores).
            RuntimeError: Called from a thread other than Trio's, or after Trio's run has ended, for a subscription that
                is ``lossless`` or to a job that has not ended (durable stores).
        """
        if lossless:
            self._owner.check_run("job.subscribe(lossless=True)", "partial(job.subscribe, lossless=True)")
        entry = self._entry
        log = self._owner.open_log(entry)
        return Subscription(log, after, on_gap=on_gap, lossless=lossless, stored=stored, holds=entry)

    async def span(self) -> StreamSpan:
        """Return the range of numbers in which the stream can be read, as far as it is stored by now, and the progress.

        Raises:
            UnknownJobError: The job was removed before this process had its `End` (durable stores).
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry was closed before this process had the job's `End` (durable stores).
            RuntimeError: Called from a thread other than Trio's, for a job that has not ended (durable stores).

        Cancellation: nothing has changed.
        """
        log = await self._owner.catch_up(self._entry)
        last = log.reach(stored=True)
        return StreamSpan(min(log.first, last + 1), last, log.end is not None, log.newest_progress(last))

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def open_channel(self, size: int = 64, after: int = 0) -> AsyncIterator[trio.MemoryReceiveChannel[Message]]:
        """Give the job's messages through a plain memory channel, within the block.

        Args:
            size: How many messages the channel holds, 0 or more, while its reader is busy.
            after: The number of the last message that is not wanted.

        Messages no longer kept come as a `Gap`; after the `End` the channel is closed.

        Raises:
            TypeError, ValueError: A parameter is invalid, or ``after`` is beyond the last message so far.
            trio.BrokenResourceError, StoreUnavailableError, ValueError: From the block: as `Subscription.receive`
                (durable stores).

        Cancellation: the channel is closed; the job goes on.
        """
        size = check_count("size", size, low=0)
        subscription = self.subscribe(after, on_gap="yield")
        sender, receiver = trio.open_memory_channel[Message](size)
        with sender:
            async with open_background_nursery() as nursery:
                nursery.start_soon(_pump, subscription, sender)
                with receiver:
                    yield receiver

    def tokens(self, after: int = 0) -> TokenStream:
        """Return an async iterator over the bare values that the job sends, after message number ``after``.

        At the job's end the iteration stops if the job completed, and otherwise raises.

        Raises:
            JobFailedError: While iterating: the job failed.
            JobCancelledError: While iterating: the job was cancelled.
            LaggedError: While iterating: messages are no longer kept. Further iteration goes on after them.
            trio.BrokenResourceError, StoreUnavailableError, ValueError: While iterating: as `Subscription.receive`
                (durable stores).
            TypeError, ValueError: ``after`` is beyond the last message so far, or not a number; otherwise as
                `subscribe`.

        Cancellation: the job goes on, and no value is lost.
        """
        return TokenStream(self.id, self.subscribe(after), self.wait)

    async def wait(self) -> Outcome:
        """Wait until the job has ended and return its outcome.

        Raises:
            trio.BrokenResourceError: The registry was closed before the job ended, or the job was removed before this
                process saw its end (durable stores).
            RuntimeError: It was awaited before the job ended, in a run of Trio other than the registry's, which could
                not wake it.

        Cancellation: the job goes on.
        """
        if self._entry.outcome is not None:
            await trio.lowlevel.checkpoint()
            return self._entry.outcome
        self._owner.check_awaited("job.wait()", "job.wait")
        while True:
            log = self._owner.open_log(self._entry)
            try:
                return await log.wait_end()
            except CUT_OFF:
                if (outcome := self.outcome) is not None:
                    return outcome  # it came by another way than the stream
                if self._entry.log is log:
                    raise

    async def result(self) -> Any:
        """Wait until the job has ended and return what its executor returned.

        Raises:
            JobFailedError: The job failed.
            JobCancelledError: The job was cancelled.
            trio.BrokenResourceError: As `wait` (durable stores).
            RuntimeError: As `wait`.

        Cancellation: the job goes on.
        """
        if self._entry.outcome is None:
            self._owner.check_awaited("job.result()", "job.result")
        return unwrap(self.id, await self.wait())

    async def cancel(self, reason: str | None = None, *, grace: float = 0.0) -> bool:
        """Ask the job to end, as `JobRegistry.cancel` does; return False if this handle knows that the job has ended.

        Cancellation: the request may have been made.
        """
        return await self._owner.cancel(self._entry.id, reason, grace=grace, entry=self._entry)

    async def set_priority(self, priority: JobPriority) -> bool:
        """Give the job another priority, as `JobRegistry.set_priority` does; return False if it runs or has ended.

        Cancellation: it may have been changed.
        """
        return await self._owner.set_priority(self._entry.id, priority, entry=self._entry)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other._entry is self._entry and other._owner is self._owner

    def __hash__(self) -> int:
        return hash(self._entry.id)

    def __repr__(self) -> str:
        return f"<Job {self.id!r} {self.state}>"


async def has_stored(job: Job, number: int) -> bool:
    """Tell whether a message is stored that is beyond what `Job.span` tells (durable stores).

    So it may be of a job that this process runs, or did: the answer to its last write may still be on its way, or the
    job has gone on elsewhere.

    Raises:
        StoreUnavailableError: The store was away too long.

    Cancellation: nothing has changed.
    """
    return await job._owner.has_stored(job._entry, number)


@trio.lowlevel.enable_ki_protection
async def _pump(subscription: Subscription, sender: trio.MemorySendChannel[Message]) -> None:
    """Pass on messages until the end, or until the reader has left; the channel is closed behind an `End` alone."""
    with subscription:
        async for message in subscription:
            try:
                await sender.send(message)
            except trio.BrokenResourceError:
                return  # the reader closed its end
    sender.close()
