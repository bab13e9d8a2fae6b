"""An id that is given anew once its job is removed: nobody takes the new job for the old one."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Cancelled, Completed, End, JobContext, JobState, Restart, Token, UnknownJobError
from jobtrio._known import KnownEntries
from jobtrio.cli._follow import follow
from jobtrio.testing._workers import new_entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trio.testing import MockClock

    from jobtrio import JobRegistry
    from jobtrio.abc import JobStore

ID = "nightly"

executors = jobtrio.Executors()


@executors.register("echo")
async def echo(job: JobContext) -> str:
    """Send the payload twice, and return it."""
    await job.send(job.payload)
    await trio.sleep(10)
    await job.send(job.payload)
    return f"{job.payload} {job.attempt}"


@pytest.mark.parametrize("make", [lambda: None, lambda: RemoteStore(Server())], ids=["memory", "remote"])
async def test_an_id_is_given_anew(make: Callable[[], JobStore | None], autojump_clock: MockClock) -> None:
    """Who holds the old job keeps it; the new one runs with what it was given, and has an end of its own."""
    async with jobtrio.open_registry(executors, store=make()) as registry:
        old = await registry.submit("echo", "old", job_id=ID)
        assert await old.wait() == Completed("old 1")
        await registry.remove(ID)
        new = await registry.submit("echo", "new", job_id=ID)
        assert new != old
        assert (await registry.get(ID)) == new
        assert new.outcome is None
        await trio.sleep(1)
        assert new.state is JobState.RUNNING
        assert not await old.cancel("by mistake")
        with pytest.raises(ValueError, match="grace"):
            await old.cancel(grace=-1)
        assert await new.wait() == Completed("new 1")
        assert old.outcome == Completed("old 1")
        async with new.subscribe() as messages:
            assert await messages.receive_batch() == [
                Token(1, 1, "new"),
                Token(2, 1, "new"),
                End(3, Completed("new 1")),
            ]


@pytest.mark.parametrize("holds", [True, False])
async def test_a_stream_is_not_continued_by_another(holds: bool, autojump_clock: MockClock) -> None:
    """Whoever missed the end of a job in another process is told so, and gets nothing of its successor."""
    server = Server()
    shown: list[jobtrio.Message] = []

    async def show(batch: list[jobtrio.Message]) -> None:
        shown.extend(batch)

    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
        jobtrio.open_registry(store=(store := RemoteStore(server)), queues={}) as here,
    ):
        await there.submit("echo", "old", job_id=ID)
        await trio.sleep(1)
        job = await here.get(ID)
        messages = job.subscribe()
        assert await messages.receive() == Token(1, 1, "old")
        if not holds:
            del job
        store.network.away = True
        await (await there.get(ID)).wait()
        await there.remove(ID)
        await there.submit("echo", "new", job_id=ID)
        await trio.sleep(5)
        store.network.away = False
        with pytest.raises(trio.BrokenResourceError, match="no longer kept"):
            await messages.receive()
        if holds:
            with pytest.raises(UnknownJobError):
                await job.span()
            with pytest.raises(UnknownJobError):
                await follow(here, job, show)
            assert shown == [Token(1, 1, "old")]


async def test_a_job_that_is_removed_as_its_end_is_read(autojump_clock: MockClock) -> None:
    """Where a job is gone by the time that its record is read behind its end, what stands for it has ended as well."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
        jobtrio.open_registry(store=(store := RemoteStore(server)), queues={}) as here,
    ):
        await there.submit("echo", "old", job_id=ID)
        job = await here.get(ID)
        messages = job.subscribe()
        await messages.receive()
        await (await there.get(ID)).wait()
        store.network.slow = {"read_messages": 1}
        store.settings.listener.messages_added(ID)
        await trio.sleep(0.5)  # the answer with the end is on its way
        await there.remove(ID)
        assert [message async for message in messages] == [Token(2, 1, "old"), End(3, Completed("old 1"))]
        assert (job.outcome, job.state, job.record.result) == (Completed("old 1"), JobState.COMPLETED, "old 1")


