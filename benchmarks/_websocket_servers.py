"""Three servers that show a job's tokens: the bridge, a loop that sends token by token, and one that sends ready bytes.

All are reached by WebSocket, and what they send is the bridge's wire format. They must not know what is measured.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha1
from typing import TYPE_CHECKING, Final

import trio
import trio_websocket

from jobtrio.websocket import Limits, serve
from jobtrio.websocket.protocol import encode_reply, reply_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import jobtrio

SUBSCRIBED: Final = '{"type":"subscribed"}'
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@asynccontextmanager
async def bridge(registry: jobtrio.JobRegistry, flush_interval: float) -> AsyncIterator[int]:
    """Serve by the bridge, within the block; gives the port."""
    # Watchers connect one after the other, and say nothing meanwhile: many of them take a while.
    limits = Limits(connections=5000, handshakes=5000, handshake=60.0, heartbeat=3600.0)
    async with trio.open_nursery() as nursery:
        start = partial(serve, registry, port=0, limits=limits, flush_interval=flush_interval)
        yield (await nursery.start(start)).port
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def one_by_one(registry: jobtrio.JobRegistry) -> AsyncIterator[int]:
    """Serve by a loop for each watcher that sends one message a token, within the block; gives the port."""

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        job = await registry.get(request.path.rpartition("/")[2])
        socket = await request.accept()
        await socket.send_message(SUBSCRIBED)
        async with job.subscribe() as messages:
            async for message in messages:
                await socket.send_message(encode_reply(reply_to(message)))

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, handle, "127.0.0.1", 0, None)
        yield server.port
        nursery.cancel_scope.cancel()


class Floor:
    """Sends ready bytes to all watchers, one after the other, a batch at a time.

    Attributes:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: list[trio.SocketStream] = []

    async def accept(self, stream: trio.SocketStream) -> None:
        """Answer a watcher's handshake and keep its connection."""
        head = bytes(await stream.receive_some())
        key = head.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
        answer = b64encode(sha1(key + GUID, usedforsecurity=False).digest()).decode()
        upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade"
        await stream.send_all(f"{upgrade}\r\nSec-WebSocket-Accept: {answer}\r\n\r\n".encode() + _frame(SUBSCRIBED))
        self._streams.append(stream)
        await trio.sleep_forever()

    async def send(self, text: str) -> None:
        """Send a message to all."""
        data = _frame(text)
        for stream in self._streams:
            await stream.send_all(data)

    def forget(self) -> None:
        """Begin without watchers."""
        self._streams.clear()


@asynccontextmanager
async def floor() -> AsyncIterator[Floor]:
    """Serve by the floor, within the block."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    found = Floor(listener.socket.getsockname()[1])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, found.accept, [listener])
        yield found
        nursery.cancel_scope.cancel()


def _frame(text: str) -> bytes:
    data = text.encode()
    size = len(data)
    head = bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")
    return head + data
