"""`until` and `wait_until`: wait in a test for what nobody tells of, and fail where it does not come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 60.0
"""Seconds after which it is taken to come no more."""


async def until(is_so: Callable[[], bool]) -> None:
    """Ask until something is so; fail after a minute."""
    with trio.fail_after(LIMIT):
        while not is_so():  # noqa: ASYNC110 - nobody tells of it
            await trio.sleep(0.01)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Do the same where there is no Trio."""
    limit = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < limit, "it has not come about in a minute"
        time.sleep(0.005)
