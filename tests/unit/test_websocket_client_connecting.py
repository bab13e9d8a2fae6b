"""The client against a server that follows a script: connections made, lost, refused and left."""

from __future__ import annotations

import ssl
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from scripted_bridge import WAIT, Peer, all_of, end, events, idle, numbers, open_bridge
from wsproto.connection import ConnectionState
from wsproto.events import TextMessage

from jobtrio.websocket import (
    ServerRefusedError,
    ServerUnavailableError,
    _client_keeper,
    _client_link,
    _client_times,
    open_client,
)
from jobtrio.websocket._client_address import parse_url
from jobtrio.websocket._client_errors import final_error_of
from jobtrio.websocket.protocol import (
    Get,
    Heartbeat,
    Hello,
    HelloLimits,
    Pong,
    Submit,
    Submitted,
    Subscribe,
    encode_reply,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

pytestmark = pytest.mark.usefixtures("short_pauses")


async def test_handshake() -> None:
    """The client asks for its path with the protocol's name, and with the token where it has one."""
    peers: list[Peer] = []

    async def script(peer: Peer) -> None:
        peers.append(peer)
        await idle(peer)

    async with open_bridge(script) as url:
        async with open_client(url) as client:
            assert client.is_connected
        async with open_client(f"{url}/x/ws?a=b", token="secret"):
            pass
    plain, full = peers
    assert (plain.path, plain.headers.get("authorization")) == ("/ws", None)
    assert (full.path, full.headers["authorization"]) == ("/x/ws?a=b", "Bearer secret")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"url": "http://host/ws"}, "url"),
        ({"token": ""}, "token"),
        ({"outage_limit": 0}, "outage_limit"),
        ({"ssl_context": 1}, "ssl_context"),
        ({"url": "wss://127.0.0.1:1/ws", "ssl_context": 1}, "ssl_context"),
        ({"url": "wss://127.0.0.1:1/ws", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)}, "ssl_context"),
        ({"url": "ws://host/ws?key=secret", "ssl_context": ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)}, r"ssl_.*/ws\?…'$"),
    ],
)
async def test_nonsense_client(options: dict[str, Any], name: str) -> None:
    """Options that make no sense are refused by name, before any connection."""
    with pytest.raises((TypeError, ValueError), match=f"^{name}"):
        async with open_client(**{"url": "ws://127.0.0.1:1/ws", **options}):
            pass


async def test_nobody_there() -> None:
    """Where nobody answers, opening fails after the limit, and says why."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    message = rf"127.0.0.1:{port}/ws was away for 1 s: no connection"
    with pytest.raises(ServerUnavailableError, match=message) as caught:
        async with open_client(f"ws://127.0.0.1:{port}", outage_limit=1.0):
            pass
    assert str(caught.value).count("ws://") == 1
    assert issubclass(ServerUnavailableError, ConnectionError)


async def test_no_thread_to_look_the_host_up_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started for the lookup, as while there are too many processes, it is tried again."""

    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    message = r"localhost:1/ws was away for 0.1 s: no connection: can't start new thread"
    with pytest.raises(ServerUnavailableError, match=message):
        async with open_client("ws://localhost:1", outage_limit=0.1):
            pass


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        *((status, {}, ": no") for status in (301, 400, 401, 403, 404, 426, 501, 505)),
        (404, {"body": b"\r\n<html><head><title>404 Not Found</title></head></html>"}, ""),
        (301, {"body": b"<html>", "location": "https://jobs.example/ws"}, ": it leads to https://jobs.example/ws"),
    ],
)
async def test_refused_for_good(status: int, answer: dict[str, Any], said: str) -> None:
    """A server that refuses the handshake for good is not asked again; what it says, or where it leads to, is told.

    Not so a proxy's page for people with browsers: it tells of the status alone, in more words.
    """
    asked: list[int] = []

    async def script(peer: Peer) -> None:
        asked.append(peer.number)
        await peer.reject(status, **answer)

    async with open_bridge(script) as url:
        with pytest.raises(ServerRefusedError) as caught:
            async with open_client(url):
                pass
    assert (caught.value.code, asked) == (str(status), [0])
    assert caught.value.message == f"refused with status {status}{said}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 521, 530])
