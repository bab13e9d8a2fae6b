"""One ending: what consumers are told when a job succeeds, fails, is silent, or is watched by nobody."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, JobContext, Progress, RetryPolicy, Token


async def read(job: jobtrio.Job, after: int = 0) -> list[Any]:
    """Receive a job's whole stream behind a number."""
    async with job.subscribe(after) as messages:
        return [message async for message in messages]


async def count(job: JobContext) -> int:
    """Send the numbers up to the payload."""
    for n in range(job.payload):
        await job.send(n)
    return int(job.payload)


async def test_tokens_in_order_then_the_end() -> None:
    """Ten tokens come in order, then the end with the result, then iteration stops."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count, 10)
        messages = await read(job)
        assert messages == [*(Token(n + 1, 1, n) for n in range(10)), End(11, Completed(10))]
        assert await job.result() == 10


async def test_failure_carries_its_message() -> None:
    """A failing job's end says what was raised, with type, message and traceback as text."""

    async def executor(job: JobContext) -> None:
        await job.send("before")
        raise KeyError("the cause")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        token, end = await read(job)
        assert token == Token(1, 1, "before")
        error = end.outcome.error
        assert (error.kind, error.type, error.message) == ("exception", "KeyError", "'the cause'")
        assert "raise KeyError" in error.traceback
        assert job.record.error == error
        with pytest.raises(jobtrio.JobFailedError, match="the cause") as excinfo:
            await job.result()
        assert (excinfo.value.job_id, excinfo.value.error) == (job.id, error)


async def test_groups_of_exceptions() -> None:
    """An executor's own exception comes out of its nursery's group; a group that it raised is kept whole."""

    async def alone(job: JobContext) -> None:
        job.nursery.start_soon(trio.sleep_forever)
        raise KeyError("mine")

    async def group(job: JobContext) -> None:
        raise ExceptionGroup("both", [ValueError("a"), TypeError("b")])

    async with jobtrio.open_registry() as registry:
        for executor, kind, parts in (
            (alone, "KeyError", ()),
            (group, "ExceptionGroup", ("ValueError: a", "TypeError: b")),
        ):
            outcome = await (await registry.submit(executor)).wait()
            assert isinstance(outcome, Failed)
            assert outcome.error.type == kind
            assert all(part in outcome.error.traceback for part in parts)


async def test_job_without_output_still_ends() -> None:
    """A job that sends nothing has a stream of one message: its end."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count, 0)
        assert await read(job) == [End(1, Completed(0))]
        assert [token async for token in job.tokens()] == []


async def test_after_the_end_a_subscription_is_over() -> None:
    """After the end every way of receiving raises `EndOfChannel`, again and again."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count, 1)
        async with job.subscribe() as messages:
            assert len([message async for message in messages]) == 2
            for _ in range(2):
                with pytest.raises(trio.EndOfChannel):
                    await messages.receive()
                with pytest.raises(trio.EndOfChannel):
                    messages.receive_nowait()
                with pytest.raises(trio.EndOfChannel):
                    await messages.receive_batch()


