"""`Pace`: how many jobs of a queue may start now, where its starts are limited in time.

What it reckons with is one number for each queue: the earliest moment of its next start, which each claim moves on. It
must not know where that is kept.
"""

from __future__ import annotations

from collections import Counter
from math import inf
from typing import TYPE_CHECKING, Final

from jobtrio._patterns import Limits
from jobtrio._policies import RateLimits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Pace:
    """The limits on starts, at one moment.

    Attributes:
        limits: The limits, by queue.
    """

    __slots__ = ("_next_at", "_now", "limits")

    def __init__(self, limits: RateLimits, next_at: Callable[[str], float | None], now: float) -> None:
        """Begin with what there is.

        Args:
            limits: The limits, by queue.
            next_at: Tells the earliest moment of a queue's next start; None for one that has not been noted.
            now: The present, by the same clock.
        """
        self.limits: Final = limits
        self._next_at = next_at
        self._now = now

    def allowed(self, queue: str) -> float:
        """Return how many jobs of a queue may start now."""
        limit = self.limits.find(queue)
        return inf if limit is None else limit.allowed(self._next_at(queue), self._now)

    def after(self, queues: Iterable[str]) -> list[tuple[str, float]]:
        """Return the earliest moments of the next starts, once jobs have started now, of which each queue is given."""
        return [
            (queue, limit.after(self._next_at(queue), self._now, started))
            for queue, started in Counter(queues).items()
            if (limit := self.limits.find(queue)) is not None
        ]


def first_wait(limits: RateLimits, room: Mapping[str, int] | None, starts: Iterable[tuple[str, float]]) -> float:
    """Return the seconds until the first of the queues that there is room for may start a job.

    Args:
        limits: The limits, by queue.
        room: How many jobs may be taken from each queue; None for any number.
        starts: Queues, and the seconds to the earliest moment of their next starts.
    """
    room_of = None if room is None else Limits.of(room).find
    return min(
        (
            limit.wait(left)
            for queue, left in starts
            if (limit := limits.find(queue)) is not None and (room_of is None or room_of(queue))
        ),
        default=inf,
    )


STEADY: Final = Pace(RateLimits(), lambda _: None, 0.0)
"""No limit on starts."""