async def test_waiting_for_a_job_that_is_removed_as_soon_as_it_has_ended(autojump_clock: MockClock) -> None:
    """Whoever waits gets the outcome of a job that is looked up and removed before its stream has brought the end."""
    server = Server()
    outcomes: list[jobtrio.Outcome] = []

    async def wait() -> None:
        outcomes.append(await job.wait())

    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
        jobtrio.open_registry(store=(store := RemoteStore(server)), queues={}) as here,
        trio.open_nursery() as nursery,
    ):
        await there.submit("echo", "old", job_id=ID)
        job = await here.get(ID)
        nursery.start_soon(wait)
        await trio.sleep(1)
        store.network.failing = {"read_messages"}
        await (await there.get(ID)).wait()
        assert (await here.get(ID)).outcome == Completed("old 1")
        await here.remove(ID)
    assert outcomes == [Completed("old 1")]


@asynccontextmanager
async def old_end_unanswered() -> AsyncIterator[tuple[RemoteStore, JobRegistry, JobRegistry, jobtrio.Job]]:
    """Give two registries, the first with its store, and a job that has ended, which only the second knows yet."""
    server = Server()
    store = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=store, lease=9, max_running=2) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        old = await here.submit("echo", "old", job_id=ID)
        store.network.slow = {"finish": 8}
        await (await there.get(ID)).wait()
        yield store, here, there, old


async def test_a_request_that_came_too_late(autojump_clock: MockClock) -> None:
    """A request to cancel whose job had come to its end is not made again of the job that has its id by then."""
    async with old_end_unanswered() as (store, _, there, old):
        assert not await old.cancel("too late")
        store.network.failing = {"finish"}  # the reply is lost
        await there.remove(ID)
        new = await there.submit("echo", "new", job_id=ID)
        await trio.sleep(20)
        store.network.failing, store.network.slow = set(), {}
        assert await new.wait() == Completed("new 1")


async def test_a_request_whose_job_is_gone(autojump_clock: MockClock) -> None:
    """A request to cancel whose job had come to its end, and was removed, is not made again."""
    async with old_end_unanswered() as (store, here, there, old):
        assert not await old.cancel("too late")
        store.network.failing = {"finish"}  # the reply is lost
        await there.remove(ID)
        await trio.sleep(20)
        store.network.failing, store.network.slow = set(), {}
        with pytest.raises(jobtrio.UnknownJobError):
            await here.get(ID)


@pytest.mark.parametrize("by_handle", [True, False])
async def test_a_request_while_the_old_end_is_not_answered(autojump_clock: MockClock, by_handle: bool) -> None:
    """A job is cancelled although the process that it is asked in does not know yet that the old one has ended."""
    async with old_end_unanswered() as (_, here, there, old):
        await there.remove(ID)
        new = await here.submit("echo", "new", job_id=ID)
        assert old.outcome is None
        assert not await old.cancel("late")  # its end is decided
        assert await (new.cancel("now") if by_handle else here.cancel(ID, "now"))
        assert await new.wait() == Cancelled("now")
        assert await old.wait() == Completed("old 1")


async def test_an_end_while_the_old_one_is_not_answered(autojump_clock: MockClock) -> None:
    """Whoever watches the new job gets all that it sent before its end, although the old one's is not answered yet."""
    own, policy = jobtrio.Executors(), jobtrio.RetryPolicy(initial=100)

    @own.register("echo")
    async def fail(job: JobContext) -> None:
        await job.send(job.payload)
        raise ValueError

    server = Server()
    store = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=store, lease=9, queues={"here": 1}) as here,
        jobtrio.open_registry(own, store=RemoteStore(server), queues={"there": 1}) as there,
    ):
        old = await here.submit("echo", "old", job_id=ID, queue="here")
        store.network.slow = {"finish": 8}
        await (await there.get(ID)).wait()
        await there.remove(ID)
        store.network.slow |= {"read_messages": 3}
        new = await here.submit("echo", "new", job_id=ID, queue="there", retry=policy)
        messages = new.subscribe()
        await trio.sleep(1)
        assert old.outcome is None
        assert await new.cancel("now")
        assert [type(message) for message in [m async for m in messages]] == [Token, Restart, End]


