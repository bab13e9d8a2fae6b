"""The gate for frames: what passes, in which pieces, and what is held back."""

from __future__ import annotations

import pytest
from raw_client import BINARY, CLOSE, PING, PONG, TEXT, close_frame, frame

from jobtrio.websocket._codes import CloseCode
from jobtrio.websocket._frames import FrameGate

CONTINUATION = 0


def passed(gate: FrameGate, data: bytes, size: int = 10**6) -> list[bytes]:
    """Return what passes of bytes that come ``size`` at a time."""
    pieces = []
    for start in range(0, len(data), size):
        gate.feed(data[start : start + size])
        while piece := gate.take():
            pieces.append(piece)
    return pieces


FRAMES = [
    frame(TEXT, b"hello"),
    frame(PING, b"x" * 125),
    frame(BINARY, b"y" * 300, fin=False),
    frame(PONG),
    frame(CONTINUATION, b"z" * 70_000),
    frame(TEXT, b"", masked=False),
    close_frame(),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, 4096, 10**6])
def test_all_passes_unchanged(size: int) -> None:
    """Frames pass as they are, however they are cut on their way."""
    data = b"".join(FRAMES)
    pieces = passed(FrameGate(100_000, 10), data, size)
    assert b"".join(pieces) == data
    assert all(pieces)


def test_one_frame_at_a_time() -> None:
    """No piece holds parts of two frames, so that each is dealt with before the next is decided about."""
    assert passed(FrameGate(100_000, 10), b"".join(FRAMES)) == FRAMES


@pytest.mark.parametrize("size", [1, 5, 10**6])
def test_too_big(size: int) -> None:
    """The frame with which a message gets too big does not pass, nor anything behind it but a close."""
    gate = FrameGate(10, 100)
    data = frame(TEXT, b"12345", fin=False) + frame(CONTINUATION, b"678901") + frame(PING) + frame(TEXT) + close_frame()
    assert b"".join(passed(gate, data, size)) == data[:11] + data[-8:]
    assert gate.verdict == CloseCode.TOO_BIG


def test_too_big_by_its_head() -> None:
    """A frame that says it will be too big is not waited for."""
    gate = FrameGate(10, 100)
    assert passed(gate, frame(TEXT, b"", length=2**63)) == []
    assert gate.verdict == CloseCode.TOO_BIG


def test_each_message_counts_anew() -> None:
    """Messages of the largest size may follow each other, with control frames in between."""
    gate = FrameGate(10, 2)
    data = (frame(TEXT, b"12345", fin=False) + frame(PING, b"x" * 100) + frame(CONTINUATION, b"67890")) * 5
    assert b"".join(passed(gate, data)) == data
    assert gate.verdict is None


def test_too_many_frames() -> None:
    """Empty continuations have an end."""
    gate = FrameGate(10, 3)
    data = frame(TEXT, b"1", fin=False) + frame(CONTINUATION, fin=False) * 2
    assert b"".join(passed(gate, data)) == data
    assert gate.verdict is None
    assert passed(gate, frame(CONTINUATION, fin=False)) == []
    assert gate.verdict == CloseCode.TOO_MANY_FRAMES


@pytest.mark.parametrize("size", [1, 4, 10**6])
def test_after_a_close(size: int) -> None:
    """Once a close was sent, nothing of the client's passes but its own close."""
    gate = FrameGate(100, 10)
    gate.is_closing = True
    close = close_frame(1001)
    assert b"".join(passed(gate, frame(PING, b"a") + frame(TEXT, b"hello") + close + frame(PONG), size)) == close


def test_a_ping_that_is_half_there_when_a_close_is_sent() -> None:
    """A control frame is decided about when it is there as a whole."""
    gate = FrameGate(100, 10)
    ping = frame(PING, b"abcdef")
    assert passed(gate, ping[:8]) == []
    gate.is_closing = True
    assert passed(gate, ping[8:]) == []


def test_a_text_that_is_half_there_when_a_close_is_sent() -> None:
    """A frame of which a part has passed passes as a whole: the library counts on its length."""
    gate = FrameGate(100, 10)
    text = frame(TEXT, b"abcdef")
    first = passed(gate, text[:8])
    gate.is_closing = True
    assert b"".join(first + passed(gate, text[8:] + frame(PING))) == text


def test_overlong_control_frames_are_for_the_library_to_judge() -> None:
    """A ping of 126 bytes passes, in pieces, without waiting for all of it."""
    gate = FrameGate(100, 10)
    ping = frame(PING, b"x" * 126)
    assert b"".join(passed(gate, ping[:20])) == ping[:20]


def test_little_is_held_back() -> None:
    """What waits for its rest is never more than a control frame."""
    gate = FrameGate(10**6, 10)
    assert passed(gate, frame(CLOSE, b"x" * 125)[:-1]) == []
    assert len(gate._buffer) == 130
    passed(gate, b"x")
    assert len(gate._buffer) == 0
