"""The way in: reads the request that opens a connection, and turns down what must not come in.

It owns what an HTTP answer is given for. It must not know WebSocket libraries, nor what is spoken later.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from jobtrio._checks import show
from jobtrio.websocket import _multiplexed, _tailing
from jobtrio.websocket._head import Head, HttpRefusal, parse_head
from jobtrio.websocket.session import PeerGone

if TYPE_CHECKING:
    from jobtrio.websocket._limits import Limits
    from jobtrio.websocket._origins import Origins

logger = logging.getLogger("jobtrio.websocket")

FAREWELL = 1.0
"""Seconds that an HTTP refusal may take, with the wait for the client to have read it."""

_END = b"\r\n\r\n"


async def read_head(stream: trio.abc.ReceiveStream, origins: Origins, limits: Limits) -> Head:
    """Return a client's request for a WebSocket that is served here.

    Raises:
        HttpRefusal: It is none, or it must not come in.
        PeerGone: The client left.

    Cancellation: part of the request was read.
    """
    head = parse_head(await _read_to_end(stream, limits.header_bytes))
    if head.path != _multiplexed.PATH and not _tailing.is_tail(head.path):
        raise HttpRefusal(HTTPStatus.NOT_FOUND, f"no such place: {_multiplexed.PATH} or {_tailing.PREFIX}<job id>")
    origin = head.headers.get("origin")
    if not origins.admit(origin):
        if origin is not None and origins.is_news(origin):
            logger.warning("a page of %s may not connect: allowed_origins, or --allow-origin, lets it", show(origin))
        raise HttpRefusal(HTTPStatus.FORBIDDEN, "pages of this origin may not connect")
    return head


async def turn_down(stream: trio.abc.Stream, refusal: HttpRefusal) -> None:
    """Answer with an HTTP status, and let the client read it before the connection is closed, within a second.

    Cancellation: the answer may not arrive.
    """
    with trio.move_on_after(FAREWELL):
        try:
            await stream.send_all(refusal.encode())
            if isinstance(stream, trio.abc.HalfCloseableStream):
                await stream.send_eof()
            while await stream.receive_some(4096):  # closed with bytes unread, the answer would be lost
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


async def _read_to_end(stream: trio.abc.ReceiveStream, most: int) -> bytes:
    data = bytearray()
    while (end := data.find(_END)) < 0:
        if len(data) >= most:
            raise HttpRefusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers exceed {most} bytes")
        if data and not data[:1].isalpha():
            raise HttpRefusal(HTTPStatus.BAD_REQUEST, "bad handshake: not HTTP")
        try:
            piece = await stream.receive_some(min(4096, most - len(data)))
        except trio.BrokenResourceError:
            raise PeerGone from None
        if not piece:
            raise PeerGone
        data += piece
    if len(data) > end + len(_END):
        raise HttpRefusal(HTTPStatus.BAD_REQUEST, "bad handshake: more than a request before it was accepted")
    return bytes(data)
