"""Shared work: many ask for it at the same time, and few do it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from jobtrio import StoreUnavailableError
from jobtrio._errors import again
from jobtrio._shared import SharedWork

if TYPE_CHECKING:
    from trio.testing import MockClock


class Work:
    """Takes a second, and notes when it began; as often as that is given it fails."""

    def __init__(self, fails: int = 0) -> None:
        self.began: list[float] = []
        self.shared = SharedWork()
        self._fails = fails
        self._start = trio.current_time()

    async def do(self) -> None:
        self.began.append(trio.current_time() - self._start)
        await trio.sleep(1)
        if len(self.began) <= self._fails:
            raise StoreUnavailableError("away")

    async def ask(self) -> None:
        """Ask for it, and see that it was begun since then."""
        asked = trio.current_time() - self._start
        await self.shared.share(self.do)
        assert any(began >= asked for began in self.began)


async def test_many_at_once(autojump_clock: MockClock) -> None:
    """Those who come while it is done wait for the next time, which one of them does for all."""
    work = Work()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(work.ask)
        await trio.sleep(0.5)
        for _ in range(5):
            nursery.start_soon(work.ask)
        await trio.sleep(1)
        nursery.start_soon(work.ask)
    assert work.began == [0, 1, 2]


async def test_one_after_the_other(autojump_clock: MockClock) -> None:
    """Who comes when nobody does it does it."""
    work = Work()
    for _ in range(3):
        await work.ask()
    assert work.began == [0, 1, 2]


async def test_one_who_leaves(autojump_clock: MockClock) -> None:
    """Where the one who does it is cancelled, another one begins anew; one who waits may leave."""
    work = Work()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(0.5):
            nursery.start_soon(work.ask)
            await work.ask()
        with trio.move_on_after(0.2) as waiting:
            await work.ask()
        assert waiting.cancelled_caught
        await work.ask()
    assert len(work.began) <= 3


async def test_it_fails(autojump_clock: MockClock) -> None:
    """Those who wait need not find out one after the other that it fails; who comes afterwards tries again."""
    work = Work(fails=1)
    failed: list[float] = []

    async def ask() -> None:
        with pytest.raises(StoreUnavailableError, match="away"):
            await work.shared.share(work.do)
        failed.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert [round(at - began, 6) for at in failed] == [1] * 5
    assert work.began == [0]
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(work.ask)
    assert work.began == [0, 1]


def test_for_another_task() -> None:
    """Each task gets an error object of its own, with the same cause."""
    error = StoreUnavailableError("away")
    error.__cause__ = OSError("why")
    fresh = again(error)
    assert fresh is not error
    assert (type(fresh), str(fresh), fresh.__cause__) == (StoreUnavailableError, "away", error.__cause__)
