"""What the listener is told, and what entries in this process learn of their jobs, once a write is committed.

All of it happens in Trio's thread, at once and in the order of the commits. It also keeps when something falls due, so
that `advance` asks the file only when there is something to do. It must not know how anything is stored.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

import attrs

from jobtrio._entry import JobEntry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobtrio.abc import StoreListener
    from jobtrio.stores.sqlite._hints import Hints
    from jobtrio.stores.sqlite._inserting import Placed

_HOLDERS: Final = frozenset({"plan", "log", "payload", "metadata", "tags", "saved_state"})
"""What an entry keeps as its holder has it."""

_LEARNED: Final = tuple(field.name for field in attrs.fields(JobEntry) if field.name not in _HOLDERS)


class Announcer:
    """Tells the listener of one opened store.

    Attributes:
        next: When something falls due, by the machine's monotonic clock, as far as is known.
        look_at: When to look again what falls due, whatever is known.
    """

    def __init__(self, listener: StoreListener) -> None:
        self._listener = listener
        self.next: float = inf
        self.look_at: float = 0.0

    # -- hints

    def heed(self, hints: Hints) -> None:
        """Tell of what a write in this process or in another one has made possible."""
        if hints.due is not None:
            self.falls_due(hints.due)
        for job_id in hints.messages:
            self._listener.messages_added(job_id)
        for job_id in hints.cancels:
            self._listener.cancel_requested(job_id)
        if hints.ready:
            self._listener.work_ready()

    def look_everywhere(self) -> None:
        """Tell that others may have done anything: a hint was lost, or one of them is gone."""
        self.look_at = 0.0
        self._listener.due_changed()
        self._listener.work_ready()

    def falls_due(self, at: float) -> None:
        """Note a time by the machine's monotonic clock."""
        if at < self.next:
            self.next = at
            self._listener.due_changed()

    def looked(self, seconds: float, look_after: float) -> None:
        """Note how long there is nothing to do, as was found just now."""
        now = time.monotonic()
        self.next = now + seconds
        self.look_at = now + look_after

    def idle_for(self) -> float:
        """Return for how many seconds there is known to be nothing to do; 0 where one has to look."""
        now = time.monotonic()
        if now >= min(self.next, self.look_at):
            return 0.0
        return self.next - now

    # -- jobs

    def changed(self, entries: Iterable[JobEntry]) -> None:
        """Tell of changes of state."""
        for entry in entries:
            self._listener.changed(entry)

    def placed(self, entry: JobEntry, place: Placed, submission: str) -> None:
        """Bring a new job's entry to what is stored, and tell of it."""
        entry.order = entry.ticket = place.order
        entry.submission = submission
        entry.state, entry.due, entry.expires = place.state, place.due, place.expires
        self._listener.changed(entry)

    def ended(self, entry: JobEntry, step: JobEntry) -> None:
        """Bring a running job's entry to its end: ``step`` has what changed, and the one new line of the history."""
        entry.state, entry.outcome, entry.finished_at = step.state, step.outcome, step.finished_at
        entry.steps = [*(entry.steps or ()), *(step.steps or ())]
        self._listener.changed(entry)

    def learned(self, entry: JobEntry, stored: JobEntry) -> None:
        """Bring an entry to what is stored, and tell of its newest change unless that was told.

        A repeated call finds what the first one did; the entry shows whether it has heard of that.
        """
        is_news = not entry.order or len(stored.steps or ()) > len(entry.steps or ())
        for name in _LEARNED:
            setattr(entry, name, getattr(stored, name))
        if is_news:
            self._listener.changed(entry)