async def test_refused_for_now(status: int) -> None:
    """A server, or a proxy before it, that refuses for now is asked again."""

    async def script(peer: Peer) -> None:
        await peer.reject(status, retry_after="0")

    async with open_bridge(script, idle) as url, open_client(url) as client:
        assert client.is_connected


async def test_not_found_where_it_was() -> None:
    """Where there was a server, none is found while it is started anew behind some proxies: it is asked again."""

    async def serve(peer: Peer) -> None:
        await peer.greet()
        await peer.hear(Get)
        await peer.close(1012 if peer.number == 0 else 4401)

    async def find_nobody(peer: Peer) -> None:
        await peer.reject(404, retry_after="0")

    async with open_bridge(serve, find_nobody, serve) as url, open_client(url) as client:
        with pytest.raises(ServerRefusedError, match="unauthenticated"):
            await client.get("j")


@pytest.mark.parametrize(("code", "name"), [(1009, "too_big"), (4401, "unauthenticated"), (4408, "auth_timeout")])
async def test_closed_for_good_without_a_reason(code: int, name: str) -> None:
    """Where the server gives no reason, the error says what the code stands for."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear(Get)
        await peer.close(code)

    async with open_bridge(script) as url, open_client(url) as client:
        with pytest.raises(ServerRefusedError, match=rf"\({code}\): closed with {code} \({name}\)"):
            await client.get("j")


@pytest.mark.parametrize("code", [1009, 4400, 4401, 4403, 4404, 4408, 4409, 4413])
async def test_closed_for_good(code: int) -> None:
    """After a close that says so nothing is tried again: what waits fails, and so does what is asked later."""

    async def script(peer: Peer) -> None:
        assert peer.number == 0
        await peer.greet()
        await peer.hear(Subscribe)
        await peer.hear(Get)
        await peer.close(code, "go away")

    async with open_bridge(script) as url, open_client(url) as client:
        messages = client.subscribe("a job")
        with pytest.raises(ServerRefusedError, match=rf"\({code}\): closed with {code} \(go away\)"):
            await client.get("j")
        for _ in range(2):
            with pytest.raises(ServerRefusedError, match="go away"):
                await messages.receive()
        with pytest.raises(ServerRefusedError, match="go away"):
            await client.get("j")
        with pytest.raises(ServerRefusedError, match="go away"):
            await client.subscribe("a job").receive()
        assert not client.is_connected


async def test_errors_that_are_told_again() -> None:
    """However often a client says why nothing can be had any more, it keeps nothing of those who were told."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.hear(Subscribe)
        await peer.hear(Get)
        await peer.close(4403)

    async def depths(tell: Callable[[], Awaitable[Any]]) -> set[int]:
        found = set()
        for _ in range(5):
            with pytest.raises(ServerRefusedError) as caught:
                await tell()
            found.add(len(caught.traceback))
        return found

    async with open_bridge(script) as url, open_client(url) as client:
        messages = client.subscribe("a job")
        with pytest.raises(ServerRefusedError):
            await client.get("j")
        assert len(await depths(lambda: client.get("j"))) == 1
        assert len(await depths(messages.receive)) == 1
        assert len(await depths(lambda: client.subscribe("a job").receive())) == 1


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4429, 4503, 4508, 4999])
async def test_closed_for_now(code: int) -> None:
    """After any other close the client comes back, no sooner than it was asked to."""
    times: list[float] = []

    async def first(peer: Peer) -> None:
        await peer.greet()
        times.append(trio.current_time())
        await peer.close(code, '{"retry_after":0.1}')

    async def second(peer: Peer) -> None:
        times.append(trio.current_time())
        came_back.set()
        await idle(peer)

    came_back = trio.Event()
    async with open_bridge(first, second) as url, open_client(url):
        with trio.fail_after(WAIT):
            await came_back.wait()
    assert times[1] - times[0] >= 0.1


