"""The example pages in a real browser: tokens, progress and outcomes are shown, and a cut connection is no end."""

from __future__ import annotations

import base64
import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from bridge_jobs import TOKEN, Bridge, open_bridge_with_jobs
from browser import Browser, Page, open_browser, open_pages
from cutting_proxy import Cut, open_proxy

from jobtrio import Cancelled
from jobtrio.websocket import CloseCode, Limits
from jobtrio.websocket.protocol import encode_retry_after
from jobtrio.websocket.session import Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"

SCREENSHOTS = os.environ.get("JOBTRIO_SCREENSHOTS")
"""A folder for pictures of the pages, if they are wanted."""

pytestmark = [pytest.mark.once, pytest.mark.timeout(540)]


@attrs.define
class Site:
    """A bridge, the pages that are allowed to connect to it, and a browser."""

    bridge: Bridge
    origin: str
    browser: Browser

    async def open(self, page: str, url: str = "") -> Page:
        """Open one of the pages in a tab of its own."""
        tab = await self.browser.new_page()
        await tab.open(f"{self.origin}/{page}{f'#{url}' if url else ''}")
        return tab

    def url(self, job_id: str, port: int | None = None) -> str:
        """Return the URL of a job's tail."""
        return f"ws://127.0.0.1:{port or self.bridge.server.port}/jobs/{job_id}"


@asynccontextmanager
async def open_site(**options: Any) -> AsyncIterator[Site]:
    async with open_pages(EXAMPLES) as origin:
        options = {"allowed_origins": [origin], "secure": False, **options}
        async with open_bridge_with_jobs(**options) as bridge, open_browser() as browser:
            yield Site(bridge, origin, browser)


async def picture(page: Page, name: str) -> None:
    if SCREENSHOTS:
        await page.screenshot(Path(SCREENSHOTS) / f"{name}.png")


async def wait_end(page: Page, state: str) -> None:
    """Wait until the page shows an end: the reply to its subscription shows the state as well, before the stream."""
    shown = "document.querySelector('#state')"
    await page.wait_for(f"{shown}.textContent === '{state}' && {shown}.className !== ''")


async def test_three_lines() -> None:
    """A page of three lines shows tokens as they come, and how the job ended."""
    async with open_site() as site:
        job = await site.bridge.registry.submit("hang")
        page = await site.open("tail_in_three_lines.html", site.url(job.id))
        await page.wait_for("out.textContent === 'here'")
        await job.cancel()
        await page.wait_for("out.textContent === 'here\\ncancelled'")
        done = await site.bridge.registry.submit("count", [3, 0])
        page = await site.open("tail_in_three_lines.html", site.url(done.id))
        await page.wait_for("out.textContent === '123\\ncompleted'")


async def test_shows_a_job() -> None:
    """The page shows tokens and progress live, and then the outcome."""
    async with open_site() as site:
        gate = trio.Event()

        async def read(job: Any) -> int:
            await job.send("reading <b>rows</b> & more\n")
            await job.send({"row": 1})
            await job.send({"stderr": "row 2 is odd"})
            job.progress(30, 120, "rows")
            await gate.wait()
            job.progress(120, 120)
            return 120

        job = await site.bridge.registry.submit(read)
        page = await site.open("tail.html", site.url(job.id))
        await page.wait_for("document.querySelector('#detail').textContent === '30 of 120, rows'")
        assert await page.text("#state") == "running"
        assert await page.text("#output") == 'reading <b>rows</b> & more\n{"row":1}\nrow 2 is odd\n'
        assert await page.value("[progress.value, progress.max, progress.hidden]") == [30, 120, False]
        assert await page.text("#output .stderr") == "row 2 is odd\n"
        await picture(page, "running")
        gate.set()
        await wait_end(page, "completed")
        assert await page.text("#detail") == "120"
        assert await page.value("document.querySelector('#state').className") == "good"
        await picture(page, "completed")


async def test_shows_a_failure() -> None:
    """What a failed attempt showed is told apart from what follows, and why the job failed is shown."""
    async with open_site() as site:
        job = await site.bridge.registry.submit("stumble")
        page = await site.open("tail.html", site.url(job.id))
        await wait_end(page, "failed")
        assert await page.text("#detail") == "ValueError: attempt 2"
        assert await page.text("#output .failed") == '{"attempt":1}\n'
        assert "attempt 1 failed: attempt 1; the next follows in" in await page.text("#output .note")
        assert (await page.text("#output")).endswith('{"attempt":2}\n')
        await picture(page, "failed")


