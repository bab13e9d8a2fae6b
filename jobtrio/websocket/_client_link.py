"""One connection to a server: made, used and given up within bounds, whatever the other side does.

It owns the WebSocket library on the client's side and turns all its failures into `LinkLostError`. It must not know
what is said over the connection.
"""

from __future__ import annotations

import os
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import trio
import trio_websocket

from jobtrio._nursery import open_background_nursery
from jobtrio.websocket._codes import FINAL_CODES, CloseCode
from jobtrio.websocket.protocol import PROTOCOL, decode_retry_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from jobtrio.websocket._client_address import Address

OPENING_LIMIT = 10.0
"""Seconds in which a connection is made and the server has said hello."""

ANSWER_LIMIT = 1024 * 1024
"""Bytes of the answer to the handshake, which the library keeps in memory: a proxy's page may be large, not endless."""

SENDING_LIMIT = 15.0
"""Seconds that a send may be stuck before the connection is given up."""

PIECE = 16 * 1024
"""Bytes for each of which the server has its time to read."""

CLOSING_LIMIT = 1.0
"""Seconds that a polite farewell may take."""

NOT_TLS = "WRONG_VERSION_NUMBER"
"""What OpenSSL says of an answer that is not one of TLS."""

MESSAGE_LIMIT = 64 * 1024 * 1024
"""Bytes of one message of the server: its largest hold a record whose payload and result are as large as a store
allows."""


class LinkLostError(Exception):
    """The connection is gone, or could not be made.

    Attributes:
        code: The close code, or None where there was no close.
        status: The status of the HTTP answer that refused it, or None.
        reason: What is known of why.
        retry_after: The seconds that the server asked to be left alone, or None.
        is_final: Whether another try would be of no use.
    """

    def __init__(
        self,
        reason: str,
        *,
        code: int | None = None,
        status: int | None = None,
        retry_after: float | None = None,
        is_final: bool = False,
    ) -> None:
        super().__init__(reason)
        self.code = code
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.is_final = is_final


class Link:
    """An open connection."""

    def __init__(self, websocket: trio_websocket.WebSocketConnection, stream: _EndingStream) -> None:
        self._websocket = websocket
        self._stream = stream
        self._is_sending = False  # stays so where a send was cut short

    async def receive(self, silence: float) -> str | bytes:
        """Return the server's next message.

        Args:
            silence: Seconds of silence after which the server counts as dead.

        Raises:
            LinkLostError: The connection is gone, or was silent too long.

        Cancellation: no message is lost.
        """
        is_silent = False
        while not is_silent:
            with trio.move_on_at(self._stream.heard_at + silence):
                try:
                    return await self._websocket.get_message()
                except trio_websocket.ConnectionClosed as exc:
                    raise _closed(exc) from None
            # A part of a large message may have come. Where this process was held up, or stopped, the reader finds it
            # in these turns: after a stop, Trio tells of the time a turn before it tells of data.
            for _ in range(2):
                await trio.lowlevel.checkpoint()
            is_silent = trio.current_time() >= self._stream.heard_at + silence
        raise LinkLostError(f"the server was silent for {silence:g} s")

    async def send(self, data: str) -> None:
        """Send a message.

        Raises:
            LinkLostError: The connection is gone, or the server did not read for too long.

        Cancellation: half a message may have been sent; the connection is of no use any more.
        """
        self._is_sending = True
        with trio.move_on_after(SENDING_LIMIT) as self._stream.sending:
            try:
                await self._websocket.send_message(data)
            except trio_websocket.ConnectionClosed as exc:
                raise _closed(exc) from None
            self._is_sending = False
            return
        raise LinkLostError(f"the server read nothing for {SENDING_LIMIT:g} s")

    async def say_farewell(self) -> None:
        """Close in order, as far as the server takes part in it.

        Cancellation: the connection is of no use any more.
        """
        if not self._is_sending:
            with trio.move_on_after(CLOSING_LIMIT):
                await self._websocket.aclose()


@asynccontextmanager
async def open_link(address: Address, token: str | None, ssl_context: ssl.SSLContext | None) -> AsyncIterator[Link]:
    """Connect to a server, within the block; the connection is gone when it is left.

    Raises:
        LinkLostError: There was no connection to be had, or the server broke the protocol of WebSocket.

    Cancellation: the connection is cut off.
    """
    stream = _EndingStream(await _connect(address, ssl_context))
    fault: BaseException | None = None
    try:
        async with open_background_nursery() as nursery:
            websocket = await _shake_hands(nursery, stream, address, token)
            try:
                yield Link(websocket, stream)
            except BaseException as exc:
                fault = exc
                raise
    except trio_websocket.ConnectionRejected as exc:
        raise _rejected(exc) from None
    except Exception as exc:
        if exc is fault or isinstance(exc, LinkLostError):
            raise
        # The library's reader fails on what it did not foresee, and takes its nursery along, by cancelling the block.
        raise LinkLostError(f"the server broke the protocol: {type(exc).__name__}: {exc}") from exc
    finally:
        await trio.aclose_forcefully(stream)