@pytest.mark.parametrize(
    "hello",
    [
        Pong(),
        "Welcome!",
        '{"hello":"world"}',
        '{"type":"hello","proto":"jobtrio.v1"}',
        Hello(
            proto="jobtrio.v9",
            heartbeat=1.0,
            limits=HelloLimits(message_bytes=1, subscriptions=1, messages_per_second=1.0),
        ),
    ],
)
async def test_another_protocol(hello: Any) -> None:
    """A server that does not begin as it must is none."""

    async def script(peer: Peer) -> None:
        await peer.say(hello)

    async with open_bridge(script) as url:
        with pytest.raises(ServerRefusedError, match=r"does not speak jobtrio\.v1"):
            async with open_client(url):
                pass


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"type":"events"}', '{"type":"ok","id":[]}'])
async def test_nonsense_of_the_server(text: str) -> None:
    """A connection over which nonsense came is given up, and another one made."""

    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await peer.say(events(1, 1), text, events(2, 2))

    async def second(peer: Peer) -> None:
        await peer.greet()
        assert (await peer.subscribed()).after == 1
        await peer.say(end(2))

    async with open_bridge(first, second) as url, open_client(url) as client:
        assert numbers(await all_of(client.subscribe("a job"))) == [1, 2]


@pytest.mark.parametrize("data", [b"HTTP/1.1 101 what\r\n\r\n", b"\xff\xfe\r\n\r\n", b"SSH-2.0-x\r\n", b""])
async def test_no_websocket_at_all(data: bytes) -> None:
    """What answers as no WebSocket server does is away, whatever it says."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        port = listener.socket.getsockname()[1]
        with pytest.raises((ServerUnavailableError, ServerRefusedError)):
            async with open_client(f"ws://127.0.0.1:{port}", outage_limit=0.2):
                pass
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("size", [b"", b"Content-Length: 99999999999\r\n"])
async def test_refusal_without_end(size: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes on and on about why it refuses is given up, with what it said: that may take all memory."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 403 No\r\n" + size + b"\r\n")
            while True:
                await stream.send_all(b"no " * 20_000)

    monkeypatch.setattr(_client_link, "OPENING_LIMIT", 10 * WAIT)
    why = "no handshake: the answer is longer than 1024 KiB"
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        address = parse_url(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/ws")
        with trio.fail_after(WAIT), pytest.raises(_client_link.LinkLostError, match=why) as lost:
            async with _client_link.open_link(address, None, None):
                raise AssertionError
        assert final_error_of(lost.value, was_found=False) is None
        nursery.cancel_scope.cancel()


async def test_no_tls() -> None:
    """A server that speaks without TLS where the URL asks for it will go on so: that is said at once."""

    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        url = f"wss://127.0.0.1:{listener.socket.getsockname()[1]}/ws"
        with pytest.raises(ServerRefusedError, match=rf"{url} does not speak TLS: .* ws://"):
            async with open_client(url):
                raise AssertionError
        nursery.cancel_scope.cancel()


async def test_silent_from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and says nothing is given up."""
    monkeypatch.setattr(_client_link, "OPENING_LIMIT", 0.05)
    monkeypatch.setattr(_client_keeper, "OPENING_LIMIT", 0.05)

    async def silent(peer: Peer) -> None:
        await peer.accept()

    async with open_bridge(silent, idle) as url, open_client(url) as client:
        assert client.is_connected


async def test_handshake_without_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer the handshake is given up."""
    monkeypatch.setattr(_client_link, "OPENING_LIMIT", 0.05)

    async def hold(peer: Peer) -> None:
        await trio.sleep_forever()

    async with open_bridge(hold) as url:
        with pytest.raises(ServerUnavailableError, match=r"there was no answer within 0\.05 s"):
            async with open_client(url, outage_limit=1.0):
                pass


async def test_dead_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is silent for longer than its heartbeat allows is dead, though nobody closed the connection."""
    monkeypatch.setattr(_client_keeper, "LEAST_SILENCE", 0.0)

    async def first(peer: Peer) -> None:
        await peer.greet(heartbeat=0.2)
        await peer.subscribed()
        for _ in range(3):
            await trio.sleep(0.1)
            await peer.say(Heartbeat(last={"1": 0}))
        await peer.say(events(1, 1))
        await trio.sleep_forever()

    async def second(peer: Peer) -> None:
        await peer.greet()
        assert (await peer.subscribed()).after == 1
        await peer.say(end(2))

    async with open_bridge(first, second) as url, open_client(url) as client:
        assert numbers(await all_of(client.subscribe("a job"))) == [1, 2]


