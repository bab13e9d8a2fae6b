"""`Presence`: which workers are there, in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from jobtrio.stores._presence import Presence

if TYPE_CHECKING:
    from trio.testing import MockClock


def names(presence: Presence) -> list[str]:
    return [report.name for report in presence.reports({})]


async def test_how_many_each_runs() -> None:
    """A worker that runs nothing says so; who is not there is not told of, whatever it runs."""
    presence = Presence()
    for name in ("b", "a"):
        presence.note(name, 10.0)
    reports = presence.reports({"b": 2, "gone": 1, None: 3})
    assert [(each.name, each.running) for each in reports] == [("a", 0), ("b", 2)]


async def test_until_its_lease_is_over(autojump_clock: MockClock) -> None:
    """A worker is there until its lease is over by which it renewed last, or until it is closed."""
    presence = Presence()
    for name in ("silent", "renews", "closes"):
        presence.note(name, 10.0)
    await trio.sleep(9)
    presence.note("renews", 10.0)
    presence.leave("closes")
    assert names(presence) == ["renews", "silent"]
    await trio.sleep(1)
    assert names(presence) == ["renews"]
    await trio.sleep(9)
    assert names(presence) == []


async def test_names_that_come_and_go_are_not_kept(autojump_clock: MockClock) -> None:
    """However many workers vanish without a word, they are not kept, though nobody asks who is there."""
    presence = Presence()
    for n in range(100):
        presence.note(f"worker {n}", 1.0)
        await trio.sleep(1)
    assert len(presence._seen) == 1
