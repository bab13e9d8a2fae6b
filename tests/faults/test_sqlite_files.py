"""What is opened as a file of jobs, what is refused and left as it was, and how old formats become new ones."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio
from sqlite_invariants import check_file

import jobtrio
from jobtrio import Completed, Failed, Gap, JobState, StoreError, StoreUnavailableError, StoreVersionError
from jobtrio.abc import JobQuery
from jobtrio.stores import store_from_url
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.stores.sqlite import _finding as finding
from jobtrio.stores.sqlite import _schema as schema
from jobtrio.stores.sqlite._connection import Location
from jobtrio.testing._workers import ids, new_entry, open_worker, tokens

if TYPE_CHECKING:
    from pathlib import Path

    from jobtrio.testing._workers import Worker


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


async def refused(path: Path, kind: type[StoreError], match: str) -> None:
    """Check that a file is refused at once, and that nothing in its folder is touched."""
    before = contents(path.parent)
    with trio.fail_after(60), pytest.raises(kind, match=match) as caught:
        async with open_worker(lambda: SqliteJobStore(path, outage_limit=60.0)):
            pass
    assert caught.type is kind
    assert contents(path.parent) == before


async def make(path: Path) -> None:
    """Make a file of jobs with a job in it."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry(job_id="kept"))


# -- what is refused


async def test_a_folder(tmp_path: Path) -> None:
    """A folder is no file."""
    (tmp_path / "jobs.db").mkdir()
    await refused(tmp_path / "jobs.db", StoreError, "is a folder")


async def test_no_folder_to_be_in(tmp_path: Path) -> None:
    """Folders are not made."""
    with pytest.raises(StoreError, match="there is no folder"):
        async with open_worker(lambda: SqliteJobStore(tmp_path / "no" / "jobs.db")):
            pass
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("what", ["device", "pipe", "socket"])
async def test_no_regular_file(tmp_path: Path, what: str) -> None:
    """What is there and no file, also behind a link, is refused."""
    path = tmp_path / "jobs.db"
    with socket.socket(socket.AF_UNIX) as listener:
        match what:
            case "device":
                path.symlink_to(os.devnull)
            case "pipe":
                os.mkfifo(path)
            case _:
                listener.bind(str(path))
        await refused(path, StoreError, "is no regular file")


async def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """A link to a file that can never be made, or to itself, is refused; one to a file that can is followed."""
    path = tmp_path / "jobs.db"
    path.symlink_to(tmp_path / "no" / "real.db")
    await refused(path, StoreError, rf"there is no folder {tmp_path / 'no'}$")
    (tmp_path / "no").mkdir()
    await make(path)
    assert (tmp_path / "no" / "real.db").stat().st_size > 0
    path.unlink()
    path.symlink_to(path)
    await refused(path, StoreError, "can't be used")
    await refused(tmp_path / ("x" * 300), StoreError, "can't be used")


def test_no_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder has been removed that a path begins in, that is said."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    with pytest.raises(StoreError, match=r"'jobs\.db' can't be used: the current folder is gone"):
        SqliteJobStore("jobs.db")
    assert SqliteJobStore(tmp_path / "jobs.db").path == str(tmp_path / "jobs.db")


