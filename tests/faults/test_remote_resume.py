"""Resuming by number in a process that has not read the stream before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from remote_store import RemoteStore, Server
from store_urls import STORES, new_url

import jobtrio
from jobtrio import Completed, End, Executors, JobContext, JobSpec, Retention, Token
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from trio.testing import MockClock

executors = Executors()


@executors.register("count")
async def count(job: JobContext) -> None:
    for number in range(1, 6):
        await job.send(number)
        await trio.sleep(1)


STREAM = [*(Token(seq, 1, seq) for seq in range(1, 6)), End(6, Completed(None))]


async def run_elsewhere(server: Server) -> str:
    """Let a job run to its end in a process that is gone then, and return its id."""
    async with jobtrio.open_registry(executors, store=RemoteStore(server)) as registry:
        job = await registry.submit("count")
        await job.wait()
        return job.id


@pytest.mark.parametrize("after", range(7))
async def test_of_an_ended_job(autojump_clock: MockClock, after: int) -> None:
    """A fresh process goes on behind any message of a job that has ended."""
    server = Server()
    job_id = await run_elsewhere(server)
    async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as registry:
        job = await registry.get(job_id)
        assert [message async for message in job.subscribe(after)] == STREAM[after:]


async def test_of_a_running_job(autojump_clock: MockClock) -> None:
    """A fresh process goes on behind a message that it has not read, also of a job that runs elsewhere."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job_id = (await here.submit("count")).id
        await trio.sleep(2.5)
        job = await there.get(job_id)
        assert [message async for message in job.subscribe(2)] == STREAM[2:]


async def test_beyond_the_end(autojump_clock: MockClock) -> None:
    """A number beyond the last is refused once the last is known, and never taken for the end."""
    server = Server()
    job_id = await run_elsewhere(server)
    async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as registry:
        messages = (await registry.get(job_id)).subscribe(7)
        with pytest.raises(ValueError, match="after must be the number of a message, 0 to 6; got 7"):
            await messages.receive()
        with pytest.raises(ValueError, match=r"after must be .*; got -1"):
            (await registry.get(job_id)).subscribe(-1)


async def test_of_a_stream_that_is_shorter_than_it_was(autojump_clock: MockClock) -> None:
    """Where the server comes back with less than was read, readers are told, and whoever waits gets the outcome."""
    server = Server()
    outcomes: list[jobtrio.Outcome] = []

    async def wait() -> None:
        outcomes.append(await job.wait())

    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
        trio.open_nursery() as nursery,
    ):
        job = await there.get((await here.submit("count")).id)
        nursery.start_soon(wait)
        messages = job.subscribe()
        await trio.sleep(4.5)
        assert await messages.receive_batch() == STREAM[:5]
        kept = server.store.peek(job.id)
        assert kept is not None
        assert kept.log is not None
        del kept.log._items[2:]
        with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="subscribe again"):
            await messages.receive()
        assert [message async for message in job.subscribe()] == [*STREAM[:2], End(3, Completed(None))]
    assert outcomes == [Completed(None)]


async def test_a_watcher_prunes_nothing(autojump_clock: MockClock) -> None:
    """A process that claims nothing leaves it to the workers what is kept."""
    server = Server()
    kept = Retention(finished_for=float("inf"))
    async with jobtrio.open_registry(executors, store=RemoteStore(server), retention=kept) as registry:
        job_id = (await registry.submit("count")).id
        await (await registry.get(job_id)).wait()
        brief = Retention(finished_for=1, finished_jobs=0)
        async with jobtrio.open_registry(executors, store=RemoteStore(server), retention=brief, queues={}):
            await trio.sleep(100)
        assert (await registry.get(job_id)).outcome == Completed(None)


@pytest.mark.parametrize("kind", STORES)
async def test_a_watcher_that_ends_many_prunes_nothing(kind: str, request: pytest.FixtureRequest) -> None:
    """It leaves it to the workers as well where it has cancelled more jobs than it would keep itself."""
    address = parse_store_url(new_url(kind, request))
    kept = Retention(finished_for=float("inf"))
    async with jobtrio.open_registry(executors, store=address.make_store(), retention=kept) as registry:
        assert await (await registry.submit("count", delay=3600)).cancel()
    brief = Retention(finished_jobs=0)
    async with jobtrio.open_registry(executors, store=address.make_store(), retention=brief, queues={}) as registry:
        for other in await registry.submit_many(JobSpec("count", delay=3600) for _ in range(100)):
            assert await other.cancel()
        for _ in range(20):
            await trio.sleep(0.01)
            assert len(await registry.find(limit=200)) == 101
