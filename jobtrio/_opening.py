"""`open_registry`: checks what it is given, puts a registry together, and sees it through to its end.

It owns the order of opening and leaving. Nothing below this module knows it.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._checks import check_count, check_name, check_number, show
from jobtrio._core import RegistryCore
from jobtrio._ids import worker_name
from jobtrio._nursery import open_background_nursery
from jobtrio._patterns import Limits
from jobtrio._policies import RateLimit, RateLimits, Retention
from jobtrio._registry import JobRegistry
from jobtrio.abc import JobStore
from jobtrio.executors import Executors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_registry(
    executors: Executors | None = None,
    *,
    store: JobStore | None = None,
    max_running: int = 100,
    queues: Mapping[str, int] | None = None,
    max_queued: int = 100_000,
    retention: Retention = Retention(),  # noqa: B008 - frozen
    lease: float = 30.0,
    worker: str | None = None,
    max_running_total: Mapping[str, int] | None = None,
    rate_limits: Mapping[str, RateLimit] | None = None,
) -> AsyncIterator[JobRegistry]:
    """Open a registry of jobs for the duration of the block.

    Leaving the block normally waits for what this process runs and, in memory, for what is queued, scheduled or
    retrying; what waits there in a queue that is paused until `JobRegistry.resume` is not, and ends
    ``Cancelled("shutdown")``. Meanwhile the jobs of a durable store are claimed as before, until none is running here;
    `JobRegistry.shutdown` claims no more. Leaving it by an exception or a cancellation cancels running jobs and waits
    for their clean-up; durable ones return to their queue, and in memory every unfinished job ends
    ``Cancelled("shutdown")``. The body's own exception propagates unwrapped.

    Args:
        executors: The named executors; with a durable store only these can be submitted and run here.
        store: Where jobs are kept; None keeps them in memory.
        max_running: How many jobs run at once in this process.
        queues: Which queues to serve, and how many jobs of each at once; None for every queue. A key that ends in ``*``
            stands for each queue whose name begins with what precedes the ``*`` and which no other key names: each of
            these has that limit of its own. Of several such keys, the longest counts.
        max_queued: How many jobs may wait for their first start (memory store).
        retention: What to keep of ended jobs and of streams.
        lease: Seconds that a claim on a job lasts unless renewed, 1 or more (durable stores).
        worker: This process's name in the audit log; None for host, process id and a random part.
        max_running_total: How many jobs of a queue may run across all workers of the store, by queue, with keys as in
            ``queues``; give all workers the same figures. A worker keeps to its own when it claims.
        rate_limits: How many jobs of a queue may start in a time, across all workers of the store, in the same way.

    Raises:
        TypeError, ValueError: A parameter is invalid; the error names it, its value, and what is allowed.
        StoreError: The store can't be opened.
        RuntimeError: The store serves another registry; or this was not called in a Trio task.

    Cancellation: see above.
    """
    if not trio.lowlevel.in_trio_run():
        raise RuntimeError("jobtrio works within Trio: start the program by trio.run(), not by asyncio's run()")
    if executors is not None and not isinstance(executors, Executors):
        raise TypeError(f"executors must be an Executors or None; got {show(executors)}")
    if store is not None and not isinstance(store, JobStore):
        raise TypeError(f'store must be a JobStore, as SqliteJobStore("jobs.db"), or None; got {show(store)}')
    if not isinstance(retention, Retention):
        raise TypeError(f"retention must be a Retention; got {show(retention)}")
    core = RegistryCore(
        executors,
        store,
        max_running=check_count("max_running", max_running),
        queues=_check_counts("queues", queues),
        max_queued=check_count("max_queued", max_queued),
        retention=retention,
        lease=check_number("lease", lease, low=1),
        worker=worker_name() if worker is None else check_name("worker", worker),
        max_running_total=_check_counts("max_running_total", max_running_total) or Limits(),
        rate_limits=_check_rates("rate_limits", rate_limits),
    )
    registry = JobRegistry(core)
    async with core.store.open(core.settings), open_background_nursery() as nursery:
        nursery.start_soon(core.serve)
        try:
            await core.serving.wait()
            yield registry
            await core.wait_done()
        finally:
            # Bounded by the clean-up of the executors: outcomes are not published before they are gone.
            with trio.CancelScope(shield=True):
                await core.close()


def _check_counts(name: str, counts: Any) -> Limits | None:
    if counts is None:
        return None
    items = _items(name, counts, "whole numbers")
    return Limits((key, check_count(f"{name}[{key!r}]", most)) for key, most in items)


def _check_rates(name: str, rates: Any) -> RateLimits:
    items = _items(name, {} if rates is None else rates, "RateLimits")
    for key, rate in items:
        if not isinstance(rate, RateLimit):
            raise TypeError(f"{name}[{key!r}] must be a RateLimit; got {show(rate)}")
    return RateLimits(items)


def _items(name: str, values: Any, what: str) -> list[tuple[str, Any]]:
    try:
        items = dict(values).items()
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a mapping of names to {what}, or None; got {show(values)}") from None
    return [(check_name(f"a name in {name}", key), value) for key, value in items]
