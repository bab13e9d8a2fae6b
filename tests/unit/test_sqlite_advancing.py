"""Slices of what has fallen due end between jobs, and what is left is not forgotten."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from jobtrio import JobState, Retention
from jobtrio.stores._claims import Wanted
from jobtrio.stores._settling import Identity
from jobtrio.stores.sqlite import _advancing as advancing
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._rows import new_job
from jobtrio.stores.sqlite._transaction import Transaction
from jobtrio.testing._workers import LEASE, new_entry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("way", ["late", "gone"])
def test_a_slice_ends_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """However large jobs are, no slice holds others up for much longer than it is to: it ends behind a job."""
    monkeypatch.setattr(advancing, "LONGEST", -1.0)
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, Identity("w", "session", Retention()), "path")
        inserting.insert(tx, [new_job(new_entry()) for _ in range(3)], "running")
        assert len(claiming.claim(tx, Wanted("c", 3, LEASE, None, None)).entries) == 3
        inserting.insert(tx, [new_job(new_entry(delay=LEASE)) for _ in range(3)], "scheduled")
        inserting.insert(tx, [new_job(new_entry(expires_in=LEASE)) for _ in range(3)], "expired")
        connection.execute("UPDATE jobs SET due = 1 WHERE submission = 'scheduled'")
        connection.execute("UPDATE jobs SET expires = 1 WHERE submission = 'expired'")
        if way == "late":
            connection.execute("UPDATE jobs SET lease_until = 0")
        gone = ["session", "another"]
        emptied = frozenset({"another"})
        for left in (2, 1, 0):
            progress = advancing.advance(tx, gone)
            states = [entry.state for entry in progress.changed]
            assert states == [JobState.QUEUED, JobState.FAILED, JobState.QUEUED]
            assert (progress.is_cut, progress.next) == (True, 0.0)
            assert progress.emptied == (emptied if left else frozenset(gone))
        progress = advancing.advance(tx, gone)
        assert (progress.changed, progress.is_cut) == ([], False)


def test_a_slice_has_so_many_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs have fallen due, no more of each kind are read and changed at once than make a slice."""
    monkeypatch.setattr(advancing, "SLICE", 2)
    monkeypatch.setattr(advancing, "LONGEST", 60.0)
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, Identity("w", "session", Retention()), "path")
        inserting.insert(tx, [new_job(new_entry(delay=LEASE)) for _ in range(3)], "scheduled")
        inserting.insert(tx, [new_job(new_entry(expires_in=LEASE)) for _ in range(3)], "expired")
        connection.execute("UPDATE jobs SET due = 1 WHERE submission = 'scheduled'")
        connection.execute("UPDATE jobs SET expires = 1 WHERE submission = 'expired'")
        for count, is_cut in ((2, True), (1, True), (0, False)):
            progress = advancing.advance(tx, ())
            states = [entry.state for entry in progress.changed]
            assert states == [JobState.QUEUED] * count + [JobState.FAILED] * count
            assert progress.is_cut == is_cut
