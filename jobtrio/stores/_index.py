"""Finding jobs in memory: by tag, state, queue and executor, in order, page by page.

Tags have an index each; queue, executor and state share one, since the groups that they form are few.
It knows of a job only what it is found by.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import nlargest, nsmallest
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING

from jobtrio._patterns import key_for, patterns_among
from jobtrio._state import JobState, counts_by_queue
from jobtrio.abc import JobQuery
from jobtrio.stores._rules import matches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from jobtrio._entry import JobEntry, Plan

COMMON = 4
"""A tag is common that one job in so many has, at least."""

_TOLERATED = 256  # cells below this number are not worth a sweep

_States = dict["JobState", dict[int, "JobEntry"]]
"""A cell: the jobs of one queue and one executor, by state and order."""


_order = attrgetter("order")


class JobIndex:
    """The kept jobs, by all that `JobQuery` asks for."""

    def __init__(self) -> None:
        self._tags: dict[tuple[str, str], dict[str, JobEntry]] = {}
        self._cells: dict[str, dict[str | None, _States]] = {}  # by queue and executor
        self._cell_count = 0
        self._by_age: list[JobEntry] = []  # with the removed ones, until they are half of it
        self._removed: set[int] = set()  # their orders
        self._sweep_at = _TOLERATED
        self._last: tuple[Plan, _States] | None = None  # jobs come in runs of one plan

    def add(self, entry: JobEntry) -> None:
        """Take in a job that is newer than all before."""
        self._by_age.append(entry)
        self._states_of(entry.plan)[entry.state][entry.order] = entry
        if entry.tags:
            for tag in entry.tags.items():
                self._tags.setdefault(tag, {})[entry.id] = entry

    def moved(self, entry: JobEntry, previous: JobState) -> None:
        """Note that a job's state was ``previous``."""
        states = self._states_of(entry.plan)
        order = entry.order
        del states[previous][order]
        states[entry.state][order] = entry

    def replanned(self, entry: JobEntry, previous: Plan) -> None:
        """Note that a job's plan was ``previous``."""
        del self._states_of(previous)[entry.state][entry.order]
        self._states_of(entry.plan)[entry.state][entry.order] = entry

    def remove(self, entry: JobEntry) -> None:
        """Forget a job."""
        del self._states_of(entry.plan)[entry.state][entry.order]
        for tag in (entry.tags or {}).items():
            holders = self._tags[tag]
            del holders[entry.id]
            if not holders:
                del self._tags[tag]
        self._removed.add(entry.order)
        if 2 * len(self._removed) > len(self._by_age):
            self._by_age = [kept for kept in self._by_age if kept.order not in self._removed]
            self._removed.clear()

    def count(self, state: JobState) -> int:
        """Return how many jobs are in ``state``."""
        return sum(len(states[state]) for cells in self._cells.values() for states in cells.values())

    def counts(self) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs, how many are in each state."""
        return counts_by_queue(
            (queue, state, len(group))
            for queue, cells in self._cells.items()
            for states in cells.values()
            for state, group in states.items()
        )

    def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        """Return the same of the jobs that have all of these tags."""
        entries = _matching(self._rarest(tags).values(), JobQuery(tags=tags), None)
        return counts_by_queue((entry.plan.queue, entry.state, 1) for entry in entries)

    def waiting(
        self,
        state: JobState,
        queues: Collection[str] | None,
        executors: Collection[str] | None = None,
        without: Collection[str] = (),
    ) -> int:
        """Return how many jobs that have one of these executors are in ``state`` in ``queues``; None for all.

        Those of queues in ``without`` are not counted.
        """
        return sum(
            len(states[state])
            for queue in self._queues_of(queues)
            if queue not in without
            for executor, states in self._cells.get(queue, {}).items()
            if executor is not None and (executors is None or executor in executors)
        )

    def _queues_of(self, keys: Collection[str] | None) -> Collection[str]:
        """Return at least the queues with jobs that these keys stand for; None for all."""
        if keys is None:
            return self._cells
        if patterns_among(keys) is None:
            return keys
        return [queue for queue in self._cells if key_for(queue, keys) is not None]

    def in_queue(self, state: JobState, queue: str) -> int:
        """Return how many jobs of one queue are in ``state``."""
        return sum(len(states[state]) for states in self._cells.get(queue, {}).values())

    def living(self) -> list[JobEntry]:
        """Return the jobs that have not ended, the oldest first."""
        groups = [
            group
            for cells in self._cells.values()
            for states in cells.values()
            for state, group in states.items()
            if not state.is_final
        ]
        return sorted((entry for group in groups for entry in group.values()), key=_order)

    def find(self, query: JobQuery, after: int | None) -> list[JobEntry]:
        """Return the matching jobs behind number ``after``, in the order that is asked for; None for all."""
        if query.tags:
            fewest = self._rarest(query.tags)
            if after is not None and COMMON * len(fewest) >= len(self._by_age):
                return self._walk(query, after)  # without a look at those before
            # They are in order, as they were taken in.
            candidates = reversed(fewest.values()) if query.newest_first else fewest.values()
            return list(islice(_matching(candidates, query, after), query.limit))
        groups = [
            group
            for queue in (self._cells if query.queue is None else (query.queue,))
            for executor, states in self._cells.get(queue, {}).items()
            if query.executor is None or executor == query.executor
            for state, group in states.items()
            if query.states is None or state in query.states
        ]
        matching = sum(map(len, groups))
        # Walking by age meets a match every total/matching jobs; collecting and sorting costs every match.
        if query.limit * len(self._by_age) < matching * matching:
            return self._walk(query, after)
        found = list(_matching((entry for group in groups for entry in group.values()), query, after))
        first = nlargest if query.newest_first else nsmallest
        return first(query.limit, found, key=_order) if len(found) > 1 else found

    def _rarest(self, tags: Mapping[str, str]) -> dict[str, JobEntry]:
        """Return the jobs that have the tag of these which the fewest have, in order."""
        holders = [self._tags.get(tag, {}) for tag in tags.items()]
        return min(holders, key=len) if len(holders) > 1 else holders[0]

    def _walk(self, query: JobQuery, after: int | None) -> list[JobEntry]:
        found: list[JobEntry] = []
        for n in self._places_behind(after, newest_first=query.newest_first):
            entry = self._by_age[n]
            if entry.order not in self._removed and matches(entry, query):
                found.append(entry)
                if len(found) == query.limit:
                    break
        return found

    def _places_behind(self, after: int | None, *, newest_first: bool) -> range:
        jobs = self._by_age
        if newest_first:
            return range((len(jobs) if after is None else bisect_left(jobs, after, key=_order)) - 1, -1, -1)
        return range(0 if after is None else bisect_right(jobs, after, key=_order), len(jobs))

    def _states_of(self, plan: Plan) -> _States:
        if self._last is not None and self._last[0] is plan:
            return self._last[1]
        states = self._cells.get(plan.queue, {}).get(plan.executor)
        if states is None:
            if self._cell_count >= self._sweep_at:
                self._drop_empty()
            states = self._cells.setdefault(plan.queue, {})[plan.executor] = {state: {} for state in JobState}
            self._cell_count += 1
        self._last = (plan, states)
        return states

    def _drop_empty(self) -> None:
        """Forget the cells in which nothing is left, so that names made on the fly leave nothing behind."""
        kept = [
            (queue, {executor: states for executor, states in cells.items() if any(states.values())})
            for queue, cells in self._cells.items()
        ]
        self._cells = {queue: cells for queue, cells in kept if cells}
        self._cell_count = sum(map(len, self._cells.values()))
        self._sweep_at = 2 * self._cell_count + _TOLERATED


def _matching(candidates: Iterable[JobEntry], query: JobQuery, after: int | None) -> Iterator[JobEntry]:
    if after is None:
        return (entry for entry in candidates if matches(entry, query))
    if query.newest_first:
        return (entry for entry in candidates if entry.order < after and matches(entry, query))
    return (entry for entry in candidates if entry.order > after and matches(entry, query))
