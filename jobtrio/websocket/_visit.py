"""One client's connection, from its first byte to its last.

It owns the steps: TLS, the request, acceptance, the session, the close; and that whatever goes wrong harms this
connection alone. It must not know what is spoken, nor of other connections.
"""

from __future__ import annotations

import logging
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

import attrs
import trio

from jobtrio.websocket import _multiplexed
from jobtrio.websocket._doorway import read_head, turn_down
from jobtrio.websocket._frames import FrameGate
from jobtrio.websocket._gatekeeper import Handshake
from jobtrio.websocket._guard import GuardedConnection, GuardedStream, accept
from jobtrio.websocket._head import HttpRefusal, plain_request
from jobtrio.websocket._multiplexed import MultiplexedSession
from jobtrio.websocket._tailing import TailSession
from jobtrio.websocket._uptake import uptake_of
from jobtrio.websocket.session import PeerGone

if TYPE_CHECKING:
    import ssl

    from jobtrio.websocket._codes import CloseCode
    from jobtrio.websocket._head import Head
    from jobtrio.websocket._origins import Origins
    from jobtrio.websocket._tally import Tally
    from jobtrio.websocket.session import Session, Terms

logger = logging.getLogger("jobtrio.websocket")


@attrs.frozen
class House:
    """What all visits share.

    Attributes:
        terms: What holds for all sessions.
        origins: From which pages browsers may connect.
        ssl_context: For TLS; None for none.
        tally: Counts what happens.
    """

    terms: Terms
    origins: Origins
    ssl_context: ssl.SSLContext | None
    tally: Tally


class Visit:
    """One client's connection.

    Attributes:
        session: What is spoken, once it was accepted.
    """

    def __init__(self, house: House, socket: trio.SocketStream) -> None:
        self.session: Session | None = None
        self._house = house
        self._limits = house.terms.limits
        self._socket = socket
        self._stream: GuardedStream | None = None  # once the client was let in
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """See it through. Raises nothing but what must end the process.

        Cancellation: the client is cut off.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await self._receive(nursery)
                    nursery.cancel_scope.cancel()
        except Exception:
            # Whatever the library's reader raises; a fault of a session is reported there.
            logger.debug("a connection ended by an exception", exc_info=True)
            self._house.tally.dropped["fault"] += 1
        finally:
            self.session = self._stream = None  # which know this, and would be left to the collector with it

    def stop(self, code: CloseCode, reason: str) -> None:
        """Close the connection with a code; one that was not accepted yet is cut off."""
        if self.session is None:
            self._scope.cancel(reason="the bridge is shut down")
        else:
            self.session.stop(code, reason)

    def look(self) -> None:
        """See whether what is sent arrives: to be done a few times in `Limits.send` seconds."""
        if self._stream is not None:
            self._stream.look()

    def abort(self, why: str) -> None:
        """Cut the client off at once, without a word."""
        self._house.tally.dropped[why] += 1
        self._socket.socket.close()

    async def _receive(self, nursery: trio.Nursery) -> None:
        deadline = trio.current_time() + self._limits.handshake
        stream: trio.abc.Stream = self._socket
        if self._house.ssl_context is not None:
            stream = trio.SSLStream(self._socket, self._house.ssl_context, server_side=True, https_compatible=True)
        try:
            with trio.move_on_at(deadline) as scope:
                head = await read_head(stream, self._house.origins, self._limits)
            if scope.cancelled_caught:
                raise HttpRefusal(HTTPStatus.REQUEST_TIMEOUT, "the request took too long")
            await self._let_in(nursery, stream, head, deadline)
        except HttpRefusal as refusal:
            self._house.tally.refused[refusal.status] += 1
            await turn_down(stream, refusal)
        except PeerGone:
            self._house.tally.dropped["gone before it was accepted"] += 1

    async def _let_in(self, nursery: trio.Nursery, stream: trio.abc.Stream, head: Head, deadline: float) -> None:
        gate = FrameGate(self._limits.message_bytes, self._limits.message_frames)
        self._stream = guarded = GuardedStream(
            stream,
            self._socket.socket if stream is self._socket else None,
            plain_request(head),
            gate,
            time_limit=self._limits.send,
            on_verdict=self._judge,
            abort=self.abort,
            uptake=partial(uptake_of, self._socket.socket),
        )
        library = None
        with trio.move_on_at(deadline):
            library = await accept(nursery, guarded, head, self._limits)
        if library is None:
            raise PeerGone
        connection = GuardedConnection(library, guarded, self._limits)
        self._house.tally.accepted += 1
        make = MultiplexedSession if head.path == _multiplexed.PATH else TailSession
        self.session = make(connection, self._house.terms, self._handshake(head), deadline)
        nursery.start_soon(connection.watch_pulse)
        farewell = await self.session.run()
        if farewell.code is not None:
            self._house.tally.closed[farewell.code] += 1
            await connection.close(farewell.code, farewell.reason)
        elif connection.is_malformed:
            self._house.tally.dropped["malformed"] += 1

    def _judge(self, verdict: CloseCode) -> None:
        if self.session is not None:
            self.session.stop(verdict)

    def _handshake(self, head: Head) -> Handshake:
        try:
            peer = str(self._socket.socket.getpeername()[0])
        except OSError:
            peer = ""  # it has left
        return Handshake(
            path=head.path,
            query=head.query,
            headers=head.headers,
            origin=head.headers.get("origin"),
            peer=peer,
            token=head.token,
        )
