"""`TcpProxy`: the way to a real server, through which connections are cut, stalled and refused, for tests alone.

It carries bytes between clients and one server on the loopback interface, and does to them what networks do. It must
not know what is carried.
"""

from __future__ import annotations

import socket
import struct
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Way: TypeAlias = Literal["up", "down", "both"]
"""Towards the server, towards the client, or both."""

PIECE: Final = 65536
HOST: Final = "127.0.0.1"


class TcpProxy:
    """One port that leads to a server.

    Attributes:
        port: Where it listens on the loopback interface. The port stays its own while connections are refused.
        target: The server's port.
        accepted: How many connections were accepted so far.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.accepted = 0
        self._reserved = _bound(0)  # never listens: it keeps the port while connections are refused
        self.port: int = self._reserved.getsockname()[1]
        self._gates = {"up": _Gate(), "down": _Gate()}
        self._links: set[_Link] = set()
        self._silent = False
        self._asking = inf  # how large a piece is whose answer is to be lost
        self._accepting: trio.CancelScope | None = None
        self._nursery: trio.Nursery | None = None

    # -- what goes wrong

    def cut(self) -> int:
        """Reset all connections at both ends, at once; return how many."""
        links = list(self._links)
        for link in links:
            link.cut()
        return len(links)

    def cut_after(self, count: int, way: Literal["up", "down"]) -> None:
        """Let so many more bytes pass this way, over all connections, then reset the one that they end in."""
        self._gates[way].left = count

    def lose_answer(self, size: int) -> None:
        """Let the next piece of so many bytes or more reach the server, and reset its connection when that answers."""
        self._asking = size

    def stall(self, way: Way = "both") -> None:
        """Let no more bytes pass this way until `go_on`; connections stay, new ones are made but carry nothing."""
        for gate in self._chosen(way):
            gate.close()

    def go_on(self) -> None:
        """Let all bytes pass again, those that were held up first."""
        for gate in self._gates.values():
            gate.open()

    def half_open(self) -> int:
        """Lose all connections without telling the clients: the server sees them reset; return how many.

        What the clients send goes nowhere and nothing comes back, as where a machine has vanished. New connections
        are served.
        """
        links = list(self._links)
        for link in links:
            link.vanish()
        return len(links)

    def refuse(self) -> None:
        """Refuse new connections until `accept`; those there are stay."""
        if self._accepting is not None:
            self._accepting.cancel()
            self._accepting = None

    def ignore(self) -> None:
        """Accept new connections and never answer on them, until `accept`."""
        self._silent = True

    async def accept(self) -> None:
        """Accept and serve new connections (again)."""
        self._silent = False
        if self._accepting is None:
            assert self._nursery is not None  # it is open
            await self._nursery.start(self._listen)

    async def heal(self) -> None:
        """End all faults. Connections that were lost stay lost."""
        for gate in self._gates.values():
            gate.left = inf
        self._asking = inf
        self.go_on()
        await self.accept()

    def _chosen(self, way: Way) -> list[_Gate]:
        return [gate for name, gate in self._gates.items() if way in (name, "both")]

    # -- what goes well

    @asynccontextmanager
    async def open(self) -> AsyncIterator[TcpProxy]:
        """Serve within the block; at its end all connections are reset."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._listen)
                try:
                    yield self
                finally:
                    nursery.cancel_scope.cancel()
                    self.cut()
        finally:
            self._reserved.close()

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        assert self._nursery is not None  # it is open
        with trio.CancelScope() as scope, trio.socket.from_stdlib_socket(_bound(self.port)) as listener:
            self._accepting = scope
            listener.listen(128)
            task_status.started()
            while True:
                client, _ = await listener.accept()
                self.accepted += 1
                self._nursery.start_soon(self._serve, trio.SocketStream(client))

    async def _serve(self, client: trio.SocketStream) -> None:
        link = _Link(client)
        self._links.add(link)
        try:
            if self._silent:
                await _swallow(client)
                return
            try:
                link.server = await trio.open_tcp_stream(HOST, self.target)
            except OSError:
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._carry_up, link, link.server)
                nursery.start_soon(self._carry_down, link, link.server)
        finally:
            self._links.discard(link)
            link.cut()

    async def _carry_up(self, link: _Link, server: trio.SocketStream) -> None:
        def notice(data: bytes) -> bool:
            if len(data) >= self._asking:
                self._asking = inf
                link.is_doomed = True
            return True

        await _carry(link, link.client, server, self._gates["up"], notice)

    async def _carry_down(self, link: _Link, server: trio.SocketStream) -> None:
        await _carry(link, server, link.client, self._gates["down"], lambda _: not link.is_doomed)


async def _carry(
    link: _Link,
    source: trio.SocketStream,
    target: trio.SocketStream,
    gate: _Gate,
    may_pass: Callable[[bytes], bool],
) -> None:
    """Carry bytes one way until the connection is over, or until some of them may not pass."""
    try:
        while data := await source.receive_some(PIECE):
            await gate.opened.wait()
            if not may_pass(data):
                link.cut()
                return
            passed = data[: int(min(gate.left, len(data)))]
            gate.left -= len(passed)
            await target.send_all(passed)
            if passed != data or gate.left == 0:
                gate.left = inf
                link.cut()
                return
        await gate.opened.wait()
        await target.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        if not link.vanished:
            link.cut()
        elif source is link.client:  # the other way has nothing to read any more
            await _swallow(link.client)


async def _swallow(client: trio.SocketStream) -> None:
    """Read what a client sends, for nobody, until it gives up."""
    try:
        while await client.receive_some(PIECE):
            pass
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


class _Link:
    """One connection of a client, and the one to the server that it stands for."""

    def __init__(self, client: trio.SocketStream) -> None:
        self.client = client
        self.server: trio.SocketStream | None = None
        self.vanished = False
        self.is_doomed = False  # its next answer is lost

    def cut(self) -> None:
        """Reset it at both ends."""
        _reset(self.client)
        if self.server is not None:
            _reset(self.server)

    def vanish(self) -> None:
        """Reset it at the server's end alone."""
        self.vanished = True
        if self.server is not None:
            _reset(self.server)


class _Gate:
    """One way through the proxy, for all connections.

    Attributes:
        opened: Set while bytes may pass.
        left: How many more may pass before a connection is reset.
    """

    def __init__(self) -> None:
        self.opened = trio.Event()
        self.opened.set()
        self.left: float = inf

    def close(self) -> None:
        if self.opened.is_set():
            self.opened = trio.Event()

    def open(self) -> None:
        self.opened.set()


def _bound(port: int) -> socket.socket:
    """Return a socket at this port, or at a free one, that shares it with others of this process."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind((HOST, port))
    bound.setblocking(False)
    return bound


def _reset(stream: trio.SocketStream) -> None:
    """Close a connection so that the other end is told of an error rather than of an end."""
    if stream.socket.fileno() >= 0:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()
