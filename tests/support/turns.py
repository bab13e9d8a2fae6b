"""`Turns`: counts the turns of the event loop that are left to others."""

from __future__ import annotations

import trio


class Turns:
    """A task that does nothing but take its turns.

    Attributes:
        taken: How many it has had.
    """

    def __init__(self) -> None:
        self.taken = 0

    async def take(self) -> None:
        """Take turns until cancelled."""
        while True:
            await trio.lowlevel.checkpoint()
            self.taken += 1
