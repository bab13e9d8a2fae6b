"""`run_job` and `sweep_cancellation`: what they return, on which clock, and what they find."""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from other_numbers import Whole

from jobtrio import Cancelled, Completed, End, Failed, GiveUp, JobContext, Restart, RetryPolicy, ThreadJobContext, Token
from jobtrio.executors import run_command
from jobtrio.testing import JobRun, run_job, sweep_cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400.0


async def count(job: JobContext) -> int:
    """Send the numbers up to the payload, a day apart."""
    for number in range(job.payload):
        await trio.sleep(DAY)
        await job.send(number)
    return int(job.payload)


def count_in_thread(job: ThreadJobContext) -> str:
    for number in range(job.payload):
        job.send(number)
    return threading.current_thread().name


async def wait_for_ever(job: JobContext) -> None:
    await trio.sleep_forever()


async def fail_once(job: JobContext) -> str:
    await job.send(job.attempt)
    if job.attempt == 1:
        raise ValueError("no")
    return "done"


# --- run_job ------------------------------------------------------------------------------------


def test_outcome_and_messages() -> None:
    """The run has the outcome and the whole stream, and days take no time."""
    run = run_job(count, 2)
    assert run == JobRun(Completed(2), [Token(1, 1, 0), Token(2, 1, 1), End(3, Completed(2))])


def test_nothing_is_evicted() -> None:
    """A stream longer than a registry keeps by default is complete."""

    async def burst(job: JobContext) -> None:
        for number in range(12_000):
            job.send_nowait(number)

    assert [message.seq for message in run_job(burst).messages if isinstance(message, Token)] == [*range(1, 12_001)]


def test_options_of_submit() -> None:
    """What is given besides goes to `submit`: here a retry policy with an hour between attempts, a delay and tags."""
    run = run_job(fail_once, retry=RetryPolicy(initial=3600), delay=DAY, tags={"a": "b"})
    assert run.outcome == Completed("done")
    assert [type(message) for message in run.messages] == [Token, Restart, Token, End]


def test_virtual_time_limit() -> None:
    """A time limit of hours fires at once on a job that waits for ever."""
    outcome = run_job(wait_for_ever, time_limit=3600).outcome
    assert isinstance(outcome, Failed)
    assert outcome.error.kind == "timeout"


def test_failures_are_outcomes() -> None:
    """What the executor raises is in the outcome, not raised."""

    async def give_up(job: JobContext) -> None:
        raise GiveUp("enough")

    outcome = run_job(give_up).outcome
    assert isinstance(outcome, Failed)
    assert (outcome.error.kind, outcome.error.message) == ("gave_up", "enough")


def test_endless_waiting() -> None:
    """A job that waits for what never comes is told instead of hanging the test."""
    with pytest.raises(trio.TooSlowError, match="the job was RUNNING after a year: it waits for something"):
        run_job(wait_for_ever)


def test_thread_executor() -> None:
    """A plain function runs in a worker thread and sends as it goes."""
    outcome, messages = run_job(count_in_thread, 2)
    assert isinstance(outcome, Completed)
    assert outcome.result != threading.main_thread().name
    assert messages == [Token(1, 1, 0), Token(2, 1, 1), End(3, outcome)]


def test_no_jump_while_a_thread_works() -> None:
    """The time that a thread takes fires no time limit that is longer."""

    def work(job: ThreadJobContext) -> None:
        time.sleep(0.05)
        job.check_cancelled()

    assert run_job(work, time_limit=5).outcome == Completed(None)
    assert run_job(functools.partial(work), time_limit=5).outcome == Completed(None)


def test_no_jump_while_a_thread_of_the_executor_works() -> None:
    """An async executor's own threads are waited for as well, and its waits afterwards are virtual again."""

    async def work(job: JobContext) -> None:
        with trio.fail_after(60):
            await trio.to_thread.run_sync(time.sleep, 0.05, limiter=trio.CapacityLimiter(1))
        await trio.sleep(DAY)

    assert run_job(work, time_limit=2 * DAY).outcome == Completed(None)


