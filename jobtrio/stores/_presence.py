"""`Presence`: which workers are there, for a store in memory.

A worker is there until the time that it last promised is over. It must not know what workers do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio._records import WorkerReport, moment

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.define
class _Seen:
    started_at: float
    seen_at: float
    until: float  # by Trio's clock


class Presence:
    """The workers of one store, by name."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def note(self, worker: str, lease: float) -> None:
        """Note that a worker is there for ``lease`` seconds from now."""
        now, until = time.time(), trio.current_time() + lease
        seen = self._seen.get(worker)
        if seen is None:
            self._drop_gone()
            self._seen[worker] = _Seen(now, now, until)
        else:
            seen.seen_at, seen.until = now, until

    def leave(self, worker: str) -> None:
        """Note that a worker is closed."""
        self._seen.pop(worker, None)

    def reports(self, running: Mapping[str | None, int]) -> list[WorkerReport]:
        """Return who is there, by name, with how many jobs each runs."""
        self._drop_gone()
        return [
            WorkerReport(name, moment(seen.started_at), moment(seen.seen_at), running.get(name, 0))
            for name, seen in sorted(self._seen.items())
        ]

    def _drop_gone(self) -> None:
        now = trio.current_time()
        self._seen = {name: seen for name, seen in self._seen.items() if seen.until > now}
