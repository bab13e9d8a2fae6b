"""The registry: creating, changing, finding and removing jobs, one by one and by many workers at once.

The floor is a registry written by hand from dicts, with the same duties (`_dict_registry`). Where
workers share it, its calls give way to other tasks as often as jobtrio's do.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import jobtrio
from benchmarks._child import open_child
from benchmarks._dict_registry import DictRegistry
from benchmarks._harness import Session, Stopwatch
from benchmarks._registry_access import (
    SCENARIOS,
    Access,
    DictAccess,
    JobtrioAccess,
    Scenario,
    check,
    prepare,
    run_in_tasks,
    run_in_threads,
)
from benchmarks._result import at_least, at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks._dict_registry import DictJob
    from benchmarks._harness import Side

CHILD = "benchmarks._registry_child"
NAME = "create_job + cancel, two tags"


async def run(session: Session) -> None:
    """Measure a single caller, finding, and then the scenarios with tasks and with threads."""
    await _measure_live(session)
    await _measure_history(session)
    await _measure_find(session)
    for scenario in SCENARIOS:
        await _measure_scenario(session, scenario, 10, session.scale(100, 6), threads=False)
    for scenario in SCENARIOS:
        await _measure_scenario(session, scenario, 4, session.scale(100, 6), threads=True)


async def _measure_live(session: Session) -> None:
    """Compare in interpreters of their own: a full heap must slow nobody but its owner."""
    live, history = session.scale(10_000, 100), session.scale(10_000, 100)
    async with (
        open_child(CHILD, "jobtrio", live, history) as subject,
        open_child(CHILD, "dict", live, history) as by_hand,
        open_child(CHILD, "jobtrio", 0, history) as none_live,
    ):
        variant = f"{live:,} live"
        await session.compare(NAME, variant, subject, by_hand, versus="dict registry", goal=at_most(4.0))
        await session.compare(NAME, variant, subject, none_live, versus="none live", goal=at_most(1.3))


async def _measure_history(session: Session) -> None:
    """Compare a long history with a short one, and with a long one of the registry written by hand."""
    many, few = session.scale(1_000_000, 1_000), session.scale(1_000, 10)
    async with (
        open_child(CHILD, "jobtrio", 0, many) as subject,
        open_child(CHILD, "jobtrio", 0, few) as short,
        open_child(CHILD, "dict", 0, many) as by_hand,
    ):
        variant = f"{many:,} in history"
        await session.compare(NAME, variant, subject, short, versus=f"{few:,} in history", goal=at_most(1.3))
        await session.compare(NAME, variant, subject, by_hand, versus="dict registry, the same")


async def _measure_find(session: Session) -> None:
    live, tries = session.scale(10_000, 100), session.scale(50, 2)
    wanted = {"user": f"user-{live // 2}"}
    by_hand = DictRegistry()
    async with jobtrio.open_registry() as registry:
        for n in range(live):
            tags = {"user": f"user-{n}", "kind": "benchmark"}
            await registry.create_job(tags=tags)
            by_hand.create(tags=tags)

        async def find() -> Sequence[float]:
            with Stopwatch() as watch:
                for _ in range(tries):
                    found = await registry.find(tags=wanted)
            assert [record.tags["user"] for record in found] == [wanted["user"]]
            return watch.per(tries)

        for versus, scan, goal in (
            ("a scan for any tags", lambda: by_hand.scan(wanted), at_least(50)),
            ("a scan for this one tag", lambda: _scan(by_hand, wanted["user"]), None),
        ):
            side = _repeat(scan, -(-tries // 10))
            await session.compare(
                "find by tag, one match", f"{live:,} live", find, side, versus=versus, goal=goal, speed=True
            )


def _scan(registry: DictRegistry, user: str) -> list[DictJob]:
    return [job for job in registry.jobs.values() if job.tags.get("user") == user]


def _repeat(scan: Callable[[], list[DictJob]], tries: int) -> Side:
    async def side() -> Sequence[float]:
        with Stopwatch() as watch:
            for _ in range(tries):
                found = scan()
        assert len(found) == 1
        return watch.per(tries)

    return side


async def _measure_scenario(session: Session, scenario: Scenario, workers: int, count: int, *, threads: bool) -> None:
    async def by_workers(access: Access) -> Sequence[float]:
        jobs = await prepare(scenario, access, workers, count)
        works = [scenario.work(access, number, count, jobs[number]) for number in range(workers)]
        with Stopwatch(time.perf_counter if threads else time.thread_time) as watch:
            calls = await (run_in_threads(works) if threads else run_in_tasks(works))
        await check(scenario, access, jobs)
        return watch.per(calls)

    async def subject() -> Sequence[float]:
        async with jobtrio.open_registry() as registry:
            return await by_workers(JobtrioAccess(registry))

    async def by_hand() -> Sequence[float]:
        return await by_workers(DictAccess(DictRegistry()))

    await session.compare(
        f"registry: {scenario.name}",
        f"{workers} threads, from_thread.run" if threads else f"{workers} tasks",
        subject,
        by_hand,
        versus="dict registry" + (", from_thread.run" if threads else ""),
    )
