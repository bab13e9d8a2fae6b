"""Workers on an SQLite file that are killed at any moment: what was acknowledged is kept, and ends once."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from sqlite_invariants import check_file
from sqlite_worker import open_worker
from worker_process import journal_of, make_executors, read_journal

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

ROUNDS = int(os.environ.get("JOBTRIO_KILL_ROUNDS", "3"))
"""How often to kill; 50 for a long test."""

LEASE = 60.0  # so that nothing lapses by time: who is dead is seen to be dead


@pytest.mark.timeout(160 + 24 * ROUNDS)
@pytest.mark.parametrize("count", [2, 4])
async def test_killed_at_random(tmp_path: Path, count: int) -> None:
    """Any of several workers are killed again and again; all acknowledged jobs end, and no attempt runs twice."""
    path = tmp_path / "jobs.db"
    acknowledged: set[str] = set()
    chance = random.Random(ROUNDS)
    for _ in range(ROUNDS):
        acknowledged |= await _killed_once(path, count, chance)
        check_file(path, acknowledged)
    assert acknowledged
    await _run_to_the_end(path)
    states = check_file(path, acknowledged)
    assert {state for job_id, state in states.items() if job_id in acknowledged} <= {"COMPLETED", "FAILED"}
    begun = Counter((job_id, attempt) for what, job_id, attempt, _ in read_journal(path) if what == "begun")
    assert max(begun.values()) == 1


async def _killed_once(path: Path, count: int, chance: random.Random) -> set[str]:
    """Have workers submit and run jobs, and kill one or several; return what was acknowledged."""
    payload = {"tokens": 3, "pause": 0.003}
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(open_worker(path, submits=payload, lease=LEASE, max_running=20))
            for _ in range(count)
        ]
        await trio.sleep(chance.uniform(0.05, 0.4))
        victims = chance.sample(workers, chance.randrange(1, count + 1))
        for victim in victims:
            await victim.kill()
        await trio.sleep(chance.uniform(0.0, 0.2))
        for worker in workers:
            if worker not in victims:
                await worker.stop()
        return {job_id for worker in workers for job_id in await worker.acknowledged()}


async def _run_to_the_end(path: Path) -> None:
    executors = make_executors(str(journal_of(path)))
    keep = jobtrio.Retention(finished_jobs=1_000_000)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), retention=keep) as registry:
        with trio.fail_after(60 + 4 * ROUNDS):
            await registry.drain()
