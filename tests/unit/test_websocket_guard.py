"""The guard around the library's stream: what is read when, and that no frame is cut."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from bridge import open_bridge
from raw_client import PING, PONG, TEXT, frame
from turns import Turns

from jobtrio.websocket import Limits, _guard
from jobtrio.websocket._codes import CloseCode
from jobtrio.websocket._frames import PULSE, FrameGate, text_frame
from jobtrio.websocket._guard import GuardedConnection, GuardedStream, accept
from jobtrio.websocket._head import Head, plain_request
from jobtrio.websocket._uptake import UNKNOWN, Uptake, uptake_of
from jobtrio.websocket.session import PeerGone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import trio_websocket
    from trio.testing import MockClock


class Setup:
    """A guarded stream and the client at its other end."""

    def __init__(
        self, *, accepted: bool = True, lockstep: bool = False, uptake: Callable[[], Uptake] = lambda: UNKNOWN
    ) -> None:
        self.client: trio.abc.HalfCloseableStream
        self.server: trio.StapledStream[Any, Any]
        pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self.client, self.server = pair()
        self.gate = FrameGate(100, 10)
        self.verdicts: list[CloseCode] = []
        self.aborted: list[str] = []
        self.stream = GuardedStream(
            self.server,
            None,
            b"request",
            self.gate,
            time_limit=10,
            on_verdict=self.verdicts.append,
            abort=self.aborted.append,
            uptake=uptake,
        )
        if accepted:
            self.stream.accepted.set()

    def attend(self, nursery: trio.Nursery) -> None:
        """Read and watch the client, as is done with a connection."""
        nursery.start_soon(read_all, self.stream)
        nursery.start_soon(self.watch_pulse)

    async def watch_pulse(self) -> None:
        """Watch the client as a connection does."""
        library: Any = OpenConnection()
        connection = GuardedConnection(library, self.stream, Limits())
        await connection.watch_pulse()

    async def look(self) -> None:
        """Look at the client now and then, as a server does."""
        while True:
            await trio.sleep(2.5)
            self.stream.look()


async def test_nothing_is_read_before_acceptance(autojump_clock: MockClock) -> None:
    """Until the request is answered, the library gets the request and nothing of what the client sends behind it."""
    setup = Setup(accepted=False)
    await setup.client.send_all(frame(TEXT, b"early"))
    assert await setup.stream.receive_some(4096) == b"request"
    with trio.move_on_after(5) as scope:
        await setup.stream.receive_some(4096)
    assert scope.cancelled_caught
    setup.stream.accepted.set()
    assert (await setup.stream.receive_some(4096))[:1] == b"\x81"


async def test_frames_come_one_by_one() -> None:
    """The library gets one frame at a time, is not asked to hold the next, and hears of the client's end."""
    setup = Setup()
    frames = [frame(TEXT, b"a"), frame(PING, b"b"), frame(TEXT, b"c")]
    await setup.client.send_all(b"".join(frames))
    await setup.client.send_eof()
    assert [await setup.stream.receive_some() for _ in range(5)] == [b"request", *frames, b""]


async def test_a_flood_of_pings_waits(autojump_clock: MockClock) -> None:
    """Who does nothing but ping is answered a hundred times a second; who pings now and then does not wait."""
    setup = Setup()
    began = trio.current_time()
    last = frame(TEXT, b"a")
    await setup.client.send_all(frame(PING) * 1_000 + last)
    got = [await setup.stream.receive_some() for _ in range(1_002)]
    assert got[-1] == last
    assert trio.current_time() - began == pytest.approx(10)  # seconds
    for _ in range(500):
        await trio.sleep(0.02)
        began = trio.current_time()
        await setup.client.send_all(frame(PING))
        await setup.stream.receive_some()
        assert trio.current_time() == began


async def test_a_verdict_is_told_once() -> None:
    """Why nothing more may pass is told once, and what comes then is dropped."""
    setup = Setup()
    await setup.client.send_all(frame(TEXT, b"x" * 101) + frame(PING) * 3)
    await setup.client.send_all(frame(TEXT, b"x" * 101))
    await setup.client.send_eof()
    assert [await setup.stream.receive_some() for _ in range(2)] == [b"request", b""]
    assert setup.verdicts == [CloseCode.TOO_BIG]


