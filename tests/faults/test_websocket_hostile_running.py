"""What goes wrong while streams run. Each test ends with a client that is served as if nothing was."""

from __future__ import annotations

import json
import os
import resource
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.lowlevel
from bridge import Bridge, brief, hang, open_bridge, resident, words
from line import known
from patience import until
from raw_client import BINARY, TEXT, Frame, close_frame, connected, frame, raw_client, request

import jobtrio
from jobtrio import RetryPolicy
from jobtrio.websocket import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from jobtrio import JobContext
    from jobtrio.websocket import Handshake

MEGABYTE = 2**20


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    """Serve; afterwards serve a client that behaves, and be left by all."""
    async with open_bridge(retention=jobtrio.Retention(tokens_per_job=1000)) as bridge:
        yield bridge
        await bridge.assert_is_well()
        await bridge.assert_is_left()
        await bridge.registry.shutdown()


def check_stream(messages: list[Any], *, after: int = 0) -> list[Any]:
    """Return the items of a stream's messages, which have to be without holes, and to end if they do."""
    seen, items = after, []
    for message in messages:
        match message["type"]:
            case "events":
                assert message["seq"] == seen + 1
                seen += len(message["items"])
                items += message["items"]
            case "gap":
                assert message["first"] == seen + 1
                seen = message["last"]
            case "progress" | "restart" | "end":
                assert message["seq"] == seen + 1
                seen += 1
    return items


async def test_a_reader_that_stalls() -> None:
    """A client that stops reading harms neither the job nor others, fills no memory, and is cut off."""
    turns = 0

    async def chatter(job: JobContext) -> None:
        nonlocal turns
        while True:
            turns += 1
            await job.send("x" * 20_000)
            await trio.sleep(0.001)

    async with open_bridge(limits=brief(), retention=jobtrio.Retention(tokens_per_job=1000)) as bridge:
        job = await bridge.registry.submit(chatter)
        async with connected(bridge.port, f"/jobs/{job.id}", receive_buffer=4096):
            await until(lambda: turns > 100)
            before = resident()
            await until(lambda: bridge.server.stats().dropped == {"too slow": 1})
            seen = turns
            await until(lambda: turns > seen + 200)
            assert resident() - before < 30 * MEGABYTE  # the 1000 tokens that are kept are 20 MB
        await job.cancel()
        await bridge.assert_is_well()


async def test_a_stalled_reader_does_not_delay_a_time_limit() -> None:
    """A time-out while a send is stuck ends the job in time, and cuts no frame: who reads on finds its ending."""

    async def chatter(job: JobContext) -> None:
        while True:
            await job.send("x" * 20_000)
            await trio.lowlevel.checkpoint()

    retention = jobtrio.Retention(tokens_per_job=1000)
    async with open_bridge(limits=brief(send=90), retention=retention) as bridge:
        job = await bridge.registry.submit(chatter, time_limit=0.3)
        async with connected(bridge.port, f"/jobs/{job.id}", receive_buffer=4096) as client:
            with trio.fail_after(60):  # long before the client would be cut off
                await job.wait()
            heard = await client.hear_all()
            check_stream(heard[1:-1])
            assert heard[-2]["outcome"]["error"]["kind"] == "timeout"
            assert heard[-1].code == 4012
            await client.send(close_frame())
        await bridge.assert_is_well()


async def test_eviction_during_a_replay(bridge: Bridge) -> None:
    """A client that replays slowly while the beginning is dropped is told of each hole, and loses nothing else."""

    async def chatter(job: JobContext) -> int:
        for n in range(1, 10_001):
            await job.send([n, "x" * 1000])
            if n % 100 == 0:
                await trio.sleep(0.001)
        return n

    job = await bridge.registry.submit(chatter)
    async with connected(bridge.port, f"/jobs/{job.id}", receive_buffer=4096) as client:
        heard: list[Any] = []
        while not (heard and isinstance(heard[-1], Frame)):
            heard.append(await client.hear())
            if len(heard) < 50:
                await trio.sleep(0.005)
        items = check_stream(heard[1:-1])
        await client.send(close_frame())
    assert any(message["type"] == "gap" for message in heard[1:-1])
    assert all(number == seq for seq, (number, _) in _numbered(heard[1:-1]))
    assert items[-1][0] == 10_000
    assert heard[-2]["outcome"]["result"] == 10_000