def test_the_folder_above_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with ".." behind a link to a folder is that of the file which other programs find by it."""
    (tmp_path / "real" / "folder").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/folder")
    (tmp_path / "real" / "jobs.db").touch()
    monkeypatch.chdir(tmp_path)
    for path in ("link/../jobs.db", "link/..//./jobs.db", tmp_path / "link" / ".." / "jobs.db"):
        assert os.path.samefile(path, "real/jobs.db")
        assert SqliteJobStore(path).path == str(tmp_path / "real" / "jobs.db")
    for path in ("real/./jobs.db", "real/jobs.db/", "link/../jobs.db/"):
        assert SqliteJobStore(path).path == str(tmp_path / "real" / "jobs.db")


async def test_no_room_for_what_sqlite_puts_behind(tmp_path: Path) -> None:
    """A name or path that SQLite can't make others of is refused at once; a shorter one is not."""
    await refused(tmp_path / ("x" * 248), StoreError, "can't be used: File name too long")
    await make(tmp_path / ("x" * 247))
    folder = tmp_path
    while len(os.fsencode(folder)) < 300:
        folder /= "y" * 100
    folder.mkdir(parents=True)
    room = 504 - len(os.fsencode(folder)) - 1
    await make(folder / ("x" * room))
    (tmp_path / "link").symlink_to(folder / ("x" * (room + 1)))
    for path in (folder / ("x" * (room + 1)), tmp_path / "link"):
        await refused(path, StoreError, "at most 504 bytes")


@pytest.mark.parametrize("data", [b"x", b"just some text\n" * 1000, b"SQLite format 3\0" + b"\xff" * 4080])
async def test_not_sqlite(tmp_path: Path, data: bytes) -> None:
    """A file of something else is refused."""
    (tmp_path / "jobs.db").write_bytes(data)
    await refused(tmp_path / "jobs.db", StoreError, "no SQLite file|of another program")


@pytest.mark.parametrize("mode", ["delete", "wal"])
@pytest.mark.parametrize("application_id", [0, 1234])
async def test_of_another_program(tmp_path: Path, mode: str, application_id: int) -> None:
    """An SQLite file of another program is refused, whether it is in use or not."""
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {application_id}")
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE theirs (x)")
        await refused(path, StoreError, "of another program")
    await refused(path, StoreError, "of another program")


async def test_of_a_newer_version(tmp_path: Path) -> None:
    """A format from the future is refused."""
    path = tmp_path / "jobs.db"
    await make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await refused(path, StoreVersionError, "has the format")


async def test_newer_while_it_is_open(tmp_path: Path) -> None:
    """A process of an older version stops when a newer one has changed the format under it."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        for _ in range(10):  # so that all threads have it open
            await worker.store.load("id")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
        for call in (lambda: worker.insert(new_entry()), lambda: worker.store.load("id")):
            with pytest.raises(StoreVersionError):
                await call()


@pytest.mark.parametrize("asks", [False, True])
async def test_newer_while_jobs_run(tmp_path: Path, asks: bool) -> None:
    """The registry of an older version ends with the one error, however many of its parts and jobs learn of it."""
    path = tmp_path / "jobs.db"
    executors = jobtrio.Executors()

    @executors.register("speak")
    async def speak(job: jobtrio.JobContext) -> None:
        while True:
            await job.send("on and on")
            await trio.sleep(0.001)

    async def work() -> None:
        async with jobtrio.open_registry(executors, store=SqliteJobStore(path)) as registry:
            for job in await registry.submit_many([jobtrio.JobSpec("speak")] * 3):
                async with job.subscribe() as messages:
                    await messages.receive()
            with closing(sqlite3.connect(path)) as connection:
                connection.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
            if asks:
                await registry.submit("speak")
            await trio.sleep_forever()

    with trio.fail_after(60), pytest.raises(StoreVersionError, match="has the format"):
        await work()


@pytest.mark.parametrize("kept", [0.3, 0.9])
async def test_cut_off(tmp_path: Path, kept: float) -> None:
    """A file that was cut short is damaged."""
    path = tmp_path / "jobs.db"
    await make(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    await refused(path, StoreError, "damaged")


async def test_without_a_table(tmp_path: Path) -> None:
    """A file of jobs in which a part is missing is damaged."""
    path = tmp_path / "jobs.db"
    await make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE messages")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await refused(path, StoreError, "damaged")


async def test_an_index_that_disagrees(tmp_path: Path) -> None:
    """A job that an index names and the table doesn't have, as after a disk's fault, is told by its store's error."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry(), new_entry())
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        where = "FROM sqlite_schema WHERE name = 'jobs_cells'"
        index = connection.execute(f"SELECT * {where}").fetchone()
        connection.execute(f"DELETE {where}")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM jobs WHERE seq = 2")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", index)
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        with pytest.raises(StoreError, match="an index names job 2, which is not in its table"):
            await worker.store.find(JobQuery(states=frozenset({JobState.QUEUED})))


