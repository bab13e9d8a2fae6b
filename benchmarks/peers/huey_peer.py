"""huey on SQLite: ``python -m benchmarks.peers.huey_peer FOLDER JOBS FORM PART``.

``FORM`` is ``fsync``, with which a commit waits for the disk, or ``no fsync``. ``PART`` is what is timed: ``enqueue``,
or ``drain`` by what a worker's thread does all the time, take the next task and execute it. There is one thread, since
all of a process would wait for the same connection. A task is deleted as it is taken: if its process dies, it is lost.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from benchmarks._rounds import serve_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence


def execute(payload: int) -> int:
    return payload


async def main(folder: str, jobs: int, form: str, part: str) -> None:
    """Serve rounds, each with a file of its own."""
    huey = import_module("huey")
    logging.getLogger("huey").setLevel(logging.WARNING)

    async def side() -> Sequence[float]:
        with tempfile.TemporaryDirectory(dir=folder) as own:
            queue = huey.SqliteHuey(filename=str(Path(own) / "huey.db"), fsync=form == "fsync")
            task = queue.task()(execute)
            seconds = _enqueue(queue, task, jobs) if part == "enqueue" else _drain(queue, task, jobs)
            queue.storage.close()
        return [seconds / jobs]

    await serve_rounds(side)


def _enqueue(queue: Any, task: Any, jobs: int) -> float:
    _check_setting(queue)
    started = time.perf_counter()
    for n in range(jobs):
        task(n)
    seconds = time.perf_counter() - started
    assert queue.storage.queue_size() == jobs
    return seconds


def _drain(queue: Any, task: Any, jobs: int) -> float:
    setting = _check_setting(queue)
    queue.storage.conn.execute("PRAGMA synchronous = 0")  # putting them in is not timed
    results = [task(n) for n in range(jobs)]
    queue.storage.conn.execute(f"PRAGMA synchronous = {setting}")
    started = time.perf_counter()
    while (taken := queue.dequeue()) is not None:
        queue.execute(taken)
    seconds = time.perf_counter() - started
    assert [result.get() for result in results] == list(range(jobs))
    return seconds


def _check_setting(queue: Any) -> int:
    """Return what SQLite says of its setting: 2 waits for the disk at each commit, 0 never."""
    (setting,) = queue.storage.conn.execute("PRAGMA synchronous").fetchone()
    assert setting in (0, 2), setting
    assert (setting == 2) == bool(queue.storage._fsync)
    return int(setting)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
