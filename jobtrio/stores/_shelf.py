"""The jobs that a process keeps: by id and key, with the index to find them by, and the ended ones by age.

It owns what is kept and for how long. It must not know how jobs run, nor when anything falls due.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio._errors import DuplicateJobError
from jobtrio._policies import Retention
from jobtrio.stores._index import JobIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._entry import JobEntry


class Shelf:
    """The kept jobs.

    Attributes:
        jobs: All of them by id; look with `get` where an ended one may have become too old.
        index: What they are found by.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, JobEntry] = {}
        self.index = JobIndex()
        self.retention = Retention()
        self._keys: dict[str, JobEntry] = {}
        self._ended: deque[JobEntry] = deque()  # by ``due``, their end; with removed ones, counted in _removed
        self._removed = 0

    def get(self, job_id: str) -> JobEntry | None:
        """Return a job, or None."""
        entry = self.jobs.get(job_id)
        if entry is not None and entry.outcome is not None:
            self.evict()  # it may have become too old
            entry = self.jobs.get(job_id)
        return entry

    def holder(self, key: str) -> JobEntry | None:
        """Return the job that has a key, or None."""
        self.evict()
        return self._keys.get(key)

    @property
    def living(self) -> int:
        """How many jobs have not ended."""
        return len(self.jobs) - (len(self._ended) - self._removed)

    def put(self, entry: JobEntry) -> None:
        """Take in a new job."""
        self.jobs[entry.id] = entry
        if entry.key is not None:
            self._keys[entry.key] = entry
        self.index.add(entry)

    def sort_out(self, entries: Sequence[JobEntry], submission: str) -> tuple[list[JobEntry], list[JobEntry]]:
        """Return the jobs that are new; and for each of all, in order, the one that stands for it from now on.

        Raises:
            DuplicateJobError: An id is in use, or stands twice in ``entries``.
        """
        self.evict()
        placed: dict[str, JobEntry] = {}
        keys: dict[str, JobEntry] = {}
        answer: list[JobEntry] = []
        for entry in entries:
            kept = self.jobs.get(entry.id)
            if kept is not None and kept.submission == submission:
                answer.append(kept)
                continue
            holder = None if entry.key is None else self._keys.get(entry.key) or keys.get(entry.key)
            if holder is not None:
                answer.append(holder)
                continue
            if kept is not None or entry.id in placed:
                raise DuplicateJobError(entry.id)
            placed[entry.id] = entry
            if entry.key is not None:
                keys[entry.key] = entry
            answer.append(entry)
        return list(placed.values()), answer

    def end(self, entry: JobEntry) -> None:
        """Note that a job has just ended, and make room for it."""
        entry.due = now = trio.current_time()
        self._ended.append(entry)
        self.evict(now)

    def remove(self, entry: JobEntry) -> None:
        """Forget an ended job before its time."""
        self._forget(entry)
        self._removed += 1
        if 2 * self._removed > len(self._ended):
            self._ended = deque(kept for kept in self._ended if self.jobs.get(kept.id) is kept)
            self._removed = 0

    @trio.lowlevel.enable_ki_protection
    def evict(self, now: float | None = None) -> None:
        """Forget the ended jobs that `Retention` no longer keeps."""
        ended, retention = self._ended, self.retention
        if not ended:
            return
        if now is None:
            now = trio.current_time()
        while ended and (
            ended[0].due + retention.finished_for <= now or len(ended) - self._removed > retention.finished_jobs
        ):
            entry = ended.popleft()
            if self.jobs.get(entry.id) is entry:
                self._forget(entry)
            else:
                self._removed -= 1

    def shift(self, seconds: float) -> None:
        """Note that the clock has been set forward by so much."""
        for entry in self._ended:
            entry.due += seconds

    def stop_clock(self) -> None:
        """Let no job become too old until there is a new `retention`: who still reads may have another clock."""
        self.retention = attrs.evolve(self.retention, finished_for=inf)

    def next_eviction(self) -> float:
        """Return the seconds until an ended job becomes too old; inf where there is none."""
        if not self._ended:
            return inf
        return max(self._ended[0].due + self.retention.finished_for - trio.current_time(), 0.0)

    def _forget(self, entry: JobEntry) -> None:
        del self.jobs[entry.id]
        self.index.remove(entry)
        if entry.key is not None and self._keys.get(entry.key) is entry:
            del self._keys[entry.key]
