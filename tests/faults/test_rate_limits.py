"""Limits on starts in every durable store: with several workers, some of them killed, and with what is in the way."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
import trio
from store_urls import STORES, new_url
from store_worker import open_worker
from worker_process import journal_of, make_executors

import jobtrio
from jobtrio import Completed, Executors, JobContext, JobSpec, JobState, RateLimit
from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from pathlib import Path

    from jobtrio.abc import JobStore

pytestmark = pytest.mark.once

PER = 0.25
"""Seconds between two starts: long enough for a store to answer in between, short enough for twenty of them."""


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest) -> str:
    """Return the URL of an empty store."""
    return new_url(request.param, request)


def store_of(url: str) -> JobStore:
    """Return the store, not opened yet."""
    return parse_store_url(url).make_store()


async def started(registry: jobtrio.JobRegistry, jobs: list[jobtrio.Job]) -> list[float]:
    """Return the moments of all starts, by the store's clock."""
    histories = [await registry.history(job.id) for job in jobs]
    return sorted(line.at.timestamp() for lines in histories for line in lines if line.state is JobState.RUNNING)


async def test_several_workers(url: str) -> None:
    """Together they start one job at each interval, whoever has room, and leave no interval out for long."""
    executors = Executors()

    @executors.register("work")
    async def work(job: JobContext) -> None:
        await trio.sleep(job.payload)

    def open_registry(**options: Any) -> Any:
        limits = {"api": RateLimit(4, per=4 * PER), "none": RateLimit(1, per=10)}
        return jobtrio.open_registry(executors, store=store_of(url), rate_limits=limits, **options)

    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(open_registry(max_running=1))
        for _ in range(2):
            await stack.enter_async_context(open_registry(max_running=2))
        jobs = await registry.submit_many(JobSpec("work", 0.3 if n % 3 else 0, queue="api") for n in range(20))
        free = await registry.submit_many(JobSpec("work", 0) for _ in range(20))
        with trio.fail_after(60):
            assert {await job.wait() for job in free} == {Completed()}
            assert (await registry.get(jobs[-1].id)).state is JobState.QUEUED
            assert {await job.wait() for job in jobs} == {Completed()}
        times = await started(registry, jobs)
    assert len(times) == 20
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) > PER - 0.01
    assert times[-1] - times[0] < 20 * PER + 20  # they look every 5 s by themselves, which would make it 95 s


async def test_a_worker_that_is_killed(url: str, tmp_path: Path) -> None:
    """What it had started has counted; what it held starts again as others do, when the time has come."""
    limits = {"default": (4, 4 * PER)}
    async with AsyncExitStack() as stack:
        path = tmp_path / "jobs"
        worker = await stack.enter_async_context(open_worker(url, path, lease=1.0, rate_limits=limits))
        executors = make_executors(str(journal_of(path)))
        registry = await stack.enter_async_context(jobtrio.open_registry(executors, store=store_of(url), queues={}))
        jobs = await registry.submit_many(JobSpec("send", {"tokens": 20, "pause": 0.05}) for _ in range(10))
        with trio.fail_after(60):
            with jobs[1].subscribe() as messages:
                await messages.receive()
            await worker.kill()
            await stack.enter_async_context(open_worker(url, path, lease=1.0, rate_limits=limits))
            assert {await job.wait() for job in jobs} == {Completed(20)}
        times = await started(registry, jobs)
    assert len(times) > 10
    assert min(later - sooner for sooner, later in itertools.pairwise(times)) > PER - 0.01
