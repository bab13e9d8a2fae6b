"""Waiting out a store that is away: the same call again, with growing pauses, until it answers.

Every call to a store may be repeated with the same arguments; that is the contract. It must not know
what is called.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, TypeVar

import trio

from jobtrio._errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two tries: doubled from the first to the longest."""


async def keep_trying(call: Callable[[], Awaitable[T]], is_pointless: Callable[[], bool]) -> T | None:
    """Return what ``call`` returns, making it again while the store is away.

    Returns None once ``is_pointless`` says that nothing can be gained any more.

    Cancellation: the call may have been carried out.
    """
    pause = FIRST_PAUSE
    while True:
        try:
            return await call()
        except StoreUnavailableError:
            if is_pointless():
                return None
        await trio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def try_for(seconds: float, call: Callable[[], Awaitable[T]]) -> T:
    """Return what ``call`` returns, making it again while the store is away, for so many seconds.

    Raises:
        StoreUnavailableError: The store was away all that time, or did not answer in it. The call may have been
            carried out all the same.

    Cancellation: the call may have been carried out.
    """
    if seconds == inf:
        return await call()
    last: StoreUnavailableError | None = None
    pause = FIRST_PAUSE
    with trio.move_on_after(seconds):
        while True:
            try:
                return await call()
            except StoreUnavailableError as exc:
                last = exc
            await trio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
    why = "it did not answer" if last is None else str(last)
    raise StoreUnavailableError(f"the store was away for {seconds:g} s: {why}") from last
