"""Conversations over the wire: what a client says is given, what the server answers is what it does answer.

Each is held with a bridge of its own. Ids, epochs and times differ from run to run, and are made the same before
they are shown. It must not know the page.
"""

from __future__ import annotations

import json
import re
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import attrs
import trio
import trio_websocket

import jobtrio
from jobtrio._nursery import open_background_nursery
from jobtrio.websocket import Handshake, Server, serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TOKEN = "open-sesame"
JOB = "0c7f2a5f6d1e4b0f9a4be3b1d5a0c9e2"
OTHER = "51d2ee8a0b3c4f57a86cf0d97e14b3aa"
HOST = "ws://127.0.0.1:8765"
LIMIT = 10.0

MADE_EQUAL = (
    (re.compile(r'"epoch":"[0-9a-f]{16}"'), '"epoch":"6f1b2d9c03a4e587"'),
    (re.compile(r'"\d{4}-\d\d-\d\dT[\d:.]+Z"'), '"2026-01-31T12:00:00.000000Z"'),
    (re.compile(r'"duration":[\d.]+'), '"duration":0.25'),
    (re.compile(r'"key":"[0-9a-f]{32}"'), '"key":"3b9d0a6c5e8f47d2a1c4b7e6f5d80912"'),
)


@attrs.define
class Desk:
    """What a conversation has: the registry, and where its lines go."""

    registry: jobtrio.JobRegistry
    server: Server
    ids: dict[str, str] = attrs.field(factory=dict)
    lines: list[str] = attrs.field(factory=list)

    async def connect(self, path: str, talk: Callable[[Socket], Awaitable[None]] | None = None) -> None:
        """Connect, talk, and write down everything up to the close."""
        shown = re.sub(r"epoch=[0-9a-f]{16}", "epoch=6f1b2d9c03a4e587", path)
        self.lines.append(f"connected to {HOST}{self._equal(shown)}")
        async with trio_websocket.open_websocket_url(f"{self.server.url}{path}") as websocket:
            socket = Socket(self, websocket)
            if talk is not None:
                await talk(socket)
                await websocket.aclose()
                return
            try:
                with trio.fail_after(LIMIT):
                    while True:
                        await socket.hear()
            except trio_websocket.ConnectionClosed as exc:
                self.lines.append(f"closed with {getattr(exc.reason, 'code', None)}")
            await trio.aclose_forcefully(websocket._stream)  # the library leaves it open where the server closed

    def note(self, sign: str, text: str) -> None:
        """Write down a message."""
        for pattern, instead in MADE_EQUAL:
            text = pattern.sub(instead, text)
        self.lines.append(f"{sign} {self._equal(text)}")

    def _equal(self, text: str) -> str:
        for id, instead in self.ids.items():
            text = text.replace(id, instead)
        return text


class Socket:
    """The client's end of a connection."""

    def __init__(self, desk: Desk, websocket: trio_websocket.WebSocketConnection) -> None:
        self._desk = desk
        self._websocket = websocket

    async def hear(self) -> dict[str, Any]:
        """Return the server's next message."""
        with trio.fail_after(LIMIT):
            text = str(await self._websocket.get_message())
        message: dict[str, Any] = json.loads(text) if text.startswith("{") else {}
        if message.get("type") == "submitted":
            self._desk.ids[message["job"]] = JOB
        self._desk.note("<", text)
        return message

    async def say(self, message: dict[str, Any] | str, *, answers: int = 1) -> list[dict[str, Any]]:
        """Say something, and return the messages that come next."""
        text = message if isinstance(message, str) else json.dumps(message, separators=(",", ":"))
        self._desk.note(">", text)
        await self._websocket.send_message(text)
        return [await self.hear() for _ in range(answers)]

    async def hear_end(self) -> None:
        """Take messages up to a stream's end."""
        while (await self.hear())["type"] != "end":
            pass


def make_executors() -> jobtrio.Executors:
    """Return the executors of all conversations."""
    executors = jobtrio.Executors()

    @executors.register("generate", expose=True)
    async def generate(job: jobtrio.JobContext) -> int:
        await trio.sleep(0.05)  # so that whoever submitted it is there
        for word in job.payload["text"].split():
            job.send_nowait(word + " ")
        job.progress(1, 2, "half way")
        return len(job.payload["text"].split())

    @executors.register("stumble", retry=jobtrio.RetryPolicy(max_attempts=2, initial=0.05, jitter=0.0))
    async def stumble(job: jobtrio.JobContext) -> int:
        await job.send({"row": job.attempt})
        if job.attempt == 1:
            raise ValueError("row 2 is empty")
        return 2

    @executors.register("hang")
    async def hang(job: jobtrio.JobContext) -> None:
        await trio.sleep_forever()

    return executors


# -- the conversations


