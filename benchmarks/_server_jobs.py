"""Durable jobs of no work on a server, by jobtrio: put in one by one or many at once, drained, and both at once.

One process submits and runs, by turns or at once. Before each round the store is emptied, which is not timed.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

import jobtrio
from benchmarks._in_tasks import in_tasks
from jobtrio import JobState
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

NOTHING: Final = "nothing"
MANY: Final = 1_000
"""Jobs put in by one call, as by the peers."""


@attrs.frozen
class ServerJobs:
    """One store.

    Attributes:
        url: Where it is.
        jobs: How many a round.
        at_once: How many calls or jobs at once.
        empty: Empties it.
    """

    url: str
    jobs: int
    at_once: int
    empty: Callable[[], None]

    async def each(self) -> Sequence[float]:
        """Submit jobs by a call each, to a process that runs none."""
        async with self._open(queues={}) as registry:
            started = time.perf_counter()
            await in_tasks(self.at_once, self.jobs, lambda n: registry.submit(NOTHING, n))
            seconds = time.perf_counter() - started
            await self._check(registry, JobState.QUEUED)
        return [seconds / self.jobs]

    async def many(self) -> Sequence[float]:
        """Submit jobs by calls for many, to a process that runs none."""
        async with self._open(queues={}) as registry:
            seconds = await self._put(registry)
            await self._check(registry, JobState.QUEUED)
        return [seconds / self.jobs]

    async def drain(self) -> Sequence[float]:
        """Run jobs that are there; from the start of the first to the end of the last."""
        begun: list[float] = []
        async with self._open(queues={}) as registry:
            await self._put(registry)
        async with self._open(begun, empty=False) as registry:
            while not begun:  # noqa: ASYNC110 - the first is there at once
                await trio.sleep(0.001)
            await registry.drain()
            seconds = time.perf_counter() - begun[0]
            await self._check(registry, JobState.COMPLETED)
        return [seconds / self.jobs]

    async def live(self) -> Sequence[float]:
        """Submit jobs and wait for each one's outcome, in the process that runs them."""
        async with self._open() as registry:

            async def live(n: int) -> None:
                job = await registry.submit(NOTHING, n)
                assert await job.result() == n

            started = time.perf_counter()
            await in_tasks(self.at_once, self.jobs, live)
            seconds = time.perf_counter() - started
        return [seconds / self.jobs]

    async def _put(self, registry: jobtrio.JobRegistry) -> float:
        started = time.perf_counter()
        for first in range(0, self.jobs, MANY):
            numbers = range(first, min(first + MANY, self.jobs))
            await registry.submit_many(jobtrio.JobSpec(NOTHING, n) for n in numbers)
        return time.perf_counter() - started

    @asynccontextmanager
    async def _open(
        self, begun: list[float] | None = None, *, queues: dict[str, int] | None = None, empty: bool = True
    ) -> AsyncIterator[jobtrio.JobRegistry]:
        if empty:
            await trio.to_thread.run_sync(self.empty)
        executors = jobtrio.Executors()

        @executors.register(NOTHING)
        async def nothing(job: jobtrio.JobContext) -> Any:
            if begun is not None:
                begun.append(time.perf_counter())
            return job.payload

        store = parse_store_url(self.url).make_store()
        keep = jobtrio.Retention(finished_jobs=1_000_000)
        async with jobtrio.open_registry(
            executors, store=store, queues=queues, max_running=self.at_once, retention=keep
        ) as registry:
            yield registry

    async def _check(self, registry: jobtrio.JobRegistry, state: JobState) -> None:
        counts = await registry.counts()
        found = sum(states[state] for states in counts.values())
        assert found == self.jobs, f"{found} of {self.jobs} are {state}"
