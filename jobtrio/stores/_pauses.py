"""`Pauses`: the queues of a memory store of which no job is started, and until when, by Trio's clock.

It must not know jobs.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Mapping


class Pauses:
    """The pauses of all queues."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._next = inf  # when the first of them ends, or before
        self._has_ended = False

    def begin(self, queue: str, seconds: float) -> bool:
        """Pause a queue, until inf or for some seconds at least; return whether that ends before all others."""
        until = max(trio.current_time() + seconds, self.now().get(queue, 0.0))
        self._until[queue] = until
        earlier, self._next = until < self._next, min(self._next, until)
        return earlier

    def end(self, queue: str) -> None:
        """End a pause, if there is one."""
        self._until.pop(queue, None)

    def now(self) -> Mapping[str, float]:
        """Return the queues that are paused now, and until when."""
        if self._next < inf and self._next <= (now := trio.current_time()):
            left = {queue: until for queue, until in self._until.items() if until > now}
            self._has_ended = self._has_ended or len(left) < len(self._until)
            self._until, self._next = left, min(left.values(), default=inf)
        return self._until

    def fall_due(self) -> tuple[bool, float]:
        """Return whether one has ended since this was asked last, and the seconds until the next does, or less."""
        self.now()
        has_ended, self._has_ended = self._has_ended, False
        return has_ended, inf if self._next == inf else self._next - trio.current_time()

    def shift(self, seconds: float) -> None:
        """Bring all times to another clock, which is ahead by so much."""
        self._until = {queue: until + seconds for queue, until in self._until.items()}
        self._next += seconds
