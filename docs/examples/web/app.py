"""A web application: a job is submitted, watched as Server-Sent Events, and cancelled.

hypercorn -k trio app:app
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import jobtrio

SIGN_OF_LIFE = 15.0  # seconds


async def generate(job: jobtrio.JobContext) -> int:
    words = job.payload["text"].split()
    for word in words:
        await job.send(word)
        await trio.sleep(job.payload.get("pause", 0.2))
    return len(words)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
    async with jobtrio.open_registry() as registry:
        yield {"registry": registry}
        await registry.shutdown(grace=10)


async def submit(request: Request) -> Response:
    job = await request.state.registry.submit(generate, await request.json(), time_limit=300)
    return JSONResponse({"id": job.id}, status_code=202)


async def watch(request: Request) -> Response:
    job: jobtrio.Job = await request.state.registry.get(request.path_params["id"])
    after = int(request.headers.get("Last-Event-ID", 0))
    span = await job.span()
    if span.is_complete and after == span.last:
        return Response(status_code=204)  # it has seen the end: a browser does not come back after this
    return EventStream(job.subscribe(after, on_gap="yield", stored=True))


async def cancel(request: Request) -> Response:
    is_cancelled = await request.state.registry.cancel(request.path_params["id"], "no longer wanted")
    return JSONResponse({"cancelled": is_cancelled})


class EventStream(StreamingResponse):
    """Sends what a subscription receives. It iterates itself, for a generator would not end with its client."""

    media_type = "text/event-stream"

    def __init__(self, messages: jobtrio.Subscription) -> None:
        self.messages = messages
        super().__init__(self, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self.messages:
            await super().__call__(scope, receive, send)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        with trio.move_on_after(SIGN_OF_LIFE):
            try:
                return "".join(map(as_event, await self.messages.receive_batch()))
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        return ":\n\n"  # a comment: whoever is gone without a word is found out by writing


def as_event(message: jobtrio.Message) -> str:
    data: Any
    match message:
        case jobtrio.Token(seq, value=data):
            kind = "token"
        case jobtrio.Progress(seq, done=done, total=total):
            kind, data = "progress", {"done": done, "total": total}
        case jobtrio.Restart(seq, error=error):
            kind, data = "restart", {"error": str(error)}
        case jobtrio.Gap(first, seq):
            kind, data = "gap", {"first": first, "last": seq}
        case jobtrio.End(seq, outcome):
            kind, data = "end", as_object(outcome)
    return f"event: {kind}\nid: {seq}\ndata: {json.dumps(data)}\n\n"


def as_object(outcome: jobtrio.Outcome) -> dict[str, Any]:
    match outcome:
        case jobtrio.Completed(result):
            return {"completed": result}
        case jobtrio.Failed(error):
            return {"failed": str(error)}
        case jobtrio.Cancelled(reason):
            return {"cancelled": reason}


async def page(_: Request) -> Response:
    return FileResponse(Path(__file__).with_name("watch.html"))


STATUS = {
    ValueError: 400,  # no JSON, or no number of a message
    jobtrio.UnknownJobError: 404,
    jobtrio.QueueFullError: 503,
    jobtrio.StoreUnavailableError: 503,
    trio.ClosedResourceError: 503,  # it is shutting down
}


async def refuse(_: Request, exc: Exception) -> Response:
    status = next(number for kind, number in STATUS.items() if isinstance(exc, kind))
    return JSONResponse({"error": str(exc)}, status)


app = Starlette(
    routes=[
        Route("/", page),
        Route("/jobs", submit, methods=["POST"]),
        Route("/jobs/{id}", cancel, methods=["DELETE"]),
        Route("/jobs/{id}/events", watch),
    ],
    exception_handlers=dict.fromkeys(STATUS, refuse),
    lifespan=lifespan,
)
