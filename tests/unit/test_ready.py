"""Which ready job comes first."""

from __future__ import annotations

import random
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from call_count import calls_made

from jobtrio import JobPriority, JobState
from jobtrio._entry import JobEntry, Plan
from jobtrio.stores._ready import ReadyQueue
from jobtrio.stores._room import Room

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

LOW, NORMAL, HIGH, CRITICAL = JobPriority


class Line:
    """A queue that knows the names of its jobs."""

    def __init__(self) -> None:
        self.ready = ReadyQueue()
        self.tickets = count(1)

    def push(
        self, name: str, priority: JobPriority = NORMAL, queue: str = "default", executor: str = "work"
    ) -> JobEntry:
        """Let a job stand in line."""
        plan = Plan(executor, None, queue, priority, None, None, "w")
        entry = JobEntry(name, plan, None, 0.0, ticket=next(self.tickets))
        self.ready.push(entry)
        return entry

    def leave(self, entry: JobEntry) -> None:
        """Let a job end where it stands."""
        entry.state = JobState.CANCELLED
        self.ready.gone(entry)

    def move(self, entry: JobEntry, priority: JobPriority) -> None:
        """Let a job stand at the end of the line of a priority."""
        self.ready.leave(entry)
        entry.plan, entry.ticket = entry.plan.with_priority(priority), next(self.tickets)
        self.ready.push(entry)

    def kept(self) -> int:
        """Return how many places are remembered."""
        lines = [each for level in self.ready._levels.values() for each in level.lines.values()]
        return sum(len(each.jobs) + each.left.total() for each in lines)

    def pop(
        self, limit: int = 100, room: Mapping[str, int] | None = None, executors: Collection[str] | None = None
    ) -> list[str]:
        """Take jobs, as a claim does."""
        entries = self.ready.pop(limit, None if room is None else Room(room), executors)
        for entry in entries:
            assert entry.state is JobState.QUEUED
            entry.state = JobState.RUNNING
        return [entry.id for entry in entries]


def test_empty() -> None:
    """An empty queue has nothing."""
    line = Line()
    assert not line.ready
    assert line.pop() == []
    assert line.pop(room={"default": 1}) == []
    assert line.pop(executors=["work"]) == []


@pytest.mark.parametrize("queues", ["a", "ab"])
def test_first_in_first_out(queues: str) -> None:
    """Within a priority the order is that of becoming ready, over all queues."""
    line = Line()
    for n in range(6):
        line.push(str(n), queue=queues[n % len(queues)])
    assert line.pop(2) == ["0", "1"]
    assert line.pop(3) == ["2", "3", "4"]
    assert line.ready
    assert line.pop(3) == ["5"]
    assert not line.ready


def test_priorities_are_strict() -> None:
    """A higher priority goes first, whatever its age and queue."""
    line = Line()
    for priority in (NORMAL, LOW, CRITICAL, HIGH):
        line.push(f"{priority.name} 1", priority)
        line.push(f"{priority.name} 2", priority, "other")
    assert line.pop(3) == ["CRITICAL 1", "CRITICAL 2", "HIGH 1"]
    assert line.pop() == ["HIGH 2", "NORMAL 1", "NORMAL 2", "LOW 1", "LOW 2"]


def test_room_of_a_queue() -> None:
    """No more than its room is taken of each queue, over all priorities; queues without room are passed by."""
    line = Line()
    for n in range(3):
        line.push(f"gpu {n}", HIGH, "gpu")
        line.push(f"cpu {n}", NORMAL, "cpu")
        line.push(f"low gpu {n}", LOW, "gpu")
        line.push(f"other {n}", CRITICAL, "other")
    assert line.pop(room={"gpu": 4, "cpu": 2}) == ["gpu 0", "gpu 1", "gpu 2", "cpu 0", "cpu 1", "low gpu 0"]
    assert line.pop(room={"gpu": 0, "cpu": 0}) == []
    assert line.pop(2, room={"gpu": 9}) == ["low gpu 1", "low gpu 2"]
    assert line.pop(room={"other": 1}) == ["other 0"]
    assert line.pop() == ["other 1", "other 2", "cpu 2"]


