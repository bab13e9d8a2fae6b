"""The web applications of the docs, served by Hypercorn on Trio: what is said of them, and a page in a browser."""

from __future__ import annotations

import importlib.util
import json
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import hypercorn.trio
import pytest
import trio
from browser import open_browser
from cutting_proxy import open_proxy
from hypercorn import Config
from patience import until

import jobtrio
import jobtrio.websocket
from docs.tools import web
from jobtrio._nursery import open_background_nursery
from jobtrio.websocket import RemoteJob, open_client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from types import ModuleType

    OpenSite = Callable[..., AbstractAsyncContextManager["Site"]]


@attrs.define
class Site:
    """The application, where it is served, and what is inside."""

    app: ModuleType
    port: int
    registry: jobtrio.JobRegistry
    subscriptions: list[jobtrio.Subscription]
    stop: trio.Event

    async def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
        """Return the status and the whole body of an answer."""
        return await trio.to_thread.run_sync(partial(web.ask, self.port, method, path, body, **headers))

    async def submit(self, text: str = "to be or not") -> jobtrio.Job:
        """Submit a job as a client does, and return it."""
        status, body = await self.ask("POST", "/jobs", json.dumps({"text": text}))
        assert status == 202
        return await self.registry.get(json.loads(body)["id"])

    async def cancel(self, job: jobtrio.Job) -> Any:
        """Cancel a job as a client does, and return the answer."""
        status, body = await self.ask("DELETE", f"/jobs/{job.id}")
        assert status == 200
        return json.loads(body)

    async def watch(self, job: jobtrio.Job) -> trio.SocketStream:
        """Return a connection on which the job's stream is asked for."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        await stream.send_all(f"GET /jobs/{job.id}/events HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        return stream


@pytest.fixture(params=["app", "quart_app"])
def open_site(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> OpenSite:
    """Return what serves an application."""
    monkeypatch.setattr(sys, "path", [str(web.FOLDER), *sys.path])
    return partial(served, monkeypatch, web.FOLDER / f"{request.param}.py")


@asynccontextmanager
async def served(monkeypatch: pytest.MonkeyPatch, example: Path, **registry_options: Any) -> AsyncIterator[Site]:
    """Serve an application within the block, which may take four minutes, for a browser's sake."""
    registries = []
    subscriptions = []
    open_registry, subscribe = jobtrio.open_registry, jobtrio.Job.subscribe

    @asynccontextmanager
    async def opened() -> AsyncIterator[jobtrio.JobRegistry]:
        async with open_registry(**registry_options) as registry:
            registries.append(registry)
            yield registry

    def subscribed(*args: Any, **options: Any) -> jobtrio.Subscription:
        subscriptions.append(subscribe(*args, **options))
        return subscriptions[-1]

    monkeypatch.setattr(jobtrio, "open_registry", opened)
    monkeypatch.setattr(jobtrio.Job, "subscribe", subscribed)
    spec = importlib.util.spec_from_file_location("web_example", example)
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    config.graceful_timeout = 0
    stop = trio.Event()
    with trio.fail_after(240):
        async with open_background_nursery() as nursery:
            serve = partial(hypercorn.trio.serve, app.app, config, shutdown_trigger=stop.wait)
            (url,) = await nursery.start(serve)
            yield Site(app, int(url.rpartition(":")[2]), registries[0], subscriptions, stop)


async def read_to(stream: trio.SocketStream, end: str) -> str:
    """Return what is received up to a text."""
    received = ""
    while end not in received:
        part = await stream.receive_some()
        assert part, f"no {end!r} in {received!r}"
        received += part.decode()
    return received


def events(body: str) -> list[tuple[int, str, Any]]:
    """Return number, kind and data of each event of a whole stream."""
    parts = [dict(line.split(": ", 1) for line in part.splitlines()) for part in body.strip().split("\n\n")]
    return [(int(part["id"]), part["event"], json.loads(part["data"])) for part in parts]


