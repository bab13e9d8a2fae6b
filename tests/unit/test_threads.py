"""Executors that are plain functions, in worker threads."""

from __future__ import annotations

import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    Failed,
    JobContext,
    JobEndedError,
    LaggedError,
    Progress,
    RetryPolicy,
    ThreadJobContext,
    Token,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio import JobError, JobRegistry


async def error_of(job: jobtrio.Job) -> JobError:
    """Return what a failed job failed with."""
    outcome = await job.wait()
    assert isinstance(outcome, Failed)
    return outcome.error


async def test_what_it_shows() -> None:
    """A thread sees the job as an async executor does, in a thread of its own."""
    main = threading.get_ident()

    def executor(job: ThreadJobContext) -> dict[str, Any]:
        return {
            "id": job.id,
            "payload": job.payload,
            "attempt": job.attempt,
            "tags": job.tags,
            "metadata": job.metadata,
            "queue": job.queue,
            "priority": job.priority,
            "saved": job.saved_state,
            "here": threading.get_ident() == main,
            "left": job.deadline - trio.from_thread.run_sync(trio.current_time),
            "stopping": job.stopping.is_set(),
        }

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, [1], tags={"t": "1"}, metadata={"m": 1}, queue="gpu", time_limit=1000)
        seen = await job.result()
    left = seen.pop("left")
    assert 0 < left <= 1000
    assert seen == {
        "id": job.id,
        "payload": [1],
        "attempt": 1,
        "tags": {"t": "1"},
        "metadata": {"m": 1},
        "queue": "gpu",
        "priority": jobtrio.JobPriority.NORMAL,
        "saved": None,
        "here": False,
        "stopping": False,
    }


async def test_it_speaks() -> None:
    """Each method of a thread's context does what its async twin does."""

    def executor(job: ThreadJobContext) -> list[Any]:
        job.check_cancelled()
        job.save_state("kept")
        return [job.send("a"), job.send_nowait("b"), job.progress(1, 2, "c"), job.extend(5), job.saved_state]

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        assert await job.result() == [1, 2, 3, float("inf"), "kept"]
        messages = [m async for m in job.subscribe()]
    assert messages[:3] == [Token(1, 1, "a"), Token(2, 1, "b"), Progress(3, 1, 1, 2, "c")]


SPEAKING: dict[str, Callable[[ThreadJobContext], object]] = {
    "send": lambda job: job.send("late"),
    "send_nowait": lambda job: job.send_nowait("late"),
    "progress": lambda job: job.progress(1),
    "extend": lambda job: job.extend(1),
    "save_state": lambda job: job.save_state("late"),
    "check_cancelled": lambda job: job.check_cancelled(),
}


@pytest.mark.parametrize("name", SPEAKING)
async def test_each_call_tells_that_it_was_cancelled(name: str) -> None:
    """Once the attempt is cancelled each method raises, and nothing is sent."""
    begun, cancelled = trio.Event(), threading.Event()
    raised: list[BaseException] = []

    def executor(job: ThreadJobContext) -> str:
        trio.from_thread.run_sync(begun.set)
        cancelled.wait()
        try:
            SPEAKING[name](job)
        except BaseException as exc:
            raised.append(exc)
        return "swallowed"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        await begun.wait()
        await job.cancel("enough")
        assert job.outcome is None
        cancelled.set()
        assert await job.wait() == Cancelled("enough")
        assert [type(exc) for exc in raised] == [trio.Cancelled]
        assert len([m async for m in job.subscribe()]) == 1
        assert job.record.error is None


async def test_its_nursery() -> None:
    """A thread starts child tasks in the attempt's nursery, which the attempt waits for."""

    async def child() -> None:
        await trio.testing.wait_all_tasks_blocked()
        ended.append("child")

    def executor(job: ThreadJobContext) -> str:
        trio.from_thread.run_sync(job.nursery.start_soon, child)
        return "returned"

    ended: list[str] = []
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        assert await job.wait() == Completed("returned")
        assert ended == ["child"]