def test_limits_of_threads_are_real() -> None:
    """A thread that waits to be cancelled is, when its time limit is over in real time."""

    def work(job: ThreadJobContext) -> None:
        while True:
            job.check_cancelled()
            time.sleep(0.001)

    outcome = run_job(work, time_limit=0.02).outcome
    assert isinstance(outcome, Failed)
    assert outcome.error.kind == "timeout"


def test_no_jump_while_a_program_runs() -> None:
    """A program is given real time, and what it writes arrives."""
    script = "import time; time.sleep(0.1); print('late')"
    outcome, messages = run_job(run_command, {"argv": [sys.executable, "-c", script]}, time_limit=15)
    assert outcome == Completed(0)
    assert messages[0] == Token(1, 1, {"stdout": "late"})


@pytest.mark.parametrize("executor", [int, 3, None, "name"])
@pytest.mark.parametrize("run", [run_job, sweep_cancellation])
def test_what_is_no_executor(run: Any, executor: Any) -> None:
    """What can't be an executor is refused as `submit` refuses it."""
    with pytest.raises(TypeError, match="executor must be an async function, a plain function"):
        run(executor)


def test_bad_options() -> None:
    """An option that makes no sense is refused bare, by both."""
    for run in (run_job, sweep_cancellation):
        with pytest.raises(ValueError, match="time_limit must be"):
            run(count, 1, time_limit=-1)


# --- sweep_cancellation -------------------------------------------------------------------------


def test_sweep() -> None:
    """Each step is cancelled once, and the last run is untouched."""
    *cut, whole = sweep_cancellation(count, 3)
    assert whole == run_job(count, 3)
    assert {run.outcome for run in cut} == {Cancelled("cancelled by the sweep")}
    lengths = [len(run.messages) for run in cut]
    assert lengths == sorted(lengths)
    assert set(lengths) == {1, 2, 3, 4}  # cut before and after each token


def test_sweep_begins_at_the_first_line() -> None:
    """In the first run the executor is entered and cancelled at its first checkpoint, in the last it is not."""
    reached: list[str] = []

    async def work(job: JobContext) -> None:
        reached.append("entered")
        await trio.lowlevel.checkpoint()
        reached.append("passed")

    runs = sweep_cancellation(work)
    assert reached.count("entered") == len(runs)
    assert reached[:2] == ["entered", "entered"]
    assert reached[-2:] == ["entered", "passed"]


def test_sweep_counts_child_tasks() -> None:
    """The steps of child tasks, and of theirs, are the job's."""

    async def child(job: JobContext) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(job.send, number)

    async def work(job: JobContext) -> None:
        job.nursery.start_soon(child, job)

    sent = [len(run.messages) - 1 for run in sweep_cancellation(work)]
    assert {0, 3} <= set(sent) <= {0, 1, 2, 3}
    assert len(sent) > 5


def test_sweep_counts_all_attempts() -> None:
    """A retried job is cancelled in each of its attempts, and never goes on afterwards."""
    runs = sweep_cancellation(fail_once, retry=RetryPolicy(jitter=0))
    streams = [[type(message) for message in run.messages] for run in runs]
    assert [Token, End] in streams
    assert [Token, Restart, End] in streams
    assert streams[-1] == [Token, Restart, Token, End]


def test_sweep_of_threads() -> None:
    """A thread executor is cancelled wherever it sends, and is gone each time."""
    *cut, whole = sweep_cancellation(count_in_thread, 2)
    assert isinstance(whole.outcome, Completed)
    assert len(cut) >= 2


def test_sweep_of_a_result_that_equals_nothing() -> None:
    """The result may be NaN, or what can neither be compared nor shown: it is the executor's own."""

    class Hostile:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        def __repr__(self) -> str:
            raise ValueError("not to be shown")

    async def work(job: JobContext) -> Any:
        await job.send(1)
        return job.payload

    for result in (math.nan, Hostile()):
        outcome = sweep_cancellation(work, result)[-1].outcome
        assert isinstance(outcome, Completed)
        assert outcome.result is result


