"""Edges: large, odd and hostile payloads, ids and tokens; consumers and senders that leave at odd times."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import Cancelled, Completed, End, JobContext, Retention, Token

NESTED: list[Any] = []
for _ in range(500):
    NESTED = [NESTED]
CYCLE: list[Any] = []
CYCLE.append(CYCLE)

PAYLOADS = {
    "none": None,
    "1 kB": "x" * 1_000,
    "100 kB": "x" * 100_000,
    "1 MB": "x" * 1_000_000,
    "nested": NESTED,
    "cycle": CYCLE,
    "binary": bytes(range(256)) * 100,
    "nan": math.nan,
    "infinite": -math.inf,
    "surrogate": "\ud800",
    "null": "\x00",
    "markers": "[DONE]\n[ERROR] x\n[CANCELLED]\n",
    "unhashable": {"a": [{}], "b": bytearray(b"x")},
    "object": object(),
    "function": print,
    "exception": ValueError("value"),
}


async def echo(job: JobContext) -> Any:
    """Send the payload and return it."""
    await job.send(job.payload)
    return job.payload


@pytest.mark.parametrize("name", PAYLOADS)
async def test_payloads(name: str) -> None:
    """In memory any object goes through as payload, token, metadata and result, and stays the same object."""
    value = PAYLOADS[name]
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(echo, value, metadata={"value": value})
        async with job.subscribe() as messages:
            token = await messages.receive()
            end = await messages.receive()
        assert isinstance(token, Token)
        assert isinstance(end, End)
        assert isinstance(end.outcome, Completed)
        assert token.value is end.outcome.result is job.record.payload is job.record.metadata["value"] is value


class Hostile:
    """A value on which every question fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no equality")

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")


async def test_hostile_values() -> None:
    """A value that can be neither shown, compared nor tested harms nothing on its way through."""
    value = Hostile()
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(echo, value)
        assert await job.result() is value
        assert (await registry.find())[0].payload is value
        with pytest.raises((TypeError, ValueError), match="priority"):
            await registry.submit(echo, priority=value)


class Panicky:
    """A value whose text raises what is no `Exception`."""

    def __str__(self) -> str:
        raise BaseException("no text")


@pytest.mark.parametrize("kind", [Hostile, Panicky])
async def test_token_without_text(kind: type[Hostile | Panicky]) -> None:
    """A token whose text fails breaks the plain-text view at most; the job and its stream are unharmed."""

    async def executor(job: JobContext) -> str:
        await job.send(kind())
        return "sent"

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        with suppress(RuntimeError):
            async with registry.execute_and_stream(job.id, executor) as lines:
                assert [line async for line in lines][-1] == "[DONE]"
        assert await job.result() == "sent"


IDS = (
    "x",
    "x" * 200,
    "0",
    "-",
    "../../etc/passwd",
    "a b",
    "a/b?c#d",
    "%00",
    "é",
    "日本語",
    "😀",
    "[DONE]",
    "None",
    "'; --",
)


@pytest.mark.parametrize("job_id", IDS, ids=ascii)
async def test_ids(job_id: str) -> None:
    """Any id of 1 to 200 printable characters can be used everywhere, exactly as it was given."""
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(echo, 1, job_id=job_id, key=job_id, tags={job_id: job_id})
        assert job.id == job_id
        assert job_id in registry
        assert (await registry.get(job_id)).id == job_id
        assert (await registry.submit(echo, 2, key=job_id)).id == job_id
        assert await job.result() == 1
        assert [record.id for record in await registry.find(tags={job_id: job_id})] == [job_id]
        assert {line.job_id for line in await registry.history(job_id)} == {job_id}
        assert await registry.cancel(job_id) is False
        await registry.remove(job_id)
        assert job_id not in registry


async def test_ids_that_are_made() -> None:
    """Ids that nobody gave are all different, text, and too many to be guessed."""
    async with jobtrio.open_registry() as registry:
        jobs = await registry.submit_many([jobtrio.JobSpec(echo)] * 5000)
        ids = {job.id for job in jobs}
        assert len(ids) == 5000
        for column in zip(*ids, strict=True):
            if len(set(column)) == 1:
                assert column[0] == "-"
        assert min(map(len, ids)) >= math.ceil(122 / math.log2(64))


