"""A bridge in the test's own process, with executors that clients may use."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

import jobtrio
from jobtrio._nursery import open_background_nursery
from jobtrio.websocket import Limits, Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio.abc import JobStore
    from jobtrio.websocket import Handshake

TOKEN = "open-sesame"


@attrs.define
class Bridge:
    """An open registry and its server."""

    registry: jobtrio.JobRegistry
    server: Server

    @property
    def url(self) -> str:
        """The URL of the multiplexed form."""
        return f"{self.server.url}/ws"


def make_executors() -> jobtrio.Executors:
    """Return executors that clients may submit to."""
    executors = jobtrio.Executors()

    @executors.register("count", expose=True)
    async def count(job: jobtrio.JobContext) -> int:
        """Send numbers, with a pause behind each."""
        tokens, pause = job.payload
        for n in range(1, tokens + 1):
            await job.send(n)
            if pause:
                await trio.sleep(pause)
        return int(tokens)

    @executors.register("echo", expose=True)
    async def echo(job: jobtrio.JobContext) -> Any:
        """Return the payload."""
        return job.payload

    @executors.register("hang", expose=True)
    async def hang(job: jobtrio.JobContext) -> None:
        """Say something and wait for ever."""
        await job.send("here")
        await trio.sleep_forever()

    @executors.register("stumble", expose=True, retry=jobtrio.RetryPolicy(max_attempts=2, initial=0.01, jitter=0))
    async def stumble(job: jobtrio.JobContext) -> None:
        """Fail twice."""
        job.progress(1, 2, "half way")
        await job.send({"attempt": job.attempt})
        raise ValueError(f"attempt {job.attempt}")

    @executors.register("secret")
    async def secret(job: jobtrio.JobContext) -> None:
        """Be reached by nobody from outside."""

    return executors


async def _authenticate(handshake: Handshake) -> str | None:
    return "ann" if handshake.token == TOKEN else None


async def _authorize(principal: str, action: str, job: Any) -> bool:
    return True


@asynccontextmanager
async def open_bridge_with_jobs(
    *,
    store: JobStore | None = None,
    limits: Limits | None = None,
    retention: jobtrio.Retention | None = None,
    secure: bool = True,
    **options: Any,
) -> AsyncIterator[Bridge]:
    """Open a registry and a bridge to it, within the block.

    Args:
        store: The registry's store.
        limits: The bridge's limits.
        retention: What the registry keeps.
        secure: Whether clients need the token, and may do everything with it; else they can only watch.
        options: What `serve` takes besides.
    """
    hooks = {"authenticate": _authenticate, "authorize": _authorize} if secure else {}
    options = {"port": 0, "limits": limits or Limits(), **hooks, **options}
    kept = retention or jobtrio.Retention()
    async with jobtrio.open_registry(make_executors(), store=store, retention=kept) as registry:
        try:
            async with open_background_nursery() as nursery:
                server: Server = await nursery.start(partial(serve, registry, **options))
                yield Bridge(registry, server)
        finally:
            await registry.shutdown()
