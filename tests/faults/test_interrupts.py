"""Ctrl-C at any moment: it gets out, nothing hangs, and every job has ended by then."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import coredis
import psycopg
import pytest
import trio
import trio.testing
from psycopg_bridge import check_at_rest, wait_for_sessions
from remote_store import RemoteStore, Server
from valkey_server import new_prefix, shared_server

import jobtrio
from jobtrio import Cancelled, End, JobContext, JobState, Retention, RetryPolicy, TextStream, Token
from jobtrio._nursery import open_background_nursery
from jobtrio._token_log import TokenLog
from jobtrio.abc import StoreSettings
from jobtrio.psycopg_trio import TrioConnection, connect, open_pool
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.postgres._calls import Call as GroupedCall
from jobtrio.stores.postgres._calls import Lane
from jobtrio.stores.redis import RedisJobStore
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.stores.sqlite._calls import Calls
from jobtrio.testing._workers import Heard
from jobtrio.websocket import RemoteSubscription, ServerUnavailableError
from jobtrio.websocket._client_address import parse_url
from jobtrio.websocket._client_book import Book
from jobtrio.websocket._client_feed import Feed
from jobtrio.websocket._client_keeper import Keeper
from jobtrio.websocket.protocol import Get

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path
    from types import FrameType

STOPPED = Cancelled("shutdown")
SETTINGS = StoreSettings("worker", Retention(), 100, Heard(), partial(TokenLog, 100))
PACKAGE = jobtrio.__file__.removesuffix("__init__.py")


@pytest.fixture(autouse=True)
def _sigint() -> Iterator[None]:
    """Let SIGINT mean what it means in a program of its own."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class CtrlC:
    """Presses Ctrl-C when the n-th line of jobtrio, or of a module of it, or of another package, is about to run.

    Attributes:
        pressed: Where that was; None as long as it has not been.
    """

    def __init__(self, n: int, module: str = "", package: str = PACKAGE) -> None:
        self._left = n
        self._place = package + module
        self._before: Any = None
        self.pressed: str | None = None

    def __enter__(self) -> CtrlC:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename.startswith(self._place) else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.pressed = f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)
        return self._line


def at_each_line(
    scenario: Callable[[CtrlC], Awaitable[None]], module: str, package: str = PACKAGE, step: int = 1
) -> Iterator[str]:
    """Run a scenario with Ctrl-C at one line of a module after the other, and at none at last; yield where that was."""
    n, pressed = 1, "somewhere"
    while pressed:
        with suppress(KeyboardInterrupt):
            trio.run(scenario, ctrl_c := CtrlC(n, module, package))
        pressed = ctrl_c.pressed or ""
        n += step
        yield pressed
    assert n > 10 * step


async def speak(job: JobContext) -> int:
    """Send something, and fail in the first attempt if the payload says so."""
    await job.send("a")
    job.progress(1)
    if job.payload and job.attempt == 1:
        raise ValueError
    return job.attempt


async def hang(job: JobContext) -> None:
    """Wait for ever, with a child task."""
    job.nursery.start_soon(trio.sleep_forever)
    await trio.sleep_forever()


async def scenario(jobs: list[jobtrio.Job], n: int) -> str:
    """Let jobs live in several ways, and press Ctrl-C at the n-th line; return where that was."""
    retention = Retention(finished_jobs=3, tokens_per_job=2)
    async with jobtrio.open_registry(max_running=3, queues={"default": 2, "other": 5}, retention=retention) as registry:
        jobs.append(await registry.submit(hang, time_limit=5))
        with CtrlC(n) as ctrl_c:
            events = registry.subscribe_events()
            for payload in (False, True):
                jobs.append(await registry.submit(speak, payload, retry=RetryPolicy(initial=1), tags={"a": "1"}))
                jobs.append(await registry.submit(speak, payload, queue="other", delay=2, expires_in=100))
            jobs.append(await registry.create_job(False))
            jobs.append(await registry.create_job(True, expires_in=1))
            async with jobs[1].subscribe(on_gap="yield", lossless=True) as messages:
                async for _ in messages:
                    pass
            async with registry.execute_and_stream(jobs[5].id, speak) as lines, jobs[3].open_channel() as channel:
                async for _ in lines:
                    pass
                async for _ in channel:
                    pass
            jobs.append(await registry.submit(hang, queue="other"))
            await trio.sleep(3)
            await jobs[-1].cancel("enough")
            await jobs[-1].wait()
            await registry.find(tags={"a": "1"}, limit=1)
            events.close()
            await registry.drain()
        return ctrl_c.pressed or ""


