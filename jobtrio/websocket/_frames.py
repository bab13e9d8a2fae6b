"""Frames on their way to the WebSocket library: looked at one by one, held back where they would do harm.

And the frames that are sent without it: a message, and a ping.

It owns the bounds on a message's size and pieces, and that nothing but the client's own close follows a close. It is
pure: bytes in, bytes out, in pieces that never hold more than one frame, so that what was passed on is dealt with
before the next is decided about. Whether a frame is well-formed is for the library to say.
"""

from __future__ import annotations

from typing import Final

from jobtrio.websocket._codes import CloseCode

_CLOSE: Final = 0x8
_CONTROL: Final = 0x8
_CONTROL_BYTES: Final = 125

PULSE: Final = b"\x89\x00"
"""A ping as a frame. The library would keep each of its own until it is answered, also one that never went out."""


class FrameGate:
    """Lets a client's frames through.

    Args:
        message_bytes: The most bytes of a message.
        message_frames: The most frames of a message.

    Attributes:
        is_closing: Whether a close was sent, so that only one may still come.
        verdict: Why nothing more may pass, once that is so.
        controls: Control frames that have passed; for others to set back.
        has_closed: Whether a close of the client's was among them.
    """

    def __init__(self, message_bytes: int, message_frames: int) -> None:
        self.is_closing: bool = False
        self.verdict: CloseCode | None = None
        self.controls = 0
        self.has_closed: bool = False
        self._most_bytes = message_bytes
        self._most_frames = message_frames
        self._buffer = bytearray()
        self._left = 0  # bytes of the present frame that have not come yet
        self._passes = True  # whether the present frame does
        self._bytes = 0  # of the present message
        self._frames = 0

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes of the client."""
        self._buffer += data

    def take(self) -> bytes:
        """Return the next bytes that may pass, of one frame at most; b"" where more has to come first."""
        while self._buffer:
            if not self._left:
                size = _frame_size(self._buffer)
                if size is None or not self._may_begin(*size):
                    return b""
                self._passes = self._decide(self._buffer[0], size[1])
                self._left = sum(size)
            if piece := self._take_left():
                return piece
        return b""

    def _take_left(self) -> bytes:
        piece = bytes(self._buffer[: self._left])
        del self._buffer[: len(piece)]
        self._left -= len(piece)
        return piece if self._passes else b""

    def _may_begin(self, head: int, length: int) -> bool:
        """Whether the next frame can be decided about: a control frame only when it is there as a whole."""
        is_control = bool(self._buffer[0] & _CONTROL)
        return not is_control or length > _CONTROL_BYTES or len(self._buffer) >= head + length

    def _decide(self, first: int, length: int) -> bool:
        opcode = first & 0xF
        if self.is_closing or self.verdict is not None:
            return opcode == _CLOSE
        if opcode & _CONTROL:
            self.controls += 1
            self.has_closed = self.has_closed or opcode == _CLOSE
            return True
        if opcode:  # a message begins
            self._bytes = self._frames = 0
        self._bytes += length
        self._frames += 1
        if self._bytes > self._most_bytes:
            self.verdict = CloseCode.TOO_BIG
        elif self._frames > self._most_frames:
            self.verdict = CloseCode.TOO_MANY_FRAMES
        return self.verdict is None


def _frame_size(data: bytearray) -> tuple[int, int] | None:
    """Return the sizes of a frame's head and payload, or None where too little of it is there."""
    if len(data) < 2:
        return None
    mask = 4 if data[1] & 0x80 else 0
    length = data[1] & 0x7F
    if length < 126:
        return 2 + mask, length
    width = 2 if length == 126 else 8
    if len(data) < 2 + width:
        return None
    return 2 + width + mask, int.from_bytes(data[2 : 2 + width], "big")


def text_frame(payload: bytes) -> bytes:
    """Return a server's frame with a whole text message."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65536:
        return b"\x81\x7e%b%b" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8, "big"), payload)
