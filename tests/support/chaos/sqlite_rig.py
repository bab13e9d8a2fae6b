"""The rig of SQLite: a file, whose lock others may hold."""

from __future__ import annotations

import sqlite3
from contextlib import asynccontextmanager, closing, suppress
from typing import TYPE_CHECKING

import trio

from chaos.plan import OF_PROCESSES, Fault
from chaos.rig import OUTAGE_LIMIT, Rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class SqliteRig(Rig):
    """A file, whose lock others may hold."""

    faults = frozenset((*OF_PROCESSES, "lock"))

    def __init__(self, folder: Path) -> None:
        self._path = folder / "jobs.db"
        self.url = f"sqlite:///{self._path}?outage_limit={OUTAGE_LIMIT}&synchronous=NORMAL"

    async def way_of(self, who: str) -> str:
        """Return the file's URL: there is one way to it."""
        return self.url

    async def befall(self, fault: Fault) -> None:
        """Hold the file's lock for a while."""
        with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
            with trio.move_on_after(OUTAGE_LIMIT):
                while not _begin(connection):  # noqa: ASYNC110 - other processes hold it
                    await trio.sleep(0.002)
                await trio.sleep(fault.seconds)


def _begin(connection: sqlite3.Connection) -> bool:
    with suppress(sqlite3.OperationalError):
        connection.execute("BEGIN IMMEDIATE")
        return True
    return False


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[Rig]:
    """Give a rig whose file is in this folder."""
    yield SqliteRig(folder)
