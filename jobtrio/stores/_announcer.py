"""What the listener is told, and what entries in this process learn of their jobs, once a write is answered.

All of it happens in Trio's thread, at once and in the order of the answers. It also keeps when something falls due, so
that `advance` asks the store only when there is something to do. It must not know how anything is stored.
"""

from __future__ import annotations

from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import attrs

from jobtrio._entry import JobEntry, finish
from jobtrio._state import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from jobtrio._records import JobError, Outcome
    from jobtrio.abc import CancelReply, StoreListener
    from jobtrio.stores._hints import Hints

_HOLDERS: Final = frozenset({"plan", "log", "payload", "metadata", "tags", "saved_state"})
"""What an entry keeps as its holder has it, but for its plan's priority."""

_LEARNED: Final = tuple(field.name for field in attrs.fields(JobEntry) if field.name not in _HOLDERS)


class Placed(NamedTuple):
    """What the store has decided about a new job."""

    order: int
    state: JobState
    created_at: float
    due: float
    expires: float | None

    def note(self, entry: JobEntry, submission: str) -> None:
        """Note it in the job's entry."""
        entry.order = entry.ticket = self.order
        entry.created_at, entry.submission = self.created_at, submission
        entry.state, entry.due, entry.expires = self.state, self.due, self.expires


Answer: TypeAlias = Placed | JobEntry
"""A new job was placed, or another stands for it."""


@attrs.frozen
class Settled:
    """What became of a job whose attempt has ended.

    Attributes:
        entry: The job, as it is stored then.
        is_news: Whether it was done just now, rather than by an earlier call of which this is a repetition.
    """

    entry: JobEntry
    is_news: bool


