"""What a store still keeps of messages that a watcher was too slow for.

A process keeps a part of each stream that it follows, and drops the oldest of it when more is there than its readers
have taken. The store may have those yet: they are read from there, in their place. It must not know what becomes of
them.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Final

from jobtrio._errors import UnknownJobError
from jobtrio._messages import Gap, first_of
from jobtrio._outage import keep_trying, never
from jobtrio.stores._chunks import reached

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._job import Job
    from jobtrio._messages import Message
    from jobtrio._registry import JobRegistry
    from jobtrio.abc import JobStore

PAGE: Final = 1024
"""Messages that are read at a time."""


class Filler:
    """Hands over a job's messages, and in the place of a gap what the store has there."""

    def __init__(
        self, registry: JobRegistry, store: JobStore, job: Job, show: Callable[[list[Message]], Awaitable[None]]
    ) -> None:
        """Prepare to hand over.

        Args:
            registry: The registry that reads the store.
            store: The store, which it has opened.
            job: The job.
            show: What takes a batch.
        """
        self._registry = registry
        self._store = store
        self._job = job
        self._show = show

    async def show(self, messages: list[Message]) -> None:
        """Hand over a batch. While the store is away it is waited for. *Cancellation*: a part was handed over."""
        for gap, part in groupby(messages, _gap_in):
            await (self._show(list(part)) if gap is None else self._fill(gap))

    async def _fill(self, gap: Gap) -> None:
        after = gap.first - 1
        while after < gap.last:
            page = await self._read(after, gap.last)
            await self._show(page)
            after = reached(page, after)

    async def _read(self, after: int, last: int) -> list[Message]:
        """Return the next messages of a gap that ends with number ``last``; a smaller gap where they are not kept."""
        page = await keep_trying(partial(self._store.read_messages, self._job.id, after, PAGE), never)
        is_its_own = await keep_trying(self._is_kept, never)  # asked last: by then the id may be another job's
        found = [_up_to(last, message) for message in page or () if first_of(message) <= last] if is_its_own else []
        return found or [Gap(after + 1, last)]

    async def _is_kept(self) -> bool:
        try:
            return await self._registry.get(self._job.id) == self._job
        except UnknownJobError:
            return False


def _gap_in(message: Message) -> Gap | None:
    return message if isinstance(message, Gap) else None


def _up_to(last: int, message: Message) -> Message:
    return Gap(message.first, min(message.last, last)) if isinstance(message, Gap) else message
