"""A claim decides by one reading of the clock."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

from jobtrio import Retention
from jobtrio.stores._claims import Wanted
from jobtrio.stores._settling import Identity
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._rows import new_job
from jobtrio.stores.sqlite._transaction import Transaction
from jobtrio.testing._workers import new_entry

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_standing_still_in_a_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped between looking and writing has started no job behind its time to start."""
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, Identity("w", "session", Retention()), "path")
        inserting.insert(tx, [new_job(new_entry(expires_in=50.0))], "mark")
        start, hours = time.time(), count()
        monkeypatch.setattr(time, "time", lambda: start + 3_600 * next(hours))
        (entry,) = claiming.claim(tx, Wanted("c", 1, 60.0, None, None)).entries
    assert entry.started_at is not None
    assert entry.expires is not None
    assert entry.started_at < entry.expires