async def test_damage_that_sqlite_tells_in_no_utf8(tmp_path: Path) -> None:
    """SQLite names the part that it can't read, and Python can't read that name."""
    path = tmp_path / "jobs.db"
    await make(path)
    data = path.read_bytes()
    assert b"(last INTEGER NOT NULL)" in data
    path.write_bytes(data.replace(b"(last INTEGER NOT NULL)", b"(last INTEGER NOT N\x8aLL)"))
    await refused(path, StoreError, "damaged")


@pytest.mark.parametrize(
    ("what", "said"),
    [("file", "can't be read and written"), ("folder", "can't be written to"), ("way", "Permission denied")],
)
def test_not_permitted(what: str, said: str) -> None:
    """A file that this user, or another one if this is root, can't write or come to is refused, not called missing."""
    program = """
import os, sys, trio
from functools import partial
from jobtrio import StoreError
from jobtrio.stores._url import parse_store_url
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.testing._workers import new_entry, open_worker

async def main():
    what, way = sys.argv[1:]
    folder = os.path.join(way, "jobs")
    path = os.path.join(folder, "jobs.db")
    os.mkdir(folder)
    async with open_worker(partial(SqliteJobStore, path)) as worker:
        await worker.insert(new_entry())
    os.chmod(path, 0o444 if what == "file" else 0o644)
    os.chmod(folder, 0o555 if what == "folder" else 0o777)
    os.chmod(way, 0o600 if what == "way" else 0o755)
    if os.getuid() == 0:
        os.setuid(65534)
    assert parse_store_url(f"sqlite:///{path}").missing() is None
    try:
        async with open_worker(partial(SqliteJobStore, path, outage_limit=60)):
            pass
    except StoreError as exc:
        print(type(exc).__name__, exc)

trio.run(main)
"""
    with tempfile.TemporaryDirectory() as way:
        command = [sys.executable, "-c", program, what, way]
        run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        for folder in (way, f"{way}/jobs"):
            os.chmod(folder, 0o755)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("StoreError ")
    assert said in run.stdout


async def test_an_old_sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An SQLite that does not know all that is needed is told at once."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    await refused(tmp_path / "jobs.db", StoreError, "or newer is needed")


FORKING = r"""
import multiprocessing, sys, trio, jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

def store():
    return SqliteJobStore(sys.argv[1], outage_limit=60)

async def opening(what):
    try:
        async with jobtrio.open_registry(store=store()):
            print(what, "taken", flush=True)
    except jobtrio.StoreError as exc:
        print(what, exc, flush=True)

def fork(what):
    child = multiprocessing.get_context("fork").Process(target=trio.run, args=(opening, what))
    child.start()
    child.join()

async def main():
    async with jobtrio.open_registry(store=store()) as registry:
        await registry.find()  # which needs a connection
        await trio.to_thread.run_sync(fork, "open:")
    await trio.to_thread.run_sync(fork, "closed:")

trio.run(main)
"""


def test_open_in_the_parent(tmp_path: Path) -> None:
    """What is open in the process that this one was forked from is refused: it has broken locks here."""
    argv = [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "jobs.db")]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert first.startswith(f"open: {tmp_path}/jobs.db was open in the process that this one was forked from")
    assert second == "closed: taken"


async def test_an_empty_file(tmp_path: Path) -> None:
    """A file without contents is one that has yet to be made."""
    path = tmp_path / "jobs.db"
    path.touch()
    await make(path)
    assert path.stat().st_size > 0


