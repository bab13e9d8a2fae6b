"""When a client tries again, and how fast it speaks."""

from __future__ import annotations

import random

import pytest

from jobtrio.websocket._client_backoff import FIRST, LONGEST, MOST_ASKED, Backoff
from jobtrio.websocket._client_pace import MOST, WINDOW, Pace


def test_pauses_grow() -> None:
    """Pauses double up to the longest, each with a jitter of up to a half, and begin anew after a success."""
    backoff = Backoff(random.Random(1))
    pauses = [backoff.next() for _ in range(60)]
    for n, pause in enumerate(pauses):
        due = min(FIRST * 2**n, LONGEST)
        assert due / 2 <= pause <= due
    assert len(set(pauses)) == len(pauses)
    backoff.reset()
    assert backoff.next() <= FIRST


def test_what_the_server_asks_for() -> None:
    """A pause is never shorter than the server asks for, and never so long that it would be for ever."""
    backoff = Backoff()
    assert 2.0 <= backoff.next(2.0) <= 2.0 + FIRST
    assert MOST_ASKED <= backoff.next(1e9) <= MOST_ASKED + 2 * FIRST
    assert backoff.next(-5.0) >= 0


def test_pace() -> None:
    """In any window there are no more messages than the server takes in a second."""
    pace = Pace(3.0)
    now, sent = 0.0, []
    for _ in range(10):
        now = max(now + 0.01, pace.earliest())
        pace.note(now)
        sent.append(now)
    assert sent[2] < WINDOW
    assert all(later - earlier > WINDOW - 1e-9 for earlier, later in zip(sent, sent[3:], strict=False))


@pytest.mark.parametrize("messages_per_second", [1e7, 1e20, 1e308])
def test_server_that_takes_anything(messages_per_second: float) -> None:
    """A limit that is none is kept, with a bound on what is remembered for it."""
    pace = Pace(messages_per_second)
    for n in range(MOST):
        assert pace.earliest() <= n / MOST
        pace.note(n / MOST)
    assert pace.earliest() == WINDOW


def test_slow_server() -> None:
    """Below one message a second it is one in each window."""
    pace = Pace(0.2)
    pace.note(5.0)
    assert pace.earliest() == 5.0 + WINDOW
