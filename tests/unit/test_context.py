"""What an executor is given: the job as it sees it, and the sending side of its stream."""

from __future__ import annotations

import inspect
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from other_numbers import Whole

from jobtrio import (
    Completed,
    End,
    Executors,
    Failed,
    JobContext,
    JobEndedError,
    JobPriority,
    JobRegistry,
    JobSpec,
    PayloadError,
    Progress,
    RetryLater,
    RetryPolicy,
    Subscription,
    ThreadJobContext,
    Token,
    open_registry,
)
from jobtrio._entry import JobEntry, Plan
from jobtrio._token_log import TokenLog
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from trio.testing import MockClock


REGISTRY: Any = object()
"""Stands for the registry, of which a context makes nothing."""


class Bench:
    """A context of a job, with what stands around it."""

    def __init__(self, nursery: trio.Nursery, limit: int, prepare: Callable[[Any], Any] | None) -> None:
        plan = Plan("work", None, "gpu", JobPriority.HIGH, None, RetryPolicy(), "w")
        self.entry = JobEntry("id", plan, {"p": 1}, 0.0, tags={"t": "1"}, metadata={"m": [1]}, attempt=2)
        self.log = TokenLog(limit)
        self.opened = 0
        self.saved: list[Any] = []
        self.context = JobContext(self.entry, nursery, REGISTRY, self.open_log, self.save, prepare)

    def open_log(self, entry: JobEntry) -> TokenLog:
        """Count how often the log is asked for."""
        assert entry is self.entry
        self.opened += 1
        return self.log

    async def save(self, entry: JobEntry, value: Any) -> None:
        """Keep a state."""
        assert entry is self.entry
        await trio.lowlevel.checkpoint()
        self.saved.append(value)


@asynccontextmanager
async def open_bench(limit: int = 10, prepare: Callable[[Any], Any] | None = None) -> AsyncIterator[Bench]:
    """Open a bench with a nursery of its own."""
    async with trio.open_nursery() as nursery:
        yield Bench(nursery, limit, prepare)
        nursery.cancel_scope.cancel()


async def test_what_it_shows() -> None:
    """The context shows the job, with copies of what could be changed."""
    async with open_bench() as bench:
        job = bench.context
        assert (job.id, job.payload, job.attempt, job.queue) == ("id", {"p": 1}, 2, "gpu")
        assert job.priority is JobPriority.HIGH
        assert job.cancel_scope is job.nursery.cancel_scope
        assert job.registry is REGISTRY
        assert job.deadline == math.inf
        job.cancel_scope.deadline = trio.current_time() + 5
        assert job.deadline == job.cancel_scope.deadline
        job.tags["t"] = job.metadata["m"] = "changed"
        assert (job.tags, job.metadata) == ({"t": "1"}, {"m": [1]})
        assert job.saved_state is None
        bench.entry.saved_state = 3
        assert job.saved_state == 3


async def test_plain_tags() -> None:
    """A job without tags and metadata has empty ones."""
    async with open_bench() as bench:
        bench.entry.tags = bench.entry.metadata = None
        assert (bench.context.tags, bench.context.metadata) == ({}, {})


async def test_stopping_is_one_event() -> None:
    """Looking at `stopping` is noted; the event behind it is always the same."""
    async with open_bench() as bench:
        job = bench.context
        event = job.stop_event()
        assert not job.watches_stopping
        assert job.stopping is event
        assert job.watches_stopping


