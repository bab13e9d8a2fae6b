"""Keeps a client connected: connects, talks, and connects again when the connection is lost.

It owns the tasks that read and write, and how long is waited between two tries. What is said, and what is made of it,
is the book's. It must not know who wants what.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from math import inf
from threading import get_ident
from typing import TYPE_CHECKING

import trio

from jobtrio._checks import other_run
from jobtrio._nursery import open_background_nursery
from jobtrio.websocket._client_book import Book
from jobtrio.websocket._client_errors import ServerUnavailableError, final_error_of
from jobtrio.websocket._client_link import OPENING_LIMIT, Link, LinkLostError, open_link
from jobtrio.websocket._client_times import Backoff, Pace, Patience
from jobtrio.websocket.protocol import PROTOCOL, ErrorCode, Hello, ProtocolError, decode_reply

if TYPE_CHECKING:
    import ssl

    from jobtrio.websocket._client_address import Address
    from jobtrio.websocket._client_exchange import Exchange
    from jobtrio.websocket.protocol import AnyReply, AnyRequest

SILENCES = 2.5
"""How many times the server's heartbeat it may be silent before it counts as dead."""

LEAST_SILENCE = 1.0
"""Seconds that it may be silent in any case."""

logger = logging.getLogger("jobtrio.websocket")


class _Bell:
    """Rung where something may be due."""

    def __init__(self) -> None:
        self.rung = trio.Event()

    def ring(self) -> None:
        self.rung.set()