async def test_goes_on() -> None:
    """Cut again and again, the page shows each token once, and the outcome only when there is one."""
    async with open_site() as site:
        gate = trio.Event()

        async def count(job: Any) -> None:
            await gate.wait()
            for n in range(1, 41):
                await job.send(n)
                await trio.sleep(0.01)

        job = await site.bridge.registry.submit(count)
        async with open_proxy(site.bridge.server.port, lambda n: Cut(frames=4) if n < 5 else None) as proxy:
            page = await site.open("tail.html", site.url(job.id, proxy.port))
            await page.wait_for("document.querySelector('#state').textContent === 'running'")
            gate.set()
            await wait_end(page, "completed")
        assert proxy.connections >= 3
        assert await page.text("#output") == "".join(f"{n}\n" for n in range(1, 41))


async def test_silence() -> None:
    """A connection that is gone without a word is given up after a while, and the page goes on with a longer one."""
    async with open_site() as site:
        job = await site.bridge.registry.submit("hang")
        plan = lambda n: Cut(frames=2, how="stall") if n == 0 else None  # noqa: E731
        async with open_proxy(site.bridge.server.port, plan) as proxy:
            page = await site.open("tail.html")
            await page.value("window.waits = []; window.later = setTimeout")
            await page.value("setTimeout = (f, ms) => (waits.push(ms), later(f, ms > 50000 ? 500 : ms))")
            await page.value(f"form.url.value = {json.dumps(site.url(job.id, proxy.port))}; form.requestSubmit()")
            await page.wait_for("document.querySelector('#output').textContent === 'here'")
            await job.cancel()
            await wait_end(page, "cancelled")
        assert proxy.connections >= 2
        assert await page.value("[60000, 120000].map((ms) => waits.includes(ms))") == [True, True]
        assert await page.text("#output") == "here"


async def test_an_address_that_asks_for_text() -> None:
    """The address of a tail that shows text alone is good for this page as well."""
    async with open_site() as site:
        job = await site.bridge.registry.submit("count", [3, 0])
        page = await site.open("tail.html", f"{site.url(job.id)}?format=text")
        await wait_end(page, "completed")
        assert await page.text("#output") == "1\n2\n3\n"


async def test_form_and_token() -> None:
    """The URL and the token can be typed in; a wrong one is told, and not tried again and again."""
    async with open_site(secure=True) as site:
        job = await site.bridge.registry.submit("count", [2, 0])
        page = await site.open("tail.html")

        async def fill_in(url: str, token: str) -> None:
            fields = f"form.url.value = {json.dumps(url)}; form.token.value = {json.dumps(token)};"
            await page.value(f"{fields} form.requestSubmit()")

        await fill_in(site.url(job.id), "close-sesame")
        await page.wait_for("document.querySelector('#state').textContent === 'refused'")
        await fill_in(site.url("nothing"), TOKEN)
        await page.wait_for("document.querySelector('#detail').textContent.includes('nothing')")
        assert await page.text("#state") == "refused"
        await picture(page, "refused")
        await fill_in(site.url(job.id), TOKEN)
        await wait_end(page, "completed")
        assert await page.text("#output") == "1\n2\n"
        await fill_in("no address", "")
        await page.wait_for("document.querySelector('#state').textContent === 'refused'")


