"""The registry's calls: submitting, finding, cancelling, removing, counting."""

from __future__ import annotations

import asyncio
import copy
import math
import os
import pickle
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from call_count import calls_made
from other_numbers import Whole
from turns import Turns

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    DuplicateJobError,
    Failed,
    IllegalTransitionError,
    JobContext,
    JobPriority,
    JobSpec,
    JobState,
    QueueFullError,
    Retention,
    RetryPolicy,
    Token,
    UnknownJobError,
)
from jobtrio._submission import Submissions
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


class Real(float):
    """A number of a class of its own."""


async def work(job: JobContext) -> Any:
    """Return the payload."""
    return job.payload


async def hang(job: JobContext) -> None:
    """Wait for ever."""
    await trio.sleep_forever()


async def clean_up(job: JobContext) -> None:
    """Wait for ever, and take 5 s to clean up; with a payload, fail at that."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        if job.payload:
            raise ValueError("clean-up")


def kind_of(job: jobtrio.Job) -> str:
    """Return the kind of a failed job's error."""
    assert isinstance(job.outcome, Failed)
    return job.outcome.error.kind


# -- submitting


async def test_what_is_submitted_is_recorded() -> None:
    """Each option of `submit` is found in the record; ids are made, long and never the same."""
    async with jobtrio.open_registry(worker="w") as registry:
        before = time.time()
        job = await registry.submit(
            work,
            {"a": 1},
            job_id="mine",
            key="k",
            queue="gpu",
            priority=JobPriority.HIGH,
            time_limit=60,
            retry=RetryPolicy(max_attempts=5),
            delay=1000,
            expires_in=2000,
            tags={"user": "ann"},
            metadata={"m": [1]},
        )
        record = job.record
        assert (record.id, record.executor, record.payload, record.key) == ("mine", "work", {"a": 1}, "k")
        assert (record.queue, record.priority, record.max_attempts) == ("gpu", JobPriority.HIGH, 5)
        assert (record.tags, record.metadata, record.state) == ({"user": "ann"}, {"m": [1]}, "SCHEDULED")
        assert (record.time_limit, record.retry, record.expires_in) == (60, RetryPolicy(max_attempts=5), 2000)
        assert before <= record.created_at.timestamp() <= time.time()
        assert record.run_at == record.created_at + timedelta(seconds=1000)
        ids = {(await registry.submit(work)).id for _ in range(100)}
        assert len(ids) == 100
        assert all(len(each) == 32 and int(each, 16) >= 0 for each in ids)
        await job.cancel()


async def test_start_times(autojump_clock: MockClock) -> None:
    """A start time in the past is none, and one in the future is a delay by Trio's clock."""
    async with jobtrio.open_registry() as registry:
        now = datetime.now(UTC)
        past = await registry.submit(work, run_at=now - timedelta(days=1))
        assert past.state == "QUEUED"
        assert past.record.run_at == now - timedelta(days=1)
        future = await registry.submit(work, run_at=now + timedelta(seconds=100))
        assert (future.state, future.record.run_at) == ("SCHEDULED", now + timedelta(seconds=100))
        none = await registry.submit(work, delay=0)
        assert (none.state, none.record.run_at) == ("QUEUED", None)
        start = trio.current_time()
        await future.wait()
        assert 99 < trio.current_time() - start <= 100
        for delay in (0, 1):
            with pytest.raises(ValueError, match="delay and run_at exclude each other"):
                await registry.submit(work, delay=delay, run_at=now)
        assert len(registry) == 3


async def test_an_end_of_waiting_before_the_start() -> None:
    """`expires_in` has to exceed the delay, however that is given."""
    async with jobtrio.open_registry() as registry:
        for options in ({"delay": 5.0}, {"run_at": datetime.now(UTC) + timedelta(seconds=5)}):
            with pytest.raises(ValueError, match="expires_in must exceed the delay of"):
                await registry.submit(work, expires_in=4.9, **options)
        with pytest.raises(ValueError, match=r"the delay of 5 s, or the job would never start; got 5"):
            await registry.submit(work, expires_in=5, delay=5)
        job = await registry.submit(work, expires_in=5.001, delay=5)
        await job.cancel()
        assert len(registry) == 1


@pytest.mark.parametrize("delay", [1e12, 1e300, 253_000_000_000])
async def test_a_start_that_no_record_can_hold(delay: float) -> None:
    """A delay beyond the years that there are is refused by name, and `find` works on."""
    async with jobtrio.open_registry() as registry:
        with pytest.raises(ValueError, match=r"^delay must end before the year 9999; got"):
            await registry.submit(work, delay=delay)
        assert await registry.find() == []


async def test_a_start_in_the_last_year() -> None:
    """The last start time that is allowed can be recorded and found."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(work, run_at=datetime(9999, 1, 1, tzinfo=UTC))
        assert [record.run_at for record in await registry.find()] == [datetime(9999, 1, 1, tzinfo=UTC)]
        await job.cancel()


async def test_duplicate_ids() -> None:
    """An id in use is refused, in one call as over several, until the job is removed; nothing of the call is left."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(work, 1, job_id="a")
        with pytest.raises(DuplicateJobError, match="job_id 'a' is in use"):
            await registry.submit(work, job_id="a")
        with pytest.raises(DuplicateJobError):
            await registry.create_job(job_id="a")
        with pytest.raises(DuplicateJobError):
            await registry.submit(work, job_id=(await registry.submit(work)).id)
        for ids in ("bcb", "cad"):
            with pytest.raises(DuplicateJobError):
                await registry.submit_many([JobSpec(work, job_id=job_id) for job_id in ids])
        assert len(registry) == len(await registry.find()) == 2
        assert await job.result() == 1
        with pytest.raises(DuplicateJobError):
            await registry.submit(work, job_id="a")
        await registry.remove("a")
        again = await registry.submit(work, 2, job_id="a")
        assert again != job
        assert await again.result() == 2


