"""When a client tries again, how fast it speaks, and how long its calls wait.

It must not know what failed, nor what is said.
"""

from __future__ import annotations

import random
from collections import deque
from math import inf

import trio

FIRST = 0.1
LONGEST = 15.0
"""Seconds before the second try to connect, and at most before any: doubled from the first to the longest."""

MOST_ASKED = 60.0
"""Seconds that a server may ask for."""

WINDOW = 1.1
"""Seconds in which no more messages are sent than the server takes in one: its clock isn't this one's."""

MOST = 10_000
"""Messages in that time, at most, whatever the server takes: each is remembered."""


class Backoff:
    """Growing pauses between tries, so that a server that is back isn't met by all its clients at once."""

    def __init__(self) -> None:
        self._failures = 0

    def reset(self) -> None:
        """Begin again with the first pause: a connection was of use."""
        self._failures = 0

    def next(self, asked: float | None = None) -> float:
        """Return the seconds to wait, one half to the whole of what is due.

        Args:
            asked: The seconds that the server asked to be left alone, or None; never less than that.
        """
        due = min(FIRST * 2.0 ** min(self._failures, 30), LONGEST)
        self._failures += 1
        pause = random.uniform(due / 2, due)
        return pause if asked is None else max(min(asked, MOST_ASKED), 0.0) + pause


class Pace:
    """Keeps messages below the server's limit, however it counts them."""

    def __init__(self, messages_per_second: float) -> None:
        self._sent: deque[float] = deque(maxlen=min(max(int(messages_per_second), 1), MOST))

    def earliest(self) -> float:
        """Return the first moment at which the next message may be sent."""
        is_full = len(self._sent) == self._sent.maxlen
        return self._sent[0] + WINDOW if is_full else -inf

    def note(self, now: float) -> None:
        """Take it that a message is sent."""
        self._sent.append(now)


class Patience:
    """One call's: seconds without its server, counted over the whole call.

    Attributes:
        scope: What the call waits in; it is cancelled when they are used up.
    """

    def __init__(self, seconds: float) -> None:
        self.scope: trio.CancelScope = trio.CancelScope()
        self._left = seconds
        self._is_put_off = False

    def count(self) -> None:
        """Have the seconds run, if they don't already: the server is away."""
        if self.scope.deadline == inf:
            self.scope.deadline = trio.current_time() + self._left

    def pause(self) -> None:
        """Have them run no more: the server is back."""
        # A server that puts calls off may be connected for good: to be connected again is no sign of an answer.
        if self.scope.deadline != inf and not self._is_put_off:
            self._left = max(self.scope.deadline - trio.current_time(), 0.0)
            self.scope.deadline = inf

    def put_off(self) -> None:
        """Have them run from now on, whether it is connected or not: the server has put the call off."""
        self._is_put_off = True
        self.count()
