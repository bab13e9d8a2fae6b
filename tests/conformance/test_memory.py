"""The memory store keeps the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jobtrio import JobState, open_registry
from jobtrio.abc import JobQuery, JobStore
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing import STORE_CHECKS
from jobtrio.testing._workers import LEASE, ids, new_entry, open_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio.testing import MockClock

    from jobtrio._records import JobRecord
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


class _CountsByFinding(MemoryJobStore):
    """A store that leaves counting to the contract, and of which somebody removes the jobs found in the first page."""

    counts_of = JobStore.counts_of

    def __init__(self, *, removes: bool = False) -> None:
        super().__init__()
        self._removes = removes

    async def find(self, query: JobQuery) -> list[JobRecord]:
        records = await super().find(query)
        if self._removes and query.after is None:
            self._removes = False
            for record in records:
                await self.request_cancel(record.id, None, 0.0)
                await self.delete(record.id)
        return records


async def test_counting_is_left_to_the_contract(autojump_clock: MockClock) -> None:
    """A store that does not count the jobs that have tags has them counted as they are found."""
    store = _CountsByFinding()
    (check,) = (check for check in STORE_CHECKS if check.__name__ == "check_counts_of_tags")
    await check(lambda: store)


@pytest.mark.parametrize("count", [1, 100, 250])
async def test_counting_begins_anew_where_a_page_is_removed(count: int) -> None:
    """What is removed while jobs are counted keeps nobody from being told of those that are left."""
    async with open_worker(lambda: _CountsByFinding(removes=True)) as worker:
        await worker.insert(*(new_entry(tags={"a": "b"}) for _ in range(count)))
        counts = await worker.store.counts_of({"a": "b"})
        left = max(count - 100, 0)
        # The first page is told of as it was found, unless the next one could not be found behind it.
        assert sum(counts.get("default", {}).values()) == left, counts


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
