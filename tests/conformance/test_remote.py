"""The test-only store on another machine keeps the contract, so that what the core does on it means something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from remote_store import RemoteStore, Server

from jobtrio.testing import STORE_CHECKS

if TYPE_CHECKING:
    from trio.testing import MockClock

    from jobtrio.testing import StoreCheck


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_remote_store(autojump_clock: MockClock, check: StoreCheck) -> None:
    """Each instance is a process of its own."""
    server = Server()
    await check(lambda: RemoteStore(server))
