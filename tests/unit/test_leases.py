"""The leases of running attempts: that the watch over them never waits for a time that has come."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from jobtrio import JobPriority
from jobtrio._entry import JobEntry, Plan
from jobtrio._leases import Leases
from jobtrio._settlement import LOST
from jobtrio.abc import Claim, LeaseReport

if TYPE_CHECKING:
    from trio.testing import MockClock

PLAN = Plan("work", None, "default", JobPriority.NORMAL, None, None, "w")


@pytest.mark.parametrize("lease", [1.0, 3.0, 7.7, 30.0])
def test_whose_time_has_come_is_let_go(lease: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very moment that the watch sleeps until, the lease is overdue, however the sums are rounded."""
    rng = random.Random(1)
    runner: Any = SimpleNamespace(running={})
    for _ in range(1000):
        leases = Leases(runner, runner, lease, shows=True)
        until = rng.uniform(0, 100)
        leases._until[Claim(JobEntry("id", PLAN, None, 0.0), "c", 1)] = until
        now = leases._stop_at(until)
        monkeypatch.setattr(trio, "current_time", lambda: now)  # noqa: B023 - asked within this turn
        leases._stop_overdue()
        assert not leases._until


async def test_a_job_that_was_claimed_again() -> None:
    """Of a job's claims only that of the attempt which runs now is renewed; what is said of another harms nobody."""
    entry = JobEntry("id", PLAN, None, 0.0)
    old, new = Claim(entry, "a", 1), Claim(entry, "b", 2)
    stopped: list[str] = []
    attempt = SimpleNamespace(claim=new, stop=lambda cause, grace: stopped.append(cause))
    renewed: list[list[Claim]] = []

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        renewed.append(claims)
        return [LeaseReport(claim is new, entry) for claim in claims]

    store: Any = SimpleNamespace(renew=renew)
    runner: Any = SimpleNamespace(running={"id": attempt})
    leases = Leases(store, runner, 9.0, shows=False)
    now = trio.current_time()
    for claim in (old, new):
        leases.started(claim, now)
    assert await leases._renew(now)
    assert renewed == [[new]]
    leases.started(old, now - 9)
    leases._stop_overdue()
    assert not stopped


async def test_a_lease_that_is_overdue_is_not_renewed() -> None:
    """A process that stood still for longer than a lease lets the job go, and has nobody wait for another lease."""
    claim = Claim(JobEntry("id", PLAN, None, 0.0), "c", 1)
    stopped: list[str] = []
    attempt = SimpleNamespace(claim=claim, stop=lambda cause, grace: stopped.append(cause))
    renewed: list[list[Claim]] = []

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        renewed.append(claims)
        return [LeaseReport(True, claim.entry) for claim in claims]

    store: Any = SimpleNamespace(renew=renew)
    runner: Any = SimpleNamespace(running={"id": attempt})
    leases = Leases(store, runner, 9.0, shows=True)
    now = trio.current_time()
    leases.started(claim, now - 9)
    assert await leases._renew(now)
    assert renewed == [[]]
    assert stopped == [LOST]


async def test_an_answer_that_a_busy_loop_comes_to_late(mock_clock: MockClock) -> None:
    """A renewal has time for its answer in turns of the loop, too: a job that holds up each of them loses no lease."""
    entry = JobEntry("id", PLAN, None, 0.0)
    claim = Claim(entry, "c", 1)

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        for _ in range(6):
            await trio.lowlevel.checkpoint()
        return [LeaseReport(True, entry) for _ in claims]

    async def compute() -> None:
        while True:
            mock_clock.jump(1.0)
            await trio.lowlevel.checkpoint()

    store: Any = SimpleNamespace(renew=renew)
    runner: Any = SimpleNamespace(running={"id": SimpleNamespace(claim=claim)})
    leases = Leases(store, runner, 10.0, shows=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(compute)
        asked = trio.current_time()
        leases.started(claim, asked)
        assert await leases._renew(asked)
        nursery.cancel_scope.cancel()


async def test_a_renewal_that_hangs(autojump_clock: MockClock) -> None:
    """One that is never answered is given up in a quarter of the lease."""

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    store: Any = SimpleNamespace(renew=renew)
    leases = Leases(store, SimpleNamespace(running={}), 10.0, shows=True)  # type: ignore[arg-type]
    asked = trio.current_time()
    assert not await leases._renew(asked)
    assert trio.current_time() - asked == pytest.approx(2.5)


def test_what_has_ended_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is forgotten with its attempt, also where it was let go of before."""
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)
    runner: Any = SimpleNamespace(running={})
    leases = Leases(runner, runner, 30.0, shows=True)
    claim = Claim(JobEntry("id", PLAN, None, 0.0), "c", 1)
    leases.started(claim, 0.0)
    for _ in range(2):
        leases.ended(claim)
    assert not leases._until
