"""Which ready job comes first: strict priorities, first in first out within one, a line for each queue.

Jobs that were cancelled or expired in the queue stay behind as tombstones until they come to the front
or outnumber the living; so do the former places of jobs that stand elsewhere by now. It knows of a job only its plan
and its state.
"""

from __future__ import annotations

from collections import Counter, deque
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from typing import TYPE_CHECKING

from jobtrio._state import JobState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from jobtrio._entry import JobEntry
    from jobtrio._policies import JobPriority
    from jobtrio.stores._room import Room

_TOLERATED = 64  # tombstones, or empty lines, below this number are not worth a sweep

_FEW = 8  # queues with room, up to which a look at each is quicker than at the heads of all


class _Line:
    """One queue's jobs of one priority."""

    __slots__ = ("has_head", "jobs", "left", "living", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.jobs: deque[JobEntry] = deque()
        self.left: Counter[JobEntry] = Counter()  # at how many places a job stands no more: the first ones
        self.living = 0
        self.has_head = False

    def front(self) -> JobEntry | None:
        """Drop tombstones and return the first living job, or None."""
        jobs = self.jobs
        while jobs:
            first = jobs[0]
            if first in self.left:
                _take_one(self.left, first)
            elif first.state is JobState.QUEUED:
                return first
            jobs.popleft()
        return None

    def standing(self) -> Iterator[JobEntry]:
        """Give the living jobs, in order."""
        left = self.left.copy()
        for job in self.jobs:
            if job in left:
                _take_one(left, job)
            elif job.state is JobState.QUEUED:
                yield job

    def sweep(self) -> None:
        """Drop the tombstones where they outnumber the living."""
        if len(self.jobs) > _TOLERATED + 2 * self.living:
            self.jobs = deque(self.standing())
            self.left.clear()


class _Level:
    """The lines of one priority, and a heap of what stands at their heads.

    Each line with jobs has one head in the heap, with the ticket of its first job or, where that has left, of an
    earlier one: it is corrected when it comes up, so that a claim costs the same however many lines there are.
    """

    __slots__ = ("heads", "lines", "sweep_at")

    def __init__(self) -> None:
        self.lines: dict[str, _Line] = {}
        self.heads: list[tuple[int, _Line]] = []  # no two have one ticket
        self.sweep_at = _TOLERATED  # lines

    def open_line(self, queue: str) -> _Line:
        """Return a new line for a queue."""
        if len(self.lines) >= self.sweep_at:
            self._drop_empty()
        line = self.lines[queue] = _Line(queue)
        return line

    def living_lines(self, queues: Collection[str] | None) -> Iterable[_Line]:
        """Return at least the lines of these queues, or of all, in which there are jobs."""
        return (line for _, line in self.heads) if queues is None else self.lines_of(queues)

    def lines_of(self, queues: Collection[str]) -> Collection[_Line]:
        """Return at least the lines of these queues, or all where that is quicker."""
        lines = self.lines
        return lines.values() if len(queues) > len(lines) else [lines[name] for name in queues if name in lines]

    def _drop_empty(self) -> None:
        """Forget the queues in which nothing is left, so that names made on the fly leave nothing behind."""
        self.lines = {name: line for name, line in self.lines.items() if line.living}
        self.heads = [head for head in self.heads if head[1].living]
        heapify(self.heads)
        self.sweep_at = 2 * len(self.lines) + _TOLERATED


class ReadyQueue:
    """All ready jobs of a store."""

    def __init__(self) -> None:
        self._levels: dict[JobPriority, _Level] = {}  # those that there were jobs of, the highest first
        self._living = 0

    def __len__(self) -> int:
        return self._living

    def count(self, room: Room, most: float = inf) -> int:
        """Return how many jobs `pop` would take with this room, or a number that is not below ``most``."""
        left: dict[str, float] = {}
        count = seen = 0
        limited = room.limited
        for level in self._levels.values() if self._living else ():
            for line in level.living_lines(limited):
                if not line.living:
                    continue
                there = left.get(line.name)
                if there is None:
                    there = room.of(line.name)
                taken = int(min(there, line.living))
                left[line.name] = there - taken
                count += taken
                seen += line.living
                if count >= most:
                    return count
        return count + (self._living - seen if room.has_others else 0)

    def push(self, entry: JobEntry) -> None:
        """Add a job at the end of its line; its ticket must be higher than all before."""
        plan = entry.plan
        level = self._levels.get(plan.priority)
        if level is None:
            levels = {**self._levels, plan.priority: (level := _Level())}
            self._levels = dict(sorted(levels.items(), reverse=True))
        line = level.lines.get(plan.queue)
        if line is None:
            line = level.open_line(plan.queue)
        line.jobs.append(entry)
        line.living += 1
        self._living += 1
        if not line.has_head:
            line.has_head = True
            heappush(level.heads, (entry.ticket, line))

    def gone(self, entry: JobEntry) -> None:
        """Note that a job left its line other than by `pop`: it is not queued any more, and will not be again."""
        self._leave(self._line_of(entry))

    def leave(self, entry: JobEntry) -> None:
        """Have a job leave its line that is about to be put in again, maybe with another priority."""
        line = self._line_of(entry)
        line.left[entry] += 1
        self._leave(line)

    def _line_of(self, entry: JobEntry) -> _Line:
        return self._levels[entry.plan.priority].lines[entry.plan.queue]

    def _leave(self, line: _Line) -> None:
        line.living -= 1
        self._living -= 1
        line.sweep()

    def pop(self, limit: int, left: Room | None, executors: Collection[str] | None) -> list[JobEntry]:
        """Take up to ``limit`` jobs, by priority, then by age, and from each queue what there is room ``left`` for."""
        taken: list[JobEntry] = []
        few = None if left is None or left.has_others else left.limited
        for level in self._levels.values():
            if len(taken) >= limit or len(taken) >= self._living:
                break
            lines = level.lines
            if executors is not None:
                _take_of(executors, lines, left, limit, taken)
            elif len(lines) == 1 and left is None:
                _take(next(iter(lines.values())), limit, taken)
            elif left is not None and few is not None and len(few) <= _FEW:
                _take_from(level.lines_of(few), left, limit, taken)
            else:
                _take_oldest(level.heads, left, limit, taken)
        self._living -= len(taken)
        return taken


def _take_one(places: Counter[JobEntry], job: JobEntry) -> None:
    places[job] -= 1
    if not places[job]:
        del places[job]


def _take(line: _Line, limit: int, taken: list[JobEntry]) -> None:
    while len(taken) < limit and (front := line.front()):
        line.jobs.popleft()
        line.living -= 1
        taken.append(front)


def _take_oldest(heads: list[tuple[int, _Line]], left: Room | None, limit: int, taken: list[JobEntry]) -> None:
    """Take from several lines, always the job that became ready first."""
    full: list[tuple[int, _Line]] = []  # what there is no room for
    while heads and len(taken) < limit:
        ticket, line = heads[0]
        front = line.front()
        if front is None:
            heappop(heads)
            line.has_head = False
        elif front.ticket != ticket:
            heapreplace(heads, (front.ticket, line))
        elif left is not None and left.of(line.name) <= 0:
            full.append(heappop(heads))
        else:
            line.jobs.popleft()
            line.living -= 1
            taken.append(front)
            if left is not None:
                left.take(line.name)
    for head in full:
        heappush(heads, head)


def _take_from(lines: Collection[_Line], left: Room, limit: int, taken: list[JobEntry]) -> None:
    """Take from a few lines, always the job that became ready first; the heap's heads are corrected later."""
    while len(taken) < limit:
        fronts = [(front.ticket, line) for line in lines if left.of(line.name) > 0 and (front := line.front())]
        if not fronts:
            return
        _, line = min(fronts)  # no two have one ticket
        taken.append(line.jobs.popleft())
        line.living -= 1
        left.take(line.name)


def _take_of(
    executors: Collection[str],
    lines: dict[str, _Line],
    left: Room | None,
    limit: int,
    taken: list[JobEntry],
) -> None:
    """Take only jobs of some executors, wherever in their lines they stand."""
    waiting = sorted(
        ((name, entry) for name, line in lines.items() for entry in line.standing()), key=lambda item: item[1].ticket
    )
    for name, entry in waiting:
        if len(taken) >= limit:
            return
        if entry.plan.executor not in executors:
            continue
        if left is None or left.of(name) > 0:
            lines[name].jobs.remove(entry)  # at its first place; the others are as many as it has left
            lines[name].living -= 1
            if left is not None:
                left.take(name)
            taken.append(entry)
