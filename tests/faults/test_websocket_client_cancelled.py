"""A client that is cancelled at its first step, its second, its third …: what remains is in order, whatever that was.

A scenario runs inside a cancel scope, within an open client or around one. An instrument cancels that scope at the n-th
step that any task takes, for every n until the scenario ends untouched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest
import trio
from bridge_jobs import TOKEN, Bridge, open_bridge_with_jobs
from cancelled_steps import cancelled_at

from jobtrio import Completed, End, Message
from jobtrio.websocket import JobClient, Limits, open_client

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.usefixtures("short_pauses")

MOST_STEPS = 3000
LIMIT = 60.0

Scenario: TypeAlias = "Callable[[JobClient, list[Message]], Awaitable[None]]"


async def submit_and_watch(client: JobClient, seen: list[Message]) -> None:
    """Submit a job and see it to its end, with another subscription beside it that is left early."""
    job = await client.submit("count", [3, 0], key="one")
    with client.subscribe(job.id):
        async with job.subscribe() as messages:
            seen += [await messages.receive()]
            seen += await messages.receive_batch()
            seen += [message async for message in messages]
    await client.find()


async def cancel_and_ask(client: JobClient, seen: list[Message]) -> None:
    """Have a job cancelled while it is waited for, and asked for."""
    job = await client.submit("hang", key="one")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job.wait)
        nursery.start_soon(job.refresh)
        await job.cancel("enough")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", [submit_and_watch, cancel_and_ask])
async def test_within_a_client(scenario: Scenario) -> None:
    """Whatever step a use of a client is cancelled at, the client serves on, by the same connection."""
    async with open_bridge_with_jobs(limits=Limits(messages_per_second=100_000)) as bridge:
        async with open_client(bridge.url, token=TOKEN) as client:
            for step in range(1, MOST_STEPS):
                seen: list[Message] = []
                with trio.fail_after(LIMIT):
                    with cancelled_at(step) as scope:
                        await scenario(client, seen)
                    await _check(bridge, client, seen)
                if not scope.cancelled_caught:
                    break
            assert step > 5
            assert bridge.server.stats().connections == 1
            await _until_left(bridge, subscriptions=0)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", [submit_and_watch, cancel_and_ask])
async def test_around_a_client(scenario: Scenario) -> None:
    """Whatever step a client's whole life is cancelled at, it is gone at once, and the server serves others on."""
    async with open_bridge_with_jobs(limits=Limits(messages_per_second=100_000)) as bridge:
        for step in range(1, MOST_STEPS):
            seen: list[Message] = []
            with trio.fail_after(LIMIT):
                with cancelled_at(step) as scope:
                    async with open_client(bridge.url, token=TOKEN) as client:
                        await scenario(client, seen)
            if not scope.cancelled_caught:
                break
            async with open_client(bridge.url, token=TOKEN) as client:
                await _check(bridge, client, seen)
        assert step > 20
        await _until_left(bridge, connections=0)


async def _check(bridge: Bridge, client: JobClient, seen: list[Message]) -> None:
    """What was seen is a beginning of the stream; there is one job at most; and the client, or another, works."""
    await client.find()  # behind what the scenario has sent
    records = await bridge.registry.find()
    assert len(records) <= 1
    for record in records:
        await bridge.registry.cancel(record.id)
        whole = [message async for message in client.subscribe(record.id)]
        assert seen == whole[: len(seen)]
        assert isinstance(whole[-1], End)
    assert await (await client.submit("echo", "on", key="check")).wait() == Completed("on")
    for record in await bridge.registry.find():
        job = await bridge.registry.get(record.id)
        await job.cancel()  # it may have arrived late, from a connection that is gone
        await job.wait()
        await bridge.registry.remove(job.id)


async def _until_left(bridge: Bridge, **counts: int) -> None:
    """Wait until the server has no more of something: that a client left reaches it a little later."""
    with trio.fail_after(LIMIT):
        while any(getattr(bridge.server.stats(), name) != count for name, count in counts.items()):  # noqa: ASYNC110
            await trio.sleep(0.01)