async def test_a_cancelled_send_is_whole(autojump_clock: MockClock) -> None:
    """A send that is cancelled while the client does not read is sent whole, and no other gets into it."""
    setup = Setup(lockstep=True)
    first, second = text_frame(b"a" * 1000), text_frame(b"b" * 1000)
    received = bytearray()

    async def read() -> None:
        await trio.sleep(5)
        while len(received) < len(first + second):
            received.extend(await setup.client.receive_some(7))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(setup.stream.send_all, first)
        await trio.sleep(1)
        with trio.move_on_after(1):
            await setup.stream.send_all(b"never: it waits for the first, and is cancelled")
        nursery.start_soon(setup.stream.send_all, second)
        await trio.sleep(1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert received == first + second


async def test_a_send_is_not_cut_by_a_cancellation(autojump_clock: MockClock) -> None:
    """The task that sends may be cancelled at any time: it goes on until its frame is out."""
    setup = Setup(lockstep=True)
    data = text_frame(b"a" * 1000)
    received = bytearray()
    start = trio.current_time()

    async def read() -> None:
        await trio.sleep(5)
        while len(received) < len(data):
            received.extend(await setup.client.receive_some(100))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.move_on_after(1):
            await setup.stream.send_all(data)
        sent_at = trio.current_time()
    assert received == data
    assert sent_at - start == 5


async def test_a_send_has_its_time(autojump_clock: MockClock) -> None:
    """A client that does not read for too long is cut off."""
    setup = Setup(lockstep=True)
    start = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match="did not read"):
        await setup.stream.send_all(b"x" * 100)
    assert trio.current_time() - start == 10
    assert setup.aborted == ["too slow"]


async def test_a_slow_client_has_its_time_for_each_piece(autojump_clock: MockClock) -> None:
    """A frame may take much longer than the limit, as long as the client reads on: it would only be sent once more."""
    setup = Setup(lockstep=True)
    data = text_frame(b"a" * 200_000)
    received = bytearray()

    async def read() -> None:
        while len(received) < len(data):
            await trio.sleep(9)
            received.extend(await setup.client.receive_some(16 * 1024))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        start = trio.current_time()
        await setup.stream.send_all(data)
        assert trio.current_time() - start > 100
    assert received == data
    assert not setup.aborted


async def test_a_cancelled_send_has_one_limit_for_all_that_is_left(autojump_clock: MockClock) -> None:
    """A client that reads slowly does not keep a connection that is to end for longer than the limit."""
    setup = Setup(lockstep=True)
    start = trio.current_time()

    async def read() -> None:
        while True:
            await trio.sleep(9)
            await setup.client.receive_some(16 * 1024)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        with trio.move_on_after(50), pytest.raises(trio.BrokenResourceError, match="did not read"):
            await setup.stream.send_all(text_frame(b"a" * 200_000))
        assert 50 < trio.current_time() - start <= 70
        nursery.cancel_scope.cancel()
    assert setup.aborted == ["too slow"]


