"""Finding jobs in memory."""

from __future__ import annotations

import random
from itertools import count
from typing import Any

import pytest
from call_count import calls_made

from jobtrio import JobPriority, JobState
from jobtrio._entry import JobEntry, Plan
from jobtrio.abc import JobQuery
from jobtrio.stores import _index
from jobtrio.stores import _rules as rules
from jobtrio.stores._index import JobIndex

QUEUED, RUNNING, COMPLETED = JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED


class Shelf:
    """An index, with the plain list that it must agree with."""

    def __init__(self) -> None:
        self.index = JobIndex()
        self.kept: list[JobEntry] = []
        self.orders = count(1)
        self.plans: dict[tuple[str, str | None], Plan] = {}

    def plan(self, queue: str, executor: str | None) -> Plan:
        """Return a plan; jobs submitted alike share one."""
        new = Plan(executor, None, queue, JobPriority.NORMAL, None, None, "w")
        return self.plans.setdefault((queue, executor), new)

    def add(
        self,
        tags: dict[str, str] | None = None,
        queue: str = "default",
        executor: str | None = "work",
        state: JobState = QUEUED,
    ) -> JobEntry:
        """Take in a job."""
        order = next(self.orders)
        entry = JobEntry(str(order), self.plan(queue, executor), None, 0.0, state=state, tags=tags, order=order)
        self.index.add(entry)
        self.kept.append(entry)
        return entry

    def move(self, entry: JobEntry, state: JobState) -> None:
        """Let a job change its state."""
        previous, entry.state = entry.state, state
        self.index.moved(entry, previous)

    def remove(self, entry: JobEntry) -> None:
        """Forget a job."""
        self.index.remove(entry)
        self.kept.remove(entry)

    def find(self, after: int | None = None, **query: Any) -> list[str]:
        """Return the ids that are found, the oldest first; in both orders they are what the plain list has."""
        asked = JobQuery(**query)
        newest = JobQuery(newest_first=True, **query)
        matching = [entry for entry in self.kept if matches(entry, asked)]
        behind = [entry.id for entry in matching if after is None or entry.order > after]
        before = [entry.id for entry in matching if after is None or entry.order < after]
        found = [entry.id for entry in self.index.find(asked, after)]
        assert found == behind[: asked.limit]
        assert [entry.id for entry in self.index.find(newest, after)] == before[::-1][: asked.limit]
        return found


def matches(entry: JobEntry, query: JobQuery) -> bool:
    """Whether a job is one of those that were asked for."""
    return (
        (query.states is None or entry.state in query.states)
        and (query.queue is None or entry.plan.queue == query.queue)
        and (query.executor is None or entry.plan.executor == query.executor)
        and all((entry.tags or {}).get(key) == value for key, value in (query.tags or {}).items())
    )


def test_empty() -> None:
    """An empty index finds nothing and counts nothing."""
    shelf = Shelf()
    assert shelf.find() == []
    assert shelf.find(tags={"a": "1"}) == []
    assert shelf.index.count(QUEUED) == 0
    assert shelf.index.waiting(QUEUED, None) == 0
    assert shelf.index.living() == []


def test_by_tags() -> None:
    """Several tags must all match, key and value."""
    shelf = Shelf()
    shelf.add({"user": "ann", "kind": "x"})
    shelf.add({"user": "ann"})
    shelf.add({"user": "bob", "kind": "x"})
    shelf.add({"kind": "ann"})
    shelf.add()
    assert shelf.find(tags={"user": "ann"}) == ["1", "2"]
    assert shelf.find(tags={"user": "ann", "kind": "x"}) == ["1"]
    assert shelf.find(tags={"kind": "x", "user": "bob"}) == ["3"]
    assert shelf.find(tags={"user": "eve"}) == []
    assert shelf.find(tags={"user": "ann", "kind": "none"}) == []
    assert shelf.find(tags={}) == ["1", "2", "3", "4", "5"]


