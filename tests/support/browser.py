"""Chromium, driven over its DevTools protocol, for tests of pages alone."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio_websocket

from jobtrio._nursery import open_background_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=900,760",
    "--remote-debugging-port=0",
)

LIMIT = 60
"""Seconds that anything may take."""


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def open(self, url: str) -> None:
        """Go to an address."""
        await self._browser.call("Page.navigate", self._session, url=url)
        await self.wait_for("document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is in the page; a promise is waited for."""
        answer = await self._browser.call(
            "Runtime.evaluate", self._session, expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true in the page."""
        looks = f"const look = () => ({condition}) ? done(true) : --tries ? setTimeout(look, 20) : done(false)"
        is_so = await self.value(f"new Promise((done) => {{ let tries = {LIMIT * 50}; {looks}; look(); }})")
        assert is_so, f"{condition} is not so: {await self.value('document.body.innerText')}"

    async def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(await self.value(f"document.querySelector({json.dumps(selector)}).textContent"))

    async def screenshot(self, path: Path) -> None:
        """Write a picture of the page."""
        answer = await self._browser.call("Page.captureScreenshot", self._session)
        await trio.Path(path).write_bytes(base64.b64decode(answer["data"]))


class Browser:
    """A running browser."""

    def __init__(self, socket: trio_websocket.WebSocketConnection) -> None:
        self._socket = socket
        self._ids = count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Condition()

    async def new_page(self) -> Page:
        """Open an empty page."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        return Page(self, attached["sessionId"])

    async def call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        await self._socket.send_message(json.dumps(message))
        with trio.fail_after(2 * LIMIT):
            async with self._arrived:
                while number not in self._answers:
                    await self._arrived.wait()
        answer = self._answers.pop(number)
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def listen(self) -> None:
        """Take answers as they come, until the connection is closed."""
        while True:
            try:
                message = json.loads(await self._socket.get_message())
            except trio_websocket.ConnectionClosed:
                return
            if "id" in message:  # else it is an event
                async with self._arrived:
                    self._answers[message["id"]] = message
                    self._arrived.notify_all()


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    """Start Chromium, within the block.

    Where there is none the test is skipped, or fails if ``JOBTRIO_BROWSER`` is set: to "required", say.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        why = f"no browser: install one of {', '.join(NAMES)} (Debian: apt-get install chromium)"
        assert not os.environ.get("JOBTRIO_BROWSER"), why
        pytest.skip(why)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [program, *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            async with open_background_nursery() as nursery:
                url = await _url(process)
                nursery.start_soon(_drain, process)
                connect = partial(trio_websocket.open_websocket_url, url, max_message_size=2**26)
                async with connect() as socket:
                    browser = Browser(socket)
                    nursery.start_soon(browser.listen)
                    yield browser
                    nursery.cancel_scope.cancel()
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # a killed process is gone at once
                await process.wait()
            assert process.stderr is not None
            await process.stderr.aclose()


async def _url(process: trio.Process) -> str:
    """Return where the browser listens for the DevTools protocol, which it says on stderr."""
    assert process.stderr is not None
    said = b""
    with trio.fail_after(LIMIT):
        while True:
            said += (part := await process.stderr.receive_some())
            assert part, f"the browser ended: {said.decode(errors='replace')}"
            for line in said.split(b"\n")[:-1]:
                if b"DevTools listening on " in line:
                    return line.partition(b"DevTools listening on ")[2].strip().decode()


async def _drain(process: trio.Process) -> None:
    assert process.stderr is not None
    while await process.stderr.receive_some():
        pass


@asynccontextmanager
async def open_pages(folder: Path) -> AsyncIterator[str]:
    """Serve a folder's HTML files on this machine, within the block, and give the origin."""

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                head = (await stream.receive_some()).decode("latin-1")
                path = folder / head.split(" ")[1].partition("?")[0].lstrip("/")
                found = path.suffix == ".html" and path.is_file()
                body = path.read_bytes() if found else b"not here"
                status = "200 OK" if found else "404 Not Found"
                length = f"Content-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\nConnection: close"
                await stream.send_all(f"HTTP/1.1 {status}\r\n{length}\r\n\r\n".encode() + body)
            except (trio.BrokenResourceError, IndexError):
                pass

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with open_background_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
