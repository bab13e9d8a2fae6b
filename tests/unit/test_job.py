"""The handle to one job: reading its stream, waiting for its end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from other_numbers import Whole

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    End,
    Failed,
    Gap,
    Job,
    JobCancelledError,
    JobContext,
    JobFailedError,
    JobPriority,
    LaggedError,
    Retention,
    Token,
)
from jobtrio._entry import JobEntry, Plan
from jobtrio._token_log import TokenLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


class Owner:
    """What a handle needs of its registry."""

    def open_log(self, entry: JobEntry) -> TokenLog:
        """Return the job's log."""
        if entry.log is None:
            entry.log = TokenLog(10)
        return entry.log

    def check_run(self, call: str, instead: str) -> None:
        """Have no thread of its own."""

    def check_awaited(self, call: str, instead: str) -> None:
        """Have no run of its own."""

    async def catch_up(self, entry: JobEntry) -> TokenLog:
        """Return the log, which is all that there is."""
        return self.open_log(entry)

    async def has_stored(self, entry: JobEntry, number: int) -> bool:
        """Store nothing."""
        raise NotImplementedError

    async def cancel(
        self, job_id: str, reason: str | None = None, *, grace: float = 0.0, entry: JobEntry | None = None
    ) -> bool:
        """Cancel nothing."""
        raise NotImplementedError

    async def set_priority(self, job_id: str, priority: JobPriority, *, entry: JobEntry | None = None) -> bool:
        """Change nothing."""
        raise NotImplementedError


def handle() -> tuple[Job, TokenLog]:
    """Return a handle to a job and the job's log."""
    plan = Plan("work", None, "default", JobPriority.NORMAL, None, None, "w")
    entry, owner = JobEntry("id", plan, None, 0.0), Owner()
    return Job(entry, owner), owner.open_log(entry)


async def speak(job: JobContext) -> int:
    """Send the payload's parts and return how many there were."""
    for part in job.payload:
        await job.send(part)
    return len(job.payload)


async def fail(job: JobContext) -> None:
    """Send something and fail."""
    await job.send("a")
    raise ValueError("no")


async def hang(job: JobContext) -> None:
    """Wait for ever."""
    await trio.sleep_forever()


async def fail_once(job: JobContext) -> None:
    """Send the attempt's number, behind a progress, and fail the first time."""
    job.progress(1)
    await job.send(job.attempt)
    if job.attempt == 1:
        raise ValueError


async def test_handles_are_equal_for_the_same_job() -> None:
    """Handles to one job are equal and hash alike; to another job or of another registry they are not."""
    async with jobtrio.open_registry() as registry, jobtrio.open_registry() as other:
        job = await registry.submit(speak, [], job_id="one")
        assert job == await registry.get("one")
        assert hash(job) == hash(await registry.get("one"))
        assert job != await registry.submit(speak, [])
        assert job != await other.submit(speak, [], job_id="one")
        assert job != "one"
        await job.wait()
        assert repr(job) == "<Job 'one' COMPLETED>"


async def test_readable_when_let_go() -> None:
    """State, record, outcome and stream stay readable when the registry no longer keeps the job."""
    async with jobtrio.open_registry(retention=Retention(finished_jobs=0)) as registry:
        job = await registry.submit(speak, ["a"])
        assert await job.wait() == Completed(1)
        assert job.id not in registry
        assert (job.state, job.outcome, job.record.result) == ("COMPLETED", Completed(1), 1)
        assert [m async for m in job.subscribe()] == [Token(1, 1, "a"), End(2, Completed(1))]
        assert await job.wait() == Completed(1)
        assert await job.result() == 1
        silent = await registry.submit(speak, [])
        await silent.wait()
        assert [m async for m in silent.subscribe()] == [End(1, Completed(0))]
    assert [m async for m in job.subscribe(1)] == [End(2, Completed(1))]