async def submitting(desk: Desk) -> None:
    """A client that says who it is, submits a job, and watches it."""

    async def talk(socket: Socket) -> None:
        await socket.hear()
        await socket.say({"type": "auth", "id": 1, "token": TOKEN})
        payload = {"text": "to be or not"}
        submit = {"type": "submit", "id": 2, "executor": "generate", "payload": payload, "subscribe": True}
        await socket.say(submit)
        await socket.hear_end()

    await desk.connect("/ws", talk)


async def tail(desk: Desk) -> None:
    """A job's tail."""
    await (await desk.registry.submit("stumble", job_id=JOB)).wait()
    await desk.connect(f"/jobs/{JOB}?after=0")


async def text_tail(desk: Desk) -> None:
    """A job's tail as plain text."""
    await (await desk.registry.submit("generate", {"text": "to be or not"}, job_id=JOB)).wait()
    await desk.connect(f"/jobs/{JOB}?format=text")


async def resuming(desk: Desk) -> None:
    """A client that comes back."""
    job = await desk.registry.submit("generate", {"text": "to be or not"}, job_id=JOB)
    await job.wait()

    async def talk(socket: Socket) -> None:
        await socket.hear()
        await socket.say({"type": "auth", "id": 1, "token": TOKEN})
        (subscribed,) = await socket.say({"type": "subscribe", "id": 2, "job": JOB, "after": "end"})
        await socket.hear()
        epoch = subscribed["epoch"]
        await socket.say({"type": "subscribe", "id": 3, "job": JOB, "after": 3, "epoch": epoch})
        await socket.hear_end()
        await socket.say({"type": "subscribe", "id": 4, "job": JOB, "after": 7, "epoch": epoch})
        await socket.say({"type": "subscribe", "id": 5, "job": JOB, "after": 3, "epoch": "another"})

    await desk.connect("/ws", talk)


async def missing(desk: Desk) -> None:
    """Messages that are no longer kept."""
    await (await desk.registry.submit("generate", {"text": "to be or not to be"}, job_id=JOB)).wait()

    async def talk(socket: Socket) -> None:
        await socket.hear()
        await socket.say({"type": "auth", "id": 1, "token": TOKEN})
        await socket.say({"type": "subscribe", "id": 2, "job": JOB})
        await socket.say({"type": "subscribe", "id": 3, "job": JOB, "on_gap": "yield"})
        await socket.hear_end()

    await desk.connect("/ws", talk)


async def asking(desk: Desk) -> None:
    """The other requests."""
    await desk.registry.submit("hang", job_id=JOB, tags={"user": "ann"})

    async def talk(socket: Socket) -> None:
        await socket.hear()
        await socket.say({"type": "auth", "id": 1, "token": TOKEN})
        await socket.say({"type": "get", "id": 2, "job": JOB})
        await socket.say({"type": "find", "id": 3, "tags": {"user": "bob"}})
        await socket.say({"type": "subscribe", "id": 4, "job": JOB})
        await socket.say({"type": "unsubscribe", "id": 5, "sub": 1})
        await socket.say({"type": "cancel", "id": 6, "job": JOB, "reason": "enough"})
        await socket.say({"type": "ping", "id": 7})

    await desk.connect("/ws", talk)


async def refusing(desk: Desk) -> None:
    """What is refused."""

    async def talk(socket: Socket) -> None:
        await socket.hear()
        await socket.say({"type": "get", "id": 1, "job": JOB})
        await socket.say({"type": "auth", "id": 2, "token": TOKEN})
        await socket.say({"type": "get", "id": 3, "job": JOB})
        await socket.say({"type": "submit", "id": "4a", "executor": "hang"})
        await socket.say({"type": "subscribe", "id": 5, "job": 17})
        await socket.say({"type": "dance", "id": 6})
        await socket.say('{"type":')

    await desk.connect("/ws", talk)


CONVERSATIONS = {each.__name__: each for each in (submitting, tail, text_tail, resuming, missing, asking, refusing)}
"""All of them, by the names that the page has."""

OPEN = ("tail", "text_tail")
"""Those with a server that everybody may watch."""

KEPT = {"missing": jobtrio.Retention(tokens_per_job=4)}


@cache
def hold(name: str) -> str:
    """Hold a conversation and return it, a line for each message: ``>`` the client's, ``<`` the server's."""
    return trio.run(_hold, name)


async def _hold(name: str) -> str:
    authenticate = None if name in OPEN else _authenticate
    kept = KEPT.get(name, jobtrio.Retention())
    async with jobtrio.open_registry(make_executors(), retention=kept, worker="desk") as registry:
        async with open_background_nursery() as nursery:
            server = await nursery.start(partial(serve, registry, port=0, authenticate=authenticate))
            desk = Desk(registry, server)
            await CONVERSATIONS[name](desk)
        await registry.shutdown()
    return "\n".join(desk.lines) + "\n"


async def _authenticate(handshake: Handshake) -> str | None:
    return "ann" if handshake.token == TOKEN else None
