"""The bridge and its clients, ours and others', over real connections."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import websockets.sync.client
from bridge_jobs import TOKEN, Bridge, open_bridge_with_jobs

import jobtrio
from jobtrio import Cancelled, Completed, End, Failed, Gap, LaggedError, Progress, Restart, Token
from jobtrio._nursery import open_background_nursery
from jobtrio.websocket import Limits, Server, ServerRefusedError, _client_feed, open_client, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.once

NODE_MODULES = os.environ.get("JOBTRIO_NODE_MODULES")
"""A folder with the packages ws and wscat, where the clients for Node are to be tested; .ci/run makes one."""

needs_node = pytest.mark.skipif(NODE_MODULES is None, reason="JOBTRIO_NODE_MODULES does not say where ws and wscat are")


@pytest.fixture
async def bridge() -> AsyncIterator[Bridge]:
    """Return a bridge whose clients need the token."""
    async with open_bridge_with_jobs() as bridge:
        yield bridge


# -- our own


async def test_as_in_process(bridge: Bridge) -> None:
    """A job's messages are the same at a client as in the server's process, whatever they are."""
    async with open_client(bridge.url, token=TOKEN) as client:
        job = await client.submit("stumble", key="k", tags={"user": "ann"}, metadata={"n": [1, None]})
        here = await bridge.registry.get(job.id)
        seen = [message async for message in job.subscribe()]
        assert seen == [message async for message in here.subscribe()]
        assert [type(message) for message in seen] == [Progress, Token, Restart, Progress, Token, End]
        assert await job.refresh() == here.record
        assert job.record == here.record
        assert (await client.submit("stumble", key="k")).id == job.id
        assert await client.find(tags={"user": "ann"}, state="FAILED") == [here.record]  # type: ignore[arg-type]
        assert await client.find(tags={"user": "bob"}) == []
        assert await client.find(key="k") == [record async for record in client.find_all(key="k")] == [here.record]
        assert await client.find(key="other") == []


async def test_all_jobs(bridge: Bridge) -> None:
    """All jobs that match are found, over several pages, as in process."""
    async with open_client(bridge.url, token=TOKEN) as client:
        for n in range(230):
            await bridge.registry.submit("echo", n, tags={"even": str(n % 2 == 0)})
        await bridge.registry.drain()
        every = [record async for record in bridge.registry.find_all()]
        assert len(every) == 230
        assert [record async for record in client.find_all()] == every
        assert [record async for record in client.find_all(newest_first=True)] == every[::-1]
        assert [record async for record in client.find_all(tags={"even": "True"})] == every[::2]
        assert [record async for record in client.find_all(state=[jobtrio.JobState.FAILED])] == []
        async for record in client.find_all(tags={"even": "False"}):
            await bridge.registry.remove(record.id)
        assert [record async for record in client.find_all()] == every[::2]


async def test_outcomes(bridge: Bridge) -> None:
    """A job's outcome is awaited, and its result unwrapped, as in process."""
    async with open_client(bridge.url, token=TOKEN) as client:
        job = await client.submit("echo", {"a": [1, 2.5, "ü", None, True]})
        assert await job.result() == {"a": [1, 2.5, "ü", None, True]}
        assert [token async for token in (await client.submit("count", [3, 0])).tokens()] == [1, 2, 3]
        failed = await client.submit("stumble")
        with pytest.raises(jobtrio.JobFailedError, match="attempt 2"):
            await failed.result()
        with pytest.raises(jobtrio.JobFailedError):
            [token async for token in failed.tokens()]
        late = await client.submit("hang", time_limit=0.05)
        outcome = await late.wait()
        assert isinstance(outcome, Failed)
        assert outcome.error.kind == "timeout"
        hanging = await client.submit("hang")
        async with hanging.subscribe() as messages:
            assert await messages.receive() == Token(1, 1, "here")
            assert await hanging.cancel("enough") is True
            assert await messages.receive() == End(2, Cancelled("enough"))
        assert await hanging.cancel() is False
        with pytest.raises(jobtrio.JobCancelledError, match="enough"):
            await hanging.result()


async def test_begun_at_the_end(bridge: Bridge) -> None:
    """What begins at the end knows how far the job was there, without what was sent before."""

    async def work(job: jobtrio.JobContext) -> None:
        await job.send("a")
        job.progress(1, 2, "half")
        await stop.wait()

    stop = trio.Event()
    job = await bridge.registry.submit(work)
    while (await job.span()).progress is None:
        await trio.lowlevel.checkpoint()
    async with open_client(bridge.url, token=TOKEN) as client:
        with client.subscribe(job.id, "end") as messages:
            assert messages.progress is None
            while messages.epoch is None:  # noqa: ASYNC110 - nothing tells when the server has answered
                await trio.sleep(0.001)
            stop.set()
            assert await messages.receive() == End(3, Completed(None))
            assert messages.progress == Progress(2, 1, 1, 2, "half")