async def test_keys() -> None:
    """A key in use gives the job that it belongs to, while that is kept, whatever else is submitted with it."""
    async with jobtrio.open_registry() as registry:
        first = await registry.submit(work, 1, key="k")
        assert await registry.submit(work, 2, key="k") == first
        assert await registry.submit(work, 2, key="k", job_id="other") == first
        assert await registry.create_job(key="k") == first
        assert await registry.submit(work, 3, key="other") != first
        await first.wait()
        assert await registry.submit(work, 2, key="k") == first
        await registry.remove(first.id)
        second = await registry.submit(work, 2, key="k")
        assert second != first
        assert await second.result() == 2
        many = await registry.submit_many([JobSpec(work, key="k"), JobSpec(work, key="n"), JobSpec(work, key="n")])
        assert many[0] == second
        assert many[1] == many[2] != second
        assert len(registry) == 3


async def test_a_key_is_free_when_its_job_is_too_old(autojump_clock: MockClock) -> None:
    """At the very moment from which an ended job is not kept, its id and key are free."""
    async with jobtrio.open_registry(retention=Retention(finished_for=10)) as registry:
        for _ in range(20):
            job = await registry.submit(work, key="k", job_id="i")
            await job.wait()
            await trio.sleep(10)
            again = await registry.submit(work, key="k")
            assert again != job
            await registry.submit(work, job_id="i", key="other")
            await trio.sleep(10.1)
            assert len(registry) == 0


async def test_many_for_one_moment(autojump_clock: MockClock) -> None:
    """Jobs of one call that are to start at one moment start in their order."""
    begun: list[int] = []

    async def note(job: JobContext) -> None:
        begun.append(job.payload)

    async with jobtrio.open_registry(max_running=1) as registry:
        run_at = datetime.now(UTC) + timedelta(hours=1)
        await registry.submit_many(JobSpec(note, n, run_at=run_at) for n in range(100))
    assert begun == [*range(100)]


async def test_submit_many() -> None:
    """All are accepted in order, or none is, and the fault is found in its place."""
    async with jobtrio.open_registry(max_queued=3) as registry:
        jobs = await registry.submit_many(JobSpec(work, n, tags={"n": str(n)}) for n in range(3))
        assert [await job.result() for job in jobs] == [0, 1, 2]
        assert [record.id for record in await registry.find()] == [job.id for job in jobs]
        assert await registry.submit_many([]) == []
        with pytest.raises(QueueFullError, match="max_queued is 3: more jobs would wait"):
            await registry.submit_many([JobSpec(work) for _ in range(4)])
        with pytest.raises(ValueError, match="time_limit must be") as excinfo:
            await registry.submit_many([JobSpec(work), JobSpec(work, time_limit=-1)])
        assert excinfo.value.__notes__ == ["in specs[1]"]
        with pytest.raises(TypeError, match=r"specs must be JobSpec values; specs\[0\] is 3"):
            await registry.submit_many([3])  # type: ignore[list-item]
        with pytest.raises(TypeError, match=r"specs must be an iterable of JobSpec values; got 3"):
            await registry.submit_many(3)  # type: ignore[arg-type]
        assert len(registry) == 3


async def test_a_spec_that_was_copied() -> None:
    """A copy of a spec is what the spec is: where it names no queue, the executor's own is taken."""
    executors = jobtrio.Executors()
    executors.register("work", queue="gpu")(work)
    spec = jobtrio.JobSpec("work", 1)
    copies = [copy.copy(spec), copy.deepcopy(spec), pickle.loads(pickle.dumps(spec))]
    async with jobtrio.open_registry(executors) as registry:
        jobs = await registry.submit_many([*copies, attrs.evolve(spec, queue="default")])
    assert [job.record.queue for job in jobs] == ["gpu", "gpu", "gpu", "default"]


def test_a_spec_has_the_parameters_of_submit() -> None:
    """A spec takes what `submit` takes, with the same defaults."""
    import inspect

    submit = inspect.signature(jobtrio.JobRegistry.submit).parameters
    spec = inspect.signature(JobSpec).parameters
    assert list(spec) == [name for name in submit if name != "self"]
    assert all(spec[name].default == submit[name].default for name in spec)
    create = inspect.signature(jobtrio.JobRegistry.create_job).parameters
    assert [name for name in create if name != "self"] == [name for name in spec if name != "executor"]


async def test_a_full_queue(autojump_clock: MockClock) -> None:
    """What was submitted and never started is counted, whatever it waits for; a start or an end makes room."""
    async with jobtrio.open_registry(max_queued=3, max_running=1) as registry:
        running = await registry.submit(hang)
        await trio.testing.wait_all_tasks_blocked()
        waiting = [await registry.submit(work), await registry.create_job(), await registry.submit(work, delay=5)]
        with pytest.raises(QueueFullError, match="max_queued is 3: more jobs would wait") as excinfo:
            await registry.submit(work)
        assert excinfo.value.limit == 3
        for job in waiting:
            await job.cancel()
            await registry.submit(hang)
            with pytest.raises(QueueFullError):
                await registry.submit(work)
        await running.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await registry.submit(work)
        with pytest.raises(QueueFullError):
            await registry.submit(work)
        await registry.shutdown()


