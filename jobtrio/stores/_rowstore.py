"""`RowStore`: a store that keeps jobs as rows, and changes them by the steps of `_settling` in its transactions.

It owns which operation a call is. It must not know how a transaction comes about.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from jobtrio.stores import _settling as settling
from jobtrio.stores._chunks import encoded, length_of
from jobtrio.stores._sessions import S, SessionStore
from jobtrio.stores._texts import text_of, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobtrio._entry import JobEntry, Plan
    from jobtrio._messages import Message
    from jobtrio._policies import JobPriority
    from jobtrio._records import JobError, Transition
    from jobtrio.abc import CancelReply, Claim
    from jobtrio.stores._announcer import Settled
    from jobtrio.stores._chunks import Item
    from jobtrio.stores._settling import JobSteps

T = TypeVar("T")
R = TypeVar("R")


class RowStore(SessionStore[S]):
    """A store of rows."""

    @abstractmethod
    async def _change(self, job_id: str, do: Callable[[JobSteps], T], after: Callable[[T], R]) -> R:
        """Change a job in a transaction; once that is committed, return what ``after`` makes of what ``do`` returns."""

    @abstractmethod
    async def _write(self, claim: Claim, size: int, do: Callable[[JobSteps], T], after: Callable[[T], R]) -> R:
        """Change a claim's job likewise, by what brings so many characters."""

    async def history(self, job_id: str) -> list[Transition] | None:
        """Return a job's changes of state, the oldest first, or None for an unknown job."""
        entry = await self.look(job_id)
        return None if entry is None else entry.history()

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        """Return up to ``limit`` kept messages after number ``after``, or None for an unknown job."""
        return (await self.follow(job_id, after, limit))[0]

    async def delete(self, job_id: str) -> bool:
        """Remove an ended job and all that belongs to it; False for an unknown one."""
        return await self._change(job_id, lambda tx: settling.delete(tx, job_id), itself)

    async def start_held(self, job_id: str, plan: Plan) -> bool:
        """Give a held job its plan, and make it ready; False if it is not held (any more)."""
        return await self._change(job_id, lambda tx: settling.start_held(tx, job_id, plan), itself)

    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        """Give a job that waits for a start another priority; return the job, or None for an unknown one."""
        return await self._change(job_id, lambda tx: settling.set_priority(tx, job_id, priority), itself)

    async def request_cancel(self, job_id: str, reason: str | None, grace: float) -> CancelReply | None:
        """Ask to cancel: a job that does not run ends at once, a running one when its attempt is gone."""
        replied = self._opened.announcer.replied
        return await self._change(job_id, lambda tx: settling.request_cancel(tx, job_id, reason, grace), replied)

    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        """Let a failed attempt be followed by another in ``delay`` seconds, after appending ``messages``."""
        items = encoded(messages)
        return await self._settle(claim, items, lambda tx: settling.retry(tx, claim, error, delay, counts, items))

    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        """Return a running job to its queue unfinished, after appending ``messages``."""
        items = encoded(messages)
        return await self._settle(claim, items, lambda tx: settling.release(tx, claim, reason, items))

    async def _settle(self, claim: Claim, items: Sequence[Item], do: Callable[[JobSteps], Settled | None]) -> bool:
        """End an attempt with these messages, and tell of it; False where its claim does not hold the job."""
        return await self._write(claim, length_of(items), do, partial(self._opened.announcer.settled, claim.entry))

    async def save_state(self, claim: Claim, value: Any) -> bool:
        """Keep a value for the job's next attempt."""
        text = text_of("a state", value)

        def saved(held: bool) -> bool:
            if held:
                claim.entry.saved_state = value_of(text)
            return held

        return await self._write(claim, len(text), lambda tx: settling.save_state(tx, claim, text), saved)


def itself(value: T) -> T:
    """Return an answer as it is."""
    return value
