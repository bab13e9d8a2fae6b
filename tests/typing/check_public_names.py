"""What a type checker has to find of the public names. Checked, and never run."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never, assert_type

import trio

import jobtrio
import jobtrio.abc
from jobtrio.executors import run_command
from jobtrio.stores import store_from_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager


async def executor(job: jobtrio.JobContext) -> int:
    assert_type(job.id, str)
    assert_type(job.attempt, int)
    assert_type(job.queue, str)
    assert_type(job.priority, jobtrio.JobPriority)
    assert_type(job.deadline, float)
    assert_type(job.nursery, trio.Nursery)
    assert_type(job.registry, jobtrio.JobRegistry)
    assert_type(job.cancel_scope, trio.CancelScope)
    assert_type(job.stopping, trio.Event)
    assert_type(job.send_nowait("token"), int)
    assert_type(job.tags["user"], str)
    assert_type(job.metadata["any"], Any)
    await job.send(b"token")
    job.progress(1, total=2.5, note="half")
    job.extend(5)
    await job.save_state({"row": 1})
    assert_type(job.saved_state, Any)
    assert_type(job.payload, Any)
    return 1


def in_a_thread(job: Any) -> str:
    job.send("token")
    return "done"


async def two(first: str, job: jobtrio.JobContext) -> None: ...


class Called:
    async def __call__(self, job: jobtrio.JobContext) -> None: ...


async def submitting(registry: jobtrio.JobRegistry) -> None:
    assert_type(await registry.submit(executor), jobtrio.Job)
    assert_type(await registry.submit("registered", {"text": "x"}), jobtrio.Job)
    for accepted in (in_a_thread, partial(two, "first"), Called(), Called().__call__):
        await registry.submit(accepted)
    await registry.submit(
        executor,
        None,
        job_id="mine",
        key="key",
        queue="gpu",
        priority=jobtrio.JobPriority.HIGH,
        time_limit=30,
        retry=jobtrio.RetryPolicy(max_attempts=5),
        delay=1.5,
        expires_in=60,
        tags={"user": "ann"},
        metadata={"any": object()},
    )
    await registry.submit(executor, run_at=datetime.now(UTC))
    assert_type(await registry.create_job({"held": True}, time_limit=5), jobtrio.Job)
    specs = [jobtrio.JobSpec(executor, delay=1), jobtrio.JobSpec("registered", 1, tags={"a": "b"})]
    assert_type(await registry.submit_many(specs), list[jobtrio.Job])
    assert_type(await registry.submit_many(spec for spec in specs), list[jobtrio.Job])


async def refused(registry: jobtrio.JobRegistry, job: jobtrio.Job) -> None:
    await registry.submit(None)  # type: ignore[arg-type]
    await registry.submit(executor, priority="HIGH")  # type: ignore[arg-type]
    await registry.submit(executor, delay="soon")  # type: ignore[arg-type]
    await registry.submit(executor, retry=3)  # type: ignore[arg-type]
    await registry.submit(executor, tags={"a": 1})  # type: ignore[dict-item]
    await registry.submit(executor, None, "mine")  # type: ignore[call-arg]
    await registry.cancel(job.id, "why", 5.0)  # type: ignore[call-arg]
    await registry.set_priority(job.id, "HIGH")  # type: ignore[arg-type]
    await registry.find("QUEUED")  # type: ignore[call-arg, arg-type]
    job.subscribe(on_gap="skip")  # type: ignore[arg-type]
    job.outcome = jobtrio.Completed()  # type: ignore[misc]
    job.record.attempt = 2  # type: ignore[misc]


async def looking(registry: jobtrio.JobRegistry) -> None:
    record = (await registry.get("id")).record
    assert_type(record.time_limit, float | None)
    assert_type(record.retry, jobtrio.RetryPolicy | None)
    assert_type(record.expires_in, float | None)
    await registry.submit(
        executor, record.payload, time_limit=record.time_limit, retry=record.retry, expires_in=record.expires_in
    )
    assert_type(await registry.get("id"), jobtrio.Job)
    assert_type(await registry.find(state=jobtrio.JobState.QUEUED, limit=5, after=None), list[jobtrio.JobRecord])
    await registry.find(state=[jobtrio.JobState.QUEUED, jobtrio.JobState.RUNNING], tags={"a": "b"})
    async for record in registry.find_all(state=jobtrio.JobState.QUEUED, executor=executor, newest_first=True):
        assert_type(record, jobtrio.JobRecord)
    await registry.find(state={jobtrio.JobState.FAILED}, queue="gpu", executor="generate", key="order-17")
    assert_type(await registry.history("id"), list[jobtrio.Transition])
    assert_type(await registry.counts(), dict[str, dict[jobtrio.JobState, int]])
    assert_type(await registry.counts(tags={"batch": "7"}), dict[str, dict[jobtrio.JobState, int]])
    assert_type(await registry.workers(), list[jobtrio.WorkerReport])
    assert_type(await registry.paused(), dict[str, datetime | None])
    await registry.pause("gpu")
    await registry.resume("gpu")
    assert_type(await registry.cancel("id", "why", grace=5), bool)
    assert_type(await registry.set_priority("id", jobtrio.JobPriority.HIGH), bool)
    assert_type(registry.peek("id"), jobtrio.Job | None)
    assert_type("id" in registry, bool)
    assert_type(len(registry), int)
    events: trio.abc.ReceiveChannel[jobtrio.Transition] = registry.subscribe_events()
    async for line in events:
        assert_type(line, jobtrio.Transition)
    await registry.remove("id")
    await registry.drain()
    await registry.shutdown(5)


async def watching(job: jobtrio.Job) -> None:
    assert_type(job.id, str)
    assert_type(job.state, jobtrio.JobState)
    assert_type(job.record, jobtrio.JobRecord)
    assert_type(job.outcome, jobtrio.Completed | jobtrio.Failed | jobtrio.Cancelled | None)
    assert_type(await job.wait(), jobtrio.Outcome)
    assert_type(await job.result(), Any)
    assert_type(await job.cancel("why", grace=1), bool)
    assert_type(await job.set_priority(jobtrio.JobPriority.LOW), bool)
    subscription = job.subscribe(5, on_gap="yield", lossless=True)
    assert_type(subscription, jobtrio.Subscription)
    channel: trio.abc.ReceiveChannel[jobtrio.Message] = subscription
    async with channel:
        assert_type(await channel.receive(), jobtrio.Message)
    with job.subscribe() as messages:
        assert_type(messages, jobtrio.Subscription)
        assert_type(messages.receive_nowait(), jobtrio.Message)
        assert_type(await messages.receive_batch(max=5), list[jobtrio.Message])
    async with job.subscribe() as messages:
        async for message in messages:
            exhaustive(message)
    async with job.open_channel(size=5, after=1) as plain:
        assert_type(plain, trio.MemoryReceiveChannel[jobtrio.Message])
    async for token in job.tokens(after=3):
        assert_type(token, Any)


def exhaustive(message: jobtrio.Message) -> None:
    """A match over messages and outcomes needs no default."""
    match message:
        case jobtrio.Token(seq, attempt, value):
            assert_type(seq, int)
            assert_type(attempt, int)
            assert_type(value, Any)
        case jobtrio.Progress(done=done, total=total, note=note):
            assert_type(done, float)
            assert_type(total, float | None)
            assert_type(note, str | None)
        case jobtrio.Restart(error=error, delay=delay):
            assert_type(error, jobtrio.JobError)
            assert_type(delay, float)
        case jobtrio.Gap(first, last):
            assert_type(first, int)
            assert_type(last, int)
        case jobtrio.End(outcome=outcome):
            ended(outcome)
        case _:
            assert_never(message)


def ended(outcome: jobtrio.Outcome) -> str | None:
    match outcome:
        case jobtrio.Completed(result):
            assert_type(result, Any)
            return "completed"
        case jobtrio.Failed(error):
            assert_type(error.message, str)
            assert_type(error.type, str)
            assert_type(error.traceback, str)
            return error.kind
        case jobtrio.Cancelled(reason):
            assert_type(reason, str | None)
            return reason
        case _:
            assert_never(outcome)


def recorded(record: jobtrio.JobRecord, line: jobtrio.Transition) -> None:
    assert_type(record.executor, str | None)
    assert_type(record.payload, Any)
    assert_type(record.tags["user"], str)
    assert_type(record.state, jobtrio.JobState)
    assert_type(record.created_at, datetime)
    assert_type(record.started_at, datetime | None)
    assert_type(record.duration, float | None)
    assert_type(record.error, jobtrio.JobError | None)
    assert_type(line.previous, jobtrio.JobState | None)
    assert_type(line.at, datetime)
    assert_type(line.reason, str | None)


async def opening() -> None:
    executors = jobtrio.Executors()
    registered = executors.register("generate", time_limit=30, queue="gpu", retry_on=(OSError,))(executor)
    assert_type(await registered(jobtrio_context()), int)
    executors.register("command", retry=jobtrio.RetryPolicy(), expose=True)(run_command)
    opened = jobtrio.open_registry(
        executors,
        max_running=5,
        queues={"gpu": 1, "default": 8},
        retention=jobtrio.Retention(finished_jobs=5),
        rate_limits={"api": jobtrio.RateLimit(60, per=60, burst=5)},
        lease=30,
        worker="me",
    )
    manager: AbstractAsyncContextManager[jobtrio.JobRegistry] = opened
    async with manager as registry:
        assert_type(registry, jobtrio.JobRegistry)
    async with registry.execute_and_stream("id", executor, time_limit=5) as lines:
        text: AsyncIterator[str] = lines
        async for line in text:
            assert_type(line, str)


def jobtrio_context() -> jobtrio.JobContext:
    raise NotImplementedError


def stored(store: jobtrio.abc.JobStore) -> None:
    jobtrio.open_registry(store=store)
    assert_type(store_from_url("sqlite:///jobs.db"), jobtrio.abc.JobStore)


def errors(failed: jobtrio.JobFailedError, lagged: jobtrio.LaggedError) -> None:
    assert_type(failed.error, jobtrio.JobError)
    assert_type(failed.job_id, str)
    assert_type((lagged.first, lagged.last), tuple[int, int])
    assert_type(jobtrio.UnknownJobError("id").job_id, str)
    assert_type(jobtrio.RetryLater(5).delay, float)