def _numbered(messages: list[Any]) -> list[tuple[int, Any]]:
    return [
        (seq, item)
        for message in messages
        if message["type"] == "events"
        for seq, item in enumerate(message["items"], message["seq"])
    ]


async def test_subscribing_exactly_at_the_end(bridge: Bridge) -> None:
    """Clients that come while a job ends have all of it and one ending, whichever moment they came at."""

    async def brief_job(job: JobContext) -> str:
        for n in range(50):
            await job.send(n)
            await trio.sleep(0.001)
        return "done"

    job = await bridge.registry.submit(brief_job)
    endings: list[Any] = []

    async def watch(delay: float, after: str) -> None:
        await trio.sleep(delay)
        async with connected(bridge.port, f"/jobs/{job.id}?after={after}") as client:
            heard = await client.hear_all()
            first = heard[0]
            check_stream(heard[1:-1], after=0 if after == "0" else heard[1].get("seq", 0) - 1)
            assert first["type"] == "subscribed"
            endings.append((heard[-2]["outcome"], heard[-1].code))
            await client.send(close_frame())

    async with trio.open_nursery() as nursery:
        for n in range(60):
            nursery.start_soon(watch, n * 0.002, "end" if n % 2 else "0")
    assert endings == [({"type": "completed", "result": "done"}, 1000)] * 60


async def test_a_token_that_is_larger_than_a_message_may_be(bridge: Bridge) -> None:
    """A large token goes alone and whole, between small ones."""

    async def send(job: JobContext) -> int:
        for size in (1, 3_000_000, 1, 100_000, 70_000, 1):
            await job.send("x" * size)
        return 0

    job = await bridge.registry.submit(send)
    await job.wait()
    for suffix in ("", "?format=text"):
        async with connected(bridge.port, f"/jobs/{job.id}{suffix}") as client:
            sizes = []
            while (got := await client.next()) is not None and got.opcode == TEXT:
                if suffix:
                    sizes.append(len(got.payload))
                elif got.message["type"] == "events":
                    sizes.append(sum(len(item) for item in got.message["items"]))
            assert sizes in ([1, 3_000_000, 1, 100_000, 70_000, 1], [1, 3_000_000, 1, 100_000, 70_001])
            await client.send(close_frame())


async def test_what_cannot_be_encoded(bridge: Bridge) -> None:
    """Tokens and results that JSON can't hold arrive as their repr, in their places."""

    async def send(job: JobContext) -> Any:
        loop: list[Any] = []
        loop.append(loop)
        for token in (1, float("nan"), 2, object, "\ud800", loop, 3):
            await job.send(token)
        return {1j}

    job = await bridge.registry.submit(send)
    async with connected(bridge.port, f"/jobs/{job.id}") as client:
        heard = await client.hear_all()
        items = check_stream(heard[1:-1])
        assert items[::2] == [1, 2, {"repr": "'\\ud800'"}, 3]
        assert [list(item) for item in items[1::2]] == [["repr"]] * 3
        assert heard[-2]["outcome"] == {"type": "completed", "result": {"repr": "{1j}"}}
        await client.send(close_frame())


