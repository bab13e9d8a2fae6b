"""Connections to an SQLite file: what they wait for when they commit."""

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
