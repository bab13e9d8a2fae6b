"""What many workers do to one registry at once, for jobtrio and for the one written by hand.

A scenario is a generator for each worker that yields calls and is sent their results, so that tasks
and threads do exactly the same: a task awaits the call, a thread takes it to Trio and back.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import attrs
import trio

if TYPE_CHECKING:
    import jobtrio
    from benchmarks._dict_registry import DictRegistry

Call: TypeAlias = tuple[Callable[..., Coroutine[Any, Any, Any]], Any]
GIVE_WAY_EVERY = 32
"""Calls between two full checkpoints, on both sides."""

Work: TypeAlias = Generator[Call, Any, None]


class Access(Protocol):
    """The operations that both registries have, each with one argument."""

    async def create(self, tags: dict[str, str]) -> str: ...
    async def cancel(self, job_id: str) -> bool: ...
    async def get(self, job_id: str) -> Any: ...
    async def find(self, tags: dict[str, str]) -> Sequence[Any]: ...
    async def history(self, job_id: str) -> Sequence[Any]: ...
    async def remove(self, job_id: str) -> None: ...


class JobtrioAccess:
    """The registry under test."""

    def __init__(self, registry: jobtrio.JobRegistry) -> None:
        self._registry = registry

    async def create(self, tags: dict[str, str]) -> str:
        return (await self._registry.create_job(tags=tags)).id

    async def cancel(self, job_id: str) -> bool:
        return await self._registry.cancel(job_id)

    async def get(self, job_id: str) -> jobtrio.JobState:
        return (await self._registry.get(job_id)).state

    async def find(self, tags: dict[str, str]) -> Sequence[Any]:
        return await self._registry.find(tags=tags, limit=10)

    async def history(self, job_id: str) -> Sequence[Any]:
        return await self._registry.history(job_id)

    async def remove(self, job_id: str) -> None:
        await self._registry.remove(job_id)


class DictAccess:
    """The floor: each call heeds cancellation and every 32nd lets other tasks run, as jobtrio's do."""

    def __init__(self, registry: DictRegistry) -> None:
        self._registry = registry
        self._calls = 0

    async def _give_way(self) -> None:
        self._calls += 1
        if self._calls % GIVE_WAY_EVERY:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()

    async def create(self, tags: dict[str, str]) -> str:
        await self._give_way()
        return self._registry.create(None, tags)

    async def cancel(self, job_id: str) -> bool:
        await self._give_way()
        return self._registry.cancel(job_id)

    async def get(self, job_id: str) -> Any:
        await self._give_way()
        return self._registry.get(job_id).state

    async def find(self, tags: dict[str, str]) -> Sequence[Any]:
        await self._give_way()
        return self._registry.find(tags, limit=10)

    async def history(self, job_id: str) -> Sequence[Any]:
        await self._give_way()
        return self._registry.history(job_id)

    async def remove(self, job_id: str) -> None:
        await self._give_way()
        self._registry.remove(job_id)


@attrs.frozen
class Scenario:
    """What each worker does, and which jobs it finds when it starts.

    Attributes:
        name: For the table.
        work: Makes one worker's calls, from its number, the operations to do, and the jobs prepared.
        prepared: The jobs made before the clock starts: none, held or ended.
        shared: Whether all workers are given the same jobs.
        changes: How many changes of state each of these jobs has behind it at the end; 0 where it is removed.
    """

    name: str
    work: Callable[[Access, int, int, Sequence[str]], Work]
    prepared: Literal["none", "held", "ended"] = "none"
    shared: bool = False
    changes: int = 1


def tags_of(number: int) -> dict[str, str]:
    """Return two tags: one that every hundredth job shares, and one that all do."""
    return {"user": f"user-{number % 100}", "kind": "benchmark"}


def _create(access: Access, number: int, count: int, jobs: Sequence[str]) -> Work:
    for n in range(count):
        yield access.create, tags_of(n)


def _cancel(access: Access, number: int, count: int, jobs: Sequence[str]) -> Work:
    for job_id in jobs:
        yield access.cancel, job_id


def _read_or_write(access: Access, number: int, count: int, jobs: Sequence[str]) -> Work:
    """Every second worker reads while the others write."""
    if number % 2:
        for job_id in jobs:
            yield access.get, job_id
    else:
        for n in range(count // 2):
            job_id = yield access.create, tags_of(n)
            yield access.cancel, job_id


def _find(access: Access, number: int, count: int, jobs: Sequence[str]) -> Work:
    for n in range(count):
        found = yield access.find, {"user": f"user-{n % 100}"}
        assert found


def _remove(access: Access, number: int, count: int, jobs: Sequence[str]) -> Work:
    for job_id in jobs:
        yield access.remove, job_id


def _mix(access: Access, number: int, count: int, jobs: Sequence[str]) -> Work:
    for n in range(-(-count // 6)):
        job_id = yield access.create, tags_of(n)
        yield access.get, job_id
        found = yield access.find, {"user": f"user-{n % 100}"}
        cancelled = yield access.cancel, job_id
        changes = yield access.history, job_id
        yield access.remove, job_id
        assert found
        assert cancelled
        assert len(changes) == 2


SCENARIOS = (
    Scenario("creation", _create),
    Scenario("state changes of one", _cancel, "held", shared=True, changes=2),
    Scenario("state changes of many", _cancel, "held", changes=2),
    Scenario("reads during writes", _read_or_write, "held"),
    Scenario("find by tag", _find, "held"),
    Scenario("removal", _remove, "ended", changes=0),
    Scenario("mixed", _mix),
)


async def prepare(scenario: Scenario, access: Access, workers: int, count: int) -> list[list[str]]:
    """Make the jobs that a scenario finds, and return each worker's."""
    if scenario.prepared == "none":
        return [[] for _ in range(workers)]
    lists: list[list[str]] = []
    for _ in range(1 if scenario.shared else workers):
        ids = [await access.create(tags_of(n)) for n in range(count)]
        if scenario.prepared == "ended":
            for job_id in ids:
                await access.cancel(job_id)
        lists.append(ids)
    return lists * workers if scenario.shared else lists


async def check(scenario: Scenario, access: Access, jobs: list[list[str]]) -> None:
    """See that the jobs that a scenario found are as it leaves them: none ended twice, or not at all."""
    for job_id in {job_id for ids in jobs for job_id in ids}:
        try:
            changes = len(await access.history(job_id))
        except LookupError:
            changes = 0
        assert changes == scenario.changes, f"{changes} changes of state, not {scenario.changes}"


async def run_in_tasks(works: Sequence[Work]) -> int:
    """Let each worker be a task; return the number of calls."""
    calls = 0

    async def worker(work: Work) -> None:
        nonlocal calls
        result: Any = None
        try:
            while True:
                function, argument = work.send(result)
                calls += 1
                result = await function(argument)
        except StopIteration:
            return

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(worker, work)
    return calls


async def run_in_threads(works: Sequence[Work]) -> int:
    """Let each worker be a thread that takes every call to Trio; return the number of calls."""
    counts: list[int] = []

    def worker(work: Work) -> None:
        calls = 0
        result: Any = None
        try:
            while True:
                function, argument = work.send(result)
                calls += 1
                result = trio.from_thread.run(function, argument)
        except StopIteration:
            counts.append(calls)

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(trio.to_thread.run_sync, worker, work)
    return sum(counts)
