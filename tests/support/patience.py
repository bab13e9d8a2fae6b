"""`wait_until`: waits in a test without Trio for what nobody tells of, and fails where it does not come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 60.0
"""Seconds after which it is taken to come no more."""


def wait_until(is_so: Callable[[], bool]) -> None:
    """Ask until something is so; fail after a minute."""
    limit = time.monotonic() + LIMIT
    while not is_so():
        assert time.monotonic() < limit, "it has not come about in a minute"
        time.sleep(0.005)
