"""An SQLite file that is locked, full, away or slow: running jobs run on, callers are told in time, nothing is lost."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import threading
import time
from contextlib import closing, contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import sqlite_faults
import trio
from gate import open_gate
from patience import until
from sqlite_invariants import check_file

import jobtrio
from jobtrio import Completed, JobState, StoreUnavailableError
from jobtrio._outage import try_for
from jobtrio.stores import _outages
from jobtrio.stores.sqlite import SqliteJobStore, _connection
from jobtrio.testing._workers import new_entry, open_worker, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from sqlite_faults import Faults

OUTAGE_LIMIT = 3.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobtrio.stores.sqlite._connection.BUSY", 0.05)
    monkeypatch.setattr("jobtrio.stores.sqlite._writer.PATIENCE", 0.1)
    monkeypatch.setattr("jobtrio.stores.sqlite._writer.LOCKED", 0.05)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What goes wrong with the store's connections."""
    return sqlite_faults.install(monkeypatch)


def store_on(path: Path) -> SqliteJobStore:
    """Return a store on the file."""
    return SqliteJobStore(path, outage_limit=OUTAGE_LIMIT)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock the file as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def removed(path: Path) -> Iterator[None]:
    """Take the file away, and put it back."""
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    yield
    elsewhere.rename(path)


@contextmanager
def replaced(path: Path) -> Iterator[None]:
    """Put another file of jobs in the file's place, and then the first one back."""
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    shutil.copy(elsewhere, path)
    yield
    elsewhere.rename(path)


@contextmanager
def folder_renamed(path: Path) -> Iterator[None]:
    """Take the whole folder away, and put it back."""
    elsewhere = path.parent.with_name("elsewhere")
    path.parent.rename(elsewhere)
    yield
    elsewhere.rename(path.parent)


