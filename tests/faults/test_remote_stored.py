"""Reading only what is stored: numbers that mean the same in every process and after a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    End,
    Executors,
    Gap,
    JobContext,
    Progress,
    Restart,
    RetryPolicy,
    StoreUnavailableError,
    StreamSpan,
    Subscription,
    Token,
)
from jobtrio._token_log import TokenLog

if TYPE_CHECKING:
    from trio.testing import MockClock

executors = Executors()


@executors.register("count")
async def count(job: JobContext) -> None:
    for number in range(1, 6):
        await job.send(number)
        await trio.sleep(1)


@executors.register("fail once", retry=RetryPolicy(2, initial=1))
async def fail_once(job: JobContext) -> None:
    await job.send(job.attempt)
    if job.attempt == 1:
        raise ValueError


async def test_waits_for_the_store(autojump_clock: MockClock) -> None:
    """While the store is away a reader of what is stored gets nothing, though others see what is sent; then all."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("count")
        stored, live = job.subscribe(stored=True), job.subscribe()
        assert await stored.receive() == Token(1, 1, 1)
        store.network.failing = {"append_messages"}
        await trio.sleep(3)
        assert len(await live.receive_batch()) == 4
        with pytest.raises(trio.WouldBlock):
            stored.receive_nowait()
        with trio.move_on_after(0.5) as scope:
            await stored.receive()
        assert scope.cancelled_caught
        store.network.failing = set()
        assert [message async for message in stored] == [
            *(Token(n, 1, n) for n in range(2, 6)),
            End(6, Completed(None)),
        ]


async def test_the_rest_comes_with_the_end(autojump_clock: MockClock) -> None:
    """What was never handed over before the end is stored with it, and read then."""
    store = RemoteStore(Server())
    store.network.failing = {"append_messages"}
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("count")
        got = [message async for message in job.subscribe(stored=True)]
        assert [getattr(message, "seq", 0) for message in got] == [1, 2, 3, 4, 5, 6]


async def test_over_attempts(autojump_clock: MockClock) -> None:
    """A reader of what is stored goes on through a retry."""
    store = RemoteStore(Server())
    store.network.failing = {"append_messages"}
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("fail once")
        got = [type(message).__name__ async for message in job.subscribe(stored=True)]
        assert got == ["Token", "Restart", "Token", "End"]


async def test_what_is_stored_with_a_retry(autojump_clock: MockClock) -> None:
    """What is stored with the end of a failed attempt is read at once, and not when the next one sends."""
    store = RemoteStore(Server())
    store.network.failing = {"append_messages"}
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("fail once")
        reader = job.subscribe(stored=True)
        assert await reader.receive() == Token(1, 1, 1)
        assert isinstance(await reader.receive(), Restart)
        assert job.state == "RETRYING"


async def test_of_a_run_that_is_lost(autojump_clock: MockClock) -> None:
    """What a run sent that lost its lease and could not store it is never read; the next run's messages are."""
    server = Server()
    lost = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=lost, lease=2) as first,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job = await first.submit("count")
        reader = job.subscribe(stored=True)
        assert await reader.receive() == Token(1, 1, 1)
        lost.network.away = True
        await trio.sleep(10)
        lost.network.away = False
        seen: list[Any] = []
        try:
            async for message in reader:
                seen.append(message)
        except trio.BrokenResourceError:
            seen += [message async for message in job.subscribe(1, stored=True)]
        there_job = await there.get(job.id)
        stored = [message async for message in there_job.subscribe(1)]
        assert seen == stored


