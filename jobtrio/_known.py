"""The entries that stand for jobs in this process, where the store keeps the jobs elsewhere.

Whoever holds a job here, holds the same entry; answers from the store bring it up to date. It must not know where
the answers come from.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import attrs

from jobtrio._entry import JobEntry

if TYPE_CHECKING:
    from collections.abc import Iterator


class KnownEntries:
    """One entry for each job that somebody in this process holds; it is forgotten with the last holder."""

    def __init__(self) -> None:
        self._entries: weakref.WeakValueDictionary[str, JobEntry] = weakref.WeakValueDictionary()

    def entry_of(self, entry: JobEntry) -> JobEntry:
        """Return the entry that stands for a job, brought to what ``entry`` says."""
        known = self._entries.setdefault(entry.id, entry)
        if known is not entry:
            refresh(known, entry)
        return known

    def get(self, job_id: str) -> JobEntry | None:
        """Return a job's entry, or None where nobody holds it."""
        return self._entries.get(job_id)

    def __iter__(self) -> Iterator[JobEntry]:
        return iter(list(self._entries.values()))

    def __len__(self) -> int:
        return len(self._entries)


def refresh(known: JobEntry, fresh: JobEntry) -> None:
    """Bring an entry to what another one of the same job says, unless that is older.

    Answers may overtake each other, and a request to cancel that was accepted is never taken back.
    """
    if fresh is known or len(fresh.steps or ()) < len(known.steps or ()):
        return
    plan, cancel = known.plan, known.cancel
    for name in _SHARED:
        setattr(known, name, getattr(fresh, name))
    if known.plan.function is None and plan.executor == known.plan.executor:
        known.plan = plan
    if known.cancel is None:
        known.cancel = cancel


_SHARED = tuple(field.name for field in attrs.fields(JobEntry) if field.name != "log")