def test_room_within_one_priority() -> None:
    """With room for some, the oldest of all queues come first, each queue up to its room."""
    line = Line()
    for n in range(4):
        line.push(f"a{n}", queue="a")
        line.push(f"b{n}", queue="b")
    assert line.pop(room={"a": 1, "b": 3}) == ["a0", "b0", "b1", "b2"]
    assert line.pop(2, room={"a": 3, "b": 3}) == ["a1", "a2"]


def test_the_given_room_is_left_alone() -> None:
    """The mapping that was given is not changed."""
    line = Line()
    line.push("a")
    line.push("b", queue="other")
    room = {"default": 1, "other": 1}
    line.pop(room=room)
    assert room == {"default": 1, "other": 1}


@pytest.mark.parametrize("room", [None, {"default": 9}])
def test_those_that_left_are_passed_over(room: dict[str, int] | None) -> None:
    """Jobs that were cancelled or expired in line are not taken, wherever they stood."""
    line = Line()
    entries = [line.push(str(n)) for n in range(6)]
    for n in (0, 1, 3, 5):
        line.leave(entries[n])
    assert line.ready
    assert line.pop(room=room) == ["2", "4"]
    assert not line.ready
    assert line.pop(room=room) == []


def test_only_the_dead_are_left() -> None:
    """When all have left there is nothing, and new ones are found behind them."""
    line = Line()
    for entry in [line.push(str(n)) for n in range(3)]:
        line.leave(entry)
    assert not line.ready
    assert line.pop() == []
    line.push("new")
    assert line.pop() == ["new"]


def test_those_that_left_are_not_kept() -> None:
    """However many jobs leave behind one that stays, their memory is bounded."""
    line = Line()
    line.push("stays")
    for n in range(10_000):
        line.leave(line.push(str(n)))
    assert line.kept() <= 100
    assert line.pop() == ["stays"]


def test_a_job_that_moves() -> None:
    """A job that is given another priority stands at its end alone, also where it comes back to."""
    line = Line()
    a, _, c = (line.push(name) for name in "abc")
    line.push("high", HIGH)
    line.move(c, HIGH)
    line.move(a, LOW)
    line.push("higher", HIGH)
    line.move(a, NORMAL)
    assert len(line.ready) == line.ready.count(Room({"default": 9})) == 5
    assert line.pop() == ["high", "c", "higher", "b", "a"]
    assert not line.ready
    assert line.pop() == []


@pytest.mark.parametrize("way", [{}, {"room": {"default": 9}}, {"executors": ["work"]}])
def test_a_job_that_moved_and_comes_back(way: dict[str, Any]) -> None:
    """A job that has moved, was taken and is ready once more stands at the end of its line alone."""
    line = Line()
    entries = [line.push(str(n)) for n in range(3)]
    line.move(entries[0], HIGH)
    line.move(entries[0], NORMAL)
    line.move(entries[1], NORMAL)
    assert line.pop(2, **way) == ["2", "0"]
    entries[0].state, entries[0].ticket = JobState.QUEUED, next(line.tickets)
    line.ready.push(entries[0])
    assert line.pop(**way) == ["1", "0"]


def test_a_job_that_moved_and_ends() -> None:
    """A job that has moved and was cancelled is not taken, at none of its places."""
    line = Line()
    entries = [line.push(str(n)) for n in range(3)]
    for priority in (LOW, NORMAL, HIGH, NORMAL):
        line.move(entries[1], priority)
    line.leave(entries[1])
    assert line.pop() == ["0", "2"]


def test_former_places_are_not_kept() -> None:
    """However often jobs move among others, the memory for it is bounded."""
    line = Line()
    entries = [line.push(str(n)) for n in range(20)]
    for n in range(10_000):
        line.move(entries[n % 10 or 5], JobPriority(n % 4))
    assert line.kept() <= 4 * 2 * (64 + 2 * 20)
    assert sorted(line.pop(), key=int) == [str(n) for n in range(20)]