def interrupted(n: int) -> str:
    """Run the scenario with Ctrl-C at the n-th line, check what is left, and return where that was."""
    jobs: list[jobtrio.Job] = []
    pressed = "out"
    clock = trio.testing.MockClock(autojump_threshold=0)
    try:
        pressed = trio.run(scenario, jobs, n, clock=clock)
    except KeyboardInterrupt:
        pass
    for job in jobs:
        assert job.outcome is not None, n
        log = job._entry.log
        assert log is None or log.end == End(log.last, job.outcome), n
    return pressed


async def pause_while_another_drains(ctrl_c: CtrlC) -> None:
    """Pause the queue of a job that waits for its next attempt, and go on after Ctrl-C."""
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        await registry.submit(speak, True, retry=RetryPolicy(initial=300))
        nursery.start_soon(registry.drain)
        await trio.testing.wait_all_tasks_blocked()
        with suppress(KeyboardInterrupt):
            with ctrl_c:
                await registry.pause("default")
            await trio.lowlevel.checkpoint()  # where it comes that could not before
        if not await registry.paused():
            await registry.pause("default")
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks, ctrl_c.pressed


async def close_events(ctrl_c: CtrlC) -> None:
    """Close a subscription to events, and go on after Ctrl-C."""
    async with jobtrio.open_registry() as registry:
        events = registry.subscribe_events()
        with suppress(KeyboardInterrupt):
            with ctrl_c:
                events.close()
            await trio.lowlevel.checkpoint()
        job = await registry.submit(speak, False)
        with suppress(trio.ClosedResourceError):
            assert events.receive_nowait().job_id == job.id, ctrl_c.pressed


STEP = int(os.environ.get("JOBTRIO_INTERRUPT_STEP", "53"))
"""Every how many lines Ctrl-C is pressed; with 1 it takes minutes."""


def test_at_any_line() -> None:
    """Wherever in jobtrio Ctrl-C arrives, it comes out bare, and every job and stream has its end by then."""
    n, seen = 1, 0
    while (pressed := interrupted(n)) == "out":
        seen += 1
        n += STEP
    assert pressed == ""
    assert seen > 10


def test_pausing_at_any_line() -> None:
    """Wherever Ctrl-C comes as a queue is paused, whoever waits for what waits in it waits no more once it is."""
    assert "_core.py" in "".join(at_each_line(pause_while_another_drains, ""))


def test_closing_events_at_any_line() -> None:
    """Wherever Ctrl-C comes as a subscription to events is closed, it is closed, or else receives what happens."""
    assert "_events.py" in "".join(at_each_line(close_events, ""))


async def take(messages: Any, way: str) -> list[Any]:
    """Take what comes next, in one of the ways that there are."""
    match way:
        case "receive_nowait":
            return [messages.receive_nowait()]
        case "receive_batch":
            return list(await messages.receive_batch(3))
        case "receive":
            return [await messages.receive()]
        case _:
            return [await anext(messages)]


async def read_to_the_end(stream: str, way: str, n: int) -> str | None:
    """Read a stream in which all is there, with Ctrl-C at the n-th line; return where that was."""
    async with jobtrio.open_registry() as registry:
        events = registry.subscribe_events()
        job = await registry.submit(speak, True, retry=RetryPolicy(initial=0))
        await job.wait()
        log = job._entry.log
        assert log is not None
        feed = Feed(job.id, 0, None, lambda feed: None)
        feed.take(log.slice(0, 100), 1)
        sources: dict[str, Any] = {
            "messages": lambda: job.subscribe(lossless=True),
            "remote": lambda: RemoteSubscription(feed, trio.lowlevel.ParkingLot(), "raise"),
            "tokens": job.tokens,
            "lines": lambda: TextStream(job.subscribe()),
            "events": lambda: events,
        }
        whole: dict[str, list[Any]] = {
            "messages": log.slice(0, 100),
            "remote": log.slice(0, 100),
            "tokens": ["a", "a"],
            "lines": ["a", "a", "[DONE]"],
            "events": await registry.history(job.id),
        }
        received: list[Any] = []
        messages, ctrl_c = sources[stream](), CtrlC(n)
        with trio.move_on_after(1), suppress(trio.WouldBlock, trio.EndOfChannel, StopAsyncIteration):
            while len(received) < len(whole[stream]):
                with suppress(KeyboardInterrupt), ctrl_c if ctrl_c.pressed is None else nullcontext():
                    received += await take(messages, way)
                    await trio.lowlevel.checkpoint()
        if stream in ("messages", "events"):
            with suppress(KeyboardInterrupt), ctrl_c if ctrl_c.pressed is None else nullcontext():
                messages.close()
                await trio.lowlevel.checkpoint()
        assert not log._lossless, ctrl_c.pressed
        assert received == whole[stream], ctrl_c.pressed
        return ctrl_c.pressed