@pytest.mark.parametrize("by", ["a lapse", "a request"])
async def test_of_a_run_that_lost_its_job_as_it_was_to_end(autojump_clock: MockClock, by: str) -> None:
    """Where a job is ended while the end that its run has decided is on its way, what only this run has is no part."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, lease=4) as here:
        job = await here.submit("count")
        readers = [job.subscribe(), job.subscribe(stored=True)]
        await trio.sleep(1.5)
        store.network.failing = {"append_messages"}
        await trio.sleep(3)
        if by == "a lapse":
            assert await here.cancel(job.id, "enough", grace=60)
        store.network.hanging, store.network.failing = {"finish"}, {"append_messages", "renew", "claim"}
        if by == "a request":
            await trio.sleep(6)  # its lease is over
            assert await here.cancel(job.id, "enough")
        for reader in readers:
            with trio.fail_after(30), pytest.raises(trio.BrokenResourceError, match="subscribe again"):
                print([message async for message in reader])  # which would come to an end with an `End`
        again = [message async for message in job.subscribe(stored=True)]
    async with jobtrio.open_registry(store=RemoteStore(server), queues={}) as there:
        stored = [message async for message in (await there.get(job.id)).subscribe()]
    assert again == stored
    assert stored[-1] == End(len(stored), Cancelled("enough"))


async def test_a_gap_ends_where_the_store_does() -> None:
    """Of messages that are dropped before they were stored, only the stored ones are reported gone."""
    log = TokenLog(10)
    log.set_stored(0)
    reader = Subscription(log, on_gap="yield", stored=True)
    for n in range(40):
        log.send(1, n)
    with pytest.raises(trio.WouldBlock):
        reader.receive_nowait()
    log.set_stored(5)
    assert reader.receive_nowait() == Gap(1, 5)
    with pytest.raises(trio.WouldBlock):
        reader.receive_nowait()
    log.set_stored(None)
    assert reader.receive_nowait() == Gap(6, 30)
    assert reader.receive_nowait() == Token(31, 1, 30)


async def test_ahead_of_what_is_stored() -> None:
    """A reader that begins ahead of what is stored gets nothing until that has come to where it is."""
    log = TokenLog(10)
    log.set_stored(0)
    for n in range(40):
        log.send(1, n)
    reader = Subscription(log, 18, on_gap="yield", stored=True)
    with pytest.raises(trio.WouldBlock):
        reader.receive_nowait()
    log.set_stored(31)
    assert [reader.receive_nowait(), reader.receive_nowait()] == [Gap(19, 30), Token(31, 1, 30)]
    with pytest.raises(trio.WouldBlock):
        reader.receive_nowait()


async def test_batches_of_what_is_stored() -> None:
    """A reader of what is stored gets no more at once than it asks for."""
    log = TokenLog(10)
    log.set_stored(0)
    for n in range(5):
        log.send(1, n)
    log.set_stored(4)
    reader = Subscription(log, stored=True)
    assert [len(await reader.receive_batch(max=most)) for most in (3, 3)] == [3, 1]


async def test_where_all_is_stored() -> None:
    """A reader of what is stored waits for what comes, also where whatever is here is stored, as in memory."""
    log = TokenLog(10)
    reader = Subscription(log, stored=True)
    got: list[Any] = []

    async def read() -> None:
        got.append(await reader.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        log.send(1, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert got == [Token(1, 1, "a")]


async def test_tokens_do_not_wake_those_who_wait_for_the_store() -> None:
    """A token that is not stored yet costs a waiting reader of stored ones no step."""
    log = TokenLog(100)
    log.set_stored(0)
    woken: list[int] = []

    async def wait() -> None:
        await log.wait_beyond(0, stored=True)
        woken.append(log.last)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        log.send(1, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        log.set_stored(1)
    assert woken == [1]


async def test_a_cancelled_wait_is_forgotten() -> None:
    """A reader that leaves while it waits for the store leaves nothing behind."""
    log = TokenLog(100)
    log.set_stored(0)
    with trio.CancelScope() as scope:
        scope.cancel()
        await log.wait_beyond(0, stored=True)
    assert scope.cancelled_caught
    assert not log._idle_stored


async def test_span(autojump_clock: MockClock) -> None:
    """The span of a stream is what is stored by now, also for a process that has read nothing of it yet."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job = await here.submit("count")
        await trio.sleep(2.5)
        assert await (await there.get(job.id)).span() == StreamSpan(1, 3, False)
        await job.wait()
        assert await (await there.get(job.id)).span() == StreamSpan(1, 6, True)
        assert await job.span() == StreamSpan(1, 6, True)


