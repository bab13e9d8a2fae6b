"""What is known of how a server's job ended, and how a job is ended."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    End,
    Failed,
    Gap,
    JobPriority,
    JobRecord,
    JobState,
    Progress,
    Restart,
    Token,
    UnknownJobError,
)
from jobtrio.cli import _sources
from jobtrio.cli._sources import BridgeSource, StoreSource
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jobtrio import Message, Outcome

ERROR = jobtrio.JobError("exception", "ValueError", "row 2")
EXPIRED = Failed(jobtrio.JobError("expired", "Expired", "too late"))
RESTART = Restart(2, 1, ERROR, 0.0)


class SecretJob:
    """A job that may be watched and not looked up."""

    is_paused = False

    def __init__(self, *messages: Message) -> None:
        self._messages = list(messages)

    @contextmanager
    def subscribe(self, after: int, *, on_gap: str) -> Iterator[SecretJob]:
        """Be the job's stream."""
        yield self

    async def receive_batch(self) -> list[Message]:
        """Return all messages at once, then nothing."""
        batch, self._messages = self._messages, []
        if not batch:
            raise trio.EndOfChannel
        return batch

    async def refresh(self) -> Any:
        """Tell nothing."""
        raise UnknownJobError("secret")


@pytest.mark.parametrize(
    ("after", "running", "messages", "outcome", "attempts"),
    [
        (0, None, [], Completed(), 1),
        (0, None, [], Failed(ERROR), 1),
        (0, None, [], Cancelled(), None),
        (0, None, [], EXPIRED, None),
        (0, None, [Token(1, 1, "a")], Cancelled(), 1),
        (0, None, [Token(1, 1, "a"), RESTART], Failed(ERROR), 2),
        (0, None, [Token(1, 1, "a"), RESTART], Cancelled(), None),
        (0, None, [RESTART, Progress(3, 2, 1)], Cancelled(), 2),
        (0, None, [Token(1, 1, "a"), Gap(2, 4)], Failed(ERROR), None),
        (0, None, [Gap(1, 4), Token(5, 3, "a")], Cancelled(), 3),
        (7, None, [], Completed(), None),
        (7, None, [Token(8, 2, "a")], Completed(), 2),
        (7, None, [Restart(8, 2, ERROR, 0.0)], Completed(), 3),
        (0, 0, [], Completed(), 1),
        (0, 0, [], Cancelled(), None),
        (7, 0, [], Cancelled(), None),
        (0, 1, [], Cancelled(), 1),
        (7, 2, [], Failed(ERROR), 2),
    ],
)
async def test_attempts(
    after: int, running: int | None, messages: list[Message], outcome: Outcome, attempts: int | None
) -> None:
    """Where the server shows no record, attempts are told that the messages tell of, and no others."""
    record = None
    if running is not None:
        now = datetime.now(UTC)
        state = JobState.RUNNING if running else JobState.QUEUED
        record = JobRecord("a", "e", None, "q", JobPriority.LOW, {}, {}, None, state, running, 4, now, started_at=now)
    job: Any = SecretJob(*messages, End(9, outcome))
    source = BridgeSource(job, record)
    assert source.attempts == (None if record is None else 4)
    seen: list[Message] = []

    async def show(batch: list[Message]) -> None:
        seen.extend(batch)

    had_ended = source.has_ended
    await source.follow(show, after)
    assert (had_ended, source.has_ended) == (False, True)
    assert len(seen) == len(messages) + 1
    assert await source.ending() == (outcome, None, attempts)


def test_job_of_a_server_that_had_ended() -> None:
    """A job that the server knows to have ended is known to have, before its end is read."""
    now = datetime.now(UTC)
    state = JobState.FAILED
    record = JobRecord("a", "e", None, "q", JobPriority.LOW, {}, {}, None, state, 1, 1, now, finished_at=now)
    job: Any = SecretJob()
    assert BridgeSource(job, record).has_ended


async def test_job_of_a_server_that_waits() -> None:
    """A server tells what a job waits for, to those who may look it up, and not which workers are there."""
    record = JobRecord("a", "e", None, "q", JobPriority.LOW, {}, {}, None, JobState.QUEUED, 0, 1, datetime.now(UTC))

    class OpenJob(SecretJob):
        async def refresh(self) -> Any:
            return record

    open_job: Any = OpenJob()
    secret_job: Any = SecretJob()
    assert await BridgeSource(open_job, record).waiting() == "the job waits in queue 'q' for a worker that runs 'e'"
    open_job.is_paused = True
    assert await BridgeSource(open_job, record).waiting() == "the job waits in queue 'q', which is paused"
    assert await BridgeSource(secret_job, record).waiting() is None


