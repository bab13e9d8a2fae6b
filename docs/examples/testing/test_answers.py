"""Tests of jobs in a registry, which each test has for itself, on a clock that jumps."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import jobtrio
from jobtrio.abc import JobEntry
from jobtrio.stores.sqlite import SqliteJobStore


async def answer(model: "Model", job: jobtrio.JobContext) -> int:
    """What is tested: it sends each word that a model says."""
    count = 0
    async with model:
        async for word in model.words:
            await job.send(word)
            count += 1
    return count


class Model:
    """Stands for a model: it says what the test has it say, when the test says so."""

    def __init__(self) -> None:
        self.connections = 0
        self.say, self.words = trio.open_memory_channel[str](10)

    async def __aenter__(self) -> Self:
        self.connections += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connections -= 1


class FailingStore(SqliteJobStore):
    """Stands for a store that is away whenever the test says so: it then takes no new jobs."""

    is_away = False

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        if self.is_away:
            raise jobtrio.StoreUnavailableError("the test says so")
        return await super().insert(entries, submission)


@pytest.fixture
async def registry() -> AsyncIterator[jobtrio.JobRegistry]:
    with trio.fail_after(1_000_000):  # virtual seconds: a test that waits for ever fails at once
        async with jobtrio.open_registry() as registry:
            yield registry
            await registry.shutdown()  # what a test has left running is cancelled, not waited for


async def test_streams(registry: jobtrio.JobRegistry, autojump_clock: MockClock) -> None:
    model = Model()
    job = await registry.submit(partial(answer, model))
    async with job.subscribe() as messages:
        await model.say.send("to")
        assert await messages.receive() == jobtrio.Token(1, 1, "to")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            messages.receive_nowait()
        await model.say.send("be")
        model.say.close()
        await job.wait()
        assert await messages.receive_batch() == [jobtrio.Token(2, 1, "be"), jobtrio.End(3, jobtrio.Completed(2))]


async def test_hangs_up_when_cancelled(registry: jobtrio.JobRegistry, autojump_clock: MockClock) -> None:
    model = Model()
    job = await registry.submit(partial(answer, model))
    async with job.subscribe() as messages:
        await model.say.send("to")
        await messages.receive()  # from here on it is in the middle of its work
    assert model.connections == 1
    await job.cancel("no longer wanted")
    assert await job.wait() == jobtrio.Cancelled("no longer wanted")
    assert model.connections == 0


async def test_gives_the_model_an_hour(registry: jobtrio.JobRegistry, autojump_clock: MockClock) -> None:
    start = trio.current_time()
    job = await registry.submit(partial(answer, Model()), time_limit=3600)
    outcome = await job.wait()
    assert isinstance(outcome, jobtrio.Failed)
    assert outcome.error.kind == "timeout"
    assert trio.current_time() - start == 3600


async def test_survives_a_restart(tmp_path: Path) -> None:
    model = Model()
    executors = jobtrio.Executors()
    executors.register("answer")(partial(answer, model))
    store = partial(SqliteJobStore, tmp_path / "jobs.db")
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors, store=store(), queues={}) as registry:
            job_id = (await registry.submit("answer")).id
        model.say.close()
        async with jobtrio.open_registry(executors, store=store()) as registry:
            job = await registry.get(job_id)
            assert await job.wait() == jobtrio.Completed(0)


async def test_tells_of_an_outage(tmp_path: Path) -> None:
    executors = jobtrio.Executors()
    executors.register("answer")(partial(answer, Model()))
    store = FailingStore(tmp_path / "jobs.db", outage_limit=0.1)
    with trio.fail_after(60):
        async with jobtrio.open_registry(executors, store=store, queues={}) as registry:
            store.is_away = True
            with pytest.raises(jobtrio.StoreUnavailableError):
                await registry.submit("answer")
            store.is_away = False
            await registry.submit("answer")
