"""`Starts`: when the queues of a memory store may start their next jobs, by Trio's clock, where that is limited.

It forgets a queue whose next start is not held back by the last ones any more. It must not know jobs.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING

import trio

from jobtrio._policies import RateLimits
from jobtrio.stores._pace import STEADY, Pace, first_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_TOLERATED = 64  # queues below this number are not worth a sweep


class Starts:
    """The next starts of all queues that have a limit on them.

    Attributes:
        limits: The limits, by queue.
    """

    def __init__(self) -> None:
        self.limits: RateLimits = RateLimits()
        self._next_at: dict[str, float] = {}
        self._heap: list[float] = []  # the moments at which a queue may start one more
        self._sweep_at = _TOLERATED

    def pace(self) -> Pace:
        """Return how many jobs may start now."""
        return Pace(self.limits, self._next_at.get, trio.current_time()) if self.limits else STEADY

    def note(self, queues: Iterable[str]) -> bool:
        """Note that jobs were started, of which each queue is given; return whether one of them comes first now."""
        now, first = trio.current_time(), self._heap[0] if self._heap else inf
        for queue, at in self.pace().after(queues):
            self._next_at[queue] = at
            if at > now:
                heappush(self._heap, at)
        if len(self._next_at) > self._sweep_at:
            self._sweep()
        return bool(self._heap) and self._heap[0] < first

    def fall_due(self) -> float:
        """Return the seconds until a queue may start one more; inf if none is held back. What has come is forgotten."""
        if not self._heap:
            return inf
        now = trio.current_time()
        while self._heap and self._heap[0] <= now:
            heappop(self._heap)
        return self._heap[0] - now if self._heap else inf

    def next_after(self, moment: float, room: Mapping[str, int] | None) -> float:
        """Return the seconds until a queue may start one more that could not at a moment."""
        now = trio.current_time()
        return first_wait(self.limits, room, ((queue, at - now) for queue, at in self._next_at.items() if at > moment))

    def shift(self, seconds: float) -> None:
        """Bring all moments to another clock, which is ahead by so much."""
        self._next_at = {queue: at + seconds for queue, at in self._next_at.items()}
        self._heap = [at + seconds for at in self._heap]

    def _sweep(self) -> None:
        now = trio.current_time()
        limits = ((queue, at, self.limits.find(queue)) for queue, at in self._next_at.items())
        self._next_at = {queue: at for queue, at, limit in limits if limit and at > limit.base(None, now)}
        self._sweep_at = 2 * len(self._next_at) + _TOLERATED
