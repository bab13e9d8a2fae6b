"""Moments at which many wake up together, by one timer.

A timer costs more than a send, and every turn of the scheduler costs as well: those who wait for the same moment share
both. It must not know what they wait for.
"""

from __future__ import annotations

from math import ceil

import trio


class Beats:
    """Moments that are multiples of an interval."""

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
