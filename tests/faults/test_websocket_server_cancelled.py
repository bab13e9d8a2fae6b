"""A server that is cancelled at its first step, its second, its third …: it is gone, whatever that was.

`serve` runs inside a cancel scope, with a client that watches. An instrument cancels that scope at the n-th step that
any task takes, for every n until the client has seen all.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from bridge import executors, words
from cancelled_steps import cancelled_at
from raw_client import close_frame, raw_client, request

import jobtrio
from jobtrio.websocket import Limits, Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MOST_STEPS = 3000
LIMITS = Limits(closing=0.2)


@pytest.fixture
async def registry() -> AsyncIterator[jobtrio.JobRegistry]:
    """Open a registry of the tests' executors."""
    async with jobtrio.open_registry(executors) as registry:
        yield registry


async def serve_alone(registry: jobtrio.JobRegistry, *, task_status: trio.TaskStatus[Server]) -> None:
    """Serve until cancelled, which comes out bare."""
    try:
        await serve(registry, port=0, limits=LIMITS, task_status=task_status)
    except BaseExceptionGroup:
        pytest.fail("its cancellation came in a group")


async def served(registry: jobtrio.JobRegistry, job_id: str, seen: list[str]) -> None:
    """Serve, until a client has watched a job to its end."""
    async with trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve_alone, registry))
        async with raw_client(server.port) as client:
            await client.send(request(f"/jobs/{job_id}"))
            assert await client.answer() == 101
            seen += [message["type"] for message in (await client.hear_all())[:-1]]
            await client.send(close_frame())
        nursery.cancel_scope.cancel()


def living() -> int:
    """Return how many tasks there are."""
    return trio.lowlevel.current_statistics().tasks_living


async def test_at_every_step(registry: jobtrio.JobRegistry) -> None:
    """Cancelled at any step, from the first on, a server ends by a bare `trio.Cancelled`, and leaves no task behind."""
    job = await registry.submit(words, "a b")
    await job.wait()
    await trio.testing.wait_all_tasks_blocked()
    before = living()
    for step in range(1, MOST_STEPS):
        seen: list[str] = []
        with cancelled_at(step) as scope:
            await served(registry, job.id, seen)
        assert living() == before
        if not scope.cancelled_caught:
            break
    assert 20 < step < MOST_STEPS - 1
    assert seen == ["subscribed", "events", "end"]
