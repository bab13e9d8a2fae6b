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
