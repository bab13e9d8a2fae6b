"""How long to wait before the next try to connect.

Pure. It must not know what failed.
"""

from __future__ import annotations

import random

FIRST = 0.1
LONGEST = 15.0
"""Seconds before the second try, and at most before any: doubled from the first to the longest."""

MOST_ASKED = 60.0
"""Seconds that a server may ask for."""


class Backoff:
    """Growing pauses between tries, so that a server that is back isn't met by all its clients at once."""

    def __init__(self, rng: random.Random | None = None) -> None:
        """Begin with the first pause.

        Args:
            rng: Where the jitter comes from; None takes the process's own generator.
        """
        self._uniform = (rng or random).uniform
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
        pause = self._uniform(due / 2, due)
        return pause if asked is None else max(min(asked, MOST_ASKED), 0.0) + pause
