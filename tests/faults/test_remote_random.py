"""Random work on random networks: workers come and go, calls fail, hang and lose their replies, and all ends well.

Each seed is one program. What it does is drawn beforehand or as it goes, from one generator; time is virtual.
"""

from __future__ import annotations

import random
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server
from trio.testing import MockClock

import jobtrio
from jobtrio import Cancelled, Completed, End, Executors, Failed, Gap, JobContext, Restart, RetryPolicy, Token
from jobtrio._state import check_transition

if TYPE_CHECKING:
    from faulty_network import When

    from jobtrio._records import Outcome

pytestmark = pytest.mark.once

SEEDS = 60
LEASE = 9.0
JOBS = 12
POLICY = RetryPolicy(max_attempts=3, initial=0.5, jitter=0)
TROUBLE = ("before", "after", "away", "hanging", "renew", "slow", "none", "none")


class Play:
    """One program: its server, its jobs, and what was promised and seen."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.server = Server()
        self.executors = Executors()
        self.executors.register("work", retry=POLICY)(self.work)
        self.accepted: list[str] = []
        self.promised: set[str] = set()
        self.attempts: dict[str, list[int]] = defaultdict(list)
        self.inside: set[str] = set()
        self.streams: dict[str, list[list[jobtrio.Message]]] = defaultdict(list)
        self.outcomes: dict[str, list[Outcome]] = defaultdict(list)
        self.over = trio.Event()

    async def work(self, job: JobContext) -> list[int]:
        """Send some numbers over some time, and return or fail."""
        assert job.id not in self.inside, "two attempts at once"
        self.inside.add(job.id)
        self.attempts[job.id].append(job.attempt)
        try:
            sent, seconds, fails = job.payload
            for number in range(sent):
                await job.send([job.attempt, number])
                await trio.sleep(seconds)
            if job.attempt < fails:
                raise ValueError("as told")
            return [sent, job.attempt]
        finally:
            self.inside.remove(job.id)

    # -- those who take part

    async def run(self) -> None:
        """Play the program and check what came of it."""
        with trio.fail_after(3000):
            async with trio.open_nursery() as nursery:
                for name in ("a", "b", "c"):
                    nursery.start_soon(self.worker, name)
                async with jobtrio.open_registry(
                    self.executors, store=RemoteStore(self.server), queues={}, lease=LEASE
                ) as watcher:
                    async with trio.open_nursery() as watchers:
                        await self.submit(watcher, watchers)
                    for job_id in self.accepted:
                        job = await watcher.get(job_id)
                        self.outcomes[job_id].append(await job.wait())
                    self.over.set()
        await self.check()

    async def submit(self, watcher: jobtrio.JobRegistry, nursery: trio.Nursery) -> None:
        """Submit jobs over some time, watch them, and cancel some."""
        rng = self.rng
        for number in range(JOBS):
            payload = [rng.randrange(5), rng.choice([0, 0.1, 3]), rng.choice([0, 0, 2, 9])]
            delay = rng.choice([None, None, 2])
            job = await watcher.submit("work", payload, job_id=f"job{number}", delay=delay)
            self.accepted.append(job.id)
            nursery.start_soon(self.watch, job)
            if rng.random() < 0.3:
                nursery.start_soon(self.cancel, watcher, job.id, rng.uniform(0, 8))
            await trio.sleep(rng.choice([0, 0.3, 2]))

    async def watch(self, job: jobtrio.Job) -> None:
        """Read a job's stream to its end."""
        with job.subscribe() as messages:
            stream = [message async for message in messages]
        assert stream[-1] == End(len(stream), job.outcome or Completed("the record knows of no end"))
        self.streams[job.id].append(stream)

    async def cancel(self, registry: jobtrio.JobRegistry, job_id: str, after: float) -> None:
        """Cancel a job and note if that was promised."""
        await trio.sleep(after)
        if await registry.cancel(job_id, "asked"):
            self.promised.add(job_id)

    async def worker(self, name: str) -> None:
        """Open a registry again and again, on a network that has its troubles, until all is over."""
        rng = self.rng
        lives = 0
        while not self.over.is_set():
            lives += 1
            store = RemoteStore(self.server, latency=rng.choice([0.001, 0.01, 0.2]))
            async with trio.open_nursery() as nursery:
                try:
                    async with jobtrio.open_registry(
                        self.executors, store=store, lease=LEASE, max_running=3, worker=f"{name}{lives}"
                    ) as registry:
                        nursery.start_soon(self.trouble, store)
                        with trio.move_on_after(rng.uniform(5, 60)):
                            await self.over.wait()
                        if rng.random() < 0.5:
                            await registry.shutdown(grace=rng.choice([0, 1]))
                finally:
                    nursery.cancel_scope.cancel()

    async def trouble(self, store: RemoteStore) -> None:
        """Make trouble on a network from time to time."""
        rng, network = self.rng, store.network
        while True:
            await trio.sleep(rng.uniform(0.1, 4))
            kind = rng.choice(TROUBLE)
            if kind == "before" or kind == "after":
                when: When = "before" if kind == "before" else "after"
                for n in range(1, rng.choice([2, 4])):
                    network.fail_at(n, when)
                continue
            network.away = kind == "away"
            network.hanging = {"*"} if kind == "hanging" else set()
            network.failing = {"renew"} if kind == "renew" else set()
            network.slow = {rng.choice(["claim", "finish", "load"]): rng.uniform(0, 6)} if kind == "slow" else {}
            if kind == "away" or kind == "hanging":
                await trio.sleep(rng.choice([0.5, 3, 15]))
                network.away, network.hanging = False, set()

    # -- what must hold

    async def check(self) -> None:
        """Check all promises against the server."""
        assert len(self.accepted) == len(self.server.store) == JOBS
        for job_id in self.accepted:
            entry = self.server.store.peek(job_id)
            assert entry is not None
            assert entry.outcome is not None
            stored = await self.server.store.read_messages(job_id, 0, 10_000)
            assert stored is not None
            self.check_stream(job_id, stored)
            assert self.outcomes[job_id] == [entry.outcome]
            assert self.streams[job_id] == [stored]
            assert job_id not in self.promised or entry.outcome == Cancelled("asked")
            previous = None
            for line in entry.history():
                check_transition(previous, line.state)
                previous = line.state
            assert [line.state.is_final for line in entry.history()].count(True) == 1
            runs = self.attempts[job_id]
            assert len(runs) == len(set(runs)), "an attempt ran twice"
            self.check_outcome(job_id, entry.payload, entry.outcome, stored)

    def check_stream(self, job_id: str, stored: list[jobtrio.Message]) -> None:
        """Check that a stream is dense, and that each attempt's tokens are a prefix of what it sent."""
        sent: dict[int, list[int]] = defaultdict(list)
        for number, message in enumerate(stored, 1):
            assert not isinstance(message, Gap)
            assert message.seq == number
            if isinstance(message, Token):
                attempt, value = message.value
                assert attempt == message.attempt
                sent[attempt].append(value)
        for values in sent.values():
            assert values == [*range(len(values))]
        assert isinstance(stored[-1], End)

    def check_outcome(self, job_id: str, payload: Any, outcome: Outcome, stored: list[jobtrio.Message]) -> None:
        """Check that the outcome is the one its executor came to, and that failures alone were counted."""
        failures = [m for m in stored if isinstance(m, Restart) and m.error.kind != "lost"]
        assert len(failures) < POLICY.max_attempts
        if isinstance(outcome, Completed):
            assert outcome.result[0] == payload[0]
            last = outcome.result[1]
            assert [m.value[1] for m in stored if isinstance(m, Token) and m.attempt == last] == [*range(payload[0])]
        elif isinstance(outcome, Failed) and outcome.error.kind == "exception":
            assert outcome.error.message == "as told"
            assert len(failures) == POLICY.max_attempts - 1
        elif isinstance(outcome, Failed):
            assert outcome.error.kind == "lost"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_random_trouble(seed: int) -> None:
    """Whatever happens to the workers, each accepted job ends once, and everybody sees the same stream."""
    trio.run(partial(_play, seed), clock=MockClock(autojump_threshold=0))


async def _play(seed: int) -> None:
    await Play(seed).run()
