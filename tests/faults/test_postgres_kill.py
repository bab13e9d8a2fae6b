"""Workers on a PostgreSQL schema that are killed at any moment: what was acknowledged is kept, and ends once."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from postgres_invariants import check_schema
from postgres_worker import open_worker
from worker_process import make_executors, read_journal

import jobtrio
from jobtrio.stores.postgres import PostgresJobStore

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

ROUNDS = int(os.environ.get("JOBTRIO_KILL_ROUNDS", "2"))
"""How often to kill; 50 for a long test."""

LEASE = 1.0
"""Seconds: a worker that is killed is missed when they are over."""


@pytest.mark.timeout(160 + 20 * ROUNDS)
async def test_killed_at_random(tmp_path: Path, postgres: str) -> None:
    """One of two workers, or both, are killed again and again; all acknowledged jobs end, and no attempt runs twice."""
    journal = tmp_path / "jobs.journal"
    acknowledged: set[str] = set()
    chance = random.Random(ROUNDS)
    for _ in range(ROUNDS):
        acknowledged |= await _killed_once(postgres, journal, chance)
        check_schema(postgres, acknowledged)
    assert acknowledged
    await _run_to_the_end(postgres, journal)
    states = check_schema(postgres, acknowledged)
    assert {state for job_id, state in states.items() if job_id in acknowledged} <= {"COMPLETED", "FAILED"}
    begun = Counter(
        (job_id, attempt) for what, job_id, attempt, _ in read_journal(tmp_path / "jobs") if what == "begun"
    )
    assert max(begun.values()) == 1


async def _killed_once(conninfo: str, journal: Path, chance: random.Random) -> set[str]:
    """Have two workers submit and run jobs, and kill one or both; return what was acknowledged."""
    payload = {"tokens": 3, "pause": 0.003}
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(
                open_worker(conninfo, journal, submits=payload, lease=LEASE, max_running=20)
            )
            for _ in range(2)
        ]
        await trio.sleep(chance.uniform(0.05, 0.4))
        victims = chance.choice((workers[:1], workers[1:], workers))
        for victim in victims:
            await victim.kill()
        await trio.sleep(chance.uniform(0.0, 0.2))
        for worker in workers:
            if worker not in victims:
                await worker.stop()
        return {job_id for worker in workers for job_id in await worker.acknowledged()}


async def _run_to_the_end(conninfo: str, journal: Path) -> None:
    keep = jobtrio.Retention(finished_jobs=1_000_000)
    store = PostgresJobStore(conninfo)
    async with jobtrio.open_registry(make_executors(str(journal)), store=store, retention=keep) as registry:
        with trio.fail_after(120 + 4 * ROUNDS):
            while not await _is_over(registry):  # noqa: ASYNC110 - there is no event for all processes
                await trio.sleep(0.2)


async def _is_over(registry: jobtrio.JobRegistry) -> bool:
    counts = (await registry.counts()).get("default", {})
    return not any(many for state, many in counts.items() if not state.is_final)
