"""What has to be true of a schema of jobs at any moment, checked from outside, by SQL alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import psycopg
from kept_history import check_changes, check_stream
from psycopg.rows import dict_row

from jobtrio._state import JobState

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_schema(conninfo: str, acknowledged: Iterable[str]) -> dict[str, str]:
    """Check all jobs of the schema and that those acknowledged are there; return each one's state."""
    with psycopg.connect(conninfo, row_factory=dict_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        jobs = connection.execute("SELECT * FROM jobtrio.jobs").fetchall()
        missing = set(acknowledged) - {job["id"] for job in jobs}
        assert not missing, f"acknowledged and not kept: {missing}"
        chunks: dict[int, list[dict[str, Any]]] = {job["seq"]: [] for job in jobs}
        for chunk in connection.execute("SELECT * FROM jobtrio.messages ORDER BY job, first"):
            assert chunk["job"] in chunks, "messages of a job that is gone"
            chunks[chunk["job"]].append(chunk)
        strays = connection.execute(
            "SELECT count(*) AS n FROM jobtrio.tags WHERE job NOT IN (SELECT seq FROM jobtrio.jobs)"
        ).fetchone()
        assert strays == {"n": 0}, "tags of jobs that are gone"
    for job in jobs:
        _check_history(job)
        own = chunks[job["seq"]]
        check_stream(job["id"], ((each["first"], each["last"], json.loads(each["body"])) for each in own))
    return {job["id"]: job["state"] for job in jobs}


def _check_history(job: dict[str, Any]) -> None:
    flat = json.loads(f"[{job['history'][1:]}]")
    state, attempt = check_changes(job["id"], flat, job["delay"])
    moments = [job["created_at"], *flat[::5]]
    assert moments == sorted(moments), f"{job['id']}: its history goes back in time"
    assert (state, attempt) == (job["state"], job["attempt"]), f"{job['id']}: its history ends elsewhere"
    assert (job["finished_at"] is not None) == state.is_final, job["id"]
    assert (job["result"] is not None) == (state is JobState.COMPLETED), job["id"]
