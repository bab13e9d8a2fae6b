"""`RawClient`: a WebSocket client that can do everything wrong, for tests alone.

It sends the bytes that it is told to, and reads what comes back frame by frame. It must not know jobtrio.
"""

from __future__ import annotations

import base64
import json
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

KEY = base64.b64encode(b"0123456789abcdef").decode()
"""A client's key: the same each time, as its mask is, since tests that are made of what it sends are named by that."""

MASK = b"\x37\xfa\x21\x3d"
"""A client's mask."""


@attrs.frozen
class Frame:
    """What the server sent."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int:
        """A close's code."""
        return int.from_bytes(self.payload[:2], "big")

    @property
    def reason(self) -> str:
        """A close's reason."""
        return self.payload[2:].decode()

    @property
    def message(self) -> Any:
        """A text's JSON."""
        return json.loads(self.payload)


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True, length: int | None = None
) -> bytes:
    """Return a client's frame, well-formed or not."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    mask_bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65536:
        head += bytes([mask_bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([mask_bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    if len(payload) > 100_000:
        return head + bytes(4) + payload  # a mask of zeros, for the sake of speed
    return head + MASK + bytes(byte ^ MASK[n % 4] for n, byte in enumerate(payload))


def close_frame(code: int = 1000, reason: bytes = b"") -> bytes:
    """Return a client's close."""
    return frame(CLOSE, struct.pack("!H", code) + reason)


def request(
    path: str, *headers: str, drop: Sequence[str] = (), method: str = "GET", version: str = "HTTP/1.1"
) -> bytes:
    """Return a request to open a WebSocket, with these headers and without those named in ``drop``."""
    usual = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": KEY,
    }
    lines = [f"{method} {path} {version}"]
    lines += [f"{name}: {value}" for name, value in usual.items() if name not in drop]
    lines += headers
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class RawClient:
    """A connection to a server.

    Attributes:
        stream: It.
        head: The server's answer to the request, as text.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.head = ""
        self._buffer = bytearray()

    @property
    def status(self) -> int:
        """The answer's HTTP status; 0 where there was none."""
        return int(self.head.split(" ")[1]) if self.head else 0

    async def send(self, *parts: bytes) -> None:
        """Send bytes, all in one."""
        await self.stream.send_all(b"".join(parts))

    async def say(self, message: dict[str, Any] | str) -> None:
        """Send a message."""
        text = message if isinstance(message, str) else json.dumps(message)
        await self.send(frame(TEXT, text.encode()))

    async def answer(self) -> int:
        """Read the answer to the request and return its status; 0 if the server hangs up without one."""
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return 0
        end = self._buffer.index(b"\r\n\r\n") + 4
        self.head = self._buffer[:end].decode("ascii")
        del self._buffer[:end]
        return self.status

    async def next(self) -> Frame | None:
        """Return the next frame, or None when the server has hung up."""
        while (found := self._parse()) is None:
            if not await self._more():
                return None
        return found

    async def hear(self) -> Any:
        """Return the next message, answering pings; a close as its `Frame`, a hang-up as None."""
        while True:
            found = await self.next()
            if found is None or found.opcode == CLOSE:
                return found
            if found.opcode == PING:
                await self.send(frame(PONG, found.payload))
            elif found.opcode == TEXT:
                return found.message

    async def hear_all(self) -> list[Any]:
        """Return all messages to the close or the hang-up, with that as the last."""
        heard: list[Any] = []
        while True:
            heard.append(await self.hear())
            if heard[-1] is None or isinstance(heard[-1], Frame):
                return heard

    async def until_closed(self) -> int | None:
        """Read to the server's close and return its code, or None if it hangs up without."""
        last = (await self.hear_all())[-1]
        return None if last is None else last.code

    async def rest(self) -> bytes:
        """Return all bytes to the hang-up."""
        while await self._more():
            pass
        return bytes(self._buffer)

    def reset(self) -> None:
        """Hang up with a reset."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stream.socket.close()

    async def _more(self) -> bool:
        try:
            data = await self.stream.receive_some(65536)
        except trio.BrokenResourceError:
            return False
        self._buffer += data
        return bool(data)

    def _parse(self) -> Frame | None:
        data = self._buffer
        if len(data) < 2:
            return None
        size, start = data[1] & 0x7F, 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, start = int.from_bytes(data[2:10], "big"), 10
        if len(data) < start + size:
            return None
        found = Frame(data[0] & 0xF, bytes(data[start : start + size]))
        del data[: start + size]
        return found


@asynccontextmanager
async def raw_client(
    port: int, *, host: str = "127.0.0.1", receive_buffer: int | None = None
) -> AsyncIterator[RawClient]:
    """Connect, and send nothing yet."""
    sock = trio.socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect((host, port))
    stream = trio.SocketStream(sock)
    try:
        yield RawClient(stream)
    finally:
        stream.socket.close()


@asynccontextmanager
async def connected(port: int, path: str, *headers: str, receive_buffer: int | None = None) -> AsyncIterator[RawClient]:
    """Connect and be accepted."""
    async with raw_client(port, receive_buffer=receive_buffer) as client:
        await client.send(request(path, *headers))
        assert await client.answer() == 101, client.head
        yield client
