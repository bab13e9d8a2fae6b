"""Slices of pruning end between jobs, as far as a reader can tell."""

from __future__ import annotations

from contextlib import closing
from math import inf
from typing import TYPE_CHECKING

import pytest

from jobtrio import Completed, Retention
from jobtrio.abc import Claim
from jobtrio.stores import _settling as settling
from jobtrio.stores._chunks import encoded
from jobtrio.stores._claims import Wanted
from jobtrio.stores._settling import Identity
from jobtrio.stores.sqlite import _chunks as chunks
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _finishing as finishing
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite import _pruning as pruning
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._rows import new_job
from jobtrio.stores.sqlite._transaction import Transaction
from jobtrio.testing._workers import new_entry, tokens

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5])
def test_a_job_has_its_last_messages_or_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: int) -> None:
    """Whatever a slice may remove, no job is left that seems to have sent nothing."""
    monkeypatch.setattr(pruning, "CHUNKS", budget)
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, Identity("w", "session", Retention()), "path")
        inserting.insert(tx, [new_job(new_entry()) for _ in range(2)], "mark")
        for entry in claiming.claim(tx, Wanted("c", 2, 60.0, None, None)).entries:
            claim = Claim(entry, "c", 1)
            for number in (1, 2):
                assert settling.append(tx, claim, encoded(tokens(number, number)))
            assert finishing.finish(tx, claim, finishing.Ending(Completed(), None, "null"), ()) is not None
        more = True
        while more:
            more, _ = pruning.prune(tx, (inf, inf))
            for (job,) in connection.execute("SELECT seq FROM jobs").fetchall():
                assert chunks.last_number(connection, job) == 2
        assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_a_slice_ends_when_its_time_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large jobs are, no slice holds others up for much longer than it is to: it ends behind a job."""
    monkeypatch.setattr(pruning, "LONGEST", -1.0)
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        tx = Transaction(connection, Identity("w", "session", Retention()), "path")
        tags = {f"name {n}": "x" * 200 for n in range(20)}
        inserting.insert(tx, [new_job(new_entry(payload="x" * 4000, tags=tags)) for _ in range(3)], "mark")
        connection.execute("UPDATE jobs SET state = 'CANCELLED', finished_at = 1.0")
        for left in (2, 1, 0):
            assert pruning.prune(tx, (inf, inf)) == (True, 0.0)
            assert connection.execute("SELECT count(*) FROM jobs").fetchone() == (left,)
        assert pruning.prune(tx, (inf, inf)) == (False, inf)
        assert connection.execute("SELECT count(*) FROM tags").fetchone() == (0,)
