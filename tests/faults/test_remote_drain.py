"""Draining a registry whose store is elsewhere: what is on its way is waited for too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Completed, Executors, JobContext, StoreUnavailableError

if TYPE_CHECKING:
    from trio.testing import MockClock

executors = Executors()


@executors.register("work")
async def work(job: JobContext) -> int:
    await trio.sleep(job.payload or 0)
    return job.attempt


@executors.register("again")
async def again(job: JobContext) -> str:
    if job.attempt == 1:
        raise jobtrio.RetryLater(10)
    return "again"


async def test_a_claim_under_way(autojump_clock: MockClock) -> None:
    """A job that was claimed is waited for, though the answer to the claim is still on its way."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        await trio.sleep(1)
        store.network.slow["claim"] = 3
        job = await registry.submit("work")
        await trio.sleep(1)
        await registry.drain()
        assert job.outcome == Completed(1)


async def test_a_claim_that_overtakes_the_count(autojump_clock: MockClock) -> None:
    """A job that ran and waits for its next attempt by the time that a count of before it arrives is waited for too."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        await trio.sleep(1)
        store.network.slow.update(claim=1, backlog=5)
        job = await registry.submit("again")
        await trio.sleep(0.5)
        await registry.drain()
        assert job.outcome == Completed("again")


async def test_a_claim_that_finds_nothing(autojump_clock: MockClock) -> None:
    """A claim under way that comes back empty holds up nobody any longer."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        await trio.sleep(1)
        store.network.slow["claim"] = 3
        store.settings.listener.work_ready()
        await trio.sleep(1)
        began = trio.current_time()
        await registry.drain()
        assert 1.9 < trio.current_time() - began < 2.1


async def test_what_was_left_behind(autojump_clock: MockClock) -> None:
    """A process that drains as soon as it has begun waits for what a dead worker left to it."""
    server = Server()
    dead, store = RemoteStore(server), RemoteStore(server)
    async with jobtrio.open_registry(executors, store=dead, lease=1) as first:
        job = await first.submit("work", 30)
        await trio.sleep(1)
        dead.network.away = True
        await trio.sleep(2)  # its lease is over
        store.network.slow["advance"] = 3
        async with jobtrio.open_registry(executors, store=store, lease=1) as registry:
            await registry.drain()
            assert (await registry.get(job.id)).outcome == Completed(2)
        dead.network.away = False


async def test_a_store_that_is_away_from_the_beginning(autojump_clock: MockClock) -> None:
    """Where nothing could be looked at yet, it says so in time rather than wait for ever."""
    store = RemoteStore(Server(), outage_limit=4)
    store.network.failing.add("advance")
    async with jobtrio.open_registry(executors, store=store) as registry:
        store.network.failing.add("backlog")
        began = trio.current_time()
        with pytest.raises(StoreUnavailableError, match="away for 4 s"):
            await registry.drain()
        assert 3.9 < trio.current_time() - began < 4.5
        store.network.failing.clear()
        await registry.drain()