@pytest.mark.parametrize("outage", [locked, removed, replaced, folder_renamed])
async def test_outages_are_survived(tmp_path: Path, outage: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Submitting fails within its limit, running jobs run on, and their ends are written when the file is back."""
    path = tmp_path / "folder" / "jobs.db"
    path.parent.mkdir()
    async with open_gate(store_on(path)) as gate:
        job = await gate.start()
        with outage(path):
            await gate.check_outage(job)
        after = await gate.check_recovery(job)
    told = [text for text in caplog.messages if text.startswith("the store is ")]
    assert [text.partition(":")[0] for text in told] == ["the store is away", "the store is back"]
    assert str(path) in told[0]
    check_file(path, [job.id, after.id])


@pytest.mark.parametrize("code", ["SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_NOMEM"])
async def test_each_error_passes(tmp_path: Path, faults: Faults, code: str) -> None:
    """All calls fail as unavailable while SQLite fails, and succeed afterwards without more ado."""
    faults.code = code
    async with open_worker(lambda: store_on(tmp_path / "jobs.db")) as worker:
        claim = await worker.start()
        faults.failing = True
        store = worker.store
        for call in (
            lambda: worker.insert(new_entry()),
            lambda: store.load("id"),
            lambda: store.find(jobtrio.abc.JobQuery()),
            lambda: store.append_messages(claim, tokens(1, 1)),
            lambda: store.finish(claim, Completed()),
            lambda: store.prune(),
            lambda: worker.claim(),
        ):
            with trio.fail_after(60), pytest.raises(StoreUnavailableError, match=code):
                await call()
        faults.never_fail()
        assert await store.finish(claim, Completed(), messages=tokens(1, 1))
        assert (await worker.load(claim.entry.id)).outcome == Completed()


async def test_a_file_that_could_not_be_written(
    tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where SQLite could open the file for reading alone, it is opened anew, and written as soon as that is allowed."""
    monkeypatch.setattr(_outages, "CALM", 0.0)
    path, connect = tmp_path / "jobs.db", _connection.connect
    async with open_worker(lambda: store_on(path)) as worker:
        claim = await worker.start()

        async def append() -> bool:
            return await worker.store.append_messages(claim, tokens(1, 1))

        with monkeypatch.context() as patch:
            patch.setattr(_connection, "connect", lambda where, **more: connect(where.replace("=rw", "=ro"), **more))
            faults.failing = True
            with pytest.raises(StoreUnavailableError, match="on purpose"):
                await append()  # the connection is closed
            faults.never_fail()
            for _ in range(2):
                with pytest.raises(StoreUnavailableError, match="readonly"):
                    await append()
        assert await try_for(60, append)
        assert await worker.store.finish(claim, Completed())
    assert [text.partition(":")[0] for text in caplog.messages] == ["the store is away", "the store is back"]
    check_file(path, [claim.entry.id])


async def test_disk_full(tmp_path: Path, faults: Faults) -> None:
    """When SQLite finds no room for a page, what was stored stays, and storing goes on when there is room again."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: store_on(path)) as worker:
        claim = await worker.start()
        faults.largest = 1  # the file may not grow: SQLite takes its present size for this
        kept = [claim.entry.id]
        with pytest.raises(StoreUnavailableError, match="SQLITE_FULL"):  # noqa: PT012
            for _ in range(1000):
                (entry,) = await worker.insert(new_entry(payload="x" * 100_000))
                kept.append(entry.id)
        faults.largest = None
        (entry,) = await worker.insert(new_entry(payload="x" * 100_000))
        assert await worker.store.finish(claim, Completed())
    assert set(check_file(path, kept)) == {*kept, entry.id}


async def test_a_full_disk_is_told_once(
    tmp_path: Path, faults: Faults, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That what writes nothing succeeds on a full disk does not say that the store is back, however much later."""
    monkeypatch.setattr(_outages, "QUIET", 0.0)
    monkeypatch.setattr(_outages, "CALM", 0.0)
    faults.code = "SQLITE_FULL"
    path = tmp_path / "jobs.db"

    def fill(statement: str) -> None:
        if statement.startswith(("INSERT", "UPDATE")):
            raise faults.error()

    async with open_worker(lambda: store_on(path)) as worker:
        faults.slow = fill
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="SQLITE_FULL"):
                await worker.insert(new_entry())
            await worker.store.advance()
            await worker.store.delete("unknown")
        faults.slow = None
        await worker.insert(new_entry())
    assert caplog.messages == [
        f"the store is away: {path}: on purpose: SQLITE_FULL (SQLITE_FULL)",
        "the store is back",
    ]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_disk_that_is_full_for_some_is_told_once(
    tmp_path: Path, faults: Faults, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    """Where there is room for some values and not for others, the log tells in the end, and not by turns."""
    monkeypatch.setattr(_outages, "CALM", inf)  # however long the turns take
    faults.code = "SQLITE_FULL"

    def fill(statement: str) -> None:
        if statement == "COMMIT":
            raise faults.error()

    async with open_worker(lambda: store_on(tmp_path / "jobs.db")) as worker:
        for _ in range(3):
            faults.slow = fill
            with pytest.raises(StoreUnavailableError, match="SQLITE_FULL"):
                await worker.insert(new_entry())
            faults.slow = None
            await worker.insert(new_entry())
        assert [text.partition(":")[0] for text in caplog.messages] == ["the store is away"]
        if not is_closed:
            monkeypatch.setattr(_outages, "CALM", 0.0)
            await until(lambda: len(caplog.messages) > 1)  # also where nothing more is asked for
    assert caplog.messages[1:] == ["the store is back"]


async def test_who_writes_nothing_is_told_that_a_lock_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Also a process that only watches says that the store is back, which others had locked for a while."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: store_on(path)) as worker:
        with locked(path), pytest.raises(StoreUnavailableError, match="locked"):
            await worker.store.delete("unknown")
        await worker.store.delete("unknown")
    assert caplog.messages == [f"the store is away: {path} is locked by another process", "the store is back"]


@pytest.fixture
def limit_files() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond so many bytes, as where a disk or a quota is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_no_room_for_the_log(
    tmp_path: Path, limit_files: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Where the log can't grow, though the file has room, it is copied into that, and storing goes on."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: store_on(path)) as worker:

        async def store_and_remove(size: int) -> None:
            (entry,) = await try_for(5, lambda: worker.insert(new_entry(payload="x" * size)))
            await try_for(5, lambda: worker.store.request_cancel(entry.id, None, 0.0))
            await try_for(5, lambda: worker.store.delete(entry.id))

        await store_and_remove(2_000_000)
        await worker.store.counts()  # a reader that has the file open keeps the log there
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        limit_files(path.stat().st_size)
        for _ in range(20):
            await store_and_remove(150_000)
    assert "the store is away" in caplog.text


async def test_leaving_a_locked_file_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who only looks at a file that others write to, and leaves, has not waited for it, and hears nothing of that."""
    path = tmp_path / "jobs.db"
    async with jobtrio.open_registry(store=store_on(path), queues={}):
        pass
    with locked(path):
        async with jobtrio.open_registry(store=store_on(path), queues={}) as registry:
            assert await registry.find() == []
    assert caplog.messages == []


async def test_a_call_that_is_not_taken_is_withdrawn(tmp_path: Path) -> None:
    """A call that is cancelled while the file is locked was not carried out, and returns at once."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        with locked(path):
            with trio.move_on_after(0.01) as scope:
                await worker.insert(new_entry(job_id="withdrawn"))
            assert scope.cancelled_caught
        await worker.insert(new_entry(job_id="kept"))
    assert set(check_file(path, ["kept"])) == {"kept"}


async def test_a_disk_that_does_not_answer(tmp_path: Path, faults: Faults) -> None:
    """A call that a thread has had for too long is given up, also by a cancelled task; it counts when it is done."""
    path = tmp_path / "jobs.db"
    begun, go_on = trio.Event(), threading.Event()
    token = trio.lowlevel.current_trio_token()

    def hold(statement: str) -> None:
        if statement == "COMMIT":
            token.run_sync_soon(begun.set)
            go_on.wait(60)

    async with open_worker(lambda: store_on(path)) as worker:
        await worker.insert(new_entry())
        entry = new_entry(job_id="late")
        faults.slow = hold
        with trio.fail_after(60), pytest.raises(StoreUnavailableError, match="no answer"):
            await worker.store.insert([entry], "mark")
        assert begun.is_set()
        assert not entry.order
        faults.slow = None
        go_on.set()
        (kept,) = await worker.store.insert([entry], "mark")
        assert kept is entry
        assert worker.heard.of("late") == await worker.history("late")
    check_file(path, ["late"])


async def test_callers_of_a_disk_that_does_not_answer(tmp_path: Path, faults: Faults) -> None:
    """Whoever asks a registry whose threads all hang on the disk is told so in time, however many ask."""
    go_on = threading.Event()

    def hang(statement: str) -> None:
        go_on.wait(60)

    async with open_gate(store_on(tmp_path / "jobs.db")) as gate:
        gate.opened.set()
        job = await gate.registry.submit("wait")
        await job.wait()
        faults.slow = hang
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: gate.registry.submit("wait"),
            lambda: gate.registry.get(job.id),
            lambda: gate.registry.find(),
            lambda: gate.registry.cancel(job.id),
            lambda: gate.registry.remove(job.id),
        ]
        refused = []

        async def refuse(call: Callable[[], Awaitable[Any]]) -> None:
            with pytest.raises(StoreUnavailableError, match=f"away for {OUTAGE_LIMIT:g} s"):
                await call()
            refused.append(call)

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    for call in calls:
                        nursery.start_soon(refuse, call)
        assert len(refused) == 3 * len(calls)
        faults.slow = None
        go_on.set()
        after = await gate.registry.submit("wait")
        assert await after.wait() == Completed(after.id)


async def test_leaving_during_an_outage(tmp_path: Path) -> None:
    """A registry is left once its leases are over, though its file is away, and its jobs are there for others."""
    path, elsewhere = tmp_path / "jobs.db", tmp_path / "elsewhere"
    with trio.fail_after(60):
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with open_gate(store_on(path), lease=1.0) as gate:
                job = await gate.start()
                path.rename(elsewhere)
                raise ZeroDivisionError
        elsewhere.rename(path)
        assert check_file(path, [job.id]) == {job.id: "RUNNING"}
        async with open_gate(store_on(path)) as gate:
            gate.opened.set()
            assert await (await gate.registry.get(job.id)).wait() == Completed(job.id)


async def test_opening_passes_by_a_lock(tmp_path: Path) -> None:
    """A file of jobs is opened, and read, while others hold the lock of writers: some hardly ever let go of it."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(entry := new_entry())
    with locked(path):
        async with jobtrio.open_registry(store=SqliteJobStore(path, outage_limit=5), queues={}) as registry:
            assert [record.id for record in await registry.find()] == [entry.id]


async def test_opening_waits_for_a_locked_file(tmp_path: Path) -> None:
    """A store that can't be made within its limit raises; one whose lock goes in time is made."""
    path = tmp_path / "jobs.db"
    with locked(path):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="locked"):
            async with open_worker(lambda: store_on(path)):
                pass
        assert time.monotonic() - begun >= OUTAGE_LIMIT
    async with trio.open_nursery() as nursery:
        unlock = trio.Event()

        async def lock(task_status: trio.TaskStatus[None]) -> None:
            with locked(path):
                task_status.started()
                await unlock.wait()

        await nursery.start(lock)

        async def wait_and_unlock() -> None:
            await trio.sleep(0.2)
            unlock.set()

        nursery.start_soon(wait_and_unlock)
        async with open_worker(lambda: SqliteJobStore(path, outage_limit=10)) as worker:
            await worker.insert(new_entry())
    assert [*check_file(path, []).values()] == [JobState.QUEUED]