async def test_a_retry_is_never_refused(autojump_clock: MockClock) -> None:
    """A job that waits for its next attempt does not count, and comes back into a full queue."""

    async def again(job: JobContext) -> int:
        if job.attempt == 1:
            raise ValueError
        return job.attempt

    async with jobtrio.open_registry(max_queued=1, max_running=1) as registry:
        job = await registry.submit(again, retry=RetryPolicy(initial=5, jitter=0))
        await trio.sleep(1)
        assert job.state == "RETRYING"
        blocks = await registry.submit(hang)
        await trio.sleep(1)
        waits = await registry.submit(work)
        await trio.sleep(5)
        assert (job.state, waits.state) == ("QUEUED", "QUEUED")
        await blocks.cancel()
        assert await job.result() == 2
        await waits.wait()
        blocks = await registry.submit(hang)
        await trio.sleep(1)
        await registry.submit(work)
        with pytest.raises(QueueFullError):  # nor has it made room for another
            await registry.submit(work)
        await blocks.cancel()


async def test_queues_that_are_not_served() -> None:
    """A queue that nobody would ever serve is refused, however it is named."""
    async with jobtrio.open_registry(queues={"gpu": 1}) as registry:
        for call in (registry.submit(work), registry.submit(work, queue="cpu"), registry.create_job()):
            with pytest.raises(ValueError, match=r"queue must be one that this registry serves \('gpu'\); got"):
                await call
        assert len(registry) == 0
        assert await (await registry.submit(work, 1, queue="gpu")).result() == 1
    async with jobtrio.open_registry(queues={}) as registry:
        with pytest.raises(ValueError, match=r"serves \(none\); got 'default'"):
            await registry.submit(work)


def test_jobs_submitted_alike_share_a_plan() -> None:
    """Each difference makes another plan, and none is taken from a submission that was refused."""

    async def main() -> None:
        executors = jobtrio.Executors()
        submissions = Submissions(executors, limiter=trio.CapacityLimiter(1), queues=None, durable=False, worker="w")
        policy = RetryPolicy()
        one = submissions.plan(work, "q", JobPriority.HIGH, 3.5, policy)
        assert submissions.plan(work, "q", JobPriority.HIGH, one.time_limit, policy) is not None
        limit = 3.5
        first = submissions.plan(work, "q", JobPriority.HIGH, limit, policy)
        assert submissions.plan(work, "q", JobPriority.HIGH, limit, policy) is first
        assert submissions.plan(hang, "q", JobPriority.HIGH, limit, policy).executor == "hang"
        assert submissions.plan(work, "r", JobPriority.HIGH, limit, policy).queue == "r"
        assert submissions.plan(work, "q", JobPriority.LOW, limit, policy).priority is JobPriority.LOW
        assert submissions.plan(work, "q", JobPriority.HIGH, 4, policy).time_limit == 4
        assert submissions.plan(work, "q", JobPriority.HIGH, limit, None).retry is None
        with pytest.raises(ValueError, match="time_limit"):
            submissions.plan(work, "q", JobPriority.HIGH, -1, None)
        with pytest.raises(ValueError, match="time_limit"):
            submissions.plan(work, "q", JobPriority.HIGH, -1, None)
        executors.register("work", time_limit=9)(work)
        assert submissions.plan(work, "q", JobPriority.HIGH, None, None).time_limit == 9

    trio.run(main)


def test_threads_that_submit_at_once_share_no_plan_by_mistake() -> None:
    """Whoever comes in between while a plan is looked up, as threads with a `Submitter` may, each gets the own one."""

    class Interrupted(jobtrio.Executors):
        """Lets another submission come in between, once, when it is asked whether there is anything new."""

        @property
        def changes(self) -> int:
            if others:
                assert submissions.plan(others.pop()).executor == "hang"
            return 0

        @changes.setter
        def changes(self, changes: int) -> None: ...

    others: list[Any] = []
    submissions = Submissions(Interrupted(), limiter=trio.CapacityLimiter(1), queues=None, durable=False, worker="w")
    for _ in range(2):
        others[:] = [hang]
        assert submissions.plan(work).executor == "work"


async def test_a_cancelled_submit_accepts_nothing() -> None:
    """Whoever is cancelled already submits nothing; the same goes for each other call that changes something."""
    async with jobtrio.open_registry() as registry:
        held, ended = await registry.create_job(), await registry.submit(work)
        await ended.wait()
        for call in (
            registry.submit(work),
            registry.submit_many([JobSpec(work)]),
            registry.create_job(),
            held.cancel(),
            registry.remove(ended.id),
            registry.find(),
            registry.get(held.id),
            registry.history(held.id),
        ):
            with trio.CancelScope() as scope:
                scope.cancel()
                await call
            assert scope.cancelled_caught
        assert len(registry) == 2
        assert held.state == "QUEUED"