def calls_to_move(jobs: int) -> float:
    """Return the calls it takes to move each of so many jobs, the newest first."""
    line = Line()
    entries = [line.push(str(n)) for n in range(jobs)]

    def move() -> None:
        for entry in reversed(entries):
            line.move(entry, LOW)

    return calls_of(move) / jobs


def test_moving_costs_the_same_with_many() -> None:
    """To move a job costs no look at all the others in its line, in the long run."""
    assert calls_to_move(3_200) < 2 * calls_to_move(200)


@pytest.mark.parametrize("seed", range(40))
def test_same_as_a_list(seed: int) -> None:
    """Whatever is put in, moved, cancelled and taken, it is what a list would give that is searched each time."""
    draw = random.Random(seed)
    line = Line()
    waiting: list[JobEntry] = []
    for n in range(400):
        match draw.choices(["push", "move", "leave", "pop"], [5, 8, 1, 3])[0]:
            case "push":
                waiting.append(line.push(f"{n}", draw.choice([*JobPriority]), draw.choice("abc"), draw.choice("xy")))
            case "move" if waiting:
                line.move(draw.choice(waiting[:3] + waiting), draw.choice([*JobPriority]))
            case "leave" if waiting:
                line.leave(waiting.pop(draw.randrange(len(waiting))))
            case "pop":
                limit, queues, executors = draw.choice([1, 2, 9]), draw.sample("abc", 2), draw.choice([None, "x"])
                room = draw.choice([None, dict.fromkeys(queues, draw.choice([1, 5]))])
                waiting.sort(key=lambda entry: (-entry.plan.priority, entry.ticket))
                taken: list[JobEntry] = []
                left = dict.fromkeys("abc", 99) if room is None else dict(room)
                for entry in waiting:
                    is_wanted = executors is None or entry.plan.executor == executors
                    if len(taken) < limit and is_wanted and left.get(entry.plan.queue, 0) > 0:
                        left[entry.plan.queue] -= 1
                        taken.append(entry)
                assert line.pop(limit, room, executors) == [entry.id for entry in taken]
                waiting = [entry for entry in waiting if entry not in taken]
                if taken and draw.random() < 0.3:  # it is ready once more
                    back = taken[0]
                    back.state, back.ticket = JobState.QUEUED, next(line.tickets)
                    line.ready.push(back)
                    waiting.append(back)
        assert len(line.ready) == len(waiting)
        for queue in "abc":
            expected = sum(entry.plan.queue == queue for entry in waiting)
            assert line.ready.count(Room({queue: 999})) == expected


def test_names_made_on_the_fly_are_not_kept() -> None:
    """However many queue names come and go, the memory for them is bounded."""
    line = Line()
    line.push("stays", queue="stays")
    for n in range(10_000):
        line.push(str(n), queue=f"queue {n}")
        assert line.pop(1, room={f"queue {n}": 1}) == [str(n)]
    assert sum(len(level.lines) + len(level.heads) for level in line.ready._levels.values()) <= 200
    assert line.pop() == ["stays"]


def test_those_that_came_and_went_are_not_kept() -> None:
    """However many jobs go through one queue, nothing is kept of them."""
    line = Line()
    for n in range(1_000):
        line.push(str(n))
        assert line.pop(1) == [str(n)]
    assert sum(len(level.heads) for level in line.ready._levels.values()) <= 1


def test_order_when_names_are_forgotten() -> None:
    """What is ready stays in its order when the names of empty queues are forgotten."""
    line = Line()
    for n in range(60):
        line.push(str(n), queue=f"queue {n}")
    assert line.pop(2) == ["0", "1"]
    for n in range(60, 300):
        line.push(str(n), queue=f"queue {n}")
    assert line.pop(400) == [str(n) for n in range(2, 300)]


