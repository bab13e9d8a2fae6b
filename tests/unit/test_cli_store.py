"""What the commands that use a store have in common."""

from __future__ import annotations

import errno
import math
import os
from typing import Any

import pytest

from jobtrio.cli._store import open_client, reason_of
from jobtrio.cli._watched_run import RunPlan, WatchedRun
from jobtrio.stores.memory import MemoryJobStore


def keeps_all(store: MemoryJobStore) -> bool:
    """Return whether a store was opened so that it removes nothing, however old, and however much there is."""
    kept = store.settings.retention
    return kept.finished_for == math.inf and kept.finished_jobs >= 2**31


async def test_looking_removes_nothing() -> None:
    """Who looks at a store, or puts something into it, removes nothing that is old: only workers and prune do."""
    store = MemoryJobStore()
    async with open_client(store):
        assert keeps_all(store)


async def test_running_a_program_removes_nothing() -> None:
    """Nor does who runs one program as a job of the store."""
    store = MemoryJobStore()
    payload: dict[str, Any] = {"argv": ["true"], "cwd": None, "env": {}, "grace": 5.0}
    plan = RunPlan(payload, queue=None, time_limit=None, retries=0, as_json=False, store=store)
    assert await WatchedRun(plan).perform() == 0
    assert keeps_all(store)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_output_without_room(number: int) -> None:
    """What the output is refused for is said as such, without its number."""
    assert reason_of(OSError(number, os.strerror(number))) == f"the output can't be written: {os.strerror(number)}"
