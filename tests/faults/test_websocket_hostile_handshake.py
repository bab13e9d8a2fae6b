"""Clients that do the worst before they are accepted. Each test ends with a client that is served as if nothing was."""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING

import pytest
import trio
from bridge import Bridge, brief, open_bridge, resident
from patience import until
from raw_client import TEXT, close_frame, connected, frame, raw_client, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio.websocket import Handshake

MEGABYTE = 2**20


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    """Serve with short waits; afterwards serve a client that behaves, and be left by all."""
    async with open_bridge(limits=brief(handshakes=20)) as bridge:
        yield bridge
        await bridge.assert_is_well()
        await bridge.assert_is_left()


async def answer(bridge: Bridge, *parts: bytes) -> int:
    """Return the HTTP status that these bytes get, sent one after the other; the server then hangs up."""
    async with raw_client(bridge.port) as client:
        with trio.fail_after(60):
            for part in parts:
                try:
                    await client.send(part)
                except trio.BrokenResourceError:
                    break
                await trio.sleep(0.01)
            status = await client.answer()
            if status != 101:
                await client.rest()
        return status


@pytest.mark.parametrize(
    "header", ["Host", "Connection", "Upgrade", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Origin", "X-A"]
)
@pytest.mark.parametrize("value", ["\xff", "\xe9\xe8", "a\x00b", "xn--\xff", "\x80"])
async def test_bytes_outside_ascii(bridge: Bridge, header: str, value: str) -> None:
    """A byte outside ASCII in any header is answered by 400 and ends nothing."""
    assert await answer(bridge, request("/ws", f"{header}: {value}", drop=[header])) == 400


@pytest.mark.parametrize("host", ["xn--", "a..b", "." * 300, "x" * 5000, "[::1", "localhost:99999999", "\t"])
async def test_strange_hosts(bridge: Bridge, host: str) -> None:
    """A host that is no name gets no further than the header that it is in."""
    assert await answer(bridge, request("/ws", f"Host: {host}", drop=["Host"])) in (101, 400)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("/ws", "Host: other"), 400),
        (request("/ws", "X: " + "y" * 200_000), 431),
        (b"GET /ws HTTP/1.1\r\n" + b"A: b\r\n" * 50_000, 431),
        (b"A" * 200_000, 431),
        (b"\x00\x01\x02\x03" * 10, 400),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (request("/ws", drop=["Upgrade", "Connection"]), 426),
        (request("/ws", "Content-Length: 3", method="POST") + b"a=b", 400),
        (request("/ws", method="POST"), 405),
        (request("/"), 404),
        (request("/jobs/"), 404),
        (request("/ws/"), 404),
        (request("/../ws"), 404),
        (request("/ws") + frame(TEXT, b'{"type":"ping"}'), 400),
        (request("/ws") + b"x" * 3000, 400),
        (request("/ws", "Sec-WebSocket-Protocol: jobtrio.bearer.YQ, jobtrio.bearer.Yg"), 400),
        (request("/ws", "Sec-WebSocket-Version: 12", drop=["Sec-WebSocket-Version"]), 426),
        (request("/ws", "Sec-WebSocket-Key: x", drop=["Sec-WebSocket-Key"]), 400),
    ],
)
async def test_bad_requests(bridge: Bridge, data: bytes, status: int) -> None:
    """Whatever is no request for a WebSocket is answered by an HTTP status."""
    assert await answer(bridge, data) == status


async def test_a_request_in_small_pieces(bridge: Bridge) -> None:
    """A request that comes byte by byte, in time, is let in."""
    data = request("/ws")
    async with raw_client(bridge.port) as client:
        for n in range(len(data)):
            await client.send(data[n : n + 1])
        assert await client.answer() == 101


@pytest.mark.parametrize(("more", "status"), [(0, 101), (1, 431)])
async def test_the_longest_request(bridge: Bridge, more: int, status: int) -> None:
    """A request may be as long as the limit says, and not a byte longer."""
    spare = brief().header_bytes - len(request("/ws", "X: "))
    data = request("/ws", "X: " + "y" * (spare + more))
    assert len(data) == brief().header_bytes + more
    async with raw_client(bridge.port) as client:
        await client.send(data)
        assert await client.answer() == status


@pytest.mark.parametrize("data", [b"", b"G", request("/ws")[:-2]])
async def test_a_request_that_does_not_end(bridge: Bridge, data: bytes) -> None:
    """A client that sends nothing, or not all, is told after a while that it took too long."""
    async with raw_client(bridge.port) as client:
        if data:
            await client.send(data)
        with trio.fail_after(60):
            assert await client.answer() == 408
            await client.rest()


