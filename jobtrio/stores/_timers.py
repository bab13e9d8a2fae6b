"""What falls due when: a heap of times, in which outdated entries are recognised when they come up.

Nothing is taken out of its middle: a timer whose job has moved on is dropped when it is due, or when such
timers outnumber the valid ones. It knows of a job only the three times that jobs wait for.
"""

from __future__ import annotations

from enum import Enum, auto
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING

from jobtrio._state import JobState

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry

_TOLERATED = 64

_EACH = 2  # times that a job waits for at once, at most: its start, and the end of its wait for that


class Timer(Enum):
    """What a time means for a job."""

    DUE = auto()  # SCHEDULED or RETRYING until then
    EXPIRY = auto()  # not to be started any more from then on
    LEASE = auto()  # its claim lapses then


class TimerHeap:
    """The times of all jobs of a store, by its clock."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer, JobEntry]] = []
        self._numbers = count()
        self._sweep_at = _TOLERATED

    def add(self, at: float, timer: Timer, entry: JobEntry) -> None:
        """Add a time; one at infinity is none."""
        if at == inf:
            return
        heappush(self._heap, (at, next(self._numbers), timer, entry))
        if len(self._heap) > self._sweep_at:
            self._sweep()

    def trim(self, living: int) -> None:
        """Drop what is outdated where it outnumbers all that so many living jobs can wait for."""
        if len(self._heap) > 2 * _EACH * living + _TOLERATED:
            self._sweep()

    def pop(self, now: float) -> tuple[Timer, JobEntry] | None:
        """Take the first valid time that has come, or None."""
        heap = self._heap
        while heap and (heap[0][0] <= now or not _is_valid(heap[0])):
            item = heappop(heap)
            if _is_valid(item):
                return item[2], item[3]
        return None

    def next(self) -> float:
        """Return the first time in the heap, or inf; call it after `pop` gave None."""
        return self._heap[0][0] if self._heap else inf

    def _sweep(self) -> None:
        self._heap = [item for item in self._heap if _is_valid(item)]
        heapify(self._heap)
        self._sweep_at = 2 * len(self._heap) + _TOLERATED


def _is_valid(item: tuple[float, int, Timer, JobEntry]) -> bool:
    at, _, timer, entry = item
    match timer:
        case Timer.DUE:
            return entry.state in (JobState.SCHEDULED, JobState.RETRYING) and entry.due == at
        case Timer.EXPIRY:
            return entry.never_started and entry.expires == at
        case Timer.LEASE:
            return entry.state is JobState.RUNNING and entry.lease_until == at
