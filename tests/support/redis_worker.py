"""A process that works on the jobs under a prefix of a server, for tests that kill, stop or watch one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio
from worker_process import WorkerProcess, acknowledge, journal_of, make_executors, open_worker_process, serve

import jobtrio
from jobtrio.stores.redis import RedisJobStore

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

PAUSE: Final = 0.005
"""Seconds between two submissions: there is time to run what was submitted."""


@attrs.frozen
class Place:
    """Where the jobs are, and what the workers write down.

    Attributes:
        url: The server's URL.
        prefix: The store's prefix.
        path: What the journal is called after.
    """

    url: str
    prefix: str
    path: Path

    def store(self, **options: Any) -> RedisJobStore:
        """Return a store, not opened yet."""
        return RedisJobStore(self.url, prefix=self.prefix, **options)

    def executors(self) -> jobtrio.Executors:
        """Return the executors that all workers have."""
        return make_executors(str(journal_of(self.path)))


def open_worker(
    place: Place, *, submits: dict[str, Any] | None = None, **options: Any
) -> AbstractAsyncContextManager[WorkerProcess]:
    """Start a worker on the server; see `open_worker_process`."""
    where = (place.url, place.prefix, str(place.path))
    return open_worker_process(__file__, *where, options=options, submits=submits)


async def _submit(registry: jobtrio.JobRegistry, payload: dict[str, Any]) -> None:
    """Submit one job after another, and say of each that it was acknowledged; wait out a server that is away."""
    while True:
        try:
            job = await registry.submit("send", payload)
        except jobtrio.StoreUnavailableError:
            continue
        acknowledge(job)
        await trio.sleep(PAUSE)


async def _main(url: str, prefix: str, path: str, options: str, payload: str) -> None:
    place = Place(url, prefix, Path(path))
    await serve(place.store(), str(journal_of(place.path)), options, payload, _submit)


if __name__ == "__main__":
    _, url, prefix, path, options, payload = sys.argv
    trio.run(_main, url, prefix, path, options, payload)
