"""Stores: durable jobs of no work in SQLite, enqueue and drain apart, and their streams in another process.

The floor is a bare group-commit loop (`_group_commit`) with the same setting of SQLite; the peer, with ``--peers``, is
huey with SQLite. All sides take turns on files in the folder for temporary files, which ``TMPDIR`` chooses. Writing
waits for the disk, so what counts is the time on the wall; of many streams it is processor time.
"""

from __future__ import annotations

import logging
import sqlite3
import tempfile
from typing import TYPE_CHECKING, Any, Final

from benchmarks import _disk as disk
from benchmarks._child import open_child
from benchmarks._durable_jobs import DurableJobs, count_groups
from benchmarks._jobs_by_hand import JobsByHand
from benchmarks._peer_environment import make_environment
from benchmarks._result import at_least
from benchmarks._stream_rows import measure_streams, measure_tokens

if TYPE_CHECKING:
    from benchmarks._harness import Session
    from benchmarks._result import Goal

AT_ONCE: Final = 100
PARTS: Final = {
    "enqueue": "no-op job, enqueue",
    "drain": "no-op job, drain",
    "live": "no-op job, submit to outcome",
}
"""What is timed: submitting alone, running what is there alone, both by one process at once."""


async def run(session: Session) -> None:
    """Measure both settings of SQLite beside the floor, then huey, then streams."""
    logging.getLogger("jobtrio.stores.sqlite").setLevel(logging.ERROR)
    folder = tempfile.gettempdir()
    disk.note(session, f"SQLite {sqlite3.sqlite_version}")
    jobs = session.scale(2_000, 200)
    full, normal = (DurableJobs(folder, jobs, AT_ONCE, mode) for mode in ("FULL", "NORMAL"))
    for setting, goal in ((full, at_least(0.5)), (normal, None)):
        await _note_groups(session, setting)
        await _compare_with_floor(session, setting, goal)
    await _compare_with_other_floors(session, full)
    for setting in (full, normal):
        await _measure_ways_to_submit(session, setting)
    if session.peers:
        await _compare_with_huey(session, full, "fsync", at_least(5.0))
        await _compare_with_huey(session, normal, "no fsync", None)
    with disk.new_file(folder) as path:
        url = f"sqlite:///{path}"
        await measure_tokens(session, url, "synchronous=FULL")
        await measure_streams(session, url, "synchronous=FULL")


# -- beside the floor


def _by_hand(setting: DurableJobs, **options: Any) -> JobsByHand:
    return JobsByHand(setting.folder, setting.jobs, setting.at_once, setting.synchronous, **options)


def _variant(setting: DurableJobs) -> str:
    return f"synchronous={setting.synchronous}, {AT_ONCE} at once"


async def _note_groups(session: Session, setting: DurableJobs) -> None:
    """Say into how many commits a round's writes go, on either side."""
    counted: dict[str, int] = {}

    def note(part: str, groups: int, writes: int) -> None:
        counted[part] = groups

    by_hand = _by_hand(setting, on_groups=note)
    groups = await count_groups(setting)
    for part in PARTS:
        await getattr(by_hand, part)()
    commits = "; ".join(f"{part} {groups[part]} and {counted[part]}" for part in PARTS)
    session.note(f"synchronous={setting.synchronous}: commits for {setting.jobs:,} jobs, here and by hand: {commits}")


async def _compare_with_floor(session: Session, setting: DurableJobs, goal: Goal | None) -> None:
    by_hand = _by_hand(setting)
    for part, name in PARTS.items():
        await session.compare(
            name,
            _variant(setting),
            getattr(setting, part),
            getattr(by_hand, part),
            versus="bare group-commit loop",
            goal=goal if part != "live" else None,
            speed=True,
        )


async def _compare_with_other_floors(session: Session, setting: DurableJobs) -> None:
    """Compare with a loop that does less, and with one whose jobs have a nursery as every attempt has."""
    floors = (
        ("enqueue", "the loop without savepoints", _by_hand(setting, savepoints=False)),
        ("drain", "the loop without savepoints", _by_hand(setting, savepoints=False)),
        ("drain", "the loop + nursery, deadline each", _by_hand(setting, nursery=True)),
    )
    for part, versus, by_hand in floors:
        subject, other = getattr(setting, part), getattr(by_hand, part)
        variant = _variant(setting)
        await session.compare(PARTS[part], variant, subject, other, versus=versus, speed=True)


# -- ways to submit


async def _measure_ways_to_submit(session: Session, setting: DurableJobs) -> None:
    """Measure what a job costs that is stored alone, and one that is stored with others by one call."""
    ways = (("one task, one by one", setting.enqueue_one_by_one), ("submit_many", setting.enqueue_together))
    for way, side in ways:
        variant = f"synchronous={setting.synchronous}, {way}"
        await session.measure(PARTS["enqueue"], f"{variant} of {AT_ONCE}" if way == "submit_many" else variant, side)


# -- beside huey


async def _compare_with_huey(session: Session, setting: DurableJobs, form: str, goal: Goal | None) -> None:
    python = await make_environment()
    jobs = session.scale(100, 10)
    for part in ("enqueue", "drain"):
        with tempfile.TemporaryDirectory(dir=setting.folder) as own:  # a child that is killed removes nothing
            arguments = (own, jobs, form, part)
            async with open_child("benchmarks.peers.huey_peer", *arguments, python=python) as huey:
                await session.compare(
                    PARTS[part],
                    _variant(setting),
                    getattr(setting, part),
                    huey,
                    versus=f"huey, {form}, at most once",
                    goal=goal,
                    speed=True,
                )
