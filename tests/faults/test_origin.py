"""Failures that job servers are known for: each has to stay away, 200 times, in random interleavings."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, JobContext, Token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

RUNS = 200


def repeat(scenario: Callable[[random.Random], Awaitable[None]], runs: int = RUNS) -> None:
    """Run a scenario once for each seed, on a virtual clock; a failure's last line tells the seed."""
    for seed in range(runs):
        trio._core._run._r.seed(seed)  # the scheduler's own shuffle; pytest-trio makes it repeatable
        try:
            trio.run(scenario, random.Random(seed), clock=MockClock(autojump_threshold=0))
        except BaseException as exc:
            exc.add_note(f"seed {seed}")
            raise


async def linger(rng: random.Random, most: int = 8) -> None:
    """Let a random number of scheduling steps, and sometimes a little time, go by."""
    for _ in range(rng.randrange(most)):
        await trio.lowlevel.checkpoint()
    if rng.random() < 0.2:
        await trio.sleep(rng.random() / 100)


async def read(job: jobtrio.Job, seen: list[Any] | None = None) -> list[Any]:
    """Receive a job's whole stream."""
    seen = [] if seen is None else seen
    async with job.subscribe() as messages:
        async for message in messages:
            seen.append(message)
    return seen


def test_job_cancelled_while_queued_never_runs() -> None:
    """A job cancelled before it started does not run, however close its start was."""

    async def scenario(rng: random.Random) -> None:
        started: list[str] = []

        async def busy(job: JobContext) -> None:
            await linger(rng)

        async def executor(job: JobContext) -> None:
            started.append(job.id)
            await trio.sleep(10)

        async with jobtrio.open_registry(max_running=1) as registry:
            await registry.submit(busy)
            job = await registry.submit(executor)
            await linger(rng)
            queued = job.state == "QUEUED"
            assert await job.cancel("no longer wanted")
            before = list(started)
            assert await read(job) == [End(1, Cancelled("no longer wanted"))]
            assert job.state == "CANCELLED"
            assert started == before
            states = [line.state for line in await registry.history(job.id)]
            assert states in (["QUEUED", "CANCELLED"], ["QUEUED", "RUNNING", "CANCELLED"])
            assert not before or "RUNNING" in states
            assert not (queued and "RUNNING" in states)

    repeat(scenario)


def test_executor_that_raises_is_never_shown_as_done() -> None:
    """A failure, even a millisecond behind the last token, ends every view of the stream as a failure."""

    async def scenario(rng: random.Random) -> None:
        async def executor(job: JobContext) -> None:
            await linger(rng)
            for n in range(count):
                await job.send(n)
            await trio.sleep(rng.choice((0, 0.001)))
            raise ValueError("broken")

        count = rng.randrange(4)
        async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
            job = await registry.create_job()
            early: list[Any] = []
            nursery.start_soon(read, job, early)
            await linger(rng)
            async with registry.execute_and_stream(job.id, executor) as lines:
                text = [line async for line in lines]
            late = await read(job)
            outcome = await job.wait()
            assert isinstance(outcome, Failed)
            assert (outcome.error.kind, outcome.error.message) == ("exception", "broken")
            assert late == [*(Token(n + 1, 1, n) for n in range(count)), End(count + 1, outcome)]
            assert text == [*map(str, range(count)), "[ERROR] broken"]
            assert job.state == "FAILED"
            nursery.cancel_scope.deadline = trio.current_time() + 1
        assert early == late

    repeat(scenario)