async def test_places(bridge: Bridge) -> None:
    """A stream can be begun anywhere, and what is beyond it is an error."""
    job = await bridge.registry.submit("count", [5, 0])
    await job.wait()
    async with open_client(bridge.url, token=TOKEN) as client:
        assert [m.seq async for m in client.subscribe(job.id, 3) if not isinstance(m, Gap)] == [4, 5, 6]
        assert [message async for message in client.subscribe(job.id, "end")] == [End(6, Completed(5))]
        assert [message async for message in client.subscribe(job.id, 5)] == [End(6, Completed(5))]
        assert [message async for message in client.subscribe(job.id, 6)] == []
        with pytest.raises(ValueError, match="0 to 6; got 7"):
            await client.subscribe(job.id, 7).receive()
        with client.subscribe(job.id) as messages:
            await messages.receive()
            place = messages.position, messages.epoch
        rest = client.subscribe(job.id, place[0], epoch=place[1])
        assert [m.seq async for m in rest if not isinstance(m, Gap)] == [2, 3, 4, 5, 6]


async def test_messages_no_longer_kept() -> None:
    """What is no longer kept is told as in process."""
    async with open_bridge_with_jobs(retention=jobtrio.Retention(tokens_per_job=3)) as bridge:
        job = await bridge.registry.submit("count", [10, 0])
        await job.wait()
        async with open_client(bridge.url, token=TOKEN) as client:
            messages = client.subscribe(job.id)
            with pytest.raises(LaggedError) as caught:
                await messages.receive()
            assert (caught.value.first, caught.value.last) == (1, 7)
            assert [message async for message in messages] == [
                *(Token(n, 1, n) for n in (8, 9, 10)),
                End(11, Completed(10)),
            ]
            seen = [message async for message in client.subscribe(job.id, 2, on_gap="yield")]
            assert seen[0] == Gap(3, 7)


async def test_what_is_refused(bridge: Bridge) -> None:
    """What the server refuses is raised as the registry would raise it."""
    async with open_client(bridge.url, token=TOKEN) as client:
        with pytest.raises(jobtrio.UnknownJobError, match="'nothing'"):
            await client.get("nothing")
        with pytest.raises(jobtrio.UnknownJobError, match="'nothing'"):
            await client.cancel("nothing")
        with pytest.raises(jobtrio.UnknownJobError, match="'nothing'"):
            await client.subscribe("nothing").receive()
        for name in ("nothing", "secret"):
            with pytest.raises(jobtrio.UnknownExecutorError, match=f"'{name}'"):
                await client.submit(name)
        with pytest.raises(jobtrio.PayloadError, match="at most 65536 bytes"):
            await client.submit("echo", "x" * 70_000)
        with pytest.raises(ValueError, match="expires_in must exceed the delay"):
            await client.submit("echo", delay=2, expires_in=1)
        assert client.is_connected


@pytest.mark.parametrize("token", [None, "close-sesame"])
async def test_strangers(bridge: Bridge, token: str | None) -> None:
    """Who has no token, or a wrong one, gets nothing, and is told so."""
    job = await bridge.registry.submit("echo")
    with pytest.raises(ServerRefusedError, match=r"401|unauthenticated"):
        async with open_client(bridge.url, token=token) as client:
            await client.get(job.id)


async def test_watching_alone() -> None:
    """Without authentication clients watch, and neither submit nor cancel."""
    async with open_bridge_with_jobs(secure=False) as bridge, open_client(bridge.url) as client:
        job = await bridge.registry.submit("hang")
        for call in (client.submit("echo"), client.cancel(job.id)):
            with pytest.raises(ServerRefusedError, match="forbidden"):
                await call
        with client.subscribe(job.id) as messages:
            assert await messages.receive() == Token(1, 1, "here")