async def test_its_registry() -> None:
    """A thread submits another job by the registry that runs its own."""

    async def part(job: JobContext) -> int:
        return int(job.payload) + 1

    def executor(job: ThreadJobContext) -> int:
        other = trio.from_thread.run(job.registry.submit, part, 1)
        return int(trio.from_thread.run(other.result))

    async with jobtrio.open_registry() as registry:
        assert await (await registry.submit(executor)).result() == 2


async def test_its_cancel_scope() -> None:
    """A thread that cancels its own scope ends its job, as an async executor does."""

    def executor(job: ThreadJobContext) -> None:
        trio.from_thread.run_sync(job.cancel_scope.cancel)
        job.check_cancelled()

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy())
        assert await job.wait() == Cancelled(None)


@pytest.mark.parametrize("name", SPEAKING)
async def test_nothing_is_sent_behind_the_end(name: str) -> None:
    """A context that was kept says that the attempt is over, in Trio's thread, in a worker's and in a stranger's."""
    kept: list[ThreadJobContext] = []
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(kept.append)
        await job.wait()

        def speak() -> None:
            with pytest.raises(JobEndedError) as raised:
                SPEAKING[name](kept[0])
            assert raised.value.job_id == job.id

        speak()
        await trio.to_thread.run_sync(speak)
        with ThreadPoolExecutor() as pool:
            pool.submit(speak).result()


@pytest.mark.parametrize("name", SPEAKING)
async def test_a_strange_thread_is_told_whose_context_it_is(name: str) -> None:
    """Neither a thread that the executor has started nor Trio's own can speak for it."""

    def refused(job: ThreadJobContext) -> None:
        with pytest.raises(RuntimeError, match=r"belongs to its job's thread"):
            SPEAKING[name](job)

    def strangers(job: ThreadJobContext) -> None:
        with ThreadPoolExecutor() as pool:
            pool.submit(refused, job).result()
        trio.from_thread.run_sync(refused, job)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(strangers)
        assert await job.wait() == Completed(None)


async def test_no_outcome_while_the_thread_lives() -> None:
    """A thread that never looks holds up the outcome, not the request; its result is dropped."""
    begun, go_on = trio.Event(), threading.Event()

    def executor(job: ThreadJobContext) -> str:
        trio.from_thread.run_sync(begun.set)
        go_on.wait()
        return "late"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        await begun.wait()
        assert await job.cancel("enough")
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked()
            assert job.state == "RUNNING"
        go_on.set()
        assert await job.wait() == Cancelled("enough")


async def test_a_thread_that_never_looks_is_too_late() -> None:
    """A thread that outlasts its time limit has timed out, whatever it returns."""
    begun, go_on = trio.Event(), threading.Event()

    def executor(job: ThreadJobContext) -> str:
        trio.from_thread.run_sync(begun.set)
        go_on.wait()
        return "late"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, time_limit=0.01)
        await begun.wait()
        await trio.sleep(0.02)
        go_on.set()
        assert (await error_of(job)).kind == "timeout"


async def test_grace() -> None:
    """A thread that looks at `stopping` can end in its own time, and is cancelled all the same."""
    begun = trio.Event()

    def executor(job: ThreadJobContext) -> str:
        stopping = job.stopping
        trio.from_thread.run_sync(begun.set)
        trio.from_thread.run(stopping.wait)
        assert stopping.is_set()
        job.send("last words")
        return "part"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        await begun.wait()
        await job.cancel("enough", grace=1000)
        assert await job.wait() == Cancelled("enough")
        assert [m.value async for m in job.subscribe() if isinstance(m, Token)] == ["last words"]


async def test_the_event_is_made_in_trios_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """`stopping` exists before the thread begins, so that the two threads can't make one each."""
    askers: list[int] = []
    stop_event = JobContext.stop_event

    def noted(context: JobContext) -> trio.Event:
        askers.append(threading.get_ident())
        return stop_event(context)

    monkeypatch.setattr(JobContext, "stop_event", noted)
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(lambda job: job.stopping.is_set())
        assert await job.result() is False
    assert askers[0] == threading.get_ident() != askers[1]


