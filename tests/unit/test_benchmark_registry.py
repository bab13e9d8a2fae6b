"""What the benchmarks have many workers do to a registry: one that does less is not taken for a fast one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import jobtrio
from benchmarks._dict_registry import DictRegistry
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

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from benchmarks._registry_access import Work

    Run = Callable[[Sequence[Work]], Awaitable[int]]

scenarios = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


class IdleAccess(DictAccess):
    """Makes jobs, and does nothing more."""

    async def cancel(self, job_id: str) -> bool:
        return False

    async def find(self, tags: dict[str, str]) -> Sequence[object]:
        return []

    async def remove(self, job_id: str) -> None:
        pass


async def _do(scenario: Scenario, access: Access, run: Run, workers: int) -> None:
    jobs = await prepare(scenario, access, workers, 6)
    await run([scenario.work(access, number, 6, jobs[number]) for number in range(workers)])
    await check(scenario, access, jobs)


@scenarios
@pytest.mark.parametrize("run", [run_in_tasks, run_in_threads])
async def test_both_registries(scenario: Scenario, run: Run) -> None:
    """Tasks and threads leave the jobs of either registry as they should."""
    await _do(scenario, DictAccess(DictRegistry()), run, 3)
    async with jobtrio.open_registry() as registry:
        await _do(scenario, JobtrioAccess(registry), run, 3)


@pytest.mark.parametrize("name", ["state changes of one", "state changes of many", "find by tag", "removal", "mixed"])
async def test_registry_that_does_nothing(name: str) -> None:
    """It fails."""
    (scenario,) = (scenario for scenario in SCENARIOS if scenario.name == name)
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True, allow_unwrapped=True):
        await _do(scenario, IdleAccess(DictRegistry()), run_in_tasks, 1)
