"""The PostgreSQL store keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.testing import STORE_CHECKS

if TYPE_CHECKING:
    from jobtrio.testing import StoreCheck


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_postgres_store(postgres: str, check: StoreCheck) -> None:
    """Each instance is a process of its own, as far as the server can tell."""
    await check(lambda: PostgresJobStore(postgres, outage_limit=60.0))