def test_by_everything() -> None:
    """Tags, states, queue and executor narrow each other."""
    shelf = Shelf()
    for tags in ({"a": "1"}, {"a": "2"}):
        for queue in ("q", "r"):
            for executor in ("e", "f", None):
                for state in (QUEUED, RUNNING):
                    shelf.add(tags, queue, executor, state)
    assert len(shelf.find(queue="q")) == 12
    assert len(shelf.find(executor="e")) == 8
    assert len(shelf.find(states=frozenset({QUEUED}))) == 12
    assert len(shelf.find(states=frozenset({QUEUED, RUNNING}))) == 24
    assert shelf.find(states=frozenset({COMPLETED})) == []
    assert shelf.find(states=frozenset()) == []
    assert shelf.find(tags={"a": "2"}, queue="r", executor="f", states=frozenset({RUNNING})) == ["22"]
    assert shelf.find(queue="none") == shelf.find(executor="none") == []


@pytest.mark.parametrize("query", [{}, {"tags": {"a": "1"}}, {"queue": "default"}, {"executor": "rare"}])
def test_pages(query: dict[str, Any]) -> None:
    """Pages behind the last job of the page before give all jobs once, the oldest first."""
    shelf = Shelf()
    for n in range(100):
        shelf.add({"a": "1"} if n % 3 else None, executor="rare" if n % 7 == 0 else "work")
    pages, after = [], 0
    while page := shelf.find(after, limit=7, **query):
        pages += page
        after = int(page[-1])
    assert pages == shelf.find(limit=1000, **query)
    assert len(pages) > 7


def test_the_first_page_of_many() -> None:
    """Behind none, the first page begins with the very first job, also where far more match than are on it."""
    shelf = Shelf()
    for _ in range(100):
        shelf.add()
    assert shelf.find(limit=2) == ["1", "2"]


def test_one_exactly_behind() -> None:
    """The job that ends a page is not on the next, and the one right behind it is."""
    shelf = Shelf()
    for _ in range(4):
        shelf.add({"a": "1"})
    assert shelf.find(2) == shelf.find(2, tags={"a": "1"}) == ["3", "4"]
    assert shelf.find(4) == []


def test_moved() -> None:
    """A job is found under the state that it is in now."""
    shelf = Shelf()
    entry = shelf.add()
    shelf.move(entry, RUNNING)
    assert shelf.find(states=frozenset({QUEUED})) == []
    assert shelf.find(states=frozenset({RUNNING})) == ["1"]
    assert (shelf.index.count(QUEUED), shelf.index.count(RUNNING)) == (0, 1)


def test_replanned() -> None:
    """A held job that is given an executor is found under it, and counted from then on."""
    shelf = Shelf()
    entry = shelf.add(executor=None)
    assert shelf.index.waiting(QUEUED, None) == 0
    previous, entry.plan = entry.plan, shelf.plan("other", "work")
    shelf.index.replanned(entry, previous)
    assert shelf.find(executor="work") == shelf.find(queue="other") == ["1"]
    assert shelf.find(queue="default") == []
    assert shelf.index.waiting(QUEUED, None) == 1
    assert (shelf.index.in_queue(QUEUED, "default"), shelf.index.in_queue(QUEUED, "other")) == (0, 1)


def test_removed() -> None:
    """A removed job is found in no way, and leaves nothing behind."""
    shelf = Shelf()
    entries = [shelf.add({"a": str(n)}) for n in range(10)]
    for entry in entries[::2]:
        shelf.remove(entry)
    assert shelf.find() == ["2", "4", "6", "8", "10"]
    assert shelf.find(tags={"a": "0"}) == []
    for entry in entries[1::2]:
        shelf.remove(entry)
    assert shelf.find() == []
    assert not shelf.index._tags
    assert len(shelf.index._by_age) == len(shelf.index._removed) == 0


def test_removing_costs_the_same_with_many() -> None:
    """Those that are kept are seldom looked through for the sake of the removed ones."""
    shelf = Shelf()
    entries = [shelf.add() for _ in range(2_000)]
    seen: list[object] = [shelf.index._by_age]
    for entry in entries:
        shelf.index.remove(entry)
        if seen[-1] is not shelf.index._by_age:
            seen.append(shelf.index._by_age)
    assert len(seen) <= 12


def test_an_id_that_comes_again() -> None:
    """A job whose id was another's before stands where its age puts it."""
    shelf = Shelf()
    entries = [shelf.add({"a": "1"}) for _ in range(4)]
    shelf.remove(entries[1])
    shelf.remove(entries[2])
    again = shelf.add({"a": "1", "b": "1"})
    again.id = entries[1].id
    assert shelf.find(tags={"a": "1"}) == ["1", "4", "2"]
    assert shelf.find(1, tags={"a": "1"}, limit=1) == ["4"]
    assert shelf.find(4, tags={"a": "1"}) == shelf.find(tags={"a": "1", "b": "1"}) == ["2"]


