"""What a benchmark found: rounds of samples, the ratio between two sides, and whether a goal is met.

Pure arithmetic on numbers that were measured elsewhere. It must not know how anything is measured
or shown.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

Unit: TypeAlias = Literal["s", "B"]
"""Seconds or bytes, always for one operation."""


@attrs.frozen
class Goal:
    """A bound on a row's ratio, or on its value where `on` says so.

    Attributes:
        limit: The bound itself.
        kind: ``"at most"``: how many times the other side's cost. ``"at least"``: how many times as fast.
        on: ``"ratio"``, or ``"value"`` for what has a bound of its own, such as bytes.
    """

    limit: float
    kind: Literal["at most", "at least"]
    on: Literal["ratio", "value"] = "ratio"

    def is_met(self, ratio: float | None, value: float) -> bool:
        """Say whether the figure that the goal is on keeps within it."""
        figure = value if self.on == "value" else ratio
        if figure is None:
            return False
        return figure <= self.limit if self.kind == "at most" else figure >= self.limit


def at_most(limit: float) -> Goal:
    """Make the goal to cost at most ``limit`` times what the other side costs."""
    return Goal(limit, "at most")


def at_least(limit: float) -> Goal:
    """Make the goal to be at least ``limit`` times as fast as the other side."""
    return Goal(limit, "at least")


def bytes_at_most(limit: float) -> Goal:
    """Make the goal to need at most ``limit`` bytes, whatever the other side needs."""
    return Goal(limit, "at most", on="value")


def seconds_at_most(limit: float) -> Goal:
    """Make the goal to take at most ``limit`` seconds, whatever the other side takes."""
    return Goal(limit, "at most", on="value")


@attrs.frozen
class Figures:
    """One side's samples, a list a round, each sample the cost of one operation."""

    rounds: tuple[tuple[float, ...], ...]

    @property
    def of_rounds(self) -> list[float]:
        """The median of each round."""
        return [statistics.median(samples) for samples in self.rounds]

    @property
    def median(self) -> float:
        """The median of the rounds' medians."""
        return statistics.median(self.of_rounds)

    @property
    def p99(self) -> float | None:
        """The 99th percentile of all samples, the largest where there are few; None of rounds timed as a whole."""
        if all(len(samples) == 1 for samples in self.rounds):
            return None
        return percentile([sample for samples in self.rounds for sample in samples], 0.99)


@attrs.frozen
class Row:
    """One line of the table.

    Attributes:
        benchmark: The module's short name.
        name: What was measured.
        variant: Under which circumstances.
        unit: Of every sample.
        subject: jobtrio's side.
        other: The floor's or peer's side; None where a value stands alone.
        versus: What the other side is.
        goal: What is aimed for, or None.
        speed: Whether the ratio says how many times as fast; else it says how many times the cost.
        scored: Whether it says anything that the goal is met.
    """

    benchmark: str
    name: str
    variant: str
    unit: Unit
    subject: Figures
    other: Figures | None = None
    versus: str = ""
    goal: Goal | None = None
    speed: bool = False
    scored: bool = True

    @property
    def ratios(self) -> list[float]:
        """A ratio for each round: both sides of a pair ran next to each other."""
        if self.other is None:
            return []
        pairs = list(zip(self.subject.of_rounds, self.other.of_rounds, strict=True))
        if self.speed:
            return [other / subject for subject, other in pairs]
        return [subject / other for subject, other in pairs]

    @property
    def ratio(self) -> float | None:
        """The median of the pairwise ratios, or None without another side."""
        return statistics.median(self.ratios) if self.other is not None else None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met, or None without one, and where it is not scored."""
        return None if self.goal is None or not self.scored else self.goal.is_met(self.ratio, self.subject.median)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the sample below which ``share`` of all of them lie (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
