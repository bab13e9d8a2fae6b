"""A pooler in front of a PostgreSQL server that gives out sessions for one transaction each, as pgbouncer does.

What a client sets or prepares in a session may be there for another client, and be gone for itself; notices go to
whoever has the session, which at rest is nobody. It knows as much of the protocol as it needs to see where transactions
end. It runs in Trio's thread.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio.psycopg_trio import connect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SSL_REQUEST, GSS_REQUEST, CANCEL_REQUEST = 80877103, 80877104, 80877102
NOTICE = b"A"
READY = b"Z"
TERMINATE = b"X"
FLUSH = b"H"
ENDINGS = (b"S", b"Q")
"""What a client sends to have an answer that ends with READY."""

SIZE = 64 * 1024


@attrs.define(eq=False)
class _Session:
    """A session with the server."""

    stream: trio.SocketStream
    buffer: bytearray = attrs.field(factory=bytearray)


class Pooler:
    """The pooler.

    Attributes:
        port: Where it listens.
        swallowed: How many notices it has received that were nobody's.
        moves: How often a client was given another session than before.
    """

    def __init__(self, port: int, sessions: list[_Session], greeting: bytes, refusal: bytes | None) -> None:
        self.port = port
        self.swallowed = 0
        self.moves = 0
        self._greeting = greeting
        self._refusal = refusal
        self._send, self._idle = trio.open_memory_channel[_Session](len(sessions))
        for session in sessions:
            self._send.send_nowait(session)

    async def serve(self, client: trio.SocketStream) -> None:
        """Serve one client until it leaves."""
        try:
            if await self._greet(client):
                await self._serve_transactions(client)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _greet(self, client: trio.SocketStream) -> bool:
        buffer = bytearray()
        while True:
            length, code = struct.unpack("!ii", await _take(client, buffer, 8))
            await _take(client, buffer, length - 8)
            if code in (SSL_REQUEST, GSS_REQUEST):
                await client.send_all(b"N")
            elif code == CANCEL_REQUEST:
                return False
            else:
                break
        await client.send_all(self._greeting)
        return True

    async def _serve_transactions(self, client: trio.SocketStream) -> None:
        buffer = bytearray()
        before: _Session | None = None
        while True:
            kind, message = await _message(client, buffer)
            if kind == TERMINATE or not kind:
                return
            session = await self._idle.receive()
            self.moves += before is not None and session is not before
            before = session
            await self._transaction(client, buffer, session, kind, message)
            self._send.send_nowait(session)

    async def _transaction(
        self, client: trio.SocketStream, buffer: bytearray, session: _Session, kind: bytes, message: bytes
    ) -> None:
        """Pass on messages of a client and their answers, until the server is in no transaction any more."""
        open_ends = 0
        is_begun = False  # what the next end is for: it may come in several pieces
        status = b"I"
        while True:
            await session.stream.send_all(message)
            open_ends += kind in ENDINGS
            is_begun = kind not in (*ENDINGS, FLUSH) or (is_begun and kind == FLUSH)
            while open_ends and not buffer:
                kind, answer = await _message(session.stream, session.buffer)
                if kind == NOTICE:
                    self.swallowed += 1
                    continue
                if kind == READY:
                    open_ends -= 1
                    status = answer[-1:]
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # the rest is read all the same
                    await self._pass_on(client, kind, answer)
            if not (open_ends or is_begun or buffer) and status == b"I":
                return
            kind, message = await _message(client, buffer)
            if not kind:  # the client has left in the midst of it
                kind, message = b"Q", _query("ROLLBACK")

    async def _pass_on(self, client: trio.SocketStream, kind: bytes, answer: bytes) -> None:
        if self._refusal is not None and (kind, answer[-1:]) == (READY, b"T"):
            await client.send_all(self._refusal)
            await client.aclose()
        elif self._refusal is None or answer[5:] != b"BEGIN\0":  # which pgbouncer would not have sent by then
            await client.send_all(answer)


def _query(text: str) -> bytes:
    return b"Q" + struct.pack("!i", len(text) + 5) + text.encode() + b"\0"


async def _take(stream: trio.SocketStream, buffer: bytearray, count: int) -> bytes:
    while len(buffer) < count:
        data = await stream.receive_some(SIZE)
        if not data:
            raise trio.BrokenResourceError
        buffer += data
    taken = bytes(buffer[:count])
    del buffer[:count]
    return taken


async def _message(stream: trio.SocketStream, buffer: bytearray) -> tuple[bytes, bytes]:
    """Return a message's kind and the whole of it; nothing where the other side has left."""
    try:
        head = await _take(stream, buffer, 5)
        return head[:1], head + await _take(stream, buffer, struct.unpack("!i", head[1:])[0] - 4)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b"", b""


@asynccontextmanager
async def open_pooler(conninfo: str, sessions: int = 2, *, refusal: str = "") -> AsyncIterator[Pooler]:
    """Open a pooler with so many sessions on a database; it is gone at the end of the block.

    Args:
        conninfo: The database.
        sessions: How many.
        refusal: What a client is told that begins a transaction of several trips, where none may.
    """
    opened = []
    for _ in range(sessions):
        connection = await connect(conninfo, autocommit=True)
        # The socket outlives the connection object: what has been negotiated is of no more use.
        opened.append(_Session(trio.SocketStream(_taken_from(connection.fileno()))))
        await connection.close()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listeners[0].socket.getsockname()[1]
        pooler = Pooler(port, opened, _greeting(), _fatal(refusal) if refusal else None)
        nursery.start_soon(trio.serve_listeners, pooler.serve, listeners)
        yield pooler
        nursery.cancel_scope.cancel()
    for session in opened:
        await trio.aclose_forcefully(session.stream)


def _taken_from(descriptor: int) -> trio.socket.SocketType:
    """Return a connection's socket, having left it another one to say good-bye to."""
    taken = trio.socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM)
    near, far = socket.socketpair()
    os.dup2(near.fileno(), descriptor)
    near.close()
    far.close()
    return taken


def _fatal(text: str) -> bytes:
    """Return an error as pgbouncer has them, all with one code, before it closes the connection."""
    fields = f"SFATAL\0VFATAL\0C08P01\0M{text}\0\0".encode()
    return b"E" + struct.pack("!i", len(fields) + 4) + fields


def _greeting() -> bytes:
    """Return what a client is told when it has connected: no password, and what it is to know of the server."""
    parts = [b"R" + struct.pack("!ii", 8, 0)]
    for name, value in (
        ("server_version", "18.0"),
        ("server_encoding", "UTF8"),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO, MDY"),
        ("TimeZone", "UTC"),
        ("integer_datetimes", "on"),
        ("standard_conforming_strings", "on"),
    ):
        body = name.encode() + b"\0" + value.encode() + b"\0"
        parts.append(b"S" + struct.pack("!i", 4 + len(body)) + body)
    parts += [b"K" + struct.pack("!iii", 12, 1, 1), b"Z" + struct.pack("!i", 5) + b"I"]
    return b"".join(parts)
