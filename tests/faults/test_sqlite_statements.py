"""Each statement of a scenario fails once, before or after it is executed: nothing is lost, nothing is done twice."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import sqlite_faults
import trio
from sqlite_invariants import check_file
from store_scenario import insist, live_with_each_fault

from jobtrio._errors import StoreError
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.testing._workers import new_entry, open_worker

if TYPE_CHECKING:
    from pathlib import Path

    from sqlite_faults import Faults, When


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """What goes wrong. Nobody waits long."""
    monkeypatch.setattr("jobtrio._outage.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("jobtrio.stores.sqlite._writer.PATIENCE", 0.0)
    monkeypatch.setattr("jobtrio.stores.sqlite._writer.PAUSE", 0.0)
    return sqlite_faults.install(monkeypatch)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("code", ["SQLITE_IOERR", "SQLITE_BUSY"])
async def test_each_statement_fails_once(tmp_path: Path, faults: Faults, when: When, code: str) -> None:
    """Whatever fails is asked for again, and then done, once."""
    faults.code, faults.holding = code, True
    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path, synchronous="NORMAL")) as worker:
        scenarios = await live_with_each_fault(worker, faults, when)
    assert len(scenarios) > 100
    assert len(check_file(path, [scenarios[-1].one])) == 3 * len(scenarios)


async def test_a_checkpoint_that_is_not_over(tmp_path: Path, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that failed, and that somebody still holds, keeps its connection from committing: it is given up."""
    monkeypatch.setattr("jobtrio.stores.sqlite._checkpoint.FIRST", 1)
    faults.holding = True

    def fail_once(statement: str) -> None:
        if "wal_checkpoint" in statement and not faults.held:
            faults.fail_at(1, "after")

    path = tmp_path / "jobs.db"
    async with open_worker(lambda: SqliteJobStore(path)) as worker:
        faults.slow = fail_once
        for n in range(3):
            with trio.fail_after(60):
                await insist(worker.store.insert, [new_entry(job_id=f"{n}")], f"{n}")
        assert faults.held
    assert len(check_file(path, ["0", "1", "2"])) == 3


@pytest.mark.parametrize("when", ["before", "after"])
async def test_each_statement_of_opening_fails_once(tmp_path: Path, faults: Faults, when: When) -> None:
    """A file whose making failed is made at the next try, and one that is there is opened then."""
    n = 1
    while True:
        path = tmp_path / f"{n}.db"
        for _ in range(2):
            faults.count = 0
            faults.fail_at(n, when)
            async with open_worker(partial(SqliteJobStore, path)) as worker:
                await insist(worker.store.insert, [new_entry()], f"{n}")
        if n > faults.count:
            break
        n += 1
    assert n > 10


async def test_damage_is_told(tmp_path: Path, faults: Faults) -> None:
    """Damage is no outage: nobody waits for it to pass."""
    async with open_worker(lambda: SqliteJobStore(tmp_path / "jobs.db")) as worker:
        faults.code, faults.failing = "SQLITE_CORRUPT", True
        for call in (partial(worker.insert, new_entry()), partial(worker.store.load, "id")):
            with trio.fail_after(60), pytest.raises(StoreError, match="damaged") as caught:
                await call()
            assert caught.type is StoreError
        faults.failing = False
        await worker.insert(new_entry())
