"""`Pruner`: when an opened store is pruned besides the times that it says itself."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from jobtrio import StoreUnavailableError
from jobtrio.stores._pruner import LEAST, RETRY_AFTER, SHARE, Pruner


class Bench:
    """A store that notes when it is pruned."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.is_away = False

    async def prune(self) -> float:
        await trio.lowlevel.checkpoint()
        self.at.append(trio.current_time())
        if self.is_away:
            raise StoreUnavailableError("away")
        return 7.0


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(("kept", "enough"), [(0, LEAST), (LEAST * SHARE, LEAST), (50_000, 5_000)])
async def test_when_many_have_ended(bench: Bench, nursery: trio.Nursery, kept: int, enough: int) -> None:
    """A tenth of what is kept, and a hundred at least, have to have ended since the last time."""
    pruner = Pruner(bench.prune, kept)
    nursery.start_soon(pruner.run)
    assert await pruner.prune() == 7.0
    for rounds in (1, 2):
        for _ in range(enough - 1):
            pruner.ended()
        await wait_all_tasks_blocked()
        assert len(bench.at) == rounds
        pruner.ended()
        await wait_all_tasks_blocked()
        assert len(bench.at) == rounds + 1


async def test_who_only_watches(bench: Bench, nursery: trio.Nursery) -> None:
    """A process that nobody has prune does not by itself."""
    pruner = Pruner(bench.prune, 0)
    nursery.start_soon(pruner.run)
    for _ in range(10 * LEAST):
        pruner.ended()
    await wait_all_tasks_blocked()
    assert bench.at == []


async def test_while_the_store_is_away(bench: Bench, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """What can't be pruned now is tried again until it can, and then no more."""
    pruner = Pruner(bench.prune, 0)
    nursery.start_soon(pruner.run)
    await pruner.prune()
    begun = trio.current_time()
    bench.is_away = True
    for _ in range(LEAST):
        pruner.ended()
    await trio.sleep(2.5 * RETRY_AFTER)
    bench.is_away = False
    await trio.sleep(10 * RETRY_AFTER)
    assert [round((at - begun) / RETRY_AFTER) for at in bench.at] == [0, 0, 1, 2, 3]
