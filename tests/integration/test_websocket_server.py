"""The bridge with real clients on real sockets: both forms, TLS, names and addresses, and the end."""

from __future__ import annotations

import base64
import gc
import json
import ssl
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
import websockets.exceptions
from bridge import Bridge, brief, executors, hang, open_bridge, words
from line import known
from other_numbers import Whole
from patience import until
from raw_client import CLOSE, TEXT, close_frame, connected, frame, raw_client, request
from websockets.trio.client import connect

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore
from jobtrio.websocket import Limits, Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from jobtrio import JobContext


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    """Serve a registry to everybody on this machine."""
    async with open_bridge() as bridge:
        yield bridge
        await bridge.registry.shutdown()


async def listen(url: str, **options: Any) -> tuple[list[str], int | None]:
    """Return all that a real client hears from an address, and the close code."""
    async with connect(url, **options) as client:
        heard = []
        try:
            async for text in client:
                assert isinstance(text, str)
                heard.append(text)
        except websockets.exceptions.ConnectionClosedError:
            pass
    return heard, client.close_code


async def test_text(bridge: Bridge) -> None:
    """As text, a client gets the tokens and the code, nothing else."""
    job = await bridge.registry.submit(words, "to be")
    heard, code = await listen(f"{bridge.server.url}/jobs/{job.id}?format=text")
    assert ("".join(heard), code) == ("tobe", 1000)


@pytest.mark.parametrize(
    ("executor", "code"), [("break", 4010), ("time out", 4012), ("hang", 4012), ("nobody", 4404), ("query", 4400)]
)
async def test_close_codes(bridge: Bridge, executor: str, code: int) -> None:
    """A real client sees how the job ended by the close code."""
    if executor in ("nobody", "query"):
        address = "/jobs/none" if executor == "nobody" else "/jobs/x?after=-1"
    else:
        job = await bridge.registry.submit(executor, time_limit=0.05 if executor == "hang" else None)
        address = f"/jobs/{job.id}"
    assert (await listen(bridge.server.url + address))[1] == code


@pytest.mark.parametrize("way", ["header", "subprotocol", "message"])
async def test_tokens(way: str) -> None:
    """A token is taken from the header, from the bearer subprotocol as browsers have it, or from a message."""
    offered = ["jobtrio.v1", "jobtrio.bearer." + base64.urlsafe_b64encode(b"ok-ann").decode().rstrip("=")]
    options: Any = {
        "header": {"additional_headers": {"Authorization": "Bearer ok-ann"}},
        "subprotocol": {"subprotocols": offered},
        "message": {},
    }[way]
    async with (
        open_bridge(authenticate=known) as bridge,
        connect(bridge.server.url + "/ws", **options) as client,
    ):
        await client.recv()
        if way == "message":
            await client.send('{"type":"auth","id":1,"token":"ok-ann"}')
            assert await client.recv() == '{"type":"ok","id":1}'
        await client.send('{"type":"find","id":2}')
        assert await client.recv() == '{"type":"jobs","id":2,"jobs":[]}'
        assert client.subprotocol == ("jobtrio.v1" if way == "subprotocol" else None)


async def test_without_authentication_only_this_machine() -> None:
    """Without `authenticate`, an address that others reach is refused before anything listens."""
    async with jobtrio.open_registry() as registry:
        for host in ("0.0.0.0", "::", "", "8.8.8.8"):
            with pytest.raises(ValueError, match=r"^host must be this machine's own"):
                await serve(registry, host=host, port=0)


