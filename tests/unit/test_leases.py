"""The leases of running attempts: that the watch over them never waits for a time that has come."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from jobtrio import JobPriority
from jobtrio._entry import JobEntry, Plan
from jobtrio._leases import Leases
from jobtrio.abc import Claim

PLAN = Plan("work", None, "default", JobPriority.NORMAL, None, None, "w")


@pytest.mark.parametrize("lease", [1.0, 3.0, 7.7, 30.0])
def test_whose_time_has_come_is_let_go(lease: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very moment that the watch sleeps until, the lease is overdue, however the sums are rounded."""
    rng = random.Random(1)
    runner: Any = SimpleNamespace(running={})
    for _ in range(1000):
        leases = Leases(runner, runner, lease)
        until = rng.uniform(0, 100)
        leases._until[Claim(JobEntry("id", PLAN, None, 0.0), "c", 1)] = until
        now = leases._stop_at(until)
        monkeypatch.setattr(trio, "current_time", lambda: now)  # noqa: B023 - asked within this turn
        leases._stop_overdue()
        assert not leases._until
