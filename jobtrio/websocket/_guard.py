"""trio-websocket behind a guard: what it gets to see of a client, how long it may take, and how it ends.

The library ends its reader by an exception that no caller can catch when a client does certain things, buffers without
bound before it accepts, and leaves half a frame when a send is cancelled. All of that is dealt with here. It must not
know what is spoken.
"""

from __future__ import annotations

import os
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Final

import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from jobtrio.websocket._frames import PULSE, text_frame
from jobtrio.websocket._replies import PROTOCOL
from jobtrio.websocket._uptake import UNKNOWN
from jobtrio.websocket.session import PeerGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.websocket._codes import CloseCode
    from jobtrio.websocket._frames import FrameGate
    from jobtrio.websocket._head import Head
    from jobtrio.websocket._limits import Limits
    from jobtrio.websocket._uptake import Uptake


PIECE = 16 * 1024
"""Bytes for each of which a client has its time to read."""

CONTROLS = 100
"""Pings and pongs of a client that are read in a second: what comes behind them waits. Each costs an answer, and the
limit of messages does not count them."""

MALFORMED = frozenset({1002, 1007})
"""The library's codes for what is no frame or no text. It hangs up without a close; clients may send the codes too."""

HAS_FILES: Final = os.name == "posix"
"""Whether a socket is a file as well, as `os.write` needs it: on Windows it is none, and its number may be another."""

WAITED = 1.0
"""Seconds after which what goes out of a frame says that the client reads; before, the system alone may take it."""