async def test_calls_in_a_row_give_way() -> None:
    """Whoever makes many calls in a row lets others run in between."""
    turns = Turns()
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        nursery.start_soon(turns.take)
        for _ in range(1000):
            await registry.submit(work)
        assert turns.taken >= 10
        turns.taken = 0
        job = await registry.create_job()
        for _ in range(1000):
            await registry.get(job.id)
        assert turns.taken >= 10
        nursery.cancel_scope.cancel()


async def test_calls_give_way_now_and_then() -> None:
    """In memory, other tasks run at every 32nd call: no loop of calls starves them, and a call costs no turn."""
    turns = Turns()
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        nursery.start_soon(turns.take)
        await trio.lowlevel.checkpoint()
        before = turns.taken
        for _ in range(320):
            await registry.find()
        taken = turns.taken - before
        assert taken in (9, 10, 11)  # in the first turn and in the last, either task may come before the other
        nursery.cancel_scope.cancel()


# -- held jobs


async def test_what_an_executed_job_has_of_its_executor() -> None:
    """A held job stays in its queue; what else nobody gave is what the executor is registered with."""
    executors = jobtrio.Executors()
    executors.register("registered", queue="gpu", retry=RetryPolicy(max_attempts=4), time_limit=7)(work)
    async with jobtrio.open_registry(executors) as registry:
        for options, expected in (({}, ("default", 4)), ({"queue": "io", "retry": RetryPolicy()}, ("io", 3))):
            job = await registry.create_job(**options)  # type: ignore[arg-type]
            async with registry.execute_and_stream(job.id, "registered") as lines:
                assert [line async for line in lines] == ["[DONE]"]
            assert (job.record.queue, job.record.max_attempts) == expected
            assert job.record.retry == (RetryPolicy(max_attempts=4) if not options else RetryPolicy())
            assert job.record.time_limit == 7
        held = await registry.create_job(time_limit=5, expires_in=60)
        async with registry.execute_and_stream(held.id, "registered", time_limit=6):
            assert (held.record.time_limit, held.record.expires_in) == (6, 60)
        job = await registry.submit("registered")
        assert (job.record.time_limit, job.record.retry, job.record.expires_in) == (
            7,
            RetryPolicy(max_attempts=4),
            None,
        )
        job = await registry.submit("registered", time_limit=math.inf)
        assert job.record.time_limit == math.inf


async def test_held_jobs_expire(autojump_clock: MockClock) -> None:
    """A held job expires when its time is over, by `held_for` or `expires_in`, and says by which."""
    async with jobtrio.open_registry(retention=Retention(held_for=5)) as registry:
        jobs = [await registry.create_job(), await registry.create_job(expires_in=3)]
        longer = await registry.create_job(expires_in=100)
        started = trio.current_time()
        ends = []
        for job in (jobs[1], jobs[0], longer):
            await job.wait()
            ends.append((trio.current_time() - started, kind_of(job), job.record.error))
        assert [(seconds, kind) for seconds, kind, _ in ends] == [(3, "expired"), (5, "expired"), (5, "expired")]
        messages = [error.message for _, _, error in ends if error is not None]
        held = "nobody executed it within the time that it is held (held_for)"
        assert messages == ["not started within 3 s (expires_in)", held, held]


async def test_an_executed_job_is_not_held(autojump_clock: MockClock) -> None:
    """Once executed, a job waits in the queue for as long as `expires_in` lets it, counted from its creation."""
    async with jobtrio.open_registry(max_running=1, retention=Retention(held_for=5)) as registry:
        blocks = await registry.submit(hang)
        await trio.testing.wait_all_tasks_blocked()
        plain, short, long = (
            await registry.create_job(),
            await registry.create_job(expires_in=3),
            await registry.create_job(expires_in=20),
        )
        await trio.sleep(2)
        for job in (plain, short, long):
            async with registry.execute_and_stream(job.id, work):
                pass
        await trio.sleep(1.5)
        assert (plain.state, short.state, long.state) == ("QUEUED", "FAILED", "QUEUED")
        await trio.sleep(16)
        assert (plain.state, long.state) == ("QUEUED", "QUEUED")
        await trio.sleep(1)
        assert (plain.state, kind_of(long)) == ("QUEUED", "expired")
        await blocks.cancel()
        assert await plain.wait() == Completed(None)


# -- finding


