"""A TCP proxy before a WebSocket server that cuts connections at a chosen place, for tests alone.

It knows just enough of WebSocket to count the server's frames. It must not know what is in them.
"""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs
import trio

from jobtrio._nursery import open_background_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

How: TypeAlias = Literal["close", "reset", "stall"]


@attrs.frozen
class Cut:
    """Where and how to cut a connection.

    Attributes:
        frames: How many of the server's frames pass, whole; None for all.
        down: How many of the server's bytes pass, the handshake included; None for all.
        up: How many of the client's bytes pass, the handshake included; None for all.
        how: What happens then: both sides are closed, or reset, or nothing passes any more and nobody is told.
    """

    frames: int | None = None
    down: int | None = None
    up: int | None = None
    how: How = "close"


class Proxy:
    """The proxy.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        connections: How many there were.
        cut: How many were cut.
        frames: How many frames of the server each connection has passed on.
        plan: Gives the cut of the n-th connection, from 0.
    """

    def __init__(self, port: int, target: int, plan: Callable[[int], Cut | None]) -> None:
        self.port = port
        self.connections = 0
        self.cut = 0
        self.frames: list[int] = []
        self.plan = plan
        self.target = target
        self._scopes: set[trio.CancelScope] = set()

    def cut_all(self) -> None:
        """Close all connections that there are."""
        for scope in self._scopes:
            scope.cancel()

    async def pass_on(self, client: trio.SocketStream) -> None:
        """Connect a client with the server, until it is cut off or either side leaves."""
        number, self.connections = self.connections, self.connections + 1
        self.frames.append(0)
        cut = self.plan(number) or Cut()
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            client.socket.close()
            return
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                async with trio.open_nursery() as nursery:
                    count = _FrameCounter(cut.frames)
                    nursery.start_soon(self._pump, client, server, _Bytes(cut.up), scope, cut.how)
                    await self._pump(server, client, _Both(count, _Bytes(cut.down), self, number), scope, cut.how)
            finally:
                self._scopes.discard(scope)
                for stream in (client, server):
                    if cut.how == "reset":
                        _reset(stream)
                    stream.socket.close()

    async def _pump(
        self, source: trio.SocketStream, sink: trio.SocketStream, limit: _Limit, scope: trio.CancelScope, how: How
    ) -> None:
        try:
            while data := await source.receive_some():
                allowed = limit.allowed(data)
                if allowed:
                    await sink.send_all(data[:allowed])
                if allowed < len(data) or limit.is_reached:
                    self.cut += 1
                    if how == "stall":
                        await trio.sleep_forever()
                    break
        except trio.BrokenResourceError:
            pass
        scope.cancel()


class _Limit:
    """How much may pass."""

    is_reached = False

    def allowed(self, data: bytes) -> int:
        """Return how many of some bytes may pass."""
        raise NotImplementedError


class _Bytes(_Limit):
    def __init__(self, most: int | None) -> None:
        self._left = most

    def allowed(self, data: bytes) -> int:
        if self._left is None:
            return len(data)
        allowed = min(len(data), self._left)
        self._left -= allowed
        self.is_reached = self._left == 0
        return allowed


class _FrameCounter(_Limit):
    """Lets so many frames pass behind the handshake's answer."""

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._head = b""  # the answer to the handshake, or a frame's beginning, as long as it isn't whole
        self._is_open = False
        self._left = 0  # of the current frame
        self.count = 0
        self.is_reached = False

    def allowed(self, data: bytes) -> int:
        passed = 0
        while passed < len(data):
            if self._most is not None and self.count >= self._most and self._is_open and not self._left:
                self.is_reached = True
                break
            passed += self._step(data[passed:])
        if self._most is not None and self._is_open and self.count >= self._most and not self._left:
            self.is_reached = True
        return passed

    def _step(self, data: bytes) -> int:
        """Pass on the rest of a frame, or a byte of what comes before one."""
        if self._left:
            part = min(self._left, len(data))
            self._left -= part
            self.count += not self._left
            return part
        self._head += data[:1]
        if not self._is_open:
            if self._head.endswith(b"\r\n\r\n"):
                self._is_open, self._head = True, b""
        elif (length := _frame_length(self._head)) is not None:
            self._left, self._head = length, b""
            self.count += not self._left
        return 1


class _Both(_Limit):
    def __init__(self, frames: _FrameCounter, size: _Bytes, proxy: Proxy, number: int) -> None:
        self._frames = frames
        self._size = size
        self._proxy = proxy
        self._number = number

    def allowed(self, data: bytes) -> int:
        allowed = self._size.allowed(data[: self._frames.allowed(data)])
        self._proxy.frames[self._number] = self._frames.count
        self.is_reached = self._frames.is_reached or self._size.is_reached
        return allowed


def _frame_length(head: bytes) -> int | None:
    """Return the length of a server's frame behind its header, or None while the header isn't whole."""
    if len(head) < 2:
        return None
    length = head[1] & 0x7F
    if length == 126:
        return int.from_bytes(head[2:4], "big") if len(head) == 4 else None
    if length == 127:
        return int.from_bytes(head[2:10], "big") if len(head) == 10 else None
    return length


def _reset(stream: trio.SocketStream) -> None:
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, trio.ClosedResourceError):
        pass


@asynccontextmanager
async def open_proxy(target: int, plan: Callable[[int], Cut | None] = lambda number: None) -> AsyncIterator[Proxy]:
    """Open a proxy before a port of this machine, within the block."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = Proxy(listener.socket.getsockname()[1], target, plan)
    async with open_background_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.pass_on, [listener])
        yield proxy
