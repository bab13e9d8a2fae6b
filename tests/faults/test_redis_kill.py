"""Workers on a Redis, and the server itself, are killed at any moment: what was acknowledged is kept, and ends once."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from redis_invariants import check_jobs
from redis_worker import Place, open_worker
from valkey_server import ValkeyServer
from worker_process import read_journal

import jobtrio

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

ROUNDS = int(os.environ.get("JOBTRIO_KILL_ROUNDS", "3"))
"""How often to kill; 50 for a long test."""

LEASE = 1.0

LIVING = [state for state in jobtrio.JobState if not state.is_final]


@pytest.mark.timeout(160 + 32 * ROUNDS)
async def test_killed_at_random(tmp_path: Path) -> None:
    """Two of three workers are killed and the server is started anew, again and again: nothing is lost or run twice."""
    chance = random.Random(ROUNDS)
    acknowledged: set[str] = set()
    with ValkeyServer() as server:
        place = Place(server.url, "jobtrio", tmp_path / "jobs")
        for _ in range(ROUNDS):
            acknowledged |= await _killed_once(place, server, chance)
            check_jobs(server, place.prefix, acknowledged)
        assert acknowledged
        await _run_to_the_end(place)
        states = check_jobs(server, place.prefix, acknowledged)
    assert {state for job_id, state in states.items() if job_id in acknowledged} <= {"COMPLETED", "FAILED"}
    journal = Counter((what, job_id, attempt) for what, job_id, attempt, _ in read_journal(place.path))
    assert max(journal.values()) == 1  # no attempt has run twice


async def _killed_once(place: Place, server: ValkeyServer, chance: random.Random) -> set[str]:
    """Have three workers submit and run jobs, kill two, and the server; return what was acknowledged."""
    payload = {"tokens": 3, "pause": 0.003}
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(open_worker(place, submits=payload, lease=LEASE, max_running=20))
            for _ in range(3)
        ]
        await trio.sleep(chance.uniform(0.1, 0.5))
        await workers[0].kill()
        await trio.sleep(chance.uniform(0.0, 0.2))
        server.kill()
        await trio.sleep(chance.uniform(0.0, 0.3))
        server.start()
        await trio.sleep(chance.uniform(0.1, 0.5))
        await workers[1].kill()
        await workers[2].stop()
        return {job_id for worker in workers for job_id in await worker.acknowledged()}


async def _run_to_the_end(place: Place) -> None:
    keep = jobtrio.Retention(finished_jobs=1_000_000)
    async with jobtrio.open_registry(place.executors(), store=place.store(), retention=keep) as registry:
        with trio.fail_after(80 + 4 * ROUNDS):
            await registry.drain()
            while await registry.find(state=LIVING):  # leases of dead workers have to lapse first
                await trio.sleep(LEASE / 4)
                await registry.drain()
