"""A consumer's end of a stream that comes from a server: a channel as in process, over any number of connections.

It owns the waiting, and what a consumer that fell behind is told. It must not know connections.
"""

from __future__ import annotations

from copy import copy
from threading import get_ident
from typing import TYPE_CHECKING

import trio

from jobtrio._checks import check_count, other_run
from jobtrio._errors import LaggedError
from jobtrio._messages import Gap, Message, last_of
from jobtrio._subscription import BATCH

if TYPE_CHECKING:
    from jobtrio._messages import Progress
    from jobtrio._subscription import OnGap
    from jobtrio.websocket._client_feed import Feed


class RemoteSubscription(trio.abc.ReceiveChannel[Message]):
    """Receives the messages of one job of a server, from its starting point to the `End`.

    A channel for one consumer, used in ``with``, ``async with`` or neither. A lost connection is not an end: the stream
    goes on with the next one, and no message is left out or comes twice. After the `End` it raises `trio.EndOfChannel`.

    Up to 2,048 messages or 1 MiB wait here for a consumer that reads slowly. Beyond that the subscription pauses: the
    server sends no more, and keeps the rest as it does for everybody. It goes on when half of them have been received.
    Other subscriptions of the client are not held up.

    Attributes:
        job_id: The job's id.
    """

    def __init__(self, feed: Feed, idle: trio.lowlevel.ParkingLot, on_gap: OnGap) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._thread = get_ident()  # that of the client's run, which has it alone
        self._idle = idle  # the feed's changes wake those who wait here, and must not keep this object alive
        self._feed = feed
        self._on_gap = on_gap
        self._unyielded = 0
        self.job_id: str = feed.job_id
        self._received: int | None = None

    @property
    def position(self) -> int:
        """The number of the last message that was received; before the first, the number after which it begins.

        With ``after="end"`` the server says which that is; until then it is 0, and ``epoch`` None.
        """
        if self._received is not None:
            return self._received
        return 0 if self._feed.start == "end" else self._feed.start

    @property
    def epoch(self) -> str | None:
        """What the server calls this incarnation of the stream, or None before it has answered.

        With ``position`` it is the place from which another client can go on.
        """
        return self._feed.epoch

    @property
    def progress(self) -> Progress | None:
        """With ``after="end"``, the newest `Progress` of what is left out; None before the server has answered."""
        return self._feed.progress

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self) -> Message:
        """Return the next message, without waiting.

        Raises:
            trio.WouldBlock: None is there yet.
            trio.EndOfChannel: The `End` was received.
            trio.ClosedResourceError: This subscription or its client was closed.
            LaggedError: Messages are no longer kept (with ``on_gap="raise"``); reading goes on after them.
            JobtrioError: The server can't give this stream: see `receive`.
            RuntimeError: Called from a thread other than Trio's, while more may come.
        """
        self._check_thread("received from", "messages.receive", "run")
        if not (batch := self._take(1)):
            raise trio.WouldBlock
        return batch[0]

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> Message:
        """Return the next message, waiting for it if need be, however long the server is away.

        Raises:
            trio.EndOfChannel: The `End` was received.
            trio.ClosedResourceError: This subscription or its client was closed.
            LaggedError: Messages are no longer kept (with ``on_gap="raise"``); reading goes on after them.
            UnknownJobError: The server does not (or no longer) know the job, or this client may not see it.
            ValueError: ``after`` is beyond the job's last message.
            WrongEpochError: The stream is not the one that was begun.
            ServerRefusedError: The server refuses this client, has no place for another subscription, or sent what
                can't be true, or can't be read here.
            RuntimeError: It was awaited in a thread other than Trio's, while more may come.

        Cancellation: no message is lost; the next call receives it.
        """
        return (await self.receive_batch(1))[0]

    @trio.lowlevel.enable_ki_protection
    async def receive_batch(self, max: int = BATCH) -> list[Message]:
        """Return all messages that are there, at least one and at most ``max``, waiting for the first.

        Raises what `receive` raises, and ``TypeError`` or ``ValueError`` if ``max`` is not a whole number of 1 or more.

        Cancellation: no message is lost; the next call receives them.
        """
        self._check_thread("received from", "messages.receive", "run")
        if max is not BATCH:
            max = check_count("max", max)
        if self._unyielded >= BATCH:
            self._unyielded = 0
            await trio.lowlevel.checkpoint()
        while not (batch := self._take(max)):
            self._unyielded = 0
            await self._idle.park()
        self._unyielded += len(batch)
        return batch

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Close the channel. Waiting receivers get `trio.ClosedResourceError`; the server is told to send no more.

        Raises:
            RuntimeError: Called from a thread other than Trio's, while more may come.
        """
        self._check_thread("closed", "messages.close", "run_sync")
        self._feed.close()

    async def aclose(self) -> None:
        """Close it, as `close` does. Cancellation: it is closed all the same."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> RemoteSubscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # Nobody can read a forgotten one. The collector may run in any thread.
        feed = getattr(self, "_feed", None)
        if feed is not None and not feed.is_over:
            try:
                self._token.run_sync_soon(feed.close)
            except trio.RunFinishedError:
                pass

    def _check_thread(self, done: str, instead: str, by: str) -> None:
        if get_ident() != self._thread and not self._feed.is_over:
            raise other_run(f"a subscription must be {done}", instead, by, of="client")

    def _take(self, most: int) -> list[Message]:
        """Take what is there, up to ``most`` messages."""
        feed = self._feed
        if feed.is_closed:
            raise trio.ClosedResourceError("this subscription is closed")
        if feed.is_empty:
            if feed.error is not None:
                raise copy(feed.error)  # an error keeps the frames that it was raised through
            if feed.is_over:
                raise trio.EndOfChannel
            return []
        batch = feed.pop_many(most, gaps_alone=self._on_gap == "raise")
        self._received = last_of(batch[-1])
        if self._on_gap == "raise" and isinstance(gap := batch[0], Gap):
            raise LaggedError(gap.first, gap.last)
        return batch
