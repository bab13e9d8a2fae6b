"""The leases of running attempts: that the watch over them never waits for a time that has come."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from jobtrio import JobPriority
from jobtrio._attempt import Attempt
from jobtrio._entry import CancelRequest, JobEntry, Plan
from jobtrio._errors import StoreUnavailableError
from jobtrio._leases import Leases
from jobtrio.abc import Claim, LeaseReport

if TYPE_CHECKING:
    from trio.testing import MockClock

PLAN = Plan("work", None, "default", JobPriority.NORMAL, None, None, "w")


def new_attempt() -> Attempt:
    return Attempt(Claim(JobEntry("id", PLAN, None, 0.0), "c", 1))


@pytest.mark.parametrize("lease", [1.0, 3.0, 7.7, 30.0])
def test_whose_time_has_come_is_let_go(lease: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the very moment that the watch sleeps until, the lease is overdue, however the sums are rounded."""
    rng = random.Random(1)
    store: Any = None
    for _ in range(1000):
        leases, attempt = Leases(store, lease, shows=True), new_attempt()
        until = rng.uniform(0, 100)
        leases._until[attempt] = until
        now = leases._stop_at(until)
        monkeypatch.setattr(trio, "current_time", lambda: now)  # noqa: B023 - asked within this turn
        leases._stop_overdue()
        assert not leases._until
        assert attempt.is_lost()


async def test_an_attempt_that_ends_as_it_is_renewed() -> None:
    """What is said of an attempt that has ended meanwhile is not heeded, and it is not renewed again."""
    ended, lost, held = attempts = [new_attempt() for _ in range(3)]
    renewed: list[list[Claim]] = []

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        renewed.append(claims)
        leases.ended(ended)
        return [LeaseReport(claim is held.claim, claim.entry) for claim in claims]

    store: Any = SimpleNamespace(renew=renew)
    leases = Leases(store, 9.0, shows=False)
    for attempt in attempts:
        leases.started(attempt, trio.current_time())
    for _ in range(2):
        assert await leases._renew(trio.current_time())
    assert renewed == [[attempt.claim for attempt in attempts], [held.claim]]
    assert [attempt.is_lost() for attempt in attempts] == [attempt is lost for attempt in attempts]


async def test_what_an_answer_brings(autojump_clock: MockClock) -> None:
    """A lease that was renewed begins anew, and a request to cancel is heeded; without an answer all stays as it is."""
    request = CancelRequest(0.0, "enough", 5.0)
    answers = [None, request]

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        if not answers:
            raise StoreUnavailableError("away")
        found = [JobEntry("id", PLAN, None, 0.0, cancel=cancel) for cancel in answers]
        answers.clear()
        return [LeaseReport(True, entry) for entry in found]

    store: Any = SimpleNamespace(renew=renew)
    leases, attempts = Leases(store, 9.0, shows=False), [new_attempt(), new_attempt()]
    for attempt in attempts:
        leases.started(attempt, trio.current_time())
    await trio.sleep(4)
    asked = trio.current_time()
    assert await leases._renew(asked)
    assert not await leases._renew(asked + 1)
    assert [leases._until[attempt] for attempt in attempts] == [asked + 9.0] * 2
    assert [attempt.is_stopped() for attempt in attempts] == [False, True]
    assert [attempt.claim.entry.cancel for attempt in attempts] == [None, request]
    assert attempts[1]._stop_by == asked + 5.0
    assert not any(attempt.is_lost() for attempt in attempts)


async def test_a_lease_that_is_overdue_is_not_renewed() -> None:
    """A process that stood still for longer than a lease lets the job go, and has nobody wait for another lease."""
    renewed: list[list[Claim]] = []

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        renewed.append(claims)
        return [LeaseReport(True, claim.entry) for claim in claims]

    store: Any = SimpleNamespace(renew=renew)
    leases, attempt = Leases(store, 9.0, shows=True), new_attempt()
    now = trio.current_time()
    leases.started(attempt, now - 9)
    assert await leases._renew(now)
    assert renewed == [[]]
    assert attempt.is_lost()


async def test_an_answer_that_a_busy_loop_comes_to_late(mock_clock: MockClock) -> None:
    """A renewal has time for its answer in turns of the loop, too: a job that holds up each of them loses no lease."""

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        for _ in range(6):
            await trio.lowlevel.checkpoint()
        return [LeaseReport(True, claim.entry) for claim in claims]

    async def compute() -> None:
        while True:
            mock_clock.jump(1.0)
            await trio.lowlevel.checkpoint()

    store: Any = SimpleNamespace(renew=renew)
    leases = Leases(store, 10.0, shows=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(compute)
        asked = trio.current_time()
        leases.started(new_attempt(), asked)
        assert await leases._renew(asked)
        nursery.cancel_scope.cancel()


async def test_a_renewal_that_hangs(autojump_clock: MockClock) -> None:
    """One that is never answered is given up in a quarter of the lease."""

    async def renew(claims: list[Claim], lease: float) -> list[LeaseReport]:
        await trio.sleep_forever()
        raise AssertionError("unreachable")

    store: Any = SimpleNamespace(renew=renew)
    leases = Leases(store, 10.0, shows=True)
    asked = trio.current_time()
    assert not await leases._renew(asked)
    assert trio.current_time() - asked == pytest.approx(2.5)


def test_what_has_ended_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease is forgotten with its attempt, also where it was let go of before."""
    monkeypatch.setattr(trio, "current_time", lambda: 0.0)
    store: Any = None
    leases, attempt = Leases(store, 30.0, shows=True), new_attempt()
    leases.started(attempt, 0.0)
    for _ in range(2):
        leases.ended(attempt)
    assert not leases._until