class GuardedStream(trio.abc.Stream):
    """A client's bytes as the library gets to see them: a plain request, and then frames that passed the gate.

    Args:
        stream: The client.
        socket: The socket under it where its bytes go out as they are, None where they don't.
        request: What stands for the client's request, which was read already.
        time_limit: Seconds for which the client may read nothing of what is sent.
        on_verdict: Called once when the gate lets nothing more pass.

    Attributes:
        gate: Looks at the frames.
        abort: Ends the client's connection at once, without a word; is told why.
        accepted: To be set when the library has answered the request; nothing is read of the client before.
        heard: Set when the client sends anything.
        uptake: Tells how much of what was sent has arrived.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        socket: trio.socket.SocketType | None,
        request: bytes,
        gate: FrameGate,
        *,
        time_limit: float,
        on_verdict: Callable[[CloseCode], None],
        abort: Callable[[str], None],
        uptake: Callable[[], Uptake] = lambda: UNKNOWN,
    ) -> None:
        self.gate: FrameGate = gate
        self.abort: Callable[[str], None] = abort
        self.accepted: trio.Event = trio.Event()
        self.heard: trio.Event = trio.Event()
        self.uptake: Callable[[], Uptake] = uptake
        self._heard_at = trio.current_time()
        self._is_reading = False
        self._is_closed = False
        self._counts_since = self._heard_at  # the control frames
        self._stream = stream
        self._socket = socket if HAS_FILES else None
        self._sending = trio.StrictFIFOLock()
        self._prolonged: trio.CancelScope | None = None  # around a piece that may take longer while some of it arrives
        self._arrived = 0
        self._request = request
        self._time_limit = time_limit
        self._on_verdict: Callable[[CloseCode], None] | None = on_verdict

    @property
    def heard_at(self) -> float:
        """When the client last sent anything, or read what it had to be waited for.

        While the library is busy and does not read, it is now.
        """
        return self._heard_at if self._is_reading else trio.current_time()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the next bytes, of one frame at most. Cancellation: none is lost."""
        if self._request:
            request, self._request = self._request, b""
            return request
        await self.accepted.wait()
        if self.gate.controls >= CONTROLS:
            await trio.sleep_until(self._counts_since + 1.0)
            self.gate.controls, self._counts_since = 0, trio.current_time()
        while not (piece := self.gate.take()):
            self._tell_verdict()
            if self._is_closed:  # or the socket says so, by an error whose frames keep each other from Python 3.13 on
                raise trio.ClosedResourceError
            self._is_reading = True
            try:
                data = await self._stream.receive_some(max_bytes)
            finally:
                self._is_reading = False
            if not data:
                return b""
            self._heard_at = trio.current_time()
            self.heard.set()
            self.gate.feed(data)
        return piece

    def _tell_verdict(self) -> None:
        if self.gate.verdict is not None and self._on_verdict is not None:
            tell, self._on_verdict = self._on_verdict, None
            tell(self.gate.verdict)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes: a whole frame, whatever happens to the task, or the connection is cut off.

        Raises:
            trio.BrokenResourceError: The client has left, or did not read for too long.

        Cancellation: they are sent all the same, or not at all; the client has one time limit for what is left.
        """
        sent = 0
        if self._sending.locked():
            await self._sending.acquire()
        else:
            sent = self._send_nowait(data)
            if sent == len(data):
                await trio.lowlevel.cancel_shielded_checkpoint()
                return
            self._sending.acquire_nowait()
        try:
            await self._send_rest(memoryview(data)[sent:])
        finally:
            self._prolonged = None
            self._sending.release()

    async def _send_rest(self, data: memoryview) -> None:
        """Send bytes piece by piece, so that a slow client has its time for each, however large the frame is."""
        start, deadline = trio.current_time(), inf
        for at in range(0, len(data), PIECE):
            is_wanted = trio.current_effective_deadline() > -inf
            if is_wanted or deadline == inf:
                deadline = trio.current_time() + self._time_limit
            # A cancelled send would leave half a frame. Bounded by the time limit, after which the stream is of no use.
            with trio.CancelScope(shield=True, deadline=deadline) as scope:
                self._prolonged = scope if is_wanted else None
                await self._stream.send_all(data[at : at + PIECE])
            if scope.cancelled_caught:
                self.abort("too slow")
                raise trio.BrokenResourceError("the client did not read for too long")
            now = trio.current_time()
            if now - start > WAITED:
                self._heard_at = now

    def look(self) -> None:
        """Give a client its time anew where more has arrived since the last look: on a slow way much is under way."""
        if self._prolonged is not None:
            before, self._arrived = self._arrived, self.uptake().arrived
            if self._arrived > before:
                self._heard_at = trio.current_time()
                self._prolonged.deadline = self._heard_at + self._time_limit

    def _send_nowait(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the socket takes at once: nearly always all, at a third of the cost."""
        if self._socket is None:
            return 0
        try:
            return os.write(self._socket.fileno(), data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room. Cancellation: nothing has changed."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream. Cancellation: it is closed all the same."""
        self._is_closed = True
        await self._stream.aclose()


class GuardedConnection:
    """An open WebSocket: a session's `Transport`.

    Args:
        connection: The library's connection.
        stream: What it reads.
        limits: How long the client may take.
    """

    def __init__(self, connection: trio_websocket.WebSocketConnection, stream: GuardedStream, limits: Limits) -> None:
        self._connection = connection
        self._stream = stream
        self._limits = limits

    @property
    def is_malformed(self) -> bool:
        """Whether the library has cut the client off, for what it sent was no WebSocket."""
        closed = self._connection.closed
        return closed is not None and closed.code in MALFORMED and not self._stream.gate.has_closed

    async def receive(self) -> str | bytes:
        """Return the client's next message. Cancellation: no message is lost.

        Raises:
            PeerGone: None follows.
        """
        try:
            return await self._connection.get_message()
        except trio_websocket.ConnectionClosed:
            raise PeerGone from None

    async def send(self, text: str) -> None:
        """Send a message.

        Raises:
            PeerGone: It can't be sent, or the client did not read for too long.

        Cancellation: it is sent whole or not at all.
        """
        if self._stream.gate.is_closing or self._connection.closed:
            raise PeerGone
        try:
            await self._stream.send_all(text_frame(text.encode()))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise PeerGone from None

    async def watch_pulse(self) -> None:
        """Ask for a sign of life after each silence; cut the client off that gives none.

        Cancellation: the connection is of no further use.
        """
        while True:
            await trio.sleep_until(self._stream.heard_at + self._limits.heartbeat)
            if trio.current_time() < self._stream.heard_at + self._limits.heartbeat:
                continue
            if self._stream.gate.is_closing or self._connection.closed:
                return
            before = self._stream.uptake()
            self._stream.heard = trio.Event()
            with trio.move_on_after(self._limits.send):
                try:
                    await self._stream.send_all(PULSE)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                await self._stream.heard.wait()
            for _ in range(2):  # in which the reader finds what came while this process was held up, or stopped
                await trio.lowlevel.checkpoint()
            if trio.current_time() < self._stream.heard_at + self._limits.send:
                continue
            if not before.arrived < self._stream.uptake().arrived < before.sent:  # else the ping is behind that
                self._stream.abort("silent")
                return

    async def close(self, code: int, reason: str) -> None:
        """Close the connection, and wait for the client to agree, within `Limits.closing`.

        Cancellation: it is closed within that time.
        """
        self._stream.gate.is_closing = True  # the library's reader does not survive a ping from now on
        with trio.CancelScope(shield=True, deadline=trio.current_time() + self._limits.closing):
            with suppress(trio_websocket.ConnectionClosed, LocalProtocolError):
                await self._connection.aclose(code, reason)


async def accept(
    nursery: trio.Nursery, stream: GuardedStream, head: Head, limits: Limits
) -> trio_websocket.WebSocketConnection:
    """Let the library answer a request that was checked; its reader runs in ``nursery``.

    Raises:
        PeerGone: The client has left meanwhile.

    Cancellation: the stream is of no further use.
    """
    request = await trio_websocket.wrap_server_stream(
        nursery,
        stream,
        max_message_size=limits.message_bytes,  # never reached: the gate counts bytes
    )
    try:
        connection = await request.accept(subprotocol=PROTOCOL if head.speaks else None)
    except trio_websocket.ConnectionClosed:
        raise PeerGone from None
    stream.accepted.set()
    return connection
