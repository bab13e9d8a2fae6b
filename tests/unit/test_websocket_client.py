"""The client against a server that follows a script: watching jobs."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from other_numbers import Whole
from scripted_bridge import WAIT, Peer, all_of, end, events, idle, numbers, open_bridge
from trio.testing import wait_all_tasks_blocked

import jobtrio
from jobtrio import Completed, End, Gap, LaggedError, Message, Token
from jobtrio.websocket import (
    JobClient,
    RemoteSubscription,
    open_client,
)
from jobtrio.websocket.protocol import (
    Find,
    GapFound,
    Get,
    JobsFound,
    Ok,
    Refused,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_watches() -> None:
    """A subscription gives the job's messages, and its end."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        request = await peer.subscribed(epoch="e")
        assert (request.job, request.after, request.epoch, request.on_gap) == ("a job", 0, None, "yield")
        await peer.say(events(1, 2), events(3, 3), end(4))

    async with open_bridge(script) as url, open_client(url) as client:
        async with client.subscribe("a job") as messages:
            assert await all_of(messages) == [*(Token(n, 1, n) for n in (1, 2, 3)), End(4, Completed(None))]
        assert (messages.job_id, messages.position, messages.epoch) == ("a job", 4, "e")
        with pytest.raises(trio.ClosedResourceError):
            await messages.receive()


async def test_goes_on_where_it_was() -> None:
    """When the connection is lost, the next one goes on behind the last message, in the same epoch."""

    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed(epoch="e7")
        await peer.say(events(1, 2))
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.greet()
        request = await peer.subscribed(epoch="e7")
        assert (request.after, request.epoch) == (2, "e7")
        await peer.say(events(3, 3), end(4))

    async with open_bridge(first, second) as url, open_client(url) as client:
        assert numbers(await all_of(client.subscribe("a job"))) == [1, 2, 3, 4]


GET = r"trio\.from_thread\.run\(client\.submit, executor\)"
SUBSCRIBE = r"trio\.from_thread\.run_sync\(client\.subscribe, job_id\)"
RECEIVE, CLOSE = r"trio\.from_thread\.run\(messages\.receive\)", r"trio\.from_thread\.run_sync\(messages\.close\)"

ELSEWHERE: list[tuple[str, Callable[[JobClient, RemoteSubscription], Any]]] = [
    (GET, lambda client, _: trio.run(client.get, "a job")),
    (SUBSCRIBE, lambda client, _: client.subscribe("a job")),
    (RECEIVE, lambda _, messages: messages.receive_nowait()),
    (RECEIVE, lambda _, messages: trio.run(messages.receive)),
    (RECEIVE, lambda _, messages: trio.run(messages.receive_batch)),
    (CLOSE, lambda _, messages: messages.close()),
    (CLOSE, lambda _, messages: trio.run(messages.aclose)),
]
"""What belongs to the client's own run: what to say instead, and the call."""


async def give_two_and_refuse(peer: Peer) -> None:
    """Send a client two messages, and then refuse it a job: it has the messages by then."""
    await peer.greet()
    await peer.subscribed()
    await peer.say(events(1, 2))
    await peer.answer(Get, Refused(code="unknown_job", message="no"))
    peer.cut()


@pytest.mark.parametrize(("instead", "ask"), ELSEWHERE)
async def test_in_another_thread(instead: str, ask: Callable[[JobClient, RemoteSubscription], Any]) -> None:
    """In another thread a call is refused, and does no harm: what is said instead does it, and the client goes on."""

    async def script(peer: Peer) -> None:
        await give_two_and_refuse(peer)
        await peer.say(end(3))

    def in_thread() -> None:
        with pytest.raises(RuntimeError, match=rf"that opened the client; in another thread say {instead}"):
            ask(client, messages)
        assert trio.from_thread.run(messages.receive) == Token(1, 1, 1)

    with trio.fail_after(60):
        async with open_bridge(script) as url, open_client(url) as client:
            with client.subscribe("a job") as messages:
                await trio.to_thread.run_sync(in_thread)
                with pytest.raises(jobtrio.UnknownJobError):
                    await client.get("another job")
                assert await all_of(messages) == [Token(2, 1, 2), End(3, Completed(None))]