class Keeper:
    """One client's way to its server.

    Attributes:
        book: What the client wants.
    """

    def __init__(
        self, address: Address, token: str | None, ssl_context: ssl.SSLContext | None, outage_limit: float
    ) -> None:
        self._bell = _Bell()
        self.book: Book = Book(self._bell.ring)  # which would be a cycle, were it a method of this
        self._address = address
        self._token = token
        self._ssl_context = ssl_context
        self._outage_limit = outage_limit
        self._backoff = Backoff()
        self._opened = trio.Event()  # there was a connection, or there can't be one
        self._scope = trio.CancelScope()  # around what is under way now
        self._waiting: set[Patience] = set()  # of the calls
        self._is_leaving = False
        self._left = trio.Event()
        self._lost = LinkLostError("it was left")  # or what the writer saw
        self._reason = "there was no answer yet"
        self._told: str | None = None  # why there is no connection, as it was logged last
        self._thread = get_ident()  # that of the client's run, which has it alone

    # -- for the client

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self.book.exchange is not None

    def check_thread(self, call: str, instead: str, by: str) -> None:
        """Raise `RuntimeError` in another thread than Trio's, from where the tasks here can't be woken.

        Once all is over, nothing is waited for.

        Args:
            call: What is called.
            instead: What another thread has to give to `trio.from_thread`.
            by: By which of its functions.
        """
        if get_ident() != self._thread and self.book.failure is None:
            raise other_run(f"{call} must be called", instead, by, of="client")

    async def wait_opened(self) -> None:
        """Wait for the first connection.

        Raises:
            ServerRefusedError: The server refuses it.
            ServerUnavailableError: There was none within the outage limit.

        Cancellation: nothing has changed.
        """
        with trio.move_on_after(self._outage_limit):
            await self._opened.wait()
        if self.book.failure is not None:
            raise self.book.failure
        if not self._opened.is_set():
            raise ServerUnavailableError(self._away())

    @trio.lowlevel.enable_ki_protection
    async def ask(self, request: AnyRequest, subject: str) -> AnyReply:
        """Make a request and return the answer; it is made again when the connection is lost or the server can't serve.

        Raises:
            PayloadError, ProtocolError: It can't be said.
            ServerUnavailableError: The server was away too long. It may have been carried out.
            JobtrioError: What the server refused.

        Cancellation: it may have been carried out.
        """
        done, patience = trio.Event(), Patience(self._outage_limit)
        call = self.book.add_call(request, subject, done.set, patience.put_off)
        try:
            with patience.scope:
                self._waiting.add(patience)
                if not self.is_connected:
                    patience.count()
                await done.wait()
        finally:
            self._waiting.discard(patience)
            self.book.calls.drop(call)
        if call.answer is None:
            raise ServerUnavailableError(self._away())
        if isinstance(call.answer, Exception):
            try:
                raise call.answer
            finally:
                del call  # no cycle by way of the traceback
        return call.answer

    async def leave(self) -> None:
        """End the connection in order, as far as the server takes part in it.

        Cancellation: the connection is cut off.
        """
        self._is_leaving = True
        self._scope.cancel()
        await self._left.wait()

    # -- the connection's life

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Stay connected until left, or until another try is of no use.

        Cancellation: the connection is cut off.
        """
        while not self._is_over(lost := await self._connection()):
            await self._pause(lost)
        self._opened.set()
        self._left.set()

    def _is_over(self, lost: LinkLostError) -> bool:
        """Take it that the connection is gone, and tell whether there will be no other."""
        self._reason = lost.reason
        self.book.detach()
        for patience in self._waiting:
            patience.count()
        if self._is_leaving:
            return True
        error = final_error_of(lost, was_found=self._opened.is_set())
        if error is not None:
            self.book.fail(error)
        return error is not None

    async def _connection(self) -> LinkLostError:
        """Have one connection, from its beginning to its end, and return why it ended."""
        self._lost = LinkLostError("it was left")
        try:
            with self._new_scope():
                async with open_link(self._address, self._token, self._ssl_context) as link:
                    await self._talk(link)
        except LinkLostError as exc:
            return exc
        return self._lost

    async def _talk(self, link: Link) -> None:
        with self._new_scope():  # within that of the connection, so that leaving this one leaves time for a farewell
            hello = await self._greeting(link)
            exchange = self.book.attach(hello.limits)
            for patience in self._waiting:
                patience.pause()
            self._opened.set()
            logger.log(logging.INFO if self._told is None else logging.WARNING, "connected to %s", self._address)
            self._told = None
            async with open_background_nursery() as nursery:
                nursery.start_soon(self._write, link, exchange, Pace(hello.limits.messages_per_second))
                await self._read(link, exchange, max(SILENCES * hello.heartbeat, LEAST_SILENCE))
        if self._is_leaving:
            await link.say_farewell()

    async def _greeting(self, link: Link) -> Hello:
        data = await link.receive(OPENING_LIMIT)
        with suppress(ProtocolError):
            reply = decode_reply(data)
            if isinstance(reply, Hello) and reply.proto == PROTOCOL:
                return reply
        raise LinkLostError(f"{self._address} does not speak {PROTOCOL}", is_final=True)

    async def _read(self, link: Link, exchange: Exchange, silence: float) -> None:
        while True:
            data = await link.receive(silence)
            if (reply := _decode(data, exchange)) is not None:
                exchange.take(reply, len(data), trio.current_time())
            if exchange.has_progressed:
                self._backoff.reset()

    @trio.lowlevel.enable_ki_protection
    async def _write(self, link: Link, exchange: Exchange, pace: Pace) -> None:
        try:
            while True:
                self._bell.rung = trio.Event()
                while (text := exchange.next_text(trio.current_time())) is not None:
                    await trio.sleep_until(max(pace.earliest(), trio.current_time()))
                    pace.note(trio.current_time())
                    await link.send(text)
                with trio.CancelScope(deadline=inf if exchange.next_time is None else exchange.next_time):
                    await self._bell.rung.wait()
        except LinkLostError as exc:
            self._lost = exc
            self._scope.cancel()

    async def _pause(self, lost: LinkLostError) -> None:
        seconds = self._backoff.next(lost.retry_after)
        level = logging.DEBUG if lost.reason == self._told else logging.WARNING
        logger.log(level, "%s: %s; next try in %.1f s", self._address, lost.reason, seconds)
        self._told = lost.reason
        with self._new_scope():
            await trio.sleep(seconds)

    def _new_scope(self) -> trio.CancelScope:
        """Return a scope for what is to be under way next; it is left at once where the client is leaving."""
        self._scope = trio.CancelScope()
        if self._is_leaving:
            self._scope.cancel()
        return self._scope

    def _away(self) -> str:
        return f"{self._address} was away for {self._outage_limit:g} s: {self._reason}"


def _decode(data: str | bytes, exchange: Exchange) -> AnyReply | None:
    """Return a message, or None for one of a kind that came after this client, or that harms what it is about alone."""
    try:
        return decode_reply(data)
    except ProtocolError as exc:
        if exc.code == ErrorCode.UNKNOWN_TYPE or exchange.take_unread(exc):
            return None
        raise LinkLostError(f"the server sent what is no message: {exc}") from None
