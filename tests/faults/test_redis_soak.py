"""Calls to a Redis that are cancelled at any moment: no answer is mixed up, and none is heeded twice."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import trio
from redis_invariants import check_jobs
from valkey_server import new_prefix, shared_server

from jobtrio import Completed, JobState
from jobtrio.abc import JobQuery
from jobtrio.stores.redis import RedisJobStore
from jobtrio.testing._workers import new_entry, open_worker, tokens

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio.testing._workers import Worker

CANCELS = int(os.environ.get("JOBTRIO_SOAK_CANCELS", "1500"))
TASKS = 20


async def test_cancelled_at_random() -> None:
    """However calls are cancelled, each answer is that to its question, and every job ends once."""
    prefix = new_prefix()
    chance = random.Random(CANCELS)
    async with open_worker(lambda: RedisJobStore(shared_server().url, prefix=prefix)) as worker:
        soak = Soak(worker, chance)
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(soak.run)
        for entry in soak.entries:
            assert worker.heard.of(entry.id) == await worker.history(entry.id)
    assert set(check_jobs(shared_server(), prefix, [entry.id for entry in soak.entries]).values()) == {"COMPLETED"}
    assert soak.cancels >= CANCELS


class Soak:
    """Tasks that take jobs through their lives by calls which are cancelled and made again."""

    def __init__(self, worker: Worker, chance: random.Random) -> None:
        self.worker = worker
        self.chance = chance
        self.cancels = 0
        self.entries: list[JobEntry] = []

    async def run(self) -> None:
        while self.cancels < CANCELS:
            await self.live()

    async def live(self) -> None:
        """Take one job through its life, and look at it on the way."""
        store = self.worker.store
        entry = new_entry(payload=self.chance.random(), tags={"n": str(self.chance.randrange(10))})
        entry.plan = new_entry(queue=f"queue-{entry.id}").plan
        room = {entry.plan.queue: 1}
        payload = entry.payload
        (kept,) = await self.again(store.insert, [entry], entry.id)
        assert kept is entry
        self.entries.append(entry)
        await self.look(entry.id, payload)
        (claim,) = await self.again(store.claim, f"claim-{entry.id}", limit=3, lease=60.0, room=room)
        assert claim.entry.id == entry.id
        assert await self.again(store.append_messages, claim, tokens(1, 3))
        await self.look(entry.id, payload)
        (report,) = await self.again(store.renew, [claim], 60.0)
        assert (report.held, report.entry.id) == (True, entry.id)
        assert await self.again(store.finish, claim, Completed(payload), messages=tokens(3, 5))
        stream = await self.again(store.read_messages, entry.id, 0, 100)
        assert [message.seq for message in stream] == [*range(1, 7)]
        assert stream[-1].outcome == Completed(payload)

    async def look(self, job_id: str, payload: Any) -> None:
        """Ask for a job in two ways."""
        found = await self.again(self.worker.store.load, job_id)
        assert (found.id, found.payload) == (job_id, payload)
        records = await self.again(self.worker.store.find, JobQuery(queue=f"queue-{job_id}"))
        assert [(record.id, record.payload) for record in records] == [(job_id, payload)]
        assert records[0].state in (JobState.QUEUED, JobState.RUNNING)

    async def again(self, call: Any, *arguments: Any, **options: Any) -> Any:
        """Make a call, cut it off at any moment a few times, and make it to the end."""
        while self.cancels < CANCELS and self.chance.random() < 0.5:
            with trio.move_on_after(self.chance.choice((0.0, 0.0001, 0.0005, 0.001, 0.003))) as scope:
                return await call(*arguments, **options)
            self.cancels += scope.cancelled_caught
        return await call(*arguments, **options)
