"""The floor of the registry's rows: one written by hand, from dicts, with the same duties.

Ids nobody can guess, states that change by a table only, an index by tag and by state, a history for
each job, and a bound on the jobs kept after their end. What it lacks is everything else: it runs
nothing.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from enum import StrEnum
from typing import Any


class State(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


NEXT: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    State.RUNNING: frozenset({State.COMPLETED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.CANCELLED: frozenset(),
}


class DictJob:
    """A live record."""

    __slots__ = ("created_at", "finished_at", "history", "id", "payload", "reason", "result", "state", "tags")

    def __init__(self, job_id: str, payload: Any, tags: dict[str, str], now: float) -> None:
        self.id = job_id
        self.payload = payload
        self.tags = tags
        self.state = State.QUEUED
        self.created_at = now
        self.finished_at: float | None = None
        self.reason: str | None = None
        self.result: Any = None
        self.history: list[tuple[float, State | None, State, str | None]] = [(now, None, State.QUEUED, None)]


class DictRegistry:
    """Jobs by id, by tag and by state; the oldest ended ones make room for new ones."""

    def __init__(self, keep: int = 10_000) -> None:
        self._keep = keep
        self.jobs: dict[str, DictJob] = {}
        self._by_tag: dict[tuple[str, str], dict[str, DictJob]] = {}
        self._by_state: dict[State, dict[str, DictJob]] = {state: {} for state in State}
        self._ended: deque[str] = deque()

    def create(self, payload: Any = None, tags: dict[str, str] | None = None) -> str:
        """Add a job and return its id."""
        job_id = secrets.token_hex(16)
        if job_id in self.jobs:
            raise ValueError(job_id)
        job = DictJob(job_id, payload, dict(tags or ()), time.time())
        self.jobs[job_id] = job
        for item in job.tags.items():
            self._by_tag.setdefault(item, {})[job_id] = job
        self._by_state[State.QUEUED][job_id] = job
        return job_id

    def cancel(self, job_id: str, reason: str | None = None) -> bool:
        """End a job that lives; say whether it did."""
        job = self.jobs[job_id]
        if State.CANCELLED not in NEXT[job.state]:
            return False
        self._move(job, State.CANCELLED, reason)
        return True

    def start(self, job_id: str) -> DictJob:
        """Let a job run."""
        job = self.jobs[job_id]
        self._move(job, State.RUNNING, None)
        return job

    def complete(self, job: DictJob, result: Any) -> None:
        """End a job that ran."""
        job.result = result
        self._move(job, State.COMPLETED, None)

    def _move(self, job: DictJob, state: State, reason: str | None) -> None:
        previous, now = job.state, time.time()
        if state not in NEXT[previous]:
            raise ValueError(job.id)
        del self._by_state[previous][job.id]
        self._by_state[state][job.id] = job
        job.state = state
        job.history.append((now, previous, state, reason))
        if not NEXT[state]:
            job.reason, job.finished_at = reason, now
            self._ended.append(job.id)
            self._evict()

    def _evict(self) -> None:
        while len(self._ended) > self._keep:
            oldest = self._ended.popleft()
            if oldest in self.jobs:
                self.remove(oldest)

    def get(self, job_id: str) -> DictJob:
        """Return a job."""
        return self.jobs[job_id]

    def find(self, tags: dict[str, str], limit: int = 100) -> list[DictJob]:
        """Return the jobs that have all of ``tags``, oldest first."""
        first, *others = tags.items()
        found = []
        for job in self._by_tag.get(first, {}).values():
            if all(job.tags.get(name) == value for name, value in others):
                found.append(job)
                if len(found) == limit:
                    break
        return found

    def scan(self, tags: dict[str, str], limit: int = 100) -> list[DictJob]:
        """Do what `find` does without the index."""
        wanted = tags.items()
        found = []
        for job in self.jobs.values():
            if wanted <= job.tags.items():
                found.append(job)
                if len(found) == limit:
                    break
        return found

    def history(self, job_id: str) -> list[tuple[float, State | None, State, str | None]]:
        """Return a job's changes of state."""
        return list(self.jobs[job_id].history)

    def remove(self, job_id: str) -> None:
        """Forget a job that has ended."""
        job = self.jobs[job_id]
        if NEXT[job.state]:
            raise ValueError(job_id)
        del self.jobs[job_id]
        del self._by_state[job.state][job_id]
        for item in job.tags.items():
            members = self._by_tag[item]
            del members[job_id]
            if not members:
                del self._by_tag[item]
