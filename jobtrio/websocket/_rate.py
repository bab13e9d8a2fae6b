"""How many messages a second a client may send: a bucket that fills with time.

It must not know what the messages are, nor what is done about too many.
"""

from __future__ import annotations

from math import inf
from typing import Literal, TypeAlias

Verdict: TypeAlias = Literal["pass", "refuse", "close"]


class RateLimit:
    """Lets so many messages a second pass, and as many at once after a pause."""

    def __init__(self, per_second: float, now: float) -> None:
        self._rate = per_second
        self._level = per_second
        self._at = now

    def take(self, now: float, waited: float = inf) -> Verdict:
        """Say what becomes of one more message: it passes, is refused, or is one of twice too many.

        Args:
            now: The time, in seconds.
            waited: How long it was waited for. One that was not had to wait itself, and may have come much earlier:
                what gathers while a request takes its time is not too much for that.
        """
        self._level += (now - self._at) * self._rate
        if waited > 0.25 / self._rate:
            self._level = min(self._level, self._rate)
        self._level -= 1
        self._at = now
        if self._level >= 0:
            return "pass"
        return "refuse" if self._level > -self._rate else "close"
