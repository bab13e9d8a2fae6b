"""What the listener is told, and what entries in this process learn of their jobs, once the server has answered.

It adds to what all stores do what only this store's answers say. It must not know how anything is stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio._state import JobState
from jobtrio.stores._announcer import Announcer

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio.abc import StoreListener


class RedisAnnouncer(Announcer):
    """Tells the listener of one opened store, by Trio's clock: the server tells times as seconds from now."""

    def __init__(self, listener: StoreListener) -> None:
        super().__init__(listener, trio.current_time)

    def falls_due_in(self, seconds: float) -> None:
        """Note a time."""
        self.falls_due(trio.current_time() + seconds)

    def placed(self, entry: JobEntry, order: int, created: float, submission: str) -> None:
        """Bring a new job's entry to what is stored, and tell of it."""
        entry.order = entry.ticket = order
        entry.created_at = created
        entry.submission = submission
        entry.state = JobState.SCHEDULED if entry.delay > 0 else JobState.QUEUED
        self.listener.changed(entry)
