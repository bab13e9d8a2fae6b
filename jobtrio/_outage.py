"""Waiting out a store that is away: the same call again, with growing pauses, until it answers.

Every call to a store may be repeated with the same arguments; that is the contract. It must not know
what is called.
"""

from __future__ import annotations

from contextvars import ContextVar
from math import inf
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from jobtrio._errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds between two tries: doubled from the first to the longest."""

_limit: Final[ContextVar[float]] = ContextVar("jobtrio_limit", default=inf)


def limit_of_calls() -> float:
    """Return when whoever calls a store from this task stops waiting, whatever becomes of the call; inf for never.

    A store whose calls are waited for once they are under way, also by a task that is cancelled, lets it go then.
    """
    return _limit.get()


def never() -> bool:
    """Say of a call that it never becomes pointless."""
    return False


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


def nothing() -> None:
    """Check nothing."""


@trio.lowlevel.enable_ki_protection
async def try_for(
    seconds: float, call: Callable[[], Awaitable[T]], *, in_time: bool = False, check: Callable[[], None] = nothing
) -> T:
    """Return what ``call`` returns, making it again while the store is away, for so many seconds.

    Args:
        seconds: How long.
        call: What to call.
        in_time: Whether a call answers or raises within that time by itself. Then only what follows a failure needs a
            deadline, which costs as much as a third of storing a job.
        check: Called before each try, which is not made if it raises.

    Raises:
        StoreUnavailableError: The store was away all that time, or did not answer in it. The call may have been
            carried out all the same.

    Cancellation: the call may have been carried out.
    """
    if seconds == inf:
        check()
        return await call()
    give_up_at = trio.current_time() + seconds
    last: StoreUnavailableError | None = None
    if in_time:
        try:
            check()
            return await call()
        except StoreUnavailableError as exc:
            last = exc
    pause = FIRST_PAUSE
    limited = _limit.set(give_up_at)
    try:
        with trio.move_on_at(give_up_at):
            while True:
                if last is not None:
                    await trio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    check()
                    return await call()
                except StoreUnavailableError as exc:
                    last = exc
    finally:
        _limit.reset(limited)
    why = "it did not answer" if last is None else str(last)
    raise StoreUnavailableError(f"the store was away for {seconds:g} s: {why}") from last
