"""Jobs beside each other: one's trouble, output and readers are its own."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest
import trio
import trio.testing
from patience import until

import jobtrio
from jobtrio import Completed, End, Failed, JobContext, Token
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from pathlib import Path

WHO: contextvars.ContextVar[str] = contextvars.ContextVar("WHO", default="nobody")


async def read(job: jobtrio.Job) -> list[Any]:
    """Receive a job's whole stream."""
    async with job.subscribe() as messages:
        return [message async for message in messages]


async def test_output_reaches_its_own_readers_only() -> None:
    """A hundred jobs that stream at once never show a token to another's reader."""

    async def executor(job: JobContext) -> Any:
        for n in range(20):
            await job.send((job.payload, n))
        return job.payload

    views: dict[int, list[Any]] = {}

    async def reader(n: int, job: jobtrio.Job) -> None:
        views[n] = await read(job)

    async with jobtrio.open_registry(max_running=30) as registry:
        async with trio.open_nursery() as nursery:
            for n in range(100):
                nursery.start_soon(reader, n, await registry.submit(executor, n))
    for n in range(100):
        assert views[n] == [*(Token(i + 1, 1, (n, i)) for i in range(20)), End(21, Completed(n))]


async def test_slow_reader_harms_nobody(autojump_clock: trio.testing.MockClock) -> None:
    """A reader that stops reading holds up neither the job nor the other readers."""

    async def executor(job: JobContext) -> float:
        for n in range(1000):
            await job.send(n)
        return trio.current_time()

    async with jobtrio.open_registry(retention=jobtrio.Retention(tokens_per_job=100)) as registry:
        job = await registry.submit(executor, delay=1)
        with job.subscribe() as stalled, job.subscribe() as brisk:
            seen = [message async for message in brisk]
            assert seen[-1] == End(1001, Completed(trio.current_time()))
            with pytest.raises(jobtrio.LaggedError) as excinfo:
                await stalled.receive()
            assert (excinfo.value.first, excinfo.value.last) == (1, 900)
            assert [message async for message in stalled] == seen[900:]


def a_store(name: str, path: Path) -> jobtrio.abc.JobStore | None:
    return SqliteJobStore(path / "jobs.db") if name == "sqlite" else None


@pytest.mark.parametrize("way", ["waiting", "at once"])
@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_what_belongs_to_a_task_is_not_handed_on(name: str, way: str, tmp_path: Path) -> None:
    """What a job got from a limiter and never gave back is its own: no later job is taken for the one who has it."""
    limiter = trio.CapacityLimiter(100)
    executors = jobtrio.Executors()

    @executors.register("take")
    async def take(job: JobContext) -> str:
        if way == "waiting":
            await limiter.acquire()
        else:
            limiter.acquire_nowait()
        if job.payload == "forget":
            return "forgot"
        limiter.release()
        return "gave back"

    async with jobtrio.open_registry(executors, store=a_store(name, tmp_path), max_running=2) as registry:
        payloads = ["forget"] + [None] * 20
        jobs = await registry.submit_many([jobtrio.JobSpec("take", payload) for payload in payloads])
        assert [await job.result() for job in jobs] == ["forgot"] + ["gave back"] * 20
    assert limiter.borrowed_tokens == 1


@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_a_job_that_takes_and_lets_go(name: str, tmp_path: Path) -> None:
    """What a job never gave back is its own also where it dropped the last hold on an earlier job's context."""
    limiter = trio.CapacityLimiter(100)
    executors = jobtrio.Executors()
    kept: list[JobContext] = []

    @executors.register("take")
    async def take(job: JobContext) -> str:
        if job.payload == "keep":
            kept.append(job)
            return "kept"
        kept.clear()
        limiter.acquire_nowait()
        if job.payload == "forget":
            return "forgot"
        limiter.release()
        return "gave back"

    async with jobtrio.open_registry(executors, store=a_store(name, tmp_path), max_running=1) as registry:
        payloads = ["keep", "forget"] + [None] * 4
        jobs = await registry.submit_many([jobtrio.JobSpec("take", payload) for payload in payloads])
        assert [await job.result() for job in jobs] == ["kept", "forgot"] + ["gave back"] * 4
    assert limiter.borrowed_tokens == 1


@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_what_is_kept_for_a_task(name: str, tmp_path: Path) -> None:
    """What a job keeps in a mapping with weak keys, by its task, no other job finds there."""
    kept: WeakKeyDictionary[trio.lowlevel.Task, int] = WeakKeyDictionary()
    executors = jobtrio.Executors()

    @executors.register("keep")
    async def keep(job: JobContext) -> int:
        return kept.setdefault(trio.lowlevel.current_task(), job.payload)

    async with jobtrio.open_registry(executors, store=a_store(name, tmp_path), max_running=1) as registry:
        jobs = await registry.submit_many([jobtrio.JobSpec("keep", n) for n in range(4)])
        assert [await job.result() for job in jobs] == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_a_lock_that_is_not_released(name: str, tmp_path: Path) -> None:
    """Who waits for a lock that a job has left held is told at once that nobody will release it."""
    lock = trio.Lock()
    executors = jobtrio.Executors()

    @executors.register("hold")
    async def hold(job: JobContext) -> None:
        await lock.acquire()
        await trio.testing.wait_all_tasks_blocked(0.05)

    @executors.register("wait")
    async def wait(job: JobContext) -> None:
        await lock.acquire()

    async with jobtrio.open_registry(executors, store=a_store(name, tmp_path)) as registry:
        holds = await registry.submit("hold")
        await until(lock.locked)
        waits = await registry.submit("wait")
        assert await holds.wait() == Completed()
        with trio.fail_after(60):
            outcome = await waits.wait()
        assert isinstance(outcome, Failed)
        assert outcome.error.type == "BrokenResourceError"


