"""The floor of the durable stores: many writes, one commit."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
import trio

from benchmarks._group_commit import INSERT, open_group_commit

if TYPE_CHECKING:
    from pathlib import Path


async def test_writes_that_fail(tmp_path: Path) -> None:
    """What can't be written fails all that wait for the same commit, rather than have them wait for ever."""
    async with open_group_commit(tmp_path / "jobs.db", "OFF") as writer:
        await writer.write(INSERT, "1", "")
        with pytest.RaisesGroup(sqlite3.Error, sqlite3.Error):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(writer.write, INSERT, "2", "")
                await writer.write(INSERT, "1", "")  # is asked for first: alone, it leaves its transaction to the other
    assert (writer.groups, writer.writes) == (1, 1)