async def test_in_another_thread_when_it_is_over() -> None:
    """Behind the client's block there is nobody to wake: what is left open by then is closed in any thread."""

    async def script(peer: Peer) -> None:
        await give_two_and_refuse(peer)

    def in_thread() -> None:
        assert messages.receive_nowait() == Token(1, 1, 1)
        assert trio.run(messages.receive) == Token(2, 1, 2)
        for call in (messages.receive, partial(client.get, "a job")):
            with pytest.raises(trio.ClosedResourceError, match="the client is closed"):
                trio.run(call)
        messages.close()
        with pytest.raises(trio.ClosedResourceError, match="this subscription is closed"):
            messages.receive_nowait()

    async with open_bridge(script) as url:
        async with open_client(url) as client:
            messages = client.subscribe("a job")
            with pytest.raises(jobtrio.UnknownJobError):
                await client.get("a job")
        await trio.to_thread.run_sync(in_thread)


async def test_refused_without_garbage() -> None:
    """What the server refuses is let go of with its error: the collector finds next to nothing of it."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(20):
            for kind in (Get, Subscribe):
                await peer.answer(kind, Refused(code="unknown_job", message="no"))

    async with open_bridge(script) as url, open_client(url) as client:
        with trio.fail_after(60):
            gc.collect()
            gc.disable()
            try:
                for _ in range(20):
                    with pytest.raises(jobtrio.UnknownJobError):
                        await client.get("a job")
                    with client.subscribe("a job") as messages, pytest.raises(jobtrio.UnknownJobError):
                        await messages.receive()
                found = gc.collect()
            finally:
                gc.enable()
    assert found < 20, f"{found} objects of 40 refusals"


async def test_left_without_garbage() -> None:
    """A client that is left leaves nothing to the collector."""

    async def visit(url: str) -> tuple[weakref.ref[object], ...]:
        async with open_client(url) as client:
            return weakref.ref(client), weakref.ref(client._keeper), weakref.ref(client._keeper.book)

    async with open_bridge(idle) as url:
        gc.disable()
        try:
            with trio.fail_after(60):
                left = await visit(url)
            assert [ref() for ref in left] == [None] * 3
        finally:
            gc.enable()


async def test_numbers_of_other_kinds() -> None:
    """Whole numbers of classes of their own, as numpy's, are sent as plain ones."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        find = await peer.hear(Find)
        assert find.limit == 7
        await peer.say(JobsFound(id=find.id, jobs=[]))
        assert (await peer.subscribed(last=7)).after == 7
        await peer.say(end(8))
        await peer.subscribed(last=7)
        await peer.say(end(8))
        await peer.gone()

    other: Any = Whole(7)
    async with open_bridge(script) as url, open_client(url) as client:
        assert await client.find(limit=other) == []
        assert numbers(await all_of(client.subscribe("a job", other))) == [8]
        async with client.subscribe("a job", 7) as messages:
            assert numbers(await messages.receive_batch(other)) == [8]


async def test_from_now_on() -> None:
    """A subscription from now on keeps the place that the server gave it, over connections."""

    async def first(peer: Peer) -> None:
        await peer.greet()
        assert (await peer.subscribed(last=7)).after == "end"
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.greet()
        assert (await peer.subscribed(last=9)).after == 7
        await peer.say(events(8, 9), end(10))

    async with open_bridge(first, second) as url, open_client(url) as client:
        assert numbers(await all_of(client.subscribe("a job", "end"))) == [8, 9, 10]


async def test_place_of_another_client() -> None:
    """A subscription can go on where another client was."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        request = await peer.subscribed(epoch="e")
        assert (request.after, request.epoch) == (3, "e")
        await peer.say(events(4, 4), end(5))

    async with open_bridge(script) as url, open_client(url) as client:
        assert numbers(await all_of(client.subscribe("a job", 3, epoch="e"))) == [4, 5]


async def test_close_is_no_end() -> None:
    """A connection that is closed in order, with the code of success even, is no end of a stream."""

    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await peer.say(events(1, 1))
        await peer.close(1000)

    async def second(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed(last=1)

    async with open_bridge(first, second) as url, open_client(url) as client:
        with client.subscribe("a job") as messages:
            assert await messages.receive() == Token(1, 1, 1)
            with trio.move_on_after(0.2) as scope:
                await messages.receive()
            assert scope.cancelled_caught


async def test_gap() -> None:
    """Messages that are no longer kept come as a gap or are raised; either way reading goes on behind them."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for sub in (1, 2):
            await peer.subscribed(sub)
            await peer.say(events(1, 2, sub), GapFound(sub=sub, first=3, last=7), events(8, 8, sub), end(9, sub))

    async with open_bridge(script) as url, open_client(url) as client:
        assert (await all_of(client.subscribe("a job", on_gap="yield")))[2] == Gap(3, 7)
        messages = client.subscribe("a job")
        while messages.position < 2:
            await messages.receive()
        with pytest.raises(LaggedError) as caught:
            await messages.receive_batch()
        assert (caught.value.first, caught.value.last, messages.position) == (3, 7, 7)
        assert numbers(await all_of(messages)) == [8, 9]