@pytest.mark.parametrize("how", ["hangs", "raises", "raises a group", "panics"])
async def test_authenticate_that_fails_for_many(how: str) -> None:
    """A hook that hangs or raises for one client harms no other."""

    async def authenticate(handshake: Handshake) -> Any:
        if handshake.token == "good":
            return "ann"
        if how == "hangs":
            await trio.sleep_forever()
        if how == "raises":
            raise KeyError("no")
        if how == "panics":
            raise BaseException("no")
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])

    async with open_bridge(authenticate=authenticate, limits=brief(handshake=2 if how == "hangs" else 60)) as bridge:
        job = await bridge.registry.submit(words, "a b")
        codes: list[int | None] = []

        async def visit(path: str) -> None:
            async with connected(bridge.port, path, "Authorization: Bearer bad") as client:
                codes.append(await client.until_closed())
                await client.send(close_frame())

        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(visit, "/ws" if n % 2 else f"/jobs/{job.id}")
        assert set(codes) <= {4401, 4408}
        assert len(codes) == 40
        async with connected(bridge.port, f"/jobs/{job.id}", "Authorization: Bearer good") as client:
            assert (await client.hear_all())[-2]["outcome"]["result"] == 2
            await client.send(close_frame())
        await bridge.assert_is_left()


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"not JSON"),
        frame(TEXT, b"[]"),
        frame(TEXT, b"5"),
        frame(TEXT, b'{"type":"ping","id":[]}'),
        frame(TEXT, b"[" * 10_000 + b"]" * 10_000),
        frame(TEXT, b'{"type":"get","job":' * 2_000),
        frame(TEXT, b'{"type":"subscribe","job":"x","after":NaN}'),
        frame(TEXT, b'{"type":"subscribe","job":"x","after":' + b"9" * 10_000 + b"}"),
        frame(TEXT, b'{"type":"get","job":"\\ud800"}'),
        frame(TEXT, b'{"type":"get","job":"\\u0000"}'),
        frame(TEXT, b'{"type":"get","type":"get","job":"a","job":"b"}'),
        frame(TEXT, b'{"type":"submit","executor":"hidden"}'),
        frame(BINARY, b'{"type":"ping"}'),
        frame(BINARY, bytes(range(256))),
    ],
    ids=lambda data: "",  # the masks are drawn anew in every process
)
async def test_messages_that_make_no_sense(bridge: Bridge, data: bytes) -> None:
    """A message that makes no sense is answered by an error, and the connection goes on."""
    async with connected(bridge.port, "/ws") as client:
        await client.hear()
        await client.send(data)
        with trio.fail_after(60):
            assert (await client.hear())["type"] == "error"
            await client.say({"type": "ping", "id": 1})
            assert await client.hear() == {"type": "pong", "id": 1}
        await client.send(close_frame())


async def test_a_subscribe_storm(bridge: Bridge) -> None:
    """A client that subscribes thousands of times is slowed, refused, and closed with when to come back."""
    job = await bridge.registry.submit(hang)
    storm = b"".join(
        frame(TEXT, json.dumps({"type": "subscribe", "id": n, "job": job.id}).encode()) for n in range(2000)
    )
    async with connected(bridge.port, "/ws") as client:
        try:
            await client.send(storm)
        except trio.BrokenResourceError:
            pass
        with trio.fail_after(60):
            heard = await client.hear_all()
        kinds = [message.get("code", message["type"]) for message in heard[1:-1]]
        assert kinds[:32] == ["subscribed"] * 32
        assert set(kinds[32:]) == {"too_many_subscriptions", "rate"}
        assert isinstance(heard[-1], Frame)
        assert heard[-1].code == 4429
        assert 0 < json.loads(heard[-1].reason)["retry_after"] < 2
        await client.send(close_frame())


@pytest.mark.parametrize("is_cut", [True, False])
async def test_leaving_while_a_request_takes_its_time(is_cut: bool) -> None:
    """What a client has asked for is given up some time after it has left: nobody waits for it any more."""
    asked = 0

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        nonlocal asked
        asked += 1
        await trio.sleep(0.02)
        return False

    limits = brief(heartbeat=0.2)
    async with open_bridge(authenticate=known, authorize=authorize, limits=limits) as bridge:
        for _ in range(500):
            await bridge.registry.submit(hang, delay=1000)
        async with connected(bridge.port, "/ws", "Authorization: Bearer ok-a") as client:
            await client.hear()
            await client.say({"type": "find", "id": 1})
            await until(lambda: asked > 0)
            if is_cut:
                client.reset()
            else:
                await client.send(close_frame())
        await bridge.assert_is_left()
        assert asked < 500
        await bridge.registry.shutdown()