async def test_wait() -> None:
    """`wait` gives the outcome to all who wait, is a checkpoint when it is known, and leaves a cancelled job be."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(hang)
        outcomes: list[Any] = []

        async def wait() -> None:
            outcomes.append(await job.wait())

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            with trio.CancelScope() as scope:
                scope.cancel()
                await job.wait()
            assert job.state == "RUNNING"
            await job.cancel("enough")
        assert outcomes == [Cancelled("enough")] * 3
        with trio.testing.assert_checkpoints():
            assert await job.wait() == Cancelled("enough")


async def test_result() -> None:
    """`result` gives what was returned, or raises what became of the job."""
    async with jobtrio.open_registry() as registry:
        assert await (await registry.submit(speak, ["a"])).result() == 1
        failed = await registry.submit(fail)
        with pytest.raises(JobFailedError, match=r"^job '.*' failed \(exception\): ValueError: no$") as failure:
            await failed.result()
        assert (failure.value.job_id, failure.value.error) == (failed.id, failed.record.error)
        cancelled = await registry.submit(hang)
        await cancelled.cancel("enough")
        with pytest.raises(JobCancelledError, match=r"^job '.*' was cancelled: enough$") as cancellation:
            await cancelled.result()
        assert (cancellation.value.job_id, cancellation.value.reason) == (cancelled.id, "enough")


async def test_tokens() -> None:
    """`tokens` gives the bare values, stops on success and raises otherwise."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(speak, ["a", None, "[DONE]"])
        await job.wait()
        assert [token async for token in job.tokens()] == ["a", None, "[DONE]"]
        assert [token async for token in job.tokens(after=2)] == ["[DONE]"]
        failed = await registry.submit(fail)
        tokens = failed.tokens()
        assert await tokens.__anext__() == "a"
        with pytest.raises(JobFailedError):
            await tokens.__anext__()
        cancelled = await registry.submit(hang)
        await cancelled.cancel()
        with pytest.raises(JobCancelledError, match=r"was cancelled$"):
            await cancelled.tokens().__anext__()


async def test_tokens_end_in_the_same_way_again() -> None:
    """A loop over a job's tokens comes to its end for a success alone: also behind the `End`, also the second time."""
    async with jobtrio.open_registry() as registry:
        for executor, error in ((fail, JobFailedError), (hang, JobCancelledError)):
            job = await registry.submit(executor)
            if executor is hang:
                await job.cancel()
            await job.wait()
            last = (await job.span()).last
            for tokens in (job.tokens(last - 1), job.tokens(last)):
                for _ in range(2):
                    with pytest.raises(error):
                        await tokens.__anext__()
        job = await registry.submit(speak, "a")
        await job.wait()
        for after in (1, 2):
            tokens = job.tokens(after)
            for _ in range(2):
                assert [token async for token in tokens] == []


async def test_tokens_leave_out_the_rest(autojump_clock: MockClock) -> None:
    """Progress and restarts are no tokens."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(fail_once, retry=jobtrio.RetryPolicy())
        assert [token async for token in job.tokens()] == [1, 2]


async def test_tokens_that_fell_behind() -> None:
    """A token stream tells of a gap once and goes on behind it."""
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=2)) as registry:
        job = await registry.submit(speak, "abcdef")
        await job.wait()
        tokens = job.tokens()
        with pytest.raises(LaggedError, match="messages 1 to 4"):
            await tokens.__anext__()
        assert [token async for token in tokens] == ["e", "f"]


# -- open_channel


async def test_open_channel() -> None:
    """A plain channel gives the same messages and is closed behind the end."""
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=2)) as registry:
        job = await registry.submit(speak, "abc")
        await job.wait()
        sizes: list[Any] = [0, 1, 64, Whole(2)]
        for size in sizes:
            async with job.open_channel(size) as channel:
                assert isinstance(channel, trio.MemoryReceiveChannel)
                assert [m async for m in channel] == [
                    Gap(1, 1),
                    Token(2, 1, "b"),
                    Token(3, 1, "c"),
                    End(4, Completed(3)),
                ]
        async with job.open_channel(after=3) as channel:
            assert [m async for m in channel] == [End(4, Completed(3))]


def test_defaults_of_a_channel() -> None:
    """Sixty-four messages wait in a channel for a busy reader, from the first on."""
    import inspect

    parameters = inspect.signature(Job.open_channel).parameters
    assert (parameters["size"].default, parameters["after"].default) == (64, 0)


async def test_a_channel_is_bounded() -> None:
    """A channel holds as many messages as was asked for; the others wait in the log."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(speak, "abcdef")
        await job.wait()
        async with job.open_channel(3) as channel:
            await trio.testing.wait_all_tasks_blocked()
            assert channel.statistics().current_buffer_used == channel.statistics().max_buffer_size == 3


async def test_open_channel_as_it_comes() -> None:
    """Messages arrive in the channel while the job runs."""
    async with jobtrio.open_registry() as registry:
        go_on = trio.Event()

        async def executor(job: JobContext) -> None:
            await job.send("a")
            await go_on.wait()

        job = await registry.submit(executor)
        async with job.open_channel() as channel:
            assert await channel.receive() == Token(1, 1, "a")
            go_on.set()
            assert await channel.receive() == End(2, Completed(None))
            with pytest.raises(trio.EndOfChannel):
                await channel.receive()


