"""What falls due when."""

from __future__ import annotations

import random
from math import inf

import pytest
from call_count import calls_made

from jobtrio import JobPriority, JobState
from jobtrio._entry import JobEntry, Plan
from jobtrio.stores._timers import Timer, TimerHeap

PLAN = Plan("work", None, "default", JobPriority.NORMAL, None, None, "w")


def scheduled(name: str, due: float) -> JobEntry:
    """Return a job with a start time."""
    return JobEntry(name, PLAN, None, 0.0, state=JobState.SCHEDULED, due=due)


def test_empty() -> None:
    """An empty heap has nothing due, ever."""
    heap = TimerHeap()
    assert heap.pop(1e9) is None
    assert heap.next() == inf


def test_in_order_of_time() -> None:
    """What has come is given in order, equal times in the order in which they were added."""
    heap = TimerHeap()
    jobs = [scheduled(name, due) for name, due in [("c", 3.0), ("a", 1.0), ("b1", 2.0), ("b2", 2.0)]]
    for job in jobs:
        heap.add(job.due, Timer.DUE, job)
    assert heap.next() == 1.0
    assert heap.pop(0.999) is None
    due = []
    while found := heap.pop(2.0):
        assert found[0] is Timer.DUE
        due.append(found[1].id)
    assert due == ["a", "b1", "b2"]
    assert heap.next() == 3.0


def test_infinity_is_no_time() -> None:
    """A time at infinity is not kept."""
    heap = TimerHeap()
    heap.add(inf, Timer.EXPIRY, scheduled("a", 1.0))
    assert not heap._heap
    assert heap.next() == inf
    assert heap.pop(inf) is None


@pytest.mark.parametrize("state", list(JobState))
def test_due_is_for_those_that_wait(state: JobState) -> None:
    """A start time counts for a scheduled or retrying job, and only the last one that was set."""
    heap = TimerHeap()
    job = scheduled("a", 1.0)
    heap.add(1.0, Timer.DUE, job)
    job.state = state
    found = heap.pop(1.0)
    assert (found is not None) is (state in {"SCHEDULED", "RETRYING"})
    heap.add(1.0, Timer.DUE, job)
    job.due = 2.0
    assert heap.pop(1.0) is None


def test_expiry_is_for_those_that_never_started() -> None:
    """An expiry counts until the first start or the end, and only the last one that was set."""
    job = JobEntry("a", PLAN, None, 0.0, expires=1.0)
    heap = TimerHeap()
    heap.add(1.0, Timer.EXPIRY, job)
    assert heap.pop(1.0) == (Timer.EXPIRY, job)
    for change in ({"attempt": 1}, {"state": JobState.CANCELLED}, {"expires": 2.0}, {"expires": None}):
        job = JobEntry("a", PLAN, None, 0.0, expires=1.0)
        heap.add(1.0, Timer.EXPIRY, job)
        for name, value in change.items():
            setattr(job, name, value)
        assert heap.pop(1.0) is None


def test_lease_is_for_those_that_run() -> None:
    """A lease counts for a running job, and only as it was renewed last."""
    job = JobEntry("a", PLAN, None, 0.0, state=JobState.RUNNING, lease_until=1.0)
    heap = TimerHeap()
    heap.add(1.0, Timer.LEASE, job)
    assert heap.pop(1.0) == (Timer.LEASE, job)
    heap.add(1.0, Timer.LEASE, job)
    job.lease_until = 2.0
    assert heap.pop(1.0) is None
    heap.add(2.0, Timer.LEASE, job)
    job.state = JobState.QUEUED
    assert heap.pop(2.0) is None


def test_outdated_ones_in_front_are_dropped() -> None:
    """Outdated times don't make anybody look too early: they are gone once somebody has looked."""
    heap = TimerHeap()
    gone, waits = scheduled("gone", 1.0), scheduled("waits", 2.0)
    heap.add(1.0, Timer.DUE, gone)
    heap.add(2.0, Timer.DUE, waits)
    gone.state = JobState.CANCELLED
    assert heap.pop(0.0) is None
    assert heap.next() == 2.0


def test_outdated_ones_are_not_kept() -> None:
    """However many times become outdated behind one that stays, their memory is bounded."""
    heap = TimerHeap()
    stays = scheduled("stays", 1.0)
    heap.add(1.0, Timer.DUE, stays)
    for n in range(10_000):
        job = scheduled(str(n), 1e9 + n)
        heap.add(job.due, Timer.DUE, job)
        job.state = JobState.CANCELLED
    assert len(heap._heap) <= 100
    assert heap.pop(1.0) == (Timer.DUE, stays)


def calls_to_add(times: int) -> float:
    """Return the calls that it takes to add a time, and to look whether many are outdated, of so many that are not."""
    heap = TimerHeap()
    jobs = [scheduled(str(n), float(n)) for n in range(times)]
    with calls_made() as calls:
        for job in jobs:
            heap.add(job.due, Timer.DUE, job)
            heap.trim(times)
    return calls.count / times


def test_adding_costs_the_same_with_many() -> None:
    """To add a time costs no look at all the others, in the long run."""
    assert calls_to_add(2_000) < 2 * calls_to_add(200)


def test_many_that_become_outdated_at_one_time() -> None:
    """Outdated times are dropped as jobs end, also where no other time is added."""
    heap = TimerHeap()
    jobs = [scheduled(str(n), float(n)) for n in range(1, 1001)]
    for job in jobs:
        heap.add(job.due, Timer.DUE, job)
    for living in range(999, 0, -1):
        jobs[living].state = JobState.CANCELLED  # the first one stays
        heap.trim(living)
        assert len(heap._heap) <= 4 * living + 64
    assert heap.pop(1e9) == (Timer.DUE, jobs[0])


@pytest.mark.parametrize("seed", range(5))
def test_a_sweep_keeps_the_order(seed: int) -> None:
    """What is left after sweeps comes in order."""
    rng = random.Random(seed)
    heap = TimerHeap()
    jobs = [scheduled(str(n), rng.random()) for n in range(1000)]
    for job in jobs:
        heap.add(job.due, Timer.DUE, job)
        if rng.random() < 0.9:
            job.state = JobState.CANCELLED
    found = []
    while item := heap.pop(1.0):
        found.append(item[1])
    assert found == sorted((job for job in jobs if job.state is JobState.SCHEDULED), key=lambda job: job.due)
