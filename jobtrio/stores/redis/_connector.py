"""`Connector`: which of the servers to connect to.

It goes through the hosts of the URL until one serves, and follows a cluster that says who has the keys. It must not
know what is asked of the server.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from jobtrio.stores.redis import _errors as errors
from jobtrio.stores.redis._address import place_text
from jobtrio.stores.redis._link import Link, RedisError, open_link

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio.stores.redis._address import Address


class Connector:
    """Connects to where the jobs are."""

    def __init__(self, address: Address, patience: float) -> None:
        self._address: Final = address
        self._patience: Final = patience
        self._next = 0
        self._followed: tuple[str, int] | None = None

    @property
    def place(self) -> tuple[str, int]:
        """The host and port to be tried next."""
        hosts = self._address.hosts
        return self._followed or hosts[self._next % len(hosts)]

    @asynccontextmanager
    async def connect(self, *, turns: bool = True) -> AsyncIterator[Link]:
        """Connect for the duration of the block; where that fails, or the server is the wrong one, turn to the next.

        Args:
            turns: Whether to turn then, rather than leave that to another connection.

        Raises:
            StoreUnavailableError: The server could not be reached, or is not the one to ask.
            StoreError: It has refused.
        """
        place = self.place
        try:
            async with open_link(self._address, place, self._patience) as link:
                yield link
            if turns and link.astray is not None:
                self._turn(place, link.astray)
        except (RedisError, OSError, TimeoutError) as exc:
            if turns:
                self._turn(place, exc)
            raise errors.translate(exc, place_text(place)) from exc

    def _turn(self, place: tuple[str, int], why: BaseException) -> None:
        moved = errors.moved_to(why)
        if moved is not None:
            host, port = moved
            self._followed = (host or place[0], port)
        elif self._followed is not None:
            self._followed = None
        else:
            self._next += 1
