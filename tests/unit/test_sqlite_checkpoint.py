"""Checkpoints are made in pauses, and made up for where readers were in the way."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from jobtrio.stores.sqlite import _checkpoint as checkpoint

if TYPE_CHECKING:
    from pathlib import Path


def test_a_pause_behind_one_that_readers_held_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where readers were in the way, another pause is used, though nothing was committed since; and then no more."""
    monkeypatch.setattr(checkpoint, "PAUSE", 0.0)
    path = str(tmp_path / "jobs.db")
    made: list[str] = []
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as writer,
        closing(sqlite3.connect(path, isolation_level=None)) as reader,
    ):
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("CREATE TABLE numbers (n)")
        reader.execute("BEGIN")
        reader.execute("SELECT n FROM numbers").fetchall()
        checkpoints = checkpoint.Checkpoints(path)
        writer.execute("INSERT INTO numbers VALUES (1)")
        checkpoints.committed(writer)
        writer.set_trace_callback(lambda statement: made.extend(["one"] * ("wal_checkpoint" in statement)))
        checkpoints.idle(writer)
        reader.execute("COMMIT")
        for _ in range(3):
            checkpoints.idle(writer)
    assert made == ["one"] * 2


@pytest.mark.parametrize(("size", "made"), [(64 * 2**20, 0), (64 * 2**20 + 1, 1)])
def test_a_large_log_is_copied_at_once(tmp_path: Path, size: int, made: int) -> None:
    """From 64 MiB on the log is copied behind each commit, however few there were."""
    path = tmp_path / "jobs.db"
    with (tmp_path / "jobs.db-wal").open("wb") as log:
        log.truncate(size)
    seen: list[str] = []
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as writer:
        checkpoints = checkpoint.Checkpoints(str(path))
        writer.set_trace_callback(seen.append)
        checkpoints.committed(writer)
    assert sum("wal_checkpoint" in statement for statement in seen) == made
