"""Clients that break the rules of frames. Each test ends with a client that is served as if nothing was."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
import trio
from bridge import Bridge, brief, open_bridge, resident, words
from patience import until
from raw_client import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_frame, connected, frame

from jobtrio.websocket._uptake import Uptake

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MEGABYTE = 2**20
CONTINUATION = 0


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    """Serve with short waits; afterwards serve a client that behaves, and be left by all."""
    async with open_bridge(limits=brief(message_frames=100, message_bytes=10_000)) as bridge:
        yield bridge
        await bridge.assert_is_well()
        await bridge.assert_is_left()


@pytest.mark.parametrize("path", ["/ws", "/jobs/{job}"])
@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b'{"type":"ping"}', masked=False),
        frame(3, b"x"),
        frame(0xB, b"x"),
        frame(0xF),
        frame(TEXT, b"x", rsv=1),
        frame(TEXT, b"x", rsv=4),
        frame(PING, b"x" * 126),
        frame(CLOSE, b"x" * 126),
        frame(PING, b"x", fin=False),
        frame(CLOSE, b"\x03"),
        frame(CONTINUATION, b"x"),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"),
        frame(TEXT, b"\xff\xfe"),
        frame(TEXT, b"\xed\xa0\x80"),
        frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x98"),
        close_frame(999),
        close_frame(1005),
        close_frame(5000),
        close_frame(1000, b"\xff"),
        frame(TEXT, b"x" * 20_000),
        frame(TEXT, b"", length=2**63),
        frame(TEXT, b"", length=2**62),
        frame(TEXT, b"x" * 20_000) + frame(PING, b"late"),
        frame(TEXT, b"x" * 6_000, fin=False) + frame(CONTINUATION, b"x" * 6_000) + frame(PING) * 100,
        close_frame() + frame(PING, b"late"),
        close_frame() + frame(TEXT, b"late"),
        close_frame() * 3,
        close_frame() + b"garbage" * 1000,
        b"\x00" * 1000,
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=lambda data: "",  # the masks are drawn anew in every process
)
async def test_what_ends_the_connection(bridge: Bridge, data: bytes, path: str) -> None:
    """A frame that breaks the rules, or ends the connection, does so for this client and no other."""
    job = await bridge.registry.submit(words, "a b c", delay=100)
    async with (
        connected(bridge.port, f"/jobs/{job.id}") as other,
        connected(bridge.port, path.format(job=job.id)) as client,
    ):
        await client.send(data)
        with trio.fail_after(60):
            await client.until_closed()
        await job.cancel("enough")
        heard = await other.hear_all()
        assert heard[-2]["outcome"] == {"type": "cancelled", "reason": "enough"}
        assert heard[-1].code == 4011
        await other.send(close_frame())


@pytest.mark.parametrize(
    ("data", "dropped"),
    [
        (frame(TEXT, b'{"type":"ping"}', masked=False), {"malformed": 1}),
        (frame(TEXT, b"\xff\xfe"), {"malformed": 1}),
        (b"GET / HTTP/1.1\r\n\r\n", {"malformed": 1}),
        (close_frame(), {}),
        (close_frame(1002), {}),
        (b"", {}),
    ],
    ids=lambda data: "",  # the masks are drawn anew in every process
)
async def test_who_breaks_the_rules_is_counted(bridge: Bridge, data: bytes, dropped: dict[str, int]) -> None:
    """A client that is cut off for its frames is among those that were dropped; one that closes or hangs up is not."""
    job = await bridge.registry.submit(words, "a", delay=100)
    for path in ("/ws", f"/jobs/{job.id}"):
        async with connected(bridge.port, path) as client:
            await client.send(data)
            if data:
                await client.until_closed()
    await bridge.assert_is_left()
    assert await job.cancel()
    stats = bridge.server.stats()
    assert (stats.dropped, stats.closed) == (dict.fromkeys(dropped, 2), {})


@pytest.mark.parametrize(
    "extra", [b"", frame(PING, b"late"), frame(TEXT, b"late"), frame(PING) * 500], ids=lambda data: ""
)
async def test_a_message_that_is_too_big(bridge: Bridge, extra: bytes) -> None:
    """The client is told by code 1009, also where an honest ping comes right behind, in the same segment."""
    async with connected(bridge.port, "/ws") as client:
        await client.send(frame(TEXT, b"x" * 10_001) + extra)
        with trio.fail_after(60):
            assert await client.until_closed() == 1009


async def test_the_largest_message(bridge: Bridge) -> None:
    """A message of exactly the limit is heard, in one frame or in as many as there may be."""
    text = b'{"type":"ping","id":1,"x":"' + b"y" * (10_000 - 29) + b'"}'
    assert len(text) == 10_000
    async with connected(bridge.port, "/ws") as client:
        await client.hear()
        await client.send(frame(TEXT, text))
        assert await client.hear() == {"type": "pong", "id": 1}
        parts = [frame(CONTINUATION if n else TEXT, text[n : n + 101], fin=False) for n in range(0, 99 * 101, 101)]
        await client.send(*parts, frame(PING, b"between"), frame(CONTINUATION, text[99 * 101 :]))
        assert await client.hear() == {"type": "pong", "id": 1}
        await client.send(close_frame())


async def test_endless_empty_continuations(bridge: Bridge) -> None:
    """Continuations without content come to an end, by a code that says so."""
    async with connected(bridge.port, "/ws") as client:
        await client.send(frame(TEXT, b"", fin=False))
        before = resident()
        try:
            for _ in range(200):
                await client.send(frame(CONTINUATION, b"", fin=False) * 1000)
        except trio.BrokenResourceError:
            pass
        with trio.fail_after(60):
            assert await client.until_closed() in (4413, None)
        assert resident() - before < 5 * MEGABYTE


async def test_too_many_continuations_are_told(bridge: Bridge) -> None:
    """A client that sends one continuation too many is told by code 4413."""
    async with connected(bridge.port, "/ws") as client:
        await client.send(frame(TEXT, b"", fin=False), frame(CONTINUATION, b"", fin=False) * 100)
        with trio.fail_after(60):
            assert await client.until_closed() == 4413


async def test_a_ping_after_the_servers_close(bridge: Bridge) -> None:
    """Pings that cross the server's close do no harm: the client has its ending and its code."""
    job = await bridge.registry.submit(words, "a", delay=0.2)
    async with connected(bridge.port, f"/jobs/{job.id}") as client:
        async with trio.open_nursery() as nursery:

            async def keep_alive() -> None:
                for _ in range(200):
                    try:
                        await client.send(frame(PING, b"alive?"))
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        return
                    await trio.sleep(0.002)

            nursery.start_soon(keep_alive)
            with trio.fail_after(60):
                heard = await client.hear_all()
            assert isinstance(heard[-1], Frame)
            assert heard[-1].code == 1000
            nursery.cancel_scope.cancel()
        await client.send(frame(PING, b"late") * 3)
        await client.send(close_frame())
        await bridge.assert_is_left()
    assert bridge.server.stats().dropped == {}


