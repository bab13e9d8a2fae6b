"""Waiting out a store that is away: how often, how long, and when not."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio

from jobtrio import StoreError, StoreUnavailableError
from jobtrio._outage import keep_trying, limit_of_calls, try_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock


class Store:
    """A store that is away for its first calls, and notes when each came."""

    def __init__(self, failures: float) -> None:
        self.failures = failures
        self.began = trio.current_time()
        self.times: list[float] = []

    async def call(self) -> str:
        """Fail, or answer."""
        self.times.append(round(trio.current_time() - self.began, 6))
        await trio.lowlevel.checkpoint()
        if len(self.times) <= self.failures:
            raise StoreUnavailableError(f"failure {len(self.times)}")
        return "answer"


def never() -> bool:
    return False


Ask: TypeAlias = "Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]"


def for_ever(call: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    return keep_trying(call, never)


def for_ten_seconds(call: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
    return try_for(10, call)


ASKING: tuple[Ask, ...] = (for_ever, for_ten_seconds)


async def test_an_answer_at_once(autojump_clock: MockClock) -> None:
    """A store that is there is asked once."""
    for ask in ASKING:
        store = Store(0)
        assert await ask(store.call) == "answer"
        assert store.times == [0]


async def test_pauses_grow(autojump_clock: MockClock) -> None:
    """The pauses between two tries double from 0.05 s and stay at 1 s."""
    expected = [0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55, 4.55]
    for ask in ASKING:
        store = Store(8)
        assert await ask(store.call) == "answer"
        assert store.times == expected


async def test_giving_up(autojump_clock: MockClock) -> None:
    """Once nothing can be gained, the next failure is the last; an answer that comes all the same is taken."""
    store = Store(inf)
    assert await keep_trying(store.call, lambda: len(store.times) >= 3) is None
    assert len(store.times) == 3
    store = Store(0)
    assert await keep_trying(store.call, lambda: True) == "answer"


async def test_limit(autojump_clock: MockClock) -> None:
    """After so many seconds it is said how long the store was away, and what it said last."""
    store = Store(inf)
    with pytest.raises(StoreUnavailableError, match=r"away for 2\.5 s: failure 6") as caught:
        await try_for(2.5, store.call)
    assert isinstance(caught.value.__cause__, StoreUnavailableError)
    assert trio.current_time() - store.began == pytest.approx(2.5)


async def test_no_answer(autojump_clock: MockClock) -> None:
    """A call that is not answered within the limit is cancelled, and the error says so."""
    with pytest.raises(StoreUnavailableError, match="away for 3 s: it did not answer"):
        await try_for(3, trio.sleep_forever)


async def test_a_store_that_answers_in_time(autojump_clock: MockClock) -> None:
    """Its first call gets no deadline, which it keeps by itself; what follows a failure does, as of the first call."""
    store = Store(inf)
    deadlines: list[float] = []

    async def call() -> None:
        deadlines.append(trio.current_effective_deadline())
        await trio.sleep(2)
        await store.call()

    began = trio.current_time()
    with pytest.raises(StoreUnavailableError, match=r"away for 7 s: failure 3"):
        await try_for(7, call, in_time=True)
    assert trio.current_time() - began == pytest.approx(7)
    assert deadlines == [inf, *[began + 7] * 3]


async def test_a_store_that_fails_at_its_limit(autojump_clock: MockClock) -> None:
    """A store that takes all its time to fail is not asked again, and what it said is told."""

    async def call() -> None:
        await trio.sleep(5)
        raise StoreUnavailableError("no answer from the disk")

    with pytest.raises(StoreUnavailableError, match="away for 5 s: no answer from the disk"):
        await try_for(5, call, in_time=True)
    assert trio.current_time() < 5.1


async def test_no_limit(autojump_clock: MockClock) -> None:
    """A store that is never away is asked once, whatever it says."""
    store = Store(1)
    with pytest.raises(StoreUnavailableError, match="failure 1"):
        await try_for(inf, store.call)


async def test_other_errors(autojump_clock: MockClock) -> None:
    """Any other error comes out at once, and so does a cancellation from outside."""

    async def fail() -> None:
        raise StoreError("damaged")

    for ask in ASKING:
        with pytest.raises(StoreError, match="damaged"):
            await ask(fail)
        with trio.move_on_after(1) as scope:
            await ask(Store(inf).call)
        assert scope.cancelled_caught


async def test_stores_know_the_limit(autojump_clock: MockClock) -> None:
    """A call that follows a failure can ask when nobody waits for it any more."""
    store = Store(2)
    limits: list[float] = []

    async def call() -> str:
        limits.append(limit_of_calls())
        return await store.call()

    began = trio.current_time()
    assert await try_for(7, call, in_time=True) == "answer"
    assert limits == [inf, began + 7, began + 7]
    assert limit_of_calls() == inf