class Announcer:
    """Tells the listener of one opened store.

    Args:
        listener: The listener.
        clock: Tells the time by which things fall due.
        on_end: Called for each job that is heard to have ended.

    Attributes:
        listener: The listener.
    """

    def __init__(self, listener: StoreListener, clock: Callable[[], float], on_end: Callable[[], None]) -> None:
        self.listener: Final = listener
        self._clock = clock
        self._on_end = on_end
        self._next = inf  # when something falls due, by the clock, as far as is known
        self._look_at = 0.0  # when to look again what falls due, whatever is known
        self._noted = inf  # the earliest time noted since the store was last asked what is due
        self._must_look = False  # whether `look_everywhere` was called since then
        self._coming: dict[tuple[str, str], JobEntry] = {}  # new jobs, by id and their calls, that are not answered yet

    # -- hints

    def heed(self, hints: Hints) -> None:
        """Tell of what a write in this process or in another one has made possible."""
        if hints.due is not None:
            self.falls_due(hints.due)
        for job_id in hints.messages:
            self.listener.messages_added(job_id)
        for job_id in hints.cancels:
            self.listener.cancel_requested(job_id)
        if hints.ready:
            self.listener.work_ready()

    def look_everywhere(self) -> None:
        """Tell that others may have done anything: a hint was lost, or one of them is gone."""
        self._look_at = 0.0
        self._must_look = True
        self.listener.due_changed()
        self.listener.work_ready()

    def falls_due(self, at: float) -> None:
        """Note a time by the clock."""
        self._noted = min(self._noted, at)
        if at < self._next:
            self._next = at
            self.listener.due_changed()

    def falls_due_in(self, seconds: float) -> None:
        """Note a time from now."""
        self.falls_due(self._clock() + seconds)

    def asked(self) -> None:
        """Note that the store is being asked what is due: its answer may not know of what is noted from now on."""
        self._noted, self._must_look = inf, False

    def looked(self, seconds: float, look_after: float) -> None:
        """Note how long there is nothing to do, as the answer says."""
        now = self._clock()
        self._next = min(now + seconds, self._noted)
        self._look_at = 0.0 if self._must_look else now + look_after

    def idle_for(self) -> float:
        """Return for how many seconds there is known to be nothing to do; 0 where one has to look."""
        now = self._clock()
        if now >= min(self._next, self._look_at):
            return 0.0
        return self._next - now

    # -- jobs

    @contextmanager
    def putting_in(self, entries: Sequence[JobEntry], submission: str) -> Iterator[None]:
        """Within the block new jobs are told of first, even if news of what became of them comes before the answer."""
        coming = {(entry.id, submission): entry for entry in reversed(entries)}  # the first that has an id counts
        self._coming.update(coming)
        try:
            yield
        finally:
            for job in coming:
                self._coming.pop(job, None)

    def inserted(self, entries: Sequence[JobEntry], answers: Iterable[Answer], submission: str) -> list[JobEntry]:
        """Bring new jobs' entries to what is stored, and tell of them; return the entries that stand for the jobs."""
        stored = []
        ids: set[str] = set()  # of jobs before: one that has such an id has that job's key too, which stands for it
        for entry, answer in zip(entries, answers, strict=True):
            standing = entry
            if isinstance(answer, Placed):
                self.placed(entry, answer, submission)
            elif answer.id == entry.id and answer.submission == submission and entry.id not in ids:
                self.learned(entry, answer)
            else:
                standing = answer
            ids.add(entry.id)
            stored.append(standing)
        return stored

    def placed(self, entry: JobEntry, place: Placed, submission: str) -> None:
        """Bring a new job's entry to what is stored, and tell of it, unless that was told."""
        if entry.order == place.order:
            return  # it has learned more by now
        place.note(entry, submission)
        self.listener.changed(entry)

    def changed(self, entries: Iterable[JobEntry]) -> None:
        """Tell of changes of state."""
        for entry in entries:
            coming = self._coming.get((entry.id, entry.submission))
            if coming is not None and not coming.order:
                self.learned(coming, entry)
            self.listener.changed(entry)
            if entry.outcome is not None:
                self._on_end()

    def learned(self, entry: JobEntry, stored: JobEntry, *, is_news: bool = False) -> None:
        """Bring an entry to what is stored, and tell of its newest change unless that was told.

        A repeated call finds what the first one did, so a change is told only if the entry has not heard of it. With
        ``is_news`` this very call has made the change, and it is told in any case: whoever has read the job meanwhile
        may have brought the entry as far, or further. A new job's entry is told of as it began; what has become of it
        since is told elsewhere.
        """
        was, now = entry.progress, stored.progress
        if not entry.order:
            entry.order, entry.created_at, entry.submission = stored.order, stored.created_at, stored.submission
            self.listener.changed(entry)
        else:
            is_news = is_news or now > was
        is_current = (now, stored.ticket) >= (was, entry.ticket)
        if is_current:
            for name in _LEARNED:
                setattr(entry, name, getattr(stored, name))
            entry.plan = entry.plan.with_priority(stored.plan.priority)
        if is_news:
            self.listener.changed(entry if is_current else stored)

    def settled(self, entry: JobEntry, settled: Settled | None) -> bool:
        """Bring a claim's entry to what became of its job, and tell of it, unless that was told; False for None."""
        if settled is None:
            return False
        self.learned(entry, settled.entry, is_news=settled.is_news)
        if settled.entry.outcome is not None:
            self._on_end()
        return True

    def replied(self, reply: CancelReply | None) -> CancelReply | None:
        """Tell of the end of a job where a request to cancel has ended it, and return the answer to the request."""
        if reply is not None and reply.accepted and reply.entry.outcome is not None:
            self.changed((reply.entry,))
        return reply

    def ended(self, entry: JobEntry, outcome: Outcome, error: JobError | None, worker: str, at: float) -> None:
        """Bring a running job's entry to the end that was asked for, and tell of it."""
        if entry.state is JobState.RUNNING:  # else somebody has read already that it is not
            finish(entry, outcome, worker=worker, now=at, error=error)
        self.listener.changed(entry)
        self._on_end()
