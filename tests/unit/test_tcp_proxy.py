"""The proxy of the tests does to connections what it says."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from tcp_proxy import HOST, TcpProxy
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)


class Echo:
    """A server that sends back what it receives, and counts how its connections end."""

    def __init__(self) -> None:
        self.received = b""
        self.ended = 0
        self.broken = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection."""
        try:
            async for data in stream:
                self.received += data
                await stream.send_all(data)
            self.ended += 1
        except BROKEN:
            self.broken += 1


@asynccontextmanager
async def open_echo() -> AsyncIterator[tuple[Echo, TcpProxy]]:
    """Give a server and a proxy before it."""
    echo = Echo()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, echo.serve, 0, host=HOST))
        async with TcpProxy(listeners[0].socket.getsockname()[1]).open() as proxy:
            yield echo, proxy
        nursery.cancel_scope.cancel()


async def connect(proxy: TcpProxy) -> trio.SocketStream:
    return await trio.open_tcp_stream(HOST, proxy.port)


async def receive(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await stream.receive_some()
        if not part:
            break
        data += part
    return data


async def is_silent(stream: trio.SocketStream) -> bool:
    """Whether nothing arrives while all else has come to rest."""
    async with trio.open_nursery() as nursery:
        arrived: list[bytes] = []

        async def take() -> None:
            arrived.append(await stream.receive_some())

        nursery.start_soon(take)
        for _ in range(5):
            await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    return not arrived


async def test_carries() -> None:
    """Bytes go both ways, and the end of one way is told."""
    async with open_echo() as (echo, proxy):
        async with await connect(proxy) as stream:
            data = bytes(range(256)) * 1000
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, data)
                assert await receive(stream, len(data)) == data
            await stream.send_eof()
            assert await stream.receive_some() == b""
        assert (echo.ended, echo.broken, proxy.accepted) == (1, 0, 1)


async def test_cut() -> None:
    """A cut resets connections at both ends; the next one is served."""
    async with open_echo() as (echo, proxy):
        async with await connect(proxy) as stream:
            await stream.send_all(b"x")
            await receive(stream, 1)
            assert proxy.cut() == 1
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        async with await connect(proxy) as stream:
            await stream.send_all(b"y")
            assert await receive(stream, 1) == b"y"
        await wait_all_tasks_blocked(0.01)
        assert echo.broken == 1


async def test_cut_after() -> None:
    """A cut after so many bytes lets exactly those pass, and happens once."""
    async with open_echo() as (echo, proxy):
        proxy.cut_after(3, "up")
        async with await connect(proxy) as stream:
            await stream.send_all(b"12345")
            with pytest.raises(trio.BrokenResourceError):
                await receive(stream, 5)
        await wait_all_tasks_blocked(0.01)
        assert echo.received in (b"123", b"")  # a reset may overtake what was sent before it
        async with await connect(proxy) as stream:
            await stream.send_all(b"12345")
            assert await receive(stream, 5) == b"12345"


async def test_lose_answer() -> None:
    """A request that is large enough reaches the server, and its answer does not come; smaller ones are answered."""
    async with open_echo() as (echo, proxy):
        proxy.lose_answer(5)
        async with await connect(proxy) as small, await connect(proxy) as large:
            await small.send_all(b"1234")
            assert await receive(small, 4) == b"1234"
            await large.send_all(b"123456")
            with pytest.raises(trio.BrokenResourceError):
                await receive(large, 6)
            await small.send_all(b"123456")
            assert await receive(small, 6) == b"123456"
        assert echo.received == b"1234" + 2 * b"123456"


@pytest.mark.parametrize("way", ["up", "down", "both"])
async def test_stall(way: str) -> None:
    """While a way is stalled nothing passes it; then what was held up comes first, and nothing is lost."""
    async with open_echo() as (echo, proxy):
        async with await connect(proxy) as stream:
            proxy.stall(way)  # type: ignore[arg-type]
            await stream.send_all(b"held")
            assert await is_silent(stream)
            assert echo.received == (b"held" if way == "down" else b"")
            proxy.go_on()
            await stream.send_all(b" up")
            assert await receive(stream, 7) == b"held up"


async def test_half_open() -> None:
    """The server sees its connections reset; the client is not told, and hears nothing whatever it sends."""
    async with open_echo() as (echo, proxy):
        async with await connect(proxy) as stream:
            await stream.send_all(b"x")
            await receive(stream, 1)
            assert proxy.half_open() == 1
            await wait_all_tasks_blocked(0.01)
            assert echo.broken == 1
            await stream.send_all(b"y")
            assert await is_silent(stream)
            async with await connect(proxy) as other:
                await other.send_all(b"z")
                assert await receive(other, 1) == b"z"


async def test_half_open_amid_what_is_sent() -> None:
    """A connection may vanish at any moment of what the client sends; the client goes on sending for nobody."""
    async with open_echo() as (_, proxy):
        for steps in list(range(6)) * 10:
            async with await connect(proxy) as stream:
                await stream.send_all(b"x")
                await receive(stream, 1)
                await stream.send_all(b"y")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                assert proxy.half_open() == 1
                await wait_all_tasks_blocked()
                await stream.send_all(b"z")


async def test_refuse() -> None:
    """While it refuses, new connections are refused at once and the port stays taken; those there are go on."""
    async with open_echo() as (_, proxy):
        async with await connect(proxy) as stream:
            await stream.send_all(b"x")
            await receive(stream, 1)
            proxy.refuse()
            await wait_all_tasks_blocked(0.01)
            with pytest.raises(OSError, match="all attempts to connect"):
                await connect(proxy)
            await stream.send_all(b"y")
            assert await receive(stream, 1) == b"y"
            await proxy.heal()
            async with await connect(proxy) as other:
                await other.send_all(b"z")
                assert await receive(other, 1) == b"z"


async def test_ignore() -> None:
    """A proxy that ignores new connections accepts them and never answers."""
    async with open_echo() as (echo, proxy):
        proxy.ignore()
        async with await connect(proxy) as stream:
            await stream.send_all(b"x")
            assert await is_silent(stream)
        await proxy.heal()
        assert echo.received == b""
        async with await connect(proxy) as stream:
            await stream.send_all(b"y")
            assert await receive(stream, 1) == b"y"


async def test_no_server() -> None:
    """Where the server is away, a connection ends as soon as it is made."""
    with socket.socket() as taken:  # nobody listens to its port, nor can begin to
        taken.bind((HOST, 0))
        async with TcpProxy(taken.getsockname()[1]).open() as proxy, await connect(proxy) as stream:
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