async def test_sending() -> None:
    """Each way of sending appends at once, in order, and tells the number."""
    async with open_bench() as bench:
        job = bench.context
        assert await job.send("a") == 1
        assert job.send_nowait("b") == 2
        assert job.progress(1, 4, "note") == 3
        assert job.progress(0, 0) == 4
        assert bench.log.slice(0, 9) == [
            Token(1, 2, "a"),
            Token(2, 2, "b"),
            Progress(3, 2, 1, 4, "note"),
            Progress(4, 2, 0, 0, None),
        ]
        assert bench.opened == 1


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("name", ["send_nowait", "progress", "extend"])
async def test_sending_in_another_thread(name: str, durable: bool, tmp_path: Path) -> None:
    """Who sends in a thread that is not Trio's is told how it can, whoever waits for it, and nothing is sent."""
    executors = Executors()

    @executors.register("send there")
    async def send_there(job: JobContext) -> None:
        await trio.testing.wait_all_tasks_blocked()  # there may be somebody to be woken
        await trio.to_thread.run_sync(getattr(job, name), 1)

    store = SqliteJobStore(tmp_path / "jobs.db") if durable else None
    async with open_registry(executors, store=store) as registry:
        job = await registry.submit(send_there)
        async with job.subscribe() as messages:
            [end] = [message async for message in messages]
    assert isinstance(end, End)
    assert isinstance(end.outcome, Failed)
    assert end.outcome.error.type == "RuntimeError"
    assert f"trio.from_thread.run_sync(job.{name}, " in end.outcome.error.message


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("name", ["send", "save_state", "send_nowait", "progress", "extend"])
async def test_sending_in_another_run(name: str, durable: bool, tmp_path: Path) -> None:
    """Who sends by a `trio.run` in another thread is told how it can, nothing is sent, and the time limit stays."""
    executors = Executors()

    @executors.register("send there", time_limit=60)
    async def send_there(job: JobContext) -> None:
        async def other_run() -> None:
            sent = send(1)
            if inspect.isawaitable(sent):
                await sent

        await trio.testing.wait_all_tasks_blocked()  # there may be somebody to be woken
        send, before = getattr(job, name), job.deadline
        by = "run" if inspect.iscoroutinefunction(send) else "run_sync"
        with pytest.raises(RuntimeError, match=rf"trio\.from_thread\.{by}\(job\.{name}, "):
            await trio.to_thread.run_sync(trio.run, other_run)
        assert job.deadline == before

    store = SqliteJobStore(tmp_path / "jobs.db") if durable else None
    async with open_registry(executors, store=store) as registry:
        job = await registry.submit(send_there)
        async with job.subscribe() as messages:
            assert [message async for message in messages] == [End(1, Completed())]


async def test_a_silent_job_has_no_log() -> None:
    """The log is begun when something is sent, and not before."""
    async with open_bench() as bench:
        job = bench.context
        assert (job.id, job.deadline, job.saved_state) == ("id", math.inf, None)
        await job.save_state(1)
        assert bench.opened == 0


async def test_send_is_always_a_checkpoint() -> None:
    """`send` gives way, and sends nothing where the attempt is cancelled already."""
    async with open_bench() as bench:
        with trio.testing.assert_checkpoints():
            await bench.context.send("a")
        with trio.CancelScope() as scope:
            scope.cancel()
            await bench.context.send("b")
        assert scope.cancelled_caught
        assert bench.log.last == 1


async def test_what_was_sent_is_known_to_the_sender() -> None:
    """A `send` that has appended its token returns its number, also if it is cancelled while it gives way."""
    async with open_bench() as bench:

        async def cancel(scope: trio.CancelScope) -> None:
            scope.cancel()

        numbers: list[int] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, scope)
                numbers.append(await bench.context.send("a"))
        assert numbers == [1]
        assert bench.log.last == 1