@pytest.mark.parametrize("when", ["before the start", "mid-stream", "at the end"])
async def test_consumer_gone(when: str) -> None:
    """A consumer that leaves, at whatever time, changes nothing for the job and the other consumers."""

    async def executor(job: JobContext) -> str:
        for n in range(10):
            await job.send(n)
            await trio.lowlevel.checkpoint()
        return "whole"

    async with jobtrio.open_registry() as registry:
        job = await registry.create_job()
        leaving = job.subscribe(lossless=True)
        staying = job.subscribe()
        if when == "before the start":
            await leaving.aclose()
        async with registry.execute_and_stream(job.id, executor):
            if when != "before the start":
                for _ in range(3 if when == "mid-stream" else 11):
                    await leaving.receive()
                await leaving.aclose()
            assert [message async for message in staying][-1] == End(11, Completed("whole"))
        await staying.aclose()


async def test_consumer_outlives_the_sender() -> None:
    """What a job sent in one go before it ended is all there for a consumer that begins afterwards."""

    async def executor(job: JobContext) -> None:
        for n in range(1000):
            job.send_nowait(n)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        await job.wait()
        async with job.subscribe() as messages:
            batches = [await messages.receive_batch(300) for _ in range(4)]
        assert [len(batch) for batch in batches] == [300, 300, 300, 101]
        assert [message.seq for batch in batches for message in batch] == list(range(1, 1002))  # type: ignore[union-attr]


async def test_reader_cancelled_while_it_waits_loses_nothing() -> None:
    """A receive that is cut off takes no message with it."""

    async def executor(job: JobContext) -> None:
        for n in range(100):
            await job.send(n)
            await trio.lowlevel.checkpoint()

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(executor)
        seen: list[Any] = []
        with job.subscribe() as messages:
            while not seen or not isinstance(seen[-1], End):
                with trio.CancelScope() as scope:
                    if len(seen) % 2 == 0:
                        scope.cancel()
                    try:
                        seen.append(messages.receive_nowait() if len(seen) % 2 == 0 else await messages.receive())
                    except trio.WouldBlock:
                        await trio.lowlevel.checkpoint()
                if scope.cancelled_caught:
                    seen.append(await messages.receive())
        assert [message.seq for message in seen] == list(range(1, 102))


async def test_illegal_changes() -> None:
    """A living job cannot be removed, in whichever state it is."""
    async with jobtrio.open_registry(max_running=1) as registry:

        async def hang(job: JobContext) -> None:
            await trio.sleep_forever()

        async def fail(job: JobContext) -> None:
            raise ValueError("no")

        retrying = await registry.submit(fail, retry=jobtrio.RetryPolicy(initial=1000))
        await trio.testing.wait_all_tasks_blocked()
        running = await registry.submit(hang)
        await trio.testing.wait_all_tasks_blocked()
        jobs = [retrying, running, await registry.submit(hang), await registry.submit(hang, delay=1000)]
        jobs.append(await registry.create_job())
        assert [job.state for job in jobs] == ["RETRYING", "RUNNING", "QUEUED", "SCHEDULED", "QUEUED"]
        for job in jobs:
            with pytest.raises(jobtrio.IllegalTransitionError):
                await registry.remove(job.id)
            await job.cancel()
            assert await job.wait() == Cancelled(None)
            await registry.remove(job.id)
            with pytest.raises(jobtrio.UnknownJobError):
                await registry.remove(job.id)
        assert len(registry) == 0


async def test_smallest_limits() -> None:
    """With every limit at its smallest, jobs run one by one and each stream keeps its last message."""
    smallest = Retention(finished_jobs=0, finished_for=0, tokens_per_job=1, held_for=0.001)
    async with jobtrio.open_registry(max_running=1, max_queued=1, queues={"q": 1}, retention=smallest) as registry:
        for n in range(5):
            job = await registry.submit(echo, n, queue="q")
            with job.subscribe() as messages:
                assert [message async for message in messages] == [Token(1, 1, n), End(2, Completed(n))]
