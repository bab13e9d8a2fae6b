"""Who wants no limit may give any large number, whatever the store can hold itself."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import trio
from store_urls import STORES, new_url

import jobtrio
from jobtrio import Completed
from jobtrio.stores._url import parse_store_url


@pytest.mark.parametrize("most", [sys.maxsize, 10**30])
@pytest.mark.parametrize("kind", STORES)
async def test_counts_without_end(kind: str, most: int, request: pytest.FixtureRequest) -> None:
    """Who wants no limit may give any large number."""
    executors = jobtrio.Executors()

    @executors.register("send")
    async def send(job: jobtrio.JobContext) -> None:
        await job.send("sent")

    retention = jobtrio.Retention(finished_jobs=most, tokens_per_job=most)
    limits: dict[str, Any] = {"max_running": most, "max_queued": most, "queues": {"default": most}}
    limits |= {"max_running_total": {"default": most}, "retention": retention}
    limits |= {"rate_limits": {"default": jobtrio.RateLimit(86_400_000, per=86_400, burst=86_400_000)}}
    store = parse_store_url(new_url(kind, request)).make_store()
    async with jobtrio.open_registry(executors, store=store, **limits) as registry:
        with trio.fail_after(60):
            job = await registry.submit("send", tags={"a": "b"})
            assert await job.wait() == Completed()
        await store.prune()
        for query in ({}, {"queue": "default"}, {"tags": {"a": "b"}}):
            assert [record.id for record in await registry.find(**query, limit=most)] == [job.id]
        assert len(await store.read_messages(job.id, 0, most) or ()) == 2
