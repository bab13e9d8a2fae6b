"""The rows of the benchmarks: how they come about, what they say, and what they don't."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from benchmarks import _disk
from benchmarks._harness import Session
from benchmarks._registry_access import SCENARIOS
from benchmarks._report import WIDTHS, amount, table_line
from benchmarks._result import Figures, Row, at_least, at_most, percentile, seconds_at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._harness import Side

pytestmark = pytest.mark.once


async def _second() -> Sequence[float]:
    return [1.0]


async def test_goals_of_a_tiny_run() -> None:
    """A tiny run says of no goal that it is met."""
    for tiny, met in ((True, None), (False, True)):
        session = Session(rounds=1, tiny=tiny)
        session.begin("any")
        row = await session.compare("name", "variant", _second, _second, versus="other", goal=at_most(2.0))
        assert row.met is met


async def test_goals_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is kept, no goal of a store is met; those of the next benchmark may be."""
    monkeypatch.setattr(_disk, "describe", lambda folder: _disk.Disk(folder, "tmpfs", "none", sync=1e-7))
    session = Session(rounds=1)
    session.begin("stores")
    _disk.note(session, "SQLite")
    for met in (None, True):
        row = await session.measure("name", "variant", _second, goal=seconds_at_most(2.0))
        assert row.met is met
        session.begin("another")
    assert session.notes["stores"][1] == "nothing is kept there, so no speed is scored"


async def test_line_of_the_table() -> None:
    """A line says whether the ratio is one of cost or of speed, and has a p99 where single operations are timed."""

    async def many() -> Sequence[float]:
        return [4.0] * 98 + [2.0, 8.0]

    session = Session(rounds=1)
    cost = await session.compare("name", "variant", many, _second, versus="other", goal=at_most(2.0))
    speed = await session.compare("name", "variant", _second, many, versus="other", goal=at_least(2.0), speed=True)
    assert " ".join(table_line(cost).split()) == "name variant 4 s 8 s other 1 s 4 × cost ≤ 2 × NO"
    assert " ".join(table_line(speed).split()) == "name variant 1 s other 4 s 4 × speed ≥ 2 × yes"


def test_columns() -> None:
    """The columns are as wide as what stands in them."""
    for scenario in SCENARIOS:
        assert len(f"registry: {scenario.name}") <= WIDTHS[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ns"),
        (9.996e-7, "1000 ns"),
        (1.234e-6, "1.23 µs"),
        (9.996e-4, "1000 µs"),
        (12.34, "12.3 s"),
        (2345.6, "2346 s"),
    ],
)
def test_amount(seconds: float, text: str) -> None:
    """Amounts of seconds have three digits, and no exponent."""
    assert amount(seconds, "s") == text


async def test_turns() -> None:
    """Behind a warm-up each, sides take turns in alternating order, and each begins with the collector on."""
    turns = []

    def side(name: str) -> Side:
        async def run() -> Sequence[float]:
            turns.append(name if gc.isenabled() else "off")
            gc.disable()
            return [1.0]

        return run

    try:
        await Session(rounds=3).compare("name", "variant", side("a"), side("b"), versus="other")
    finally:
        gc.enable()
    assert turns == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_figures() -> None:
    """A side's median is that of its rounds' medians, the ratio that of the rounds' own, and p99 is of all samples."""
    mine = Figures(((1.0, 2.0, 9.0), (4.0, 4.0, 4.0), (3.0, 3.0, 8.0)))
    others = Figures(((1.0,), (1.0,), (6.0,)))
    assert (mine.of_rounds, mine.median, mine.p99) == ([2.0, 4.0, 3.0], 3.0, 9.0)
    assert Row("any", "name", "variant", "s", mine, others).ratio == 2.0
    assert Row("any", "name", "variant", "s", mine, others, speed=True).ratio == 0.5
    assert percentile([float(n) for n in range(1000)], 0.99) == 990.0