class Looks:
    """Counts the jobs that are looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0

        def counted(entry: JobEntry, query: JobQuery) -> bool:
            self.number += 1
            return rules.matches(entry, query)

        monkeypatch.setattr(_index, "matches", counted)

    def behind(self, after: int) -> int:
        """Return a number that tells what it is compared with."""
        return Number(after, self)


class Number(int):
    """A number that counts what it is compared with."""

    looks: Looks

    def __new__(cls, value: int, looks: Looks) -> Number:
        """Return a number."""
        self = super().__new__(cls, value)
        self.looks = looks
        return self

    def __lt__(self, other: int) -> bool:
        self.looks.number += 1
        return int(self) < other

    def __gt__(self, other: int) -> bool:
        self.looks.number += 1
        return int(self) > other


@pytest.mark.parametrize("tags", [{"a": "1", "c": "1"}, None])
@pytest.mark.parametrize("after", [0, 3000, 9000])
@pytest.mark.parametrize("removed", [0, 3])
def test_a_page_behind_many_looks_at_few(
    monkeypatch: pytest.MonkeyPatch, after: int, removed: int, tags: dict[str, str] | None
) -> None:
    """By tags that many of the jobs have, or by none, a page costs about what is on it, wherever it begins."""
    shelf = Shelf()
    entries = [shelf.add({"a": "1", "b": str(n % 2), "c": "1"}) for n in range(10_000)]
    for entry in entries[::removed] if removed else ():
        shelf.index.remove(entry)
    looks = Looks(monkeypatch)
    page = shelf.index.find(JobQuery(tags=tags, limit=7), looks.behind(after))
    assert [entry.order for entry in page] == sorted(entry.order for entry in page)
    assert len(page) == 7
    assert after < page[0].order <= after + 2
    assert looks.number <= 50
    looks.number = 0
    page = shelf.index.find(JobQuery(tags=tags, limit=7, newest_first=True), looks.behind(after + 1000))
    assert [entry.order for entry in page] == sorted((entry.order for entry in page), reverse=True)
    assert after + 998 <= page[0].order < after + 1000
    assert looks.number <= 50
    looks.number = 0
    assert len(shelf.index.find(JobQuery(tags={"a": "1", "b": "1"}, limit=7), looks.behind(after))) == 7
    assert looks.number <= 50


def test_a_rare_tag_looks_at_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One among thousands is found at a look, together with a tag that all have too."""
    shelf = Shelf()
    for n in range(10_000):
        shelf.add({"a": "1", "n": str(n)})
    looks = Looks(monkeypatch)
    for tags in ({"n": "7000"}, {"a": "1", "n": "7000"}):
        looks.number = 0
        [found] = shelf.index.find(JobQuery(tags=tags, limit=100), looks.behind(10))
        assert found.id == "7001"
        assert looks.number <= 2


def calls_with_queues(queues: int) -> int:
    """Return the calls that it takes to ask for one of so many queues."""
    shelf = Shelf()
    for n in range(queues):
        shelf.add(queue=f"q{n}")
    with calls_made() as calls:
        assert len(shelf.index.find(JobQuery(queue="q7"), 0)) == 1
        assert shelf.index.waiting(QUEUED, ["q7"]) == 1
        assert shelf.index.in_queue(QUEUED, "q7") == 1
    return calls.count


def test_one_queue_looks_at_no_other() -> None:
    """What is asked of one queue costs the same however many there are."""
    assert calls_with_queues(1000) == calls_with_queues(100)


def calls_to_add(queues: int) -> float:
    """Return the calls that it takes to take in a job, of so many with a queue each."""
    shelf = Shelf()
    with calls_made() as calls:
        for n in range(queues):
            shelf.add(queue=f"q{n}")
    return calls.count / queues


def test_a_new_queue_costs_the_same_with_many() -> None:
    """To take in the first job of a queue costs no look at all the others, in the long run."""
    assert calls_to_add(2_000) < 2 * calls_to_add(200)


