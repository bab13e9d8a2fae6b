"""All jobs that match, page by page, while jobs come, change and go."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import JobContext, JobSpec, JobState, Retention, StoreUnavailableError, UnknownJobError
from jobtrio._pages import PAGE, FoundJobs, find_behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio import JobRecord


async def work(job: JobContext) -> Any:
    """Return the payload."""
    return job.payload


class Shop:
    """Pages of two, of jobs that may vanish; each look at them may fail."""

    def __init__(self, registry: jobtrio.JobRegistry) -> None:
        self.registry = registry
        self.asked: list[str | None] = []
        self.failures: list[Exception | None] = []
        self.wait = trio.Event()
        self.wait.set()

    async def find(self, after: str | None) -> list[JobRecord]:
        """Return a page."""
        self.asked.append(after)
        await self.wait.wait()
        if self.failures and (failure := self.failures.pop(0)) is not None:
            raise failure
        return await self.registry.find(limit=2, after=after)


async def ids_of(found: AsyncIterator[JobRecord]) -> list[str]:
    """Return the ids of all jobs that are found."""
    return [record.id async for record in found]


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    """Return a registry with five jobs that have ended, named by numbers."""
    async with jobtrio.open_registry() as registry:
        await registry.submit_many([JobSpec(work, job_id=str(n)) for n in range(5)])
        await registry.drain()
        yield Shop(registry)


@pytest.mark.parametrize("count", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
async def test_all_are_found_once(count: int) -> None:
    """All that match are found, each once, in order, however many pages that is."""
    async with jobtrio.open_registry() as registry:
        specs = [JobSpec(work, n, tags={"even": str(n % 2 == 0)}, queue="ab"[n % 2]) for n in range(2 * count)]
        jobs = await registry.submit_many(specs)
        every = [job.id for job in jobs]
        await registry.drain()
        assert await ids_of(registry.find_all()) == every
        assert await ids_of(registry.find_all(newest_first=True)) == every[::-1]
        assert await ids_of(registry.find_all(tags={"even": "True"})) == every[::2]
        assert await ids_of(registry.find_all(queue="b", newest_first=True)) == every[1::2][::-1]
        assert await ids_of(registry.find_all(state=JobState.COMPLETED, executor=work)) == every
        assert await ids_of(registry.find_all(state=[JobState.FAILED])) == []
        keyed = await registry.submit(work, key="k")
        assert await ids_of(registry.find_all(key="k")) == [keyed.id]
        await keyed.wait()
        async for record in registry.find_all(key="k"):
            await registry.remove(record.id)
        assert await ids_of(registry.find_all(key="k")) == []
        assert [record async for record in registry.find_all()] == [job.record for job in jobs]


@pytest.mark.parametrize("count", [1, 2, PAGE, 2 * PAGE + 1])
@pytest.mark.parametrize("newest_first", [False, True])
async def test_the_loop_may_remove_what_it_is_given(newest_first: bool, count: int) -> None:
    """A loop that removes each job that it is given removes all."""
    async with jobtrio.open_registry() as registry:
        await registry.submit_many([JobSpec(work) for _ in range(count)])
        await registry.drain()
        async for record in registry.find_all(newest_first=newest_first):
            await registry.remove(record.id)
        assert await registry.find() == []


async def test_the_loop_may_cancel_what_it_is_given() -> None:
    """A loop over the jobs of a state that takes them out of it meets all of them."""
    async with jobtrio.open_registry() as registry:
        jobs = await registry.submit_many([JobSpec(work, delay=60) for _ in range(2 * PAGE + 1)])
        async for record in registry.find_all(state=JobState.SCHEDULED):
            assert await registry.cancel(record.id)
        assert {job.state for job in jobs} == {JobState.CANCELLED}


async def test_jobs_submitted_meanwhile() -> None:
    """What is submitted while there is a page to be read is found as well, but not with the newest first."""
    async with jobtrio.open_registry() as registry:
        await registry.submit_many([JobSpec(work, n) for n in range(PAGE + 1)])
        seen = []
        async for record in registry.find_all():
            seen.append(record.payload)
            if record.payload in (0, 1000):  # behind the latter there is none, and that was seen before it was given
                await registry.submit(work, 1000 + record.payload)
        assert seen == [*range(PAGE + 1), 1000]
        async for _ in registry.find_all(newest_first=True):
            await registry.submit(work)
        assert len(await registry.find(limit=1000)) == 2 * (PAGE + 3)


async def test_a_page_whose_last_jobs_are_gone(shop: Shop) -> None:
    """The next page follows the last job that is still kept."""
    found = FoundJobs(shop.find)
    assert (await anext(found)).id == "0"
    await shop.registry.remove("1")
    assert await ids_of(found) == ["1", "2", "3", "4"]
    assert shop.asked == [None, "1", "0", "3", "4"]


async def test_a_page_that_is_gone(shop: Shop) -> None:
    """Where no job of a page is left, nobody knows where to go on: it is told, rather than some left out."""
    found = FoundJobs(shop.find)
    assert (await anext(found)).id == "0"
    await shop.registry.remove("0")
    await shop.registry.remove("1")
    for _ in range(2):
        with pytest.raises(UnknownJobError):
            await anext(found)


async def test_no_page_behind_a_failure(shop: Shop) -> None:
    """A failure that says nothing of a job ends the look for the next page."""
    page = await shop.find(None)
    shop.failures = [StoreUnavailableError("away")]
    with pytest.raises(StoreUnavailableError):
        await find_behind(page, shop.find)
    assert shop.asked == [None, "1"]


async def test_a_failed_look_loses_nothing(shop: Shop) -> None:
    """After an outage, iterating on goes on where it was."""
    found = FoundJobs(shop.find)
    shop.failures = [StoreUnavailableError("away"), None] * 4
    seen: list[str] = []

    async def read() -> None:
        async for record in found:
            seen.append(record.id)

    for n in range(4):
        with pytest.raises(StoreUnavailableError):
            await read()
        assert len(seen) == (0, 1, 3, 4)[n]  # the last one of each page waits for the next
    assert seen + await ids_of(found) == ["0", "1", "2", "3", "4"]


async def test_a_cancelled_look_loses_nothing(shop: Shop) -> None:
    """After a cancellation, iterating on goes on where it was."""
    found = FoundJobs(shop.find)
    seen = [(await anext(found)).id]
    with trio.CancelScope() as scope:
        scope.cancel()
        seen.append((await anext(found)).id)
    assert scope.cancelled_caught
    assert seen + await ids_of(found) == ["0", "1", "2", "3", "4"]


async def test_at_its_end(shop: Shop) -> None:
    """At its end it stays there."""
    found = FoundJobs(shop.find)
    assert len(await ids_of(found)) == 5
    await shop.registry.submit(work)
    assert await ids_of(found) == []


async def test_two_tasks(shop: Shop, autojump_clock: object) -> None:
    """Of two tasks that want the next page the second is refused: else it would be given the first one's job."""
    found = FoundJobs(shop.find)
    shop.wait = trio.Event()
    first: list[str] = []

    async def read() -> None:
        first.append((await anext(found)).id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError, match="another task"):
            await anext(found)
        shop.wait.set()
    assert first + await ids_of(found) == ["0", "1", "2", "3", "4"]


async def test_left_in_the_middle() -> None:
    """A loop may be left early, and nothing has to be closed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with jobtrio.open_registry() as registry:
            await registry.submit_many([JobSpec(work) for _ in range(3)])
            async for _ in registry.find_all():
                break
            gc.collect()
            await trio.lowlevel.checkpoint()


async def test_retention_meanwhile(autojump_clock: object) -> None:
    """Jobs that are removed because they are old are left out, and all that are kept are found."""
    async with jobtrio.open_registry(retention=Retention(finished_jobs=3 * PAGE)) as registry:
        await registry.submit_many([JobSpec(work, n) for n in range(3 * PAGE)])
        await registry.drain()
        seen = []
        async for record in registry.find_all():
            seen.append(record.payload)
            if record.payload % PAGE == PAGE // 2 and record.payload < 2 * PAGE:
                await registry.submit_many([JobSpec(work, 1000 + record.payload + n) for n in range(PAGE // 2)])
                await registry.drain()
        kept = [record.payload for record in await registry.find(limit=1000)]
        assert len(kept) <= 3 * PAGE
        assert seen == sorted(seen)
        assert seen[:PAGE] == list(range(PAGE))
        assert set(kept) <= set(seen)
