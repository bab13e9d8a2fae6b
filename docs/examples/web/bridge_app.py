"""A web application that submits jobs, with a bridge in the same process by which its page watches them.

hypercorn -k trio bridge_app:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import jobtrio
from jobtrio.websocket import serve

ORIGIN = "http://127.0.0.1:8000"  # as the address of the page begins

PAGE = """
<!doctype html>
<pre></pre>
<script type="module">
  const answer = await fetch("/jobs", { method: "POST", body: '{"text": "to be or not"}' });
  const { url } = await answer.json();
  const socket = new WebSocket(url + "?format=text");
  socket.onmessage = ({ data }) => document.querySelector("pre").append(data + " ");
</script>
"""


async def generate(job: jobtrio.JobContext) -> int:
    words = job.payload["text"].split()
    for word in words:
        await job.send(word)
        await trio.sleep(0.2)
    return len(words)


async def authorize(_: Any, action: str, job: jobtrio.JobSpec | jobtrio.JobRecord) -> bool:
    return action == "subscribe"


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with jobtrio.open_registry() as registry, trio.open_nursery() as nursery:
        bridge = await nursery.start(partial(serve, registry, allowed_origins=[ORIGIN], authorize=authorize))
        yield {"registry": registry, "bridge": bridge}
        await registry.shutdown(grace=10)
        nursery.cancel_scope.cancel()


async def submit(request: Request) -> Response:
    job = await request.state.registry.submit(generate, await request.json(), time_limit=300)
    return JSONResponse({"url": f"{request.state.bridge.url}/jobs/{job.id}"}, status_code=202)


async def page(_: Request) -> Response:
    return HTMLResponse(PAGE)


app = Starlette(lifespan=lifespan, routes=[Route("/", page), Route("/jobs", submit, methods=["POST"])])
