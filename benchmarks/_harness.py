"""Runs two sides of a comparison in turns and collects what they measured.

A *side* is an async callable that runs one round and returns the seconds (or bytes) that each
operation took. Both sides of a pair run next to each other, in alternating order, after one round
of warm-up each, and each starts behind a full garbage collection with the collector switched on.
This module knows nothing of jobtrio.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

import attrs

from benchmarks._result import Figures, Goal, Row, Unit

Side: TypeAlias = Callable[[], Awaitable[Sequence[float]]]
"""Runs one round; returns one sample for each operation, or one for all divided by their number."""

DEFAULT_ROUNDS = 21
"""Rounds of a scored run: odd, so that the median is a round that happened."""

T = TypeVar("T")


class Stopwatch:
    """Times a ``with`` block; `per` gives the sample that a round of many operations returns.

    By default it counts this thread's processor time: what other programs take of the machine then falls
    on neither side. Whatever waits (for a clock, for other threads) gives ``clock=time.perf_counter``.
    """

    __slots__ = ("_clock", "_started", "seconds")

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self.seconds = 0.0

    def __enter__(self) -> Stopwatch:
        self._started = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = self._clock() - self._started

    def per(self, operations: int) -> list[float]:
        """Return the mean seconds of one of ``operations`` as the round's only sample."""
        return [self.seconds / operations]


@attrs.define
class Session:
    """One run of the benchmarks: how much to do, and the rows found so far.

    Attributes:
        rounds: Scored rounds a row.
        tiny: Whether this is the quick unscored run that only shows that everything still works.
        peers: Whether other libraries are measured as well.
        on_row: Called with each row as soon as it is there.
        on_note: Called with each note.
    """

    rounds: int = DEFAULT_ROUNDS
    tiny: bool = False
    peers: bool = False
    on_row: Callable[[Row], None] | None = None
    on_note: Callable[[str], None] | None = None
    rows: list[Row] = attrs.field(factory=list)
    notes: dict[str, list[str]] = attrs.field(factory=dict)
    benchmark: str = ""
    scored: bool = True

    def begin(self, benchmark: str) -> None:
        """Have the rows that follow belong to a benchmark."""
        self.benchmark = benchmark
        self.scored = not self.tiny

    def do_not_score(self, why: str) -> None:
        """Have the rows of the current benchmark that follow not say whether their goals are met."""
        self.note(why)
        self.scored = False

    def scale(self, full: T, tiny: T) -> T:
        """Return ``full``, or ``tiny`` in a tiny run."""
        return tiny if self.tiny else full

    async def compare(
        self,
        name: str,
        variant: str,
        subject: Side,
        other: Side,
        *,
        versus: str,
        goal: Goal | None = None,
        unit: Unit = "s",
        speed: bool = False,
    ) -> Row:
        """Run both sides in turns and keep the row; ``speed`` has its ratio say how many times as fast.

        *Cancellation*: nothing is kept of a row that was interrupted.
        """
        if not self.tiny:
            await _round(subject)
            await _round(other)
        found: tuple[list[tuple[float, ...]], list[tuple[float, ...]]] = ([], [])
        for number in range(self.rounds):
            for index in (0, 1) if number % 2 == 0 else (1, 0):
                found[index].append(await _round((subject, other)[index]))
        mine, others = (Figures(tuple(rounds)) for rounds in found)
        return self.keep(Row(self.benchmark, name, variant, unit, mine, others, versus, goal, speed))

    async def measure(
        self, name: str, variant: str, subject: Side, *, goal: Goal | None = None, unit: Unit = "s"
    ) -> Row:
        """Run one side alone and keep the row, for values with a bound of their own.

        *Cancellation*: nothing is kept of a row that was interrupted.
        """
        if not self.tiny:
            await _round(subject)
        rounds = tuple([await _round(subject) for _ in range(self.rounds)])
        return self.keep(Row(self.benchmark, name, variant, unit, Figures(rounds), goal=goal))

    def note(self, text: str) -> None:
        """Say what the rows of the current benchmark have to be read with."""
        self.notes.setdefault(self.benchmark, []).append(text)
        if self.on_note is not None:
            self.on_note(text)

    def keep(self, row: Row) -> Row:
        """Add a finished row and tell whoever shows it."""
        row = attrs.evolve(row, scored=self.scored)
        self.rows.append(row)
        if self.on_row is not None:
            self.on_row(row)
        return row


async def _round(side: Side) -> tuple[float, ...]:
    """Run one round of ``side`` from the same state of the garbage collector as every other."""
    gc.collect()
    gc.enable()
    return tuple(await side())
