"""What every connection has in common: sending in order, signs of life, and one ending.

A session speaks the protocol over a `Transport`, whatever carries it. It owns the order in which things are sent
and the reason for which the connection ends. It must not know WebSocket libraries or sockets.
"""

from __future__ import annotations

import logging
import random
from math import ceil, log2
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from jobtrio.websocket._codes import CloseCode
from jobtrio.websocket._pauses import Pauses
from jobtrio.websocket._times import Beats, RateLimit
from jobtrio.websocket.protocol import encode_reply, encode_retry_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._registry import JobRegistry
    from jobtrio.websocket._feed import Feed
    from jobtrio.websocket._gatekeeper import Gatekeeper, Handshake
    from jobtrio.websocket._limits import Limits
    from jobtrio.websocket._replies import AnyReply, Heartbeat

logger: logging.Logger = logging.getLogger("jobtrio.websocket")


LONG_TURN = 0.001
"""Seconds that a turn of the scheduler, in which each client is sent something, may take before sending slows down."""

LONGEST_PAUSE = 1 / 32
"""Seconds between two batches to the same client, at most, when it has."""


class PeerGone(Exception):  # noqa: N818 - what happens to every connection
    """The client has closed the connection, or can't be reached any more."""


class Transport(Protocol):
    """What carries a session's messages."""

    async def receive(self) -> str | bytes:
        """Return the next message of the client.

        Raises:
            PeerGone: None follows.

        Cancellation: no message is lost.
        """

    async def send(self, text: str) -> None:
        """Send a message, whole.

        Raises:
            PeerGone: It can't be sent.

        Cancellation: it is sent whole or not at all.
        """


@attrs.frozen
class Farewell:
    """How a connection ends.

    Attributes:
        code: The close code; None where there is nobody left to be told.
        reason: The close's reason.
    """

    code: CloseCode | None
    reason: str = ""


@attrs.frozen
class Terms:
    """What holds for all sessions of a server.

    Attributes:
        registry: The jobs.
        gatekeeper: Who may do what.
        limits: What a client may do.
        flush_interval: Seconds in which messages are collected for one batch; 0 for none.
        beats: When batches go out, where they do not go out at once.
        pauses: Which jobs wait because their queue is paused.
    """

    registry: JobRegistry
    gatekeeper: Gatekeeper
    limits: Limits
    flush_interval: float
    beats: Beats = attrs.field(factory=Beats)
    pauses: Pauses = attrs.field(init=False, default=attrs.Factory(lambda terms: Pauses(terms.registry), True))

    def retry_after(self) -> str:
        """Return a close's reason that says when to come back: not all clients at the same moment."""
        return encode_retry_after(self.limits.retry_after * random.uniform(0.5, 1.5))


class Outbox:
    """Held by whoever sends: one at a time, in the order in which they came."""

    def __init__(self) -> None:
        self._lock = trio.StrictFIFOLock()

    async def __aenter__(self) -> None:
        try:
            self._lock.acquire_nowait()
        except trio.WouldBlock:
            await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class Session:
    """One connection. Subclasses say what is spoken on it.

    Args:
        transport: What carries the messages.
        terms: What holds for all sessions.
        handshake: How the client introduced itself.
        deadline: By when it has to be authenticated, by Trio's clock.

    Attributes:
        terms: What holds for all sessions.
        outbox: Held by whoever sends, so that messages keep their order.
    """

    def __init__(self, transport: Transport, terms: Terms, handshake: Handshake, deadline: float) -> None:
        self.terms: Terms = terms
        self.outbox: Outbox = Outbox()
        self._transport = transport
        self._handshake = handshake
        self._deadline = deadline
        self._farewell: Farewell | None = None
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery  # as long as it speaks
        self._sent_at = trio.current_time()
        self._turn = 0.0
        self._rate = RateLimit(terms.limits.messages_per_second, self._sent_at)

    def feeds(self) -> list[Feed]:
        """Return what it shows of jobs now."""
        raise NotImplementedError

    # -- life

    async def run(self) -> Farewell:
        """Speak until the connection is to be closed, and return how.

        Cancellation: no message is cut in half.
        """
        with self._scope:
            async with trio.open_nursery() as self._nursery:
                self._nursery.start_soon(self._guarded, self._beat)
                await self._guarded(self._speak)
                self._nursery.cancel_scope.cancel()
        return self._farewell or Farewell(None)

    def stop(self, code: CloseCode | None, reason: str = "") -> None:
        """End the session with this close, unless it is ending already."""
        if self._farewell is None:
            self._farewell = Farewell(code, reason)
            self._scope.cancel(reason="the session ends")

    async def tell_ends(self) -> None:
        """Return once the client was told of all ended jobs that it is shown. Cancellation: it is told all the same."""
        ended = [feed for feed in self.feeds() if feed.job.outcome is not None]
        for feed in ended:
            feed.hurry()
        for feed in ended:
            await feed.left.wait()

    async def _speak(self) -> None:
        """Speak, as long as there is something to say or to hear."""
        raise NotImplementedError

    async def _guarded(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        """Run a task of this session; whatever it raises ends the session and nothing else."""
        try:
            await task(*args)
        except PeerGone:
            self.stop(None)
        except Exception:
            logger.exception("a session with %s failed: it is closed", self._handshake.peer)
            self.stop(CloseCode.INTERNAL)

    # -- hearing

    async def _receive(self) -> tuple[str | bytes, bool]:
        """Return the next message, and whether it is within the rate."""
        start = trio.current_time()
        data = await self._transport.receive()
        now = trio.current_time()
        verdict = self._rate.take(now, now - start)
        if verdict == "close":
            self.stop(CloseCode.RATE, self.terms.retry_after())
            await trio.lowlevel.checkpoint()  # which ends this task: the session is being closed
        return data, verdict == "pass"

    # -- saying

    async def say(self, reply: AnyReply) -> None:
        """Send one message behind those that are being sent. Cancellation: it was sent or not, as a whole."""
        text = encode_reply(reply)
        async with self.outbox:
            await self.send(text)

    async def send(self, text: str) -> None:
        """Send a text; call it only while holding the outbox."""
        before = trio.current_time()
        await self._transport.send(text)
        self._sent_at = trio.current_time()
        self._turn = self._sent_at - before  # in which all others had theirs

    # -- time

    async def _beat(self) -> None:
        """Give a sign of life after each silence."""
        interval = self.terms.limits.heartbeat
        while True:
            await trio.sleep_until(self._sent_at + interval)
            async with self.outbox:  # what is sent meanwhile is sign enough, and there is more to tell of behind it
                if trio.current_time() >= self._sent_at + interval:
                    await self._show_life()

    async def _show_life(self) -> None:
        sign = self._sign_of_life()
        if sign is None:
            self._sent_at = trio.current_time()  # to look again after as long
        else:
            await self.send(encode_reply(sign))

    def _sign_of_life(self) -> Heartbeat | None:
        """Return a heartbeat, or None where there is no way to say it, or nothing to say yet."""
        raise NotImplementedError

    def flush_interval(self, *, behind_full: bool) -> float:
        """Return the seconds in which messages are collected for the next batch; 0 where it may go out at once.

        Behind a full batch there may be enough for another one. But where a turn of the scheduler takes long, sending
        is what takes it: then less is sent, in larger batches.

        Args:
            behind_full: Whether the last batch was full.
        """
        interval = 0.0 if behind_full else self.terms.flush_interval
        if self._turn <= LONG_TURN:
            return interval
        return float(max(interval, 2.0 ** ceil(log2(min(2 * self._turn, LONGEST_PAUSE)))))