@pytest.mark.parametrize("raised", [ValueError, StopIteration, GeneratorExit])
async def test_it_raises(raised: type[BaseException]) -> None:
    """What a thread raises fails the job, whatever it is."""

    def executor(job: ThreadJobContext) -> None:
        raise raised("no")

    async with jobtrio.open_registry() as registry:
        error = await error_of(await registry.submit(executor))
    assert "no" in error.traceback


async def test_a_coroutine_is_no_result() -> None:
    """A plain function that returns a coroutine fails as an async one does, and nothing is left unawaited."""

    async def inner() -> None:
        raise AssertionError("entered")

    async with jobtrio.open_registry() as registry:
        error = await error_of(await registry.submit(lambda job: inner()))
    assert error.type == "TypeError"
    assert "returned a coroutine, of which nothing has run: await it in an async function" in error.message


async def test_more_than_trios_own_limit() -> None:
    """As many threads run at once as jobs may run, more than Trio's default of 40."""
    running, enough = 0, trio.Event()

    async def count() -> None:
        nonlocal running
        running += 1
        if running == 45:
            enough.set()
        await enough.wait()

    def executor(job: ThreadJobContext) -> None:
        trio.from_thread.run(count)

    async with jobtrio.open_registry(max_running=45) as registry:
        jobs = [await registry.submit(executor) for _ in range(45)]
        with trio.fail_after(60):
            for job in jobs:
                assert await job.wait() == Completed(None)


async def test_context_variables() -> None:
    """A thread sees the variables that the registry was opened with, and its own changes stay its own."""
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("registry")

    def executor(job: ThreadJobContext) -> str:
        seen = variable.get()
        variable.set("thread")
        return seen

    async with jobtrio.open_registry(max_running=1) as registry:
        variable.set("submitter")
        jobs = [await registry.submit(executor) for _ in range(3)]
        assert [await job.result() for job in jobs] == ["registry"] * 3


async def test_a_lossless_consumer_holds_it_up() -> None:
    """A thread's `send` waits for a lossless consumer."""

    def executor(job: ThreadJobContext) -> None:
        for n in range(20):
            job.send(n)

    async with jobtrio.open_registry(retention=jobtrio.Retention(tokens_per_job=2)) as registry:
        ready = trio.Event()

        async def held(job: JobContext) -> None:
            await ready.wait()
            await trio.to_thread.run_sync(executor, ThreadJobContext(job))

        job = await registry.submit(held)
        async with job.subscribe(lossless=True) as messages:
            ready.set()
            assert [m.value async for m in messages if isinstance(m, Token)] == list(range(20))
        with pytest.raises(LaggedError):
            await job.subscribe().receive()


async def test_the_next_attempt_has_a_context_of_its_own() -> None:
    """A context that a thread has kept sends nothing for the attempt that follows."""
    contexts: list[ThreadJobContext] = []
    errors: list[str] = []

    def executor(job: ThreadJobContext) -> None:
        contexts.append(job)
        if job.attempt == 1:
            raise ValueError
        for call in (contexts[0].send, contexts[0].send_nowait, contexts[0].save_state, contexts[0].progress):
            try:
                call(1)
            except jobtrio.JobEndedError as exc:
                errors.append(exc.job_id)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy(initial=0))
        await job.wait()
        assert errors == [job.id] * 4


async def exits(registry: JobRegistry, kind: type[BaseException]) -> None:
    """Run a thread that raises an exit."""

    def executor(job: ThreadJobContext) -> None:
        raise kind("now")

    await (await registry.submit(executor)).wait()
    await trio.sleep_forever()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_exits_leave_the_registry(kind: type[BaseException]) -> None:
    """An exit that a thread raises ends the program, not only the job."""
    with pytest.raises(kind, match="now"):
        async with jobtrio.open_registry() as registry:
            await exits(registry, kind)