async def test_cancel_racing_completion() -> None:
    """Whether a cancel was in time is told by its answer, and the one ending says the same."""
    async with open_bridge(authenticate=known) as bridge:

        async def short(job: JobContext) -> int:
            await trio.sleep(job.payload)
            return 1

        jobs = [await bridge.registry.submit(short, n % 5 / 200) for n in range(40)]
        async with connected(bridge.port, "/ws", "Authorization: Bearer ok-a") as client:
            answers, endings = {}, {}
            await client.hear()
            for n, job in enumerate(jobs):
                await client.say({"type": "cancel", "id": n, "job": job.id})
                answers[n] = (await client.hear())["cancelled"]
            await trio.sleep(1)
            for n, job in enumerate(jobs[:30]):
                await client.say({"type": "subscribe", "id": n, "job": job.id})
                assert (await client.hear())["type"] == "subscribed"
                endings[n] = (await client.hear())["outcome"]["type"]
                if n % 10 == 9:
                    await trio.sleep(0.5)  # not to be too fast
            await client.send(close_frame())
        assert {n: "cancelled" if answers[n] else "completed" for n in endings} == endings
        await bridge.registry.shutdown()


async def test_cut_at_every_message(bridge: Bridge) -> None:
    """A client that is cut off behind any message, and comes back, misses nothing and gets nothing twice."""

    async def work(job: JobContext) -> str:
        for n in range(6):
            await job.send(n)
            job.progress(n)
        if job.attempt == 1:
            raise ValueError
        return "done"

    job = await bridge.registry.submit(work, retry=RetryPolicy(2, initial=0))
    await job.wait()
    async with connected(bridge.port, f"/jobs/{job.id}") as client:
        whole = (await client.hear_all())[:-1]
        await client.send(close_frame())
    epoch = whole[0]["epoch"]
    for cut in range(1, len(whole)):
        got, after = [], 0
        async with connected(bridge.port, f"/jobs/{job.id}") as client:
            for _ in range(cut):
                message = await client.hear()
                if message["type"] != "subscribed":
                    got.append(message)
                    after = message["seq"] + len(message.get("items", "x")) - 1
            client.reset()
        async with connected(bridge.port, f"/jobs/{job.id}?after={after}&epoch={epoch}") as client:
            got += (await client.hear_all())[1:-1]
            await client.send(close_frame())
        assert got == whole[1:]


async def test_a_restart_in_memory() -> None:
    """After a restart without a store, an old cursor is never served from another stream."""
    async with open_bridge() as bridge:
        job = await bridge.registry.submit(words, "a b", job_id="mine")
        async with connected(bridge.port, "/jobs/mine") as client:
            epoch = (await client.hear())["epoch"]
            await client.hear_all()
        await job.wait()
    async with open_bridge() as bridge:
        async with connected(bridge.port, f"/jobs/mine?after=2&epoch={epoch}") as client:
            assert await client.until_closed() == 4404
        await bridge.registry.submit(words, "c d e", job_id="mine")
        async with connected(bridge.port, f"/jobs/mine?after=2&epoch={epoch}") as client:
            heard = await client.hear_all()
            assert (heard[0]["code"], heard[-1].code) == ("wrong_epoch", 4409)


WATCHERS = int(os.environ.get("JOBTRIO_WATCHERS", "1000"))
"""How many watch at once: as many as may be connected by default."""


