"""What a worker says of its jobs: a line for each start and each end.

It follows the registry's events. It must not know where the lines go.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio._errors import LaggedError
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.cli._endings import duration, one_line, plural
from jobtrio.cli._output import STDERR, STDOUT, to_json
from jobtrio.cli._records import transition_fields

if TYPE_CHECKING:
    from datetime import datetime

    from jobtrio._records import Transition
    from jobtrio._registry import JobRegistry
    from jobtrio.cli._output import Piece

BATCH = 256
"""Changes told at once."""


@attrs.frozen
class Start:
    """What is kept of a running job.

    Attributes:
        executor: The executor's name.
        at: When it started.
    """

    executor: str
    at: datetime


class WorkLog:
    """The log of one worker."""

    def __init__(self, registry: JobRegistry, *, as_json: bool) -> None:
        """Listen from now on.

        Args:
            registry: The worker's registry.
            as_json: Whether stdout gets each change as a line of JSON, rather than stderr one in words.
        """
        self._registry = registry
        self._events = registry.subscribe_events()
        self._as_json = as_json
        self._running: dict[str, Start] = {}
        self._counts: Counter[str] = Counter()

    async def next(self) -> list[Piece]:
        """Wait for changes; return what is said of them, or nothing once the registry is closed.

        *Cancellation*: no change is lost.
        """
        pieces: list[Piece] = []
        while not pieces:
            try:
                pieces += self._pieces(await self._events.receive())
                while len(pieces) < BATCH:
                    pieces += self._pieces(self._events.receive_nowait())
            except LaggedError as exc:
                pieces.append((STDERR, f"jobtrio: {exc.last - exc.first + 1} changes were too quick to be logged\n"))
            except trio.WouldBlock:
                continue
            except trio.EndOfChannel:
                break
        return pieces

    def summary(self) -> str:
        """Return what became of the jobs, in a line."""
        ended = ", ".join(f"{self._counts[state]} {state.lower()}" for state in FINAL_ORDER if self._counts[state])
        returned = self._counts[JobState.QUEUED]
        back = f"; {plural(returned, 'job')} returned to the queue" if returned else ""
        return f"jobtrio: stopped; {ended or 'no job ended'}{back}"

    def _pieces(self, change: Transition) -> list[Piece]:
        start = self._note(change)
        if self._as_json:
            return [change_line(change, None if start is None else start.executor)]
        what = self._words(change, start)
        if what is None:
            return []
        executor = "" if start is None else f" {start.executor}"
        return [(STDERR, f"{change.at:%Y-%m-%dT%H:%M:%SZ} {what[0]} {change.job_id}{executor}{what[1]}\n")]

    def _note(self, change: Transition) -> Start | None:
        """Keep count, and return what is known of the job's start."""
        if change.state is JobState.RUNNING:
            # A look at what this process holds: reading each job from the store again would slow the work down.
            job = self._registry.peek(change.job_id)
            name = None if job is None else job.record.executor
            self._running[change.job_id] = Start(name or "?", change.at)
            return self._running[change.job_id]
        if change.state in FINAL_STATES or change.previous is JobState.RUNNING:
            self._counts[change.state] += 1
        return self._running.pop(change.job_id, None)

    def _words(self, change: Transition, start: Start | None) -> tuple[str, str] | None:
        """Return what happened, and what follows the executor's name; None for what is not worth a line."""
        took = "" if start is None else duration(max((change.at - start.at).total_seconds(), 0.0))
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
            case JobState.QUEUED if change.previous is JobState.RUNNING:
                return ("returned", f"{after}{why}")
            case _:
                return None


def change_line(change: Transition, executor: str | None) -> Piece:
    """Return a change as a line of JSON for stdout."""
    return STDOUT, to_json({**transition_fields(change), "executor": executor})


FINAL_ORDER = (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