def test_holders_that_come_and_go_are_not_kept() -> None:
    """However many jobs with a tag come and go, the memory for it is bounded."""
    shelf = Shelf()
    stays = shelf.add({"a": "1"})
    for _ in range(1000):
        shelf.remove(shelf.add({"a": "1"}))
    assert len(shelf.index._tags["a", "1"]) == 1
    assert shelf.find(tags={"a": "1"}) == [stays.id]


def test_jobs_that_come_and_go_are_not_kept() -> None:
    """However many jobs, tags and names come and go, the memory for them is bounded."""
    shelf = Shelf()
    stays = shelf.add(queue="stays")
    for n in range(5000):
        shelf.remove(shelf.add({"n": str(n)}, queue=f"queue {n}", executor=f"executor {n}"))
        shelf.plans.clear()
    assert len(shelf.index._tags) == 0
    assert len(shelf.index._cells) <= 600
    assert len(shelf.index._by_age) <= 3
    assert shelf.find() == [stays.id]
    assert shelf.find(queue="stays") == [stays.id]
    shelf.move(stays, RUNNING)
    assert shelf.find(states=frozenset({RUNNING})) == [stays.id]


def test_waiting() -> None:
    """Waiting jobs are counted by state and queue; held ones wait for nobody."""
    shelf = Shelf()
    shelf.add(queue="a")
    shelf.add(queue="a", executor="other")
    shelf.add(queue="b")
    shelf.add(queue="a", executor=None)
    shelf.add(queue="a", state=RUNNING)
    assert shelf.index.waiting(QUEUED, None) == 3
    assert shelf.index.waiting(QUEUED, ["a"]) == 2
    assert shelf.index.waiting(QUEUED, ["a", "b"]) == 3
    assert shelf.index.waiting(RUNNING, ["b"]) == 0
    assert shelf.index.waiting(QUEUED, []) == 0
    assert shelf.index.count(QUEUED) == 4


def test_counts() -> None:
    """Jobs are counted by queue and state, over all executors; of a queue whose jobs are gone nothing is told."""
    shelf = Shelf()
    shelf.add(queue="a")
    shelf.add(queue="a", executor="other")
    shelf.add(queue="a", state=RUNNING)
    shelf.add(queue="b", executor=None, state=COMPLETED)
    shelf.remove(shelf.add(queue="gone"))
    none = dict.fromkeys(JobState, 0)
    assert shelf.index.counts_of({"of": "nobody"}) == {}
    assert shelf.index.counts() == {"a": none | {QUEUED: 2, RUNNING: 1}, "b": none | {COMPLETED: 1}}


def test_living() -> None:
    """The living are those that have not ended, the oldest first."""
    shelf = Shelf()
    entries = [shelf.add(queue=str(n % 2), state=state) for n, state in enumerate([*JobState, *JobState])]
    assert shelf.index.living() == [entry for entry in entries if not entry.state.is_final]


@pytest.mark.parametrize("seed", range(20))
def test_as_a_plain_list(seed: int) -> None:
    """Whatever is added, moved and removed, each query finds what a plain list would."""
    rng = random.Random(seed)
    shelf = Shelf()
    for _ in range(300):
        match rng.randrange(5):
            case 0 | 1:
                tags = {key: rng.choice("12") for key in "ab" if rng.random() < 0.5}
                shelf.add(tags or None, rng.choice("qr"), rng.choice(["e", "f", None]), rng.choice(list(JobState)))
            case 2 if shelf.kept:
                shelf.move(rng.choice(shelf.kept), rng.choice(list(JobState)))
            case 3 if shelf.kept and rng.random() < 0.8:
                shelf.remove(rng.choice(shelf.kept))
            case _:
                shelf.find(
                    after=rng.choice([0, rng.randrange(300)]),
                    limit=rng.choice([1, 3, 1000]),
                    tags={key: rng.choice("12") for key in "ab" if rng.random() < 0.3},
                    queue=rng.choice(["q", "r", None, None]),
                    executor=rng.choice(["e", None, None]),
                    states=rng.choice([None, frozenset(rng.sample(list(JobState), 2))]),
                )
        for state in JobState:
            assert shelf.index.count(state) == sum(entry.state is state for entry in shelf.kept)
            for queue in "qr":
                there = sum(entry.state is state and entry.plan.queue == queue for entry in shelf.kept)
                assert shelf.index.in_queue(state, queue) == there