@pytest.mark.parametrize(
    ("stream", "way"),
    [
        *(("messages", way) for way in ("receive", "receive_nowait", "receive_batch", "loop")),
        *(("remote", way) for way in ("receive", "receive_nowait", "receive_batch")),
        *(("events", way) for way in ("receive", "receive_nowait")),
        ("tokens", "loop"),
        ("lines", "loop"),
    ],
)
def test_a_reader_that_goes_on_has_lost_nothing(stream: str, way: str) -> None:
    """Ctrl-C while a stream is read loses no message: who catches it and reads on gets all; who leaves has left."""
    n = 1
    while trio.run(read_to_the_end, stream, way, n, clock=trio.testing.MockClock(autojump_threshold=0)) is not None:
        n += 1
    assert n > 10


def test_leaving_a_server_at_any_line() -> None:
    """Wherever Ctrl-C arrives while a subscription is closed, its client wants nothing more for it afterwards."""

    async def scenario(ctrl_c: CtrlC) -> None:
        book = Book(lambda: None)
        feed = Feed("a", 0, None, book.feed_changed)
        book.add_feed(feed)
        feed.take([Token(1, 1, "a")], 1)
        messages = RemoteSubscription(feed, trio.lowlevel.ParkingLot(), "raise")
        try:
            with ctrl_c:
                messages.receive_nowait()
                messages.close()
        finally:
            left.append(feed.is_closed and not book._feeds)

    left: list[bool] = []
    for pressed in at_each_line(scenario, "websocket/"):
        assert left == [True], pressed
        left.clear()


def test_asking_a_server_at_any_line() -> None:
    """Wherever Ctrl-C arrives while a server is asked, its client goes on asking for nobody afterwards."""

    async def scenario(ctrl_c: CtrlC) -> None:
        keeper = Keeper(parse_url("ws://127.0.0.1"), None, None, 0.001)
        try:
            with ctrl_c, suppress(ServerUnavailableError):
                await keeper.ask(Get(job="a"), "a")
        finally:
            left.append((list(keeper.book.calls), keeper._waiting))

    left: list[Any] = []
    for pressed in at_each_line(scenario, "websocket/_client_"):
        assert left == [([], set())], pressed
        left.clear()


def test_a_pool_at_any_line(postgres: str) -> None:
    """Wherever in a pool Ctrl-C arrives, its only place is free again afterwards, and no connection is left behind."""

    async def scenario(ctrl_c: CtrlC) -> None:
        async with open_pool(postgres, size=1, configure=checkpoint, reset=checkpoint) as pool:
            try:
                with ctrl_c:
                    async with pool.connection() as connection:
                        await connection.execute("SELECT 1")
                    async with pool.connection():
                        pass
            finally:
                in_use.append(pool.statistics.in_use)

    async def checkpoint(connection: TrioConnection[Any]) -> None:
        await trio.lowlevel.checkpoint()

    in_use: list[int] = []
    for pressed in at_each_line(scenario, "psycopg_trio/_pool.py"):
        assert in_use == [0], pressed
        in_use.clear()
        trio.run(wait_for_sessions, postgres, 0)


@pytest.mark.parametrize("module", ["_connection.py", "_pipeline.py"])
def test_a_connection_at_any_line(postgres: str, module: str) -> None:
    """Wherever in a connection Ctrl-C comes, it is usable behind it, or closed; and it is closed behind its block."""

    async def scenario(ctrl_c: CtrlC) -> None:
        with ctrl_c:
            async with await connect(postgres, autocommit=True) as connection:
                seen.append(connection)
                try:
                    async with connection.pipeline():
                        await connection.execute("SELECT 1")
                finally:
                    if ctrl_c.pressed is not None and not connection.closed:
                        with trio.fail_after(60):
                            await check_at_rest(connection)
                        assert not connection._finishers

    seen: list[TrioConnection[Any]] = []
    for pressed in at_each_line(scenario, f"psycopg_trio/{module}"):
        assert all(connection.closed for connection in seen), pressed
        seen.clear()
        trio.run(wait_for_sessions, postgres, 0)


