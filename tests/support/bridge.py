"""A bridge for tests, and proof that it is well.

It owns what tests of the server have in common: jobs to watch, a running server, a client that behaves. It must not
know what the tests do to it.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import trio
from patience import until
from raw_client import CLOSE, Frame, close_frame, connected

import jobtrio
from jobtrio.websocket import Limits, Server, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio import JobContext

PAGE = os.sysconf("SC_PAGE_SIZE")

executors = jobtrio.Executors()


@executors.register("words", expose=True)
async def words(job: JobContext) -> int:
    """Send the payload's words."""
    parts = str(job.payload).split()
    for word in parts:
        await job.send(word)
    return len(parts)


@executors.register("hang", expose=True)
async def hang(job: JobContext) -> None:
    """Do nothing until cancelled."""
    await trio.sleep_forever()


@executors.register("hidden")
async def hidden(job: JobContext) -> None:
    """Is not for clients."""


@executors.register("break", expose=True)
async def break_down(job: JobContext) -> None:
    """Fail."""
    raise ValueError("broken on purpose")


@executors.register("shout", expose=True)
async def shout(job: JobContext) -> None:
    """Fail for a long reason, made of the payload."""
    raise ValueError(str(job.payload) * 60_000)


@executors.register("time out", expose=True)
async def time_out(job: JobContext) -> None:
    """Take too long."""
    job.cancel_scope.deadline = trio.current_time()
    await trio.sleep_forever()


@attrs.frozen
class Bridge:
    """A bridge that is running."""

    registry: jobtrio.JobRegistry
    server: Server
    nursery: trio.Nursery

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.server.port

    async def assert_is_well(self) -> None:
        """Have a client watch a new job from its beginning to its end."""
        job = await self.registry.submit(words, "to be or not")
        with trio.fail_after(60):
            async with connected(self.port, f"/jobs/{job.id}") as client:
                heard = await client.hear_all()
                await client.send(close_frame())
        items = [item for message in heard[:-1] for item in message.get("items", ())]
        assert items == ["to", "be", "or", "not"]
        assert heard[-2]["type"] == "end"
        assert isinstance(heard[-1], Frame)
        assert heard[-1].opcode == CLOSE
        assert heard[-1].code == 1000

    async def assert_is_left(self) -> None:
        """Wait until no client is connected."""
        await until(lambda: not self.server.stats().connections)


@asynccontextmanager
async def open_bridge(
    *, store: jobtrio.abc.JobStore | None = None, retention: jobtrio.Retention | None = None, **options: Any
) -> AsyncIterator[Bridge]:
    """Serve a new registry."""
    registry = jobtrio.open_registry(executors, store=store, retention=retention or jobtrio.Retention())
    async with registry as jobs, trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, jobs, **{"port": 0, **options}))
        yield Bridge(jobs, server, nursery)
        nursery.cancel_scope.cancel()


def brief(**changes: Any) -> Limits:
    """Return limits whose waits are short, but long enough for a client that behaves on a machine that is busy."""
    return attrs.evolve(Limits(handshake=2, closing=2, send=2), **changes)


def resident() -> int:
    """Return the bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