async def test_the_bridge_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The application's page may watch what it submits, and no more; who watches is told the end when all stops."""
    monkeypatch.setattr(jobtrio.websocket, "serve", partial(jobtrio.websocket.serve, port=0))
    async with served(monkeypatch, web.FOLDER / "bridge_app.py") as site:
        assert "new WebSocket(url" in (await site.ask("GET", "/"))[1]

        async def submit(payload: Any) -> tuple[str, str]:
            status, body = await site.ask("POST", "/jobs", json.dumps(payload))
            assert status == 202
            server, _, job_id = json.loads(body)["url"].partition("/jobs/")
            return server, job_id

        server, job_id = await submit({"text": "to be"})
        handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec_WebSocket_Version": "13"}
        handshake["Sec_WebSocket_Key"] = "x3JJHMbDL1EzLkh9GBhXDw=="
        for origin, status in ((site.app.ORIGIN, 101), ("http://elsewhere", 403)):
            ask = partial(web.ask, int(server.rpartition(":")[2]), "GET", f"/jobs/{job_id}", Origin=origin, **handshake)
            assert (await trio.to_thread.run_sync(ask))[0] == status
        async with open_client(f"{server}/ws") as client:
            with pytest.raises(jobtrio.UnknownJobError):
                await client.get(job_id)
            assert await client.find() == []
            assert await RemoteJob(job_id, client).result() == 2

            async def hang(job: jobtrio.JobContext) -> None:
                await job.send("begun")
                await job.stopping.wait()

            monkeypatch.setattr(site.app, "generate", hang)
            _, job_id = await submit(None)
            with client.subscribe(job_id) as messages:
                assert isinstance(await messages.receive(), jobtrio.Token)
                site.stop.set()
                end = await messages.receive()
            assert isinstance(end, jobtrio.End)
            assert end.outcome == jobtrio.Cancelled("shutdown")


