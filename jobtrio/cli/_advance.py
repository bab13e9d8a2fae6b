"""`Advance`: how much of something long is done, in the last line of a terminal, as long as it goes on.

It must not know what is done.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Final

from jobtrio._messages import Progress
from jobtrio.cli._bar import open_bar
from jobtrio.cli._output import can_draw
from jobtrio.cli._screen import ERASE, progress_text

PAUSE: Final = 0.1
"""Seconds between two drawings."""


class Advance:
    """Drawn on stderr within a block, where that is a terminal."""

    def __init__(self, note: str, total: int, *, is_shown: bool) -> None:
        """Prepare to draw.

        Args:
            note: What is done.
            total: How often.
            is_shown: Whether it takes long enough to be shown, and people are to see it.
        """
        self._note = note
        self._done, self._total = 0, total
        self._is_shown = is_shown and can_draw(sys.stderr)
        self._draw = (open_bar() if self._is_shown else None) or progress_text
        self._drawn_at = -inf

    def __enter__(self) -> Advance:
        self.step(0)
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def step(self, steps: int = 1) -> None:
        """Note that so many more are done, and draw that now and then."""
        self._done += steps
        if self._is_shown and monotonic() >= self._drawn_at + PAUSE:
            self._drawn_at = monotonic()
            self._write(self._draw(Progress(0, 0, self._done, self._total, self._note)))

    def clear(self) -> None:
        """Leave the line to what else is to be said; the next step draws again."""
        if self._is_shown:
            self._drawn_at = -inf
            self._write("")

    def _write(self, line: str) -> None:
        with suppress(OSError):  # there is nobody to tell
            print(ERASE, line, sep="", end="", file=sys.stderr, flush=True)
