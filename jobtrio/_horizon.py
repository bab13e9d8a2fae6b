"""How far a stream was when somebody began to read all that was there.

Where a job sends all the time, and the store is far away, more is there behind each piece that was read: who reads on
until there is nothing does so for as long as the job runs. It must not know what becomes of the messages.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from jobtrio._messages import Message

AHEAD = 16
"""Messages behind the ones that were read, where it is first asked whether there is one; then ever further ahead."""


class Horizon:
    """A number that a stream had not gone beyond, once one is found.

    Args:
        read: Reads messages of the stream as the store does: behind a number, so many at most.
    """

    def __init__(self, read: Callable[[int, int], Awaitable[Sequence[Message] | None]]) -> None:
        self._read = read
        self._number = inf
        self._ahead = 0

    async def is_reached(self, last: int) -> bool:
        """Tell whether all has been read that was there, now that something was read and ``last`` is its number.

        After the first piece that is not asked: mostly it was all, as the next reading shows.

        Cancellation: nothing has changed.
        """
        if self._number == inf:
            if self._ahead and not await self._read(last + self._ahead, 1):
                self._number = last + self._ahead
            self._ahead = 4 * self._ahead or AHEAD
        return last >= self._number
