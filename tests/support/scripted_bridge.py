"""A server of the wire protocol that says exactly what a test wants, right or wrong, for tests of clients alone."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import trio_websocket
from msgspec.structs import replace

from jobtrio import Gap, JobState
from jobtrio._nursery import open_background_nursery
from jobtrio.websocket.protocol import (
    PROTOCOL,
    Ended,
    Events,
    Hello,
    HelloLimits,
    Subscribe,
    Subscribed,
    WireCompleted,
    decode_request,
    encode_reply,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jobtrio import Message
    from jobtrio.websocket import RemoteSubscription
    from jobtrio.websocket.protocol import AnyReply, AnyRequest

R = TypeVar("R")

WAIT = 60.0
"""Seconds that a test waits for what has to happen soon."""


class Peer:
    """One connection, as the server sees it.

    Attributes:
        number: Which connection it is, from 0.
        path: The path that the client asked for.
        headers: The client's headers, by name in lower case.
        is_cut: Whether the connection ends with the script, without a word.
    """

    def __init__(self, number: int, request: trio_websocket.WebSocketRequest) -> None:
        self.number = number
        self.path = request.path
        self.headers = {name.decode().lower(): value.decode() for name, value in request.headers}
        self.socket: trio_websocket.WebSocketConnection | None = None
        self.is_cut = False
        self._request = request

    async def accept(self) -> trio_websocket.WebSocketConnection:
        """Accept the connection, once."""
        if self.socket is None:
            self.socket = await self._request.accept(subprotocol=PROTOCOL)
        return self.socket

    async def reject(self, status: int, *, body: bytes = b"no", **headers: str) -> None:
        """Refuse the connection with an HTTP status."""
        extra = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await self._request.reject(status, extra_headers=extra, body=body)
        self.cut()

    async def greet(self, **limits: Any) -> None:
        """Say hello."""
        heartbeat = limits.pop("heartbeat", 15.0)
        given = {"message_bytes": 65536, "subscriptions": 32, "messages_per_second": 50.0, **limits}
        await self.say(Hello(proto=PROTOCOL, heartbeat=heartbeat, limits=HelloLimits(**given)))

    async def say(self, *replies: AnyReply | str) -> None:
        """Send messages, or text that is none."""
        socket = await self.accept()
        for reply in replies:
            await socket.send_message(reply if isinstance(reply, str) else encode_reply(reply))

    async def hear(self, kind: type[R]) -> R:
        """Return the client's next message, which has to be of some kind."""
        socket = await self.accept()
        with trio.fail_after(WAIT):
            request: AnyRequest = decode_request(await socket.get_message())
        assert isinstance(request, kind), request
        return request

    async def answer(self, kind: type[AnyRequest], reply: AnyReply) -> None:
        """Hear a request of some kind, and answer it."""
        await self.say(replace(reply, id=(await self.hear(kind)).id))

    async def close(self, code: int, reason: str | None = None) -> None:
        """Close the connection in order."""
        socket = await self.accept()
        await socket.aclose(code, reason)

    def cut(self) -> None:
        """Have the connection end with the script, without a word."""
        self.is_cut = True

    async def subscribed(self, sub: int = 1, *, last: int = 0, epoch: str = "e") -> Subscribe:
        """Hear a subscription and accept it."""
        request = await self.hear(Subscribe)
        await self.say(
            Subscribed(
                id=request.id,
                sub=sub,
                job=request.job,
                epoch=epoch,
                state=JobState.RUNNING,
                attempt=1,
                first=1,
                last=last,
            )
        )
        return request

    async def gone(self) -> None:
        """Wait until the client has left."""
        with suppress(trio_websocket.ConnectionClosed):
            while True:
                await (await self.accept()).get_message()


def events(first: int, last: int, sub: int | None = 1) -> Events:
    """Return tokens whose values are their numbers."""
    return Events(sub=sub, seq=first, attempt=1, items=[*range(first, last + 1)])


def end(seq: int, sub: int | None = 1) -> Ended:
    """Return the end of a job that has completed."""
    return Ended(sub=sub, seq=seq, outcome=WireCompleted(result=None))


async def idle(peer: Peer) -> None:
    """Greet a client, and do nothing more for it."""
    await peer.greet()


def numbers(messages: list[Message]) -> list[int]:
    """Return the numbers of messages."""
    return [message.seq for message in messages if not isinstance(message, Gap)]


async def all_of(subscription: RemoteSubscription) -> list[Message]:
    """Return all messages of a subscription, to its end."""
    with trio.fail_after(WAIT):
        return [message async for message in subscription]


@asynccontextmanager
async def open_bridge(*scripts: Callable[[Peer], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve within the block, and give the URL: the n-th connection by the n-th script, later ones by the last.

    When its script has ended, a connection lasts until the client has left, unless the script has cut it.
    """
    peers = 0

    async def handle(request: trio_websocket.WebSocketRequest) -> None:
        nonlocal peers
        number, peers = peers, peers + 1
        peer = Peer(number, request)
        try:
            await scripts[min(number, len(scripts) - 1)](peer)
            if not peer.is_cut:
                await peer.gone()
        except trio_websocket.ConnectionClosed:
            pass
        finally:
            await trio.aclose_forcefully(request._connection._stream)

    async with open_background_nursery() as nursery:
        serve = trio_websocket.serve_websocket
        server = await nursery.start(serve, handle, "127.0.0.1", 0, None)
        yield f"ws://127.0.0.1:{server.port}"