async def test_batches_stop_before_a_gap() -> None:
    """A batch has what comes before a gap that is to be raised, and the next one what comes behind it."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await peer.say(events(1, 2), GapFound(sub=1, first=3, last=7), end(8))

    async with open_bridge(script) as url, open_client(url) as client:
        with client.subscribe("a job") as messages:
            await wait_all_tasks_blocked(0.05)
            assert numbers(await messages.receive_batch()) == [1, 2]
            with pytest.raises(LaggedError):
                await messages.receive_batch()
            assert numbers(await messages.receive_batch()) == [8]
            with pytest.raises(trio.EndOfChannel):
                await messages.receive_batch()


async def test_receives_without_waiting() -> None:
    """What is there can be received without waiting, and what is not there is not waited for."""
    gate = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await gate.wait()
        await peer.say(events(1, 1))

    async with open_bridge(script) as url, open_client(url) as client:
        with client.subscribe("a job") as messages:
            with pytest.raises(trio.WouldBlock):
                messages.receive_nowait()
            gate.set()
            await wait_all_tasks_blocked(0.05)
            assert messages.receive_nowait() == Token(1, 1, 1)


@pytest.mark.parametrize("how", ["close", "forget"])
async def test_leaves(how: str) -> None:
    """A subscription that is closed or forgotten is given up at the server, and what still comes is passed over."""
    left = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        request = await peer.hear(Unsubscribe)
        assert request.sub == 1
        await peer.say(events(5, 5), Ok(id=request.id))
        left.set()

    async with open_bridge(script) as url, open_client(url) as client:
        messages: RemoteSubscription | None = client.subscribe("a job")
        await wait_all_tasks_blocked(0.05)
        if how == "close" and messages is not None:
            messages.close()
        messages = None
        gc.collect()
        with trio.fail_after(WAIT):
            await left.wait()


async def test_leaves_before_the_answer() -> None:
    """A subscription that is closed before the server has answered is given up once it has."""
    left = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        request = await peer.hear(Subscribe)
        messages.close()
        await peer.say(
            Subscribed(
                id=request.id, sub=3, job="j", epoch="e", state=jobtrio.JobState.RUNNING, attempt=1, first=1, last=0
            )
        )
        assert (await peer.hear(Unsubscribe)).sub == 3
        left.set()

    async with open_bridge(script) as url, open_client(url) as client:
        messages = client.subscribe("j")
        with trio.fail_after(WAIT):
            await left.wait()


async def test_closing_wakes_a_receiver() -> None:
    """Whoever waits for a message is told when the subscription is closed, and when the client is."""

    async def expect(messages: RemoteSubscription) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await messages.receive()

    async with open_bridge(idle) as url, trio.open_nursery() as nursery:
        async with open_client(url) as client:
            messages = client.subscribe("a job")
            nursery.start_soon(expect, messages)
            nursery.start_soon(expect, client.subscribe("a job"))
            await wait_all_tasks_blocked()
            messages.close()


async def test_receives_for_many_tasks() -> None:
    """Several tasks may share a subscription: each message goes to one of them, and the end reaches all."""
    gate = trio.Event()
    seen: list[Message] = []

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await gate.wait()
        for n in range(1, 20):
            await peer.say(events(n, n))
        await peer.say(end(20))

    async def read(messages: RemoteSubscription) -> None:
        seen.extend([message async for message in messages])

    async with open_bridge(script) as url, open_client(url) as client:
        messages = client.subscribe("a job")
        with trio.fail_after(WAIT):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(read, messages)
                await wait_all_tasks_blocked()
                gate.set()
    assert sorted(numbers(seen)) == [*range(1, 21)]


async def test_gives_way() -> None:
    """A receiver that never has to wait lets other tasks run, every 256 messages at the latest."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await peer.say(events(1, 1000), end(1001))

    async with open_bridge(script) as url, open_client(url) as client:
        messages = client.subscribe("a job")
        await messages.receive()
        with trio.move_on_after(0) as scope:
            for _ in range(600):
                await messages.receive()
        assert scope.cancelled_caught
        assert messages.position <= 257
        assert (await messages.receive()) == Token(messages.position, 1, messages.position)
