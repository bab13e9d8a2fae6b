"""A process that works on a store of any kind, for tests that kill, stop or watch one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import trio
from worker_process import WorkerProcess, journal_of, open_worker_process, serve

from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


def open_worker(
    url: str, path: Path, *, submits: dict[str, Any] | None = None, **options: Any
) -> AbstractAsyncContextManager[WorkerProcess]:
    """Start a worker on the store that a URL names, with a journal called after a path; see `open_worker_process`."""
    return open_worker_process(__file__, url, str(journal_of(path)), options=options, submits=submits)


if __name__ == "__main__":
    _, where, journal, options, payload = sys.argv
    trio.run(serve, parse_store_url(where).make_store(), journal, options, payload)
