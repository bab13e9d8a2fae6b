"""`until_answered`: a call to a store, made again as a registry makes it, until it is answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import trio

from jobtrio._outage import keep_trying, never

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call until it is answered; fail after a minute."""
    with trio.fail_after(60):
        return cast("T", await keep_trying(call, never))
