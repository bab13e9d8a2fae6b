"""`Network`: the way to a server, and all that can go wrong on it, for tests alone.

It owns delays, faults and outages. It must not know what is carried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

import trio

from jobtrio._errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
When: TypeAlias = Literal["before", "after"]


class Network:
    """The way from one client to the server, and all that can go wrong on it.

    Attributes:
        latency: Seconds each way.
        calls: The names of all calls made so far.
        away: Whether every call fails now, and no signal arrives.
        hanging: The names of calls that are not answered now; ``"*"`` stands for all.
        failing: The names of calls that fail now.
        deaf: Whether signals are lost.
        slow: How long the replies to some calls take, by name, in seconds.
    """

    def __init__(self, latency: float, patience: float) -> None:
        self.latency = latency
        self._patience = patience  # seconds until a call that is not answered is given up
        self.calls: list[str] = []
        self.away = False
        self.hanging: set[str] = set()
        self.failing: set[str] = set()
        self.deaf = False
        self.slow: dict[str, float] = {}
        self._faults: dict[int, When] = {}
        self._unsteady: set[str] = set()

    def fail_at(self, n: int, when: When) -> None:
        """Have the n-th call from now fail, before or after it is carried out."""
        self._faults[len(self.calls) + n] = when

    def lose_every_other(self, name: str) -> None:
        """Have every other reply to the calls of this name be lost, the first one too."""
        self._unsteady.add(name)

    async def carry(self, name: str, work: Callable[[], T]) -> T:
        """Do ``work`` at the other end and bring back what it returns."""
        self.calls.append(name)
        fault = self._faults.pop(len(self.calls), None)
        if name in self._unsteady and self.calls.count(name) % 2:
            fault = "after"
        with trio.move_on_after(self._patience):
            return await self._carry(name, work, fault)
        raise StoreUnavailableError(f"no answer to {name}")

    async def _carry(self, name: str, work: Callable[[], T], fault: When | None) -> T:
        await trio.sleep(self.latency)
        if fault == "before":
            raise StoreUnavailableError(f"{name} did not arrive")
        await self._check(name)
        answer = work()
        if fault == "after":
            raise StoreUnavailableError(f"the reply to {name} was lost")
        await trio.sleep(self.slow.get(name, self.latency))
        await self._check(name)
        return answer

    async def _check(self, name: str) -> None:
        if self.hanging & {name, "*"}:
            await trio.sleep_forever()
        if self.away or name in self.failing:
            raise StoreUnavailableError(f"no way for {name}")
