"""Two workers on one store of another machine: the work is shared, and each sees what the other does."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import trio
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import (
    Completed,
    End,
    Executors,
    JobContext,
    JobSpec,
    JobState,
    LaggedError,
    Progress,
    Restart,
    Retention,
    RetryPolicy,
    Token,
    UnknownJobError,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

executors = Executors()


@executors.register("count")
async def count(job: JobContext) -> dict[str, int]:
    for number in range(job.payload):
        await job.send({"n": number})
        await trio.sleep(0.1)
    job.progress(job.payload, note="all")
    return {"sent": job.payload}


@executors.register("flaky", retry=RetryPolicy(initial=0.5, jitter=0))
async def flaky(job: JobContext) -> int:
    await job.send(job.attempt)
    if job.attempt < 3:
        raise ValueError("not yet")
    return job.attempt


@executors.register("silent")
async def silent(job: JobContext) -> None:
    """End without a wait."""


def counted(n: int) -> list[jobtrio.Message]:
    """Return the whole stream of ``count``."""
    tokens = [Token(seq, 1, {"n": seq - 1}) for seq in range(1, n + 1)]
    return [*tokens, Progress(n + 1, 1, n, None, "all"), End(n + 2, Completed({"sent": n}))]


async def test_end_to_end(autojump_clock: MockClock) -> None:
    """A job is submitted, runs, streams and ends in one process, and the store has all of it."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, worker="w") as registry:
        job = await registry.submit("count", 3, tags={"a": "b"})
        with job.subscribe() as messages:
            assert [message async for message in messages] == counted(3)
        assert job.outcome == Completed({"sent": 3})
        assert await job.result() == {"sent": 3}
        record = (await registry.find(tags={"a": "b"}))[0]
        assert (record.state, record.result, record.worker) == ("COMPLETED", {"sent": 3}, "w")
        assert [line.state for line in await registry.history(job.id)] == ["QUEUED", "RUNNING", "COMPLETED"]
        assert await store.read_messages(job.id, 0, 100) == counted(3)


async def test_what_runs_here_is_not_read_from_the_store(autojump_clock: MockClock) -> None:
    """A job that runs where it is watched is watched without asking the store."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("count", 100)
        with job.subscribe() as messages:
            await messages.receive()
            before = len(store.network.calls)
            for _ in range(98):
                await messages.receive()
            assert "read_messages" not in store.network.calls[before:]
        await job.wait()


async def test_retries(autojump_clock: MockClock) -> None:
    """Retried in one process, the stream has its `Restart` messages once, here as in the store."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("flaky")
        with job.subscribe() as messages:
            seen = [message async for message in messages]
        assert [type(message) for message in seen] == [Token, Restart, Token, Restart, Token, End]
        assert [message.seq for message in seen if not isinstance(message, jobtrio.Gap)] == [1, 2, 3, 4, 5, 6]
        assert await store.read_messages(job.id, 0, 100) == seen


async def test_watched_elsewhere(autojump_clock: MockClock) -> None:
    """A job that is submitted here and runs there is watched here, with the same numbers and its outcome."""
    server = Server()
    async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as here:
        job = await here.submit("count", 5)
        waiting = await here.submit("flaky")
        with job.subscribe() as messages:
            async with jobtrio.open_registry(executors, store=RemoteStore(server), worker="there") as there:
                assert [message async for message in messages] == counted(5)
                assert job.outcome == Completed({"sent": 5})
                assert (job.state, job.record.worker) == (JobState.COMPLETED, "there")
                with (await there.get(waiting.id)).subscribe() as others:
                    seen_there = [message async for message in others]
        assert await waiting.wait() == Completed(3)
        with waiting.subscribe() as messages:
            assert [message async for message in messages] == seen_there


async def test_no_job_runs_twice(autojump_clock: MockClock) -> None:
    """Forty jobs, submitted at both, are shared between two workers, and each runs once."""
    runs: Counter[Any] = Counter()
    workers: Counter[str | None] = Counter()
    shared = Executors()

    @shared.register("work")
    async def work(job: JobContext) -> None:
        runs[job.payload] += 1
        await trio.sleep(0.2)

    server = Server()
    async with (
        jobtrio.open_registry(shared, store=RemoteStore(server), max_running=4, worker="a") as a,
        jobtrio.open_registry(shared, store=RemoteStore(server, latency=0.013), max_running=4, worker="b") as b,
    ):
        jobs = [await (a, b)[n % 2].submit("work", n) for n in range(40)]
        for job in jobs:
            assert await job.wait() == Completed(None)
        for record in await a.find():
            workers[record.worker] += 1
    assert runs == dict.fromkeys(range(40), 1)
    assert set(workers) == {"a", "b"}


