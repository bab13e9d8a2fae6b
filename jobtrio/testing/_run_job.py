"""`run_job`: one job from submission to its end, on a virtual clock, without a registry of one's own.

It owns what such a run consists of; the cancellation sweep uses the same parts. It must not know what is
tested.
"""

from __future__ import annotations

import sys
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from jobtrio._opening import open_registry
from jobtrio._policies import Retention
from jobtrio.executors import check_executor
from jobtrio.testing._clock import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._job import Job
    from jobtrio._messages import Message
    from jobtrio._records import Outcome

KEEP_ALL = Retention(finished_jobs=sys.maxsize, finished_for=inf, tokens_per_job=sys.maxsize, held_for=inf)
"""Nothing that a test wants to see is evicted."""

FOREVER = 365 * 86_400.0
"""Seconds of virtual time after which a job is taken for one that never ends."""


class JobRun(NamedTuple):
    """The outcome of a job and its messages.

    Attributes:
        outcome: `Completed`, `Failed` or `Cancelled`.
        messages: The whole stream, the `End` included.
    """

    outcome: Outcome
    messages: list[Message]


def run_job(executor: Callable[[Any], Any], payload: Any = None, **submit_options: Any) -> JobRun:
    """Run one job to its end and return its outcome and messages.

    A plain synchronous function, to be called outside of Trio. Time is virtual: whenever all tasks wait, the clock
    jumps to the next deadline, so that delays, backoffs and time limits of hours take no time. While a task waits
    for a worker thread, a socket, a pipe or a process, time is real.

    Args:
        executor: An async or plain function, or a partial or callable object of either kind.
        payload: What the executor is given.
        submit_options: What else `JobRegistry.submit` takes: ``retry``, ``time_limit``, ``tags`` and so on.

    Raises:
        TypeError, ValueError: A parameter is invalid.
        RuntimeError: It was called within Trio, for example in an async test.
        trio.TooSlowError: The job waits for something that never comes: it has not ended in a virtual year.
    """
    check_executor(executor)
    return run_virtually(partial(_run, executor, payload, submit_options))


async def observe(job: Job) -> JobRun:
    """Wait for a job's end and return its run.

    Raises:
        trio.TooSlowError: It has not ended in a virtual year.

    Cancellation: the job goes on.
    """
    with trio.move_on_after(FOREVER):
        outcome = await job.wait()
        with job.subscribe() as messages:
            return JobRun(outcome, [message async for message in messages])
    raise trio.TooSlowError(f"the job was {job.state} after a year: it waits for something that never comes")


async def _run(executor: Callable[[Any], Any], payload: Any, options: dict[str, Any]) -> JobRun:
    async with open_registry(retention=KEEP_ALL) as registry:
        return await observe(await registry.submit(executor, payload, **options))