@pytest.mark.parametrize("host", ["a..b", "a" * 64, "\udcff"])
async def test_host_that_cannot_be_a_name(host: str) -> None:
    """What can't be a name is refused as the parameter that it is, rather than as a fault of a codec."""
    async with jobtrio.open_registry() as registry:
        with pytest.raises(ValueError, match=r"^host must be a name or an address; got '"):
            await serve(registry, host=host, port=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
async def test_addresses(host: str) -> None:
    """The bridge is reached by the address that it tells, of whichever kind."""
    async with open_bridge(host=host) as bridge:
        assert bridge.server.url == f"ws://{'[::1]' if host == '::1' else host}:{bridge.port}"
        job = await bridge.registry.submit(words, "a")
        assert (await listen(f"{bridge.server.url}/jobs/{job.id}"))[1] == 1000


async def test_a_name_with_several_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is listened to on all its addresses, with one port; those that this machine lacks are passed over."""

    async def resolve(*args: Any, **options: Any) -> Any:
        return [(0, 0, 0, "", (address, 0)) for address in ("127.0.0.1", "::1", "127.0.0.1", "127.0.0.9")]

    with monkeypatch.context() as patch:
        patch.setattr(trio.socket, "getaddrinfo", resolve)
        async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
            patch.setattr("jobtrio.websocket._listening.trio.open_tcp_listeners", _without_resolving)
            server: Server = await nursery.start(partial(serve, registry, host="many", port=0))
            for address in ("127.0.0.1", "::1", "127.0.0.9"):
                async with raw_client(server.port, host=address) as client:
                    await client.send(request("/ws"))
                    assert await client.answer() == 101
            nursery.cancel_scope.cancel()


async def _without_resolving(port: int, *, host: str) -> list[trio.SocketListener]:
    sock = trio.socket.socket(trio.socket.AF_INET6 if ":" in host else trio.socket.AF_INET)
    await sock.bind((host, port))
    sock.listen()
    return [trio.SocketListener(sock)]


async def test_a_port_in_use() -> None:
    """A port that somebody else has is an error at once, and nothing is left listening."""
    async with open_bridge() as bridge, jobtrio.open_registry() as registry:
        ports: list[Any] = [bridge.port, Whole(bridge.port)]
        for port in ports:
            with pytest.raises(OSError, match="in use"):
                await serve(registry, port=port)
        with pytest.raises(OSError, match=r"\w"):
            await serve(registry, host="no.such.host.invalid")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"host": 5}, TypeError),
        ({"port": -1}, ValueError),
        ({"port": "80"}, TypeError),
        ({"authenticate": "x"}, TypeError),
        ({"authorize": 5}, TypeError),
        ({"allowed_origins": "http://x"}, TypeError),
        ({"port": 65536}, ValueError),
        ({"limits": {}}, TypeError),
        ({"flush_interval": -1}, ValueError),
        ({"flush_interval": float("nan")}, ValueError),
        ({"ssl_context": True}, TypeError),
        ({"ssl_context": ssl.create_default_context()}, ValueError),
    ],
)
async def test_options_that_make_no_sense(options: Any, error: type[Exception]) -> None:
    """An option that makes no sense is refused by its name."""
    async with jobtrio.open_registry() as registry:
        with pytest.raises(error, match=f"^{next(iter(options))} must be"):
            await serve(registry, **{"port": 0, **options})
    wrong: Any = None
    with pytest.raises(TypeError, match=r"^registry must be"):
        await serve(wrong)


async def test_numbers_of_other_kinds() -> None:
    """A port and an interval may be numbers of classes of their own, as numpy's."""
    other: Any = Whole(0)
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        job = await registry.submit(words, "to be")
        server: Server = await nursery.start(partial(serve, registry, port=other, flush_interval=other))
        heard, code = await listen(f"{server.url}/jobs/{job.id}?format=text")
        assert ("".join(heard), code) == ("tobe", 1000)
        nursery.cancel_scope.cancel()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's and a client's context for a certificate of this machine's own."""
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-days", "2", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    return server, ssl.create_default_context(cafile=str(cert))


async def test_tls(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """With a certificate the bridge speaks TLS, and clients that don't are turned away without harm."""
    server, client = certificate
    async with open_bridge(ssl_context=server, limits=brief()) as bridge:
        assert bridge.server.url == f"wss://127.0.0.1:{bridge.port}"
        job = await bridge.registry.submit(words, "a b")
        for data in (request("/ws"), b"\x16\x03\x01\x00\xff" + bytes(255), b""):
            async with raw_client(bridge.port) as plain:
                await plain.send(data or b"x")
                with trio.fail_after(60):
                    await plain.rest()
        heard, code = await listen(f"{bridge.server.url}/jobs/{job.id}", ssl=client)
        assert (len(heard), code) == (3, 1000)
        await bridge.assert_is_left()


async def test_tls_refusals(certificate: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """An HTTP refusal reaches a client over TLS as well."""
    server, client = certificate
    async with open_bridge(ssl_context=server) as bridge:
        with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
            async with connect(bridge.server.url + "/nowhere", ssl=client):
                pass
        assert caught.value.response.status_code == 404


async def test_shutdown_in_the_middle_of_frames() -> None:
    """When the bridge ends, clients in mid-stream are closed with 1012 and told when to come back; no frame is cut."""
    async with jobtrio.open_registry(executors) as registry:

        async def chatter(job: JobContext) -> None:
            while True:
                await job.send("x" * 5000)
                await trio.sleep(0.001)

        job = await registry.submit(chatter)
        endings: list[tuple[int, str]] = []
        async with trio.open_nursery() as clients:
            async with trio.open_nursery() as nursery:
                server: Server = await nursery.start(
                    partial(serve, registry, port=0, limits=Limits(closing=5, heartbeat=1000))
                )

                async def watch(n: int) -> None:
                    path = f"/jobs/{job.id}" if n % 2 else "/ws"
                    async with connected(server.port, path) as client:
                        if path == "/ws":
                            await client.say({"type": "subscribe", "id": 1, "job": job.id})
                        while True:
                            frame = await client.next()
                            assert frame is not None
                            if frame.opcode == CLOSE:
                                endings.append((frame.code, frame.reason))
                                await client.send(close_frame(frame.code))
                                return
                            assert frame.message["type"] in ("hello", "subscribed", "events", "gap")

                for n in range(100):
                    clients.start_soon(watch, n)
                await until(lambda: server.stats().subscriptions == 100)
                await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
        assert len(endings) == 100
        assert {code for code, _ in endings} == {1012}
        delays = [json.loads(reason)["retry_after"] for _, reason in endings]
        assert all(0.5 <= delay <= 1.5 for delay in delays)
        assert len(set(delays)) > 50
        assert server.stats().connections == 0
        await registry.shutdown()


@pytest.mark.parametrize("flush_interval", [0.0, 1000.0])
@pytest.mark.parametrize(("path", "code"), [("/ws", 1012), ("/jobs/it", 1000)])
async def test_shutdown_tells_of_what_has_ended(path: str, code: int, flush_interval: float) -> None:
    """When the bridge ends, clients are told how the jobs that are over have ended, before they are sent away."""
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:

        async def burst(job: JobContext) -> None:
            for n in range(3000):
                job.send_nowait(n)

        await (await registry.submit(burst, job_id="it")).wait()
        server: Server = await nursery.start(partial(serve, registry, port=0, flush_interval=flush_interval))
        async with connected(server.port, path) as client:
            if path == "/ws":
                await client.say({"type": "subscribe", "job": "it"})
            while (await client.hear())["type"] != "subscribed":
                pass
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):  # the server has its own limit
                types = []
                while (last := await client.next()) is not None and last.opcode != CLOSE:
                    types.append(last.message["type"])
                assert last is not None
                assert (types[-1], last.code) == ("end", code)
                await client.send(close_frame(last.code))


async def test_shutdown_is_bounded() -> None:
    """Clients that do not read, do not answer, or have not finished their request do not hold up the end."""
    async with open_bridge(limits=Limits(closing=0.5)) as bridge:

        async def flood(job: JobContext) -> None:
            while True:
                await job.send("x" * 50_000)
                await trio.lowlevel.checkpoint()

        job = await bridge.registry.submit(flood)
        async with (
            connected(bridge.port, f"/jobs/{job.id}", receive_buffer=4096),
            connected(bridge.port, "/ws"),
            raw_client(bridge.port) as half,
        ):
            await half.send(b"GET ")
            await until(lambda: bridge.server.stats().connections == 3)
            await trio.sleep(0.2)
            bridge.nursery.cancel_scope.cancel()
            start = trio.current_time()
            with trio.CancelScope(shield=True):
                await until(lambda: not bridge.server.stats().connections)
                assert trio.current_time() - start < 9  # 10 s where nothing else is said
                assert bridge.server.stats().dropped["shutdown"] >= 1
                await job.cancel()
                async with trio.open_nursery() as nursery:
                    with pytest.raises(OSError, match=r"\w"):
                        await trio.open_tcp_stream("127.0.0.1", bridge.port)
                    nursery.cancel_scope.cancel()


async def test_a_foreign_page_is_logged(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """Which page was refused is in the log, once an origin, since browsers don't tell; a flood does not fill it."""
    for origin in (*["http://one.example"] * 3, *[f"http://n{n}.example" for n in range(150)]):
        with pytest.raises(websockets.exceptions.InvalidStatus):
            await listen(f"{bridge.server.url}/ws", origin=origin)
    lines = [record.getMessage() for record in caplog.records if record.name == "jobtrio.websocket"]
    assert lines[0].startswith("a page of 'http://one.example' may not connect")
    assert "--allow-origin" in lines[0]
    assert len(lines) == len(set(lines)) == 100


async def test_shut_down_by_the_application() -> None:
    """A server that the application shuts down tells its clients to come back, and its task ends once they are gone."""
    async with jobtrio.open_registry(executors) as registry, trio.open_nursery() as nursery:
        server: Server = await nursery.start(partial(serve, registry, port=0))
        job = await registry.submit("hang")
        async with connect(f"{server.url}/jobs/{job.id}") as client:
            assert json.loads(await client.recv())["type"] == "subscribed"
            server.shut_down()
            with pytest.raises(websockets.exceptions.ConnectionClosed):
                await client.recv()
            assert client.close_code == 1012
        await job.cancel()


async def test_shut_down_during_a_request() -> None:
    """A client that has not finished its request is cut off at once: there is nothing to tell it yet."""
    limits = Limits(handshake=1000.0, closing=1000.0)
    async with open_bridge(limits=limits) as bridge, raw_client(bridge.port) as client:
        await client.send(b"GET ")
        await until(lambda: bridge.server.stats().connections == 1)
        bridge.server.shut_down()
        with trio.fail_after(60):
            assert await client.rest() == b""


class ShutDown(trio.abc.Instrument):
    """Shuts a server down when it has accepted a connection, and has not looked at it."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        if task.name.endswith("_run_handler"):
            self.server.shut_down()


async def test_comes_as_it_is_shut_down(bridge: Bridge) -> None:
    """A client that comes at the moment of the shutdown is told of that, not that the server is full."""
    trio.lowlevel.add_instrument(ShutDown(bridge.server))
    async with raw_client(bridge.port) as client:
        await client.send(request("/ws"))
        assert await client.answer() == 503
        assert "Retry-After: 1\r\n" in client.head
        assert await client.rest() == b"the server is shutting down\n"


@pytest.mark.parametrize("path", ["/ws", "/jobs/ID?epoch=another", "/jobs/ID"])
async def test_a_client_that_has_left_is_no_garbage(bridge: Bridge, path: str) -> None:
    """What was kept of a client, and of what it was refused, is freed as it leaves: the collector finds nothing."""
    job = await bridge.registry.submit(words, "to be")
    await job.wait()

    async def visit() -> None:
        async with connected(bridge.port, path.replace("ID", job.id)) as client:
            if path == "/ws":
                assert (await client.hear())["type"] == "hello"
                for request in ({"type": "submit", "executor": "words"}, {"type": "unsubscribe", "sub": 7}):
                    await client.say(request)
                    assert (await client.hear())["type"] == "error"
                await client.send(close_frame())
            assert await client.until_closed() is not None
            await client.send(close_frame())
        await bridge.assert_is_left()

    await visit()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await visit()
        found = gc.collect()
    finally:
        gc.enable()
    assert found < 5, f"{found} objects of 5 clients"


async def test_stats(bridge: Bridge) -> None:
    """The server counts its connections, what it refused and how it closed."""
    stats = bridge.server.stats
    assert (stats().connections, stats().subscriptions, stats().accepted) == (0, 0, 0)
    job = await bridge.registry.submit(hang)
    async with connected(bridge.port, "/ws") as client, connected(bridge.port, f"/jobs/{job.id}"):
        for _ in range(3):
            await client.say({"type": "subscribe", "id": 1, "job": job.id})
        await until(lambda: stats().subscriptions == 4)
        assert (stats().connections, stats().accepted) == (2, 2)
        await bridge.registry.cancel(job.id)
        await until(lambda: stats().subscriptions == 0)
    async with raw_client(bridge.port) as client:
        await client.send(request("/nowhere"))
        await client.rest()
    await bridge.assert_is_left()
    assert (stats().refused, stats().closed, stats().accepted) == ({404: 1}, {4011: 1}, 2)


async def test_watched(bridge: Bridge) -> None:
    """The server tells which jobs are watched, and by how many, until they have left or the job has ended."""
    watched = bridge.server.watched
    assert watched() == {}
    one, other = [await bridge.registry.submit(hang) for _ in range(2)]
    async with connected(bridge.port, "/ws") as client, connected(bridge.port, f"/jobs/{one.id}?format=text"):
        for job in (one, one, other):
            await client.say({"type": "subscribe", "id": 1, "job": job.id})
        await until(lambda: watched() == {one.id: 3, other.id: 1})
        async with connected(bridge.port, f"/jobs/{other.id}"):
            await until(lambda: watched() == {one.id: 3, other.id: 2})
        await until(lambda: watched() == {one.id: 3, other.id: 1})
        await client.say({"type": "unsubscribe", "id": 2, "sub": 2})
        await until(lambda: watched() == {one.id: 2, other.id: 1})
        await bridge.registry.cancel(one.id)
        await until(lambda: watched() == {other.id: 1})
    await until(lambda: watched() == {})


async def test_on_a_durable_store(tmp_path: Path) -> None:
    """On a file, a stream goes on by number and epoch when the server is another one."""
    path = tmp_path / "jobs.db"
    async with open_bridge(store=SqliteJobStore(path)) as bridge:
        job = await bridge.registry.submit("words", "to be or not")
        heard, code = await listen(f"{bridge.server.url}/jobs/{job.id}")
        assert code == 1000
        assert [item for text in heard for item in json.loads(text).get("items", ())] == ["to", "be", "or", "not"]
        epoch = json.loads(heard[0])["epoch"]
    async with open_bridge(store=SqliteJobStore(path)) as bridge:
        for after in range(6):
            again, code = await listen(f"{bridge.server.url}/jobs/{job.id}?after={after}&epoch={epoch}")
            items = [item for text in again for item in json.loads(text).get("items", ())]
            assert (items, code) == (["to", "be", "or", "not"][after:], 1000)
            assert json.loads(again[-1])["seq"] == 5
        heard, code = await listen(f"{bridge.server.url}/jobs/{job.id}?after=6&epoch={epoch}")
        assert (json.loads(heard[0])["code"], code) == ("future_cursor", 4409)
        heard, code = await listen(f"{bridge.server.url}/jobs/{job.id}?epoch=0123456789abcdef")
        assert (json.loads(heard[0])["code"], json.loads(heard[0])["epoch"], code) == ("wrong_epoch", epoch, 4409)


async def test_a_payload_that_the_store_cannot_keep(tmp_path: Path) -> None:
    """What a durable store can't keep is refused by its own code, and the connection goes on."""
    limits = Limits(message_bytes=10 * 2**20)
    async with open_bridge(store=SqliteJobStore(tmp_path / "jobs.db"), authenticate=known, limits=limits) as bridge:
        async with connected(bridge.port, "/ws", "Authorization: Bearer ok-ann") as client:
            await client.hear()
            payload = "x" * (9 * 2**20)
            await client.send(
                frame(TEXT, f'{{"type":"submit","id":1,"executor":"words","payload":"{payload}"}}'.encode())
            )
            assert (await client.hear())["code"] == "payload"
            await client.say({"type": "ping", "id": 2})
            assert (await client.hear())["type"] == "pong"