async def test_every_kind_of_message(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no longer kept, a restart and progress are events of their own, whose numbers one can come back with."""

    async def executor(job: jobtrio.JobContext) -> str:
        if job.attempt == 1:
            for line in ("one", "two\n\ntwo", "three", "four"):
                await job.send(line)
            job.progress(1, 2)
            raise jobtrio.RetryLater(0, "the connection broke")
        return "done"

    async with open_site(retention=jobtrio.Retention(tokens_per_job=4)) as site:
        monkeypatch.setattr(site.app, "generate", executor)
        job = await site.submit()
        await job.wait()
        path = f"/jobs/{job.id}/events"
        status, body = await site.ask("GET", path)
        assert status == 200
        expected = [
            (2, "gap", {"first": 1, "last": 2}),
            (3, "token", "three"),
            (4, "token", "four"),
            (5, "progress", {"done": 1, "total": 2}),
            (6, "restart", {"error": "RetryLater: the connection broke"}),
            (7, "end", {"completed": "done"}),
        ]
        assert events(body) == expected
        for number in range(2, 7):
            _, body = await site.ask("GET", path, Last_Event_ID=str(number))
            assert events(body) == expected[number - 1 :]
        assert await site.ask("GET", path, Last_Event_ID="7") == (204, "")


async def test_line_breaks_are_harmless(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of several lines is one event, and one that looks like an end is a token."""
    values = ["one\n\ntwo\r\nthree", 'event: end\ndata: {"completed": 1}', "[DONE]", "ж"]

    async def executor(job: jobtrio.JobContext) -> None:
        for value in values:
            await job.send(value)
        raise OSError("no such file")

    async with open_site() as site:
        monkeypatch.setattr(site.app, "generate", executor)
        job = await site.submit()
        _, body = await site.ask("GET", f"/jobs/{job.id}/events")
        tokens = [(number, "token", value) for number, value in enumerate(values, 1)]
        assert events(body) == [*tokens, (5, "end", {"failed": "OSError: no such file"})]


async def test_cancel(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cancels is answered at once, and who watches is told by the end."""
    async with open_site() as site:
        job = await site.submit("to be or not " * 1000)
        async with await site.watch(job) as stream:
            await read_to(stream, "event: token")
            assert await site.cancel(job) == {"cancelled": True}
            await read_to(stream, '{"cancelled": "no longer wanted"}')
        await job.wait()
        assert await site.cancel(job) == {"cancelled": False}


async def test_refusals(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes no sense is refused with a status that says so."""
    async with open_site() as site:
        job = await site.submit("")
        await job.wait()
        path = f"/jobs/{job.id}/events"
        assert (await site.ask("GET", path, Last_Event_ID="2"))[0] == 400
        assert (await site.ask("GET", path, Last_Event_ID="-1"))[0] == 400
        assert (await site.ask("GET", path, Last_Event_ID="one"))[0] == 400
        assert (await site.ask("POST", "/jobs", "no JSON"))[0] == 400
        assert (await site.ask("GET", "/jobs/unknown/events"))[0] == 404
        assert (await site.ask("DELETE", "/jobs/unknown"))[0] == 404
        await site.registry.shutdown()
        assert (await site.ask("POST", "/jobs", "{}"))[0] == 503


async def test_client_leaves_while_nothing_is_sent(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a client goes, its subscription is closed, and the job goes on."""
    done = trio.Event()

    async def executor(job: jobtrio.JobContext) -> None:
        await job.send("here")
        await done.wait()

    async with open_site() as site:
        monkeypatch.setattr(site.app, "generate", executor)
        job = await site.submit()
        async with await site.watch(job) as stream:
            await read_to(stream, "here")
        await until(lambda: is_closed(site.subscriptions[0]))
        assert job.state == "RUNNING"
        done.set()
        assert await job.wait() == jobtrio.Completed(None)


async def test_client_leaves_in_the_middle_of_a_send(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that reads nothing and then goes holds up nobody, and its subscription is closed, too."""

    async def executor(job: jobtrio.JobContext) -> None:
        for _ in range(64):
            await job.send("x" * 2**18)

    async with open_site() as site:
        monkeypatch.setattr(site.app, "generate", executor)
        job = await site.submit()
        async with await site.watch(job):
            assert await job.wait() == jobtrio.Completed(None)
            await until(lambda: bool(site.subscriptions) and site.subscriptions[0].position > 0)
            assert not is_closed(site.subscriptions[0])
        await until(lambda: is_closed(site.subscriptions[0]))


async def test_signs_of_life(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a job sends nothing, comments come, and no message is lost by them."""
    more = trio.Event()

    async def executor(job: jobtrio.JobContext) -> None:
        await more.wait()
        await job.send("here")

    async with open_site() as site:
        monkeypatch.setattr(site.app, "generate", executor)
        monkeypatch.setattr(site.app, "SIGN_OF_LIFE", 0.01)
        job = await site.submit()
        async with await site.watch(job) as stream:
            await read_to(stream, ":\n\n")
            await read_to(stream, ":\n\n")
            more.set()
            await read_to(stream, "event: end")


async def test_server_stops(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the server stops, jobs have their grace and watchers are cut off, which does not look like an end."""
    asked = trio.Event()
    shutdown = jobtrio.JobRegistry.shutdown
    room = 0.0

    async def shut_down(registry: jobtrio.JobRegistry, *, grace: float) -> None:
        nonlocal room
        room = trio.current_effective_deadline() - trio.current_time() - grace
        await shutdown(registry, grace=grace)

    async def executor(job: jobtrio.JobContext) -> str:
        await job.send("here")
        await job.stopping.wait()
        asked.set()
        return "a part"

    monkeypatch.setattr(jobtrio.JobRegistry, "shutdown", shut_down)
    async with open_site() as site:
        monkeypatch.setattr(site.app, "generate", executor)
        job = await site.submit()
        async with await site.watch(job) as stream:
            await read_to(stream, "here")
            site.stop.set()
            rest = b""
            while part := await stream.receive_some():
                rest += part
            assert b"event: end" not in rest
            assert not rest.endswith(b"0\r\n\r\n")
        assert await job.wait() == jobtrio.Cancelled("shutdown")
        assert asked.is_set()
        assert room > 0  # nothing around it ends the grace before it is over
        assert is_closed(site.subscriptions[0])


@pytest.mark.parametrize("open_site", ["app"], indirect=True)
async def test_page_in_a_browser(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page shows each token once, also when its connection is cut in between, and then the outcome."""
    more = trio.Event()

    async def executor(job: jobtrio.JobContext) -> str:
        for word in ("to", "be", "or"):
            await job.send(word)
        await more.wait()
        await job.send("not")
        return "done"

    async with open_site() as site, open_proxy(site.port) as proxy, open_browser() as browser:
        monkeypatch.setattr(site.app, "generate", executor)
        page = await browser.new_page()
        await page.open(f"http://127.0.0.1:{proxy.port}/")
        await page.value("form.requestSubmit()")
        await page.wait_for("out.textContent === 'to be or '")
        proxy.cut_all()
        more.set()
        await page.wait_for('state.textContent === \'{"completed":"done"}\'')
        assert await page.text("#out") == "to be or not "
        assert await page.value("stop.hidden")
        more = trio.Event()
        await page.value("form.requestSubmit()")
        await page.wait_for("out.textContent === 'to be or '")
        first = await page.value("source.url")
        await page.value("form.requestSubmit()")  # and watches the second job alone
        await page.wait_for(f"source.url !== '{first}' && out.textContent === 'to be or '")
        more.set()
        await page.wait_for('state.textContent === \'{"completed":"done"}\'')
        assert await page.text("#out") == "to be or not "


def is_closed(subscription: jobtrio.Subscription) -> bool:
    """Whether a subscription was left."""
    try:
        subscription.receive_nowait()
    except trio.ClosedResourceError:
        return True
    except (trio.WouldBlock, trio.EndOfChannel):
        pass
    return False