def test_notifications_at_any_line(postgres: str) -> None:
    """Ctrl-C while a loop receives notifications loses none: who catches it and loops on gets the others."""

    async def receive(connection: TrioConnection[Any]) -> None:
        async for notification in connection.notifies():
            if notification.payload == "end":
                break
            received.append(notification.payload)

    async def scenario(ctrl_c: CtrlC) -> None:
        async with await connect(postgres, autocommit=True) as connection:
            await connection.execute("LISTEN a")
            with psycopg.connect(postgres, autocommit=True) as sender:
                for payload in ("0", "1", "2", "end"):
                    sender.execute("SELECT pg_notify('a', %s)", [payload])
                try:
                    with ctrl_c:
                        await receive(connection)
                except KeyboardInterrupt:
                    sender.execute("NOTIFY a, 'end'")
                    await receive(connection)

    received: list[str] = []
    for pressed in at_each_line(scenario, "psycopg_trio/_notifications.py"):
        assert received == ["0", "1", "2"], pressed
        received.clear()


def leaves(exc: BaseException) -> list[BaseException]:
    """Return the single exceptions in a group."""
    if isinstance(exc, BaseExceptionGroup):
        return [leaf for each in exc.exceptions for leaf in leaves(each)]
    return [exc]


def test_twice() -> None:
    """A second Ctrl-C, while the clean-up of a job is waited for, does not leave a registry that never ends."""
    ends: list[float] = []

    async def tidy(job: JobContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(10)
            ends.append(trio.current_time())

    @trio.lowlevel.enable_ki_protection
    async def press() -> None:
        for _ in range(3):
            await trio.sleep(1)
            signal.raise_signal(signal.SIGINT)

    async def watch(job: jobtrio.Job) -> None:
        with trio.CancelScope(shield=True):
            assert await job.wait() == STOPPED

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(press)
            async with jobtrio.open_registry(max_running=1) as registry:
                jobs.append(await registry.submit(tidy))
                jobs.append(await registry.submit(tidy))
                for job in jobs:
                    nursery.start_soon(watch, job)
                await trio.sleep_forever()

    jobs: list[jobtrio.Job] = []
    raised: set[type[BaseException]] = set()
    try:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    except BaseException as exc:
        raised = {type(leaf) for leaf in leaves(exc)}
    assert raised == {KeyboardInterrupt}
    assert ends == [11]
    assert [job.outcome for job in jobs] == [STOPPED, STOPPED]


def test_twice_while_claiming() -> None:
    """What a claim brings that was under way at a second Ctrl-C goes back to the queue at once."""
    executors = jobtrio.Executors()
    executors.register("hang")(hang)
    states: list[JobState] = []

    @trio.lowlevel.enable_ki_protection
    async def press() -> None:
        for _ in range(2):
            await trio.sleep(0.1)
            signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        server = Server()
        slow = RemoteStore(server)
        slow.network.slow["claim"] = 1
        async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as here:
            job = await here.submit("hang")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(press)
                with pytest.raises(KeyboardInterrupt):
                    async with jobtrio.open_registry(executors, store=slow):
                        await trio.sleep_forever()
            states.append((await here.get(job.id)).state)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert states == [JobState.QUEUED]


def test_a_job_that_never_gives_way() -> None:
    """Ctrl-C gets into an executor that is in an endless loop, although jobtrio's own tasks are protected."""
    pressed = threading.Event()

    async def loops(job: JobContext) -> None:
        pressed.set()
        threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()
        while True:
            pass

    async def main() -> None:
        async with jobtrio.open_registry() as registry:
            jobs.append(await registry.submit(loops))
            await trio.sleep_forever()

    jobs: list[jobtrio.Job] = []
    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert pressed.is_set()
    assert jobs[0].outcome == STOPPED


def test_calls_to_a_thread_at_any_line() -> None:
    """Wherever Ctrl-C comes while a thread is asked for something, only the caller is interrupted."""

    def serve(calls: Calls) -> None:
        while call := calls.next():
            if call.take():
                call.succeed(call.work(None))
                calls.deliver((call,))

    async def scenario(ctrl_c: CtrlC) -> None:
        calls = Calls(60.0)
        thread = threading.Thread(target=serve, args=(calls,), daemon=True)
        thread.start()
        try:
            with ctrl_c:
                assert await calls.make(lambda _: "answer") == "answer"
            await trio.lowlevel.checkpoint()  # where it comes that could not before
        finally:
            assert await calls.make(lambda _: "another") == "another"
            calls.stop()
            thread.join()
            assert not calls._open

    for pressed in at_each_line(scenario, "stores/sqlite/_calls.py"):
        assert "_calls" in pressed or not pressed


@pytest.mark.parametrize("module", ["_sessions.py", "sqlite/_session.py"])
def test_an_sqlite_store_at_any_line(tmp_path: Path, module: str) -> None:
    """Wherever Ctrl-C comes as a file is opened and closed, no thread and no doorbell is left, and it can be opened."""
    store = SqliteJobStore(tmp_path / "jobs.db")

    async def scenario(ctrl_c: CtrlC) -> None:
        with ctrl_c:
            async with store.open(SETTINGS):
                await store.counts()

    for pressed in at_each_line(scenario, f"stores/{module}"):
        assert not [thread for thread in threading.enumerate() if "jobtrio-sqlite" in thread.name], pressed
        assert not (tmp_path / "jobs.db-doorbells").exists(), pressed


def test_calls_in_groups_at_any_line() -> None:
    """Wherever Ctrl-C comes while a call goes to PostgreSQL together with others, only the caller is interrupted."""

    async def carry_out(calls: list[GroupedCall[None]]) -> None:
        await trio.lowlevel.checkpoint()
        for call in calls:
            call.succeed("answer")

    async def scenario(ctrl_c: CtrlC) -> None:
        lane: Lane[None] = Lane(carry_out, 60.0)
        async with open_background_nursery() as nursery:
            nursery.start_soon(lane.run)
            try:
                with ctrl_c:
                    assert await lane.make(None) == "answer"
                await trio.lowlevel.checkpoint()  # where it comes that could not before
            finally:
                assert await lane.make(None) == "answer"
                await lane.drain()

    for pressed in at_each_line(scenario, "stores/postgres/_calls.py"):
        assert "_calls" in pressed or not pressed


@pytest.mark.parametrize("module", ["_session.py", "_listening.py"])
def test_a_postgres_store_at_any_line(postgres: str, module: str) -> None:
    """Wherever Ctrl-C comes as a schema is opened and closed, it comes out alone, and nothing is left on the server."""
    store = PostgresJobStore(postgres)

    async def scenario(ctrl_c: CtrlC) -> None:
        with ctrl_c:
            async with store.open(SETTINGS):
                await store.counts()

    trio.run(scenario, CtrlC(0))  # makes the schema
    for pressed in at_each_line(scenario, f"stores/postgres/{module}"):
        trio.run(wait_for_sessions, postgres, 0)
        with psycopg.connect(postgres) as observer:
            assert observer.execute("SELECT FROM jobtrio.workers").fetchall() == [], pressed


@pytest.mark.parametrize("package", [PACKAGE + "stores/redis/", coredis.__file__.removesuffix("__init__.py")])
def test_a_redis_at_any_line(package: str) -> None:
    """Wherever Ctrl-C comes as a Redis is used, it alone gets out, jobs go back, no connection is left."""
    server = shared_server()
    prefixes: list[str] = []
    executors = jobtrio.Executors()

    @executors.register("say")
    async def say(job: JobContext) -> None:
        await job.send("a")
        await trio.sleep_forever()

    async def scenario(ctrl_c: CtrlC) -> None:
        prefixes.append(new_prefix())
        with ctrl_c, trio.fail_after(60):
            store = RedisJobStore(server.url, prefix=prefixes[-1])
            async with jobtrio.open_registry(executors, store=store) as registry:
                job = await registry.submit("say")
                with job.subscribe() as messages:
                    await messages.receive()
                    await job.cancel()
                    await job.wait()

    async def check_left() -> None:
        with trio.fail_after(60):
            while str(server.ask("CLIENT", "LIST", "TYPE", "normal")).count("id=") > 1:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)

    for pressed in at_each_line(scenario, "", package, 4 * STEP):
        trio.run(check_left)
        root = f"{{{prefixes[-1]}}}:"
        assert not server.ask("EXISTS", f"{root}leases", f"{root}sessions"), pressed