class UnprintableError(Exception):
    """An exception that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Panic(BaseException):
    """An exception outside the hierarchy that code usually catches."""


PANICS: tuple[Callable[[], BaseException], ...] = (
    lambda: RuntimeError("x"),
    AssertionError,
    UnprintableError,
    Panic,
    asyncio.CancelledError,
    GeneratorExit,
    MemoryError,
    lambda: RecursionError("deep"),
    lambda: ExceptionGroup("two", [ValueError("a"), TypeError("b")]),
    lambda: BaseExceptionGroup("one", [Panic("x")]),
)


def test_panic_ends_the_stream_and_the_job_alike() -> None:
    """Whatever an executor or its child task raises fails its own job, in stream and state, and no other."""

    async def scenario(rng: random.Random) -> None:
        async def fail() -> None:
            await linger(rng)
            raise rng.choice(PANICS)()

        async def executor(job: JobContext) -> None:
            await job.send("started")
            if rng.random() < 0.5:
                job.nursery.start_soon(fail)
            else:
                await fail()

        async def neighbour(job: JobContext) -> str:
            await linger(rng, 20)
            return "unharmed"

        async with jobtrio.open_registry() as registry:
            other = await registry.submit(neighbour)
            job = await registry.submit(executor)
            messages = await read(job)
            outcome = job.outcome
            assert isinstance(outcome, Failed)
            assert outcome.error.kind == "exception"
            assert messages == [Token(1, 1, "started"), End(2, outcome)]
            assert job.state == job.record.state == "FAILED"
            assert await other.wait() == Completed("unharmed")

    repeat(scenario)


def test_stream_ends_although_a_sender_lives_elsewhere() -> None:
    """A time-out or a cancellation ends the stream, whoever else still holds on to the job's context."""

    async def scenario(rng: random.Random) -> None:
        leaked: list[JobContext] = []
        sent: list[int] = []

        async def executor(job: JobContext) -> None:
            leaked.append(job)
            await trio.sleep_forever()

        async def sender() -> None:
            while not leaked:
                await trio.lowlevel.checkpoint()
            with pytest.raises(jobtrio.JobEndedError):  # noqa: PT012
                while True:
                    await leaked[0].send(len(sent))
                    sent.append(len(sent))
                    await trio.sleep(0.01)

        timed = rng.random() < 0.5
        async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
            job = await registry.submit(executor, time_limit=0.1 if timed else None)
            nursery.start_soon(sender)
            if not timed:
                await trio.sleep(rng.random() / 5)
                await job.cancel()
            messages = await read(job)
        assert [message.value for message in messages[:-1]] == sent
        assert [message.seq for message in messages] == list(range(1, len(messages) + 1))
        assert messages[-1].outcome == job.outcome
        assert (job.state == "FAILED") == timed
        with pytest.raises(jobtrio.JobEndedError):
            leaked[0].send_nowait("late")

    repeat(scenario)


def test_clean_up_is_not_cut_short() -> None:
    """Clean-up that waits under its own shield runs to its end before anybody is told the outcome."""

    async def scenario(rng: random.Random) -> None:
        steps: list[str] = []

        inside = trio.Event()

        async def executor(job: JobContext) -> None:
            inside.set()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    steps.append("SIGTERM")
                    await trio.sleep(5 * rng.random())
                    steps.append("SIGKILL")
                    await linger(rng)
                    steps.append("reaped")

        limit = rng.choice((None, 1.0))
        async with jobtrio.open_registry() as registry:
            job = await registry.submit(executor, time_limit=limit)
            await linger(rng)
            if limit is None:
                await inside.wait()
                await job.cancel()
            ended_with = [(list(steps), message) async for message in job.subscribe()]
            assert [done for done, _ in ended_with] == [["SIGTERM", "SIGKILL", "reaped"]]
            assert job.state == ("CANCELLED" if limit is None else "FAILED")

    repeat(scenario)


def test_answer_of_cancel_is_kept() -> None:
    """True means cancelled and False means not, at the very instant of a return, a failure or a deadline too."""

    async def scenario(rng: random.Random) -> None:
        async def executor(job: JobContext) -> None:
            if rng.random() < 0.5:
                job.nursery.start_soon(trio.sleep, 1)
            with trio.CancelScope(shield=rng.random() < 0.3):
                await trio.sleep(1)
            for _ in range(rng.randrange(6)):
                await trio.lowlevel.checkpoint()
            if rng.random() < 0.4:
                raise ValueError("no")

        retry = rng.choice((None, jobtrio.RetryPolicy(max_attempts=2, initial=rng.choice((0, 1)), jitter=0)))
        limit = rng.choice((None, 1.0, 1.5))
        async with jobtrio.open_registry(max_running=1) as registry:
            job = await registry.submit(executor, time_limit=limit, retry=retry)
            await registry.submit(executor)
            await trio.sleep(rng.choice((1, 1, 1, 1.5, 2)))
            await linger(rng)
            cancelled = await job.cancel("stop", grace=rng.choice((0, 0, 0.5)))
            outcome = await job.wait()
            assert (outcome == Cancelled("stop")) is cancelled, outcome
            assert (await read(job))[-1].outcome == outcome
            assert job.record.cancel_requested_at is None or cancelled

    repeat(scenario)


