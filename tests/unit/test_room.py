"""How many jobs a claim may take from each queue."""

from __future__ import annotations

from math import inf

from jobtrio.stores._room import room_for


def running(queue: str) -> int:
    """Two of each queue run."""
    return 2


def test_any() -> None:
    """Where nothing limits, there is no room to keep."""
    assert room_for(None, {}, running) is None


def test_of_the_worker() -> None:
    """A worker that names its queues takes from no other, and no more than it says."""
    room = room_for({"a": 1, "b": 0}, {}, running)
    assert room is not None
    assert [room.of(queue) for queue in "abc"] == [1, 0, 0]
    room.take("a")
    assert [room.of(queue) for queue in "abc"] == [0, 0, 0]
    assert not room.has_others


def test_over_all_workers() -> None:
    """A limit over all workers counts what runs, and leaves other queues alone."""
    room = room_for(None, {"a": 3, "b": 2, "c": 1}, running)
    assert room is not None
    assert [room.of(queue) for queue in "abcd"] == [1, 0, 0, inf]
    room.take("a")
    room.take("d")
    assert [room.of(queue) for queue in "abcd"] == [0, 0, 0, inf]
    assert room.has_others
    assert [*(room.limited or ())] == ["a", "b", "c"]


def test_paused() -> None:
    """From a paused queue nothing is taken, whatever else limits it."""
    room = room_for(None, {}, running, {"a"})
    assert room is not None
    assert [room.of(queue) for queue in "ab"] == [0, inf]
    assert (room.has_others, {*(room.limited or ())}) == (True, {"a"})
    room = room_for(None, {"a": 3, "b": 3}, running, {"a", "c"})
    assert room is not None
    assert [room.of(queue) for queue in "abcd"] == [0, 1, 0, inf]
    assert {*(room.limited or ())} == {"a", "b", "c"}
    room = room_for({"a": 1, "b": 2}, {}, running, {"a", "c"})
    assert room is not None
    assert [room.of(queue) for queue in "abc"] == [0, 2, 0]
    assert not room.has_others


def test_of_both() -> None:
    """The smaller of the two limits counts; a queue that the worker does not serve stays closed."""
    room = room_for({"a": 9, "b": 1}, {"a": 3, "b": 30, "c": 30}, running)
    assert room is not None
    assert [room.of(queue) for queue in "abc"] == [1, 1, 0]


def test_patterns() -> None:
    """Each queue of a pattern has its room, and its limit over all workers, for itself; any queue may have one then."""
    room = room_for({"a": 0, "a*": 2, "b": 5}, {}, running)
    assert room is not None
    room.take("ab")
    assert [room.of(queue) for queue in ("a", "ab", "ac", "b", "c")] == [0, 1, 2, 5, 0]
    assert (room.has_others, room.limited) == (False, None)
    room = room_for(None, {"*": 3, "c": 9}, running)
    assert room is not None
    assert [room.of(queue) for queue in "abcd"] == [1, 1, 7, 1]
    assert (room.has_others, room.limited) == (True, None)
    room = room_for({"*": 1}, {"*": 3}, running, {"d"})
    assert room is not None
    assert [room.of(queue) for queue in "abcd"] == [1, 1, 1, 0]