async def test_a_handle_of_a_job_that_is_gone(autojump_clock: MockClock) -> None:
    """Who asks a job to end, and has missed that it did, does not ask the job that has its id by then."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
        jobtrio.open_registry(store=RemoteStore(server), queues={}) as here,
    ):
        await there.submit("echo", "old", job_id=ID)
        old = await here.get(ID)
        await (await there.get(ID)).wait()
        await there.remove(ID)
        with pytest.raises(UnknownJobError):
            await old.cancel("too late")
        new = await there.submit("echo", "new", job_id=ID)
        await trio.sleep(1)
        assert not await old.cancel("by mistake")
        assert await new.wait() == Completed("new 1")
        assert not await old.cancel("by mistake")


async def test_a_handle_of_a_job_that_is_gone_where_another_ends(autojump_clock: MockClock) -> None:
    """Nor does it have the new job cancelled, should the end of that, which is decided here, not be written in time."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=RemoteStore(server)) as there:
        await there.submit("echo", "old", job_id=ID)
        await trio.sleep(1)
        async with jobtrio.open_registry(executors, store=store, lease=9) as here:
            old = await here.get(ID)
            await (await there.get(ID)).wait()
            await there.remove(ID)
            new = await here.submit("echo", "new", job_id=ID)
            await there.shutdown()
            await trio.sleep(1)
            store.network.failing = {"finish"}
            await trio.sleep(12)
            assert new.state is JobState.RUNNING
            assert not await old.cancel("by mistake")
            store.network.failing.add("renew")
            await trio.sleep(12)
            store.network.failing.clear()
            assert await new.wait() == Completed("new 2")


def test_an_answer_about_the_former_job() -> None:
    """What is answered late about a job whose id another one has by then does not stand for that one."""
    known = KnownEntries()
    old, new = new_entry(job_id=ID), new_entry(job_id=ID)
    old.order, new.order = 1, 2
    assert known.entry_of(new) is new
    assert known.entry_of(old) is old
    assert known.get(ID) is new
    known.forget(old)
    assert known.get(ID) is new
    known.forget(new)
    assert known.get(ID) is None


async def test_room_where_the_old_job_is_not_gone(autojump_clock: MockClock) -> None:
    """Where the new job waits for the old one to go, in another queue, each counts in its own."""

    @(own := jobtrio.Executors()).register("stubborn")
    async def stubborn(job: JobContext) -> None:
        with trio.CancelScope(shield=job.attempt == 1):
            await trio.sleep(60)

    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(own, store=store, lease=9, queues={"a": 1, "b": 1}) as here:
        await here.submit("stubborn", job_id=ID, queue="a")
        await trio.sleep(1)
        store.network.away = True
        async with jobtrio.open_registry(own, store=RemoteStore(server), queues={}) as there:
            old = await there.get(ID)
            assert await old.cancel()
            await old.wait()  # until its lease is over
            await there.remove(ID)
            store.network.away = False
            new = await there.submit("stubborn", job_id=ID, queue="b")
            await trio.sleep(10)
            assert (await there.get(ID)).state is JobState.RUNNING
            assert here.stats().running_by_queue == {"a": 1, "b": 1}
            await new.wait()
            assert here.stats().running_by_queue == {}
            again = [await there.submit("stubborn", queue=queue) for queue in ("a", "b", "a", "b")]
            await trio.sleep(10)
            states = [(await there.get(job.id)).state.value for job in again]
            assert states == ["RUNNING", "RUNNING", "QUEUED", "QUEUED"]
            for job in again:
                await job.cancel()