def test_executors() -> None:
    """Only jobs of these executors are taken, wherever in line they stand, in their order and within the room."""
    line = Line()
    for n in range(3):
        line.push(f"a{n}", executor="a", queue="one")
        line.push(f"b{n}", executor="b", queue="two")
        line.push(f"c{n}", executor="c", queue="one", priority=HIGH)
    assert line.pop(3, executors=["b", "c"]) == ["c0", "c1", "c2"]
    assert line.pop(executors={"b"}, room={"two": 2}) == ["b0", "b1"]
    assert line.pop(executors={"b"}, room={"one": 2}) == []
    assert line.pop(2, executors={"a", "b"}) == ["a0", "a1"]
    assert line.pop(executors={"c"}) == []
    assert line.pop() == ["a2", "b2"]
    assert not line.ready


def test_executors_and_those_that_left() -> None:
    """Of a chosen executor, too, those that left are passed over."""
    line = Line()
    entries = [line.push(str(n)) for n in range(3)]
    line.leave(entries[1])
    assert line.pop(executors={"work"}) == ["0", "2"]


def test_executors_and_those_that_come_back() -> None:
    """A job that was taken for its executor and is ready once more stands at the end of its line alone."""
    line = Line()
    entry = line.push("comes back")
    line.push("waits", executor="other")
    assert line.pop(executors={"work"}) == ["comes back"]
    entry.state, entry.ticket = JobState.QUEUED, next(line.tickets)
    line.ready.push(entry)
    assert line.pop() == ["waits", "comes back"]


def calls_of(function: Callable[[], object]) -> int:
    """Return how many calls a function makes."""
    with calls_made() as calls:
        function()
    return calls.count


def calls_to_take_one_by_one(queues: int) -> float:
    """Return the calls it takes to take a job, out of so many queues with one each."""
    line = Line()
    for n in range(queues):
        line.push(str(n), queue=f"queue {n}")
    return calls_of(lambda: [line.pop(1) for _ in range(queues)]) / queues


def test_taking_costs_the_same_with_many_queues() -> None:
    """To take a job costs no look at every queue that has some."""
    assert calls_to_take_one_by_one(3_200) < 2 * calls_to_take_one_by_one(200)


def calls_to_leave(jobs: int) -> float:
    """Return the calls it takes to let a job leave a line of so many."""
    line = Line()
    entries = [line.push(str(n)) for n in range(jobs)]

    def leave() -> None:
        for entry in entries:
            line.leave(entry)

    return calls_of(leave) / jobs


def test_leaving_costs_the_same_with_many() -> None:
    """To leave a line costs no look at all the others in it, in the long run."""
    assert calls_to_leave(3_200) < 2 * calls_to_leave(200)


def test_new_queues_cost_no_look_at_all() -> None:
    """The names of queues in which nothing may be left are seldom looked through where most are still in use."""
    line, seen = Line(), list[object]()
    for n in range(3_200):
        line.push(str(n), queue=f"queue {n}")
        [level] = line.ready._levels.values()
        if not seen or seen[-1] is not level.lines:
            seen.append(level.lines)
    assert len(seen) <= 10


def calls_with_one_limit(queues: int) -> int:
    """Return the calls it takes to count what may start, where one of so many queues has a limit over all workers."""
    line = Line()
    for n in range(queues):
        line.push(str(n), queue=f"queue {n}")
    room = Room(None, {"queue 7": 0})
    return calls_of(lambda: line.ready.count(room))


def test_counting_costs_the_same_with_many_queues() -> None:
    """To count what may start costs no look at the queues without a limit."""
    assert calls_with_one_limit(3_200) < 2 * calls_with_one_limit(200)


def calls_with_few_served(queues: int) -> int:
    """Return the calls it takes to count and to take what may start, where few of so many queues have room."""
    line = Line()
    for n in range(queues):
        line.push(str(n), queue=f"queue {n}")
    room = {"queue 5": 1, f"queue {queues - 5}": 1, "none": 1}

    def take() -> None:
        assert line.ready.count(Room(room)) == 2
        assert line.pop(2, room) == ["5", str(queues - 5)]
        assert line.ready.count(Room({})) == 0

    return calls_of(take)


