"""The client against a server that follows a script: streams that go wrong, or are too many."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from scripted_bridge import WAIT, Peer, all_of, end, events, idle, numbers, open_bridge
from trio.testing import wait_all_tasks_blocked

import jobtrio
from jobtrio import LaggedError
from jobtrio.websocket import (
    JobClient,
    RemoteSubscription,
    ServerRefusedError,
    WrongEpochError,
    _client_feed,
    open_client,
)
from jobtrio.websocket.protocol import (
    Get,
    Heartbeat,
    Ok,
    Refused,
    Subscribe,
    Unsubscribe,
)

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.mark.parametrize(
    ("refused", "error", "text"),
    [
        (Refused(code="unknown_job", message="no"), jobtrio.UnknownJobError, "a job"),
        (Refused(code="future_cursor", message="after must be 0 to 3", last=3), ValueError, "0 to 3"),
        (Refused(code="wrong_epoch", message="no"), WrongEpochError, "a job"),
        (Refused(code="outdated_cursor", message="no", first=1, last=4), LaggedError, "1 to 4"),
        (Refused(code="forbidden", message="not for you"), ServerRefusedError, "forbidden"),
        (Refused(code="invented", message="what"), ServerRefusedError, "invented"),
    ],
)
async def test_refused_subscription(refused: Refused, error: type[Exception], text: str) -> None:
    """What the server refuses is raised where the stream is read, as often as that is tried."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Subscribe, Refused(code=refused.code, message=refused.message, first=1, last=4))

    async with open_bridge(script) as url, open_client(url) as client:
        with client.subscribe("a job") as messages, trio.fail_after(WAIT):
            for _ in range(2):
                with pytest.raises(error, match=text if "after" not in refused.message else "after must be"):
                    await messages.receive()


@pytest.mark.parametrize("code", ["wrong_epoch", "future_cursor"])
async def test_another_stream(code: str) -> None:
    """Where the stream that was begun is gone, that is an error of its own, behind what came of it."""

    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await peer.say(events(1, 2))
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Subscribe, Refused(code=code, message="no"))

    async with open_bridge(first, second) as url, open_client(url) as client:
        messages = client.subscribe("a job")
        with pytest.raises(WrongEpochError, match="'a job'"):
            await all_of(messages)
        assert messages.position == 2


@pytest.mark.parametrize("code", ["unavailable", "rate"])
async def test_subscribes_again(code: str) -> None:
    """A subscription that can't be served now is asked for again, before it begins and in its middle."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Subscribe, Refused(code=code, message="not now"))
        await peer.subscribed(1)
        await peer.say(events(1, 2), Refused(sub=1, code=code, message="cut off"))
        assert (await peer.subscribed(2)).after == 2
        await peer.say(events(3, 3, 2), end(4, 2))

    async with open_bridge(script) as url, open_client(url) as client:
        assert numbers(await all_of(client.subscribe("a job"))) == [1, 2, 3, 4]


@pytest.mark.parametrize("reply", [events(4, 4), end(4), Heartbeat(last={"1": 3, "x": 3, "9": 9})])
async def test_hole(reply: Any) -> None:
    """A server that leaves out a message is found out; that stream ends with an error, and no other."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed(1)
        await peer.subscribed(2)
        await peer.say(events(1, 2, 1), reply, events(1, 1, 2), end(2, 2))
        assert isinstance(reply, type(end(1))) or (await peer.hear(Unsubscribe)).sub == 1

    async with open_bridge(script) as url, open_client(url) as client:
        broken, other = client.subscribe("one"), client.subscribe("two")
        with pytest.raises(ServerRefusedError, match="the stream of job 'one' is broken"):
            await all_of(broken)
        assert broken.position == 2
        assert numbers(await all_of(other)) == [1, 2]


@pytest.mark.parametrize(
    ("value", "why"), [("[" * 100_000 + "]" * 100_000, "nested too deeply"), ("broken", "JSON is malformed")]
)
async def test_what_can_not_be_read_here(value: str, why: str) -> None:
    """A message deeper than this program can read, or no JSON, ends its own stream or call, once, and no other."""

    def said(seq: int) -> str:
        return f'{{"type":"events","sub":1,"seq":{seq},"attempt":1,"items":[{value}]}}'

    async def script(peer: Peer) -> None:
        assert peer.number == 0
        await peer.greet()
        await peer.subscribed(1)
        await peer.subscribed(2)
        get = await peer.hear(Get)
        for seq in (1, 2):
            await peer.say(said(seq), events(seq, seq, 2))
        assert (await peer.hear(Unsubscribe)).sub == 1
        await peer.say(said(3))
        await peer.say(f'{{"type":"job","id":{get.id},"job":{{"payload":{value}}}}}', end(3, 2))

    async with open_bridge(script) as url, open_client(url) as client, trio.open_nursery() as nursery:
        broken, whole = client.subscribe("a"), client.subscribe("b")
        nursery.start_soon(_refused_get, client, why)
        with pytest.raises(ServerRefusedError, match=why):
            await all_of(broken)
        assert numbers(await all_of(whole)) == [1, 2, 3]


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"end","sub":1,"seq":3,"outcome":{"type":"failed","error":'
        '{"kind":"invented","type":"E","message":"","traceback":""}}}',
        '{"type":"end","sub":1,"seq":3,"outcome":{"type":"invented"}}',
        '{"type":"progress","seq":3,"attempt":1,"done":"half","total":null,"note":null,"sub":1}',
        '{"type":"progress","seq":3,"attempt":1,"done":1,"note":null,"sub":1,"total":1' + 309 * "0" + "}",
    ],
    ids=["kind", "outcome", "amount", "beyond floats"],
)
async def test_content_of_later_versions(text: str) -> None:
    """A message whose content can't be read here, as one of later versions, ends its own stream, once, and no other."""

    async def script(peer: Peer) -> None:
        assert peer.number == 0
        await peer.greet()
        await peer.subscribed(1)
        await peer.subscribed(2)
        await peer.say(events(1, 2, 1), events(1, 2, 2), text)
        assert (await peer.hear(Unsubscribe)).sub == 1
        await peer.say(text, end(3, 2))

    async with open_bridge(script) as url, open_client(url) as client:
        broken, whole = client.subscribe("a"), client.subscribe("b")
        with pytest.raises(ServerRefusedError, match="what it sent can't be read here"):
            await all_of(broken)
        assert broken.position == 2
        assert numbers(await all_of(whole)) == [1, 2, 3]


