"""What has to be true of a file of jobs at any moment, checked from outside, by SQL alone."""

from __future__ import annotations

import json
import signal
import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from kept_history import check_changes, check_stream

from jobtrio._state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


def check_file(path: Path, acknowledged: Iterable[str]) -> dict[str, str]:
    """Check all jobs of a file and that those acknowledged are there; return each one's state."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        jobs = connection.execute("SELECT * FROM jobs").fetchall()
        missing = set(acknowledged) - {job["id"] for job in jobs}
        assert not missing, f"acknowledged and not kept: {missing}"
        for job in jobs:
            _check_history(job)
            chunks = connection.execute("SELECT * FROM messages WHERE job = ? ORDER BY first", (job["seq"],))
            check_stream(job["id"], ((each["first"], each["last"], json.loads(each["body"])) for each in chunks))
        living = {job["seq"] for job in jobs}
        for table in ("messages", "tags", "asides"):
            strays = {row[0] for row in connection.execute(f"SELECT job FROM {table}")} - living
            assert not strays, f"{table} holds rows of jobs that are gone: {strays}"
        return {job["id"]: job["state"] for job in jobs}


def _check_history(job: sqlite3.Row) -> None:
    state, attempt = check_changes(job["id"], json.loads(job["history"]), job["delay"])
    assert (state, attempt) == (job["state"], job["attempt"]), f"{job['id']}: its history ends elsewhere"
    assert (job["finished_at"] is not None) == state.is_final, job["id"]
    assert (job["result"] is not None) == (state is JobState.COMPLETED), job["id"]


def stop_between_writes(send_signal: Callable[[int], None], path: Path) -> None:
    """Stop a process where it does not hold the file's lock, as one that is stopped in a transaction does."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        while True:
            send_signal(signal.SIGSTOP)
            time.sleep(0.05)
            with suppress(sqlite3.OperationalError):
                connection.execute("BEGIN IMMEDIATE")
                return
            send_signal(signal.SIGCONT)
            time.sleep(0.01)
