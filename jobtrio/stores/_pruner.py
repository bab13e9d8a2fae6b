"""`Pruner`: has an opened store pruned again whenever many jobs have ended, since only so many are kept.

It owns when. It must not know how a store removes what is no longer kept.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

import trio

from jobtrio._errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LEAST: Final = 100
"""Jobs that have to have ended at least before it is worth it."""

SHARE: Final = 10
"""Which part of the jobs that are kept may have ended besides."""

RETRY_AFTER: Final = 1.0
"""Seconds until it is tried again when the store was away."""


class Pruner:
    """Counts the ends of jobs, and prunes when there were enough of them."""

    def __init__(self, prune: Callable[[], Awaitable[float]], finished_jobs: int) -> None:
        """Begin with none.

        Args:
            prune: Removes what is no longer kept; returns the seconds until there may be more.
            finished_jobs: How many jobs that have ended are kept.
        """
        self._prune = prune
        self._often = max(LEAST, finished_jobs // SHARE)
        self._ends = 0
        self._enough = inf  # until somebody has it prune, which a process that only watches does not
        self._many_ended = trio.Event()

    async def prune(self) -> float:
        """Prune, and from now on whenever many jobs have ended; return the seconds until there may be more."""
        self._enough = self._often
        return await self._prune()

    def ended(self) -> None:
        """Note that a job has ended."""
        self._ends += 1
        if self._ends >= self._enough:
            self._many_ended.set()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Prune when it is time, until cancelled."""
        while True:
            await self._many_ended.wait()
            self._ends, self._many_ended = 0, trio.Event()
            try:
                await self._prune()
            except StoreUnavailableError:
                self._many_ended.set()
                await trio.sleep(RETRY_AFTER)