async def test_span_tells_the_progress(autojump_clock: MockClock) -> None:
    """The newest progress is that which is stored by now, for whoever asks and wherever the job runs."""
    server = Server()
    store = RemoteStore(server)

    @executors.register("progress")
    async def progress(job: JobContext) -> None:
        for done in range(1, 4):
            job.progress(done, 3)
            await job.send(done)
            await trio.sleep(1)

    async with (
        jobtrio.open_registry(executors, store=store) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job = await here.submit("progress")
        await trio.sleep(1.5)
        for handle in (job, await there.get(job.id)):
            assert await handle.span() == StreamSpan(1, 4, False, Progress(3, 1, 2, 3, None))
        store.network.away = True
        await trio.sleep(1)
        assert (await job.span()).progress == Progress(3, 1, 2, 3, None)
        store.network.away = False
        await job.wait()
        for handle in (job, await there.get(job.id)):
            assert await handle.span() == StreamSpan(1, 7, True, Progress(5, 1, 3, 3, None))


@pytest.mark.parametrize("sent", [0, 3000])
async def test_span_of_a_job_that_never_pauses(autojump_clock: MockClock, sent: int) -> None:
    """Where a job sends faster than a process far away can ask, that is told what there was as it began to ask."""
    server = Server()
    stop = trio.Event()

    @executors.register(f"never pause {sent}")
    async def never_pause(job: JobContext) -> None:
        for number in range(sent):
            job.send_nowait(number)
        while not stop.is_set():
            await job.send(None)
            await trio.sleep(0.01)

    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server, latency=0.001)) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server, latency=0.1), queues={}) as there,
    ):
        job = await there.get((await here.submit(f"never pause {sent}")).id)
        await trio.sleep(2)
        stored = await server_span(server, job.id)
        with trio.fail_after(10):
            span = await job.span()
        assert span.first == 1
        assert span.last >= stored
        stop.set()


async def test_span_while_the_ending_is_on_its_way(autojump_clock: MockClock) -> None:
    """That a job has ended may be known before its `End` is here; the stream is complete only then."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("count")
        store.network.slow["finish"] = 5
        await trio.sleep(6)
        job = await registry.get(job.id)
        assert job.outcome == Completed(None)
        assert await job.span() == StreamSpan(1, 5, False)
        await trio.sleep(5)
        assert await job.span() == StreamSpan(1, 6, True)


async def test_span_while_the_store_is_away(autojump_clock: MockClock) -> None:
    """Where the store can't be asked, there is an error instead of a guess."""
    server = Server()
    away = RemoteStore(server, outage_limit=5)
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as here,
        jobtrio.open_registry(executors, store=away, queues={}) as there,
    ):
        job = await there.get((await here.submit("count")).id)
        away.network.away = True
        with pytest.raises(StoreUnavailableError):
            await job.span()


async def test_span_of_what_is_stored_and_no_longer_kept(autojump_clock: MockClock) -> None:
    """Where all that is stored was overtaken by what is not stored yet, nothing can be read by now."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, retention=jobtrio.Retention(tokens_per_job=2)) as registry:
        job = await registry.submit("count")
        await trio.sleep(0.5)
        store.network.away = True
        await trio.sleep(3)
        assert await job.span() == StreamSpan(2, 1, False)
        store.network.away = False
        await job.wait()
        assert await job.span() == StreamSpan(4, 6, True)


async def test_span_in_memory() -> None:
    """In memory, the span is of all that was sent and is kept."""
    async with jobtrio.open_registry(retention=jobtrio.Retention(tokens_per_job=3)) as registry:

        async def send(job: JobContext) -> None:
            for n in range(10):
                await job.send(n)

        job = await registry.submit(send, delay=0.01)
        assert await job.span() == StreamSpan(1, 0, False)
        await job.wait()
        assert await job.span() == StreamSpan(8, 11, True)


async def test_span_while_a_worker_takes_over(autojump_clock: MockClock) -> None:
    """A worker that has claimed a lost job, and not yet read what is stored of it, does not take it for empty."""
    server = Server()
    lost, successor = RemoteStore(server), RemoteStore(server)
    successor.network.slow["read_messages"] = 3
    async with jobtrio.open_registry(executors, store=lost, lease=2) as first:
        job_id = (await first.submit("count")).id
        await trio.sleep(2.5)
        lost.network.away = True
        async with jobtrio.open_registry(executors, store=successor, lease=2) as second:
            while (job := await second.get(job_id)).record.attempt == 1:  # noqa: ASYNC110
                await trio.sleep(0.1)
            stored = await server_span(server, job_id)
            assert stored > 2
            assert (await job.span()).last >= stored
            follows = await job.subscribe(stored, stored=True).receive()
            assert not isinstance(follows, Gap)
            assert follows.seq == stored + 1
            lost.network.away = False


async def server_span(server: Server, job_id: str) -> int:
    """Return the last number that the server has of a job."""
    async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as registry:
        return (await (await registry.get(job_id)).span()).last
