"""A registry on a server whose jobs wait at a gate, for tests in which the server is away meanwhile."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

import jobtrio
from jobtrio import Completed, Executors, JobContext, StoreUnavailableError
from jobtrio.stores.redis import RedisJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OUTAGE_LIMIT = 4.5  # a third of it is what a connection and an answer may take, on a busy machine too


class Gate:
    """The registry.

    Attributes:
        opened: Set to let the jobs through.
        passed: Set once one is through.
    """

    registry: jobtrio.JobRegistry

    def __init__(self, store: RedisJobStore) -> None:
        self.store = store
        self.opened = trio.Event()
        self.passed = trio.Event()
        self._begun = trio.Event()

    async def wait(self, job: JobContext) -> str:
        """Send something, wait at the gate, and send something more."""
        await job.send("before")
        self._begun.set()
        await self.opened.wait()
        await job.send("behind")
        self.passed.set()
        return job.id

    async def start(self) -> jobtrio.Job:
        """Start a job, and wait until what it sends first is stored."""
        job = await self.registry.submit("wait")
        with trio.fail_after(60):
            await self._begun.wait()
            while not await self.store.read_messages(job.id, 0, 1):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        return job

    async def check_outage(self, job: jobtrio.Job, message: str = f"away for {OUTAGE_LIMIT} s") -> None:
        """Check, while the server is away, that submitting fails in time and that the job runs on."""
        with trio.fail_after(60), pytest.raises(StoreUnavailableError, match=message):
            await self.registry.submit("wait")
        self.opened.set()
        with trio.fail_after(60):
            await self.passed.wait()
        await trio.sleep(0.1)
        assert job.outcome is None  # it has returned, but that is not stored yet

    async def check_recovery(self, job: jobtrio.Job) -> jobtrio.Job:
        """Check, once the server is back, that all is well; return another job that has run."""
        with trio.fail_after(60):
            assert await job.wait() == Completed(job.id)
            after = await self.registry.submit("wait")
            assert await after.wait() == Completed(after.id)
            with (await self.registry.get(job.id)).subscribe() as messages:
                assert [getattr(message, "value", None) async for message in messages] == ["before", "behind", None]
        return after


@asynccontextmanager
async def open_gate(
    url: str, *, prefix: str = "gate", lease: float = 30.0, outage_limit: float = OUTAGE_LIMIT
) -> AsyncIterator[Gate]:
    """Open a registry on a server."""
    gate = Gate(RedisJobStore(url, prefix=prefix, outage_limit=outage_limit))
    executors = Executors()
    executors.register("wait")(gate.wait)
    async with jobtrio.open_registry(executors, store=gate.store, lease=lease) as gate.registry:
        yield gate