async def test_large_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that takes longer than a silence may, and keeps coming, is no silence."""
    monkeypatch.setattr(_client_keeper, "LEAST_SILENCE", 0.0)

    async def script(peer: Peer) -> None:
        assert peer.number == 0
        await peer.greet(heartbeat=0.8)  # a silence of 2 s is too long; all of the message takes more
        await peer.subscribed()
        text = encode_reply(events(1, 40))
        assert peer.socket is not None
        for at in range(0, len(text), 10):
            await trio.sleep(0.2)
            part = TextMessage(data=text[at : at + 10], message_finished=at + 10 >= len(text))
            await peer.socket._send(part)
        await peer.say(end(41))

    async with open_bridge(script) as url, open_client(url) as client:
        assert len(await all_of(client.subscribe("a job"))) == 41


async def test_server_that_does_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which a send is stuck is given up, and what was not answered is sent on the next one."""
    monkeypatch.setattr(_client_link, "SENDING_LIMIT", 0.1)

    async def first(peer: Peer) -> None:
        await peer.greet(message_bytes=10**9, messages_per_second=10**6)
        assert peer.socket is not None
        await trio.sleep_forever()

    async def second(peer: Peer) -> None:
        await peer.greet(message_bytes=10**9)
        while True:
            await peer.answer(Submit, Submitted(job="j"))

    async with open_bridge(first, second) as url, open_client(url) as client, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(client.submit, "work", "x" * 500_000)


class Uplink:
    """The library's connection, as far as sending goes, with a server that reads a little every few seconds."""

    def __init__(self) -> None:
        mine, self.server = trio.testing.lockstep_stream_pair()
        self.stream = _client_link._EndingStream(mine)
        self.link = _client_link.Link(self, self.stream)  # type: ignore[arg-type]

    async def send_message(self, data: str) -> None:
        """Send it in one go."""
        await self.stream.send_all(data.encode())

    async def read(self, most: float) -> None:
        """Read so many bytes, as slowly as may be."""
        count = 0
        while count < most:
            await trio.sleep(_client_link.SENDING_LIMIT - 1)
            count += len(await self.server.receive_some(16 * 1024))


