"""`Transaction`: what the operations of one group of writes share, and how jobs are loaded and saved in it.

It owns the store's count of numbers and what is to be told to others once the group is committed. It must not know
when it begins or ends: the writer does that.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from jobtrio._records import Completed
from jobtrio._state import JobState
from jobtrio.stores._settling import JobSteps
from jobtrio.stores._texts import cancel_text, error_text, history_text, plan_text, text_of
from jobtrio.stores.sqlite import _chunks as chunks
from jobtrio.stores.sqlite._errors import FAILURES, translate
from jobtrio.stores.sqlite._rows import ASIDE, Row, entry_of, has_asides, seq_of
from jobtrio.stores.sqlite._statements import SQL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence

    from jobtrio._entry import JobEntry
    from jobtrio.abc import Claim
    from jobtrio.stores._chunks import Item
    from jobtrio.stores._settling import Identity


LONGEST: Final = 0.1
"""Seconds after which a transaction takes no more calls, and a slice no more jobs, so that others can write meanwhile:
values may be of many megabytes each."""


class Transaction(JobSteps):
    """One group of writes under way.

    Attributes:
        run: Executes a statement.
        connection: The writer's connection.
    """

    def __init__(self, connection: sqlite3.Connection, identity: Identity, path: str) -> None:
        super().__init__(identity)
        self.connection: Final = connection
        self.run: Final = connection.execute
        self._path = path
        self._number: int | None = None  # the last that was given, if one was

    @property
    def now(self) -> float:
        """The time of day."""
        return time.time()

    def number(self) -> int:
        """Return the next number: of an insertion, or of a place among the ready ones."""
        if self._number is None:
            self._number = int(self.run(SQL["number"]).fetchone()[0])
        self._number += 1
        return self._number

    def flush(self) -> None:
        """Write what the operations have left for the group's end."""
        if self._number is not None:
            self.run(SQL["keep_number"], (self._number,))

    def translated(self, exc: Exception) -> Exception:
        """Return why an operation failed, for its caller."""
        return translate(exc, self._path) if isinstance(exc, FAILURES) else exc

    # -- loading

    def load(self, statement: str, *parameters: Any, light: bool = False) -> JobEntry | None:
        """Return the job that a statement of one row finds, or None."""
        row = self.run(SQL[statement], parameters).fetchone()
        return None if row is None else load(self.connection, row, light=light)

    def job(self, order: int) -> JobEntry | None:
        """Return a job by its number, or None, without what its user gave where that is kept aside."""
        return self.load("by_seq", order, light=True)

    def job_of(self, job_id: str) -> JobEntry | None:
        """Return a job by its id, or None."""
        return load_by_id(self.connection, job_id)

    def holder(self, claim: Claim) -> Row | None:
        """Return by which session, and under which request to cancel, a claim holds its job; None where it doesn't."""
        entry = claim.entry
        row: Row | None = self.run(SQL["holder"], (entry.order, entry.id, claim.id, claim.attempt)).fetchone()
        return row

    def holds(self, claim: Claim) -> bool:
        """Whether a claim holds its job, without the rest of that."""
        return self.holder(claim) is not None

    # -- changing

    def append(self, entry: JobEntry, items: Sequence[Item]) -> None:
        """Append a job's messages."""
        if items:
            self.hints.messages.add(entry.id)
            chunks.append(self.connection, entry.order, items, self.identity.retention.tokens_per_job)

    def last_number(self, entry: JobEntry) -> int:
        """Return the number of a job's last message."""
        return chunks.last_number(self.connection, entry.order)

    def ask_to_cancel(self, entry: JobEntry) -> None:
        """Write a request to cancel a running job."""
        self.run(SQL["ask_to_cancel"], (cancel_text(entry.cancel), entry.order))

    def keep_state(self, entry: JobEntry, text: str) -> None:
        """Write a value for a job's next attempt."""
        self.run(SQL["save_state"], (self.inline(entry.order, "saved_state", text), entry.order))

    def replan(self, entry: JobEntry) -> None:
        """Write a held job's plan."""
        plan = entry.plan
        if entry.state is JobState.QUEUED:
            entry.ticket = self.number()
        self.run(
            SQL["replan"],
            (
                *(plan.executor, plan.queue, int(plan.priority), plan_text(plan)),
                *(entry.expires, entry.ticket, entry.order),
            ),
        )

    def prioritize(self, entry: JobEntry) -> None:
        """Write the priority of a job that waits, with a place behind all that are ready."""
        entry.ticket = self.number()
        self.run(SQL["prioritize"], (int(entry.plan.priority), entry.ticket, entry.order))

    def save(self, entry: JobEntry, *, is_ready: bool = False) -> None:
        """Write a job after one of its steps."""
        if is_ready:
            entry.ticket = self.number()
        result = text_of("a result", entry.outcome.result) if type(entry.outcome) is Completed else None
        self.run(
            SQL["move"],
            (
                str(entry.state),
                entry.ticket,
                entry.claim,
                entry.losses,
                entry.failures,
                entry.due,
                entry.finished_at,
                cancel_text(entry.cancel),
                self.inline(entry.order, "error", error_text(entry.error)),
                self.inline(entry.order, "result", result),
                history_text(entry),
                entry.order,
            ),
        )

    def remove(self, entry: JobEntry) -> None:
        """Take out a job and all that belongs to it."""
        self.remove_rows(entry.order, entry.tags)

    def remove_rows(self, job: int, tags: Mapping[str, str] | None) -> None:
        """Take out all rows of a job."""
        self.run(SQL["drop_chunks"], (job, job, -1))
        for name, value in (tags or {}).items():
            self.run(SQL["delete_tag"], (name, value, job))
        self.run(SQL["delete_asides"], (job,))
        self.run(SQL["delete_job"], (job,))

    def inline(self, job: int, name: str, text: str | None) -> str | None:
        """Return what a value's column is to hold, having put aside a large value."""
        if text is None:
            return None
        if len(text) > ASIDE:
            self.put_aside(job, ((name, text),))
            return None
        if self.run(SQL["drop_aside"], (job, name)).rowcount:
            self.run(SQL["count_asides"], (job,))
        return text

    def put_aside(self, job: int, values: Iterable[tuple[str, str]]) -> None:
        """Keep large values of a job beside its row."""
        for name, text in values:
            self.run(SQL["put_aside"], (job, name, text))
        self.run(SQL["count_asides"], (job,))


def row_of(connection: sqlite3.Connection, job_id: str) -> Row | None:
    """Return a job's row, or None. An id that is not printable, so that UTF-8 may not hold it, is that of no job."""
    row: Row | None = connection.execute(SQL["by_id"], (job_id,)).fetchone() if job_id.isprintable() else None
    return row


def load_by_id(connection: sqlite3.Connection, job_id: str, *, light: bool = False) -> JobEntry | None:
    """Return a job, or None; a ``light`` one without what its user gave."""
    row = row_of(connection, job_id)
    return None if row is None else load(connection, row, light=light)


def load(connection: sqlite3.Connection, row: Row, *, light: bool = False) -> JobEntry:
    """Return a row as an entry, with what is kept aside."""
    asides = {}
    if has_asides(row):
        asides = dict(connection.execute(SQL["light_asides" if light else "asides"], (seq_of(row),)).fetchall())
    return entry_of(row, asides, light=light)
