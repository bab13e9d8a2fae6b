"""Durable jobs of no work by hand: what the bare group-commit loop costs, enqueue, drain and both.

An awaited write puts a job in, another starts it, a third ends it. This module knows nothing of jobtrio.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

import attrs
import trio

from benchmarks._disk import new_file
from benchmarks._group_commit import FINISH, INSERT, START, GroupCommit, open_group_commit
from benchmarks._in_tasks import in_tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIME_LIMIT: Final = 30.0


@attrs.frozen
class JobsByHand:
    """One kind of the loop.

    Attributes:
        folder: Where the files are.
        jobs: How many a round.
        at_once: How many of them at once.
        synchronous: SQLite's setting.
        savepoints: Whether each write has one.
        nursery: Whether each job runs in a nursery of its own, with a deadline.
        on_groups: Told a part's name, its commits and its writes.
    """

    folder: str
    jobs: int
    at_once: int
    synchronous: str
    savepoints: bool = True
    nursery: bool = False
    on_groups: Callable[[str, int, int], None] | None = None

    async def enqueue(self) -> Sequence[float]:
        """Put jobs in, each with a write that is waited for."""
        ids = _new_ids(self.jobs)
        with new_file(self.folder) as path:
            async with open_group_commit(path, self.synchronous, savepoints=self.savepoints) as writer:
                started = time.perf_counter()
                await in_tasks(self.at_once, self.jobs, lambda n: writer.write(INSERT, ids[n], str(n)))
                seconds = time.perf_counter() - started
            self._tell("enqueue", writer)
        return [seconds / self.jobs]

    async def drain(self) -> Sequence[float]:
        """Start and end jobs that are there, with two writes each that are waited for."""
        ids = _new_ids(self.jobs)
        with new_file(self.folder) as path:
            async with open_group_commit(path, "OFF") as writer:
                await in_tasks(self.at_once, self.jobs, lambda n: writer.write(INSERT, ids[n], str(n)))
            async with open_group_commit(path, self.synchronous, savepoints=self.savepoints) as writer:
                started = time.perf_counter()
                await in_tasks(self.at_once, self.jobs, lambda n: self._run(writer, ids[n], n))
                seconds = time.perf_counter() - started
            self._tell("drain", writer)
        return [seconds / self.jobs]

    async def live(self) -> Sequence[float]:
        """Put jobs in, start and end them, with three writes each that are waited for."""
        ids = _new_ids(self.jobs)

        async def live(n: int) -> None:
            await writer.write(INSERT, ids[n], str(n))
            await self._run(writer, ids[n], n)

        with new_file(self.folder) as path:
            async with open_group_commit(path, self.synchronous, savepoints=self.savepoints) as writer:
                started = time.perf_counter()
                await in_tasks(self.at_once, self.jobs, live)
                seconds = time.perf_counter() - started
            self._tell("live", writer)
        return [seconds / self.jobs]

    async def _run(self, writer: GroupCommit, job_id: str, payload: int) -> None:
        await writer.write(START, job_id)
        if self.nursery:
            async with trio.open_nursery() as own:
                own.cancel_scope.deadline = trio.current_time() + TIME_LIMIT
                result = await _execute(payload)
        else:
            result = await _execute(payload)
        await writer.write(FINISH, str(result), job_id)

    def _tell(self, part: str, writer: GroupCommit) -> None:
        if self.on_groups is not None:
            self.on_groups(part, writer.groups, writer.writes)


async def _execute(payload: int) -> int:
    return payload


def _new_ids(count: int) -> list[str]:
    return [os.urandom(16).hex() for _ in range(count)]
