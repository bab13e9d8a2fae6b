"""`Room`: how many more jobs may be taken from each queue, in one claim.

It joins what the claiming worker has room for with what may run over all workers. Pure: it knows no jobs.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Room:
    """The room that is left in queues; it shrinks as jobs are taken."""

    __slots__ = ("_left", "_others")

    def __init__(self, left: Mapping[str, int] | None) -> None:
        """Begin with what a worker has room for; None for any number from every queue."""
        self._left = {} if left is None else dict(left)
        self._others = inf if left is None else 0

    def limit(self, queue: str, most: int) -> None:
        """Let no more than ``most`` be taken from a queue."""
        self._left[queue] = min(self.of(queue), max(most, 0))  # type: ignore[assignment]  # never inf: most is not

    def of(self, queue: str) -> float:
        """Return how many may be taken from a queue."""
        return self._left.get(queue, self._others)

    def take(self, queue: str) -> None:
        """Note that one was taken."""
        if queue in self._left:
            self._left[queue] -= 1

    @property
    def has_others(self) -> bool:
        """Whether any number may be taken from queues that are not `limited`."""
        return self._others > 0

    def limited(self) -> Iterable[str]:
        """Return the queues that have a limit of their own."""
        return self._left


def room_for(room: Mapping[str, int] | None, totals: Mapping[str, int], running: Callable[[str], int]) -> Room | None:
    """Return the room for one claim, or None where there is any number in every queue.

    Args:
        room: What the worker has room for; None for any number from every queue.
        totals: How many may run over all workers, by queue.
        running: Tells how many of a queue run now.
    """
    if room is None and not totals:
        return None
    left = Room(room)
    for queue, most in totals.items():
        if left.of(queue) > 0:
            left.limit(queue, most - running(queue))
    return left
