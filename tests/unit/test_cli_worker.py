"""What a worker is to do by its options, and by what it opens its registry."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import jobtrio
from jobtrio.cli import build_parser
from jobtrio.cli._worker import worker_plan
from jobtrio.cli._working import Worker, WorkerPlan
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jobtrio.cli._working import Say

OPTIONS = (
    "--max-running 7 --queue a --queue b=2 --total a=3 --rate b=5/1m,2 --name w --grace 2s --lease 1m "
    "--keep-for 2h --keep 5 --tokens-per-job 9"
)


async def test_options() -> None:
    """Each option of a worker becomes what its registry is opened with."""
    executors = jobtrio.Executors()
    options = build_parser().parse_args(["worker", "app.jobs:executors", *OPTIONS.split()])
    options.loaded, options.around = executors, nullcontext
    retention = jobtrio.Retention(finished_jobs=5, finished_for=7200.0, tokens_per_job=9)
    plan = worker_plan(options)
    assert plan == WorkerPlan(
        executors=executors,
        lifespan=nullcontext,
        max_running=7,
        queues={"a": 7, "b": 2},
        totals={"a": 3},
        rates={"b": jobtrio.RateLimit(5, per=60.0, burst=2)},
        name="w",
        grace=2.0,
        lease=60.0,
        retention=retention,
    )

    @asynccontextmanager
    async def stop(registry: jobtrio.JobRegistry, say: Say) -> AsyncIterator[None]:
        signal.raise_signal(signal.SIGTERM)
        yield

    store = MemoryJobStore()
    assert await Worker(store, plan, as_json=False, beside=stop).serve() == 0
    settings = store.settings
    assert (settings.worker, settings.retention, dict(settings.max_running_total)) == ("w", retention, {"a": 3})
    assert dict(settings.rate_limits) == {"b": jobtrio.RateLimit(5, per=60.0, burst=2)}
