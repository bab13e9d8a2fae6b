"""A registry whose jobs wait at a gate, for tests in which its store is away meanwhile."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

import jobtrio
from jobtrio import Completed, Executors, JobContext, StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jobtrio.abc import JobStore


class Gate:
    """The registry.

    Attributes:
        opened: Set to let the jobs through.
        passed: Set once one is through.
        begun: Set once one is at the gate.
        runs: The jobs that came to the gate, in order.
    """

    registry: jobtrio.JobRegistry

    def __init__(self, store: JobStore) -> None:
        self.store = store
        self.opened = trio.Event()
        self.passed = trio.Event()
        self.begun = trio.Event()
        self.runs: list[str] = []

    async def wait(self, job: JobContext) -> str:
        """Send something, wait at the gate, and send something more."""
        self.runs.append(job.id)
        await job.send("before")
        self.begun.set()
        await self.opened.wait()
        await job.send("behind")
        self.passed.set()
        return job.id

    async def start(self) -> jobtrio.Job:
        """Start a job, and wait until what it sends first is stored."""
        job = await self.registry.submit("wait")
        with trio.fail_after(60):
            await self.begun.wait()
            while not await self.store.read_messages(job.id, 0, 1):  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        return job

    async def check_outage(self, job: jobtrio.Job, message: str | None = None) -> None:
        """Check, while the store is away, that submitting fails in time and that the job runs on."""
        message = message or f"away for {self.store.outage_limit:g} s"
        with trio.fail_after(60), pytest.raises(StoreUnavailableError, match=message):
            await self.registry.submit("wait")
        self.opened.set()
        with trio.fail_after(60):
            await self.passed.wait()
        await trio.sleep(0.1)
        assert job.outcome is None  # it has returned, but that is not stored yet

    async def check_recovery(self, job: jobtrio.Job) -> jobtrio.Job:
        """Check, once the store is back, that all is well; return another job that has run."""
        with trio.fail_after(60):
            assert await job.wait() == Completed(job.id)
            after = await self.registry.submit("wait")
            assert await after.wait() == Completed(after.id)
            assert await self.stream_of(job) == ["before", "behind", None]
        return after

    async def stream_of(self, job: jobtrio.Job) -> list[object]:
        """Return what a late consumer is given, None for what is no token."""
        with (await self.registry.get(job.id)).subscribe() as messages:
            return [getattr(message, "value", None) async for message in messages]


@asynccontextmanager
async def open_gate(
    store: JobStore, *, lease: float = 30.0, queues: Mapping[str, int] | None = None
) -> AsyncIterator[Gate]:
    """Open a registry."""
    gate = Gate(store)
    executors = Executors()
    executors.register("wait")(gate.wait)
    async with jobtrio.open_registry(executors, store=store, lease=lease, queues=queues) as gate.registry:
        yield gate
