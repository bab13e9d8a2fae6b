"""Connections to an SQLite file: what they wait for when they commit, and that they leave the log to the writer."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from jobtrio.stores.sqlite._connection import Location

if TYPE_CHECKING:
    from pathlib import Path

    from jobtrio.stores.sqlite._connection import Synchronous


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
def test_what_commits_wait_for(tmp_path: Path, synchronous: Synchronous, level: int) -> None:
    """Each commit is on the disk, or each checkpoint; and what is synced is not in a drive's cache, also on macOS."""
    location = Location(str(tmp_path / "jobs.db"), synchronous)
    location.prepare()
    with closing(location.connect()) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA fullfsync").fetchone() == (1,)


def test_a_long_log_is_left_to_the_writer(tmp_path: Path) -> None:
    """SQLite copies nothing into the file by itself: while it does, it lets others commit, and can lose that."""
    path = tmp_path / "jobs.db"
    location = Location(str(path), "FULL")
    location.prepare()
    before = path.stat().st_size
    with closing(location.connect()) as connection:
        connection.execute("CREATE TABLE large AS SELECT zeroblob(8000000)")
        assert path.stat().st_size == before
