"""What a worker says of its jobs: a line for each start and each end.

It follows the registry's events. It must not know where the lines go.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from jobtrio._errors import LaggedError
from jobtrio._settlement import SHUTDOWN
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.cli._endings import duration, one_line, plural, printable, second
from jobtrio.cli._json import change_line
from jobtrio.cli._output import STDERR

if TYPE_CHECKING:
    from datetime import datetime

    from jobtrio._events import Event
    from jobtrio._records import Transition
    from jobtrio._registry import JobRegistry
    from jobtrio.cli._output import Piece

BATCH = 256
"""Changes told at once."""

FINAL_ORDER = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
"""The states in which jobs end, in the order in which the summary counts them."""


class WorkLog:
    """The log of one worker."""

    def __init__(self, registry: JobRegistry, *, as_json: bool) -> None:
        """Listen from now on.

        Args:
            registry: The worker's registry.
            as_json: Whether stdout gets each change as a line of JSON, rather than stderr one in words.
        """
        self._events = registry.subscribe_events()
        self._as_json = as_json
        self._started: dict[str, datetime] = {}
        self._missed = 0
        self._untold = 0  # of what was asked for last, and may not be written yet
        self._counts: Counter[str] = Counter()

    async def next(self) -> list[Piece]:
        """Wait for changes; return what is said of them, or nothing once the registry is closed.

        *Cancellation*: no change is lost.
        """
        self._untold = 0
        pieces: list[Piece] = []
        while not pieces:
            try:
                pieces += self._pieces(await self._events._receive_event())
                while len(pieces) < BATCH:
                    pieces += self._pieces(self._events._receive_event_nowait())
            except LaggedError as exc:
                pieces.append((STDERR, f"jobtrio: {plural(self._miss(exc), 'change')} came too quickly to be logged\n"))
            except trio.WouldBlock:
                continue
            except trio.EndOfChannel:
                break
        self._untold = len(pieces)
        return pieces

    def miss_last(self) -> None:
        """Note that what was asked for last could not be written."""
        self._missed += self._untold
        self._untold = 0

    def summary(self) -> str:
        """Return what became of the jobs, in a line: also of those whose changes were not asked for."""
        self._pass_over()
        ended = ", ".join(f"{self._counts[state]} {state.lower()}" for state in FINAL_ORDER if self._counts[state])
        returned = self._counts[JobState.QUEUED]
        back = f"; {plural(returned, 'job')} returned to the queue" if returned else ""
        missed = self._missed + self._untold
        beyond = f"; {plural(missed, 'change')} not logged" if missed else ""
        return f"jobtrio: stopped; {ended or 'no job ended'}{back}{beyond}"

    def _pass_over(self) -> None:
        """Note what has happened and will not be told any more."""
        while True:
            try:
                self._untold += len(self._pieces(self._events._receive_event_nowait()))
            except LaggedError as exc:
                self._miss(exc)
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    def _miss(self, exc: LaggedError) -> int:
        """Note that some changes are not known, and return how many."""
        missed = exc.last - exc.first + 1
        self._missed += missed
        self._started.clear()  # attempts may have ended since, and others begun
        return missed

    def _pieces(self, event: Event) -> list[Piece]:
        change = event.change
        took = self._note(change)
        if self._as_json:
            return [change_line(change, event.executor)]
        what = self._words(change, took)
        if what is None:
            return []
        executor = "" if event.executor is None else f" {event.executor}"
        line = f"{second(change.at)} {what[0]} {change.job_id}{executor}{what[1]}"
        return [(STDERR, f"{printable(line)}\n")]

    def _note(self, change: Transition) -> str:
        """Keep count, and return how long an attempt that is over took; nothing where its start is not known."""
        if change.state is JobState.RUNNING:
            self._started[change.job_id] = change.at
            return ""
        if change.state in FINAL_STATES or change.reason == SHUTDOWN:  # what was another worker's did not end here
            self._counts[change.state] += 1
        start = self._started.pop(change.job_id, None)
        return "" if start is None else duration(max((change.at - start).total_seconds(), 0.0))

    def _words(self, change: Transition, took: str) -> tuple[str, str] | None:
        """Return what happened, and what follows the executor's name; None for what is not worth a line."""
        after = f" after {took}" if took else ""
        why = f": {one_line(change.reason)}" if change.reason else ""
        match change.state:
            case JobState.RUNNING:
                return ("started", "" if change.attempt == 1 else f", attempt {change.attempt}")
            case JobState.COMPLETED:
                return ("completed", f" in {took}" if took else "")
            case JobState.FAILED | JobState.CANCELLED:
                return (change.state.lower(), f"{after}{why}")
            case JobState.RETRYING:
                return ("failed", f"{after}, to be tried again{why}")
            case JobState.QUEUED if change.reason == SHUTDOWN:
                return ("returned", f"{after}{why}")
            case JobState.QUEUED if change.previous is JobState.RUNNING:
                return ("returned", f"{after}: its worker is gone or did not renew its lease")
            case _:
                return None
