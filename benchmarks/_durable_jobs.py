"""Durable jobs of no work by jobtrio: what `SqliteJobStore` costs, enqueue, drain and both.

The sides are one process that submits and one that runs, by turns or at once; each round has a file of its own.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

import jobtrio
from benchmarks._disk import new_file
from benchmarks._group_commit import SYNCHRONOUS
from benchmarks._in_tasks import in_tasks
from jobtrio.stores.sqlite import SqliteJobStore, _connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from jobtrio.stores.sqlite._connection import Synchronous

NOTHING: Final = "nothing"


@attrs.frozen
class DurableJobs:
    """One setting of the store.

    Attributes:
        folder: Where the files are.
        jobs: How many a round.
        at_once: How many of them at once.
        synchronous: SQLite's setting.
    """

    folder: str
    jobs: int
    at_once: int
    synchronous: Synchronous

    async def enqueue(self) -> Sequence[float]:
        """Submit jobs to a process that runs none."""
        with new_file(self.folder) as path:
            async with self._open(path, queues={}) as registry:
                started = time.perf_counter()
                await in_tasks(self.at_once, self.jobs, lambda n: registry.submit(NOTHING, n))
                seconds = time.perf_counter() - started
            await self._check(path, jobtrio.JobState.QUEUED)
        return [seconds / self.jobs]

    async def enqueue_one_by_one(self) -> Sequence[float]:
        """Submit jobs in one task, a tenth as many, each when the one before is stored."""
        count = self.jobs // 10
        with new_file(self.folder) as path:
            async with self._open(path, queues={}) as registry:
                started = time.perf_counter()
                for n in range(count):
                    await registry.submit(NOTHING, n)
                seconds = time.perf_counter() - started
            await self._check(path, jobtrio.JobState.QUEUED, count)
        return [seconds / count]

    async def enqueue_together(self) -> Sequence[float]:
        """Submit jobs in one task, as many in each call of `submit_many` as the others have at once."""
        with new_file(self.folder) as path:
            async with self._open(path, queues={}) as registry:
                started = time.perf_counter()
                for first in range(0, self.jobs, self.at_once):
                    await registry.submit_many(jobtrio.JobSpec(NOTHING, first + n) for n in range(self.at_once))
                seconds = time.perf_counter() - started
            await self._check(path, jobtrio.JobState.QUEUED)
        return [seconds / self.jobs]

    async def drain(self) -> Sequence[float]:
        """Run jobs that are there, in a process that submits none."""
        countdown = _Countdown(self.jobs)
        with new_file(self.folder) as path:
            async with self._open(path, queues={}) as registry:
                await registry.submit_many(jobtrio.JobSpec(NOTHING, n) for n in range(self.jobs))
            async with self._open(path, countdown) as registry:
                started = time.perf_counter()
                await countdown.over.wait()
                await registry.drain()
                seconds = time.perf_counter() - started
            await self._check(path, jobtrio.JobState.COMPLETED)
        return [seconds / self.jobs]

    async def live(self) -> Sequence[float]:
        """Submit jobs and wait for each one's outcome, in the process that runs them."""
        with new_file(self.folder) as path:
            async with self._open(path) as registry:

                async def live(n: int) -> None:
                    job = await registry.submit(NOTHING, n)
                    assert await job.result() == n

                started = time.perf_counter()
                await in_tasks(self.at_once, self.jobs, live)
                seconds = time.perf_counter() - started
            await self._check(path, jobtrio.JobState.COMPLETED)
        return [seconds / self.jobs]

    @asynccontextmanager
    async def _open(
        self, path: Path, countdown: _Countdown | None = None, queues: dict[str, int] | None = None
    ) -> AsyncIterator[jobtrio.JobRegistry]:
        executors = jobtrio.Executors()

        @executors.register(NOTHING)
        async def nothing(job: jobtrio.JobContext) -> Any:
            if countdown is not None:
                countdown.count()
            return job.payload

        store = SqliteJobStore(path, synchronous=self.synchronous)
        async with jobtrio.open_registry(executors, store=store, queues=queues, max_running=self.at_once) as registry:
            yield registry

    async def _check(self, path: Path, state: jobtrio.JobState, jobs: int | None = None) -> None:
        """Look into the file with nothing of jobtrio's: every job has to be there."""
        jobs = self.jobs if jobs is None else jobs
        connection = sqlite3.connect(path)
        try:
            (count,) = connection.execute("SELECT count(*) FROM jobs WHERE state = ?", (str(state),)).fetchone()
        finally:
            connection.close()
        assert count == jobs, f"{count} of {jobs} are {state}"


class _Countdown:
    """Tells when so many jobs have come to run. Asking the store would slow it."""

    def __init__(self, count: int) -> None:
        self.over = trio.Event()
        self._left = count

    def count(self) -> None:
        self._left -= 1
        if not self._left:
            self.over.set()


class _CountingConnection(sqlite3.Connection):
    """A connection that counts the transactions which write."""

    groups = 0
    synchronous: int | None = None

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        if statement == "BEGIN IMMEDIATE":
            _CountingConnection.groups += 1
            _CountingConnection.synchronous = super().execute("PRAGMA synchronous").fetchone()[0]
        return super().execute(statement, *arguments)


@contextmanager
def _counting() -> Iterator[type[_CountingConnection]]:
    before = _connection.connect
    _connection.connect = partial(sqlite3.connect, factory=_CountingConnection)
    _CountingConnection.groups = 0
    try:
        yield _CountingConnection
    finally:
        _connection.connect = before


async def count_groups(jobs: DurableJobs) -> dict[str, int]:
    """Return how many transactions each part takes; check that they sync as they should.

    Counting slows the store, so nothing of this is timed.

    *Cancellation*: nothing is counted any more.
    """
    groups = {}
    with _counting() as counted:
        for part in ("enqueue", "drain", "live"):
            counted.groups = 0
            await getattr(jobs, part)()
            groups[part] = counted.groups
        assert counted.synchronous == SYNCHRONOUS[jobs.synchronous], counted.synchronous
    return groups