async def test_leaving_a_channel_early() -> None:
    """Leaving the block, or closing the channel, ends the pump and not the job."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(speak, "abc")
        async with job.open_channel(0) as channel:
            assert await channel.receive() == Token(1, 1, "a")
        with pytest.raises(trio.ClosedResourceError):
            await channel.receive()
        async with job.open_channel(0) as channel:
            await trio.testing.wait_all_tasks_blocked()
            channel.close()
            await trio.testing.wait_all_tasks_blocked()
        assert await job.wait() == Completed(3)


async def test_the_bodys_exception_is_bare() -> None:
    """What the body of a channel's block raises comes out as it is."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(hang)
        with pytest.raises(KeyError):
            async with job.open_channel():
                raise KeyError
        await job.cancel()


async def test_a_channel_that_is_cut_off() -> None:
    """A stream that stops without its end is an error in the channel's block, never a plain end."""
    job, log = handle()
    log.send(1, "a")
    got: list[Any] = []

    async def read() -> None:
        async with job.open_channel() as channel:
            got.extend([m async for m in channel])

    async def expect_cut() -> None:
        with pytest.raises(trio.BrokenResourceError, match="closed"):
            await read()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_cut)
        await trio.testing.wait_all_tasks_blocked()
        log.cut_off("closed")
    assert got == []  # the loop did not come to its end


async def test_waiting_for_a_job_that_is_cut_off() -> None:
    """Whoever waits for a job that is cut off is told so, also through its token stream."""
    job, log = handle()
    log.cut_off("closed")
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await job.wait()
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await job.result()
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await job.tokens().__anext__()


@asynccontextmanager
async def waiting_for(job: jobtrio.Job) -> AsyncIterator[list[jobtrio.Outcome]]:
    """Wait for a job within the block, and to its end; give the list that its outcome is put into."""
    outcomes: list[jobtrio.Outcome] = []

    async def wait() -> None:
        outcomes.append(await job.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        yield outcomes


async def test_waiting_for_a_job_whose_end_is_known_by_then() -> None:
    """Whoever waits gets the outcome also where the stream was cut off before its end, if the record tells it."""
    job, log = handle()
    async with waiting_for(job) as outcomes:
        job._entry.outcome = Completed(3)
        log.cut_off("gone")
    assert outcomes == [Completed(3)]


async def test_waiting_goes_on_with_another_log() -> None:
    """Where the job's stream goes on elsewhere, waiting goes on with the log that has taken the old one's place."""
    job, log = handle()
    async with waiting_for(job) as outcomes:
        job._entry.log = None
        log.cut_off("elsewhere")
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == []
        Owner().open_log(job._entry).finish(Completed(3))
    assert outcomes == [Completed(3)]


# -- execute_and_stream


async def test_execute_and_stream() -> None:
    """A held job is started by entering, and its stream comes as text, with one line for the ending."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job(["a", 1, None])
        async with registry.execute_and_stream(job.id, speak) as lines:
            assert [line async for line in lines] == ["a", "1", "None", "[DONE]"]
            assert [line async for line in lines] == []
        async with registry.execute_and_stream(job.id, fail) as lines:
            assert [line async for line in lines] == ["a", "1", "None", "[DONE]"]
        assert await registry.history(job.id) != []


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (ValueError("no\n  way"), "[ERROR] no way"),
        (ValueError(), "[ERROR] ValueError"),
        (ValueError(" \n"), "[ERROR] ValueError"),
        (jobtrio.GiveUp("enough"), "[ERROR] enough"),
    ],
)
async def test_the_ending_as_a_line(raised: Exception, line: str) -> None:
    """A failure is one line, whatever its text."""

    async def executor(job: JobContext) -> None:
        raise raised

    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        async with registry.execute_and_stream(job.id, executor) as lines:
            assert [each async for each in lines] == [line]


async def test_the_ending_of_a_cancelled_job() -> None:
    """A cancelled job's last line is `[CANCELLED]`; one that was cancelled while it was held never runs."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        await job.cancel("why")
        async with registry.execute_and_stream(job.id, speak) as lines:
            assert [line async for line in lines] == ["[CANCELLED]"]
        assert job.record.attempt == 0


class Unshowable:
    """A value without text."""

    def __str__(self) -> str:
        raise RuntimeError


async def test_a_token_without_text() -> None:
    """A token whose text raises is named, and the stream goes on."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job([Unshowable()])
        async with registry.execute_and_stream(job.id, speak) as lines:
            assert [line async for line in lines] == ["<a Unshowable whose text raised RuntimeError>", "[DONE]"]


async def test_only_tokens_are_text(autojump_clock: MockClock) -> None:
    """Progress and restarts are no lines; the tokens of all attempts are."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job(retry=jobtrio.RetryPolicy())
        async with registry.execute_and_stream(job.id, fail_once) as lines:
            assert [line async for line in lines] == ["1", "2", "[DONE]"]


async def test_leaving_early_cancels_nothing() -> None:
    """Whoever leaves the block early leaves the job running."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job("abc")
        async with registry.execute_and_stream(job.id, speak) as lines:
            assert await lines.__anext__() == "a"
        assert await job.wait() == Completed(3)


async def test_two_who_execute(autojump_clock: MockClock) -> None:
    """The first executor wins, the second joins its stream, from the beginning."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job("ab")
        streams: list[list[str]] = []

        async def read(executor: Any) -> None:
            async with registry.execute_and_stream(job.id, executor) as lines:
                streams.append([line async for line in lines])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, speak)
            nursery.start_soon(read, speak)
            nursery.start_soon(read, speak)
        assert streams == [["a", "b", "[DONE]"]] * 3
        assert job.record.attempt == 1


