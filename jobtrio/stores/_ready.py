"""Which ready job comes first: strict priorities, first in first out within one, a line for each queue.

Jobs that were cancelled or expired in the queue stay behind as tombstones until they come to the front
or outnumber the living. It knows of a job only its plan and its state.
"""

from __future__ import annotations

from collections import Counter, deque
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from jobtrio._policies import JobPriority
from jobtrio._state import JobState

if TYPE_CHECKING:
    from collections.abc import Collection

    from jobtrio._entry import JobEntry
    from jobtrio.stores._room import Room

_TOLERATED = 64  # tombstones, or empty lines, below this number are not worth a sweep


class _Line:
    """One queue's jobs of one priority."""

    __slots__ = ("jobs", "living")

    def __init__(self) -> None:
        self.jobs: deque[JobEntry] = deque()
        self.living = 0

    def front(self) -> JobEntry | None:
        """Drop tombstones and return the first living job, or None."""
        jobs = self.jobs
        while jobs:
            if jobs[0].state is JobState.QUEUED:
                return jobs[0]
            jobs.popleft()
        return None

    def sweep(self) -> None:
        """Drop the tombstones where they outnumber the living."""
        if len(self.jobs) > _TOLERATED + 2 * self.living:
            self.jobs = deque(job for job in self.jobs if job.state is JobState.QUEUED)


class ReadyQueue:
    """All ready jobs of a store."""

    def __init__(self) -> None:
        self._levels: dict[JobPriority, dict[str, _Line]] = {level: {} for level in sorted(JobPriority, reverse=True)}
        self._living = 0
        self._sweep_at = _TOLERATED  # lines of one priority

    def __len__(self) -> int:
        return self._living

    def count(self, room: Room) -> int:
        """Return how many jobs `pop` would take with this room."""
        waiting: Counter[str] = Counter()
        for lines in self._levels.values():
            for name in room.among(lines):
                waiting[name] += lines[name].living
        return sum(int(min(room.of(name), n)) for name, n in waiting.items())

    def push(self, entry: JobEntry) -> None:
        """Add a job at the end of its line; its ticket must be higher than all before."""
        plan = entry.plan
        lines = self._levels[plan.priority]
        line = lines.get(plan.queue)
        if line is None:
            if len(lines) >= self._sweep_at:
                _drop_empty(lines)
                self._sweep_at = 2 * len(lines) + _TOLERATED
            line = lines[plan.queue] = _Line()
        line.jobs.append(entry)
        line.living += 1
        self._living += 1

    def gone(self, entry: JobEntry) -> None:
        """Note that a job left its line other than by `pop`."""
        line = self._levels[entry.plan.priority][entry.plan.queue]
        line.living -= 1
        self._living -= 1
        line.sweep()

    def pop(self, limit: int, left: Room | None, executors: Collection[str] | None) -> list[JobEntry]:
        """Take up to ``limit`` jobs, by priority, then by age, and from each queue what there is room ``left`` for."""
        taken: list[JobEntry] = []
        for lines in self._levels.values():
            if len(taken) >= limit or len(taken) >= self._living:
                break
            if executors is not None:
                _take_of(executors, lines, left, limit, taken)
            elif len(lines) == 1 and left is None:
                _take(next(iter(lines.values())), limit, taken)
            elif lines:
                _take_oldest(lines, left, limit, taken)
        self._living -= len(taken)
        return taken


def _take(line: _Line, limit: int, taken: list[JobEntry]) -> None:
    while len(taken) < limit and (front := line.front()):
        line.jobs.popleft()
        line.living -= 1
        taken.append(front)


def _take_oldest(lines: dict[str, _Line], left: Room | None, limit: int, taken: list[JobEntry]) -> None:
    """Take from several lines, always the job that became ready first."""
    heads = [
        (front.ticket, name)
        for name in (lines if left is None else left.among(lines))
        if (front := lines[name].front())
    ]
    heapify(heads)
    while heads and len(taken) < limit:
        _, name = heappop(heads)
        line = lines[name]
        taken.append(line.jobs.popleft())
        line.living -= 1
        if left is not None:
            left.take(name)
        if (left is None or left.of(name) > 0) and (front := line.front()):
            heappush(heads, (front.ticket, name))


def _take_of(
    executors: Collection[str],
    lines: dict[str, _Line],
    left: Room | None,
    limit: int,
    taken: list[JobEntry],
) -> None:
    """Take only jobs of some executors, wherever in their lines they stand."""
    waiting = sorted(((name, entry) for name, line in lines.items() for entry in line.jobs), key=_ticket)
    for name, entry in waiting:
        if len(taken) >= limit:
            return
        if entry.state is not JobState.QUEUED or entry.plan.executor not in executors:
            continue
        if left is None or left.of(name) > 0:
            lines[name].jobs.remove(entry)
            lines[name].living -= 1
            if left is not None:
                left.take(name)
            taken.append(entry)


def _ticket(item: tuple[str, JobEntry]) -> int:
    return item[1].ticket


def _drop_empty(lines: dict[str, _Line]) -> None:
    """Forget the queues in which nothing is left, so that names made on the fly leave nothing behind."""
    for name in [name for name, line in lines.items() if not line.living]:
        del lines[name]
