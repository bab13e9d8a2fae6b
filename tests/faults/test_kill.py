"""Workers on a store that are killed at any moment: what was acknowledged is kept, and ends once."""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import trio
from redis_invariants import check_jobs
from store_urls import check_store, new_url
from store_worker import open_worker
from valkey_server import ValkeyServer
from worker_process import journal_of, make_executors, read_journal

import jobtrio
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from pathlib import Path

    from worker_process import WorkerProcess

pytestmark = pytest.mark.once

ROUNDS = int(os.environ.get("JOBTRIO_KILL_ROUNDS", "3"))
"""How often to kill; 50 for a long test."""


@pytest.mark.timeout(160 + 24 * ROUNDS)
@pytest.mark.parametrize(
    ("kind", "count", "lease"),
    [
        ("sqlite", 2, 600.0),  # so that nothing lapses by time: who is dead is seen to be dead
        ("sqlite", 4, 600.0),
        ("postgresql", 2, 1.0),
    ],
)
async def test_killed_at_random(
    kind: str, count: int, lease: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Any of several workers are killed again and again; all acknowledged jobs end, and no attempt runs twice."""
    url, path = new_url(kind, request), tmp_path / "jobs.db"
    acknowledged: set[str] = set()
    chance = random.Random(ROUNDS)
    for _ in range(ROUNDS):
        acknowledged |= await _killed_once(url, path, count, lease, chance)
        check_store(url, request, acknowledged)
    await _run_to_the_end(url, path)
    _check(check_store(url, request, acknowledged), acknowledged, path)


def _check(states: dict[str, str], acknowledged: set[str], path: Path) -> None:
    """Check that what was acknowledged has ended, and that no attempt has run twice."""
    assert acknowledged
    assert {state for job_id, state in states.items() if job_id in acknowledged} <= {"COMPLETED", "FAILED"}
    assert max(Counter(line[:3] for line in read_journal(path)).values()) == 1


async def _open_workers(
    stack: AsyncExitStack, url: str, path: Path, count: int, lease: float, **payload: float
) -> list[WorkerProcess]:
    """Start workers that submit and run jobs with such a payload."""
    submits = {"tokens": 3, "pause": 0.003, **payload}
    opening = [open_worker(url, path, submits=submits, lease=lease, max_running=20) for _ in range(count)]
    return [await stack.enter_async_context(worker) for worker in opening]


async def _killed_once(url: str, path: Path, count: int, lease: float, chance: random.Random) -> set[str]:
    """Have workers submit and run jobs, and kill one or several; return what was acknowledged."""
    async with AsyncExitStack() as stack:
        workers = await _open_workers(stack, url, path, count, lease)
        await trio.sleep(chance.uniform(0.05, 0.4))
        victims = chance.sample(workers, chance.randrange(1, count + 1))
        for victim in victims:
            await victim.kill()
        await trio.sleep(chance.uniform(0.0, 0.2))
        for worker in workers:
            if worker not in victims:
                await worker.stop()
        return {job_id for worker in workers for job_id in await worker.acknowledged()}


@pytest.mark.timeout(160 + 32 * ROUNDS)
async def test_killed_with_their_server(tmp_path: Path) -> None:
    """Two of three workers are killed and the server is started anew, again and again: nothing is lost or run twice."""
    chance = random.Random(ROUNDS)
    acknowledged: set[str] = set()
    path = tmp_path / "jobs"
    with ValkeyServer() as server:
        url = f"{server.url}?prefix=jobtrio"
        for _ in range(ROUNDS):
            acknowledged |= await _killed_with(server, url, path, chance)
            check_jobs(server, "jobtrio", acknowledged)
        await _run_to_the_end(url, path)
        _check(check_jobs(server, "jobtrio", acknowledged), acknowledged, path)


async def _killed_with(server: ValkeyServer, url: str, path: Path, chance: random.Random) -> set[str]:
    """Have three workers submit and run jobs, kill two, and the server; return what was acknowledged."""
    async with AsyncExitStack() as stack:
        workers = await _open_workers(stack, url, path, 3, 1.0, rest=0.005)
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


async def _run_to_the_end(url: str, path: Path) -> None:
    executors, store = make_executors(str(journal_of(path))), parse_store_url(url).make_store()
    keep = jobtrio.Retention(finished_jobs=1_000_000)
    async with jobtrio.open_registry(executors, store=store, retention=keep) as registry:
        with trio.fail_after(120 + 4 * ROUNDS):
            while not await _is_over(registry):  # noqa: ASYNC110 - there is no event for all processes
                await trio.sleep(0.2)


async def _is_over(registry: jobtrio.JobRegistry) -> bool:
    counts = (await registry.counts()).get("default", {})
    return not any(many for state, many in counts.items() if not state.is_final)
