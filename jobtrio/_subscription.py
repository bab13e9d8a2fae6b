"""A consumer's place in a job's stream.

It owns a position and a small buffer, and decides what a consumer that fell behind is told. It reads
a `TokenLog` and must not know where the log's messages come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from jobtrio._checks import check_count, check_flag, show, whole_number
from jobtrio._errors import LaggedError
from jobtrio._messages import Gap, Message

if TYPE_CHECKING:
    from jobtrio._token_log import TokenLog

OnGap: TypeAlias = Literal["raise", "yield"]

BATCH = 256
"""Messages taken from the log at once, and at most received between two checkpoints."""


def check_on_gap(value: object) -> OnGap:
    """Return ``value`` if it is "raise" or "yield"; raise `ValueError` for anything else."""
    if value == "raise":
        return "raise"
    if value == "yield":
        return "yield"
    raise ValueError(f'on_gap must be "raise" or "yield"; got {show(value)}')


class Subscription(trio.abc.ReceiveChannel[Message]):
    """Receives the messages of one job, from its starting point to the `End`.

    A channel for one consumer, used in ``with``, ``async with`` or neither: a forgotten one costs
    nothing but its position. After the `End` it raises `trio.EndOfChannel`.

    Receiving is a checkpoint whenever it waits, and after every 256 messages that were received without one; in between
    it takes what is there without letting other tasks run. A batch is never cut short for that.

    Attributes:
        position: The number of the last message taken from the log.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_holds",
        "_log",
        "_lossless",
        "_on_gap",
        "_ready",
        "_stored",
        "_token",
        "_unyielded",
        "_waiting",
        "position",
    )

    @trio.lowlevel.enable_ki_protection
    def __init__(
        self,
        log: TokenLog,
        after: int = 0,
        *,
        on_gap: OnGap = "raise",
        lossless: bool = False,
        stored: bool = False,
        holds: object = None,
    ) -> None:
        self._token: trio.lowlevel.TrioToken | None = None
        self._log = log
        log.is_read = True
        self._holds = holds  # what stands for the job: without it an attempt here would feed another log
        self.position: int = check_position(log, after)
        self._on_gap = check_on_gap(on_gap)
        self._lossless = check_flag("lossless", lossless)
        self._stored = check_flag("stored", stored)
        self._ready: list[Message] = []  # taken and not yet received, the next one last
        self._unyielded = 0  # messages taken since the last checkpoint
        self._waiting: dict[trio.lowlevel.Task, None] = {}  # its receivers that wait
        self._closed = False
        if lossless:
            self._token = trio.lowlevel.current_trio_token()
            log.add_lossless(self)

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self) -> Message:
        """Return the next message, without waiting.

        Raises:
            trio.WouldBlock: None is there yet.
            trio.EndOfChannel: The `End` was received.
            trio.ClosedResourceError: This subscription was closed.
            trio.BrokenResourceError, StoreUnavailableError: As `receive` (durable stores).
            LaggedError: Messages are no longer kept (with ``on_gap="raise"``); reading goes on after them.
            RuntimeError: Called from a thread other than Trio's, for a subscription that is ``lossless``.
        """
        if not self._ready:
            batch = self._take(BATCH)
            if not batch:
                raise trio.WouldBlock
            batch.reverse()
            self._ready += batch
        return self._ready.pop()

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> Message:
        """Return the next message, waiting for it if need be.

        Raises:
            trio.EndOfChannel: The `End` was received.
            trio.ClosedResourceError: This subscription was closed.
            trio.BrokenResourceError: The stream was cut off before the job's end (durable stores): the registry was
                closed, the job is no longer kept, or this process lost it and it goes on elsewhere: subscribe again.
            StoreUnavailableError: The store was away too long as watching the job began (durable stores). If it goes
                away later, receiving waits for it.
            LaggedError: Messages are no longer kept (with ``on_gap="raise"``); reading goes on after them.
            ValueError: The job has ended without reaching the number after which to begin (durable stores).
            RuntimeError: It was awaited in a run of Trio other than the registry's, which could not wake it.

        Cancellation: no message is lost; the next call receives it.
        """
        if not self._ready:
            await self._refill()
        return self._ready.pop()

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, max: int = BATCH) -> list[Message]:
        """Return all messages that are there, at least one and at most ``max``, waiting for the first.

        Raises what `receive` raises, and ``TypeError`` or ``ValueError`` if ``max`` is not a whole number of 1 or more.

        Cancellation: no message is lost; the next call receives them.
        """
        if max is not BATCH:
            max = check_count("max", max)
        if self._unyielded >= BATCH:
            await self._give_way()
        ready = self._ready
        while not ready:
            if batch := self._take(max):
                return batch
            await self._wait()
        batch = ready[: -max - 1 : -1]
        del ready[-max:]
        return batch

    def __aiter__(self) -> Subscription:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> Message:
        try:
            return self._ready.pop()
        except IndexError:
            pass
        try:
            await self._refill()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        return self._ready.pop()

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Close the channel. Waiting receivers get `trio.ClosedResourceError`; the job no longer waits for this one.

        Raises:
            RuntimeError: Called from a thread other than Trio's, while a receiver waits or if it is ``lossless``.
        """
        if self._closed:
            return
        if self._lossless or self._waiting:
            self._log.check_closing()
        self._closed = True
        self._ready.clear()
        if self._lossless:
            self._log.remove_lossless(self)
        if self._waiting:
            self._log.wake_only(self._waiting)

    async def aclose(self) -> None:
        """Close it, as `close` does. Cancellation: it is closed all the same."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A forgotten lossless consumer must not hold up its job. The collector may run in any thread.
        if self._token is not None and not self._closed:
            try:
                self._token.run_sync_soon(self._log.room_made)
            except trio.RunFinishedError:
                pass

    async def _arrived(self) -> None:
        """Wait until something is there, and leave it there: for this package's own use, with `_take_there`.

        Cancellation: no message is lost.
        """
        log = self._log
        if self._unyielded >= BATCH:
            await self._give_way()
        while not (
            log.reach(stored=self._stored) > self.position or self._closed or log.end is not None or log.cut is not None
        ):
            await self._wait()

    def _take_there(self) -> list[Message]:
        """Return what is there, a gap and what is behind it together, or nothing; raise what `receive` raises."""
        batch = self._take(BATCH)
        batch += reversed(self._ready)
        self._ready.clear()
        return batch

    async def _refill(self) -> None:
        """Fill the buffer, waiting for the first message; another task may have filled it meanwhile."""
        if self._unyielded >= BATCH:
            await self._give_way()
        while not self._ready:
            # At least one: another task may have taken what the next checkpoint is due for.
            if batch := self._take(max(BATCH - self._unyielded, 1)):
                batch.reverse()
                self._ready += batch
            else:
                await self._wait()

    async def _give_way(self) -> None:
        self._unyielded = 0
        await trio.lowlevel.checkpoint()

    async def _wait(self) -> None:
        self._unyielded = 0
        task = trio.lowlevel.current_task()
        self._waiting[task] = None
        try:
            await self._log.wait_beyond(self.position, stored=self._stored)
        finally:
            del self._waiting[task]

    def _take(self, most: int) -> list[Message]:
        """Take what is there from the log, up to ``most`` messages."""
        if self._closed:
            raise trio.ClosedResourceError("this subscription is closed")
        log = self._log
        if self._lossless:
            log.check_receiving()
        missed = log.lost_before(self.position, lossless=self._lossless)
        if self._stored:
            reach = log.reach(stored=True)
            missed, most = min(missed, reach), max(min(most, reach - self.position), 0)
        if missed > self.position:
            gap = Gap(self.position + 1, missed)
            self.position = missed
            # What is behind it is the next to be dropped: one that is slow would be told of gap after gap.
            if log.reach(stored=self._stored) > missed:
                self._ready += reversed(self._take(BATCH))
            if self._on_gap == "raise":
                raise LaggedError(gap.first, gap.last)
            return [gap]
        batch = log.slice(self.position, most)
        if not batch:
            if log.end is not None:  # one that is to come yet would be in the batch
                if self.position > log.end.seq:
                    raise ValueError(f"after must be the number of a message, 0 to {log.end.seq}; got {self.position}")
                raise trio.EndOfChannel
            if log.cut is not None:
                raise log.cut_by(log.cut)
            return batch
        self.position += len(batch)
        self._unyielded += len(batch)
        if self._lossless:
            log.room_made()
        return batch


def check_position(log: TokenLog, after: object) -> int:
    """Return ``after``, the number of a message of this log so far, or 0."""
    allowed = "the number of a message so far, 0 " + ("or more" if log.may_lag else f"to {log.last}")
    number = whole_number(after)
    if number is None:
        raise TypeError(f"after must be {allowed}; got {show(after)}")
    if number < 0 or (number > log.last and not log.may_lag):
        raise ValueError(f"after must be {allowed}; got {show(after)}")
    return number
