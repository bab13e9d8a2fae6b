"""`Hints`: what a write has made possible elsewhere, so that others need not look for it.

Nothing rests on them. They go to this process's listener and, as they are, to other processes.
"""

from __future__ import annotations

import attrs


@attrs.define
class Hints:
    """What other processes should look at.

    Attributes:
        ready: Whether a job may have become ready.
        due: When something falls due, by the machine's monotonic clock; None where nothing does.
        messages: Jobs that have new messages or have ended.
        cancels: Running jobs that were asked to stop.
    """

    ready: bool = False
    due: float | None = None
    messages: set[str] = attrs.field(factory=set)
    cancels: set[str] = attrs.field(factory=set)

    def __bool__(self) -> bool:
        return self.ready or self.due is not None or bool(self.messages) or bool(self.cancels)

    def add(self, other: Hints) -> None:
        """Take in what ``other`` says."""
        self.ready |= other.ready
        if other.due is not None:
            self.falls_due(other.due)
        self.messages |= other.messages
        self.cancels |= other.cancels

    def falls_due(self, at: float) -> None:
        """Note a time by the machine's monotonic clock."""
        self.due = at if self.due is None else min(self.due, at)
