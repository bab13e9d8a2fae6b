"""Runs of Trio one after the other, each with a clock of its own that begins elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def run_by_other_clocks(run: Callable[[], Awaitable[None]]) -> None:
    """Run a function three times, with clocks that are ahead of and behind one another."""
    for start in (0.0, 1e6, 5.0):
        clock = trio.testing.MockClock(autojump_threshold=0)
        clock.jump(start)
        trio.run(run, clock=clock)