async def test_a_client_that_does_not_answer_the_close(bridge: Bridge) -> None:
    """A client that neither answers a close nor hangs up is hung up on after a while."""
    job = await bridge.registry.submit(words, "a")
    async with connected(bridge.port, f"/jobs/{job.id}") as client:
        await until(lambda: bridge.server.stats().closed == {1000: 1})
        await bridge.assert_is_left()
        assert (await client.hear_all())[-1].code == 1000


async def test_a_flood_of_pings_without_reading(bridge: Bridge) -> None:
    """A client that sends pings and reads no pongs fills no memory, and is cut off after a while."""
    before = resident()
    async with connected(bridge.port, "/ws", receive_buffer=4096) as client:
        with trio.fail_after(60):
            try:
                while True:
                    await client.send(frame(PING, b"x" * 125) * 1000)
            except trio.BrokenResourceError:
                pass
        assert resident() - before < 10 * MEGABYTE
    assert bridge.server.stats().dropped == {"too slow": 1}


async def test_a_client_on_a_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client is not cut off to which something arrives now and then, before it stops."""
    arrived: list[int] = []

    def uptake(_: trio.socket.SocketType) -> Uptake:
        arrived.append(min(len(arrived), 5))
        return Uptake(arrived[-1], 1_000_000)

    monkeypatch.setattr("jobtrio.websocket._visit.uptake_of", uptake)
    async with open_bridge(limits=brief(send=1)) as bridge:
        job = await bridge.registry.submit(words, "x" * 10_000_000)
        async with connected(bridge.port, f"/jobs/{job.id}", receive_buffer=4096):
            await until(lambda: bridge.server.stats().dropped == {"too slow": 1})
    assert arrived[-1] == 5


@pytest.mark.parametrize("sent", [0, 1, 5, 50])
@pytest.mark.parametrize("how", ["reset", "hang up", "half-close"])
async def test_leaving_inside_a_frame(bridge: Bridge, sent: int, how: str) -> None:
    """A client that leaves in the middle of a frame leaves nothing behind, whichever way it goes."""
    job = await bridge.registry.submit(words, "a", delay=100)
    async with connected(bridge.port, f"/jobs/{job.id}") as client:
        await client.send(frame(TEXT, b"x" * 100)[:sent] or frame(PONG))
        match how:
            case "reset":
                client.reset()
            case "half-close":
                await client.stream.send_eof()
                with trio.fail_after(60):
                    await client.rest()
    await bridge.assert_is_left()
    await job.cancel()


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG])
async def test_frames_that_stay_incomplete(opcode: int) -> None:
    """A frame that never ends is no sign of life for ever: the client is cut off."""
    async with open_bridge(limits=brief(heartbeat=1, send=1)) as bridge:
        async with connected(bridge.port, "/ws") as client:
            await client.send(frame(opcode, b"x" * 100)[:50])
            with trio.fail_after(60):
                await client.rest()
        assert bridge.server.stats().dropped == {"silent": 1}
        await bridge.assert_is_well()


async def test_a_client_that_is_dead() -> None:
    """A client that answers no ping is cut off; one that answers stays, though it says nothing."""
    async with open_bridge(limits=brief(heartbeat=1)) as bridge:
        async with connected(bridge.port, "/ws") as dead, connected(bridge.port, "/ws") as alive:
            async with trio.open_nursery() as nursery:

                async def live() -> None:
                    while True:
                        await alive.hear()

                nursery.start_soon(live)
                with trio.fail_after(60):
                    await dead.rest()
                await trio.sleep(1.5)
                nursery.cancel_scope.cancel()
            await alive.say({"type": "ping", "id": 5})
            with trio.fail_after(60):
                while await alive.hear() != {"type": "pong", "id": 5}:
                    pass
            await alive.send(close_frame())
        await bridge.assert_is_left()
        assert bridge.server.stats().dropped == {"silent": 1}


async def test_every_frame_head(bridge: Bridge) -> None:
    """No first two bytes of a frame, with whatever follows, end more than their own connection."""
    for first in range(0, 256, 5):
        async with trio.open_nursery() as nursery:
            for second in (0, 1, 125, 126, 127, 128, 129, 253, 254, 255):

                async def visit(head: bytes) -> None:
                    async with connected(bridge.port, "/ws") as client:
                        try:
                            await client.send(head, b"\x00" * 14, close_frame())
                            await client.stream.send_eof()
                        except (trio.BrokenResourceError, trio.ClosedResourceError):
                            return
                        with trio.fail_after(60):
                            await client.rest()

                nursery.start_soon(visit, struct.pack("BB", first, second))