async def test_a_path_that_begins_with_two_slashes(tmp_path: Path) -> None:
    """Two slashes are as good as one, as where an absolute path was put behind all of those that a URL may have."""
    store = store_from_url(f"sqlite:////{tmp_path}/jobs.db")
    async with open_worker(lambda: store) as worker:
        await worker.insert(new_entry(job_id="kept"))
    assert check_file(tmp_path / "jobs.db", ["kept"])


@pytest.mark.parametrize("name", ["jobs #1?.db", "100%41.db", "Jöbs 😀.db", "a'b\"c;.db"])
async def test_odd_names(tmp_path: Path, name: str) -> None:
    """Any name will do."""
    await make(tmp_path / name)
    assert (tmp_path / name).exists()
    async with open_worker(lambda: SqliteJobStore(str(tmp_path / name))) as worker:
        assert await worker.store.load("kept")


async def test_nothing_is_left_beside_it(tmp_path: Path) -> None:
    """When the last process has closed the file, all that is left is the file."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path)), open_worker(lambda: SqliteJobStore(path)):
        assert len(list((tmp_path / "jobs.db-doorbells").iterdir())) == 2
    assert os.listdir(tmp_path) == ["jobs.db"]


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ((1,), {}, TypeError),
        ((b"jobs.db",), {}, TypeError),
        ((None,), {}, TypeError),
        (("",), {}, ValueError),
        ((":memory:",), {}, ValueError),
        (("a\0b",), {}, ValueError),
        (("a\ud800b",), {}, ValueError),
        (("sqlite:///jobs.db",), {}, ValueError),
        (("jobs.db",), {"synchronous": "OFF"}, ValueError),
        (("jobs.db",), {"synchronous": None}, ValueError),
        (("jobs.db",), {"outage_limit": 0}, ValueError),
        (("jobs.db",), {"outage_limit": float("nan")}, ValueError),
        (("jobs.db",), {"outage_limit": "10"}, TypeError),
    ],
)
def test_parameters_that_make_no_sense(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception]
) -> None:
    """What makes no sense is refused when the store is chosen, by name."""
    name = next(iter(options), "path")
    with pytest.raises(error, match=name):
        SqliteJobStore(*arguments, **options)


# -- what can't be stored


async def test_what_comes_back_of_a_payload(tmp_path: Path) -> None:
    """Whoever asks for a job that he has submitted gets what is stored of it, which is what JSON made of it."""
    executors = jobtrio.Executors()
    executors.register("work")(repr)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(tmp_path / "jobs.db"), queues={}) as registry:
        job = await registry.submit("work", (1, 2))
        assert (await registry.get(job.id)).record.payload == [1, 2]


async def test_killed_in_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is only partly brought up to its log is sound: what is missing is in the log."""
    monkeypatch.setattr("jobtrio.stores.sqlite._checkpoint.Checkpoints.make", lambda *_: None)
    path, killed, whole = (tmp_path / name / "jobs.db" for name in ("path", "killed", "whole"))
    for each in (path, killed, whole):
        each.parent.mkdir()
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(*(new_entry(job_id=f"{n}", payload="x" * 1000) for n in range(100)))
        for copy, suffix in itertools.product((killed, whole), ("", "-wal")):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    with closing(sqlite3.connect(whole)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    new, old = whole.read_bytes(), killed.read_bytes()
    assert len(new) > len(old)
    killed.write_bytes(new[:4096] + old[4096:])  # the first page says already how many there will be
    async with open_worker(lambda: SqliteJobStore(killed)) as worker:
        assert len(await worker.store.find(JobQuery(limit=1000))) == 100
    check_file(killed, [f"{n}" for n in range(100)])


async def test_a_file_that_has_left_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the file is away and its log is not, none is made in its place: SQLite would remove the log for that.

    It is said why at the first try, and in the end.
    """
    monkeypatch.setattr("jobtrio.stores.sqlite._checkpoint.Checkpoints.make", lambda *_: None)
    path, moved = tmp_path / "folder" / "jobs.db", tmp_path / "moved.db"
    path.parent.mkdir()
    async with open_worker(lambda: SqliteJobStore(tmp_path / "jobs.db")) as worker:
        (entry,) = await worker.insert(new_entry())
        shutil.copy(tmp_path / "jobs.db", moved)
        shutil.copy(tmp_path / "jobs.db-wal", f"{path}-wal")
    before = contents(path.parent)
    for _ in range(2):
        with pytest.raises(
            StoreUnavailableError, match=rf"{path} is gone or empty, but its log, {path}-wal, was left: "
        ):
            async with open_worker(lambda: SqliteJobStore(path, outage_limit=0.1)):
                pass
        assert contents(path.parent) == before
        (said,) = caplog.messages
        assert said.startswith(f"the store is away: {path} is gone or empty, but its log, {path}-wal, was left: ")
        caplog.clear()
        path.touch()  # as another version, or another program, would do
        before[path.name] = b""
    moved.replace(path)
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        assert (await worker.load(entry.id)).state == "QUEUED"


# -- back-ups


@pytest.mark.parametrize("at_once", [False, True])
async def test_a_back_up_in_place(tmp_path: Path, at_once: bool) -> None:
    """What a back-up has as running runs when its lease is over; at once where the copy was told that it is."""
    path, copy = tmp_path / "jobs.db", tmp_path / "copy.db"
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        claim = await worker.start(lease=60.0)
        with closing(sqlite3.connect(path)) as source:
            source.execute("VACUUM INTO ?", (str(copy),))
        assert await worker.store.finish(claim, Completed())
    for name in ("", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    if at_once:
        with closing(sqlite3.connect(copy)) as connection, connection:
            connection.execute("UPDATE jobs SET lease_until = 0 WHERE state = 'RUNNING'")
    copy.rename(path)
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        assert (await worker.load(claim.entry.id)).state == "RUNNING"
        await worker.store.advance()
        entry = await worker.load(claim.entry.id)
        assert entry.state == ("QUEUED" if at_once else "RUNNING")
        assert [again.attempt for again in await worker.claim()] == ([2] if at_once else [])


# -- what others may write

COLUMNS = {
    **dict.fromkeys(("priority", "ticket", "attempt", "losses", "failures"), ("high", 1.5)),
    **dict.fromkeys(("created_at", "run_at", "started_at", "finished_at"), ("2026-11-26", 1e15)),
    **dict.fromkeys(("delay", "expires_in", "due", "expires", "lease", "lease_until"), ("soon", -1)),
}


@pytest.mark.parametrize(("column", "value"), [(name, value) for name, values in COLUMNS.items() for value in values])
async def test_wrong_values_of_others(tmp_path: Path, column: str, value: object) -> None:
    """Whoever writes something into a column of numbers that would end every registry on the file, is refused."""
    path = tmp_path / "jobs.db"
    await make(path)
    with closing(sqlite3.connect(path)) as connection:
        with pytest.raises(sqlite3.IntegrityError, match=r"must be (a number|numbers)"):
            connection.execute(f"UPDATE jobs SET {column} = ?", (value,))
        connection.execute(f"UPDATE jobs SET {column} = ?", (1,))


NO_UTF8 = "CAST(x'22ff22' AS TEXT)"
VALUES = ("payload", "metadata", "tags", "plan", "history", "error", "saved_state")
NAMES = ("id", "key", "queue", "executor", "submission", "worker")


@pytest.mark.parametrize("column", [*VALUES, *NAMES])
async def test_texts_that_are_no_utf8(tmp_path: Path, column: str) -> None:
    """SQLite takes any bytes for text. They harm the one job that they are of: all others are found, and run."""
    path = tmp_path / "jobs.db"
    executors = jobtrio.Executors()
    executors.register("echo")(lambda job: job.payload)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        jobs = [await registry.submit("echo", n) for n in range(3)]
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE jobs SET {column} = {NO_UTF8} WHERE id = ?", (jobs[1].id,))
        assert len(await registry.find()) == 3
        assert sum((await registry.counts())["default"].values()) == (2 if column == "queue" else 3)
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path)) as registry:
        with trio.fail_after(60):
            outcomes = [await (await registry.get(jobs[n].id)).wait() for n in (0, 2)]
            assert outcomes == [Completed(0), Completed(2)]
            if column in VALUES:
                outcome = await (await registry.get(jobs[1].id)).wait()
                assert isinstance(outcome, Failed)
                assert "can't be read" in outcome.error.message


async def test_large_texts_that_are_no_utf8(tmp_path: Path) -> None:
    """A value that is kept aside can't be read then, and of messages there is a gap."""
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        claim = await worker.start(new_entry(payload="x" * 3000))
        assert await worker.store.append_messages(claim, tokens(1, 2))
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"UPDATE asides SET value = {NO_UTF8}")
            connection.execute(f"UPDATE messages SET body = {NO_UTF8}")
        assert await worker.stream(claim.entry.id) == [Gap(1, 2)]
        assert "payload can't be read" in str((await worker.load(claim.entry.id)).unreadable)
        assert await worker.store.release(claim, "why")
        assert [again.entry.unreadable is None for again in await worker.claim()] == [False]


