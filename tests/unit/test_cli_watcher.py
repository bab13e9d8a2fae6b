"""What is said to whoever watches a job that does not begin."""

from __future__ import annotations

import re
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Completed, End, Progress
from jobtrio.cli import _watcher
from jobtrio.cli._output import STDERR, STDOUT, Output
from jobtrio.cli._screen import ERASE
from jobtrio.cli._sources import StoreSource
from jobtrio.cli._watcher import PATIENCE, Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from trio.testing import MockClock

    from jobtrio import Message, Outcome
    from jobtrio.cli._output import Piece

executors = jobtrio.Executors()


@executors.register("work")
async def work(job: jobtrio.JobContext) -> None:
    """Be silent, and then say something."""
    await trio.sleep(2 * PATIENCE)
    await job.send("done")


async def watch(store: RemoteStore, other: RemoteStore | None = None, **options: Any) -> None:
    """Watch a job of the store; it is cancelled in the end. With another one, a worker is there."""
    async with jobtrio.open_registry(executors, store=store, queues={}) as registry, trio.open_nursery() as nursery:
        options = {"executor": "work"} | options
        executor = options.pop("executor")
        job = await (registry.create_job(**options) if executor is None else registry.submit(executor, **options))
        if other is not None:
            nursery.start_soon(run_worker, other, job)
        nursery.start_soon(Watcher(StoreSource(registry, store, job, None)).watch)
        await trio.sleep(3 * PATIENCE)
        await job.cancel()


async def run_worker(store: RemoteStore, job: jobtrio.Job) -> None:
    """Run what others submit to the queue "default", until the job has ended."""
    async with jobtrio.open_registry(executors, store=store, queues={"default": 1}):
        await job.wait()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Piece]:
    """Return what is written, of which a thread would come to know when the virtual clock has gone on."""
    written: list[Piece] = []

    async def write(output: Output, pieces: Iterable[Piece]) -> None:
        await trio.lowlevel.checkpoint()
        written.extend(pieces)

    monkeypatch.setattr(Output, "write", write)
    return written


GONE = (STDERR, "jobtrio: cancelled before it started, 0 attempts\n")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "the job waits in queue 'default' for a worker that runs 'work'; no worker is there"),
        ({"executor": None}, "the job is held until somebody executes it"),
    ],
)
async def test_no_worker(
    options: dict[str, Any], expected: str, autojump_clock: MockClock, written: list[Piece]
) -> None:
    """Who watches a job that nobody runs is told what it waits for, once."""
    await watch(RemoteStore(Server()), **options)
    assert written == [(STDERR, f"jobtrio: {expected}\n"), GONE]


async def test_another_queue(autojump_clock: MockClock, written: list[Piece]) -> None:
    """That workers are there does not say that they take this job."""
    server = Server()
    await watch(RemoteStore(server), RemoteStore(server), queue="gpu")
    expected = "the job waits in queue 'gpu' for a worker that runs 'work'; workers that are there: 1"
    assert written == [(STDERR, f"jobtrio: {expected}\n"), GONE]


async def test_delayed(autojump_clock: MockClock, written: list[Piece]) -> None:
    """Of a job that is to start later it is said when."""
    await watch(RemoteStore(Server()), run_at=datetime(2199, 12, 24, 18, tzinfo=UTC))
    (first, said), last = written
    assert (first, last) == (STDERR, GONE)
    assert re.fullmatch(r"jobtrio: the job starts at 2199-12-2[45] \d\d:\d\d:00 at the earliest\n", said)


async def test_one_that_runs(autojump_clock: MockClock, written: list[Piece]) -> None:
    """A job that runs and says nothing is not waiting."""
    server = Server()
    await watch(RemoteStore(server), RemoteStore(server))
    (first, (_, last)) = written
    assert first == (STDOUT, "done\n")
    assert last.startswith("jobtrio: completed in ")


async def test_one_that_ends_at_once(autojump_clock: MockClock, written: list[Piece]) -> None:
    """What has come is not followed by a word about waiting."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, queues={}) as registry:
        job = await registry.submit("work")
        await job.cancel()
        await Watcher(StoreSource(registry, store, job, None)).watch()
        await trio.sleep(2 * PATIENCE)
    assert written == [GONE]


class OneThatBegins:
    """A job that begins while it is asked what it waits for."""

    attempts: int | None = 1
    hint = ""
    has_ended = False

    def __init__(self) -> None:
        self._asked = trio.Event()

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over progress, and then the end."""
        await self._asked.wait()
        await show([Progress(1, 1, 1.0, 2.0, None)])
        await trio.sleep(2.0)
        await show([End(2, Completed(None))])

    async def waiting(self) -> str | None:
        """Return what was true when it was asked."""
        self._asked.set()
        await trio.sleep(1.0)
        return "the job waits"

    async def ending(self) -> tuple[Outcome, float | None, int | None]:
        """Return the end."""
        return Completed(None), 1.0, 1


@pytest.mark.parametrize("slow", [False, True])
async def test_one_that_begins(
    slow: bool, autojump_clock: MockClock, written: list[Piece], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word about waiting that comes behind a bar, or while it is drawn, has a line of its own."""
    monkeypatch.setattr(_watcher, "open_bar", lambda: lambda progress: "BAR")
    write = Output.write

    async def write_slowly(output: Output, pieces: Iterable[Piece]) -> None:
        await trio.sleep(1.5)
        await write(output, pieces)

    if slow:
        monkeypatch.setattr(Output, "write", write_slowly)
    await Watcher(OneThatBegins()).watch()
    assert written == [
        (STDERR, "BAR"),
        (STDERR, ERASE),
        (STDERR, "jobtrio: the job waits\n"),
        (STDERR, "jobtrio: completed in 1.0 s, 1 attempt\n"),
    ]


async def test_what_can_not_be_asked(autojump_clock: MockClock, written: list[Piece]) -> None:
    """Where the store is away, it has told so itself."""
    store = RemoteStore(Server())
    store.outage_limit = 0.5
    store.network.failing = {"workers"}
    await watch(store)
    assert written == [GONE]


async def test_left_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second signal at once, as ``timeout`` sends it, does not take away the last word."""
    written: list[Piece] = []

    async def write(output: Output, pieces: Iterable[Piece]) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.testing.wait_all_tasks_blocked()
        written.extend(pieces)

    monkeypatch.setattr(Output, "write", write)
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, queues={}) as registry, trio.open_nursery() as nursery:
        watcher = Watcher(StoreSource(registry, store, await registry.submit("work"), None))

        async def watch() -> None:
            assert await watcher.watch() == 130

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        signal.raise_signal(signal.SIGINT)
    assert [where for where, _ in written] == [STDERR]
    assert written[0][1].strip().startswith("jobtrio: the job goes on")
