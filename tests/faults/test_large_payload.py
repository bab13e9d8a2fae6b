"""A job with a large payload is watched in another process, which is not to read that for each piece of the stream."""

from __future__ import annotations

from typing import NoReturn

import pytest
import trio
from store_urls import STORES, new_url

import jobtrio
from jobtrio import Completed, JobState, Token
from jobtrio.stores._url import parse_store_url

LARGE = "x" * 1_000_000


@pytest.mark.parametrize("kind", STORES)
async def test_watching(kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job was given is read once by whoever watches it, and is in its record all the time."""
    executors = jobtrio.Executors()
    watched = trio.Event()

    @executors.register("send")
    async def send(job: jobtrio.JobContext) -> int:
        await watched.wait()
        for n in range(20):
            await job.send(n)
            await trio.sleep(0.01)
        await job.save_state("saved")
        return len(job.payload)

    def load(job_id: str) -> NoReturn:
        raise AssertionError(f"{job_id} was read whole")

    address = parse_store_url(new_url(kind, request))
    watching = address.make_store()
    async with (
        jobtrio.open_registry(executors, store=address.make_store()) as worker,
        jobtrio.open_registry(executors, store=watching, queues={}) as registry,
    ):
        job_id = (await worker.submit("send", LARGE, tags={"t": "v"}, metadata={"m": 1})).id
        job = await registry.get(job_id)
        seen = await watching.look(job_id)
        assert seen is not None
        assert seen.payload is None
        monkeypatch.setattr(watching, "load", load)
        async with job.subscribe() as messages:
            watched.set()
            received = [message async for message in messages]
        assert [message.value for message in received if isinstance(message, Token)] == [*range(20)]
        assert await job.wait() == Completed(len(LARGE))
        record = job.record
        assert (record.state, record.payload, record.tags, record.metadata) == (
            *(JobState.COMPLETED, LARGE),
            *({"t": "v"}, {"m": 1}),
        )
