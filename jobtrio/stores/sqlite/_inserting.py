"""Putting jobs in.

An operation of the writer: it is given the transaction that it is a part of.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jobtrio._errors import DuplicateJobError
from jobtrio._state import JobState
from jobtrio.stores import _rules as rules
from jobtrio.stores._announcer import Placed
from jobtrio.stores._texts import HELD
from jobtrio.stores.sqlite._statements import SQL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._entry import JobEntry
    from jobtrio.stores._announcer import Answer
    from jobtrio.stores.sqlite._rows import NewJob
    from jobtrio.stores.sqlite._transaction import Transaction


def insert(tx: Transaction, jobs: Sequence[NewJob], submission: str) -> list[Answer]:
    """Store new jobs, all or none; where another job stands for one, return that."""
    placed: dict[str, JobEntry] = {}
    answers: list[Answer] = []
    for job in jobs:
        entry = job.entry
        place = None if entry.id in placed else _place(tx, job, submission)
        if place is None:
            answers.append(_standing_for(tx, entry, submission, placed))
        else:
            placed[entry.id] = entry
            answers.append(place)
    return answers


def _place(tx: Transaction, job: NewJob, submission: str) -> Placed | None:
    """Store one job, or return None where its id or key is in use."""
    entry, plan = job.entry, job.entry.plan
    order = tx.number()
    state = JobState.SCHEDULED if entry.delay > 0 else JobState.QUEUED
    now = time.time()
    due = (entry.run_at or now + entry.delay) if entry.delay > 0 else 0.0
    wait = rules.wait_of(entry, tx.identity.retention)
    place = Placed(order, state, entry.created_at, due, None if wait is None else now + wait)
    row = (
        *(order, entry.id, entry.key, submission, plan.executor or HELD, plan.queue, int(plan.priority), str(state)),
        *(order, job.plan, *job.values, entry.created_at, entry.run_at, entry.delay, entry.expires_in),
        *(due, place.expires),
    )
    if not tx.run(SQL["insert"], row).rowcount:
        return None
    if job.asides:
        tx.put_aside(order, job.asides.items())
    for name, value in (entry.tags or {}).items():
        tx.run(SQL["insert_tag"], (name, value, order))
    if entry.delay > 0:
        tx.falls_due(due)
    if place.expires is not None:
        tx.falls_due(place.expires)
    if state is JobState.QUEUED and plan.executor is not None:
        tx.hints.ready = True
    return place


def _standing_for(tx: Transaction, entry: JobEntry, submission: str, placed: dict[str, JobEntry]) -> JobEntry:
    """Return the job that a repeated call had stored, or that has the key; else the id is in use."""
    kept = None if entry.id in placed else tx.job_of(entry.id)
    if kept is not None and kept.submission == submission:
        return kept
    holder = None if entry.key is None else tx.load("by_key", entry.key)
    if holder is None:
        raise DuplicateJobError(entry.id)
    return holder
