"""The rows of the benchmarks: how they come about, what they say, and what they don't."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import _disk
from benchmarks._harness import Session
from benchmarks._result import at_most, seconds_at_most

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


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
