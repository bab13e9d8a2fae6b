"""The memory store keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobtrio import JobState, open_registry
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing import STORE_CHECKS
from jobtrio.testing._workers import LEASE, ids, new_entry, open_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from jobtrio.abc import JobEntry
    from jobtrio.testing import StoreCheck


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_memory_store(autojump_clock: MockClock, check: StoreCheck) -> None:
    """One object stands for all processes."""
    store = MemoryJobStore()
    await check(lambda: store)


async def test_a_registry_that_is_closed_is_no_worker_any_more() -> None:
    """One object may serve one registry after another: of those before it nobody is there."""
    store = MemoryJobStore()
    for name in ("first", "second"):
        async with open_registry(store=store, worker=name) as registry:
            await registry.drain()
            assert [worker.name for worker in await registry.workers()] == [name]


async def test_old_calls_are_not_remembered() -> None:
    """A claim that is asked for again soon is answered as before; of old calls nothing is kept."""
    async with open_worker(MemoryJobStore) as worker:
        for n in range(100):
            await worker.insert(entry := new_entry())
            assert ids(await worker.store.claim(str(n), limit=1, lease=LEASE)) == [entry.id]
            assert ids(await worker.store.claim(str(n), limit=1, lease=LEASE)) == [entry.id]
        assert isinstance(worker.store, MemoryJobStore)
        assert len(worker.store._claims) == 32


class _LooksTwice(MemoryJobStore):
    """A store that always looks a second time before it says when there is more to do."""

    _has_looked = False

    async def advance(self) -> float:
        seconds = await super().advance()
        self._has_looked = not self._has_looked
        return 0.0 if self._has_looked else seconds


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_a_store_may_say_that_there_may_be_more(autojump_clock: MockClock, check: StoreCheck) -> None:
    """A store whose `advance` says 0, since news came in meanwhile, passes the checks all the same."""
    store = _LooksTwice()
    await check(lambda: store)


class _TakesItAsItIs(MemoryJobStore):
    """A store that leaves a job's state at what it is given."""

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        for entry in entries:
            # Its state is what `JobRegistry.submit` would have said, unless this is a call that is made again.
            assert entry.order or entry.state is (JobState.SCHEDULED if entry.delay else JobState.QUEUED)
        return await super().insert(entries, submission)


@pytest.mark.parametrize("check", STORE_CHECKS, ids=lambda check: check.__name__)
async def test_the_checks_give_jobs_as_a_registry_does(autojump_clock: MockClock, check: StoreCheck) -> None:
    """What the checks put in is what a store gets otherwise: a job with a delay is scheduled already."""
    store = _TakesItAsItIs()
    await check(lambda: store)