async def test_slow_consumer(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that does not read holds up no other, costs no more than its share, and loses nothing."""
    monkeypatch.setattr(_client_feed, "MOST", 100)
    job = await bridge.registry.submit("count", [5000, 0])
    async with open_client(bridge.url, token=TOKEN) as client:
        slow = client.subscribe(job.id)
        await slow.receive()
        for _ in range(3):
            assert len([message async for message in client.subscribe(job.id)]) == 5001
        assert slow._feed._count <= 100 + 256
        rest = [message async for message in slow]
    assert [message.seq for message in rest if not isinstance(message, Gap)] == [*range(2, 5002)]


async def test_as_many_as_the_server_takes(bridge: Bridge) -> None:
    """One client watches as many jobs as the server allows, and one more is refused."""
    most = Limits().subscriptions
    jobs = [await bridge.registry.submit("hang") for _ in range(most + 1)]
    async with open_client(bridge.url, token=TOKEN) as client:
        all_of_them = [client.subscribe(job.id) for job in jobs]
        for messages in all_of_them[:-1]:
            assert await messages.receive() == Token(1, 1, "here")
        with pytest.raises(ServerRefusedError, match="too_many_subscriptions"):
            await all_of_them[-1].receive()


async def test_many_calls(bridge: Bridge) -> None:
    """More calls than the server takes in a second are made one after the other, and none is refused."""
    async with open_client(bridge.url, token=TOKEN) as client, trio.open_nursery() as nursery:
        for n in range(70):
            nursery.start_soon(client.submit, "echo", n)
    assert len(await bridge.registry.find(limit=1000)) == 70


async def test_successor(caplog: pytest.LogCaptureFixture) -> None:
    """A server that shuts down tells its clients, who come back to its successor and go on where they were."""
    gate = trio.Event()

    async def speak(job: jobtrio.JobContext) -> None:
        await job.send(1)
        await gate.wait()
        await job.send(2)

    async def serve_on(port: int, task_status: trio.TaskStatus[tuple[Server, trio.CancelScope]]) -> None:
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve, registry, port=port))
            task_status.started((server, nursery.cancel_scope))

    async with jobtrio.open_registry() as registry, open_background_nursery() as nursery:
        server, scope = await nursery.start(serve_on, 0)
        job = await registry.submit(speak)
        async with open_client(server.url) as client, client.subscribe(job.id) as messages:
            assert await messages.receive() == Token(1, 1, 1)
            scope.cancel()
            with trio.fail_after(60):
                while client.is_connected:  # noqa: ASYNC110 - there is nothing else to wait for
                    await trio.sleep(0.01)
                await nursery.start(serve_on, server.port)
                gate.set()
                assert [message async for message in messages] == [Token(2, 1, 2), End(3, Completed(None))]
    assert "closed with 1012" in caplog.text


# -- others'


def _watch(url: str, token: str | None = None) -> tuple[list[dict[str, Any]], int]:
    """Watch a job with another client; return the messages, and the code of the close."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    with websockets.sync.client.connect(url, additional_headers=headers) as socket:
        messages = [json.loads(text) for text in socket]
        assert socket.close_code is not None
        return messages, socket.close_code


async def test_websockets(bridge: Bridge) -> None:
    """A client of another make sees a job's tail, with no word of its own, and its outcome in the close code."""
    job = await bridge.registry.submit("count", [3, 0.001])
    url = f"{bridge.server.url}/jobs/{job.id}"
    messages, code = await trio.to_thread.run_sync(_watch, url, TOKEN)
    assert code == 1000
    assert messages[0]["type"] == "subscribed"
    assert [item for message in messages if message["type"] == "events" for item in message["items"]] == [1, 2, 3]
    assert messages[-1] == {"type": "end", "seq": 4, "outcome": {"type": "completed", "result": 3}}


def _node(*args: str) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node")
    assert node is not None, "no program called node"
    # Its input stays open, or wscat would leave at once.
    command = [node, *args]
    with subprocess.Popen(["sleep", "60"], stdout=subprocess.PIPE) as open_input:
        try:
            return subprocess.run(
                command, stdin=open_input.stdout, capture_output=True, text=True, timeout=60, check=False
            )
        finally:
            open_input.kill()


@needs_node
async def test_wscat(bridge: Bridge) -> None:
    """wscat, told nothing but the URL, shows the tokens and leaves at the end."""
    job = await bridge.registry.submit("count", [3, 0.001])
    await job.wait()
    async with open_bridge_with_jobs(secure=False) as open_bridge:
        job = await open_bridge.registry.submit("count", [3, 0.001])
        wscat = str(Path(NODE_MODULES or "") / "wscat" / "bin" / "wscat")
        done = await trio.to_thread.run_sync(_node, wscat, "-c", f"{open_bridge.server.url}/jobs/{job.id}?format=text")
    assert done.stdout.replace("\n", "").replace("< ", "") == "123"


SCRIPT = """
const { WebSocket } = require(process.argv[2] + "/ws");
const [url, token] = process.argv.slice(3);
const socket = new WebSocket(url, ["jobtrio.v1", "jobtrio.bearer." + Buffer.from(token).toString("base64url")]);
const seen = [];
socket.on("message", (data) => {
  const message = JSON.parse(data);
  seen.push(message);
  if (message.type === "hello") socket.send(JSON.stringify(
    { type: "submit", id: "é 1", executor: "count", payload: [3, 1], subscribe: true, time_limit: 30 }));
  if (message.type === "end") socket.close(1000);
});
socket.on("close", (code) => console.log(JSON.stringify({ code, protocol: socket.protocol, seen })));
socket.on("error", (error) => console.error(error));
"""


@needs_node
async def test_ws(bridge: Bridge, tmp_path: Path) -> None:
    """The package ws for Node submits a job, with its token as a subprotocol, and sees its stream."""
    (tmp_path / "client.cjs").write_text(SCRIPT)
    done = await trio.to_thread.run_sync(_node, str(tmp_path / "client.cjs"), str(NODE_MODULES), bridge.url, TOKEN)
    assert done.stderr == ""
    said = json.loads(done.stdout)
    assert (said["code"], said["protocol"]) == (1000, "jobtrio.v1")
    hello, submitted, *stream = said["seen"]
    assert hello["proto"] == "jobtrio.v1"
    assert (submitted["type"], submitted["id"]) == ("submitted", "é 1")
    assert [item for message in stream if message["type"] == "events" for item in message["items"]] == [1, 2, 3]
    assert stream[-1]["outcome"] == {"type": "completed", "result": 3}
