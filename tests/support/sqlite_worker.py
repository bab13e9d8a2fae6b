"""A process that works on a file of jobs, for tests that kill, stop or watch one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import trio
from worker_process import WorkerProcess, journal_of, open_worker_process, serve

from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path


def open_worker(
    path: Path, *, submits: dict[str, Any] | None = None, **options: Any
) -> AbstractAsyncContextManager[WorkerProcess]:
    """Start a worker on the file; see `open_worker_process`."""
    return open_worker_process(__file__, str(path), str(journal_of(path)), options=options, submits=submits)


if __name__ == "__main__":
    _, where, journal, options, payload = sys.argv
    trio.run(serve, SqliteJobStore(where), journal, options, payload)
