"""`Room`: how many more jobs may be taken from each queue, in one claim.

It joins what the claiming worker has room for with what may run, and what may start, over all workers. Pure: it knows
no jobs.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from jobtrio._patterns import Limits
from jobtrio.stores._pace import STEADY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from jobtrio.stores._pace import Pace

NO_TOTALS: Final = Limits()


class Room:
    """The room that is left in queues; it shrinks as jobs are taken.

    Making one costs the same however many queues there are: limits are looked up when they are asked for.
    """

    __slots__ = ("_allowed", "_find", "_find_total", "_left", "_paused", "_rates", "_running", "_taken", "_totals")

    def __init__(
        self,
        left: Mapping[str, int] | None,
        totals: Mapping[str, int] = NO_TOTALS,
        running: Callable[[str], int] = lambda _: 0,
        paused: Collection[str] = (),
        pace: Pace = STEADY,
    ) -> None:
        """Begin with what there is.

        Args:
            left: What a worker has room for; None for any number from every queue.
            totals: How many may run over all workers, by queue.
            running: Tells how many of a queue run now.
            paused: The queues that nothing may be taken from.
            pace: Tells how many of a queue may start now.
        """
        self._left = None if left is None else Limits.of(left)
        self._find = None if self._left is None else self._left.find
        self._paused = paused
        self._totals = Limits.of(totals)
        self._find_total = self._totals.find
        self._running = running
        self._rates = pace.limits
        self._allowed = pace.allowed if pace.limits else None
        self._taken: dict[str, int] = {}

    def of(self, queue: str) -> float:
        """Return how many may be taken from a queue."""
        if queue in self._paused:
            return 0
        left = inf if self._find is None else self._find(queue) or 0
        if left and self._totals and (total := self._find_total(queue)) is not None:
            left = min(left, max(total - self._running(queue), 0))
        if left and self._allowed is not None:
            left = min(left, self._allowed(queue))
        return left - self._taken.get(queue, 0)

    def take(self, queue: str) -> None:
        """Note that one was taken."""
        self._taken[queue] = self._taken.get(queue, 0) + 1

    @property
    def has_others(self) -> bool:
        """Whether any number may be taken from queues that are not `limited`."""
        return self._left is None

    @property
    def limited(self) -> Collection[str] | None:
        """The queues that have a limit of their own; None where a pattern may give any queue one.

        With no `has_others`, all from which something may be taken.
        """
        totals, rates = self._totals, self._rates
        if totals.patterns or rates.patterns or (self._left is not None and self._left.patterns):
            return None
        if self._left is not None:
            return self._left.keys()
        return {*totals, *rates, *self._paused} if rates or self._paused else totals.keys()


def room_for(
    room: Mapping[str, int] | None,
    totals: Mapping[str, int],
    running: Callable[[str], int],
    paused: Collection[str] = (),
    pace: Pace = STEADY,
) -> Room | None:
    """Return the room for one claim, or None where there is any number in every queue; the arguments are `Room`'s."""
    if room is None and not totals and not paused and not pace.limits:
        return None
    return Room(room, totals, running, paused, pace)