async def test_watched_without_delay(autojump_clock: MockClock) -> None:
    """A watcher elsewhere sees each token as soon as the store has told of it."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server, latency=0.001), queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server, latency=0.001)),
    ):
        job = await here.submit("count", 5)
        arrived = []
        async for _ in job.tokens():
            arrived.append(trio.current_time())
        assert all(0.09 < later - earlier < 0.11 for earlier, later in itertools.pairwise(arrived))


async def test_peek(autojump_clock: MockClock) -> None:
    """At once a process has the handles of what runs in it and of what somebody in it holds, and of nothing else."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as elsewhere,
    ):
        job = await there.submit("count", 30)
        assert there.peek(job.id) == job
        assert elsewhere.peek(job.id) is None
        await trio.sleep(1)
        runs = here.peek(job.id)
        assert runs is not None
        assert runs.record.executor == "count"
        assert await job.wait() == Completed({"sent": 30})


async def test_a_lossless_consumer_in_another_process(autojump_clock: MockClock) -> None:
    """A job waits for no consumer in another process, however it has subscribed; that one is told what it missed."""
    server, kept = Server(), Retention(tokens_per_job=2)
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), retention=kept) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), retention=kept, queues={}) as there,
    ):
        job = await here.submit("count", 50)
        with (await there.get(job.id)).subscribe(lossless=True) as messages:
            await job.wait()
            with pytest.raises(LaggedError):
                await messages.receive()


async def test_a_lossless_consumer_of_a_job_whose_handle_is_gone(autojump_clock: MockClock) -> None:
    """A job that comes to run here waits for a consumer that has subscribed before, though nobody kept the handle."""
    kept = Retention(tokens_per_job=2)
    async with jobtrio.open_registry(executors, store=RemoteStore(Server()), retention=kept) as registry:
        with (await registry.submit("count", 50)).subscribe(lossless=True) as messages:
            gc.collect()
            seen = []
            async for message in messages:
                seen.append(message)
                await trio.sleep(1)
    assert len(seen) == 52


@pytest.mark.parametrize("name", ["count", "silent"])
async def test_an_ended_job_that_nobody_holds(name: str, autojump_clock: MockClock) -> None:
    """What has ended is held no longer than somebody has a handle of it, however long the leases are."""
    async with jobtrio.open_registry(executors, store=RemoteStore(Server()), lease=3600) as registry:
        ids = [(await registry.submit(name, 2)).id for _ in range(5)]
        for job_id in ids:
            await (await registry.get(job_id)).wait()
        await trio.sleep(1)
        gc.collect()
        assert [registry.peek(job_id) for job_id in ids] == [None] * 5
        assert len(registry) == 0


