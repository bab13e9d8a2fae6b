"""The SQLite store keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.testing import STORE_CHECKS

if TYPE_CHECKING:
    from pathlib import Path

    from jobtrio.testing import StoreCheck


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_sqlite_store(tmp_path: Path, check: StoreCheck) -> None:
    """Each instance is a process of its own, as far as the file can tell."""
    await check(lambda: SqliteJobStore(tmp_path / "jobs.db", outage_limit=60.0))
