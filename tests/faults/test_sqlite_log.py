"""The log beside an SQLite file goes away while the file is in use: nothing is acknowledged that nobody else sees."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import sqlite_faults
import trio
from sqlite_invariants import check_file

from jobtrio import StoreError
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.stores.sqlite._connection import Connector, Location
from jobtrio.stores.sqlite._writer import Writer
from jobtrio.testing._workers import new_entry, open_worker

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file is to be."""
    return tmp_path / "jobs.db"


USE = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM jobs').fetchall(); c.close()"
"""A program that opens the file, and closes it: as the last, for all that it can see."""


async def test_locks_that_are_lost(path: Path) -> None:
    """A process that has lost its locks on the file, and so its log to another, is told, and acknowledges no more.

    A newer SQLite looks for others at the index of the log as well, and leaves it to them.
    """
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        (entry,) = await worker.insert(new_entry())
        kept = [entry.id]
        path.read_bytes()  # noqa: ASYNC240 - to close it drops all locks that this process has on it
        await trio.run_process([sys.executable, "-c", USE, str(path)])
        if await trio.Path(f"{path}-wal").exists():
            kept += [entry.id for entry in await worker.insert(new_entry())]
        else:
            for _ in range(2):
                with pytest.raises(StoreError, match=f"{path}-wal was removed or replaced") as caught:
                    await worker.insert(new_entry())
                assert type(caught.value) is StoreError  # to wait for it would not help
                with pytest.raises(StoreError, match="was removed or replaced"):
                    await worker.load(entry.id)
    assert check_file(path, kept) == dict.fromkeys(kept, "QUEUED")


@pytest.mark.parametrize("part", ["wal", "shm"])
async def test_a_part_that_is_removed(path: Path, part: str) -> None:
    """Who has a log, or an index of it, that others don't have, writes no more: that would destroy the file."""
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        (entry,) = await worker.insert(new_entry())
        os.unlink(f"{path}-{part}")
        with pytest.raises(StoreError, match=f"{path}-{part} was removed or replaced"):
            await worker.insert(new_entry())
        with pytest.raises(StoreError, match=f"{path}-{part} was removed or replaced"):
            await worker.load(entry.id)
    assert check_file(path, [entry.id]) == {entry.id: "QUEUED"}


async def test_a_link_that_leads_elsewhere_by_then(tmp_path: Path) -> None:
    """The log is beside the file that is opened, not where that would have been when the store was made."""
    folders, link = [tmp_path / "old", tmp_path / "new"], tmp_path / "current"
    for folder in folders:
        folder.mkdir()
        link.unlink(missing_ok=True)
        link.symlink_to(folder)
        if folder is folders[0]:
            store = SqliteJobStore(link / "jobs.db")
    left = folders[0] / "jobs.db-wal"
    left.touch()
    async with open_worker(lambda: store) as worker:
        await worker.insert(new_entry())
        left.unlink()  # which another process has closed
        await worker.insert(new_entry())
        (folders[1] / "jobs.db-wal").unlink()
        with pytest.raises(StoreError, match="was removed or replaced"):
            await worker.insert(new_entry())


async def test_a_log_that_is_lost_in_a_pause(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that others don't have is not copied into the file, which may have changed since."""
    faults = sqlite_faults.install(monkeypatch)
    run = trio.lowlevel.current_trio_token()
    copied: list[bool] = []
    idle, look = trio.Event(), Writer._idle

    def look_without_a_log(self: Writer) -> None:
        os.unlink(f"{path}-wal")
        faults.slow = lambda statement: copied.append("checkpoint" in statement)
        look(self)
        monkeypatch.undo()
        run.run_sync_soon(idle.set)

    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry())
        monkeypatch.setattr(Writer, "_idle", look_without_a_log)
        await idle.wait()
        faults.slow = None
    assert not any(copied)


async def test_a_log_that_is_lost_in_a_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed to a log that was gone by then is not acknowledged."""
    faults = sqlite_faults.install(monkeypatch)

    def remove(statement: str) -> None:
        if statement == "COMMIT" and threading.current_thread().name == "jobtrio-sqlite-writer":
            os.unlink(f"{path}-wal")

    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        await worker.insert(new_entry())
        faults.slow = remove
        with pytest.raises(StoreError, match="was removed or replaced"):
            await worker.insert(new_entry())
        faults.slow = None


def test_a_log_that_is_closed(path: Path) -> None:
    """As long as one connection is open the log is the same, whichever are closed and opened; then it is a new one."""
    location = Location(str(path), "FULL")
    location.prepare()
    connectors = [Connector(location) for _ in range(3)]
    for n in range(9):
        for connector in connectors:
            connector.connected()
        connectors[n % 3].close()
    for connector in connectors:
        connector.close()
    assert os.listdir(path.parent) == [path.name]
    path.with_name("another").touch()  # so that the new log is not taken for the old one by its number
    connectors[0].connected()
    connectors[0].close()