async def test_context_variables_are_not_shared() -> None:
    """A job sees the context that the registry was opened in, and nothing that another job set."""

    async def executor(job: JobContext) -> str:
        before = WHO.get()
        WHO.set(str(job.payload))
        await trio.lowlevel.checkpoint()
        return before

    WHO.set("opener")
    async with jobtrio.open_registry(max_running=1) as registry:
        WHO.set("submitter")
        jobs = [await registry.submit(executor, n) for n in range(10)]
        assert [await job.result() for job in jobs] == ["opener"] * 10


async def test_reconnecting_reader_misses_nothing() -> None:
    """A reader that is cut off after every message and comes back sees each message once, in order."""

    async def executor(job: JobContext) -> None:
        for n in range(50):
            await job.send(n)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        seen: list[Any] = []
        while not seen or not isinstance(seen[-1], End):
            async with job.subscribe(after=seen[-1].seq if seen else 0) as messages:
                seen.append(await messages.receive())
        assert seen == [*(Token(n + 1, 1, n) for n in range(50)), End(51, Completed())]


async def test_executor_that_never_checkpoints() -> None:
    """A job that hogs the loop for a while ends, and the rest goes on behind it."""

    async def hog(job: JobContext) -> int:
        return sum(range(100_000))

    async with jobtrio.open_registry(max_running=2) as registry:
        jobs = [await registry.submit(hog) for _ in range(20)]
        assert [await job.result() for job in jobs] == [4_999_950_000] * 20


async def test_odd_results() -> None:
    """Whatever an executor returns is the result, an awaitable, an exception or an outcome included."""

    async def executor(job: JobContext) -> Any:
        return job.payload

    odd: list[Any] = [
        None,
        ValueError("returned"),
        jobtrio.Cancelled("x"),
        executor,
        NotImplemented,
        ...,
        float("inf"),
        [[]],
    ]
    async with jobtrio.open_registry() as registry:
        for value in odd:
            job = await registry.submit(executor, value)
            outcome = await job.wait()
            assert isinstance(outcome, Completed)
            assert outcome.result is value


async def test_slow_submit_is_independent(autojump_clock: trio.testing.MockClock) -> None:
    """Submitting is not held up by jobs that run, wait or clean up."""

    async def stubborn(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(100)

    async with jobtrio.open_registry(max_running=1) as registry:
        job = await registry.submit(stubborn)
        await trio.sleep(1)
        await job.cancel()
        start = trio.current_time()
        for _ in range(100):
            queued = await registry.submit(stubborn)
            await queued.cancel()
            await queued.wait()
        assert trio.current_time() == start
        assert job.state == "RUNNING"


async def test_submitting_without_end_can_be_cut_off() -> None:
    """A loop that does nothing but submit leaves the others their turns, and can be cancelled."""

    async def quick(job: JobContext) -> None:
        pass

    async def cut_off(scope: trio.CancelScope) -> None:
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cut_off, scope)
            for _ in range(20_000):
                await registry.submit(quick)
        assert scope.cancelled_caught


async def test_queues_do_not_hold_each_other_up() -> None:
    """A queue whose limit is reached leaves the others their room."""
    gate = trio.Event()

    async def wait(job: JobContext) -> None:
        await gate.wait()

    async def quick(job: JobContext) -> str:
        return "through"

    async with jobtrio.open_registry(queues={"gpu": 1, "default": 2}) as registry:
        stuck = [await registry.submit(wait, queue="gpu") for _ in range(5)]
        assert await (await registry.submit(quick)).result() == "through"
        assert [job.state for job in stuck] == ["RUNNING", *["QUEUED"] * 4]
        gate.set()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_only_the_interpreters_own_exits_leave_the_registry(error: type[BaseException]) -> None:
    """`KeyboardInterrupt` and `SystemExit` of an executor end the registry; other jobs end cancelled."""

    async def executor(job: JobContext) -> None:
        raise error

    async def neighbour(job: JobContext) -> None:
        await trio.sleep_forever()

    jobs = []
    with pytest.raises(BaseException) as excinfo:  # noqa: PT011, PT012 - bare or in a group
        async with jobtrio.open_registry() as registry:
            jobs.append(await registry.submit(neighbour))
            await trio.testing.wait_all_tasks_blocked()
            await registry.submit(executor)
            await trio.sleep_forever()
    leaves: list[BaseException] = [excinfo.value]
    while isinstance(leaves[0], BaseExceptionGroup):
        leaves = list(leaves[0].exceptions)
    assert [type(leaf) for leaf in leaves] == [error]
    assert jobs[0].outcome == jobtrio.Cancelled("shutdown")
