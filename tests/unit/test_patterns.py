"""Which key stands for a queue: names, patterns, and what is left of their limits."""

from __future__ import annotations

import copy
import random
from itertools import product

import pytest

from jobtrio._patterns import Limits, key_for, limited_by, note_running, own_key

QUEUES = ["".join(letters) for length in range(1, 4) for letters in product("ab*", repeat=length)]
"""All names of up to three of these letters."""


def naive(queue: str, keys: list[str]) -> str | None:
    """Return the key that stands for a queue, by a look at all of them."""
    if queue in keys and not queue.endswith("*"):
        return queue
    matching = [key for key in keys if key.endswith("*") and queue.startswith(key[: len(key) - 1])]
    return max(matching, key=len, default=None)


@pytest.mark.parametrize(
    ("queue", "keys", "expected"),
    [
        ("a", [], None),
        ("a", ["a"], "a"),
        ("a", ["b", "ab", ""], None),
        ("user:ann", ["user:*"], "user:*"),
        ("user:", ["user:*"], "user:*"),
        ("user", ["user:*"], None),
        ("user:*", ["user:*"], "user:*"),
        ("user:*", ["user:*", "user:**"], "user:**"),
        ("user:ann", ["*", "user:*", "user:a*", "user:b*"], "user:a*"),
        ("user:ann", ["user:ann", "user:ann*", "*"], "user:ann"),
        ("user:ann", ["user:*n", "us*r:ann"], None),
        ("us*r:ann", ["us*r:*", "*"], "us*r:*"),
        ("other", ["user:*", "*"], "*"),
        ("User:ann", ["user:*"], None),
        ("é", ["e*"], None),
    ],
)
def test_key_for(queue: str, keys: list[str], expected: str | None) -> None:
    """A name wins over patterns, and of these the longest; a star elsewhere is a letter."""
    assert key_for(queue, keys) == expected
    limits = Limits({key: n for n, key in enumerate(keys)})
    assert key_for(queue, limits) == expected
    assert limits.find(queue) == (None if expected is None else keys.index(expected))


def drawn(rng: random.Random, most: int = 4) -> Limits:
    """Return some limits for the names."""
    names = [*QUEUES, "a*", "b*", "*", "ab*"]
    return Limits({rng.choice(names): rng.randrange(1, 4) for _ in range(rng.randrange(most + 1))})


@pytest.mark.parametrize("seed", range(60))
def test_any_keys(seed: int) -> None:
    """Whatever the keys are, each queue finds the one that a look at all of them finds."""
    limits = drawn(random.Random(seed), 8)
    single, patterns = limits.split()
    for queue in QUEUES:
        key = naive(queue, [*limits])
        assert key_for(queue, limits) == key_for(queue, [*limits]) == key
        assert limits.find(queue) == limits.copy().find(queue) == (None if key is None else limits[key])
        first = next((most for prefix, most in patterns if queue.startswith(prefix)), None)
        assert dict(single).get(queue, first) == limits.find(queue)


@pytest.mark.parametrize("seed", range(60))
def test_limited_by(seed: int) -> None:
    """The keys of all queues are named that are limited and have room, whether this is said by name or by a pattern."""
    rng = random.Random(seed)
    totals, room = drawn(rng), drawn(rng)
    for key in [*room]:
        room[key] = rng.randrange(3)
    found = limited_by(totals, room)
    for queue in QUEUES:
        key = key_for(queue, totals)
        if key is not None and room.find(queue):
            assert key in found
    assert set(found) <= set(limited_by(totals, None)) == set(totals)


def test_limited_by_no_more_than_needed() -> None:
    """What has no queue in common with the room is not named."""
    totals = Limits({"user:*": 1, "user:ann": 1, "gpu": 1, "g*": 1})
    for room, expected in [
        ({"user:bob": 1}, ["user:*"]),
        ({"user:ann": 1}, ["user:ann"]),
        ({"user:ann": 0, "gpu": 0}, []),
        ({"user:b*": 1}, ["user:*"]),
        ({"u*": 1, "gpu": 2}, ["user:*", "user:ann", "gpu"]),
        ({"x*": 1}, []),
        ({}, []),
    ]:
        assert limited_by(totals, room) == expected
    assert limited_by(Limits({"a": 1, "b": 1}), {"b": 1, "c": 1}) == ["b"]


@pytest.mark.parametrize("seed", range(60))
def test_note_running(seed: int) -> None:
    """What is left tells for each queue how many more there may be, whatever runs; and in the end it is all again."""
    rng = random.Random(seed)
    limits = drawn(rng, 6)
    left, running = Limits(limits), dict.fromkeys(QUEUES, 0)
    for _ in range(60):
        queue = rng.choice(QUEUES)
        most = limits.find(queue)
        if most is None or (running[queue] and rng.random() < 0.5) or running[queue] == most:
            running[queue] = max(running[queue] - 1, 0)
        else:
            running[queue] += 1
        note_running(left, limits, queue, running[queue])
        blurred = [other for other in QUEUES if running[other] and other.endswith("*")]
        for each in QUEUES:
            free = max((limits.find(each) or 0) - running[each], 0)
            told = left.find(each) or 0
            if any(each.startswith(other) for other in blurred):
                assert told <= free  # one that is called as a pattern counts for those that go on behind its name
            else:
                assert told == free
    for queue in QUEUES:
        note_running(left, limits, queue, 0)
    assert left == limits


def test_without_patterns_what_is_full_is_not_named() -> None:
    """Where no key is a pattern, only queues with room are named."""
    limits = Limits({"a": 2, "b": 1})
    left = Limits(limits)
    for queue, running in [("a", 1), ("b", 1), ("c", 1)]:
        note_running(left, limits, queue, running)
    assert left == {"a": 1}


def test_own_key() -> None:
    """The key of a single queue is its name, unless that would be taken for a pattern."""
    assert [own_key(queue) for queue in ("a", "a*", "a*b")] == ["a", "a**", "a*b"]
    for queue in QUEUES:
        assert key_for(queue, [own_key(queue), "*", "a*"]) == own_key(queue)


@pytest.mark.parametrize("limits", [Limits(), Limits({"a": 1}), Limits({"a*": 1, "b": 2})])
def test_copies(limits: Limits) -> None:
    """A copy knows the same, however it is made, and goes on by itself."""
    for other in (limits.copy(), copy.copy(limits), copy.deepcopy(limits), Limits.of(dict(limits))):
        assert type(other) is Limits
        assert (other, other.find("ab"), other.find("b")) == (limits, limits.find("ab"), limits.find("b"))
        other["c"] = 1
        assert "c" not in limits
    assert Limits.of(limits) is limits