async def test_find() -> None:
    """Jobs are found by state, tags, queue and executor, alone and together, in either order."""
    async with jobtrio.open_registry(max_running=1) as registry:
        ran = await registry.submit(work, tags={"a": "1", "b": "1"}, key="k")
        await ran.wait()
        runs = await registry.submit(hang, tags={"a": "1"}, queue="gpu")
        held = await registry.create_job(tags={"a": "2"})
        await trio.testing.wait_all_tasks_blocked()

        async def found(**query: Any) -> list[str]:
            return [record.id for record in await registry.find(**query)]

        assert await found() == [ran.id, runs.id, held.id]
        assert await found(state=JobState.RUNNING) == await found(state="RUNNING") == [runs.id]
        assert await found(state=["RUNNING", JobState.COMPLETED]) == [ran.id, runs.id]
        assert await found(state=iter(["QUEUED"])) == [held.id]
        assert await found(state=[]) == []
        assert await found(tags={"a": "1"}) == [ran.id, runs.id]
        assert await found(tags={"a": "1", "b": "1"}) == [ran.id]
        assert await found(queue="gpu") == [runs.id]
        assert await found(executor=work) == await found(executor="work") == [ran.id]
        assert await found(tags={"a": "1"}, state="RUNNING", queue="gpu", executor="hang") == [runs.id]
        assert await found(tags={"a": "1"}, state="QUEUED") == []
        assert await found(key="k") == await found(key="k", limit=1, newest_first=True) == [ran.id]
        assert await found(key="k", tags={"a": "1"}, state="COMPLETED", queue="default", executor=work) == [ran.id]
        assert await found(key="k", state="QUEUED") == await found(key="k", queue="gpu") == await found(key="l") == []
        assert await found(key="k", after=ran.id) == await found(key="k", after=runs.id) == []
        assert await found(limit=1) == [ran.id]
        assert await found(limit=1, after=ran.id) == [runs.id]
        assert await found(after=held.id) == []
        assert await found(newest_first=True) == [held.id, runs.id, ran.id]
        assert await found(newest_first=True, limit=1, after=held.id) == [runs.id]
        assert await found(newest_first=True, after=ran.id) == []
        with pytest.raises(UnknownJobError):
            await found(after="unknown")
        with pytest.raises(TypeError, match="after must be text"):
            await found(after=3)
        for wrong in ("running", ["RUNNING", 3], 3, b"RUNNING"):
            with pytest.raises(ValueError, match="state must be one or several of SCHEDULED, QUEUED"):
                await found(state=wrong)
        await runs.cancel()


async def test_counts() -> None:
    """Jobs are counted by queue and state: all, or those that have all of some tags."""
    none = dict.fromkeys(JobState, 0)
    async with jobtrio.open_registry(max_running=1) as registry:
        await (await registry.submit(work, tags={"a": "1", "b": "1"})).wait()
        runs = await registry.submit(hang, tags={"a": "1"}, queue="gpu")
        await registry.create_job(tags={"a": "2"})
        await trio.testing.wait_all_tasks_blocked()
        default = none | {JobState.COMPLETED: 1, JobState.QUEUED: 1}
        gpu = none | {JobState.RUNNING: 1}
        assert await registry.counts() == await registry.counts(tags={}) == {"default": default, "gpu": gpu}
        assert await registry.counts(tags={"a": "1"}) == {"default": none | {JobState.COMPLETED: 1}, "gpu": gpu}
        assert await registry.counts(tags={"a": "1", "b": "1"}) == {"default": none | {JobState.COMPLETED: 1}}
        assert await registry.counts(tags={"a": "1", "b": "2"}) == {}
        await runs.cancel()


async def test_a_key_among_many() -> None:
    """To find a job by its key costs the same beside very many others."""
    costs = []
    async with jobtrio.open_registry() as registry:
        for count in (10, 2_000):
            specs = [JobSpec(work, key=f"{len(registry)} {n}", delay=60, tags={"a": "1"}) for n in range(count)]
            await registry.submit_many(specs)
            with calls_made() as calls:
                found = await registry.find(key="0 7", state=JobState.SCHEDULED, executor=work, tags={"a": "1"})
            assert [record.key for record in found] == ["0 7"]
            costs.append(calls.count)
        await registry.shutdown()
    assert costs[1] <= costs[0] + 20


async def test_get_history_and_remove() -> None:
    """A job can be had by its id while it is kept; an ended one can be removed, with all that belongs to it."""
    async with jobtrio.open_registry(worker="w") as registry:
        job = await registry.submit(work, tags={"a": "1"}, key="k")
        assert await registry.get(job.id) == registry.peek(job.id) == job
        assert job.id in registry
        assert 3 not in registry
        assert [] not in registry
        for state in ("QUEUED", "RUNNING"):
            if state == "RUNNING":
                job = await registry.submit(hang)
                await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(IllegalTransitionError, match=f"job .* is {state}: only an ended job can be removed"):
                await registry.remove(job.id)
        await job.cancel("enough")
        await job.wait()
        history = await registry.history(job.id)
        assert [(t.previous, t.state, t.attempt, t.worker, t.reason) for t in history] == [
            (None, "QUEUED", 0, "w", None),
            ("QUEUED", "RUNNING", 1, "w", None),
            ("RUNNING", "CANCELLED", 1, "w", "enough"),
        ]
        await registry.remove(job.id)
        assert job.id not in registry
        assert registry.peek(job.id) is None
        with pytest.raises(TypeError, match="job_id must be text; got 3"):
            registry.peek(3)  # type: ignore[arg-type]
        assert [record.executor for record in await registry.find()] == ["work"]
        assert sum(registry.stats().states.values()) == len(registry)
        for call in (registry.get(job.id), registry.history(job.id), registry.remove(job.id), registry.cancel(job.id)):
            with pytest.raises(UnknownJobError):
                await call


async def test_ids_are_text() -> None:
    """Whatever is no text is no id; text that nobody can have as an id is an unknown one."""
    async with jobtrio.open_registry() as registry:
        for call in (registry.get, registry.history, registry.remove, registry.cancel):
            with pytest.raises(TypeError, match="job_id must be text; got 3"):
                await call(3)  # type: ignore[arg-type]
            with pytest.raises(UnknownJobError):
                await call("\n" * 300)


