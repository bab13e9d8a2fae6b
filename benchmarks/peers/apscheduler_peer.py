"""APScheduler 4 in memory, on Trio: ``python -m benchmarks.peers.apscheduler_peer JOBS AT_ONCE FORM``.

``FORM`` is how a job is added: by ``function``, as its manual shows first and as jobtrio's side does,
or by the ``name`` of a task configured before, which spares it the look at the function.
"""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import trio

from benchmarks._rounds import serve_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence


RESULT_SECONDS = 900.0


async def execute(payload: int) -> int:
    return payload


async def main(jobs: int, at_once: int, form: str) -> None:
    """Serve rounds: add every job, then wait for the event of each one's end. Results are kept."""
    apscheduler = import_module("apscheduler")
    async with apscheduler.AsyncScheduler(max_concurrent_jobs=at_once) as scheduler:
        await scheduler.configure_task("execute", func=execute, max_running_jobs=at_once)
        await scheduler.start_in_background()
        task = {"function": execute, "name": "execute"}[form]

        async def side() -> Sequence[float]:
            ended = 0
            all_ended = trio.Event()

            def count(event: Any) -> None:
                nonlocal ended
                assert event.outcome is apscheduler.JobOutcome.success
                ended += 1
                if ended == jobs:
                    all_ended.set()

            with scheduler.subscribe(count, {apscheduler.JobReleased}):
                started = time.thread_time()
                for n in range(jobs):
                    await scheduler.add_job(task, args=(n,), result_expiration_time=RESULT_SECONDS)
                await all_ended.wait()
                return [(time.thread_time() - started) / jobs]

        await serve_rounds(side)
        await scheduler.stop()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