async def test_what_the_system_takes_is_no_sign_of_life(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """That bytes go out does not say that somebody reads them, encrypted or not: a dead client is found out."""
    setup = Setup()
    setup.attend(nursery)
    for _ in range(12):
        await setup.stream.send_all(text_frame(b"a" * 40_000))
        await trio.sleep(5)
    assert setup.aborted == ["silent"]


async def test_a_client_that_reads_on_is_not_silent(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A ping waits behind a large frame, and is no reason to cut a client off that is still reading that."""
    setup = Setup(lockstep=True)
    setup.attend(nursery)
    nursery.start_soon(setup.stream.send_all, text_frame(b"a" * 400_000))
    for _ in range(25):
        await trio.sleep(9)
        await setup.client.receive_some(16 * 1024)
    assert not setup.aborted
    await setup.client.receive_some()  # the ping
    await trio.sleep(100)
    assert setup.aborted == ["silent"]


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_process_that_was_held_up(mock_clock: MockClock, nursery: trio.Nursery, is_late: bool) -> None:
    """A client is not silent whose bytes came while something else held up the server's event loop."""
    setup = Setup()
    setup.attend(nursery)
    limits, received = Limits(), setup.server.receive_stream
    for _ in range(20):  # for which of the tasks goes on first is random
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(limits.heartbeat)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(limits.send)
        if is_late:  # by a turn, as where the process was stopped: what waits for time goes on before it looks for data
            await trio.lowlevel.checkpoint()
        received.put_data(frame(TEXT, b"here"))
    await trio.testing.wait_all_tasks_blocked()
    assert not setup.aborted
    mock_clock.jump(limits.heartbeat)
    await trio.testing.wait_all_tasks_blocked()
    mock_clock.jump(limits.send)
    await trio.testing.wait_all_tasks_blocked()
    assert setup.aborted == ["silent"]


class OpenConnection:
    """A connection of the library that is not closed."""

    closed = None


async def read_all(stream: GuardedStream) -> None:
    """Read as the library does."""
    while await stream.receive_some():
        pass


@pytest.fixture
async def sockets() -> AsyncIterator[tuple[GuardedStream, trio.socket.SocketType]]:
    """Return a stream over a socket, and the client's end of that."""
    server, client = trio.socket.socketpair()
    options: dict[str, Any] = {"time_limit": 10, "on_verdict": print, "abort": print}
    with server, client:
        yield GuardedStream(trio.SocketStream(server), server, b"request", FrameGate(100, 10), **options), client


async def test_a_send_lets_others_run(
    nursery: trio.Nursery, sockets: tuple[GuardedStream, trio.socket.SocketType]
) -> None:
    """A send that the system takes at once is a turn of the scheduler all the same."""
    stream, client = sockets
    turns = Turns()
    nursery.start_soon(turns.take)
    for _ in range(10):
        await stream.send_all(b"x")
    assert await client.recv(100) == b"x" * 10
    assert turns.taken >= 9
    nursery.cancel_scope.cancel()


async def test_a_client_that_has_left(sockets: tuple[GuardedStream, trio.socket.SocketType]) -> None:
    """That the client has left is told in the one way that all who send know."""
    stream, client = sockets
    client.close()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"x")


async def test_a_socket_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a socket can't be written to as a file, as on Windows, clients are sent everything all the same."""

    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    monkeypatch.setattr(_guard, "HAS_FILES", False)
    monkeypatch.setattr(os, "write", refuse)
    async with open_bridge() as bridge:
        await bridge.assert_is_well()


async def test_nothing_follows_the_close(sockets: tuple[GuardedStream, trio.socket.SocketType]) -> None:
    """Once the library has answered a client's close, no message is sent any more."""
    stream, client = sockets
    library: Any = OpenConnection()
    library.closed = True
    connection = GuardedConnection(library, stream, Limits())
    with pytest.raises(PeerGone):
        await connection.send("late")
    await stream.aclose()
    assert await client.recv(100) == b""


async def test_a_client_that_is_not_listened_to_is_not_silent(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """While messages wait that the session has no time for, no pong behind them is read: the client is not cut off."""
    setup = Setup()
    await setup.client.send_all(frame(TEXT, b"x"))
    for _ in ("the request", "a message"):
        await setup.stream.receive_some()
    nursery.start_soon(setup.watch_pulse)
    await trio.sleep(1000)
    assert not setup.aborted
    nursery.start_soon(read_all, setup.stream)
    await trio.sleep(1000)
    assert setup.aborted == ["silent"]


async def test_a_client_that_is_heard_is_not_silent(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Whatever comes of a client is a sign of life, until nothing comes any more."""
    setup = Setup()
    setup.attend(nursery)
    for _ in range(50):
        await trio.sleep(20)
        await setup.client.send_all(frame(TEXT, b"x"))
    assert not setup.aborted
    await trio.sleep(44)  # 15 of silence, and 30 for the answer
    assert not setup.aborted
    await trio.sleep(2)
    assert setup.aborted == ["silent"]


async def accepted(
    nursery: trio.Nursery, server: trio.abc.Stream
) -> tuple[GuardedConnection, trio_websocket.WebSocketConnection, list[str]]:
    """Return a connection as the library has accepted it, that of the library, and why it was aborted."""
    head = Head("/ws", "", {}, "A" * 22 + "==", speaks=False, token=None)
    gate, limits, aborted = FrameGate(100, 10), Limits(), list[str]()
    options: dict[str, Any] = {"time_limit": 10, "on_verdict": print, "abort": aborted.append}
    stream = GuardedStream(server, None, plain_request(head), gate, **options)
    library = await accept(nursery, stream, head, limits)
    return GuardedConnection(library, stream, limits), library, aborted


async def test_pings_without_an_answer_are_not_gathered(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Of a client that talks, and answers no ping, nothing more is kept the longer it stays."""
    client, server = trio.testing.memory_stream_pair()
    connection, library, aborted = await accepted(nursery, server)
    nursery.start_soon(connection.watch_pulse)
    for _ in range(20):
        await trio.sleep(40)
        await client.send_all(frame(TEXT, b"x"))
        assert await connection.receive() == "x"
    assert not aborted
    assert not library._pings
    assert bytes(await client.receive_some()).endswith(20 * PULSE)
    await client.send_all(frame(PONG))
    await trio.sleep(20)
    assert bytes(await client.receive_some()) == PULSE
    await trio.sleep(30)
    assert aborted == ["silent"]
    nursery.cancel_scope.cancel()


async def test_a_ping_that_had_to_wait_for_its_turn(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A client that was sent something for long, as it reads slowly, is asked for a sign of life behind that."""
    client, server = trio.testing.lockstep_stream_pair()

    async def answer() -> None:
        while True:
            if bytes(await client.receive_some(16 * 1024)).endswith(PULSE):
                await client.send_all(frame(PONG))
            else:
                await trio.sleep(9)

    nursery.start_soon(answer)
    connection, _, aborted = await accepted(nursery, server)
    nursery.start_soon(connection.watch_pulse)
    await connection.send("a" * 400_000)
    await trio.sleep(500)
    assert not aborted
    nursery.cancel_scope.cancel()


class Link:
    """A way to a client that tells of each byte what became of it, and on which a byte takes its time."""

    def __init__(self) -> None:
        self.sent = self.arrived = 0

    def uptake(self) -> Uptake:
        """Return how far the bytes have come."""
        return Uptake(self.arrived, self.sent)

    async def carry(self, count: int, each: float) -> None:
        """Have so many bytes arrive, one by one."""
        self.sent += count
        for _ in range(count):
            await trio.sleep(each)
            self.arrived += 1


async def test_a_piece_on_a_slow_way_has_its_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """While bytes arrive, what is behind them waits: also a single piece may take longer than the limit."""
    link = Link()
    setup = Setup(lockstep=True, uptake=link.uptake)
    for task in (setup.watch_pulse, setup.look):
        nursery.start_soon(task)
    nursery.start_soon(read_all, setup.stream)
    nursery.start_soon(link.carry, 100, 5)
    start = trio.current_time()
    with pytest.raises(trio.BrokenResourceError, match="did not read"):
        await setup.stream.send_all(b"x" * 100)
    assert 505 < trio.current_time() - start < 515
    assert setup.aborted == ["too slow"]
    nursery.cancel_scope.cancel()


async def test_a_cancelled_send_is_not_prolonged(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """What is sent to a client that is to go has one time limit, though it arrives."""
    link = Link()
    setup = Setup(lockstep=True, uptake=link.uptake)
    nursery.start_soon(setup.look)
    nursery.start_soon(link.carry, 100, 1)
    start = trio.current_time()
    with trio.move_on_after(0), pytest.raises(trio.BrokenResourceError, match="did not read"):
        await setup.stream.send_all(b"x" * 100)
    assert trio.current_time() - start == 10
    nursery.cancel_scope.cancel()


async def test_a_ping_on_a_slow_way_has_its_time(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """A client is not silent that has not been asked yet: while what was sent before arrives, the ping is behind it."""
    link = Link()
    setup = Setup(uptake=link.uptake)
    setup.attend(nursery)
    nursery.start_soon(link.carry, 100, 5)
    await trio.sleep(500)
    assert not setup.aborted
    await trio.sleep(80)
    assert setup.aborted == ["silent"]
    nursery.cancel_scope.cancel()


async def test_what_arrives_at_a_dead_program_is_no_sign_of_life(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    """The system of a client takes what is sent also where its program hangs: that answers nothing."""
    link = Link()
    setup = Setup(uptake=link.uptake)
    setup.attend(nursery)

    async def trickle() -> None:
        while True:
            await link.carry(1, 0.3)

    nursery.start_soon(trickle)
    await trio.sleep(46)
    assert setup.aborted == ["silent"]
    nursery.cancel_scope.cancel()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell")
async def test_how_much_has_arrived() -> None:
    """The system tells what has arrived, and what is on its way; of a connection that is gone, nothing."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        server = await listener.accept()
    async with client, server:
        before = uptake_of(server.socket)
        assert before.arrived == before.sent
        full = before
        with trio.fail_after(60):
            while not before.arrived < full.arrived < full.sent:
                with trio.move_on_after(0.1):
                    await server.send_all(b"x" * 10_000_000)
                full = uptake_of(server.socket)
        received = 0
        while received < full.sent - before.sent:
            received += len(await client.receive_some())
        with trio.fail_after(60):
            while uptake_of(server.socket).arrived < full.sent:
                await trio.lowlevel.checkpoint()
    assert uptake_of(server.socket) == UNKNOWN


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_text_frames(size: int) -> None:
    """A server's frame says how long it is, in as few bytes as may be, and is not masked."""
    assert text_frame(b"x" * size) == frame(TEXT, b"x" * size, masked=False)
