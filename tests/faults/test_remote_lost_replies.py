"""Calls whose first reply was lost: the second try finds what the first one did, and the caller is told that."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    End,
    Executors,
    IllegalTransitionError,
    JobContext,
    JobState,
    Token,
    UnknownJobError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from faulty_network import When
    from trio.testing import MockClock

executors = Executors()


@executors.register("work")
async def work(job: JobContext) -> str:
    """Take as long as the payload says."""
    await job.send("token")
    await trio.sleep(job.payload or 0)
    return "done"


executors.register("other")(work)


class Pair:
    """A registry whose network loses replies, and one whose network is sound, on one server."""

    def __init__(self) -> None:
        server = Server()
        self.store = RemoteStore(server)
        self.sound = RemoteStore(server)
        self.here: jobtrio.JobRegistry
        self.there: jobtrio.JobRegistry

    def lose_next(self, when: When) -> None:
        """Have the next call fail, before or after it is carried out."""
        self.store.network.fail_at(1, when)

    def lose_request(self, when: When) -> None:
        """Have a job's next request to cancel fail, which is made behind the look at whose id it is."""
        self.store.network.fail_at(2, when)


@asynccontextmanager
async def open_pair(here: dict[str, int] | None = None, there: dict[str, int] | None = None) -> AsyncIterator[Pair]:
    """Open both registries, which serve no queues unless told otherwise."""
    pair = Pair()
    async with (
        jobtrio.open_registry(executors, store=pair.store, queues=here or {}) as pair.here,
        jobtrio.open_registry(executors, store=pair.sound, queues=there or {}) as pair.there,
    ):
        await trio.sleep(1)
        yield pair


@pytest.mark.parametrize("reason", [None, "enough"])
async def test_cancel_a_queued_job(reason: str | None, autojump_clock: MockClock) -> None:
    """A job that the lost try has ended was cancelled by this call."""
    async with open_pair() as pair:
        job = await pair.here.submit("work")
        pair.lose_request("after")
        assert await job.cancel(reason)
        assert job.outcome == Cancelled(reason)
        assert await job.wait() == Cancelled(reason)
        assert not await job.cancel(reason)  # it had ended before it was asked


async def test_cancel_a_running_job(autojump_clock: MockClock) -> None:
    """A job that ran elsewhere, and was gone by the time of the next try, was cancelled by this call."""
    async with open_pair(there={"default": 1}) as pair:
        job = await pair.here.submit("work", 100)
        await trio.sleep(1)
        pair.lose_request("after")
        assert await job.cancel("enough")
        assert await job.wait() == Cancelled("enough")
        assert (await pair.there.history(job.id))[-1].state == JobState.CANCELLED


@pytest.mark.parametrize("ended", ["by another request", "long ago", "by itself", "just now"])
async def test_cancelled_by_others(ended: str, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that others had cancelled, or that ended by itself, was not cancelled by a call that came too late."""
    async with open_pair(there={"default": 1}) as pair:
        job = await pair.here.submit("work", 1 if ended == "by itself" else 100)
        await trio.sleep(0.5)
        there = await pair.there.get(job.id)
        if ended != "by itself":
            await there.cancel("another" if ended == "by another request" else "enough")
        if ended == "long ago":
            monkeypatch.setattr("jobtrio._calls.SKEW", -1.0)  # any time is long ago
        await there.wait()
        if ended != "just now":  # else no reply is lost
            pair.lose_request("before")
        assert not await job.cancel("enough")


async def test_cancel_an_unknown_job(autojump_clock: MockClock) -> None:
    """A job that nobody knows is unknown after a lost reply as before."""
    async with open_pair() as pair:
        pair.lose_next("after")
        with pytest.raises(UnknownJobError):
            await pair.here.cancel("unknown")


async def test_remove(autojump_clock: MockClock) -> None:
    """A job that the lost try has removed is removed; one that never was is unknown as long as no reply was lost."""
    async with open_pair(there={"default": 1}) as pair:
        job = await pair.here.submit("work")
        assert await job.wait() == Completed("done")
        pair.lose_next("after")
        await pair.here.remove(job.id)
        with pytest.raises(UnknownJobError):
            await pair.there.get(job.id)
        with pytest.raises(UnknownJobError):
            await pair.here.remove(job.id)


async def test_remove_a_living_job(autojump_clock: MockClock) -> None:
    """A job that lives is refused after a lost reply as before."""
    async with open_pair() as pair:
        job = await pair.here.submit("work")
        pair.lose_next("after")
        with pytest.raises(IllegalTransitionError):
            await pair.here.remove(job.id)
        await job.cancel()


async def test_start_held(autojump_clock: MockClock) -> None:
    """A held job that the lost try has started is known to be, with the executor that it was given."""
    async with open_pair(there={"default": 1}) as pair:
        job = await pair.here.create_job()
        pair.store.network.fail_at(2, "after")  # behind the look at what the job is
        async with pair.here.execute_and_stream(job.id, "work", time_limit=50) as stream:
            assert job.record.executor == "work"
            assert [line async for line in stream] == ["token", "[DONE]"]


async def test_start_held_by_others(autojump_clock: MockClock) -> None:
    """A held job that somebody else started meanwhile is known to be, with the executor that they gave it."""
    async with open_pair(there={"default": 1}) as pair:
        job = await pair.here.create_job()
        pair.store.network.slow["load"] = 3

        async def start_there() -> None:
            async with pair.there.execute_and_stream(job.id, "other"):
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(start_there)
            async with pair.here.execute_and_stream(job.id, "work") as stream:
                assert job.record.executor == "other"
                assert [line async for line in stream] == ["token", "[DONE]"]


async def test_an_end_that_is_written_beside_messages(autojump_clock: MockClock) -> None:
    """Messages on their way are not taken for those of a lost run where the end was quicker, and its reply is lost."""
    store = RemoteStore(Server())
    store.network.slow = {"finish": 1.0}
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("work")
        with job.subscribe() as messages:
            assert await messages.receive() == Token(1, 1, "token")
            await trio.sleep(0.5)
            store.network.failing = {"finish"}  # the reply is lost
            await trio.sleep(1)
            store.network.failing, store.network.slow = set(), {}
            assert await messages.receive() == End(2, Completed("done"))
