"""All jobs that match, found page by page, where jobs come and go meanwhile.

It must not know where the pages come from: a store, or a server that asks one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio._errors import UnknownJobError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._records import JobRecord

PAGE = 100
"""Jobs in a page."""


class FoundJobs:
    """The records of all jobs that match, one by one: an async iterator.

    The next page is read before the last job of the one before is handed out: whoever is given a job may remove it,
    and a page is asked for by the job that it is to follow.
    """

    def __init__(self, find: Callable[[str | None], Awaitable[list[JobRecord]]]) -> None:
        """Prepare to find.

        Args:
            find: Returns the page behind the job with an id, or the first one. Only an empty page is the last.
        """
        self._find = find
        self._ready: list[JobRecord] = []  # to be handed out, the next one last
        self._page: list[JobRecord] | None = None
        self._is_reading = False

    def __aiter__(self) -> FoundJobs:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> JobRecord:
        while len(self._ready) <= 1 and (self._page is None or self._page):
            await self._read()
        if not self._ready:
            raise StopAsyncIteration
        return self._ready.pop()

    async def _read(self) -> None:
        if self._is_reading:
            raise trio.BusyResourceError("another task is given a job by this iterator just now")
        self._is_reading = True
        try:
            self._page = await (self._find(None) if self._page is None else find_behind(self._page, self._find))
        finally:
            self._is_reading = False
        self._ready[:0] = reversed(self._page)


async def find_behind(
    page: list[JobRecord], find: Callable[[str | None], Awaitable[list[JobRecord]]]
) -> list[JobRecord]:
    """Return the page that follows ``page``: behind the last of its jobs that is still kept.

    Raises:
        UnknownJobError: None of them is.

    Cancellation: nothing has changed.
    """
    for record in reversed(page[1:]):
        try:
            return await find(record.id)
        except UnknownJobError:  # removed meanwhile
            pass
    return await find(page[0].id)
