"""The memory store keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing import STORE_CHECKS

if TYPE_CHECKING:
    from trio.testing import MockClock

    from jobtrio.testing import StoreCheck


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_memory_store(autojump_clock: MockClock, check: StoreCheck) -> None:
    """One object stands for all processes."""
    store = MemoryJobStore()
    await check(lambda: store)


class _LooksTwice(MemoryJobStore):
    """A store that always looks a second time before it says when there is more to do."""

    _has_looked = False

    async def advance(self) -> float:
        seconds = await super().advance()
        self._has_looked = not self._has_looked
        return 0.0 if self._has_looked else seconds


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_a_store_may_say_that_there_may_be_more(autojump_clock: MockClock, check: StoreCheck) -> None:
    """A store whose `advance` says 0, since news came in meanwhile, passes the checks all the same."""
    store = _LooksTwice()
    await check(lambda: store)
