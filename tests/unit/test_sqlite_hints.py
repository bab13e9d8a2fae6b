"""What each write tells other processes, so that none of them has to look for it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from jobtrio import Cancelled, Completed, Retention
from jobtrio.abc import Claim
from jobtrio.stores import _chunks as chunks
from jobtrio.stores import _settling as settling
from jobtrio.stores._announcer import Placed
from jobtrio.stores._claims import Wanted
from jobtrio.stores._hints import Hints
from jobtrio.stores._settling import Identity
from jobtrio.stores.sqlite import _advancing as advancing
from jobtrio.stores.sqlite import _claiming as claiming
from jobtrio.stores.sqlite import _finishing as finishing
from jobtrio.stores.sqlite import _inserting as inserting
from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._rows import ASIDE, new_job
from jobtrio.stores.sqlite._transaction import Transaction
from jobtrio.testing._workers import ERROR, new_entry, new_plan, tokens

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from jobtrio._entry import JobEntry


class File:
    """A file of jobs, written to operation by operation."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.tx: Transaction

    def begin(self, **totals: int) -> Transaction:
        """Begin another transaction, for a worker with such limits over all workers."""
        if self._connection.in_transaction:
            self.tx.flush()
            self._connection.execute("COMMIT")
        self._connection.execute("BEGIN IMMEDIATE")
        self.tx = Transaction(self._connection, Identity("w", "session", Retention(), totals=totals), "path")
        return self.tx

    def insert(self, entry: JobEntry) -> Hints:
        """Insert a job, and return what others are told."""
        tx = self.begin()
        (placed,) = inserting.insert(tx, [new_job(entry)], "mark")
        assert isinstance(placed, Placed)
        entry.order = placed.order
        return tx.hints

    def claimed(self, entry: JobEntry | None = None, lease: float = 60.0) -> Claim:
        """Return the claim on a new job."""
        self.insert(new_entry(job_id="id") if entry is None else entry)
        (started,) = claiming.claim(self.begin(), Wanted("c", 1, lease, None, None)).entries
        return Claim(started, "c", 1)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    """An empty file of jobs."""
    location = Location(str(tmp_path / "jobs.db"), "NORMAL")
    location.prepare()
    with closing(location.connect()) as connection:
        yield File(connection)


def in_seconds(hints: Hints) -> float:
    """Return in how many seconds something falls due."""
    assert hints.due is not None
    return float(hints.due - time.monotonic())


def test_inserting(file: File) -> None:
    """A job that is ready can be claimed; another falls due or expires."""
    assert file.insert(new_entry()) == Hints(ready=True)
    assert in_seconds(file.insert(new_entry(delay=100.0))) == pytest.approx(100, abs=5)
    hints = file.insert(new_entry(expires_in=50.0))
    assert hints.ready
    assert in_seconds(hints) == pytest.approx(50, abs=5)
    held = file.insert(new_entry(None))
    assert not held.ready
    assert in_seconds(held) == pytest.approx(Retention().held_for, abs=5)


def test_claiming(file: File) -> None:
    """A lease that was given falls due."""
    file.claimed(lease=60.0)
    assert in_seconds(file.tx.hints) == pytest.approx(60, abs=5)
    assert not file.tx.hints.ready
    assert not claiming.claim(file.begin(), Wanted("d", 1, 60.0, None, None)).entries
    assert not file.tx.hints


@pytest.mark.parametrize("kind", ["plain", "large", "with an error", "cancelled"])
def test_finishing(file: File, kind: str) -> None:
    """A stream that has got its end is to be looked at; nothing has become ready."""
    claim = file.claimed()
    tx = file.begin()
    result = "x" * ASIDE if kind == "large" else 1
    ending = finishing.Ending(Completed(result), ERROR if kind == "with an error" else None, json.dumps(result))
    if kind == "cancelled":
        ending = finishing.Ending(Cancelled("why"), None, None)
    assert finishing.finish(tx, claim, ending, ()) is not None
    assert tx.hints == Hints(messages={"id"})
    entry = tx.job_of("id")
    assert entry is not None
    assert entry.error == (ERROR if kind == "with an error" else None)
    (inline,) = tx.run("SELECT result FROM jobs").fetchone()
    assert inline == (None if kind in ("large", "cancelled") else "1")


@pytest.mark.parametrize("how", ["finish", "retry", "release"])
@pytest.mark.parametrize("totals", [{}, {"default": 1}, {"other": 1}])
def test_making_room(file: File, how: str, totals: dict[str, int]) -> None:
    """Where all workers share a limit, the end of an attempt lets others start a job."""
    claim = file.claimed()
    tx = file.begin(**totals)
    match how:
        case "finish":
            finishing.finish(tx, claim, finishing.Ending(Completed(), None, "1"), ())
        case "retry":
            settling.retry(tx, claim, ERROR, 100.0, True, ())
            assert in_seconds(tx.hints) == pytest.approx(100, abs=5)
        case "release":
            settling.release(tx, claim, "shutdown", ())
    assert tx.hints.ready is (how == "release" or "default" in totals)
    assert tx.hints.messages == {"id"}


def test_appending(file: File) -> None:
    """A stream that has grown is to be looked at; one that has not is not."""
    claim = file.claimed()
    assert settling.append(file.begin(), claim, chunks.encoded(tokens(1, 3)))
    assert file.tx.hints == Hints(messages={"id"})
    assert settling.append(file.begin(), claim, ())
    assert file.tx.hints == Hints()


def test_cancelling(file: File) -> None:
    """A job that does not run has ended; of one that runs the worker is told."""
    file.insert(new_entry(job_id="queued"))
    settling.request_cancel(file.begin(), "queued", None, 0.0)
    assert file.tx.hints == Hints(messages={"queued"})
    file.claimed()
    settling.request_cancel(file.begin(), "id", None, 0.0)
    assert file.tx.hints == Hints(cancels={"id"})
    settling.request_cancel(file.begin(), "nobody", None, 0.0)
    assert file.tx.hints == Hints()


@pytest.mark.parametrize("expires_in", [None, 60.0])
def test_starting_held(file: File, expires_in: float | None) -> None:
    """A held job that was given its plan can be claimed, and falls due when its wait for that is over."""
    file.insert(new_entry(None, job_id="id", expires_in=expires_in))
    assert settling.start_held(file.begin(), "id", new_plan())
    assert (file.tx.hints.ready, file.tx.hints.due is None) == (True, expires_in is None)


def test_lapsing(file: File) -> None:
    """A job whose lease is over can be claimed, and its stream has got a `Restart`."""
    file.claimed(lease=0.0)
    advancing.advance(file.begin(), ())
    assert (file.tx.hints.ready, file.tx.hints.messages) == (True, {"id"})