async def test_job_of_a_paused_queue(tmp_path: Path) -> None:
    """Who watches a job that waits in a paused queue is told so, and by which command it goes on."""
    store = SqliteJobStore(tmp_path / "jobs.db")
    executors = jobtrio.Executors()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        pass

    async with jobtrio.open_registry(executors, store=store, queues={}) as registry:
        await registry.pause("a b")
        source = StoreSource(registry, store, await registry.submit("work", queue="a b"), "sqlite:///jobs.db")
        end = "jobtrio resume --store sqlite:///jobs.db 'a b' ends that"
        assert await source.waiting() == f"the job waits in queue 'a b', which is paused; {end}"
        await registry.resume("a b")
        waits = "the job waits in queue 'a b' for a worker that runs 'work'; no worker is there"
        assert await source.waiting() == waits
        await registry.pause("a b")
        later = StoreSource(registry, store, await registry.submit("work", queue="a b", delay=1000), None)
        assert (await later.waiting() or "").startswith("the job starts at")


async def test_server_that_leaves_behind_the_end(autojump_clock: trio.testing.MockClock) -> None:
    """A server that is gone once it has told the end isn't waited for: what it would tell is only for the summary."""

    class LastJob(SecretJob):
        async def refresh(self) -> Any:
            await trio.sleep(1000)

    async def show(batch: list[Message]) -> None:
        pass

    job: Any = LastJob(Token(1, 1, "a"), End(2, Completed(3)))
    source = BridgeSource(job, None)
    await source.follow(show, 0)
    assert await source.ending() == (Completed(3), None, 1)
    assert trio.current_time() == _sources.LOOK_UP


@pytest.mark.parametrize(
    ("url", "option"),
    [
        (None, ""),
        ("sqlite:///my jobs.db", "--store 'sqlite:///my jobs.db' "),
        ("postgresql://ann:secret@db/jobs", "--store … "),
        ("postgresql://db/jobs?password=secret", "--store … "),
    ],
)
async def test_how_to_end_a_job(url: str | None, option: str) -> None:
    """The command names the store as this one was told it, but for what may be a password."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job(job_id="monday")
        assert StoreSource(registry, MemoryJobStore(), job, url).hint == f"; to end it: jobtrio cancel {option}monday"


async def test_how_to_end_a_job_whose_id_could_be_an_option() -> None:
    """The command takes what stands behind its dashes for an id."""
    async with jobtrio.open_registry() as registry:
        job = await registry.create_job(job_id="-x")
        assert StoreSource(registry, MemoryJobStore(), job, None).hint == "; to end it: jobtrio cancel -- -x"


async def test_how_to_end_a_job_whose_id_a_terminal_would_obey() -> None:
    """An id that no jobtrio has made is shown as text."""
    async with jobtrio.open_registry() as registry:
        job: Any = SimpleNamespace(id="\x1b[2J\n", record=SimpleNamespace(max_attempts=1))
        hint = StoreSource(registry, MemoryJobStore(), job, None).hint
        assert hint == "; to end it: jobtrio cancel '\\x1b[2J\\n'"


async def test_a_store_that_keeps_more(tmp_path: Path) -> None:
    """All that the store keeps is handed over, also where this process keeps less of a stream."""
    executors = jobtrio.Executors()

    @executors.register("count")
    async def count(job: jobtrio.JobContext) -> None:
        for n in range(1, 101):
            await job.send(n)

    shown: list[Message] = []

    async def show(messages: list[Message]) -> None:
        shown.extend(messages)

    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db")) as registry:
        job = await registry.submit("count")
        await job.wait()
    store, less = SqliteJobStore(tmp_path / "jobs.db"), jobtrio.Retention(tokens_per_job=5)
    async with jobtrio.open_registry(store=store, queues={}, retention=less) as registry:
        await StoreSource(registry, store, await registry.get(job.id), None).follow(show, after=0)
    assert shown == [*(Token(n, 1, n) for n in range(1, 101)), End(101, Completed())]
