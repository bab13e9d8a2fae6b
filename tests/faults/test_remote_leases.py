"""Leases on a store of another machine: who cannot renew stops in time, and who lost writes nothing more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Completed, Executors, JobContext, JobEndedError, JobState, Restart, Token
from jobtrio.abc import Claim

if TYPE_CHECKING:
    from trio.testing import MockClock

LEASE = 9.0

executors = Executors()


@executors.register("hang")
async def hang(job: JobContext) -> None:
    await trio.sleep_forever()


@executors.register("tick")
async def tick(job: JobContext) -> None:
    while True:
        await job.send(job.attempt)
        await trio.sleep(1)


def cut_off(store: RemoteStore, how: str) -> None:
    """Keep a worker from renewing: its calls fail, are not answered, or only `renew` does not get through."""
    match how:
        case "away":
            store.network.away = True
        case "hanging":
            store.network.hanging = {"*"}
        case "renew fails":
            store.network.failing = {"renew"}
        case "renew hangs":
            store.network.hanging = {"renew"}


def mend(store: RemoteStore) -> None:
    """Undo it."""
    store.network.away = False
    store.network.hanging = set()
    store.network.failing = set()


HOW = ("away", "hanging", "renew fails", "renew hangs")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("latency", [0.01, 1.0])
@pytest.mark.parametrize("offset", [0.0, 1.0, 2.0, 2.5, 2.9, 3.1, 4.0])
@pytest.mark.parametrize("renewed_for", [0.0, 2.3 * LEASE])
async def test_stopped_in_time(
    autojump_clock: MockClock, how: str, latency: float, offset: float, renewed_for: float
) -> None:
    """A run whose worker can't renew is gone a margin before its lease is over, not much earlier than need be."""
    server = Server()
    left: list[float] = []
    gone = trio.Event()
    watched = Executors()

    @watched.register("work")
    async def work(job: JobContext) -> None:
        if job.attempt > 1:
            return
        await trio.sleep(renewed_for)
        cut_off(store, how)
        try:
            await trio.sleep_forever()
        finally:
            entry = server.store.peek(job.id)
            assert entry is not None
            left.append(entry.lease_until - trio.current_time())
            gone.set()

    store = RemoteStore(server, latency=latency)
    async with jobtrio.open_registry(watched, store=store, lease=LEASE) as registry:
        await trio.sleep(offset)  # the rounds of renewal go on meanwhile
        job = await registry.submit("work")
        with trio.fail_after(5 * LEASE):
            await gone.wait()
        # By its own clock the lease began when it was asked for, a latency before it did.
        assert 0.05 * LEASE < left[0] < 0.2 * LEASE + latency
        mend(store)
        assert await job.wait() == Completed(None)


async def test_renewed(autojump_clock: MockClock) -> None:
    """A run that lasts many leases keeps its claim, also while every third call fails."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("hang")
        async with jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE, queues={}):
            for _ in range(60):
                store.network.fail_at(2, "before")
                await trio.sleep(1)
        assert len(await registry.history(job.id)) == 2
        await job.cancel()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("offset", [0.0, 1.0, 2.0, 2.5, 2.9])
async def test_outages_shorter_than_a_lease(autojump_clock: MockClock, how: str, offset: float) -> None:
    """An outage of half a lease costs no run, whenever it begins; one in which calls hang may last a third."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("hang")
        await trio.sleep(2 * LEASE + offset)
        cut_off(store, how)
        await trio.sleep(LEASE / (3 if "hang" in how else 2))
        mend(store)
        async with jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE, queues={}):
            await trio.sleep(2 * LEASE)
        assert len(await registry.history(job.id)) == 2
        await job.cancel()


async def test_taken_away(autojump_clock: MockClock) -> None:
    """A run whose claim no longer holds, for whatever reason, is cancelled when its worker learns of it."""
    server = Server()
    watched = Executors()
    gone: list[float] = []

    @watched.register("work")
    async def work(job: JobContext) -> int:
        try:
            if job.attempt == 1:
                await trio.sleep_forever()
        finally:
            gone.append(trio.current_time())
        return job.attempt

    async with jobtrio.open_registry(watched, store=RemoteStore(server), lease=LEASE, max_running=1) as registry:
        job = await registry.submit("work")
        await trio.sleep(1)
        entry = server.store.peek(job.id)
        assert entry is not None
        assert entry.claim is not None
        assert await server.store.release(Claim(entry, entry.claim, entry.attempt), "taken away")
        taken = trio.current_time()
        assert await job.wait() == Completed(2)
        assert gone[0] - taken < LEASE / 3 + 1


async def test_sends_of_a_lost_run(autojump_clock: MockClock) -> None:
    """What a run sends after its worker learned that the lease is lost raises, even in a shield."""
    server = Server()
    errors: list[BaseException] = []
    watched = Executors()

    @watched.register("work")
    async def work(job: JobContext) -> None:
        await job.send("before")
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                for call in (job.send, job.save_state):
                    try:
                        await call("after")
                    except BaseException as exc:
                        errors.append(exc)

    store = RemoteStore(server)
    async with jobtrio.open_registry(watched, store=store, lease=LEASE) as registry:
        job = await registry.submit("work")
        await trio.sleep(1)
        store.network.away = True
        await trio.sleep(2 * LEASE)
        assert [type(exc) for exc in errors] == [JobEndedError, JobEndedError]
        entry = server.store.peek(job.id)
        assert entry is not None
        assert entry.saved_state is None
        store.network.away = False


async def test_nothing_of_a_lost_run_is_stored(autojump_clock: MockClock) -> None:
    """A worker that was asleep past its lease writes nothing when it wakes: no token, no state, no ending."""
    server = Server()
    asleep, awake = RemoteStore(server), RemoteStore(server)
    watched = Executors()
    go = trio.Event()

    @watched.register("work")
    async def work(job: JobContext) -> str:
        await job.send(f"first of {job.attempt}")
        if job.attempt == 1:
            with trio.CancelScope(shield=True):
                await go.wait()
                asleep.network.hanging = set()  # awake again: nothing tells it yet
                job.send_nowait("late")
        else:
            await trio.sleep(3 * LEASE)
        return f"by {job.attempt}"

    async with jobtrio.open_registry(watched, store=asleep, lease=LEASE, queues={"default": 1}, worker="asleep") as a:
        job = await a.submit("work")
        await trio.sleep(1)
        asleep.network.hanging = {"*"}
        async with jobtrio.open_registry(watched, store=awake, lease=LEASE, worker="awake") as b:
            there = await b.get(job.id)
            with there.subscribe() as messages:
                while not isinstance(await messages.receive(), Restart):
                    pass
            go.set()
            assert await there.wait() == Completed("by 2")
        stored = await awake.read_messages(job.id, 0, 100)
        assert stored is not None
        assert [m.value for m in stored if isinstance(m, Token)] == ["first of 1", "first of 2"]
        with trio.fail_after(LEASE):
            assert await job.wait() == Completed("by 2")
    lines = [(line.state, line.worker) for line in await awake.history(job.id) or ()]
    assert lines == [
        (JobState.QUEUED, "asleep"),
        (JobState.RUNNING, "asleep"),
        (JobState.QUEUED, "awake"),
        (JobState.RUNNING, "awake"),
        (JobState.COMPLETED, "awake"),
    ]
