"""Clients that come from one server to another, while workers and their networks fail: each message once, in order.

Each seed is one program, drawn from one generator; time is virtual, and sessions are on lines within the process.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio
from line import anybody, open_line
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import End, Executors, JobContext, Restart, RetryPolicy
from jobtrio._nursery import open_background_nursery
from jobtrio.websocket import Limits, _client_feed, _client_keeper, open_client
from jobtrio.websocket._client_link import LinkLostError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faulty_network import Network
    from line import Line
    from trio.testing import MockClock

    from jobtrio import JobRegistry, Message
    from jobtrio.websocket import JobClient

LEASE = 9.0
JOBS = 5
TROUBLE = ("before", "after", "away", "hanging", "renew", "slow", "slow", "none")
SLOW = ("append_messages", "finish", "retry", "read_messages", "load")


class Hop:
    """A client's connection to one of the servers, which is cut at some time."""

    def __init__(self, line: Line, rng: random.Random) -> None:
        self._line = line
        self._rng = rng
        self._left = rng.choice([3, 10, 50])
        self._scope = trio.CancelScope()

    def cut(self) -> None:
        """Lose all that is on its way."""
        self._left = 0
        self._scope.cancel()

    async def receive(self, silence: float) -> str:
        """Return the server's next message, unless the connection is cut."""
        await trio.sleep(self._rng.choice([0, 0, 0, 0.02]))
        with trio.move_on_after(silence) as self._scope, suppress(trio.EndOfChannel):
            if self._left:
                self._left -= 1
                return await self._line.hear_text()
        raise LinkLostError("it was cut")

    async def send(self, data: str) -> None:
        """Send a message."""
        await trio.sleep(self._rng.choice([0, 0, 0.02]))
        self._line.say(data)

    async def say_farewell(self) -> None:
        """Leave."""


