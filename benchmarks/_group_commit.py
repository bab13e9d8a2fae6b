"""The floor of a durable store, written by hand: one thread that writes, and one commit for all that wait.

It keeps what a queue of jobs can't do without: ids that are text, an index of what is ready, and a savepoint for each
write, so that one that fails harms no other. It has no leases, streams, history or second process, and finds no
work by itself: its tasks know the jobs. This module knows nothing of jobtrio.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import outcome
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

GROUP: Final = 256
"""Writes in one transaction at most, as jobtrio has them."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, state TEXT NOT NULL, payload TEXT NOT NULL, result TEXT);
CREATE INDEX IF NOT EXISTS ready ON jobs (id) WHERE state = 'QUEUED';
"""
INSERT: Final = "INSERT INTO jobs (id, state, payload) VALUES (?, 'QUEUED', ?)"
START: Final = "UPDATE jobs SET state = 'RUNNING' WHERE id = ? AND state = 'QUEUED'"
FINISH: Final = "UPDATE jobs SET state = 'COMPLETED', result = ? WHERE id = ? AND state = 'RUNNING'"

_Write: TypeAlias = tuple[str, "tuple[Any, ...]", trio.lowlevel.Task]

SYNCHRONOUS: Final = {"OFF": 0, "NORMAL": 1, "FULL": 2}
"""What SQLite says of its own setting."""


class GroupCommit:
    """A writer's thread, and the way to it.

    Attributes:
        groups: Transactions committed so far.
        writes: Writes in them.
    """

    def __init__(self, path: Path, synchronous: str, *, savepoints: bool) -> None:
        self.groups = 0
        self.writes = 0
        self._savepoints = savepoints
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._trio = trio.lowlevel.current_trio_token()
        self._connection = _connected(path, synchronous)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    async def write(self, statement: str, *parameters: Any) -> None:
        """Return once a write is committed.

        Raises:
            Exception: What kept it, or one of those in the same commit, from being written.

        *Cancellation*: not heeded; a write that was asked for is carried out.
        """
        self._queue.put((statement, parameters, trio.lowlevel.current_task()))
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    def close(self) -> None:
        """End the thread and close the file."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    # -- in the thread

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            while len(group) < GROUP and not self._queue.empty():
                following = self._queue.get()
                if following is None:
                    self._queue.put(None)
                    break
                group.append(following)
            try:
                self._commit(group)
            except Exception as exc:
                self._trio.run_sync_soon(_fail, group, exc)
            else:
                self._trio.run_sync_soon(_wake, group)

    def _commit(self, group: Sequence[_Write]) -> None:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        for statement, parameters, _ in group:
            if self._savepoints:
                run("SAVEPOINT operation")
            changed = run(statement, parameters).rowcount
            assert changed == 1, statement
            if self._savepoints:
                run("RELEASE operation")
        run("COMMIT")
        self.groups += 1
        self.writes += len(group)


def _connected(path: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    (setting,) = connection.execute("PRAGMA synchronous").fetchone()
    assert setting == SYNCHRONOUS[synchronous], setting
    connection.executescript(_SCHEMA)
    return connection


def _wake(group: Sequence[_Write]) -> None:
    for _, _, task in group:
        trio.lowlevel.reschedule(task)


def _fail(group: Sequence[_Write], error: Exception) -> None:
    for _, _, task in group:
        trio.lowlevel.reschedule(task, outcome.Error(error))


@asynccontextmanager
async def open_group_commit(path: Path, synchronous: str, *, savepoints: bool = True) -> AsyncIterator[GroupCommit]:
    """Give a writer within the block.

    *Cancellation*: the writes asked for are carried out, and the thread has ended.
    """
    writer = GroupCommit(path, synchronous, savepoints=savepoints)
    try:
        yield writer
    finally:
        writer.close()
