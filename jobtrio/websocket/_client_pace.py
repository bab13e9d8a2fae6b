"""How fast a client may speak. Pure: times in, times out."""

from __future__ import annotations

from collections import deque

WINDOW = 1.1
"""Seconds in which no more messages are sent than the server takes in one: its clock isn't this one's."""

MOST = 10_000
"""Messages in that time, at most, whatever the server takes: each is remembered."""


class Pace:
    """Keeps messages below the server's limit, however it counts them."""

    def __init__(self, messages_per_second: float) -> None:
        self._sent: deque[float] = deque(maxlen=min(max(int(messages_per_second), 1), MOST))

    def earliest(self) -> float:
        """Return the first moment at which the next message may be sent."""
        is_full = len(self._sent) == self._sent.maxlen
        return self._sent[0] + WINDOW if is_full else float("-inf")

    def note(self, now: float) -> None:
        """Take it that a message is sent."""
        self._sent.append(now)