# -- formats


def dump(path: Path) -> list[tuple[str, ...]]:
    """Return all that a file's format consists of."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name").fetchall()
        return [*rows, *(connection.execute(f"PRAGMA {p}").fetchone() for p in ("user_version", "application_id"))]


@pytest.mark.parametrize("version", range(1, len(schema.MIGRATIONS) + 1))
async def test_migrated_is_as_new(tmp_path: Path, version: int) -> None:
    """A file of every earlier format becomes what a new one is, keeps what is in it, and its jobs go on."""
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    async with open_worker(lambda: SqliteJobStore(new)) as worker:
        claim = await worker.start(new_entry(job_id="ended", tags={"user": "ann"}, payload="x" * 5000))
        await worker.store.finish(claim, Completed({"n": 1}), messages=tokens(1, 300))
        await worker.start(new_entry(job_id="runs"), lease=600.0)
        await worker.insert(new_entry(job_id="waits", delay=1000.0), new_entry(job_id="ready"))
        before = await everything(worker)
    with closing(sqlite3.connect(old, isolation_level=None)) as connection:
        schema.migrate(connection, str(old), schema.MIGRATIONS[:version])
        copy_rows(connection, new)
    async with open_worker(lambda: SqliteJobStore(old)) as worker:
        assert await everything(worker) == before
        (claim,) = await worker.claim()
        assert claim.entry.id == "ready"
        assert await worker.store.finish(claim, Completed())
    assert dump(old) == dump(new)
    check_file(old, ["ended", "runs", "waits", "ready"])


def test_migrated_without_a_checkpoint(tmp_path: Path) -> None:
    """A long log that killed workers have left is not copied by the migration, which lets others write meanwhile."""
    path = tmp_path / "jobs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.migrate(connection, str(path), schema.MIGRATIONS[:2])
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("INSERT INTO asides VALUES (1, 'payload', hex(zeroblob(4000000)))")
        before = path.stat().st_size
        Location(str(path), "FULL").prepare()
        assert schema.version_of(connection) == len(schema.MIGRATIONS)
        assert path.stat().st_size == before


async def everything(worker: Worker) -> list[Any]:
    """Return all that a store says of its jobs."""
    records = await worker.store.find(JobQuery())
    streams = [await worker.store.read_messages(record.id, 0, 1000) for record in records]
    return [records, streams, [await worker.store.history(record.id) for record in records]]


def copy_rows(connection: sqlite3.Connection, path: Path) -> None:
    """Copy the rows of another file into the tables that this one has."""
    connection.execute("ATTACH ? AS source", (str(path),))
    for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
        connection.execute(f"DELETE FROM main.{table}")
        connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM source.{table}")


def test_migrations_are_one_transaction(tmp_path: Path) -> None:
    """Several migrations are done together or not at all."""
    path = tmp_path / "jobs.db"
    Location(str(path), "FULL").prepare()
    before = dump(path)
    more = ("CREATE TABLE more (x);\nINSERT INTO more VALUES (1);", "ALTER TABLE more ADD COLUMN y;")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.Error):
            schema.migrate(connection, str(path), (*schema.MIGRATIONS, *more, "SELECT nonsense;"))
        assert not connection.in_transaction
        assert dump(path) == before
        schema.migrate(connection, str(path), (*schema.MIGRATIONS, *more))
        assert connection.execute("SELECT x, y FROM more").fetchall() == [(1, None)]
        assert schema.version_of(connection) == len(schema.MIGRATIONS) + 2


def test_made_by_many_at_once(tmp_path: Path) -> None:
    """Processes that open a file which is not there yet make it together."""
    path = tmp_path / "jobs.db"
    program = """if True:
        import sys, time
        from jobtrio import StoreUnavailableError
        from jobtrio.stores.sqlite._connection import Location
        while True:
            try:
                Location(sys.argv[1], "FULL").prepare()
                break
            except StoreUnavailableError:  # the others hold it: opening a store tries again as well
                time.sleep(0.01)
        """
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path)]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert os.path.exists(path)


def test_busy_is_no_damage() -> None:
    """What may pass and what may not is told apart by SQLite's codes."""
    from jobtrio.stores.sqlite._errors import translate

    for code, kind in (("BUSY", StoreUnavailableError), ("FULL", StoreUnavailableError), ("NOTADB", StoreError)):
        error = sqlite3.OperationalError("text")
        error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{code}")
        error.sqlite_errorname = f"SQLITE_{code}"
        assert type(translate(error, "path")) is kind
    assert type(translate(sqlite3.ProgrammingError("closed"), "path")) is StoreError


