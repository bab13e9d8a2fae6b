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
        """Wait for the next moment that is a multiple of ``interval`` seconds of Trio's clock, or not quite as long.

        Cancellation: those who wait for the same moment wake up early.
        """
        at = ceil(trio.current_time() / interval + 0.001) * interval
        others = self._waiting.get(at)
        if others is not None:
            await others.park()
            return
        others = self._waiting[at] = trio.lowlevel.ParkingLot()
        try:
            await trio.sleep_until(at)
        finally:
            del self._waiting[at]
            others.unpark_all()