async def test_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page submits a job and cancels it by the function in the guide, and is told what is refused.

    A heartbeat that comes before an answer is none.
    """
    was_alive, show_life = trio.Event(), Session._show_life

    async def show(session: Session) -> None:
        await show_life(session)
        was_alive.set()

    async def authorize(*_: Any) -> bool:
        await was_alive.wait()
        return True

    monkeypatch.setattr(Session, "_show_life", show)
    [ask] = re.findall(
        r"```js\n(const ask = .*?)```", (EXAMPLES.parent / "howto" / "browser.md").read_text(), re.DOTALL
    )
    async with open_site(secure=True, authorize=authorize, limits=Limits(heartbeat=0.1)) as site:
        page = await site.open("tail_in_three_lines.html")
        url = f"ws://127.0.0.1:{site.bridge.server.port}/ws"

        async def answer(token: str, **request: Any) -> Any:
            offered = ["jobtrio.v1", "jobtrio.bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")]
            return await page.value(f"{{ {ask} ask({json.dumps(url)}, {offered}, {json.dumps(request)}) }}")

        submitted = await answer(TOKEN, type="submit", executor="hang")
        job = await site.bridge.registry.get(submitted["job"])
        assert (await answer("close-sesame", type="cancel", job=job.id))["code"] == "unauthenticated"
        cancelled = await answer(TOKEN, type="cancel", job=job.id, reason="no longer wanted")
        assert cancelled == {"type": "ok", "id": 1, "cancelled": True}
        assert await job.wait() == Cancelled("no longer wanted")


async def test_another_stream() -> None:
    """Where the server's stream is another than the one that was begun, the page begins anew and says so."""
    async with open_site() as site:
        first = await site.bridge.registry.submit("count", [3, 0], job_id="same")
        async with open_proxy(site.bridge.server.port, lambda n: Cut(frames=2) if n == 0 else None) as proxy:
            await first.wait()
            page = await site.open("tail.html")
            await page.value("Math.random = () => 1")
            await page.value(f"form.url.value = {json.dumps(site.url('same', proxy.port))}; form.requestSubmit()")
            await page.wait_for("document.querySelector('#state').textContent === 'cut off'")
            await site.bridge.registry.remove("same")
            await site.bridge.registry.submit("count", [4, 0], job_id="same")
            await wait_end(page, "completed")
        assert await page.text("#output") == "the stream begins anew1\n2\n3\n4\n"


async def test_from_now_on() -> None:
    """From the end on, the page shows what comes, also what comes while it is cut off before it has seen anything."""
    async with open_site() as site:
        gate = trio.Event()

        async def count(job: Any) -> None:
            await job.send("before")
            await gate.wait()
            await job.send("behind")

        job = await site.bridge.registry.submit(count)
        async with open_proxy(site.bridge.server.port, lambda n: Cut(frames=1) if n == 0 else None) as proxy:
            page = await site.open("tail.html")
            await page.value("Math.random = () => 1")
            url = f"{site.url(job.id, proxy.port)}?after=end"
            await page.value(f"form.url.value = {json.dumps(url)}; form.requestSubmit()")
            await page.wait_for("document.querySelector('#state').textContent === 'cut off'")
            gate.set()
            await wait_end(page, "completed")
        assert await page.text("#output") == "behind"


async def test_server_that_asks_for_time() -> None:
    """A server that is restarted is left alone for as long as it has asked."""
    async with open_site() as site:
        job = await site.bridge.registry.submit("hang")
        page = await site.open("tail.html", site.url(job.id))
        await page.wait_for("document.querySelector('#output').textContent === 'here'")
        for visit in site.bridge.server._visits:
            visit.stop(CloseCode.RESTART, encode_retry_after(40))
        await page.wait_for("document.querySelector('#state').textContent === 'cut off'")
        detail = await page.text("#detail")
        assert 40 <= float(detail.removeprefix("tries again in ").removesuffix(" s")) <= 41
        await job.cancel()


async def test_server_that_falls_over_what_follows() -> None:
    """A server that accepts and then shows nothing, time and again, is tried ever more seldom."""
    async with open_site() as site:
        job = await site.bridge.registry.submit("hang")
        async with open_proxy(site.bridge.server.port, lambda n: Cut(frames=1)) as proxy:
            page = await site.open("tail.html", site.url(job.id, proxy.port))
            await page.wait_for("parseFloat(document.querySelector('#detail').textContent.slice(14)) >= 1")
        assert await page.text("#output") == ""
        await job.cancel()


async def test_foreign_page() -> None:
    """A page of an origin that is not allowed gets nothing."""
    async with open_site(allowed_origins=[]) as site:
        job = await site.bridge.registry.submit("count", [2, 0])
        page = await site.open("tail_in_three_lines.html", site.url(job.id))
        await page.wait_for("out.textContent === '\\ncut off'")
