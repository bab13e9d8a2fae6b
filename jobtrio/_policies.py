"""What the user decides once and jobtrio keeps to: priorities, retries, retention.

Pure data with the arithmetic that belongs to it. It knows neither jobs nor clocks.
"""

from __future__ import annotations

import math
import random
import sys
from enum import IntEnum
from typing import Any, Final

import attrs

from jobtrio._checks import check_count, check_number, check_seconds, plain_number, show
from jobtrio._patterns import ByQueue

LONGEST_PERIOD: Final = 86_400.0
"""Seconds: the longest time for which a rate is given."""

FASTEST_RATE: Final = 1000
"""Starts a second that a rate may allow at most."""

ROUNDED: Final = 1e-6
"""Seconds by which times may be off, as they are read and reckoned with."""


class JobPriority(IntEnum):
    """Which ready job starts first: strict between levels, first in first out within one."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


def check_priority(value: Any) -> JobPriority:
    """Return ``value`` as a `JobPriority`; raise `TypeError` for anything but a member."""
    if isinstance(value, JobPriority):
        return value
    allowed = ", ".join(f"JobPriority.{level.name}" for level in JobPriority)
    raise TypeError(f"priority must be one of {allowed}; got {show(value)}")


@attrs.frozen(kw_only=False)
class RetryPolicy:
    """How often a failed job is tried again, and after which delays.

    The delay after the nth failed attempt is ``initial * multiplier ** (n - 1)`` seconds, at most ``max_delay``, and
    then ± ``jitter`` of itself at random. Attempts that were lost, or whose jobs were returned to their queue, don't
    count.

    Attributes:
        max_attempts: All attempts, the first one included; 1 or more.
        initial: Seconds before the second attempt; 0 or more.
        multiplier: What each delay is multiplied by for the next; 1 or more.
        max_delay: The most seconds of any delay, the first one included, before the jitter; 0 or more.
        jitter: The fraction of the delay that it may vary by, from 0 to 1.
    """

    max_attempts: int = 3
    initial: float = 1.0
    multiplier: float = 2.0
    max_delay: float = 300.0
    jitter: float = 0.1

    def __attrs_post_init__(self) -> None:
        check_count("max_attempts", self.max_attempts)
        check_seconds("initial", self.initial)
        check_number("multiplier", self.multiplier, low=1)
        check_seconds("max_delay", self.max_delay)
        check_number("jitter", self.jitter, low=0, high=1)
        make_plain(self, RetryPolicy)

    def delay_after(self, attempt: int, rng: random.Random | None = None) -> float:
        """Return the seconds to wait after ``attempt`` (from 1) failed, jitter included.

        Args:
            attempt: The attempt that failed, from 1.
            rng: Where the jitter comes from; None for the process's own generator.

        Raises:
            TypeError, ValueError: ``attempt`` is not a whole number, or is below 1.
        """
        attempt = check_count("attempt", attempt)
        try:
            delay = min(self.initial * self.multiplier ** (attempt - 1), self.max_delay)
        except OverflowError:
            delay = self.max_delay if self.initial else 0.0
        spread = (rng or random).uniform(-self.jitter, self.jitter) if self.jitter else 0.0
        return min(delay * (1.0 + spread), sys.float_info.max)


def check_retry(value: Any, *, plain: str | None = None) -> RetryPolicy | None:
    """Return ``value``, a `RetryPolicy` or None; raise `TypeError` for anything else.

    Where ``plain`` says why, a class derived from it, whose delays may be its own, is refused as well.
    """
    if value is not None and not isinstance(value, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy or None; got {show(value)}")
    if plain is not None and value is not None and type(value) is not RetryPolicy:
        raise TypeError(f"retry must be a RetryPolicy itself, as {plain}; got {show(value)}")
    return value


@attrs.frozen
class RateLimit:
    """How many jobs of a queue may start in a time, across all workers.

    Starts follow each other at even intervals of ``per / starts`` seconds, so that no time of ``per`` seconds has more
    than ``starts`` of them, if ``burst`` is 1. Each start counts, that of a retry too. With a higher ``burst`` so many
    jobs start at once where none has for long enough, a start that comes late is made up for by the next ones, and a
    time of ``per`` seconds may have ``burst - 1`` starts more.

    Attributes:
        starts: How many jobs may start in ``per`` seconds; 1 or more, and at most 1,000 a second.
        per: Seconds; above 0, at most 86,400.
        burst: How many may start at once; from 1 to ``starts``.
    """

    starts: int
    per: float
    burst: int = 1

    def __attrs_post_init__(self) -> None:
        check_count("starts", self.starts)
        check_seconds("per", self.per, zero=False)
        if self.per > LONGEST_PERIOD:
            raise ValueError(f"per must be at most {LONGEST_PERIOD:.0f} seconds; got {show(self.per)}")
        if self.starts > FASTEST_RATE * self.per:
            raise ValueError(f"starts must be at most {FASTEST_RATE} for each second of per; got {show(self.starts)}")
        if check_count("burst", self.burst) > self.starts:
            raise ValueError(f"burst must be at most starts, {self.starts}; got {show(self.burst)}")
        make_plain(self, RateLimit)

    @property
    def interval(self) -> float:
        """Seconds between two starts."""
        return self.per / self.starts

    @property
    def reach(self) -> float:
        """Seconds without a start after which there is a whole burst, if one is free at their beginning."""
        return (self.burst - 1) * self.interval

    def base(self, next_at: float | None, now: float) -> float:
        """Return from when on the starts that are free at ``now`` are counted, one for each interval.

        Args:
            next_at: The earliest moment of the next start, as `after` gave it with the last one; None for none. One
                that is further away than this limit lets it be is not heeded: a clock was set back, or the limit was
                another one.
            now: The present, by the same clock.
        """
        earliest = now - self.reach
        if next_at is None:
            return earliest
        return now if next_at > now + self.interval + ROUNDED else max(earliest, next_at)

    def allowed(self, next_at: float | None, now: float) -> int:
        """Return how many jobs may start now; the arguments are `base`'s."""
        return max(math.floor((now + ROUNDED - self.base(next_at, now)) / self.interval) + 1, 0)

    def after(self, next_at: float | None, now: float, started: int) -> float:
        """Return the earliest moment of the next start once so many have ``started`` now."""
        return self.base(next_at, now) + started * self.interval

    def wait(self, left: float) -> float:
        """Return the seconds until another job may start, given those that are ``left`` to the earliest moment of that.

        That is inf for a moment that is not heeded: it holds nothing back.
        """
        return max(left, 0.0) if left <= self.interval + ROUNDED else math.inf


