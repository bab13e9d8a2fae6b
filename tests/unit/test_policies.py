"""Retry delays, retention and priorities: pure data with its arithmetic."""

from __future__ import annotations

import math
import random
from typing import Any

import attrs
import other_numbers
import pytest

from jobtrio import JobPriority, Retention, RetryPolicy
from jobtrio._policies import check_priority


class Fixed(random.Random):
    """A generator that always draws the same end of a range."""

    def __init__(self, end: int) -> None:
        super().__init__(0)
        self.end = end

    def uniform(self, a: float, b: float) -> float:
        return (a, b)[self.end]


def test_defaults() -> None:
    """The defaults are the documented ones."""
    assert RetryPolicy() == RetryPolicy(max_attempts=3, initial=1.0, multiplier=2.0, max_delay=300.0, jitter=0.1)
    assert Retention() == Retention(10_000, 3600.0, 10_000, 300.0)


def test_delays_double_up_to_the_cap() -> None:
    """The delay grows by the multiplier after each attempt, and not beyond the cap."""
    policy = RetryPolicy(max_attempts=9, initial=1, multiplier=2, max_delay=5, jitter=0)
    assert [policy.delay_after(n) for n in range(1, 6)] == [1, 2, 4, 5, 5]


def test_a_delay_is_finite() -> None:
    """Jitter takes no delay beyond what a number can be."""
    retry = RetryPolicy(initial=1.7e308, max_delay=1.7e308, jitter=1.0)
    assert 1.7e308 < retry.delay_after(1, Fixed(1)) < math.inf


def test_jitter_is_a_share_of_the_capped_delay() -> None:
    """The jitter moves the delay by its share, down or up, also beyond the cap."""
    policy = RetryPolicy(initial=100, multiplier=10, max_delay=200, jitter=0.25)
    assert policy.delay_after(1, Fixed(0)) == 75
    assert policy.delay_after(1, Fixed(1)) == 125
    assert policy.delay_after(2, Fixed(1)) == 250


def test_jitter_is_random_within_its_bounds() -> None:
    """Without a generator the process's own is used, and the delay stays within the jitter."""
    policy = RetryPolicy(initial=10, jitter=0.1)
    delays = {policy.delay_after(1) for _ in range(50)}
    assert len(delays) > 1
    assert all(9 <= delay <= 11 for delay in delays)


def test_no_jitter_draws_nothing() -> None:
    """Without jitter the generator is left alone."""
    rng = random.Random(1)
    before = rng.getstate()
    RetryPolicy(jitter=0).delay_after(1, rng)
    assert rng.getstate() == before


@pytest.mark.parametrize("multiplier", [10.0, 10])
def test_overflow_is_the_cap(multiplier: float) -> None:
    """An attempt whose delay no float can hold waits for the cap, and not at all if the first wait is none."""
    policy = RetryPolicy(max_attempts=10_000, multiplier=multiplier, max_delay=7, jitter=0)
    assert policy.delay_after(5_000) == 7
    assert RetryPolicy(max_attempts=10_000, initial=0, multiplier=multiplier, jitter=0).delay_after(5_000) == 0
    assert RetryPolicy(max_attempts=10_000, initial=0.0, multiplier=multiplier, jitter=0).delay_after(5_000) == 0


@pytest.mark.parametrize("attempt", [0, -1, 1.5, "1", None, True])
def test_delay_after_refuses(attempt: Any) -> None:
    """There is no delay after an attempt that can't have been."""
    with pytest.raises((TypeError, ValueError), match=f"attempt must be a whole number, 1 or more; got {attempt!r}"):
        RetryPolicy().delay_after(attempt)


def test_policy_at_its_edges() -> None:
    """One attempt, delays that don't grow, no delay at all, and a delay that is all jitter are allowed."""
    policy = RetryPolicy(max_attempts=1, initial=0, multiplier=1, max_delay=0, jitter=1)
    assert policy.delay_after(1) == 0


def test_retention_at_its_edges() -> None:
    """Nothing kept at all, and everything kept for ever, are both allowed."""
    Retention(finished_jobs=0, finished_for=0, tokens_per_job=1, held_for=1e-9)
    Retention(finished_for=float("inf"), held_for=float("inf"))


class Whole(int):
    """A whole number of a class of its own, as an `enum.IntEnum` has."""


class Real(float):
    """A number of a class of its own, as numpy has."""


def test_numbers_become_plain() -> None:
    """Numbers of classes of their own are kept as plain ones, which every store can keep."""
    policy = RetryPolicy(Whole(2), Real(0.5), Whole(3), Real(math.pi), Real(0.0))
    assert [type(value) for value in attrs.astuple(policy)] == [int, float, int, float, float]
    assert policy == RetryPolicy(2, 0.5, 3, math.pi, 0.0)
    retention = Retention(Whole(0), Real(math.inf), Whole(1), Real(2.5))
    assert [type(value) for value in attrs.astuple(retention)] == [int, float, int, float]
    assert retention == Retention(0, math.inf, 1, 2.5)
    other: Any = other_numbers.Whole(2)
    policy = RetryPolicy(other, other, other, other)
    assert [type(value) for value in attrs.astuple(policy)] == [int, int, int, int, float]
    assert policy == RetryPolicy(2, 2, 2, 2)
    assert RetryPolicy(initial=5.0, jitter=0.0).delay_after(other) == 10.0


def test_priorities() -> None:
    """Priorities are ordered, and only a member is taken for one."""
    assert JobPriority.LOW < JobPriority.NORMAL < JobPriority.HIGH < JobPriority.CRITICAL
    assert [level.value for level in JobPriority] == [0, 1, 2, 3]
    assert check_priority(JobPriority.LOW) is JobPriority.LOW
    with pytest.raises(TypeError, match=r"^priority must be one of JobPriority.LOW, .*CRITICAL; got 1$"):
        check_priority(1)