async def test_lossless_consumers_hold_it_up() -> None:
    """`send` waits while a lossless consumer has not read what it would displace; `send_nowait` raises."""
    async with open_bench(limit=2) as bench:
        job = bench.context
        reader = Subscription(bench.log, lossless=True)
        job.send_nowait(1)
        job.send_nowait(2)
        with pytest.raises(trio.WouldBlock):
            job.send_nowait(3)
        sent: list[int] = []

        async def send() -> None:
            sent.append(await job.send(3))
            sent.append(await job.send(4))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            assert sent == []
            job.progress(1)
            assert [await reader.receive() for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
            assert sent == [4, 5]
            await reader.receive()
        reader.close()
        assert job.send_nowait(5) == 6


async def test_a_send_that_waits_is_cancelled() -> None:
    """A `send` that is cancelled while it waits for a consumer has sent nothing."""
    async with open_bench(limit=1) as bench:
        job = bench.context
        with Subscription(bench.log, lossless=True):
            job.send_nowait(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(job.send, 2)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
        assert bench.log.last == 1


async def test_a_send_that_waits_when_the_attempt_ends() -> None:
    """A `send` that waited while the attempt ended sends nothing more."""
    async with open_bench(limit=1) as bench:
        job = bench.context
        reader = Subscription(bench.log, lossless=True)
        job.send_nowait(1)

        async def send() -> None:
            with pytest.raises(JobEndedError):
                await job.send(2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            job.close()
            reader.close()
        assert bench.log.last == 1


async def test_a_send_that_waits_for_nobody_when_the_attempt_ends(autojump_clock: trio.testing.MockClock) -> None:
    """A `send` is told that the attempt is over also while the consumer that it waits for reads nothing."""
    async with open_bench(limit=1) as bench:
        job = bench.context
        with Subscription(bench.log, lossless=True):
            job.send_nowait(1)

            async def send() -> None:
                with pytest.raises(JobEndedError):
                    await job.send(2)

            with trio.move_on_after(1) as limit:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    await trio.testing.wait_all_tasks_blocked()
                    job.close()
        assert not limit.cancelled_caught


async def test_after_the_end() -> None:
    """Once the attempt is over all that sends raises, and what shows goes on showing."""
    async with open_bench() as bench:
        job = bench.context
        job.send_nowait("a")
        job.close()
        with pytest.raises(JobEndedError, match="this attempt of job 'id' is over"):
            await job.send("b")
        with pytest.raises(JobEndedError):
            job.send_nowait("b")
        with pytest.raises(JobEndedError):
            job.progress(1)
        with pytest.raises(JobEndedError):
            job.extend(1)
        with pytest.raises(JobEndedError):
            await job.save_state(1)
        assert (bench.log.last, bench.saved, job.id) == (1, [], "id")


async def test_a_state_is_not_saved_for_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the attempt is over is asked behind the checkpoint, when it may be another attempt's turn."""
    async with open_bench() as bench:

        async def end_meanwhile() -> None:
            bench.context.close()

        with monkeypatch.context() as patched:
            patched.setattr(trio.lowlevel, "checkpoint", end_meanwhile)
            with pytest.raises(JobEndedError):
                await bench.context.save_state(1)
        assert bench.saved == []


async def test_save_state() -> None:
    """`save_state` is a checkpoint before anything is kept."""
    async with open_bench() as bench:
        with trio.CancelScope() as scope:
            scope.cancel()
            await bench.context.save_state(1)
        assert scope.cancelled_caught
        assert bench.saved == []
        await bench.context.save_state(2)
        assert bench.saved == [2]


async def test_tokens_are_checked_where_they_are_stored() -> None:
    """What can't be stored is refused before it is sent, and the next one is sent."""

    def prepare(value: Any) -> None:
        if value == "bad":
            raise PayloadError("bad")

    async with open_bench(prepare=prepare) as bench:
        with pytest.raises(PayloadError):
            await bench.context.send("bad")
        with pytest.raises(PayloadError):
            bench.context.send_nowait("bad")
        assert await bench.context.send("good") == 1
        assert bench.context.send_nowait("good") == 2


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((-1,), "done"),
        ((math.nan,), "done"),
        ((1, -1), "total"),
        ((1, math.inf), "total"),
        ((1, 2, "x" * 10_001), "note"),
    ],
)
async def test_progress_refuses(arguments: tuple[Any, ...], name: str) -> None:
    """Progress that makes no sense is refused by name, and nothing is sent."""
    async with open_bench() as bench:
        with pytest.raises(ValueError, match=f"{name} must be"):
            bench.context.progress(*arguments)
        assert bench.log.last == 0


async def test_progress_by_numbers_and_text_of_other_kinds() -> None:
    """Numbers and text of classes of their own, as numpy's are, are sent as plain ones: JSON holds no others."""

    class Share(float):
        pass

    class Count(int):
        pass

    class Note(str):
        __slots__ = ()

    async with open_bench() as bench:
        bench.context.progress(Share(0.5), Count(3), Note("half"))
        (message,) = bench.log.slice(0, 1)
        assert isinstance(message, Progress)
        sent: list[Any] = [message.done, message.total, message.note]
        assert [(type(part), part) for part in sent] == [(float, 0.5), (int, 3), (str, "half")]
        other: Any = Whole(1)
        bench.context.progress(other, other)
        (message,) = bench.log.slice(1, 1)
        assert isinstance(message, Progress)
        sent = [message.done, message.total]
        assert [(type(part), part) for part in sent] == [(int, 1), (int, 1)]


async def test_extend(autojump_clock: MockClock) -> None:
    """`extend` moves the deadline further away and tells it."""
    async with open_bench() as bench:
        job = bench.context
        job.cancel_scope.deadline = 5
        assert job.extend(2.5) == job.deadline == 7.5
        other: Any = Whole(2)
        assert job.extend(other) == job.deadline == 9.5
        for seconds in (0, -1, math.inf, math.nan):
            with pytest.raises(ValueError, match=r"^seconds must be"):
                job.extend(seconds)
        assert job.deadline == 9.5


async def test_extend_without_a_limit() -> None:
    """Without a limit there is nothing to move."""
    async with open_bench() as bench:
        assert bench.context.extend(5) == math.inf


async def test_extend_too_late(autojump_clock: MockClock) -> None:
    """An attempt whose time is up, that was cancelled, or that is to stop gains nothing."""
    async with open_bench() as bench:
        bench.context.cancel_scope.deadline = 5
        bench.context.stop_event().set()
        assert bench.context.extend(10) == 5
    async with open_bench() as bench:
        bench.context.cancel_scope.deadline = trio.current_time()
        assert bench.context.extend(10) == trio.current_time()
    async with open_bench() as bench:
        bench.context.cancel_scope.deadline = 5
        bench.context.cancel_scope.cancel()
        assert bench.context.extend(10) == 5
    async with open_bench() as bench:
        bench.context.cancel_scope.deadline = 5
        assert not bench.context.stopping.is_set()
        assert bench.context.extend(10) == 15


async def test_extend_against_the_deadline(autojump_clock: MockClock) -> None:
    """An executor that extends in time outlives its limit, and one that does not is cut off at the old one."""

    async def executor(job: JobContext) -> str:
        await trio.sleep(job.payload)
        job.extend(10)
        await trio.sleep(5)
        return "done"

    async with open_registry() as registry:
        early = await registry.submit(executor, 2.9, time_limit=3)
        late = await registry.submit(executor, 3, time_limit=3)
        assert await early.result() == "done"
        assert (await late.wait()).error.kind == "timeout"  # type: ignore[union-attr]


async def test_state_goes_from_attempt_to_attempt(autojump_clock: MockClock) -> None:
    """The next attempt finds what the last one saved, also if it failed right behind it."""
    seen: list[Any] = []

    async def executor(job: JobContext) -> None:
        seen.append(job.saved_state)
        await job.save_state({"attempt": job.attempt})
        assert job.saved_state == {"attempt": job.attempt}
        raise ValueError

    async with open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy())
        await job.wait()
    assert seen == [None, {"attempt": 1}, {"attempt": 2}]