async def test_a_slow_header(bridge: Bridge) -> None:
    """A client that sends a byte now and then gains no time by it."""
    async with raw_client(bridge.port) as client:

        async def dribble() -> None:
            for byte in request("/ws", "X: " + "y" * 1000):
                try:
                    await client.send(bytes([byte]))
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    return
                await trio.sleep(0.02)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dribble)
            with trio.fail_after(60):
                assert await client.answer() == 408
                await client.rest()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["reset", "hang up", "half-close"])
@pytest.mark.parametrize("sent", [0, 30, 10_000])
async def test_leaving_in_the_middle(bridge: Bridge, how: str, sent: int) -> None:
    """A client that leaves during its request, or right behind it, leaves nothing behind."""
    async with raw_client(bridge.port) as client:
        await client.send(request("/ws")[:sent] or b"G")
        match how:
            case "reset":
                client.reset()
            case "half-close":
                await client.stream.send_eof()
                await client.rest()


async def test_leaving_before_the_answer(bridge: Bridge) -> None:
    """A client that resets the connection before it is answered is counted as gone, not as a fault."""
    async with raw_client(bridge.port) as client:
        os.write(client.stream.socket.fileno(), request("/ws"))
        client.reset()
    await until(lambda: bool(bridge.server.stats().dropped))
    assert bridge.server.stats().dropped == {"gone before it was accepted": 1}


async def test_megabytes_before_acceptance(bridge: Bridge) -> None:
    """Of what comes behind the request before it is answered, nothing is kept."""
    before = resident()
    async with raw_client(bridge.port) as client:
        with trio.move_on_after(5):
            try:
                await client.send(request("/ws"))
                for _ in range(100):
                    await client.send(bytes(MEGABYTE))
            except trio.BrokenResourceError:
                pass
    assert resident() - before < 20 * MEGABYTE


async def test_megabytes_while_a_hook_thinks() -> None:
    """While the client is being authenticated, nothing of what it sends is kept either, but what the sockets hold."""

    async def think(handshake: Handshake) -> str:
        await trio.sleep(1)
        return "ann"

    async with open_bridge(authenticate=think, limits=brief(handshake=5)) as bridge:
        before = resident()
        async with raw_client(bridge.port) as client:
            await client.send(request("/ws"))
            with trio.move_on_after(0.8):
                while True:
                    await client.send(frame(TEXT, bytes(1000)) * 1000)
        assert resident() - before < 20 * MEGABYTE


@pytest.mark.parametrize("data", [request("/nowhere"), b"\x00\r\n\r\n", request("/ws", "Origin: null")])
async def test_a_rejected_client_that_stays(bridge: Bridge, data: bytes) -> None:
    """A client that was turned down and does not hang up is hung up on."""
    async with raw_client(bridge.port) as client:
        await client.send(data)
        await bridge.assert_is_left()
        assert await client.answer() in (400, 403, 404)


@pytest.mark.parametrize(
    "protocols", ["", "graphql-ws", ",".join(f"p{n}" for n in range(300)), ",,,", "jobtrio.v1, jobtrio.v1"]
)
async def test_subprotocols(bridge: Bridge, protocols: str) -> None:
    """No, wrong, many and doubled subprotocols are let in; ours is chosen only if it is there."""
    async with connected(bridge.port, "/ws", f"Sec-WebSocket-Protocol: {protocols}") as client:
        assert ("sec-websocket-protocol: jobtrio.v1" in client.head.lower()) == ("jobtrio.v1" in protocols)
        assert (await client.hear())["type"] == "hello"
        await client.send(close_frame())


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://127.0.0.1.evil.example:{port}",
        "http://evil.example:{port}",
        "ftp://127.0.0.1:{port}",
        "http://user@127.0.0.1:{port}",
        "http://127.0.0.1:{port}/path",
        "127.0.0.1:{port}",
        "http://[::1",
        "http://127.0.0.1:{port}, http://evil.example",
        "*",
        "",
    ],
)
async def test_foreign_origins(bridge: Bridge, origin: str) -> None:
    """A page from elsewhere is refused, also when it has its own name for this machine and says so in `Host`."""
    own = origin.format(port=bridge.port)
    host = own.rpartition("/")[2] or "x"
    assert await answer(bridge, request("/ws", f"Origin: {own}", f"Host: {host}", drop=["Host"])) == 403


