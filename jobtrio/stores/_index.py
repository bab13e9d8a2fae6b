"""Finding jobs in memory: by tag, state, queue and executor, the oldest first, page by page.

Tags have an index each; state, queue and executor share one, since the groups that they form are few.
It knows of a job only what it is found by.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jobtrio._entry import JobEntry
    from jobtrio._state import JobState
    from jobtrio.abc import JobQuery

_Group = tuple["JobState", str, "str | None"]


def _order(entry: JobEntry) -> int:
    return entry.order


class JobIndex:
    """The kept jobs, by all that `JobQuery` asks for."""

    def __init__(self) -> None:
        self._tags: dict[tuple[str, str], dict[str, JobEntry]] = {}
        self._groups: dict[_Group, dict[int, JobEntry]] = {}
        self._by_age: list[JobEntry] = []  # with the removed ones, until they are half of it
        self._removed: set[int] = set()  # their orders

    def add(self, entry: JobEntry) -> None:
        """Take in a job that is newer than all before."""
        self._by_age.append(entry)
        self._groups.setdefault(_group(entry, entry.state), {})[entry.order] = entry
        if entry.tags:
            for tag in entry.tags.items():
                self._tags.setdefault(tag, {})[entry.id] = entry

    def moved(self, entry: JobEntry, previous: _Group) -> None:
        """Note a job's change from the group that `group_of` gave before the change."""
        self._leave(previous, entry)
        self._groups.setdefault(_group(entry, entry.state), {})[entry.order] = entry

    def remove(self, entry: JobEntry) -> None:
        """Forget a job."""
        self._leave(_group(entry, entry.state), entry)
        for tag in (entry.tags or {}).items():
            holders = self._tags[tag]
            del holders[entry.id]
            if not holders:
                del self._tags[tag]
        self._removed.add(entry.order)
        if 2 * len(self._removed) > len(self._by_age):
            self._by_age = [kept for kept in self._by_age if kept.order not in self._removed]
            self._removed.clear()

    @staticmethod
    def group_of(entry: JobEntry) -> _Group:
        """Return the group a job is in, for `moved`."""
        return _group(entry, entry.state)

    def count(self, state: JobState) -> int:
        """Return how many jobs are in ``state``."""
        return sum(len(group) for key, group in self._groups.items() if key[0] is state)

    def waiting(self, state: JobState, queues: Iterable[str] | None) -> int:
        """Return how many jobs that have an executor are in ``state`` in ``queues``, or in all."""
        names = None if queues is None else set(queues)
        return sum(
            len(group)
            for (at, queue, executor), group in self._groups.items()
            if at is state and executor is not None and (names is None or queue in names)
        )

    def living(self, final: frozenset[JobState]) -> list[JobEntry]:
        """Return the jobs in none of the ``final`` states, the oldest first."""
        groups = [group for key, group in self._groups.items() if key[0] not in final]
        return sorted((entry for group in groups for entry in group.values()), key=_order)

    def find(self, query: JobQuery, after: int) -> list[JobEntry]:
        """Return the matching jobs inserted behind number ``after``, the oldest first."""
        if query.tags:
            holders = [self._tags.get(tag, {}) for tag in query.tags.items()]
            fewest = min(holders, key=len)
            return self._oldest(fewest.values(), query, after)
        groups = [group for key, group in self._groups.items() if _matches(key, query)]
        matching = sum(map(len, groups))
        total = len(self._by_age)
        # Walking by age meets a match every total/matching jobs; collecting and sorting costs every match.
        if matching and query.limit * total < matching * matching:
            return self._walk(query, after)
        return self._oldest((entry for group in groups for entry in group.values()), query, after)

    def _walk(self, query: JobQuery, after: int) -> list[JobEntry]:
        found: list[JobEntry] = []
        for n in range(bisect_right(self._by_age, after, key=_order), len(self._by_age)):
            entry = self._by_age[n]
            if entry.order not in self._removed and _matches(_group(entry, entry.state), query):
                found.append(entry)
                if len(found) == query.limit:
                    break
        return found

    @staticmethod
    def _oldest(candidates: Iterable[JobEntry], query: JobQuery, after: int) -> list[JobEntry]:
        def matching() -> Iterator[JobEntry]:
            wanted = tuple((query.tags or {}).items())
            for entry in candidates:
                if entry.order <= after or not _matches(_group(entry, entry.state), query):
                    continue
                tags = entry.tags or {}
                if all(tags.get(key) == value for key, value in wanted):
                    yield entry

        return sorted(matching(), key=_order)[: query.limit]

    def _leave(self, key: _Group, entry: JobEntry) -> None:
        group = self._groups[key]
        del group[entry.order]
        if not group:
            del self._groups[key]


def _group(entry: JobEntry, state: JobState) -> _Group:
    return state, entry.plan.queue, entry.plan.executor


def _matches(key: _Group, query: JobQuery) -> bool:
    state, queue, executor = key
    return (
        (query.states is None or state in query.states)
        and (query.queue is None or queue == query.queue)
        and (query.executor is None or executor == query.executor)
    )
