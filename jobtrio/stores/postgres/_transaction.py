"""`Transaction`: jobs that are locked, what operations change of them, and the statements that write all of it at once.

Operations run in this process, between the trip that brings the jobs and the one that writes them. It owns how messages
are numbered on and what is to be told to others. It must not know when it begins or ends, nor how statements travel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobtrio._records import Completed
from jobtrio.stores._chunks import body_of, cut
from jobtrio.stores._settling import JobSteps
from jobtrio.stores._texts import HELD, cancel_text, error_text, plan_text, text_of
from jobtrio.stores.postgres._arrays import MOST, array, arrays, slices
from jobtrio.stores.postgres._rows import WIDTH, entry_of, flat_history

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jobtrio._entry import JobEntry
    from jobtrio.stores._chunks import Item
    from jobtrio.stores._settling import Identity
    from jobtrio.stores.postgres._connections import Rows, Step


class Transaction(JobSteps):
    """One group of changes."""

    def __init__(self, identity: Identity, locked: Rows, lasts: Rows) -> None:
        """Take in the jobs.

        Args:
            identity: Who writes.
            locked: The jobs, each with the time at which it was locked.
            lasts: The jobs' numbers, and those of their last messages.
        """
        super().__init__(identity)
        self._now: float = max((row[WIDTH] for row in locked), default=0.0)
        self._jobs = {entry.order: entry for entry in map(entry_of, locked)}
        self._ids = {entry.id: entry for entry in self._jobs.values()}
        self._lasts: dict[int, int] = {job: last or 0 for job, last in lasts}
        self._moved: dict[int, bool] = {}  # whether they are to get a new place among the ready ones
        self._asked: set[int] = set()
        self._saved: dict[int, str] = {}
        self._prioritized: list[JobEntry] = []
        self._replanned: list[JobEntry] = []
        self._emptied: list[int] = []
        self._chunks: dict[int, list[tuple[int, int, int, str]]] = {}
        self._removed: list[JobEntry] = []

    @property
    def now(self) -> float:
        """The server's time."""
        return self._now

    # -- loading

    def job(self, order: int) -> JobEntry | None:
        """Return a locked job by its number, or None."""
        return self._jobs.get(order)

    def job_of(self, job_id: str) -> JobEntry | None:
        """Return a locked job by its id, or None."""
        return self._ids.get(job_id)

    def jobs(self) -> list[JobEntry]:
        """Return all locked jobs, in the order in which they were found."""
        return list(self._jobs.values())

    def last_number(self, entry: JobEntry) -> int:
        """Return the number of a job's last message."""
        return self._lasts[entry.order]

    # -- changing

    def append(self, entry: JobEntry, items: Sequence[Item]) -> None:
        """Append a job's messages; those that are stored are passed over."""
        job, last = entry.order, self._lasts[entry.order]
        chunks = self._chunks.setdefault(job, [])
        for chunk in cut([item for item in items if item[0] > last]):
            first = chunk[0][0]
            if first > last + 1:
                # What comes before a hole is no longer kept: what can be read has no hole in it.
                self._emptied.append(job)
                chunks.clear()
            last = chunk[-1][0]
            chunks.append((job, first, last, body_of(chunk)))
        self._lasts[job] = last
        if items:
            self.hints.messages.add(entry.id)

    def save(self, entry: JobEntry, *, is_ready: bool = False) -> None:
        """Write a job after one of its steps."""
        self._moved[entry.order] = is_ready

    def ask_to_cancel(self, entry: JobEntry) -> None:
        """Write a request to cancel a running job."""
        self._asked.add(entry.order)

    def keep_state(self, entry: JobEntry, text: str) -> None:
        """Keep a value for a job's next attempt."""
        self._saved[entry.order] = text

    def replan(self, entry: JobEntry) -> None:
        """Write a held job's plan."""
        self._replanned.append(entry)

    def prioritize(self, entry: JobEntry) -> None:
        """Write the priority of a job that waits, with a place behind all that are ready."""
        self._prioritized.append(entry)

    def remove(self, entry: JobEntry) -> None:
        """Take a job out, and all that belongs to it."""
        self._removed.append(entry)

    # -- writing

    def steps(self) -> list[Step]:
        """Return the statements that write all this; `took` heeds the answers."""
        removed = [(entry.order, entry.tags or {}) for entry in self._removed]
        return [*self._job_steps(), *self._message_steps(), *removing_steps(removed)]

    def took(self, answers: Sequence[Rows]) -> None:
        """Learn what the server has decided: the places of those that became ready, or have another priority."""
        placed = bool(self._moved) + bool(self._prioritized)
        for rows in answers[:placed]:
            for seq, ticket in rows:
                self._jobs[seq].ticket = ticket
        for entry, rows in zip(self._replanned, answers[placed:], strict=False):
            ((entry.ticket,),) = rows

    def _job_steps(self) -> Iterator[Step]:
        if self._moved:
            yield ("move", *arrays(map(self._move_row, self._moved.items()), 13))
        if self._prioritized:
            yield ("prioritize", *arrays(((job.order, int(job.plan.priority)) for job in self._prioritized), 2))
        for entry in self._replanned:
            plan = entry.plan
            expires = None if entry.expires is None else str(entry.expires)
            texts = (plan.executor or HELD, plan.queue, str(int(plan.priority)), plan_text(plan), expires)
            yield ("replan", str(entry.order), *texts)
        if self._asked:
            yield ("ask_to_cancel", *arrays(((job, cancel_text(self._jobs[job].cancel)) for job in self._asked), 2))
        if self._saved:
            yield ("keep_state", *arrays(self._saved.items(), 2))

    def _move_row(self, moved: tuple[int, bool]) -> tuple[Any, ...]:
        job, is_ready = moved
        entry = self._jobs[job]
        result = text_of("a result", entry.outcome.result) if type(entry.outcome) is Completed else None
        return (
            *(job, str(entry.state), is_ready, entry.ticket, entry.claim, entry.losses, entry.failures, entry.due),
            *(entry.finished_at, cancel_text(entry.cancel), error_text(entry.error), result, flat_history(entry)),
        )

    def _message_steps(self) -> Iterator[Step]:
        if self._emptied:
            yield ("drop_chunks", array(self._emptied), str(MOST))
        rows = [row for chunks in self._chunks.values() for row in chunks]
        for piece in slices(rows, lambda row: len(row[-1])):
            yield ("insert_chunks", *arrays(piece, 4))
        if rows:
            keep = self.identity.retention.tokens_per_job
            old = [(job, self._lasts[job] - keep) for job in self._chunks if self._lasts[job] > keep]
            if old:
                yield ("trim_chunks", *arrays(old, 2))


def removing_steps(jobs: Sequence[tuple[int, Mapping[str, str]]]) -> Iterator[Step]:
    """Give the statements that take jobs out, if there are any; the jobs come as their numbers and tags."""
    if not jobs:
        return
    numbers = array([job for job, _ in jobs])
    yield ("drop_chunks", numbers, str(MOST))
    tags = [(job, name, value) for job, named in jobs for name, value in named.items()]
    if tags:
        yield ("delete_tags", *arrays(tags, 3))
    yield ("delete_jobs", numbers)
