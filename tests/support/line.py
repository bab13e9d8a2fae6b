"""A session on a line within the process: all that a client says and hears, without sockets, for tests alone.

It owns the other end of a session's transport. It must not know what the messages mean.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import trio

from jobtrio.websocket._gatekeeper import Gatekeeper, Handshake
from jobtrio.websocket._limits import Limits
from jobtrio.websocket._multiplexed import MultiplexedSession
from jobtrio.websocket._tailing import TailSession
from jobtrio.websocket.session import Farewell, PeerGone, Session, Terms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import jobtrio
    from jobtrio.websocket import Authenticate, Authorize, CloseCode


class Line:
    """The line, seen from the client.

    Attributes:
        session: The session at its other end.
        farewell: How that ended, once it has.
        texts: All that it has sent, as text.
        is_stalled: Whether the client does not read.
        send_time: Seconds that each send takes.
    """

    def __init__(self) -> None:
        self.session: Session
        self.farewell: Farewell | None = None
        self.texts: list[str] = []
        self.is_stalled = False
        self.send_time = 0.0
        self._is_sending = False
        self._said, self._heard_by_session = trio.open_memory_channel[str | bytes](inf)
        self._sent_by_session, self._hears = trio.open_memory_channel[str](inf)
        self._moves = trio.Event()

    # -- the client's end

    async def hear_out(self) -> tuple[list[Any], CloseCode | None]:
        """Return all messages until the session ends, and by which code that is."""
        heard = await self.hear_all()
        return heard, self.ending.code

    @property
    def ending(self) -> Farewell:
        """How the session ended, which it has to have."""
        assert self.farewell is not None
        return self.farewell

    def say(self, *messages: dict[str, Any] | str | bytes) -> None:
        """Say something."""
        for message in messages:
            self._said.send_nowait(json.dumps(message) if isinstance(message, dict) else message)

    async def hear_text(self) -> str:
        """Return the next text."""
        return await self._hears.receive()

    async def hear(self) -> Any:
        """Return the next message."""
        return json.loads(await self._hears.receive())

    async def hear_all(self) -> list[Any]:
        """Return all messages until the session ends."""
        with trio.fail_after(300):
            return [json.loads(text) async for text in self._hears]

    async def ask(self, message: dict[str, Any] | str) -> Any:
        """Return the answer to a message, passing over what comes before."""
        self.say(message)
        id = (json.loads(message) if isinstance(message, str) else message).get("id")
        with trio.fail_after(300):
            while (answer := await self.hear()).get("id") != id:
                pass
        return answer

    def leave(self) -> None:
        """Hang up."""
        self._said.close()

    def read_again(self) -> None:
        """Read again, after stalling."""
        self.is_stalled = False
        self._moves.set()
        self._moves = trio.Event()

    # -- the session's end

    async def receive(self) -> str | bytes:
        """Return the next message."""
        try:
            return await self._heard_by_session.receive()
        except trio.EndOfChannel:
            raise PeerGone from None

    async def send(self, text: str) -> None:
        """Send a message."""
        assert not self._is_sending, "two tasks of a session send at once"
        self._is_sending = True
        try:
            await trio.sleep(self.send_time)
            while self.is_stalled:
                await self._moves.wait()
        finally:
            self._is_sending = False
        text.encode()  # as any transport would have to
        self.texts.append(text)
        try:
            self._sent_by_session.send_nowait(text)
        except trio.BrokenResourceError:
            raise PeerGone from None

    async def run(self) -> None:
        """Run the session to its end."""
        self.farewell = await self.session.run()
        self._sent_by_session.close()


@asynccontextmanager
async def open_line(
    registry: jobtrio.JobRegistry,
    path: str = "/ws",
    *,
    authenticate: Authenticate | None = None,
    authorize: Authorize | None = None,
    token: str | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    flush_interval: float = 0.0,
    request_time: float = 0.0,
) -> AsyncIterator[Line]:
    """Run a session, whose request has taken so long, and give the client's end of its line."""
    gatekeeper = Gatekeeper(authenticate, authorize, limits.handshake)
    terms = Terms(registry, gatekeeper, limits, flush_interval)
    target, _, query = path.partition("?")
    handshake = Handshake(target, query, {}, None, "198.51.100.7", token)
    line = Line()
    make = MultiplexedSession if target == "/ws" else TailSession
    line.session = make(line, terms, handshake, trio.current_time() + limits.handshake - request_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.run)
        yield line
        nursery.cancel_scope.cancel()


async def anybody(handshake: Handshake) -> Any:
    """Let everybody in, under the name that is the token."""
    return handshake.token or "anonymous"


async def known(handshake: Handshake) -> str | None:
    """Let in whoever has a token that says so."""
    return handshake.token[3:] if handshake.token and handshake.token.startswith("ok-") else None


async def owners(principal: Any, action: str, job: Any) -> bool:
    """Allow everything to those whose name the job's tag ``user`` is."""
    return bool((job.tags or {}).get("user") == principal)