async def _refused_get(client: JobClient, why: str) -> None:
    with pytest.raises(ServerRefusedError, match=why):
        await client.get("c")


async def test_slow_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that reads slowly pauses at the server, holds up nobody, and goes on where it was."""
    monkeypatch.setattr(_client_feed, "MOST", 10)
    paused = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed(1)
        await peer.subscribed(2)
        await peer.say(events(1, 6, 1), events(7, 12, 1), events(13, 18, 1))
        request = await peer.hear(Unsubscribe)
        assert request.sub == 1
        await peer.say(events(19, 24, 1), Ok(id=request.id), events(1, 1, 2), end(2, 2))
        paused.set()
        assert (await peer.subscribed(3)).after == 12
        await peer.say(events(13, 13, 3), end(14, 3))

    async with open_bridge(script) as url, open_client(url) as client:
        slow, other = client.subscribe("slow"), client.subscribe("other")
        with trio.fail_after(WAIT):
            await paused.wait()
        assert numbers(await all_of(other)) == [1, 2]
        assert numbers(await all_of(slow)) == [*range(1, 15)]


async def test_more_subscriptions_than_the_server_takes() -> None:
    """The newest subscription fails where there is no place for it; a place that became free can be taken."""

    async def script(peer: Peer) -> None:
        await peer.greet(subscriptions=2)
        await peer.subscribed(1)
        await peer.subscribed(2)
        await peer.answer(Unsubscribe, Ok())
        assert (await peer.subscribed(3)).job == "fourth"
        await peer.say(end(1, 3))

    async with open_bridge(script) as url, open_client(url) as client:
        first = client.subscribe("first")
        with client.subscribe("second"), client.subscribe("third") as third:
            with pytest.raises(ServerRefusedError, match=r"too_many_subscriptions.*takes 2 subscriptions"):
                await third.receive()
            await wait_all_tasks_blocked(0.05)
            first.close()
            assert numbers(await all_of(client.subscribe("fourth"))) == [1]


async def test_place_that_is_not_free_yet() -> None:
    """Where a subscription was closed before the server has answered, the next one waits for its place."""

    async def script(peer: Peer) -> None:
        await peer.greet(subscriptions=1)
        request = await peer.hear(Subscribe)
        first.close()
        second.append(client.subscribe("second"))
        begun.set()
        await wait_all_tasks_blocked(0.05)
        await peer.say(Refused(id=request.id, code="unknown_job", message=""))
        assert (await peer.subscribed(1)).job == "second"
        await peer.say(end(1))

    second: list[RemoteSubscription] = []
    begun = trio.Event()
    async with open_bridge(script) as url, open_client(url) as client:
        first = client.subscribe("first")
        with trio.fail_after(WAIT):
            await begun.wait()
        assert numbers(await all_of(second[0])) == [1]


async def test_job_that_can_not_be() -> None:
    """An id that no job can have is refused, or unknown, and never ends the connection."""
    async with open_bridge(idle) as url, open_client(url) as client:
        with pytest.raises(ValueError, match=r"^job_id must be"):
            client.subscribe("\ud800")
        with pytest.raises(jobtrio.UnknownJobError):
            await client.subscribe("x" * 201).receive()
        assert client.is_connected


async def test_epoch_too_large_for_the_server() -> None:
    """A subscription that is larger than the server takes is not sent: it would end the connection."""

    async def script(peer: Peer) -> None:
        await peer.greet(message_bytes=300)
        await peer.subscribed()
        await peer.say(end(1))

    async with open_bridge(script) as url, open_client(url) as client:
        with pytest.raises(jobtrio.PayloadError, match="at most 300 bytes"):
            await client.subscribe("a job", epoch="x" * 300).receive()
        assert numbers(await all_of(client.subscribe("a job"))) == [1]