async def test_retention_by_count_and_age(autojump_clock: MockClock) -> None:
    """The newest ended jobs are kept, for so long; living ones always."""
    async with jobtrio.open_registry(retention=Retention(finished_jobs=2, finished_for=10)) as registry:
        living = await registry.submit(hang)
        jobs = []
        for n in range(4):
            jobs.append(await registry.submit(work, n))
            await jobs[-1].wait()
            await trio.sleep(1)
        assert [job.id in registry for job in (living, *jobs)] == [True, False, False, True, True]
        await trio.sleep(7.9)
        assert [job.id in registry for job in jobs] == [False, False, True, True]
        await trio.sleep(0.2)
        assert [job.id in registry for job in jobs] == [False, False, False, True]
        await trio.sleep(1)
        assert (len(registry), living.id in registry) == (1, True)
        await living.cancel()


@pytest.mark.parametrize(("kept_for", "most"), [(3600.0, 2 * 60 + 2), (math.inf, 60 + 2)])
async def test_not_each_job_is_removed_by_itself(kept_for: float, most: int, autojump_clock: MockClock) -> None:
    """However many jobs end, their store is asked at most once a minute to remove what is too old, and does so."""
    asked: list[float] = []

    class CountingStore(MemoryJobStore):
        async def prune(self) -> float:
            asked.append(trio.current_time())
            return await super().prune()

    store = CountingStore()
    async with jobtrio.open_registry(store=store, retention=Retention(finished_for=kept_for)) as registry:
        for n in range(600):
            await (await registry.submit(work, n)).wait()
            await trio.sleep(6)
        removed = len(asked)
        await trio.sleep(3600 + 61)
        assert len(store._jobs) == (600 if kept_for == math.inf else 0)  # `len(store)` would remove them
    assert len(asked) <= most
    assert removed <= 62


async def test_what_is_too_old_is_gone_at_once(mock_clock: MockClock) -> None:
    """From the very moment on, whoever asks first is told that a job is not kept."""
    async with jobtrio.open_registry(retention=Retention(finished_for=10)) as registry:

        async def gone(ask: Any) -> None:
            job = await registry.submit(work, job_id="i", tags={"a": "1"})
            await job.wait()
            assert len(registry) == 1
            mock_clock.jump(10)
            await ask()

        async def by_length() -> None:
            assert len(registry) == 0

        async def by_id() -> None:
            assert "i" not in registry

        async def by_stats() -> None:
            assert not any(registry.stats().states.values())

        async def by_find() -> None:
            assert await registry.find() == await registry.find(tags={"a": "1"}) == []

        async def by_get() -> None:
            with pytest.raises(UnknownJobError):
                await registry.get("i")

        async def by_cancel() -> None:
            with pytest.raises(UnknownJobError):
                await registry.cancel("i")

        for ask in (by_length, by_id, by_stats, by_find, by_get, by_cancel):
            await gone(ask)


async def test_a_held_job_that_expired_unnoticed(mock_clock: MockClock) -> None:
    """A held job whose time is over is not executed any more, although nobody has come to notice."""
    async with jobtrio.open_registry(retention=Retention(held_for=5)) as registry:
        job = await registry.create_job()
        mock_clock.jump(5)
        async with registry.execute_and_stream(job.id, work) as lines:
            assert [line async for line in lines] == [
                "[ERROR] nobody executed it within the time that it is held (held_for)"
            ]
        assert job.record.attempt == 0


async def test_ids_used_again_do_not_confuse_retention() -> None:
    """Removed jobs, and ids that are used again, don't count among the ended ones that are kept."""
    async with jobtrio.open_registry(retention=Retention(finished_jobs=10)) as registry:
        for turn in range(5):
            for n in range(8):
                job_id = str(n)
                if job_id in registry:
                    await registry.remove(job_id)
                job = await registry.submit(work, job_id=job_id)
                if n % 2 or turn < 4:
                    await job.wait()
        others = [await registry.submit(work) for _ in range(6)]
        for job in others:
            await job.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert len(registry) == 10
        assert all(job.id in registry for job in others)


# -- cancelling


async def test_cancel_answers() -> None:
    """True while the job lives, False once it has ended; the first reason stays, and the request is recorded."""
    async with jobtrio.open_registry(max_running=1) as registry:
        running = await registry.submit(hang)
        await trio.testing.wait_all_tasks_blocked()
        waiting = {
            "QUEUED": await registry.submit(work),
            "SCHEDULED": await registry.submit(work, delay=100),
        }
        held = await registry.create_job()
        for state, job in (*waiting.items(), ("QUEUED", held)):
            assert job.state == state
            assert await job.cancel("first")
            assert job.outcome == Cancelled("first")
            assert not await job.cancel("second")
            record = job.record
            assert (record.attempt, record.cancel_reason, record.error) == (0, "first", None)
            assert record.cancel_requested_at is not None
        assert await registry.cancel(running.id, "first", grace=1000)
        assert await running.cancel("second")
        assert running.outcome is None
        assert await running.wait() == Cancelled("first")
        assert not await running.cancel()
        assert running.record.cancel_reason == "first"


async def test_grace_of_another_kind(tmp_path: Path) -> None:
    """A grace is a plain number, also where it was given as one of another class, as numpy's: stores keep no others."""
    executors = jobtrio.Executors()
    executors.register("hang")(hang)
    graces: list[Any] = [Whole(1), Real(1)]
    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db"), queues={}) as registry:
        for grace in graces:
            assert await (await registry.submit("hang")).cancel(grace=grace)
        await registry.shutdown(graces[0])