def test_sweep_finds_a_task_left() -> None:
    """A task that outlives its job when that is cancelled at the wrong step is named with the step."""

    async def work(job: JobContext) -> None:
        stop = trio.Event()

        async def helper() -> None:
            await stop.wait()

        trio.lowlevel.spawn_system_task(helper)
        await job.send(1)
        await job.send(2)
        stop.set()

    with pytest.raises(AssertionError, match=r"cancelled at step 1: tasks were left: .*<locals>\.helper$"):
        sweep_cancellation(work)


def test_sweep_finds_a_thread_left() -> None:
    """So is a thread of the executor's own that was not waited for."""
    stop = threading.Event()

    async def work(job: JobContext) -> None:
        thread = threading.Thread(target=stop.wait, name="stray")
        await job.send(1)
        thread.start()
        await job.send(2)
        stop.set()
        thread.join()

    with pytest.raises(AssertionError, match="cancelled at step 2: threads were left: stray"):
        sweep_cancellation(work)
    stop.set()


def test_sweep_finds_an_abandoned_worker() -> None:
    """So is a worker thread that was abandoned."""
    stop = threading.Event()

    async def work(job: JobContext) -> None:
        await trio.to_thread.run_sync(stop.wait, abandon_on_cancel=True)

    with pytest.raises(AssertionError, match=r"cancelled at step 2: (threads were|a worker thread was) left"):
        sweep_cancellation(work)
    stop.set()


def test_sweep_finds_endless_clean_up() -> None:
    """A job that still waits a year after it was cancelled is told, with the step."""

    async def work(job: JobContext) -> None:
        try:
            await job.send(1)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(400 * DAY)

    with pytest.raises(AssertionError, match="cancelled at step 1: the job was RUNNING after a year"):
        sweep_cancellation(work)


def test_sweep_of_an_executor_that_cancels_its_job() -> None:
    """Of two requests to cancel the first one's reason stays: here the executor's own, from the second step on."""

    async def work(job: JobContext) -> None:
        await job.registry.cancel(job.id, "enough")
        await trio.sleep(1)

    first, *others = [run.outcome for run in sweep_cancellation(work)]
    assert first == Cancelled("cancelled by the sweep")
    assert set(others) == {Cancelled("enough")}


def test_sweep_of_an_executor_that_ends_the_registry() -> None:
    """What an executor raises at one step that no job can hold has that step as a note."""

    async def work(job: JobContext) -> None:
        await job.send(1)
        try:
            await job.send(2)
        except trio.Cancelled:
            raise SystemExit(3) from None

    with pytest.raises(SystemExit) as raised:
        sweep_cancellation(work)
    assert raised.value.__notes__ == ["the job was cancelled at step 2"]


def test_sweep_of_a_job_that_never_ends() -> None:
    """A job that waits for ever by itself is told apart from one that does so behind a cancellation."""
    with pytest.raises(AssertionError, match=r"^not cancelled: the job was RUNNING after a year"):
        sweep_cancellation(wait_for_ever)


def test_sweep_at_most() -> None:
    """Too many steps are an error that says so; the number is checked."""
    with pytest.raises(AssertionError, match="at_most=3"):
        sweep_cancellation(count, 5, at_most=3)
    with pytest.raises(ValueError, match="at_most must be"):
        sweep_cancellation(count, 5, at_most=0)
    most: Any = Whole(1000)
    assert sweep_cancellation(count, 1, at_most=most) == sweep_cancellation(count, 1)


@pytest.mark.parametrize("run", [run_job, sweep_cancellation])
async def test_within_trio(run: Callable[[Any], Any]) -> None:
    """Called in a task, as from an async test, it says from where to call it instead."""
    with pytest.raises(RuntimeError, match="call it from a plain function"):
        run(print)
