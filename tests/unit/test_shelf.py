"""The kept jobs: how long an ended one is kept, and that no time that has come is waited for."""

from __future__ import annotations

import random

import pytest
import trio
from call_count import calls_made

from jobtrio import Completed, JobPriority, JobState, Retention
from jobtrio._entry import JobEntry, Plan
from jobtrio.stores._shelf import Shelf

PLAN = Plan("work", None, "default", JobPriority.NORMAL, None, None, "w")


class Clock:
    """A clock that shows what it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(trio, "current_time", lambda: self.now)


class Ended:
    """A shelf of ended jobs."""

    def __init__(self, retention: Retention) -> None:
        self.shelf = Shelf()
        self.shelf.retention = retention
        self.orders = 0

    def add(self, name: str, key: str | None = None) -> JobEntry:
        """Put in a job that has ended."""
        self.orders += 1
        entry = JobEntry(
            name, PLAN, None, 0.0, state=JobState.COMPLETED, outcome=Completed(), key=key, order=self.orders
        )
        self.shelf.put(entry)
        self.shelf.end(entry)
        return entry


@pytest.mark.parametrize("kept_for", [0.0, 0.1, 7.7, 3600.0])
def test_whose_time_has_come_is_gone(kept_for: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """When nothing is left to wait for, the job is gone, however the sums are rounded; before, it is not."""
    clock, rng = Clock(monkeypatch), random.Random(1)
    for _ in range(1000):
        ended = Ended(Retention(finished_for=kept_for))
        clock.now = rng.uniform(0, 1000)
        ended.add("a")
        if kept_for:
            clock.now += kept_for * 0.999
            assert ended.shelf.get("a") is not None
            clock.now += ended.shelf.next_eviction()
            while wait := ended.shelf.next_eviction():
                clock.now += wait
        assert ended.shelf.get("a") is None
        assert ended.shelf.next_eviction() == float("inf")
        assert not ended.shelf.jobs


def test_a_time_that_is_past(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the time of a job has come meanwhile, nothing is left to wait for, and no less than nothing."""
    clock = Clock(monkeypatch)
    ended = Ended(Retention(finished_for=10))
    ended.add("a")
    clock.now = 11
    assert ended.shelf.next_eviction() == 0.0


def test_removed_ones_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept, and those that were removed before their time take no place among them."""
    Clock(monkeypatch)
    ended = Ended(Retention(finished_jobs=4))
    entries = [ended.add(str(n)) for n in range(6)]
    assert [entry.id for entry in entries if ended.shelf.get(entry.id)] == ["2", "3", "4", "5"]
    ended.shelf.remove(entries[3])
    ended.add("3")
    assert sorted(ended.shelf.jobs) == ["2", "3", "4", "5"]
    ended.add("6")
    assert sorted(ended.shelf.jobs) == ["3", "4", "5", "6"]
    for name in ("4", "5", "6"):
        ended.shelf.remove(ended.shelf.jobs[name])
    for n in range(7, 12):
        ended.add(str(n))
    assert sorted(ended.shelf.jobs, key=int) == ["8", "9", "10", "11"]


def test_removed_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ended jobs are removed beside one that stays, the memory for them is bounded."""
    Clock(monkeypatch)
    ended = Ended(Retention())
    stays = ended.add("stays")
    for n in range(1_000):
        ended.shelf.remove(ended.add(str(n)))
    assert len(ended.shelf._ended) <= 3
    assert [*ended.shelf.jobs.values()] == [stays]


def calls_to_remove(jobs: int) -> float:
    """Return the calls that it takes to remove a job, of so many."""
    ended = Ended(Retention())
    entries = [ended.add(str(n)) for n in range(jobs)]
    with calls_made() as calls:
        for entry in entries:
            ended.shelf.remove(entry)
    return calls.count / jobs


def test_removing_costs_the_same_with_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """To remove a job costs no look at all the others, in the long run."""
    Clock(monkeypatch)
    assert calls_to_remove(2_000) < 2 * calls_to_remove(200)


def test_how_many_live(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended jobs are none of the living, whether they are still kept, or removed before their time."""
    Clock(monkeypatch)
    ended = Ended(Retention(finished_jobs=5))
    ended.shelf.put(JobEntry("lives", PLAN, None, 0.0, order=1_000))
    entries = [ended.add(str(n)) for n in range(9)]
    for entry in entries[6:8]:
        ended.shelf.remove(entry)
        assert ended.shelf.living == 1


def test_a_key_belongs_to_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """When an old job goes, a key that a newer one took over in the meantime stays with that."""
    clock = Clock(monkeypatch)
    ended = Ended(Retention(finished_for=10))
    old = ended.add("old", "k")
    clock.now = 5
    new = ended.add("new", "k")
    clock.now = 10
    fresh = JobEntry("fresh", PLAN, None, 0.0, key="k")
    assert ended.shelf.sort_out([fresh], "s") == ([], [new])
    assert ended.shelf.get("old") is None
    assert ended.shelf.sort_out([old], "s") == ([], [new])
    clock.now = 15
    assert ended.shelf.sort_out([fresh], "s") == ([fresh], [fresh])