async def test_very_many_tags(tmp_path: Path) -> None:
    """A store can keep any number of tags, and look for all of them."""
    tags = {f"name {n}": str(n) for n in range(40_000)}
    async with open_worker(lambda: SqliteJobStore(tmp_path / "jobs.db")) as worker:
        entries = [new_entry(tags=tags), new_entry(tags=tags | {"name 77": "other"})]
        await worker.insert(*entries)
        for states in (None, frozenset({JobState.QUEUED})):
            assert ids(await worker.store.find(JobQuery(tags=tags, states=states))) == [entries[0].id]


@pytest.mark.parametrize("limit", [1, 4, 100])
@pytest.mark.parametrize("states", [None, frozenset({JobState.QUEUED})])
async def test_more_tags_than_a_statement_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: frozenset[JobState] | None, limit: int
) -> None:
    """However many jobs have the tags that a statement looks for, those are found that have the others as well."""
    monkeypatch.setattr(finding, "FEW", 2)
    monkeypatch.setattr(finding, "PAGE", 3)
    tags = {"a": "1", "b": "2", "c": "3", "d": "4"}
    async with open_worker(lambda: SqliteJobStore(tmp_path / "jobs.db")) as worker:
        entries = [new_entry(tags=tags if n in (7, 8, 11, 15) else tags | {"abcd"[n % 4]: "0"}) for n in range(20)]
        await worker.insert(*entries)
        found = await worker.store.find(JobQuery(tags=tags, states=states, limit=limit))
        assert ids(found) == [entries[n].id for n in (7, 8, 11, 15)][:limit]
        found = await worker.store.find(JobQuery(tags=tags, states=states, limit=limit, after=entries[8].id))
        assert ids(found) == [entries[n].id for n in (11, 15)][:limit]
        found = await worker.store.find(JobQuery(tags=tags, states=states, limit=limit, newest_first=True))
        assert ids(found) == [entries[n].id for n in (15, 11, 8, 7)][:limit]
