"""A client whose connection is cut at every place there is: nothing is lost, nothing comes or is made twice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import trio
from bridge_jobs import TOKEN, open_bridge_with_jobs
from cutting_proxy import Cut, Proxy, open_proxy

from jobtrio import Completed, End, Message, Restart, Token
from jobtrio.websocket import Limits, _client_keeper, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from bridge_jobs import Bridge

    from jobtrio import JobContext

pytestmark = pytest.mark.usefixtures("short_pauses")

STRIDE = int(os.environ.get("JOBTRIO_CUT_STRIDE", "23"))
"""Bytes from one place of a cut to the next; 1 for a long test."""


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    """Return a bridge that takes many messages a second."""
    async with open_bridge_with_jobs(limits=Limits(messages_per_second=10_000)) as bridge:
        yield bridge


def only_first(cut: Cut) -> Callable[[int], Cut | None]:
    """Return the plan that cuts the first connection alone."""
    return lambda number: cut if number == 0 else None


def url_of(proxy: Proxy) -> str:
    return f"ws://127.0.0.1:{proxy.port}/ws"


async def watch(proxy: Proxy, job_id: str) -> list[Message]:
    with trio.fail_after(60):
        async with open_client(url_of(proxy), token=TOKEN) as client:
            with client.subscribe(job_id) as messages:
                return [message async for message in messages]


async def test_at_every_message_of_a_stream(bridge: Bridge) -> None:
    """Cut behind each of the server's messages while the job runs, a consumer sees all of it, once, in order."""
    for frames in range(100):
        job = await bridge.registry.submit("count", [12, 0.002])
        async with open_proxy(bridge.server.port, only_first(Cut(frames=frames))) as p:
            seen = await watch(p, job.id)
        assert seen == [*(Token(n, 1, n) for n in range(1, 13)), End(13, Completed(12))]
        if not p.cut:
            break
    assert 3 <= frames < 99
    assert p.connections == 1


@pytest.mark.timeout(80 + 800 // STRIDE)
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_at_every_byte(bridge: Bridge, how: str) -> None:
    """Cut within a message, within the handshake even, it is the same, whoever is said to have ended the connection."""
    job = await bridge.registry.submit("stumble")
    outcome = await job.wait()
    for size in range(0, 100_000, STRIDE):
        cut = Cut(down=size, how=how)  # type: ignore[arg-type]
        async with open_proxy(bridge.server.port, only_first(cut)) as proxy:
            seen = await watch(proxy, job.id)
        assert [message.seq for message in seen] == [1, 2, 3, 4, 5, 6]  # type: ignore[union-attr]
        assert [type(message).__name__ for message in seen[:2]] == ["Progress", "Token"]
        assert isinstance(seen[2], Restart)
        assert isinstance(seen[-1], End)
        assert repr(seen[-1].outcome) == repr(outcome)
        if not proxy.cut:
            break
    assert proxy.connections == 1
    assert size > 500


async def test_again_and_again(bridge: Bridge) -> None:
    """Cut behind every second message of its stream, on every connection, a consumer still comes to the end."""
    received = 0
    news = trio.Event()

    async def count(job: JobContext) -> int:
        nonlocal news
        for n in range(1, 21):  # each when the one before is there, so that no two are one message
            await job.send(n)
            while received < n:
                news = trio.Event()
                await news.wait()
        return 20

    job = await bridge.registry.submit(count)
    async with open_proxy(bridge.server.port, lambda n: Cut(frames=4)) as proxy:
        with trio.fail_after(60):
            async with open_client(url_of(proxy), token=TOKEN) as client:
                with client.subscribe(job.id) as messages:
                    seen = []
                    async for message in messages:
                        seen.append(message)
                        received += 1
                        news.set()
    assert seen == [*(Token(n, 1, n) for n in range(1, 21)), End(21, Completed(20))]
    assert proxy.connections > 3


async def test_many_at_once(bridge: Bridge) -> None:
    """All subscriptions of a client go on where they were, each in its own place."""
    jobs = [await bridge.registry.submit("count", [10 * n, 0.001]) for n in range(1, 8)]
    seen: dict[str, list[Message]] = {}

    async with open_proxy(bridge.server.port, lambda n: Cut(down=3000 + 500 * n)) as proxy:
        async with open_client(url_of(proxy), token=TOKEN) as client:

            async def read(job_id: str) -> None:
                seen[job_id] = [message async for message in client.subscribe(job_id)]

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for job in jobs:
                        nursery.start_soon(read, job.id)
    for n, job in enumerate(jobs, 1):
        assert [each.value for each in seen[job.id] if isinstance(each, Token)] == [*range(1, 10 * n + 1)]
        assert seen[job.id][-1] == End(10 * n + 1, Completed(10 * n))
    assert proxy.cut > 1


@pytest.mark.timeout(80 + 800 // STRIDE)
async def test_submissions(bridge: Bridge) -> None:
    """A submission is made once, wherever its connection was cut, on the way there and on the way back."""
    for upward in (True, False):
        for size in range(0, 100_000, STRIDE):
            cut = Cut(up=size) if upward else Cut(down=size)
            async with open_proxy(bridge.server.port, only_first(cut)) as proxy:
                with trio.fail_after(60):
                    async with open_client(url_of(proxy), token=TOKEN) as client:
                        tags = {"place": f"{upward} {size}"}
                        job = await client.submit("echo", size, tags=tags)
                        assert await job.result() == size
            assert [record.id for record in await bridge.registry.find(tags=tags)] == [job.id]
            if not proxy.cut:
                break
        assert proxy.connections == 1


async def test_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing passes any more and nobody says so, the client finds out and goes on by another connection."""
    monkeypatch.setattr(_client_keeper, "LEAST_SILENCE", 0.0)
    async with open_bridge_with_jobs(limits=Limits(heartbeat=0.2)) as bridge:
        job = await bridge.registry.submit("count", [5, 0.0])
        for frames in (0, 2, 3):
            cut = Cut(frames=frames, how="stall")
            async with open_proxy(bridge.server.port, only_first(cut)) as proxy:
                with monkeypatch.context() as patched:
                    if frames == 0:
                        patched.setattr(_client_keeper, "OPENING_LIMIT", 0.3)
                    seen = await watch(proxy, job.id)
            assert seen == [*(Token(n, 1, n) for n in range(1, 6)), End(6, Completed(5))]
            assert proxy.connections >= 2  # more where the machine is slow to answer
