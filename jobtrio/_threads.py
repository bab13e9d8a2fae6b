"""Executors that are plain functions: run in a worker thread, with a context of plain methods.

A thread cannot be stopped from outside. It is told by `check_cancelled` and by everything that sends,
and its attempt is not over before it has returned. It must not know how attempts are judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from jobtrio._attempt import checked
from jobtrio._errors import JobEndedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._context import JobContext
    from jobtrio._policies import JobPriority
    from jobtrio._registry import JobRegistry


class ThreadJobContext:
    """One attempt of a job, as an executor in a worker thread sees it: `JobContext` with plain methods.

    Its methods may be called only in that thread. They raise `trio.Cancelled` once the attempt is cancelled; let it
    propagate, after cleaning up. After the attempt's end they raise `JobEndedError`.

    Attributes:
        id: The job's id.
        payload: What the job was submitted with.
        attempt: The attempt's number, from 1.
        tags: The job's tags.
        metadata: The job's metadata.
        queue: The queue the job waited in.
        priority: The job's priority.
        nursery: The attempt's own nursery, for child tasks. The attempt ends when they have. It belongs to Trio's
            thread: start one with ``trio.from_thread.run_sync(job.nursery.start_soon, …)``.
        registry: The registry that runs the job. It belongs to Trio's thread as well: submit a job with
            ``trio.from_thread.run(job.registry.submit, …)``.
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._is_over = False
        context.stop_event()  # made here, in Trio's thread: made in both threads at once, there would be two
        self.id: str = context.id
        self.payload: Any = context.payload
        self.attempt: int = context.attempt
        self.tags: dict[str, str] = context.tags
        self.metadata: dict[str, Any] = context.metadata
        self.queue: str = context.queue
        self.priority: JobPriority = context.priority
        self.nursery: trio.Nursery = context.nursery
        self.registry: JobRegistry = context.registry

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The nursery's scope, which ends the attempt; it, too, is for ``trio.from_thread.run_sync``."""
        return self._context.cancel_scope

    @property
    def deadline(self) -> float:
        """When the attempt's time is up, by Trio's clock; inf without a limit."""
        return self._context.deadline

    @property
    def stopping(self) -> trio.Event:
        """Set when the attempt should come to an end; check it with ``is_set()``."""
        return self._context.stopping

    @property
    def saved_state(self) -> Any:
        """What `save_state` saved last, in this attempt or an earlier one; None at first."""
        return self._context.saved_state

    def check_cancelled(self) -> None:
        """Raise `trio.Cancelled` if the attempt is cancelled or its time is up."""
        if self._is_over:
            raise JobEndedError(self.id)
        try:
            trio.from_thread.check_cancelled()
        except RuntimeError:  # a thread that Trio has not started, or Trio's own
            raise RuntimeError("a ThreadJobContext belongs to its job's thread: call its methods there") from None

    def send(self, token: Any) -> int:
        """Send a token to every consumer and return its number, as `JobContext.send` does."""
        self.check_cancelled()
        return trio.from_thread.run(self._context.send, token)

    def send_nowait(self, token: Any) -> int:
        """Send a token without waiting for lossless consumers, as `JobContext.send_nowait` does."""
        self.check_cancelled()
        return trio.from_thread.run_sync(self._context.send_nowait, token)

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> int:
        """Tell every consumer how far the attempt is, as `JobContext.progress` does."""
        self.check_cancelled()
        return trio.from_thread.run_sync(self._context.progress, done, total, note)

    def extend(self, seconds: float) -> float:
        """Move the attempt's deadline ``seconds`` further away, as `JobContext.extend` does."""
        self.check_cancelled()
        return trio.from_thread.run_sync(self._context.extend, seconds)

    def save_state(self, value: Any) -> None:
        """Keep ``value`` for the job's next attempt, as `JobContext.save_state` does."""
        self.check_cancelled()
        trio.from_thread.run(self._context.save_state, value)

    def __repr__(self) -> str:
        return f"<ThreadJobContext {self.id!r} attempt {self.attempt}>"


async def run_in_thread(
    function: Callable[[ThreadJobContext], Any], context: JobContext, limiter: trio.CapacityLimiter | None
) -> Any:
    """Run a plain executor in a worker thread and return its result.

    Cancellation: waits until the thread has returned; a result that came all the same is dropped by the
    caller's scope.
    """
    seen = ThreadJobContext(context)
    try:
        return await trio.to_thread.run_sync(_call, function, seen, limiter=limiter)
    finally:
        seen._is_over = True


def _call(function: Callable[[ThreadJobContext], Any], context: ThreadJobContext) -> Any:
    return checked(function, function(context))