def test_taking_from_few_of_many_queues() -> None:
    """To take from the few queues that have room costs no look at the many that have none."""
    assert calls_with_few_served(3_200) == calls_with_few_served(200)


def test_counting_changes_nothing() -> None:
    """What was counted can be taken."""
    line = Line()
    for priority in (LOW, HIGH):
        line.push(priority.name, priority)
    room = Room({"default": 1})
    assert [line.ready.count(room) for _ in range(2)] == [1, 1]
    assert room.of("default") == 1


def test_taking_costs_the_same_after_many_queues() -> None:
    """Queues in which nothing is left cost nothing, though their names are remembered for a while."""
    few, many = Line(), Line()
    for line, queues in ((few, 10), (many, 3_200)):
        for n in range(queues):
            line.push(str(n), queue=f"queue {n}")
        line.pop(queues)

    def push_and_pop(line: Line) -> None:
        line.push("next", queue="queue 3")
        assert line.pop(1) == ["next"]

    assert calls_of(lambda: push_and_pop(many)) < 2 * calls_of(lambda: push_and_pop(few))


@pytest.mark.parametrize("seed", range(20))
def test_limits_over_all_workers(seed: int) -> None:
    """Where some queues are limited and others not, no limit is passed and nothing else is held up."""
    rng = random.Random(seed)
    line, model = Line(), list[JobEntry]()
    for n in range(400):
        if rng.random() < 0.6:
            model.append(line.push(str(n), rng.choice(list(JobPriority)), rng.choice("abcd")))
            continue
        limits = {queue: rng.randrange(3) for queue in rng.sample("abc", 2)}
        limit = rng.randrange(1, 6)
        room = Room(None, limits)
        limits = dict.fromkeys("abcd", 400) | limits
        assert line.ready.count(room) == len(expected(model[:], 400, limits, None))
        taken = line.ready.pop(limit, room, None)
        for entry in taken:
            entry.state = JobState.RUNNING
        assert [entry.id for entry in taken] == expected(model, limit, limits, None)


@pytest.mark.parametrize("seed", range(20))
def test_as_a_sorted_list(seed: int) -> None:
    """Whatever is pushed, popped and leaves, the queue gives what a sorted list would."""
    rng = random.Random(seed)
    line, model = Line(), list[JobEntry]()
    queues = "abc" if seed % 2 else "abcdefghijklmnopqrst"
    for n in range(400):
        match rng.randrange(4):
            case 0 | 1:
                model.append(line.push(str(n), rng.choice(list(JobPriority)), rng.choice(queues), rng.choice("xy")))
            case 2 if model:
                line.leave(model.pop(rng.randrange(len(model))))
            case _:
                limit = rng.randrange(1, 6)
                served = rng.sample(queues, rng.randrange(len(queues)))
                room = None if rng.random() < 0.4 else {queue: rng.randrange(3) for queue in served}
                executors = None if rng.random() < 0.6 else {rng.choice("xy")}
                if room is not None:
                    assert line.ready.count(Room(room)) == len(expected(model[:], 10**6, room, None))
                assert line.pop(limit, room, executors) == expected(model, limit, room, executors)
        assert bool(line.ready) is bool(model)


def expected(model: list[JobEntry], limit: int, room: dict[str, int] | None, executors: set[str] | None) -> list[str]:
    """Take from the model what the queue should give."""
    left = None if room is None else dict(room)
    taken: list[JobEntry] = []
    for entry in sorted(model, key=lambda entry: (-entry.plan.priority, entry.ticket)):
        queue = entry.plan.queue
        if len(taken) == limit or (executors is not None and entry.plan.executor not in executors):
            continue
        if left is not None:
            if left.get(queue, 0) < 1:
                continue
            left[queue] -= 1
        taken.append(entry)
    for entry in taken:
        model.remove(entry)
    return [entry.id for entry in taken]
