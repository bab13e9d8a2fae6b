"""When a session sends what it has collected, and how many messages it hears in a second.

It must not know what is sent, nor what is done about too many.
"""

from __future__ import annotations

from math import ceil, inf
from typing import Literal, TypeAlias

import trio

Verdict: TypeAlias = Literal["pass", "refuse", "close"]


class Beats:
    """Moments that are multiples of an interval, at which many wake up together, by one timer.

    A timer costs more than a send, and every turn of the scheduler costs as well: those who wait for the same moment
    share both.
    """

    def __init__(self) -> None:
        self._waiting: dict[float, trio.lowlevel.ParkingLot] = {}

    async def wait(self, interval: float) -> None:
        """Wait for the next moment that is a multiple of ``interval`` seconds of Trio's clock.

        Cancellation: where it had the timer for others, one of them takes it over.
        """
        at = ceil(trio.current_time() / interval + 0.001) * interval
        others = self._waiting.get(at)
        if others is None:
            others = self._waiting[at] = trio.lowlevel.ParkingLot()
        else:
            await others.park()
            if self._waiting.get(at) is not others:
                return  # it is that moment
        try:
            await trio.sleep_until(at)
        finally:
            if others and trio.current_time() < at:
                others.unpark()
            else:
                del self._waiting[at]
                others.unpark_all()


class RateLimit:
    """Lets so many messages a second pass, and as many at once after a pause: a bucket that fills with time."""

    def __init__(self, per_second: float, now: float) -> None:
        self._rate = per_second
        self._level = per_second
        self._at = now

    def take(self, now: float, waited: float = inf) -> Verdict:
        """Say what becomes of one more message: it passes, is refused, or is one of twice too many.

        Args:
            now: The time, in seconds.
            waited: How long it was waited for. One that was there already may have come much earlier: what gathers
                while a request takes its time is not too much.
        """
        self._level += (now - self._at) * self._rate
        if waited > 0.25 / self._rate:
            self._level = min(self._level, self._rate)
        self._level -= 1
        self._at = now
        if self._level >= 0:
            return "pass"
        return "refuse" if self._level > -self._rate else "close"