async def test_nobody_watches_any_more(autojump_clock: MockClock) -> None:
    """A stream is followed for as long as somebody could read it, and no longer."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, queues={}) as here:
        job = await here.submit("count", 2)
        job_id = job.id
        messages = job.subscribe()
        others = [job.subscribe() for _ in range(10)]
        with trio.move_on_after(3):
            await job.wait()
        del job
        before = len(store.network.calls)
        await trio.sleep(3)
        assert 1 <= store.network.calls[before:].count("read_messages") <= 3  # one look now and then for all of them
        again = await here.get(job_id)
        more = again.subscribe()
        await trio.sleep(1)
        async with jobtrio.open_registry(executors, store=RemoteStore(server)):
            for subscription in (messages, more, *others):
                assert [message async for message in subscription] == counted(2)
            assert await again.wait() == Completed({"sent": 2})
        before = len(store.network.calls)
        await trio.sleep(10)
        assert "read_messages" not in store.network.calls[before:]  # it has ended
        job = await here.submit("count", 2)
        messages = job.subscribe()
        await trio.sleep(1)
        del job, messages, again, others, more, subscription
        await trio.sleep(1)
        before = len(store.network.calls)
        await trio.sleep(10)
        assert "read_messages" not in store.network.calls[before:]
        assert len(here) == 0


async def test_removed_while_watched(autojump_clock: MockClock) -> None:
    """Who watches a job that is removed before its end arrived here gets an error; the end, if it was read, stands."""
    server = Server()
    store = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=store, queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
    ):
        lost, seen = await here.submit("count", 9), await here.submit("count", 2)
        with lost.subscribe() as messages:
            assert await seen.wait() == Completed({"sent": 2})
            store.network.away = True
            for job in (lost, seen):
                await (await there.get(job.id)).wait()
                await there.remove(job.id)
            store.network.away = False
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError, match="no longer kept"):
                async for _ in messages:
                    pass
        with pytest.raises(trio.BrokenResourceError, match="no longer kept"):
            await lost.wait()
        assert await seen.wait() == Completed({"sent": 2})


async def test_removed_here(autojump_clock: MockClock) -> None:
    """What a registry has removed is not in it, though there are handles that still tell of it; its id is free."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server)) as there,
    ):
        for registry in (here, there):
            waited, read, unseen = [await registry.submit("count", 2) for _ in range(3)]
            assert await waited.wait() == Completed({"sent": 2})
            assert [message async for message in read.subscribe()] == counted(2)
            await trio.sleep(10)
            assert len(registry) == 3
            for job in (waited, read, unseen):
                await registry.remove(job.id)
                assert job.id not in registry
                assert registry.peek(job.id) is None
            assert len(registry) == 0
            assert await waited.wait() == read.outcome == Completed({"sent": 2})
            assert [message async for message in read.subscribe()] == counted(2)
            assert await read.cancel() is False
            with pytest.raises(UnknownJobError):
                await registry.cancel(read.id)
            again = await registry.submit("count", 1, job_id=unseen.id)
            assert again.id in registry
            assert await again.wait() == Completed({"sent": 1})
            if registry is here:
                with pytest.raises(trio.BrokenResourceError, match="no longer kept"):
                    await unseen.wait()
            else:
                assert await unseen.wait() == Completed({"sent": 2})
            await registry.remove(again.id)


async def test_record_and_stream_go_on_together(autojump_clock: MockClock) -> None:
    """Who watches a job that runs elsewhere sees by its record that it does."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server)),
    ):
        job = await here.submit("count", 3)
        with job.subscribe() as messages:
            seen = [job.state async for message in messages if isinstance(message, Token)]
        assert seen == ["RUNNING"] * 3


async def test_record_and_stream_end_together(autojump_clock: MockClock) -> None:
    """A watcher's record says that the job has ended when its stream does, not before and not later."""
    server = Server()
    store = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=store, queues={}) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server)),
    ):
        for slow in ("read_messages", "load"):
            store.network.slow = {slow: 0.17}  # the job ends while an answer is under way
            job = await here.submit("count", 3)
            seen: list[jobtrio.Message] = []
            with job.subscribe() as messages:
                for _ in range(200):
                    await trio.sleep(0.01)
                    with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
                        while True:
                            seen.append(messages.receive_nowait())
                    assert (job.outcome is not None) == (seen[-1:] == counted(3)[-1:])
            assert seen == counted(3)
            assert job.state == JobState.COMPLETED


# -- limits over all workers


class Crowd:
    """An executor that notes how many run at once."""

    def __init__(self) -> None:
        self.executors = Executors()
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.executors.register("stay")(self.stay)

    async def stay(self, job: JobContext) -> None:
        self.running[job.queue] += 1
        self.most[job.queue] = max(self.most[job.queue], self.running[job.queue])
        try:
            await trio.sleep(1)
        finally:
            self.running[job.queue] -= 1


@pytest.mark.parametrize("latency", [0.01, 0.3])
async def test_max_running_total(autojump_clock: MockClock, latency: float) -> None:
    """However many workers there are, no more jobs of a queue run than all together may, and each end makes room."""
    server, crowd = Server(), Crowd()

    def open_worker() -> Any:
        store = RemoteStore(server, latency=latency)
        store.poll_interval = 1000.0
        return jobtrio.open_registry(crowd.executors, store=store, max_running_total={"few": 3}, max_running=5)

    async with open_worker() as a, open_worker(), open_worker():
        began = trio.current_time()
        jobs = await a.submit_many([JobSpec("stay", queue=queue) for _ in range(12) for queue in ("few", "free")])
        for job in jobs:
            assert await job.wait() == Completed(None)
        assert trio.current_time() - began < 12 * 3  # not by the poll
    assert crowd.most["few"] == 3
    assert crowd.most["free"] > 3


