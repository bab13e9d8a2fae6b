"""`Wire`: the way to a real server, on which bytes are held up, put together, lost and encrypted, for tests alone.

It must not know what is carried, but for the one question that asks a PostgreSQL server for encryption.
"""

from __future__ import annotations

import math
import socket
import struct
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

HOST = "127.0.0.1"
ENCRYPTION_REQUEST = struct.pack("!II", 8, 80877103)


class Wire:
    """A port that leads to a server's.

    Attributes:
        port: Where it listens.
        accepted: How many connections there have been.
        left: How many more bytes pass, both ways together, until all connections are reset.
    """

    def __init__(self, target: int, context: ssl.SSLContext | None) -> None:
        self.target = target
        self.port = 0
        self.accepted = 0
        self.left = math.inf
        self._context = context
        self._passing = trio.Event()
        self._passing.set()
        self._refusing = False
        self._links: set[trio.SocketStream] = set()
        self._lost: set[trio.SocketStream] = set()

    def hold(self) -> None:
        """Hold up all bytes, of old and new connections; what comes meanwhile arrives as one piece."""
        self._passing = trio.Event()

    def release(self) -> None:
        """Let all bytes pass again."""
        self._passing.set()

    def lose(self) -> None:
        """Lose the connections that there are, without telling anyone; new ones are well."""
        self._lost |= self._links

    def refuse(self) -> None:
        """Reset new connections; those there are stay."""
        self._refusing = True

    def heal(self) -> None:
        """End all faults; connections that were lost stay lost."""
        self._refusing = False
        self.release()

    def cut(self) -> None:
        """Reset all connections, at both ends."""
        for stream in self._links:
            _reset(stream)
        self._links.clear()

    async def _serve(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        if self._refusing:
            _reset(client)
            return
        try:
            server = await trio.open_tcp_stream(HOST, self.target)
        except OSError:
            _reset(client)
            return
        self._links |= {client, server}
        near: trio.abc.Stream = client
        if self._context is not None:
            assert await _exactly(client, len(ENCRYPTION_REQUEST)) == ENCRYPTION_REQUEST
            await client.send_all(b"S")
            near = trio.SSLStream(client, self._context, server_side=True)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry, server, near, server)
                nursery.start_soon(self._carry, server, server, near)
        finally:
            self._links -= {client, server}
            self._lost -= {client, server}
            with trio.CancelScope(shield=True, deadline=0):
                await trio.aclose_forcefully(near)
            await trio.aclose_forcefully(server)

    async def _carry(self, link: trio.SocketStream, source: trio.abc.Stream, target: trio.abc.Stream) -> None:
        try:
            while data := await source.receive_some():
                if link in self._lost:
                    continue
                if not self._passing.is_set():
                    await self._passing.wait()
                    with trio.move_on_after(0.01):
                        data += await source.receive_some(1 << 20)
                passed = data[: int(min(self.left, len(data)))]
                self.left -= len(passed)
                await target.send_all(passed)
                if not self.left:
                    self.cut()
            if isinstance(target, trio.SocketStream):
                await target.send_eof()
            else:
                await target.aclose()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(target)


def _reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def _exactly(stream: trio.SocketStream, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.receive_some(size - len(data))):
        data += more
    return data


@asynccontextmanager
async def open_wire(target: int, context: ssl.SSLContext | None = None) -> AsyncIterator[Wire]:
    """Open a port that leads to ``target``; at the end of the block its connections are lost.

    Args:
        target: The server's port.
        context: Encrypts what is between the clients and this port.
    """
    wire = Wire(target, context)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, wire._serve, 0, host=HOST)
        listeners = await nursery.start(serve)
        wire.port = listeners[0].socket.getsockname()[1]
        try:
            yield wire
        finally:
            nursery.cancel_scope.cancel()
