"""What the peers with asyncio have in common: calls at once, and the time from the first job to the last.

Standard library only, since it runs in the peers' environments.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AT_ONCE = 100
"""Calls, or jobs, at once."""

MANY = 1_000
"""Jobs put in by one call, where there is a call for several."""


async def each(jobs: int, call: Callable[[int], Awaitable[Any]]) -> float:
    """Make a call for each number, so many at once; return the seconds."""
    numbers = iter(range(jobs))

    async def work() -> None:
        for n in numbers:
            await call(n)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return time.perf_counter() - started


async def many(jobs: int, call: Callable[[range], Awaitable[Any]]) -> float:
    """Make a call for each range of numbers, one after the other; return the seconds."""
    started = time.perf_counter()
    for first in range(0, jobs, MANY):
        await call(range(first, min(first + MANY, jobs)))
    return time.perf_counter() - started


class Countdown:
    """Counts jobs as they run, and takes the time from the first.

    Attributes:
        over: Set when the last has begun.
    """

    def __init__(self, jobs: int) -> None:
        self.over = asyncio.Event()
        self._left = jobs
        self._started = 0.0

    def count(self) -> None:
        """Note that a job runs."""
        if not self._started:
            self._started = time.perf_counter()
        self._left -= 1
        if not self._left:
            self.over.set()

    def seconds(self) -> float:
        """Return the seconds since the first job ran."""
        assert self.over.is_set(), f"{self._left} jobs have not run"
        return time.perf_counter() - self._started