@pytest.mark.parametrize("durable", [False, True])
async def test_a_job_submits_another(durable: bool, tmp_path: Path) -> None:
    """What an executor finds as its registry is the one that was opened: other jobs are submitted and found by it."""
    executors = Executors()

    @executors.register("part")
    async def part(job: JobContext) -> int:
        return int(job.payload) ** 2

    @executors.register("whole")
    async def whole(job: JobContext) -> list[int]:
        fronts.append(job.registry)
        parts = await job.registry.submit_many([JobSpec("part", n, tags={"of": job.id}) for n in range(3)])
        return [await other.result() for other in parts]

    fronts: list[JobRegistry] = []
    async with open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db") if durable else None) as registry:
        job = await registry.submit("whole")
        assert await job.result() == [0, 1, 4]
        assert [record.result for record in await registry.find(tags={"of": job.id})] == [0, 1, 4]
        assert fronts == [registry]


async def test_shown_with_job_and_attempt(autojump_clock: MockClock) -> None:
    """In a log or a debugger a context tells which attempt of which job it is, also when that is over."""
    seen: list[JobContext | ThreadJobContext] = []

    async def executor(job: JobContext) -> None:
        seen.append(job)
        raise RetryLater

    async with open_registry() as registry:
        await (await registry.submit(executor, job_id="one", retry=RetryPolicy(max_attempts=2))).wait()
        await (await registry.submit(seen.append, job_id="two")).wait()
    assert list(map(repr, seen)) == [
        "<JobContext 'one' attempt 1>",
        "<JobContext 'one' attempt 2>",
        "<ThreadJobContext 'two' attempt 1>",
    ]
