"""Which ready job comes first: strict priorities, first in first out within one, a line for each queue.

Jobs that were cancelled or expired in the queue stay behind as tombstones until they come to the front
or outnumber the living. It knows of a job only its plan and its state.
"""

from __future__ import annotations

from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from jobtrio._policies import JobPriority
from jobtrio._state import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from jobtrio._entry import JobEntry

_LEVELS = tuple(sorted(JobPriority, reverse=True))
_TOLERATED = 64  # tombstones below this number are not worth a sweep


class _Line:
    """One queue's jobs of one priority."""

    __slots__ = ("jobs", "living")

    def __init__(self) -> None:
        self.jobs: deque[tuple[int, JobEntry]] = deque()
        self.living = 0

    def front(self) -> tuple[int, JobEntry] | None:
        """Drop tombstones and return the first living job with its number, or None."""
        jobs = self.jobs
        while jobs:
            if jobs[0][1].state is JobState.QUEUED:
                return jobs[0]
            jobs.popleft()
        return None

    def sweep(self) -> None:
        """Drop the tombstones where they outnumber the living."""
        if len(self.jobs) > _TOLERATED + 2 * self.living:
            self.jobs = deque(item for item in self.jobs if item[1].state is JobState.QUEUED)


class ReadyQueue:
    """All ready jobs of a store."""

    def __init__(self) -> None:
        self._queues: dict[str, dict[JobPriority, _Line]] = {}
        self._numbers = count()

    def push(self, entry: JobEntry) -> None:
        """Add a job at the end of its line."""
        lines = self._queues.setdefault(entry.plan.queue, {})
        line = lines.get(entry.plan.priority)
        if line is None:
            line = lines[entry.plan.priority] = _Line()
        line.jobs.append((next(self._numbers), entry))
        line.living += 1

    def gone(self, entry: JobEntry) -> None:
        """Note that a job left its line other than by `pop`."""
        lines = self._queues[entry.plan.queue]
        line = lines[entry.plan.priority]
        line.living -= 1
        line.sweep()
        self._tidy(entry.plan.queue)

    def pop(self, limit: int, room: Mapping[str, int] | None, executors: Collection[str] | None) -> list[JobEntry]:
        """Take up to ``limit`` jobs, by priority, then by age, at most ``room[queue]`` from each queue."""
        left = {name: limit if room is None else room[name] for name in self._queues if room is None or name in room}
        taken: list[JobEntry] = []
        for level in _LEVELS:
            if len(taken) >= limit:
                break
            lines = {
                name: lines[level] for name, lines in self._queues.items() if level in lines and left.get(name, 0) > 0
            }
            if executors is not None:
                self._pop_of(executors, lines, left, limit, taken)
            elif len(lines) == 1:
                self._pop_one(*lines.popitem(), left, limit, taken)
            else:
                self._pop_oldest(lines, left, limit, taken)
        for name in {entry.plan.queue for entry in taken}:
            self._tidy(name)
        return taken

    @staticmethod
    def _pop_one(name: str, line: _Line, left: dict[str, int], limit: int, taken: list[JobEntry]) -> None:
        while len(taken) < limit and left[name] > 0 and (front := line.front()):
            line.jobs.popleft()
            line.living -= 1
            left[name] -= 1
            taken.append(front[1])

    @staticmethod
    def _pop_oldest(lines: dict[str, _Line], left: dict[str, int], limit: int, taken: list[JobEntry]) -> None:
        while len(taken) < limit:
            fronts = [(front[0], name) for name, line in lines.items() if left[name] > 0 and (front := line.front())]
            if not fronts:
                return
            name = min(fronts)[1]
            entry = lines[name].jobs.popleft()[1]
            lines[name].living -= 1
            left[name] -= 1
            taken.append(entry)

    @staticmethod
    def _pop_of(
        executors: Collection[str],
        lines: dict[str, _Line],
        left: dict[str, int],
        limit: int,
        taken: list[JobEntry],
    ) -> None:
        waiting = sorted(
            ((number, name, entry) for name, line in lines.items() for number, entry in line.jobs),
            key=lambda item: item[0],
        )
        for number, name, entry in waiting:
            if len(taken) >= limit:
                return
            if entry.state is JobState.QUEUED and entry.plan.executor in executors and left[name] > 0:
                lines[name].jobs.remove((number, entry))
                lines[name].living -= 1
                left[name] -= 1
                taken.append(entry)

    def _tidy(self, name: str) -> None:
        """Forget a queue in which nothing is left, so that names made on the fly leave nothing behind."""
        lines = self._queues.get(name)
        if lines is not None and not any(line.living for line in lines.values()):
            del self._queues[name]