class Fleet:
    """Three servers on one store, each of which runs jobs, and what clients saw of these."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.store = Server()
        self.executors = Executors()
        self.executors.register("work", retry=RetryPolicy(max_attempts=3, initial=0.5, jitter=0), expose=True)(
            self.work
        )
        self.servers: dict[str, JobRegistry] = {}
        self.hops: dict[Hop, JobRegistry] = {}
        self.seen: list[tuple[str, list[Message]]] = []
        self.over = trio.Event()
        self.limits = Limits(batch_items=self.rng.choice([1, 3, 256]), heartbeat=self.rng.choice([1, 15]))
        self.flush_interval = self.rng.choice([0, 0, 0.1, 3])

    async def work(self, job: JobContext) -> int:
        """Say this and that, and fail or return."""
        rng = random.Random(f"{job.payload} {job.attempt}")
        for n in range(rng.randrange(40)):
            match rng.randrange(10):
                case 0:
                    job.progress(n)
                case 1 | 2 | 3:
                    await trio.sleep(rng.choice([0, 0.01, 0.3, 1]))
                case _:
                    await job.send([job.attempt, n])
        if rng.random() < 0.4:
            raise ValueError("no")
        return job.attempt

    # -- servers

    async def serve(self, name: str) -> None:
        """Be one of the servers, again and again."""
        while not self.over.is_set():
            store = RemoteStore(self.store, latency=self.rng.choice([0, 0.01, 0.2]))
            with trio.CancelScope() as scope:
                async with jobtrio.open_registry(self.executors, store=store, lease=LEASE, worker=name) as registry:
                    self.servers[name] = registry
                    try:
                        for _ in range(self.rng.randrange(1, 8)):
                            await self.have_trouble(store.network)
                        if self.rng.random() < 0.5:
                            scope.cancel()
                            await trio.lowlevel.checkpoint()
                    finally:
                        del self.servers[name]
                        for hop in [hop for hop, other in self.hops.items() if other is registry]:
                            hop.cut()
            await trio.sleep(self.rng.uniform(0, 3))

    async def have_trouble(self, network: Network) -> None:
        """Have something go wrong for a while."""
        match self.rng.choice(TROUBLE):
            case ("before" | "after") as when:
                network.fail_at(self.rng.randrange(1, 20), when)
            case "away":
                network.away = True
            case "hanging":
                network.hanging = {"*"}
            case "renew":
                network.failing = {"renew"}
            case "slow":
                network.slow = {call: self.rng.uniform(0, 3) for call in SLOW}
        with trio.move_on_after(self.rng.uniform(0.1, 12)):
            await self.over.wait()
        network.away, network.hanging, network.failing, network.slow = False, set(), set(), {}

    # -- clients

    @asynccontextmanager
    async def open_link(self, *_: Any) -> AsyncIterator[Hop]:
        """Connect to any of the servers that are there."""
        await trio.sleep(0.01)
        if not self.servers:
            raise LinkLostError("nobody is there")
        registry = self.servers[self.rng.choice(sorted(self.servers))]
        async with open_background_nursery() as nursery:
            hop = Hop(await nursery.start(self.hold_line, registry), self.rng)
            self.hops[hop] = registry
            try:
                yield hop
            finally:
                del self.hops[hop]

    async def hold_line(self, registry: JobRegistry, task_status: trio.TaskStatus[Line]) -> None:
        """Have a session of a server."""
        options: dict[str, Any] = {"limits": self.limits, "flush_interval": self.flush_interval}
        async with open_line(registry, authenticate=anybody, **options) as line:
            line.send_time = self.rng.choice([0, 0, 0.01])
            task_status.started(line)
            await trio.sleep_forever()

    async def watch(self, client: JobClient, job_id: str) -> None:
        """See a job to its end, now reading quickly and now slowly, by one subscription or by several."""
        rng = random.Random(self.rng.random())
        seen: list[Message] = []
        position, epoch = 0, None
        while not seen or not isinstance(seen[-1], End):
            with client.subscribe(job_id, position, epoch=epoch) as messages, suppress(trio.EndOfChannel):
                for _ in range(rng.choice([1, 5, 1000])):
                    with trio.move_on_after(rng.choice([0, 0.1, 1, 100])):
                        seen += await messages.receive_batch(rng.choice([1, 3, 256]))
                    await trio.sleep(rng.choice([0, 0, 0, 0.1, 3]))
                position, epoch = messages.position, messages.epoch
        self.seen.append((job_id, seen))

    async def submit_and_watch(self) -> None:
        """Have some jobs done, each with some who watch it."""
        options: dict[str, Any] = {"token": "t", "outage_limit": inf}
        async with open_client("ws://a/ws", **options) as ann, open_client("ws://b/ws", **options) as bob:
            async with trio.open_nursery() as nursery:
                for n in range(JOBS):
                    job = await self.rng.choice([ann, bob]).submit("work", self.rng.random(), key=str(n))
                    for client in (ann, ann, bob, bob):
                        nursery.start_soon(self.watch, client, job.id)
                    await trio.sleep(self.rng.choice([0, 1, 10]))
        self.over.set()

    async def run(self) -> None:
        """Play the program, and return once all have seen all."""
        with trio.fail_after(5000):
            async with trio.open_nursery() as nursery:
                for name in ("a", "b", "c"):
                    nursery.start_soon(self.serve, name)
                nursery.start_soon(self.submit_and_watch)


@pytest.mark.parametrize("seed", range(20))
async def test_from_server_to_server(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Whatever becomes of servers, stores and connections, a consumer sees what is stored, once, to the end."""
    fleet = Fleet(seed)
    monkeypatch.setattr(_client_keeper, "open_link", fleet.open_link)
    monkeypatch.setattr(_client_feed, "MOST", fleet.rng.choice([4, 16, 2048]))
    await fleet.run()
    assert len(fleet.seen) == 4 * JOBS
    async with jobtrio.open_registry(fleet.executors, store=RemoteStore(fleet.store), queues={}) as registry:
        for job_id, seen in fleet.seen:
            async with (await registry.get(job_id)).subscribe() as messages:
                stored = [message async for message in messages]
            assert [message.seq for message in seen] == [*range(1, 1 + len(stored))]  # type: ignore[union-attr]
            for ours, theirs in zip(seen, stored, strict=True):
                hides_traceback = isinstance(theirs, Restart | End)
                assert type(ours) is type(theirs) if hides_traceback else ours == theirs