async def _connect(address: Address, ssl_context: ssl.SSLContext | None) -> trio.abc.Stream:
    with trio.move_on_after(OPENING_LIMIT):
        try:
            if not address.secure:
                return await trio.open_tcp_stream(address.host, address.port)
            stream = await trio.open_ssl_over_tcp_stream(
                address.host, address.port, https_compatible=True, ssl_context=ssl_context
            )
            try:
                await stream.do_handshake()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return stream
        except trio.BrokenResourceError as exc:  # by the TLS handshake
            cause = exc.__cause__ or exc
            if getattr(cause, "reason", None) == NOT_TLS:
                why = f"{address} does not speak TLS: without it, URLs begin with ws://"
                raise LinkLostError(why, is_final=True) from exc
            is_final = isinstance(cause, ssl.SSLCertVerificationError)
            whereto = f" to {address}" if is_final else ""  # others are told behind the address
            raise LinkLostError(f"no connection{whereto}: {cause}", is_final=is_final) from exc
        except OSError as exc:
            raise LinkLostError(f"no connection: {exc}{_reasons(exc)}") from exc
        except RuntimeError as exc:  # there is no thread to look the host up in
            raise LinkLostError(f"no connection: {exc}") from exc
    raise LinkLostError(f"no connection within {OPENING_LIMIT:g} s")


def _reasons(error: OSError) -> str:
    """Return why no address could be connected to, each reason once, where Trio keeps that behind its error."""
    group = error.__cause__
    if not isinstance(group, BaseExceptionGroup):
        return ""
    numbers = {each.errno for each in group.exceptions if isinstance(each, OSError) and each.errno is not None}
    return "".join(f": {os.strerror(number)}" for number in sorted(numbers))


async def _shake_hands(
    nursery: trio.Nursery, stream: _EndingStream, address: Address, token: str | None
) -> trio_websocket.WebSocketConnection:
    headers = [] if token is None else [(b"Authorization", b"Bearer " + token.encode())]
    with trio.move_on_after(OPENING_LIMIT) as stream.opening:
        websocket = await trio_websocket.wrap_client_stream(
            nursery,
            cast("trio.SocketStream", stream),
            address.authority,
            address.resource,
            subprotocols=[PROTOCOL],
            extra_headers=headers,
            max_message_size=MESSAGE_LIMIT,
            receive_buffer_size=None,
        )
        stream.opening = None
        return websocket
    # Where the server has refused, that is raised instead, by the reader.
    await trio.lowlevel.checkpoint()
    why = "the connection was closed" if stream.has_ended else f"there was no answer within {OPENING_LIMIT:g} s"
    if stream.room < 0:
        why = f"the answer is longer than {ANSWER_LIMIT // 1024} KiB"
    raise LinkLostError(f"no handshake: {why}")


class _EndingStream(trio.abc.Stream):
    """A stream that tells when the other side has ended it, when it was last heard of, and that it reads on."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.opening: trio.CancelScope | None = None  # in which the handshake is waited for
        self.room: int = ANSWER_LIMIT  # for the answer to that
        self.sending: trio.CancelScope | None = None  # a message is sent in it, and may take longer while some goes out
        self.has_ended = False
        self.heard_at = trio.current_time()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            data = await self._stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end()
            raise
        self.heard_at = trio.current_time()
        if self.opening is not None:
            self.room -= len(data)
            if self.room < 0:
                data = b""
        if not data:
            self._end()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        data = memoryview(data)
        for at in range(0, len(data), PIECE):
            await self._stream.send_all(data[at : at + PIECE])
            if self.sending is not None:
                self.sending.deadline = trio.current_time() + SENDING_LIMIT

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _end(self) -> None:
        self.has_ended = True
        if self.opening is not None:  # or nobody would tell those who wait in it
            self.opening.cancel()


def _closed(exc: trio_websocket.ConnectionClosed) -> LinkLostError:
    if exc.reason is None or exc.reason.code == 1006:
        return LinkLostError("the connection was cut")
    code, said = exc.reason.code, " ".join((exc.reason.reason or "").split())
    retry_after = decode_retry_after(said)
    if not said and code in FINAL_CODES:
        said = CloseCode(code).name.lower()
    why = f" ({said})" if said and retry_after is None else ""
    return LinkLostError(f"closed with {code}{why}", code=code, retry_after=retry_after)


def _rejected(exc: trio_websocket.ConnectionRejected) -> LinkLostError:
    said = _line(exc.body or b"")
    if said.startswith("<"):  # a proxy's page, which says no more than the status
        said = ""
    if (place := _header(exc.headers, b"location")) is not None:  # mostly to wss:// from ws://
        said = f"it leads to {_line(place)}"
    why = f"refused with status {exc.status_code}{f': {said}' if said else ''}"
    asked = _header(exc.headers, b"retry-after")  # seconds; its other form, a date, is not looked at
    retry_after = float(asked) if asked is not None and asked.isdigit() else None
    return LinkLostError(why, status=exc.status_code, retry_after=retry_after)


def _line(said: bytes) -> str:
    return " ".join(said[:200].decode("utf-8", "replace").split())


def _header(headers: Iterable[tuple[bytes, bytes]] | None, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers or () if name.lower() == wanted), None)