async def test_joining_asks_for_no_executor() -> None:
    """Where a job was started, or has ended, the executor that is named does not matter, known or not."""
    async with jobtrio.open_registry() as registry:
        started = await registry.submit(speak, ["a"])
        ended = await registry.create_job()
        await ended.cancel()
        for job, line in ((started, "[DONE]"), (ended, "[CANCELLED]")):
            async with registry.execute_and_stream(job.id, "unknown") as lines:
                assert [each async for each in lines][-1] == line


async def test_options_of_the_execution(autojump_clock: MockClock) -> None:
    """A time limit given here wins over the one that the job was created with."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job(time_limit=1000)
        async with registry.execute_and_stream(job.id, hang, time_limit=3) as lines:
            assert [line async for line in lines] == ["[ERROR] the attempt took longer than its time limit of 3 s"]
        assert trio.current_time() == 3
        job = await registry.create_job(time_limit=2)
        async with registry.execute_and_stream(job.id, hang) as lines:
            assert [line async for line in lines] == ["[ERROR] the attempt took longer than its time limit of 2 s"]


async def test_executing_is_checked() -> None:
    """Nonsense is refused, also where the job has been started already, and the job stays as it was."""
    async with jobtrio.open_registry() as registry:
        for job in (await registry.create_job(), await registry.submit(speak, [])):
            await trio.testing.wait_all_tasks_blocked()
            state = job.state
            with pytest.raises(TypeError, match="executor must be"):
                async with registry.execute_and_stream(job.id, 3):  # type: ignore[arg-type]
                    pass
            with pytest.raises(ValueError, match=r"^time_limit must be"):
                async with registry.execute_and_stream(job.id, speak, time_limit=-1):
                    pass
            assert job.state == state
        with pytest.raises(jobtrio.UnknownJobError):
            async with registry.execute_and_stream("unknown", speak):
                pass
        held = await registry.create_job()
        with pytest.raises(jobtrio.UnknownExecutorError):
            async with registry.execute_and_stream(held.id, "unknown"):
                pass
        assert held.state == "QUEUED"


async def test_executing_a_job_that_expired(autojump_clock: MockClock) -> None:
    """A job that nobody executed in time has expired, and says so."""
    async with jobtrio.open_registry(retention=Retention(held_for=5)) as registry:
        job = await registry.create_job("abc")
        await trio.sleep(5)
        outcome = await job.wait()
        assert isinstance(outcome, Failed)
        assert outcome.error.kind == "expired"
        async with registry.execute_and_stream(job.id, speak) as lines:
            assert [line async for line in lines] == [
                "[ERROR] nobody executed it within the time that it is held (held_for)"
            ]


async def test_executing_a_job_with_a_start_time(autojump_clock: MockClock) -> None:
    """A held job with a delay starts when both have come: its time and its executor."""
    async with jobtrio.open_registry(retention=Retention(held_for=5)) as registry:
        early = await registry.create_job("a", delay=10)
        async with registry.execute_and_stream(early.id, speak) as lines:
            assert early.state == "SCHEDULED"
            assert [line async for line in lines] == ["a", "[DONE]"]
        assert trio.current_time() == 10
        late = await registry.create_job("a", delay=10)
        await trio.sleep(14.9)
        assert late.state == "QUEUED"
        async with registry.execute_and_stream(late.id, speak) as lines:
            assert [line async for line in lines] == ["a", "[DONE]"]
        never = await registry.create_job("a", delay=10)
        await trio.sleep(15.1)
        assert never.state == "FAILED"
