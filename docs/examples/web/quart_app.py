"""The same as a Quart application.

hypercorn -k trio quart_app:app
"""

import math
from http import HTTPStatus
from typing import Self

import trio
from app import SIGN_OF_LIFE, STATUS, as_event, generate
from quart import ResponseReturnValue, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio

import jobtrio

app = QuartTrio(__name__)
app.config["BACKGROUND_TASK_SHUTDOWN_TIMEOUT"] = math.inf  # Quart would end all after 5 seconds


async def serve_jobs(task_status: trio.TaskStatus[jobtrio.JobRegistry]) -> None:
    async with jobtrio.open_registry() as registry:
        task_status.started(registry)
        await trio.sleep_forever()


@app.before_serving
async def start() -> None:
    app.extensions["jobtrio"] = await app.nursery.start(serve_jobs)


@app.after_serving
async def stop() -> None:
    await registry().shutdown(grace=10)


def registry() -> jobtrio.JobRegistry:
    found: jobtrio.JobRegistry = app.extensions["jobtrio"]
    return found


@app.post("/jobs")
async def submit() -> ResponseReturnValue:
    job = await registry().submit(generate, await request.get_json(force=True), time_limit=300)
    return {"id": job.id}, HTTPStatus.ACCEPTED


@app.get("/jobs/<id>/events")
async def watch(id: str) -> ResponseReturnValue:
    job = await registry().get(id)
    after = int(request.headers.get("Last-Event-ID", 0))
    span = await job.span()
    if span.is_complete and after == span.last:
        return "", HTTPStatus.NO_CONTENT
    events = Events(job.subscribe(after, on_gap="yield", stored=True))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = app.response_class(events, headers=headers, mimetype="text/event-stream")
    response.timeout = None  # Quart would cut it after a minute
    return response


@app.delete("/jobs/<id>")
async def cancel(id: str) -> ResponseReturnValue:
    return {"cancelled": await registry().cancel(id, "no longer wanted")}


class Events(ResponseBody):
    """Gives what a subscription receives. It iterates itself, for a generator would not end with its client."""

    def __init__(self, messages: jobtrio.Subscription) -> None:
        self.messages = messages

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.messages.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        with trio.move_on_after(SIGN_OF_LIFE):
            try:
                return "".join(map(as_event, await self.messages.receive_batch())).encode()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        return b":\n\n"


async def refuse(exc: Exception) -> ResponseReturnValue:
    status = next(number for kind, number in STATUS.items() if isinstance(exc, kind))
    return {"error": str(exc)}, status


for kind in STATUS:
    app.register_error_handler(kind, refuse)
