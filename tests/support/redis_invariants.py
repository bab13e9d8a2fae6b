"""What has to be true of the jobs under a prefix at any moment, checked from outside, by the server's commands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kept_history import check_changes, check_stream

from jobtrio._state import FINAL_STATES, JobState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from valkey_server import ValkeyServer

WAITING = (JobState.SCHEDULED, JobState.RETRYING)


def check_jobs(
    server: ValkeyServer, prefix: str, acknowledged: Iterable[str] = (), *, was_refused: bool = False
) -> dict[str, str]:
    """Check all jobs and all sets under a prefix, and that those acknowledged are there; return each one's state.

    With ``was_refused`` the server has refused an insertion in the middle, of which a queue's name may be left.
    """
    found = _Found(server, prefix)
    missing = set(acknowledged) - set(found.jobs)
    assert not missing, f"acknowledged and not kept: {missing}"
    for job_id, job in found.jobs.items():
        _check_history(job_id, job)
        _check_stream(found, job_id, job)
    _check_sets(found)
    _check_cells_and_lines(found)
    cells, known = {job["cell"] for job in found.jobs.values()}, set(found.ask("SMEMBERS", "cells"))
    assert known >= cells if was_refused else known == cells
    _check_strays(found)
    return {job_id: job["state"] for job_id, job in found.jobs.items()}


class _Found:
    """All that is under a prefix."""

    def __init__(self, server: ValkeyServer, prefix: str) -> None:
        self.server = server
        self.root = f"{{{prefix}}}:"
        names: list[str] = []
        answer: Any = ["0", []]
        while True:
            answer = server.ask("SCAN", answer[0], "MATCH", f"{self.root}*", "COUNT", 1000)
            names += answer[1]
            if answer[0] == "0":
                break
        self.keys = {name.removeprefix(self.root) for name in names}
        ids = self.having("job:")
        hashes = server.ask_all([("HGETALL", f"{self.root}job:{job_id}") for job_id in ids])
        self.jobs = dict(zip(ids, map(_pairs, hashes), strict=True))
        streams = server.ask_all([("XRANGE", f"{self.root}messages:{job_id}", "-", "+") for job_id in ids])
        self.streams: dict[str, Any] = dict(zip(ids, streams, strict=True))

    def ask(self, command: str, key: str, *rest: str | int) -> Any:
        return self.server.ask(command, self.root + key, *rest)

    def hash(self, key: str) -> dict[str, str]:
        return _pairs(self.ask("HGETALL", key))

    def members(self, key: str) -> set[str]:
        return set(self.ask("ZRANGE", key, 0, -1))

    def having(self, prefix: str) -> list[str]:
        return [key.removeprefix(prefix) for key in self.keys if key.startswith(prefix)]

    def where(self, *states: JobState) -> set[str]:
        return {job_id for job_id, job in self.jobs.items() if job["state"] in states}


def _pairs(flat: Any) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _check_history(job_id: str, job: dict[str, str]) -> None:
    flat = json.loads(f"[{job['history'][1:]}]")
    state, attempt = check_changes(job_id, flat, json.loads(job["body"])[3])
    moments = [float(job["created"]), *flat[::5]]
    assert moments == sorted(moments), f"{job_id}: its history goes back in time"
    assert (state, str(attempt)) == (job["state"], job["attempt"]), f"{job_id}: its history ends elsewhere"
    assert state is JobState.COMPLETED or "result" not in job, job_id


def _check_stream(found: _Found, job_id: str, job: dict[str, str]) -> None:
    numbered = ((*map(int, entry_id.split("-")), json.loads(body)) for entry_id, (_, body) in found.streams[job_id])
    last = check_stream(job_id, ((last - count + 1, last, messages) for last, count, messages in numbered))
    assert last == int(job["last"]), f"{job_id}: its stream ends elsewhere"


def _check_sets(found: _Found) -> None:
    """Each job is where one of its state is looked for, and nowhere else."""
    assert found.members("all") == set(found.jobs)
    assert found.members("leases") == found.where(JobState.RUNNING)
    assert found.members("due") == found.where(*WAITING)
    assert found.members("ended") == found.where(*FINAL_STATES)
    unstarted = found.where(JobState.SCHEDULED, JobState.QUEUED)
    expiring = {job_id for job_id in unstarted if "expires" in found.jobs[job_id] and _attempt(found, job_id) == 0}
    assert found.members("expiry") == expiring
    keys = {job["key"]: job_id for job_id, job in found.jobs.items() if "key" in job}
    assert found.hash("keys") == keys
    tagged: dict[str, set[str]] = {}
    for job_id, job in found.jobs.items():
        for name, value in json.loads(job.get("tags", "{}")).items():
            tagged.setdefault(f"{len(name.encode())}:{name}{value}", set()).add(job_id)
    assert {name: found.members(f"tag:{name}") for name in found.having("tag:")} == tagged


def _attempt(found: _Found, job_id: str) -> int:
    return int(found.jobs[job_id]["attempt"])


def _check_cells_and_lines(found: _Found) -> None:
    cells: dict[str, set[str]] = {}
    for job_id, job in found.jobs.items():
        cells.setdefault(f"{job['state']}:{job['cell']}", set()).add(job_id)
    assert {name: found.members(f"cell:{name}") for name in found.having("cell:")} == cells
    lines = {cell: found.members(f"line:{cell}") for cell in found.having("line:")}
    index = found.ask("ZRANGE", "lines", 0, -1, "WITHSCORES")
    firsts = {cell: found.ask("ZRANGE", f"line:{cell}", 0, 0, "WITHSCORES")[1] for cell in lines}
    assert dict(zip(index[::2], index[1::2], strict=True)) == firsts
    for cell, members in lines.items():
        assert members <= cells.get(f"QUEUED:{cell}", set()), f"in line and not queued: {cell}"
        left_out = cells[f"QUEUED:{cell}"] - members
        assert all("expires" in found.jobs[job_id] for job_id in left_out), f"queued and not in line: {left_out}"
    for name, members in cells.items():
        state, _, cell = name.partition(":")
        size, _, rest = cell.partition(":")
        is_held = len(rest.encode()) == int(size)
        if state == JobState.QUEUED and not is_held and cell not in lines:
            assert all("expires" in found.jobs[job_id] for job_id in members), f"no line for {cell}"


def _check_strays(found: _Found) -> None:
    strays = set(found.having("messages:")) - set(found.jobs)
    assert not strays, f"messages of jobs that are gone: {strays}"
