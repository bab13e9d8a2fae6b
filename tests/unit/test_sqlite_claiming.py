"""Claims and renewals heed the clock: one claim by one reading, and whoever is there also where it is set back."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING

import pytest

from jobtrio import Retention
from jobtrio.stores._claims import Wanted
from jobtrio.stores._settling import Identity
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _finding as finding
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._rows import new_job
from jobtrio.stores.sqlite._transaction import Transaction
from jobtrio.testing._workers import new_entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def tx(tmp_path: Path) -> Iterator[Transaction]:
    """Return a transaction on a file of its own."""
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield Transaction(connection, Identity("w", "session", Retention()), "path")


def test_standing_still_in_a_claim(tx: Transaction, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped between looking and writing has started no job behind its time to start."""
    inserting.insert(tx, [new_job(new_entry(expires_in=50.0))], "mark")
    start, hours = time.time(), count()
    monkeypatch.setattr(time, "time", lambda: start + 3_600 * next(hours))
    (entry,) = claiming.claim(tx, Wanted("c", 1, 60.0, None, None)).entries
    assert entry.started_at is not None
    assert entry.expires is not None
    assert entry.started_at < entry.expires


def test_a_clock_that_is_set_back(tx: Transaction, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has died before the time of day was set back is not there until it comes round again."""
    started_at = time.time()
    claiming.renew(tx, [], 60.0, started_at)
    (before,) = finding.workers(tx.connection)
    monkeypatch.setattr(time, "time", lambda: started_at - 3_600)
    assert finding.workers(tx.connection) == []
    claiming.renew(tx, [], 60.0, started_at)
    (after,) = finding.workers(tx.connection)
    assert (after.name, after.started_at) == (before.name, before.started_at)


def test_a_worker_that_renews_as_others_look(tx: Transaction, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is there also where it says so between the look at the clock and that into the file."""

    def read_before_a_renewal() -> float:
        monkeypatch.undo()
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 0.01)
        claiming.renew(tx, [], 60.0, now)
        return now

    monkeypatch.setattr(time, "time", read_before_a_renewal)
    assert [worker.name for worker in finding.workers(tx.connection)] == ["w"]
