"""The entries that stand for jobs in this process, where the store keeps the jobs elsewhere.

Whoever holds a job here, holds the same entry; answers from the store bring it up to date. It must not know where
the answers come from.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import attrs

from jobtrio._entry import JobEntry, final_state
from jobtrio._records import Failed
from jobtrio._state import JobState

if TYPE_CHECKING:
    from jobtrio._records import Outcome


class KnownEntries:
    """One entry for each job that somebody in this process holds; it is forgotten with the last holder.

    An id may be given anew once its job is removed. Who holds that job keeps its entry; the new one stands for the id.
    """

    def __init__(self) -> None:
        self._entries: weakref.WeakValueDictionary[str, JobEntry] = weakref.WeakValueDictionary()

    def entry_of(self, entry: JobEntry) -> JobEntry:
        """Return the entry that stands for a job, brought to what ``entry`` says."""
        known = self._entries.setdefault(entry.id, entry)
        if known is entry:
            return entry
        if known.order == entry.order:
            refresh(known, entry)
            return known
        if known.order < entry.order:
            self._entries[entry.id] = entry
        return entry

    def claimed(self, entry: JobEntry) -> JobEntry:
        """Return the entry that stands for a job of which an attempt is to begin here.

        What executors work with is taken from ``entry`` in any case: `refresh` leaves that out where another answer
        has told already that the job runs.
        """
        known = self.entry_of(entry)
        for name in _GIVEN:
            setattr(known, name, getattr(entry, name))
        return known

    def get(self, job_id: str) -> JobEntry | None:
        """Return a job's entry, or None where nobody holds it."""
        return self._entries.get(job_id)

    def forget(self, entry: JobEntry) -> None:
        """Let an entry stand for its id no more; who holds it keeps it."""
        if self._entries.get(entry.id) is entry:
            del self._entries[entry.id]

    def __len__(self) -> int:
        return len(self._entries)


def refresh(known: JobEntry, fresh: JobEntry, *, light: bool = False) -> None:
    """Bring an entry to what another one of the same job says, unless that is older. A ``light`` one has not all.

    Answers may overtake each other, and a request to cancel that was accepted is never taken back. While an attempt
    runs, what its executor works with stays as it has it: its payload, what it saved last.
    """
    if fresh is known or (fresh.progress, fresh.ticket) < (known.progress, known.ticket):
        return
    ahead = fresh.progress > known.progress
    plan, cancel = known.plan, known.cancel
    whole = _SHARED if ahead or known.state is not JobState.RUNNING else _UNUSED
    for name in _LIGHT if light else whole:
        setattr(known, name, getattr(fresh, name))
    if known.plan.function is None and plan.executor == known.plan.executor:
        known.plan = plan.with_priority(known.plan.priority)
    if known.cancel is None:
        known.cancel = cancel


def conclude(known: JobEntry, outcome: Outcome) -> None:
    """Bring an entry to an end of which no more than this can be known: the job is gone already."""
    if known.outcome is None:
        known.outcome = outcome
        known.error = outcome.error if isinstance(outcome, Failed) else known.error
        known.state = final_state(outcome)  # last, as below


_SHARED = (*(field.name for field in attrs.fields(JobEntry) if field.name not in ("log", "state")), "state")
"""What answers bring, the state last: other threads may look meanwhile, and see no end without its outcome."""

_GIVEN = ("payload", "metadata", "tags", "saved_state")
"""What executors work with."""

_UNUSED = tuple(name for name in _SHARED if name not in _GIVEN)

_LIGHT = tuple(name for name in _UNUSED if name not in ("run_at", "delay", "expires_in", "unreadable"))
"""What `JobStore.look` brings."""