async def test_resuming_around_the_end() -> None:
    """A consumer that comes back gets what is behind its number; at the end's own number, nothing more."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count, 3)
        everything = await read(job)
        for after in range(5):
            assert await read(job, after) == everything[after:]
        with pytest.raises(ValueError, match="after"):
            job.subscribe(5)


async def test_state_and_ending_agree() -> None:
    """At the moment a consumer has the end, handle, record, history and `find` tell the same."""

    async def fail(job: JobContext) -> None:
        raise ValueError("no")

    async def stop(job: JobContext) -> None:
        job.cancel_scope.cancel()
        await trio.sleep_forever()

    for executor, state, kind in (
        (count, "COMPLETED", Completed),
        (fail, "FAILED", Failed),
        (stop, "CANCELLED", Cancelled),
    ):
        async with jobtrio.open_registry() as registry:
            job = await registry.submit(executor, 1)
            with job.subscribe() as messages:
                *_, message = [message async for message in messages]
                assert isinstance(message, End)
                assert isinstance(message.outcome, kind)
                assert job.outcome == message.outcome == await job.wait()
                assert (job.state, job.record.state) == (state, state)
                assert [record.id for record in await registry.find(state=jobtrio.JobState(state))] == [job.id]
                assert (await registry.history(job.id))[-1].state == state
                assert job.record.finished_at is not None


async def test_tokens_tells_success_from_failure() -> None:
    """`tokens` returns on success and raises what happened otherwise, after the last value."""

    async def executor(job: JobContext) -> None:
        await job.send("x")
        if job.payload == "fail":
            raise ValueError("no")
        if job.payload == "stop":
            await trio.sleep_forever()

    async with jobtrio.open_registry() as registry:
        for payload, error in (
            ("", None),
            ("fail", jobtrio.JobFailedError),
            ("stop", jobtrio.JobCancelledError),
        ):
            job = await registry.submit(executor, payload)
            values = []
            if error is None:
                values = [value async for value in job.tokens()]
            else:
                with pytest.raises(error, match=r"no|enough"):  # noqa: PT012
                    async for value in job.tokens():
                        values.append(value)
                        if payload == "stop":
                            await job.cancel("enough")
            assert values == ["x"]


async def test_silence_is_no_ending(autojump_clock: trio.testing.MockClock) -> None:
    """However long a job is silent, its stream neither ends nor reports anything until the job does."""

    async def build(job: JobContext) -> str:
        await trio.sleep(2)
        await job.send("compiling")
        await trio.sleep(86_400)
        await job.send("linking")
        await trio.sleep(600)
        return "built"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(build)
        arrived = [(trio.current_time(), message) async for message in job.subscribe()]
        assert [message for _, message in arrived] == [
            Token(1, 1, "compiling"),
            Token(2, 1, "linking"),
            End(3, Completed("built")),
        ]
        start = arrived[0][0]
        assert [at - start for at, _ in arrived] == [0, 86_400, 87_000]


async def test_one_output_has_many_kinds_and_none_is_text(autojump_clock: trio.testing.MockClock) -> None:
    """Data, progress, restarts and the ending are messages of their own types, numbered together."""

    async def executor(job: JobContext) -> None:
        job.progress(1, 2, "half")
        await job.send(b"data")
        if job.attempt == 1:
            raise OSError("again")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor, retry=RetryPolicy(max_attempts=2, jitter=0))
        messages = await read(job)
        restart = messages[2]
        assert messages == [
            Progress(1, 1, 1, 2, "half"),
            Token(2, 1, b"data"),
            jobtrio.Restart(3, 1, restart.error, 1.0),
            Progress(4, 2, 1, 2, "half"),
            Token(5, 2, b"data"),
            End(6, Completed()),
        ]
        assert (restart.error.kind, restart.error.message) == ("exception", "again")


async def test_no_orphans_behind_an_ending() -> None:
    """A cancelled job's end comes only after its child tasks, and theirs, have cleaned up and gone."""
    living = 0

    async def child(depth: int) -> None:
        nonlocal living
        living += 1
        try:
            async with trio.open_nursery() as nursery:
                if depth:
                    nursery.start_soon(child, depth - 1)
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            living -= 1

    async def executor(job: JobContext) -> None:
        job.nursery.start_soon(child, 3)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        await trio.testing.wait_all_tasks_blocked()
        assert (living, job.state) == (4, "RUNNING")
        await job.cancel("stop the download")
        assert await job.wait() == Cancelled("stop the download")
        assert living == 0


async def test_no_thread_behind_an_ending() -> None:
    """A cancelled thread's end comes only after the thread has returned."""
    living = 0

    def executor(job: Any) -> None:
        nonlocal living
        living += 1
        try:
            while True:
                job.send("alive")
        finally:
            living -= 1

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        with job.subscribe() as messages:
            await messages.receive()
            assert living == 1
            await job.cancel()
            assert await job.wait() == Cancelled(None)
            assert living == 0


async def test_thread_that_swallows_its_cancellation() -> None:
    """A thread that catches what tells it of its end, and returns, does not become a success."""

    def executor(job: Any) -> str:
        try:
            while True:
                job.send("alive")
        except BaseException:
            return "all is well"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        async with job.subscribe() as messages:
            await messages.receive()
        assert await job.cancel("stop")
        assert await job.wait() == Cancelled("stop")
        timed = await (await registry.submit(executor, time_limit=0.01)).wait()
        assert isinstance(timed, Failed)
        assert timed.error.kind == "timeout"


async def test_nobody_listening() -> None:
    """Jobs that nobody watches run, fail and are cancelled all the same."""

    async def executor(job: JobContext) -> None:
        for n in range(100):
            await job.send(n)
        if job.payload == "fail":
            raise ValueError("no")
        if job.payload == "hang":
            await trio.sleep_forever()

    async with jobtrio.open_registry() as registry:
        jobs = [await registry.submit(executor, how) for how in ("", "fail", "hang")]
        await trio.testing.wait_all_tasks_blocked()
        await jobs[2].cancel()
    assert [job.state for job in jobs] == ["COMPLETED", "FAILED", "CANCELLED"]