async def test_cancel_behind_the_deadline(autojump_clock: MockClock) -> None:
    """While a job whose last time is up cleans up, its end is decided: it can't be cancelled any more."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(clean_up, time_limit=2)
        await trio.sleep(3)
        assert job.outcome is None
        assert not await job.cancel("late")
        await job.wait()
        assert (kind_of(job), job.record.cancel_reason) == ("timeout", None)


async def test_those_that_left_the_line_are_not_ready(autojump_clock: MockClock) -> None:
    """Whoever was cancelled or expired in the queue does not count as ready any more."""
    async with jobtrio.open_registry(max_running=1) as registry:
        running = await registry.submit(hang)
        await trio.testing.wait_all_tasks_blocked()
        cancelled = await registry.submit(work)
        await registry.submit(work, expires_in=1)
        ready = registry._core.store.ready_nowait
        assert ready() == 2
        await cancelled.cancel()
        assert ready() == 1
        await trio.sleep(2)
        assert ready() == 0
        await running.cancel()


async def test_cancel_while_retrying(autojump_clock: MockClock) -> None:
    """A job that waits for its next attempt is cancelled at once, with the last failure kept."""

    async def fail(job: JobContext) -> None:
        raise ValueError("no")

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(fail, retry=RetryPolicy(initial=100))
        await trio.sleep(1)
        assert job.state == "RETRYING"
        assert await job.cancel("enough")
        assert job.outcome == Cancelled("enough")
        assert job.record.error is not None
        assert job.record.error.message == "no"


async def test_no_retry_behind_a_request(autojump_clock: MockClock) -> None:
    """An accepted request is the end, also where the attempt fails or times out by itself before it is gone."""
    async with jobtrio.open_registry() as registry:
        for payload in (False, True):
            job = await registry.submit(clean_up, payload, time_limit=2, retry=RetryPolicy())
            await trio.sleep(3)
            assert await job.cancel("enough")
            assert await job.wait() == Cancelled("enough")
            record = job.record
            assert record.attempt == 1
            assert record.error is not None
            assert record.error.kind == "timeout"


async def test_a_job_cancels_itself() -> None:
    """A job that asks for its own end is cancelled as by anybody else."""
    async with jobtrio.open_registry() as registry:

        async def executor(job: JobContext) -> None:
            await job.send("before")
            assert await registry.cancel(job.id, "myself")
            await trio.sleep_forever()

        job = await registry.submit(executor)
        assert await job.wait() == Cancelled("myself")
        assert await job.subscribe().receive() == Token(1, 1, "before")


# -- counting and the rest


async def test_stats() -> None:
    """The counts are those of the moment."""
    async with jobtrio.open_registry(worker="w", max_running=2) as registry:
        empty = registry.stats()
        assert (empty.worker, empty.running, empty.max_running, empty.running_by_queue) == ("w", 0, 2, {})
        assert set(empty.states) == set(JobState)
        assert not any(empty.states.values())
        await (await registry.submit(work)).wait()
        for n in range(3):
            await registry.submit(hang, queue=f"q{n}")
        await registry.create_job()
        await registry.submit(work, delay=100)
        await trio.testing.wait_all_tasks_blocked()
        stats = registry.stats()
        assert (stats.running, stats.running_by_queue) == (2, {"q0": 1, "q1": 1})
        assert {state.value: count for state, count in stats.states.items() if count} == {
            "COMPLETED": 1,
            "RUNNING": 2,
            "QUEUED": 2,
            "SCHEDULED": 1,
        }
        assert len(registry) == 6
        await registry.shutdown()
    assert registry.stats().running == 0


async def test_a_workers_name() -> None:
    """Without a name a worker is called after its machine and process, each registry differently."""
    async with jobtrio.open_registry() as one, jobtrio.open_registry() as other:
        assert str(os.getpid()) in one.stats().worker
        assert one.stats().worker != other.stats().worker


async def test_logs_are_bounded_by_retention() -> None:
    """As many messages are kept of each job as `Retention` says."""
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=3)) as registry:

        async def executor(job: JobContext) -> None:
            for n in range(10):
                await job.send(n)

        job = await registry.submit(executor)
        await job.wait()
        messages = [m async for m in job.subscribe(on_gap="yield")]
        assert messages[0] == jobtrio.Gap(1, 7)
        assert [m.value for m in messages if isinstance(m, Token)] == [7, 8, 9]


def test_defaults() -> None:
    """The limits that hold where nothing is said are the documented ones."""
    import inspect

    options = inspect.signature(jobtrio.open_registry).parameters
    assert {name: options[name].default for name in ("max_running", "max_queued", "queues", "lease", "worker")} == {
        "max_running": 100,
        "max_queued": 100_000,
        "queues": None,
        "lease": 30.0,
        "worker": None,
    }
    assert options["retention"].default == Retention()
    assert inspect.signature(jobtrio.JobRegistry.find).parameters["limit"].default == 100


async def test_the_shortest_lease() -> None:
    """A lease of one second is the shortest that is allowed."""
    async with jobtrio.open_registry(lease=1) as registry:
        assert await (await registry.submit(work, 1)).result() == 1


async def test_truth() -> None:
    """A registry without jobs is one all the same, and so is a store: ``store or another`` takes the store."""
    store = MemoryJobStore()
    assert (len(store), bool(store)) == (0, True)
    async with jobtrio.open_registry(store=store) as registry:
        assert (len(registry), bool(registry), bool(store)) == (0, True, True)


async def test_a_store_serves_one_registry() -> None:
    """A store that is open is refused, and goes on serving whom it serves; closed, it may be opened again."""
    store = MemoryJobStore()
    async with jobtrio.open_registry(store=store) as registry:
        with pytest.raises(RuntimeError, match="serves one registry at a time"):
            async with jobtrio.open_registry(store=store):
                pass
        assert await (await registry.submit(work, 1)).result() == 1
    async with jobtrio.open_registry(store=store) as registry:
        assert [record.result for record in await registry.find()] == [1]


def test_outside_of_trio() -> None:
    """Where Trio does not run, the error says so."""

    async def main() -> None:
        async with jobtrio.open_registry():
            pass

    with pytest.raises(RuntimeError, match="jobtrio works within Trio"):
        asyncio.run(main())


OPTIONS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"executors": 3}, TypeError),
    ({"store": 3}, TypeError),
    ({"max_running": 0}, ValueError),
    ({"max_running": 1.5}, TypeError),
    ({"queues": 3}, TypeError),
    ({"queues": ["gpu"]}, TypeError),
    ({"queues": {"gpu": 0}}, ValueError),
    ({"queues": {"": 1}}, ValueError),
    ({"queues": {3: 1}}, TypeError),
    ({"max_queued": 0}, ValueError),
    ({"retention": 3}, TypeError),
    ({"lease": 0.9}, ValueError),
    ({"lease": float("inf")}, ValueError),
    ({"worker": ""}, ValueError),
]


@pytest.mark.parametrize(("options", "error"), OPTIONS)
async def test_options_of_a_registry(options: dict[str, Any], error: type[Exception]) -> None:
    """Each option that makes no sense is refused by name before anything is opened."""
    name = next(iter(options))
    with pytest.raises(error, match=f"{name}|a name in queues"):
        async with jobtrio.open_registry(**options):
            pass


@pytest.mark.parametrize(("waited", "kept"), [(3000, True), (4000, False)])
def test_a_store_in_another_run(waited: float, kept: bool) -> None:
    """A store that is used again in another run of Trio, which has another clock, keeps ended jobs as long as ever."""
    store = MemoryJobStore()

    async def work(job: JobContext) -> None:
        """Do nothing."""

    async def first() -> None:
        await trio.sleep(50_000)
        async with jobtrio.open_registry(store=store) as registry:
            await (await registry.submit(work, job_id="a")).wait()
            await trio.sleep(500)

    async def second() -> None:
        async with jobtrio.open_registry(store=store) as registry:
            await trio.sleep(waited - 500)
            assert ("a" in registry) is kept

    for run in (first, second):
        trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(("waited", "kept"), [(3000, True), (4000, False)])
async def test_a_store_again_in_the_same_run(autojump_clock: MockClock, waited: float, kept: bool) -> None:
    """The time between two registries that a store is used for, in one run of Trio, counts as any other."""
    store = MemoryJobStore()
    async with jobtrio.open_registry(store=store) as registry:
        await (await registry.submit(work, job_id="a")).wait()
    await trio.sleep(waited)
    async with jobtrio.open_registry(store=store) as registry:
        assert ("a" in registry) is kept


async def test_a_store_that_another_registry_has_by_now() -> None:
    """A registry that is closed ends no job of the next one on its store, and starts none."""
    store = MemoryJobStore()
    async with jobtrio.open_registry(store=store) as closed:
        ended = await closed.submit(work)
    async with jobtrio.open_registry(store=store, max_running=1) as registry:
        jobs = [await registry.submit(hang), await registry.submit(hang), await registry.create_job()]
        await trio.testing.wait_all_tasks_blocked()
        await closed.shutdown()
        for job in jobs:
            with pytest.raises(trio.ClosedResourceError):
                await closed.cancel(job.id)
        with pytest.raises(trio.ClosedResourceError):
            async with closed.execute_and_stream(jobs[-1].id, work):
                pass
        assert await closed.cancel(ended.id) is False
        assert [job.state for job in jobs] == [JobState.RUNNING, JobState.QUEUED, JobState.QUEUED]
        assert all(job.record.cancel_requested_at is None for job in jobs)
        await registry.shutdown()


async def test_times_that_nobody_waits_for_are_not_kept(autojump_clock: MockClock) -> None:
    """When many jobs are cancelled long before their time, that is not waited for, and no memory is kept for it."""
    store = MemoryJobStore()
    async with jobtrio.open_registry(store=store) as registry:
        for job in [await registry.submit(work, delay=3000) for _ in range(1000)]:
            await job.cancel()
        assert len(store._timers._heap) < 200


async def test_the_log_of_a_job_that_sent_nothing() -> None:
    """It is let go of at the end, and told anew to whoever comes late; one with messages is kept."""

    async def send(job: jobtrio.JobContext) -> None:
        for token in job.payload:
            job.send_nowait(token)

    async with jobtrio.open_registry() as registry:
        silent, sender = await registry.submit(send, []), await registry.submit(send, ["token"])
        for job in (silent, sender):
            await job.wait()
        assert (silent._entry.log is None, sender._entry.log is None) == (True, False)
        for job, last in ((silent, 1), (sender, 2), (silent, 1)):
            with job.subscribe(last - 1) as messages:
                assert await messages.receive_batch() == [jobtrio.End(last, jobtrio.Completed(None))]