class RateLimits(ByQueue[RateLimit]):
    """How many jobs of a queue may start in a time, by key."""

    __slots__ = ()


@attrs.frozen
class Retention:
    """What is kept of jobs that ended, and of streams.

    With a durable store, other processes that watch a job read its end from there, mostly within milliseconds. If they
    come when it is no longer kept, they get `trio.BrokenResourceError` instead: allow them some seconds.

    Attributes:
        finished_jobs: How many ended jobs are kept, the newest; 0 or more. Durable stores keep more until it is worth
            removing them: for each process a tenth of the number, or 100 if that is more.
        finished_for: Seconds that an ended job is kept; 0 or more, inf for no limit. Durable stores keep it for up to a
            sixtieth longer, or a minute if that is less.
        tokens_per_job: Messages kept of each job's stream, the newest; 1 or more. `End` is kept in addition.
        held_for: Seconds that a job from `create_job` waits for its execution before it expires; above 0.
    """

    finished_jobs: int = 10_000
    finished_for: float = 3600.0
    tokens_per_job: int = 10_000
    held_for: float = 300.0

    def __attrs_post_init__(self) -> None:
        check_count("finished_jobs", self.finished_jobs, low=0)
        check_seconds("finished_for", self.finished_for, infinite=True)
        check_count("tokens_per_job", self.tokens_per_job)
        check_seconds("held_for", self.held_for, zero=False, infinite=True)
        make_plain(self, Retention)


def make_plain(policy: object, kind: type[attrs.AttrsInstance]) -> None:
    """Have a new policy hold plain numbers: of a class of their own, as numpy's, not every store can keep them."""
    for field in attrs.fields(kind):
        value = getattr(policy, field.name)
        if type(value) not in (int, float):
            object.__setattr__(policy, field.name, plain_number(value))
