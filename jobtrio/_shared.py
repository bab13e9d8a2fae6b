"""Work that many ask for at the same time, and some do for all of them.

It owns who does it and who waits. It must not know what the work is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio._errors import StoreError, StoreUnavailableError, again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class SharedWork:
    """One kind of work, of which all who ask at the same time want the same."""

    def __init__(self) -> None:
        self._turn = trio.Lock()
        self._begun = 0
        self._ended = 0  # the last that was not cancelled
        self._error: StoreError | None = None  # as which that failed

    @trio.lowlevel.enable_ki_protection
    async def share(self, work: Callable[[], Awaitable[None]]) -> None:
        """Return once such work is done that began no sooner than this was called, by whomever.

        Raises:
            StoreUnavailableError: It raised that, or what others did meanwhile did.

        Cancellation: what was done of it stays; another one who waits begins anew.
        """
        begun, ended = self._begun, self._ended
        async with self._turn:
            if self._ended > ended and self._error is not None:
                raise again(self._error)
            if self._ended > begun:
                return
            self._begun = number = self._begun + 1
            try:
                await work()
            except StoreUnavailableError as exc:
                self._ended, self._error = number, again(exc)
                raise
            self._ended, self._error = number, None