@pytest.mark.parametrize("origin", ["http://127.0.0.1:{port}", "http://localhost:{port}", "https://LOCALHOST:{port}"])
async def test_own_origins(bridge: Bridge, origin: str) -> None:
    """A page that comes from where the bridge listens is let in, and so is a client that is no browser."""
    assert await answer(bridge, request("/ws", f"Origin: {origin.format(port=bridge.port)}")) == 101
    assert await answer(bridge, request("/ws")) == 101


async def test_allowed_origins() -> None:
    """The origins that were allowed are let in, and no others."""
    async with open_bridge(allowed_origins=["https://example.org", "null"]) as bridge:
        for origin, status in (
            ("https://example.org", 101),
            ("https://example.org:443", 101),
            ("null", 101),
            ("http://example.org", 403),
            ("https://example.org:8443", 403),
            ("https://sub.example.org", 403),
        ):
            assert await answer(bridge, request("/ws", f"Origin: {origin}")) == status, origin
        await bridge.assert_is_well()
    async with open_bridge(allowed_origins=["*"]) as bridge:
        assert await answer(bridge, request("/ws", "Origin: http://evil.example")) == 101


async def test_a_flood_of_half_open_requests(bridge: Bridge) -> None:
    """More unfinished requests than there may be are turned down, and later ones are served again."""
    clients = []
    for _ in range(60):
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", bridge.port))
        await sock.send(b"GET")
        clients.append(trio.SocketStream(sock))
    await until(lambda: bridge.server.stats().refused.get(503, 0) == 40)
    answers = [await _status(stream) for stream in clients]
    assert answers.count(503) == 20
    assert answers.count(408) == 20
    assert answers.count(0) == 20  # to whom nothing was said: so many are not worth the effort
    for stream in clients:
        stream.socket.close()


async def test_more_connections_than_there_may_be() -> None:
    """The connection that is one too many gets 503; when one has left, another may come."""
    async with open_bridge(limits=brief(connections=3)) as bridge:
        async with connected(bridge.port, "/ws"), connected(bridge.port, "/ws"):
            async with connected(bridge.port, "/ws"):
                async with raw_client(bridge.port) as client:
                    await client.send(request("/ws"))
                    assert await client.answer() == 503
                    assert "\r\nRetry-After: 1\r\n" in client.head
            await until(lambda: bridge.server.stats().connections == 2)
            await bridge.assert_is_well()
        assert bridge.server.stats().refused == {503: 1}


@pytest.mark.parametrize(("most", "status"), [(8, 0), (100_000, 101), (resource.RLIM_INFINITY, 101)])
async def test_few_descriptors_are_left(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, most: int, status: int
) -> None:
    """The last quarter of the descriptors that the process may have is for its jobs: no flood takes those."""
    with monkeypatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: (most, most))
        assert await answer(bridge, request("/ws")) == status
    assert bridge.server.stats().refused == ({} if status else {503: 1})
    await bridge.assert_is_well()


@pytest.mark.parametrize(("share", "status"), [(0.7, 101), (0.8, 0)])
async def test_which_descriptors_are_the_last(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch, share: float, status: int
) -> None:
    """Those beyond three quarters of all are: a client that would take one is refused, one below is let in."""
    with contextlib.ExitStack() as held, monkeypatch.context() as patch:
        for _ in range(300):
            held.callback(os.close, taken := os.dup(0))
        patch.setattr(resource, "getrlimit", lambda _: (round(taken / share), resource.RLIM_INFINITY))
        assert await answer(bridge, request("/ws")) == status


async def test_connecting_and_leaving_many_times(bridge: Bridge) -> None:
    """Hundreds of clients that come and go at once leave no descriptor and no memory behind."""

    async def visit(n: int) -> None:
        async with raw_client(bridge.port) as client:
            if n % 3:
                await client.send(request("/ws")[: n % 200] if n % 3 == 1 else request("/jobs/none"))
            if n % 5 == 0:
                client.reset()

    async def visits(count: int) -> None:
        for start in range(0, count, 20):
            async with trio.open_nursery() as nursery:
                for n in range(start, start + 20):
                    nursery.start_soon(visit, n)
        await bridge.assert_is_left()

    await visits(100)
    before, descriptors = resident(), _descriptors()
    await visits(400)
    assert resident() - before < 10 * MEGABYTE
    assert _descriptors() <= descriptors + 5


async def _status(stream: trio.SocketStream) -> int:
    data = b""
    with trio.fail_after(60):
        try:
            while piece := await stream.receive_some(4096):
                data += piece
        except trio.BrokenResourceError:
            pass
    return int(data.split(b" ")[1]) if data else 0


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
