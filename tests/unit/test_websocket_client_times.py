"""When a client tries again, how fast it speaks, and how long its calls wait."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing

from jobtrio import StoreUnavailableError
from jobtrio.websocket import ServerUnavailableError, _client_keeper, _client_times, open_client
from jobtrio.websocket._client_link import Link, LinkLostError, _EndingStream
from jobtrio.websocket._client_times import FIRST, LONGEST, MOST, MOST_ASKED, WINDOW, Backoff, Pace
from jobtrio.websocket.protocol import (
    PROTOCOL,
    Hello,
    HelloLimits,
    Ok,
    Refused,
    decode_request,
    encode_reply,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock
    from trio_websocket import WebSocketConnection

    from jobtrio.websocket.protocol import AnyRequest


def test_pauses_grow() -> None:
    """Pauses double up to the longest, each with a jitter of up to a half, and begin anew after a success.

    An outage of a day has thousands of them.
    """
    backoff = Backoff()
    pauses = [backoff.next() for _ in range(5000)]
    for n, pause in enumerate(pauses):
        due = min(FIRST * 2 ** min(n, 60), LONGEST)
        assert due / 2 <= pause <= due
    assert len(set(pauses)) == len(pauses)
    backoff.reset()
    assert backoff.next() <= FIRST


def test_what_the_server_asks_for() -> None:
    """A pause is never shorter than the server asks for, and never so long that it would be for ever."""
    backoff = Backoff()
    assert 2.0 <= backoff.next(2.0) <= 2.0 + FIRST
    assert MOST_ASKED <= backoff.next(1e9) <= MOST_ASKED + 2 * FIRST
    assert backoff.next(-5.0) >= 0


def test_pace() -> None:
    """In any window there are no more messages than the server takes in a second."""
    pace = Pace(3.0)
    now, sent = 0.0, []
    for _ in range(10):
        now = max(now + 0.01, pace.earliest())
        pace.note(now)
        sent.append(now)
    assert sent[2] < WINDOW
    assert all(later - earlier > WINDOW - 1e-9 for earlier, later in zip(sent, sent[3:], strict=False))


@pytest.mark.parametrize("messages_per_second", [1e7, 1e20, 1e308])
def test_server_that_takes_anything(messages_per_second: float) -> None:
    """A limit that is none is kept, with a bound on what is remembered for it."""
    pace = Pace(messages_per_second)
    for n in range(MOST):
        assert pace.earliest() <= n / MOST
        pace.note(n / MOST)
    assert pace.earliest() == WINDOW


def test_slow_server() -> None:
    """Below one message a second it is one in each window."""
    pace = Pace(0.2)
    pace.note(5.0)
    assert pace.earliest() == 5.0 + WINDOW


# -- how long calls wait


class FakeLink:
    """A connection on which things happen after so many seconds each: an answer, a refusal by its code, or a cut."""

    def __init__(self, happenings: list[tuple[float, str]]) -> None:
        self._happenings = iter(happenings)
        self._has_greeted = False
        self._asked: list[AnyRequest] = []

    async def receive(self, silence: float) -> str:
        if not self._has_greeted:
            self._has_greeted = True
            limits = HelloLimits(message_bytes=65536, subscriptions=32, messages_per_second=50.0)
            return encode_reply(Hello(proto=PROTOCOL, heartbeat=15.0, limits=limits))
        seconds, what = next(self._happenings, (inf, "cut"))
        await trio.sleep(seconds)
        if what == "cut":
            raise LinkLostError("it was cut")
        id = self._asked[-1].id
        return encode_reply(Ok(id=id, cancelled=True) if what == "ok" else Refused(id=id, code=what, message=what))

    async def send(self, text: str) -> None:
        self._asked.append(decode_request(text))

    async def say_farewell(self) -> None:
        await trio.lowlevel.checkpoint()


async def cancel_over(links: list[tuple[float, list[tuple[float, str]]]]) -> bool:
    """Make a call that may wait for two seconds, over connections that take so many seconds to make."""
    rest = iter(links)

    @asynccontextmanager
    async def open_link(*args: object) -> AsyncIterator[FakeLink]:
        seconds, happenings = next(rest)
        await trio.sleep(seconds)
        yield FakeLink(happenings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_client_keeper, "open_link", open_link)
        patch.setattr(_client_times, "FIRST", 0.01)
        patch.setattr(_client_times, "LONGEST", 0.01)
        async with open_client("ws://x/ws", outage_limit=2.0) as client:
            return await client.cancel("j")


async def test_outage_that_is_over(autojump_clock: MockClock) -> None:
    """A call waits for its answer as long as there is a connection, though there was none for a while."""
    assert await cancel_over([(0.0, [(1.0, "cut")]), (0.9, [(9.0, "cut")]), (0.9, [(9.0, "ok")])])


async def test_outages_add_up(autojump_clock: MockClock) -> None:
    """The time without a connection is limited over a whole call, however often there was one in between."""
    begun = trio.current_time()
    with pytest.raises(ServerUnavailableError, match=r"was away for 2 s: it was cut"):
        await cancel_over([(0.0, [(1.0, "cut")]), (1.2, [(5.0, "cut")]), (1.2, [(9.0, "ok")])])
    assert trio.current_time() - begun == pytest.approx(1.0 + 5.0 + 2.0)


async def test_outage_of_a_call_that_was_put_off(autojump_clock: MockClock) -> None:
    """A call that the server has put off stays limited from then on, with a connection and without."""
    begun = trio.current_time()
    with pytest.raises(StoreUnavailableError, match=r"^unavailable$"):
        await cancel_over([(0.0, [(1.0, "unavailable"), (0.6, "cut")]), (0.6, [(9.0, "ok")])])
    assert trio.current_time() - begun == pytest.approx(1.0 + 2.0)


@pytest.mark.parametrize("is_late", [False, True])
async def test_process_that_was_held_up(mock_clock: MockClock, is_late: bool) -> None:
    """A server is not taken for silent whose message came while something else held up the client's event loop."""

    class Connection:
        """What reads a message in a task of its own, as the library does."""

        def __init__(self, stream: _EndingStream) -> None:
            self._stream = stream
            self._sender, self._receiver = trio.open_memory_channel[str](0)

        async def read(self) -> None:
            while data := await self._stream.receive_some():
                await self._sender.send(data.decode())

        async def get_message(self) -> str:
            return await self._receiver.receive()

    ours, theirs = socket.socketpair()
    with theirs:
        stream = _EndingStream(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
        connection = Connection(stream)
        link = Link(cast("WebSocketConnection", connection), stream)
        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(connection.read)
            for _ in range(20):  # for which of the tasks goes on first is random
                nursery.start_soon(_hold_up, mock_clock, theirs, b"message", is_late)
                assert await link.receive(3.0) == "message"
            nursery.start_soon(_hold_up, mock_clock, theirs, b"", is_late)
            with pytest.raises(LinkLostError, match="silent for 3 s"):
                await link.receive(3.0)
            nursery.cancel_scope.cancel()


async def _hold_up(clock: MockClock, server: socket.socket, said: bytes, is_late: bool) -> None:
    """Let the server say something, and time pass, in one turn of the event loop.

    Where the process was stopped the loop hears of the former a turn late: what waited for either is interrupted.
    """
    await trio.testing.wait_all_tasks_blocked()
    clock.jump(4.0)
    if is_late:
        await trio.lowlevel.checkpoint()
    server.send(said)
