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
from jobtrio import Completed, End, Failed, Restart, Token
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


async def test_killed_while_it_is_watched(tmp_path: Path) -> None:
    """A consumer in another process sees the stream go on with a `Restart`, at once, and no number twice."""
    path = tmp_path / "jobs.db"
    executors = make_executors(str(journal_of(path)))
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        job = await registry.submit("send", {"tokens": 40, "pause": 0.01})
        seen: list[jobtrio.Message] = []
        with job.subscribe() as messages, trio.fail_after(60):
            async with open_worker(path, lease=LEASE) as worker:
                while len(seen) < 10:
                    seen.append(await messages.receive())
                await worker.kill()
            async with open_worker(path, lease=LEASE):
                seen += [message async for message in messages]
        assert [message.seq for message in seen if not isinstance(message, jobtrio.Gap)] == [*range(1, len(seen) + 1)]
        (restart,) = (message for message in seen if isinstance(message, Restart))
        assert (restart.error.kind, restart.attempt) == ("lost", 1)
        assert [m.value[1] for m in seen[restart.seq :] if isinstance(m, Token)] == [*range(40)]
        assert seen[-1] == End(len(seen), Completed(40))
        assert (await registry.get(job.id)).record.attempt == 2
    check_file(path, [job.id])


async def test_three_losses_end_it(tmp_path: Path) -> None:
    """A job that kills its worker three times fails as lost, and runs no fourth time."""
    path = tmp_path / "jobs.db"
    executors = make_executors(str(journal_of(path)))
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        job = await registry.submit("die", retry=jobtrio.RetryPolicy(max_attempts=100))
        with trio.fail_after(60):
            for _ in range(3):
                async with open_worker(path, lease=LEASE) as worker:
                    await worker.process.wait()
            outcome = await job.wait()
    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, job.record.attempt) == ("lost", 3)
    assert len(read_journal(path)) == 3
    check_file(path, [job.id])