def test_second_consumer_sees_what_the_first_saw() -> None:
    """Consumers that come early, in the middle, late and twice all receive everything, and one ending."""

    async def scenario(rng: random.Random) -> None:
        async def executor(job: JobContext) -> int:
            for n in range(5):
                await job.send(n)
                await linger(rng, 4)
            return 5

        async def consumer(seen: list[Any]) -> None:
            await linger(rng, 40)
            await read(job, seen)

        views: list[list[Any]] = [[] for _ in range(6)]
        async with jobtrio.open_registry() as registry:
            async with trio.open_nursery() as nursery:
                job = await registry.submit(executor)
                for seen in views:
                    nursery.start_soon(consumer, seen)
            views += [await read(job), await read(job)]
            with pytest.raises(jobtrio.UnknownJobError):
                await registry.get("nobody")
        expected = [*(Token(n + 1, 1, n) for n in range(5)), End(6, Completed(5))]
        assert views == [expected] * 8

    repeat(scenario)


def test_running_job_reads_running() -> None:
    """While an executor runs, its handle, its record, `find` and its history all say so."""

    async def scenario(rng: random.Random) -> None:
        async with jobtrio.open_registry() as registry:

            async def executor(job: JobContext) -> list[str]:
                await linger(rng)
                handle = await registry.get(job.id)
                found = await registry.find(state=jobtrio.JobState.RUNNING)
                last = (await registry.history(job.id))[-1]
                return [handle.state, handle.record.state, *(record.state for record in found), last.state]

            job = await registry.submit(executor)
            assert await job.result() == ["RUNNING"] * 4
            assert job.record.started_at is not None

    repeat(scenario)


def test_an_end_is_final() -> None:
    """Nothing revives a job that ended: not a cancellation, not a second execution, not its id."""

    async def scenario(rng: random.Random) -> None:
        calls: list[int] = []

        async def executor(job: JobContext) -> None:
            calls.append(job.attempt)
            await linger(rng)

        async with jobtrio.open_registry() as registry:
            job = await registry.create_job()
            for _ in range(3):
                async with registry.execute_and_stream(job.id, executor) as lines:
                    assert [line async for line in lines] == ["[DONE]"]
            record, history = job.record, await registry.history(job.id)
            assert await job.cancel("too late") is False
            with pytest.raises(jobtrio.DuplicateJobError):
                await registry.submit(executor, job_id=job.id)
            await linger(rng)
            assert job.record == record
            assert await registry.history(job.id) == history
            assert [line.state for line in history] == ["QUEUED", "RUNNING", "COMPLETED"]
        assert calls == [1]

    repeat(scenario)


def test_token_is_not_taken_for_an_ending() -> None:
    """Tokens that read like endings are tokens, whatever the job's real ending is."""

    async def scenario(rng: random.Random) -> None:
        words = ["[DONE]", "[ERROR] no", "[CANCELLED]", "", None, jobtrio.Cancelled("no")]
        rng.shuffle(words)

        async def executor(job: JobContext) -> str:
            for word in words:
                await job.send(word)
            if failing:
                raise ValueError("really")
            return "[ERROR] no"

        failing = rng.random() < 0.5
        async with jobtrio.open_registry() as registry:
            job = await registry.create_job()
            async with registry.execute_and_stream(job.id, executor) as lines:
                text = [line async for line in lines]
            *tokens, end = await read(job)
            assert [token.value for token in tokens] == words
            assert all(type(token) is Token for token in tokens)
            assert isinstance(end.outcome, Failed) if failing else end.outcome == Completed("[ERROR] no")
            assert text == [*map(str, words), "[ERROR] really" if failing else "[DONE]"]

    repeat(scenario)


def test_disconnect_is_noticed_without_a_send() -> None:
    """A consumer that the job waits for frees it by leaving, at once and without another send."""

    async def scenario(rng: random.Random) -> None:
        async def executor(job: JobContext) -> float:
            for n in range(20):
                await job.send(n)
            return trio.current_time()

        async def watch() -> None:
            with trio.CancelScope() as scope, job.subscribe(lossless=True) as messages:
                watching.append(scope)
                for _ in range(rng.randrange(5)):
                    await messages.receive()
                await trio.sleep_forever()

        watching: list[trio.CancelScope] = []
        retention = jobtrio.Retention(tokens_per_job=4)
        async with jobtrio.open_registry(retention=retention) as registry, trio.open_nursery() as nursery:
            job = await registry.submit(executor, delay=1)
            nursery.start_soon(watch)
            await trio.sleep(5)
            assert job.state == "RUNNING"
            left = trio.current_time()
            watching[0].cancel()
            assert await job.wait() == Completed(left)

    repeat(scenario)
