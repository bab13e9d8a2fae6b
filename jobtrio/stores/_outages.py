"""`OutageLog`: one line in the log when a store goes away, and one when it is back.

It owns how often that is said: what fails because of an outage fails again and again. It must not know what a store is.
"""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from logging import Logger

OUTAGE: Final = "is_outage"
"""The attribute of the log records that say so, by which they can be told from others."""

QUIET: Final = 15.0
"""Seconds after a refusal in which only the call that was refused says that the store is back, by succeeding. Whoever
waits for such a call repeats it sooner than that. If nobody does, any answer counts after this time."""

CALM: Final = 2.0
"""Seconds since the last refusal after which it is said that the store is back: one that has room for small values and
not for large ones refuses some calls of a kind and does others, and who waits repeats a call every second."""


class OutageLog:
    """Says once that a store is away, and once that it is back."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._failed_at: float | None = None  # while it is away: when it was first said to be
        self._answered_at = -inf
        self._refused: set[str] = set()  # while it is away: what it does not do, though it may do other things
        self._refused_at = -inf
        self._is_well = False  # while it is away: nothing has failed since it last did what it was to do

    @property
    def is_away(self) -> bool:
        """Whether it has been said to be away, and not yet to be back."""
        return self._failed_at is not None

    def failed(self, why: object, asked: float = inf, *, refused: str | None = None) -> None:
        """Note that the store could not be reached, or can't do something for now.

        Args:
            why: The error.
            asked: When the call began that failed, by the machine's monotonic clock: others that were answered
                meanwhile say that it is not the store.
            refused: What it refuses to do, where it may do other things all the time.
        """
        self._is_well = False
        if refused is not None:
            self._refused.add(refused)
            self._refused_at = time.monotonic()
        if self._failed_at is None and self._answered_at < asked:
            self._failed_at = time.monotonic()
            self._log.warning("the store is away: %s", why, extra={OUTAGE: True})

    def answered(self, asked: float = inf, what: str | None = None) -> None:
        """Note that the store has answered.

        Args:
            asked: When the call began that was answered, by the same clock: one that began before the store went away
                does not say that it is back.
            what: What it has done: shortly after it refused something, only some of that says so.
        """
        now = self._answered_at = time.monotonic()
        if self._failed_at is None or self._failed_at >= asked:
            return
        if what in self._refused or now >= self._refused_at + QUIET:
            self._refused.clear()
        self._is_well = not self._refused
        self.settle()

    def settle(self, *, is_last: bool = False) -> None:
        """Say that the store is back, if it is, and has refused nothing for a while; to be called now and then.

        Args:
            is_last: Whether it is closed: nothing can be refused any more.
        """
        is_calm = is_last or time.monotonic() >= self._refused_at + CALM
        if self._is_well and self._failed_at is not None and is_calm:
            self._failed_at = None
            self._log.warning("the store is back", extra={OUTAGE: True})