@pytest.mark.parametrize("queues", [None, {"few": 5, "free": 5}])
async def test_max_running_total_in_memory(autojump_clock: MockClock, queues: dict[str, int] | None) -> None:
    """In memory the only worker keeps to it as well."""
    crowd = Crowd()
    async with jobtrio.open_registry(crowd.executors, max_running_total={"few": 3}, queues=queues) as registry:
        began = trio.current_time()
        jobs = [await registry.submit("stay", queue=queue) for _ in range(12) for queue in ("few", "free")]
        for job in jobs:
            assert await job.wait() == Completed(None)
        assert trio.current_time() - began == pytest.approx(4)
    assert crowd.most["few"] == 3
    assert crowd.most["free"] == 12 if queues is None else 5


async def test_workers_and_counts(autojump_clock: MockClock) -> None:
    """Who claims jobs is among the workers, until it leaves or its lease is over; who only watches is not."""
    server = Server()
    lost = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}, worker="watcher") as watcher,
        jobtrio.open_registry(executors, store=RemoteStore(server), worker="busy", lease=3.0),
        jobtrio.open_registry(executors, store=lost, worker="lost", lease=3.0, queues={"other": 1}),
    ):
        job = await watcher.submit("count", 100)
        async with jobtrio.open_registry(executors, store=RemoteStore(server), worker="idle", queues={"other": 1}):
            await trio.sleep(1)
            assert [(each.name, each.running) for each in await watcher.workers()] == [
                ("busy", 1),
                ("idle", 0),
                ("lost", 0),
            ]
            assert await watcher.counts() == {"default": {state: int(state == "RUNNING") for state in JobState}}
        assert [each.name for each in await watcher.workers()] == ["busy", "lost"]
        lost.network.away = True
        await trio.sleep(4)
        assert [each.name for each in await watcher.workers()] == ["busy"]
        lost.network.away = False
        await trio.sleep(2)
        assert [each.name for each in await watcher.workers()] == ["busy", "lost"]
        assert await job.result() == {"sent": 100}


async def test_workers_in_memory() -> None:
    """A registry in memory is its own only worker."""
    async with jobtrio.open_registry(worker="me") as registry:
        (me,) = await registry.workers()
        assert (me.name, me.running) == ("me", 0)
        assert await registry.counts() == {}


async def test_drain_leaves_to_others_what_is_theirs(autojump_clock: MockClock) -> None:
    """`drain` waits for no job whose executor only others have."""
    server, theirs = Server(), Executors()
    theirs.register("theirs")(count)
    async with (
        jobtrio.open_registry(theirs, store=RemoteStore(server), queues={}) as other,
        jobtrio.open_registry(executors, store=RemoteStore(server)) as registry,
    ):
        waiting = await other.submit("theirs", 1)
        mine = await registry.submit("count", 1)
        await registry.drain()
        assert mine.outcome is not None
        assert waiting.outcome is None


async def test_claimed_while_it_is_watched(autojump_clock: MockClock) -> None:
    """An attempt has what the one before it saved elsewhere, though who watches here sees first that it runs."""
    begun: list[Any] = []
    resuming = Executors()

    @resuming.register("resume")
    async def resume(job: JobContext) -> None:
        begun.append(job.saved_state)
        if job.attempt == 1:
            await trio.sleep(1)
            await job.save_state("saved")
            await trio.sleep_forever()

    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(resuming, store=RemoteStore(server)) as there:
        job_id = (await there.submit("resume")).id
        await trio.sleep(0.5)
        async with jobtrio.open_registry(resuming, store=store) as here:
            job = await here.get(job_id)
            store.network.slow["claim"] = 2
            with job.subscribe() as messages:
                await trio.sleep(1)
                await there.shutdown()
                assert isinstance(await messages.receive(), jobtrio.Restart)
                while job.state is not JobState.RUNNING:
                    await trio.sleep(0.1)
                    await job.span()  # looks at once
                assert begun == [None]
                assert isinstance(await messages.receive(), End)
    assert begun == [None, "saved"]


async def test_a_held_job_was_submitted_by_its_submitter(autojump_clock: MockClock) -> None:
    """The history of a held job begins with who submitted it, also when another process has started it."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server), worker="submitter", queues={}) as submitter,
        jobtrio.open_registry(executors, store=RemoteStore(server), worker="starter") as starter,
    ):
        job = await submitter.create_job(1)
        async with starter.execute_and_stream(job.id, "count") as lines:
            assert [line async for line in lines][-1] == "[DONE]"
        for registry in (submitter, starter):
            workers = [change.worker for change in await registry.history(job.id)]
            assert workers == ["submitter", "starter", "starter"]