async def test_server_that_reads_slowly(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A message may take much longer than the limit while it is read on: by the next connection it would as well."""
    uplink = Uplink()
    nursery.start_soon(uplink.read, 200_000)
    start = trio.current_time()
    await uplink.link.send("a" * 200_000)
    assert trio.current_time() - start > 100


async def test_server_that_stops_reading(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """In the middle of a message as well, a server that reads no more is given up."""
    uplink = Uplink()
    nursery.start_soon(uplink.read, 100_000)
    start = trio.current_time()
    with pytest.raises(_client_link.LinkLostError, match="the server read nothing for 15 s"):
        await uplink.link.send("a" * 200_000)
    assert 90 < trio.current_time() - start < 130


async def test_calls_while_the_server_is_away() -> None:
    """A call made while the server is away fails after the limit; one made a little before it is back succeeds."""
    back = trio.Event()

    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.hear(Submit)
        peer.cut()

    async def refuse(peer: Peer) -> None:
        if back.is_set():
            await peer.greet()
            while True:
                await peer.answer(Submit, Submitted(job="j"))
        await peer.reject(503)

    async with open_bridge(first, refuse) as url, open_client(url, outage_limit=1.0) as client:
        for _ in range(2):
            with pytest.raises(ServerUnavailableError, match=r"was away for 1 s: refused with status 503"):
                await client.submit("work")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.submit, "work")
            await trio.sleep(0.05)
            back.set()


async def test_tells_of_losses(caplog: pytest.LogCaptureFixture) -> None:
    """Losing the connection and having it again is logged."""

    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.close(1012)

    async def second(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Submit, Submitted(job="j"))

    with caplog.at_level("INFO", "jobtrio.websocket"):
        async with open_bridge(first, second) as url, open_client(url) as client:
            await client.submit("work")
    connected, lost, again = (record.getMessage() for record in caplog.records)
    assert connected == again == f"connected to {url}/ws"
    assert lost.startswith(f"{url}/ws: closed with 1012; next try in 0.0 s")


async def test_a_loss_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """Why the connection was lost is one line of the log, whatever the server says, or a proxy before it."""

    async def first(peer: Peer) -> None:
        await peer.reject(502, body=b"the server\r\nis\n\naway\r\n")

    async def second(peer: Peer) -> None:
        await peer.greet()
        await peer.close(1012, "back\nsoon")

    with caplog.at_level("WARNING", "jobtrio.websocket"):
        async with open_bridge(first, second, idle) as url, open_client(url):
            with trio.fail_after(WAIT):
                while len(caplog.records) < 4:  # noqa: ASYNC110 - nobody tells of it
                    await trio.sleep(0.01)
    refused, back, closed, again = (record.getMessage().partition("; ")[0] for record in caplog.records)
    assert refused == f"{url}/ws: refused with status 502: the server is away"
    assert closed == f"{url}/ws: closed with 1012 (back soon)"
    assert back == again == f"connected to {url}/ws"


async def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """However many tries fail for one reason, it is told once, and that the server is back; another reason is told."""

    async def refuse(peer: Peer) -> None:
        await peer.reject(502, body=b"soon" if peer.number < 3 else b"now")

    with caplog.at_level("WARNING", "jobtrio.websocket"):
        async with open_bridge(refuse, refuse, refuse, refuse, idle) as url, open_client(url):
            pass
    soon, now, back = (record.getMessage().partition("; ")[0] for record in caplog.records)
    assert soon == f"{url}/ws: refused with status 502: soon"
    assert now == f"{url}/ws: refused with status 502: now"
    assert back == f"connected to {url}/ws"


async def test_says_farewell() -> None:
    """A client that leaves in order says so."""
    said = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.gone()
        assert peer.socket is not None
        assert peer.socket.closed is not None
        assert peer.socket.closed.code == 1000
        said.set()

    async with open_bridge(script) as url:
        async with open_client(url):
            pass
        with trio.fail_after(WAIT):
            await said.wait()


async def test_farewell_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no part in the farewell doesn't hold up the client, nor does one that is away."""
    monkeypatch.setattr(_client_link, "CLOSING_LIMIT", 0.05)
    monkeypatch.setattr(_client_times, "FIRST", 100.0)
    monkeypatch.setattr(_client_times, "LONGEST", 100.0)

    async def stall(peer: Peer) -> None:
        await peer.greet()
        assert peer.socket is not None
        peer.socket._stream_lock.acquire_nowait()
        await trio.sleep_forever()

    async def cut(peer: Peer) -> None:
        await peer.greet()
        peer.cut()

    for script in (stall, cut):
        async with open_bridge(script) as url:
            with trio.fail_after(WAIT):
                async with open_client(url):
                    await trio.sleep(0.05)


async def test_a_ping_during_the_farewell() -> None:
    """A server that asks for a sign of life at the moment at which its client leaves is left as any other."""
    asked = trio.Event()

    async def ask(peer: Peer) -> None:
        await peer.greet()
        assert peer.socket is not None
        peer.socket._stream_lock.acquire_nowait()  # so that it does not answer the close
        with trio.fail_after(60):
            while peer.socket._wsproto.state is ConnectionState.OPEN:  # noqa: ASYNC110 - nothing tells of it
                await trio.sleep(0.001)
        await peer.socket._stream.send_all(b"\x89\x01p")
        asked.set()
        await trio.sleep_forever()

    async with open_bridge(ask) as url:
        with trio.fail_after(WAIT):
            async with open_client(url):
                pass
            await asked.wait()


async def test_exception_of_the_body() -> None:
    """An exception of the block comes out as it is."""
    async with open_bridge(idle) as url:
        with pytest.raises(KeyError, match="mine"):
            async with open_client(url):
                raise KeyError("mine")


async def test_after_the_block() -> None:
    """A client whose block was left is of no use."""
    async with open_bridge(idle) as url:
        async with open_client(url) as client:
            pass
        with pytest.raises(trio.ClosedResourceError):
            await client.get("j")
        with pytest.raises(trio.ClosedResourceError):
            await client.subscribe("j").receive()