@pytest.mark.once
@pytest.mark.timeout(WATCHERS / 2)  # they and their server are one process, on a machine that may be busy
async def test_many_watchers_of_whom_some_stall() -> None:
    """Of many clients every tenth stops reading: the job goes on to its end, and the others have all of it."""
    count, watchers = 20, WATCHERS
    limits = Limits(handshake=60, send=10, closing=60, heartbeat=600)  # who stalls answers no ping
    async with open_bridge(limits=limits, flush_interval=0.05) as bridge:
        start, cut_off = trio.Event(), trio.Event()

        async def chatter(job: JobContext) -> int:
            await start.wait()
            for n in range(count):
                await job.send([n, "x" * 10_000])
                await trio.sleep(0.02)
            return count

        job = await bridge.registry.submit(chatter)
        served: list[int] = []

        async def watch(n: int, stalls: bool) -> None:
            async with connected(bridge.port, f"/jobs/{job.id}", receive_buffer=4096 if stalls else None) as client:
                if stalls:
                    await cut_off.wait()
                    return
                items: list[Any] = []
                while not isinstance(message := await client.hear(), Frame):
                    items += message.get("items", ())
                assert message.code == 1000
                assert [number for number, _ in items] == list(range(count))
                served.append(n)
                await client.send(close_frame())

        before = resident()
        with trio.fail_after(WATCHERS / 3):
            async with trio.open_nursery() as nursery:
                for n in range(watchers):
                    nursery.start_soon(watch, n, n % 10 == 0)
                while bridge.server.stats().subscriptions < watchers:  # noqa: ASYNC110 - it tells nobody
                    await trio.sleep(0.05)
                start.set()
                await job.wait()
                await until(lambda: bridge.server.stats().dropped == {"too slow": watchers // 10})
                cut_off.set()
        assert len(served) == watchers - watchers // 10
        assert resident() - before < watchers * MEGABYTE / 2
        await bridge.assert_is_well()


@pytest.fixture
def no_low_numbers_free() -> Iterator[None]:
    """Take the numbers that descriptors left free in earlier tests, so that new ones get higher ones than all."""
    taken = [os.dup(0) for _ in range(256)]
    yield
    for number in taken:
        os.close(number)


@pytest.mark.usefixtures("no_low_numbers_free")
async def test_no_descriptors_left(bridge: Bridge) -> None:
    """When the process has no descriptors left, clients wait or are lost; later ones are served."""
    sockets = [trio.socket.socket() for _ in range(40)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (sockets[-1].fileno() + 5, hard))
        for sock in sockets:
            with trio.move_on_after(1):
                await sock.connect(("127.0.0.1", bridge.port))
        await trio.sleep(0.3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in sockets:
            sock.close()


@pytest.mark.usefixtures("no_low_numbers_free")
async def test_few_descriptors(bridge: Bridge, caplog: pytest.LogCaptureFixture) -> None:
    """Clients that there are too few descriptors for are turned down, which is said once."""
    sockets = [trio.socket.socket() for _ in range(2)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (sockets[-1].fileno() + 4, hard))
        for sock in sockets:
            await sock.connect(("127.0.0.1", bridge.port))
            assert await sock.recv(1) == b""
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in sockets:
            sock.close()
    (said,) = caplog.messages
    assert said.startswith("no room for a client: ")
    await bridge.assert_is_well()


async def test_a_client_of_every_kind_at_once(bridge: Bridge) -> None:
    """Good and bad clients together: the good ones are served."""
    bad = [
        request("/ws") + frame(TEXT, b"x"),
        request("/ws", "Host: \xff", drop=["Host"]),
        b"\x00" * 100,
        request("/jobs/none"),
        request("/nowhere"),
    ]

    async def misbehave(n: int) -> None:
        async with raw_client(bridge.port) as client:
            try:
                await client.send(bad[n % len(bad)])
                await client.answer()
                await client.send(frame(n % 16, b"x" * n))
            except trio.BrokenResourceError:
                return
            if n % 2:
                client.reset()

    async with trio.open_nursery() as nursery:
        for n in range(100):
            nursery.start_soon(misbehave, n)
            if n % 10 == 0:
                nursery.start_soon(bridge.assert_is_well)
