"""What is in which field of a job in Redis, and what becomes of fields that can't be read."""

from __future__ import annotations

from typing import Any

import pytest

from jobtrio import Cancelled, Completed, Failed, JobState
from jobtrio._entry import CancelRequest
from jobtrio.stores.redis._rows import entry_of, new_job, outcome_of, whole_row
from jobtrio.stores.redis._scripts import FIELDS, LIGHT
from jobtrio.testing._workers import new_entry

HISTORY = (
    b',1.0,"QUEUED",0,"a",null,2.0,"RUNNING",1,"b",null,3.0,"QUEUED",1,"b","lost"'
    b',4.0,"RUNNING",2,"c",null,5.0,"CANCELLED",2,"c","enough"'
)


def _row(**fields: bytes | None) -> list[Any]:
    """Return a job's row, of which these fields are different."""
    job = new_job(new_entry(job_id="id", payload=[1], metadata={"a": "b"}, tags={"c": "d"}, run_at=7.0, expires_in=3.0))
    row: dict[str, Any] = {"state": b"QUEUED", "order": b"1", "created": b"1.0", "submission": b"mark", "plan": job[5]}
    row |= {"body": job[6], "tags": job[7], "attempt": b"0", **fields}
    return [*map(row.get, FIELDS), b"id"]


def test_a_new_job() -> None:
    """What a job was submitted with comes back."""
    entry = entry_of(_row())
    assert entry.unreadable is None
    assert (entry.id, entry.order, entry.payload, entry.metadata, entry.tags) == ("id", 1, [1], {"a": "b"}, {"c": "d"})
    assert (entry.run_at, entry.delay, entry.expires_in, entry.key) == (7.0, 0.0, 3.0, None)
    assert (entry.attempt, entry.failures, entry.losses, entry.claim, entry.outcome) == (0, 0, 0, None, None)


def test_a_running_job() -> None:
    """What came to be known of a job comes back, also a claim that somebody else has written."""
    numbers: Any = {"attempt": b"4", "failures": b"2", "losses": b"1"}
    entry = entry_of(_row(state=b"RUNNING", claim=b"a\xff", cancel=b'1.0,2.0,"why"', saved=b"[1]", **numbers))
    assert entry.unreadable is None
    assert (entry.attempt, entry.failures, entry.losses, entry.claim) == (4, 2, 1, "a\udcff")
    assert (entry.cancel, entry.saved_state) == (CancelRequest(1.0, "why", 2.0), [1])


def test_without_what_users_gave() -> None:
    """What is not asked for is not there, and is not missed."""
    row = dict(zip(FIELDS, _row(key=b"key"), strict=False))
    entry = entry_of([*whole_row([row[name] for name in LIGHT]), b"id"])
    assert entry.unreadable is None
    assert (entry.key, entry.payload, entry.metadata, entry.tags) == ("key", None, None, None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1,null,null,0.0]",
        b"[1,[],null,0.0,null]",
        b'[1,null,"soon",0.0,null]',
        b"[1,null,1e99,0.0,null]",
        b"[1,null,null,null,null]",
        b"[1,null,null,-1.0,null]",
        b"[1,null,null,1e999,null]",
        b"[1,null,null,0.0,-1.0]",
        b"[1,null,null,0.0,1e999]",
    ],
)
def test_bodies_that_are_none(body: bytes) -> None:
    """A body with anything that can't be used is not used at all, and the rest of the job is there."""
    entry = entry_of(_row(body=body))
    assert "its body can't be read" in str(entry.unreadable)
    assert (entry.payload, entry.metadata, entry.run_at, entry.delay, entry.order) == (None, None, None, 0.0, 1)


def test_a_history() -> None:
    """When and where a job was started last, and when it ended, is in its history; so is why it was cancelled."""
    entry = entry_of(_row(state=b"CANCELLED", history=HISTORY))
    assert (entry.started_at, entry.worker, entry.finished_at) == (4.0, "c", 5.0)
    assert entry.outcome == Cancelled("enough")
    running = entry_of(_row(state=b"RUNNING", history=HISTORY[: HISTORY.rindex(b",5.0")]))
    assert (running.started_at, running.worker, running.finished_at, running.outcome) == (4.0, "c", None, None)


@pytest.mark.parametrize("history", [b",", b",1.0", b',"a","QUEUED",0,"a",null', b',1.0,"QUEUED",0,null,null', b",[]"])
def test_histories_that_are_none(history: bytes) -> None:
    """A history that is none is not used."""
    entry = entry_of(_row(history=history))
    assert "its history can't be read" in str(entry.unreadable)
    assert (entry.steps, entry.order) == (None, 1)


def test_without_its_history() -> None:
    """A job whose history is gone was cancelled for no reason that is known."""
    entry = entry_of(_row(state=b"CANCELLED"))
    assert (entry.unreadable, entry.outcome) == (None, Cancelled(None))


def test_outcomes() -> None:
    """An outcome that can't be read is a failure that says so."""
    assert outcome_of(b"COMPLETED", None, b"1", HISTORY) == Completed(1)
    assert outcome_of(b"CANCELLED", None, None, HISTORY) == Cancelled("enough")
    for state, error in ((b"PAUSED", None), (b"FAILED", None), (b"FAILED", b"{")):
        outcome = outcome_of(state, error, None, HISTORY)
        assert isinstance(outcome, Failed)
        assert outcome.error.message.startswith("its outcome can't be read: ")


def test_an_end_that_has_no_error() -> None:
    """A job that has failed with nothing that can be read has failed all the same."""
    entry = entry_of(_row(state=b"FAILED", error=b"{", history=HISTORY))
    assert entry.state is JobState.FAILED
    assert isinstance(entry.outcome, Failed)
    assert "its error can't be read" in entry.outcome.error.message
