"""One attempt of a job: runs the executor in a nursery of its own and judges how that ended.

The nursery's own cancel scope is the attempt's time limit and its cancellation in one. The first of
request, deadline and the nursery's exit decides, whatever the executor does afterwards. It must not know
stores, retries or other jobs: it returns a `Verdict`.
"""

from __future__ import annotations

import sys
from math import inf
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any
from weakref import getweakrefcount

import trio

from jobtrio._context import JobContext
from jobtrio._exceptions import EXITS, holds, leaves, parted
from jobtrio._settlement import CANCELLED, LOST, SELF, SHUTDOWN, Raised, Returned, Stopped, TimedOut, Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._entry import JobEntry
    from jobtrio._registry import JobRegistry
    from jobtrio._spool import Spool
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import Claim

_references_to: Callable[[object], int] | None = getattr(sys, "getrefcount", None)


class Attempt:
    """A running attempt, and the one who may end it early.

    Args:
        claim: The claim.
        on_grace: Has a task see to it that a grace ends; None where nobody does but the scope's deadline.
    """

    __slots__ = (
        "_cause",
        "_context",
        "_deadline",
        "_failed",
        "_limit",
        "_on_grace",
        "_stop_by",
        "claim",
        "decided",
        "grace",
        "has_room",
        "has_used_task",
        "if_lost",
        "is_caught_up",
        "is_last",
        "over",
        "references",
        "spool",
        "task",
    )

    def __init__(self, claim: Claim, on_grace: Callable[[Callable[[], Awaitable[None]]], None] | None = None) -> None:
        plan = claim.entry.plan
        self.claim = claim
        self.is_last = claim.entry.is_last_attempt
        self.is_caught_up = claim.attempt == 1  # with what earlier attempts sent elsewhere (durable stores)
        self.over = False  # the nursery has exited
        self.decided = False  # and the job ends with it
        self.grace: trio.CancelScope | None = None  # of the task that sees to its end, once there is one
        self.if_lost: Callable[[], None] | None = None  # what to do if its end is decided and not written
        self.spool: Spool | None = None  # what hands its messages over to a durable store, once it sends some
        self.has_room = True  # and counts among those that take up room
        self.has_used_task = False  # the executor may have got what belongs to its task, such as a lock
        self.task: trio.lowlevel.Task | None = None  # which runs the executor; None where that was not entered
        self.references = 0  # to its task, when the executor was entered; 0 where it was not
        self._limit = plan.time_limit or inf
        self._deadline = inf  # that the limit makes
        self._cause: str | None = None
        self._stop_by = inf  # when the grace of a request is over
        self._on_grace = on_grace
        self._context: JobContext | None = None  # while the executor is in its nursery
        self._failed = False

    # -- ending it early

    @trio.lowlevel.enable_ki_protection
    def stop(self, cause: str, grace: float) -> bool:
        """Ask the attempt to end: at once, or ``grace`` seconds after `stopping` is set.

        Returns False where nothing changes any more: the nursery has exited, or the deadline was first and no
        attempt follows. A later request may shorten the grace; the first cause stays, but for a request to cancel
        during a shutdown's grace, and a lost lease, which overrides all.
        """
        if cause == LOST:
            self._cause = LOST  # also of one whose end is being written
            if self._context is not None:
                self._context.close()  # nothing that it still sends counts, not even in a shield
        if self.over or (self.is_timed_out and self.is_last and cause == CANCELLED):
            return False
        if not self.is_timed_out and (self._cause is None or self._cause == SHUTDOWN):
            self._cause = cause
        self._stop_by = min(self._stop_by, trio.current_time() + grace)
        if self._context is not None:
            self._context.stop_event().set()
            self._apply_stop(self._context.cancel_scope)
        if self.grace is not None:
            self.grace.deadline = self._stop_by
        elif grace > 0 and self._on_grace is not None:
            self.grace = trio.CancelScope(deadline=self._stop_by)
            self._on_grace(self._end_grace)
        return True

    @trio.lowlevel.enable_ki_protection
    async def _end_grace(self) -> None:
        """Cancel the attempt when its grace is over, wherever the executor may have moved its deadline to.

        Cancellation: it is not cancelled.
        """
        assert self.grace is not None  # it is made before this is called
        with self.grace:
            await trio.sleep_forever()
        if self._context is not None:
            self._apply_stop(self._context.cancel_scope)

    def refuse(self) -> None:
        """Take it that the executor knows of the shutdown that refused it something."""
        assert self._context is not None  # it has asked
        self._context.watches_stopping = True

    @property
    def is_timed_out(self) -> bool:
        """Whether the deadline came before any request, and before the job cancelled itself."""
        if self._cause is not None or self._context is None:
            return False
        scope = self._context.cancel_scope
        if not scope.cancel_called:
            return False  # a deadline that has passed makes it true for good, wherever it is moved then
        source = _source_of(scope)
        if source == "explicit" and not self._failed:
            return False
        return source == "deadline" or trio.current_time() >= scope.deadline

    def may_be_cancelled(self) -> bool:
        """Whether a request to cancel can still decide how the job ends."""
        if self._cause == LOST:
            return True  # it decides nothing any more
        # A deadline that passes behind the exit decides nothing: the attempt may have asked for another one.
        return not (self.decided or (self.is_last and not self.over and self.is_timed_out))

    def is_stopped(self) -> bool:
        """Whether it was asked to end."""
        return self._cause is not None

    def is_lost(self) -> bool:
        """Whether its worker has lost the lease, so that nothing it does counts."""
        return self._cause == LOST

    def _apply_stop(self, scope: trio.CancelScope) -> None:
        if self._stop_by <= trio.current_time():
            scope.cancel(reason="the job was asked to stop")
        else:
            scope.deadline = min(scope.deadline, self._stop_by)

    # -- running it

    async def run(
        self,
        registry: JobRegistry,
        resolve: Callable[[JobEntry], Callable[[JobContext], Awaitable[Any]]],
        open_log: Callable[[JobEntry], TokenLog],
        save: Callable[[JobEntry, Any], Awaitable[None]],
        prepare: Callable[[Any], Any] | None = None,
    ) -> Verdict:
        """Run the executor to the end of its nursery and return the verdict.

        Raises only `KeyboardInterrupt`, `SystemExit`, and `trio.Cancelled` when the caller itself is cancelled.

        Cancellation: returns or raises once the executor's tasks are gone.
        """
        if self._cause is not None:
            self.over = True  # stopped before its task came to run: the executor is never entered
            return Stopped(self._cause, None)
        entry = self.claim.entry
        result: Any = None
        raised: BaseException | None = None
        group: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                if self._limit != inf:
                    scope.deadline = self._deadline = trio.current_time() + self._limit
                context = self._context = JobContext(entry, nursery, registry, open_log, save, prepare)
                context.attempt = self.claim.attempt  # the entry may know of a later one by now
                task = self.task = nursery.parent_task
                turns, self.references = _traces(task)
                try:
                    result = await _enter(resolve(entry), context)
                except BaseException as exc:
                    raised = self._sift(exc, scope)
                    self._fail(scope)
                finally:
                    self.has_used_task = turns is None or (turns, self.references) != _traces(task)
        except BaseException as exc:
            group = exc
        else:
            if not scope.cancel_called and self._cause is None:  # where the executor raised, its scope is cancelled
                self._leave(context)
                return Returned(result)
        try:
            timed_out = self.is_timed_out
            self._leave(context)
            if group is not None:
                _let_out(group)
            # Unless a child has failed first; where stop() has asked for it, that is the cause.
            by_itself = scope.cancel_called and not self._failed and (group is None or _source_of(scope) == "explicit")
            return self._judge(result, _merge(raised, group), context, timed_out=timed_out, by_itself=by_itself)
        finally:
            raised = group = None  # their tracebacks hold this frame

    def _leave(self, context: JobContext) -> None:
        """Note that the nursery has exited; to write the end may take time, and needs nothing of it."""
        self.over = True
        context.close()
        self._context = None

    def _fail(self, scope: trio.CancelScope) -> None:
        """Cancel the child tasks of an executor that raised, as a nursery would."""
        if not scope.cancel_called:
            self._failed = True
            scope.cancel(reason="the executor raised")

    def _sift(self, exc: BaseException, scope: trio.CancelScope) -> BaseException | None:
        """Return what the executor raised but for the `trio.Cancelled`s that were raised for its scope.

        Raises what must leave the attempt: an exit, and what was raised because the caller is cancelled.
        """
        if holds(exc, EXITS):
            raise exc
        cancelled, rest = parted(exc, trio.Cancelled)
        if cancelled is None:
            return exc
        if not scope.cancel_called:
            if trio.current_effective_deadline() == -inf:
                raise exc
            return RuntimeError(f"the executor raised a trio.Cancelled that no scope of its own asked for: {exc!r}")
        # They have reached the scope that they were raised for. An outer one that is cancelled as well raises again at
        # the next checkpoint; to raise them through the nursery would only cost a group.
        return rest

    def _judge(
        self, result: Any, exception: BaseException | None, context: JobContext, *, timed_out: bool, by_itself: bool
    ) -> Verdict:
        scope = context.cancel_scope
        if self._cause == SHUTDOWN and not (self._has_run_out(scope) or context.watches_stopping):
            self._cause = None  # it came to its own end within the grace, and knew nothing of the stop
        if self._cause is not None:
            return Stopped(self._cause, exception)
        if timed_out:
            return TimedOut(self._limit if scope.deadline == self._deadline else inf, exception)
        if by_itself:
            return Stopped(SELF, exception)
        return Returned(result) if exception is None else Raised(exception)

    def _has_run_out(self, scope: trio.CancelScope) -> bool:
        """Whether its scope was cancelled because the time was up, and not by what the job did."""
        if self._failed or not scope.cancel_called:
            return False
        # The source tells it also where the executor has moved the deadline since.
        return _source_of(scope) == "deadline" or trio.current_time() >= min(self._stop_by, scope.deadline)


@trio.lowlevel.disable_ki_protection
async def _enter(function: Callable[[JobContext], Awaitable[Any]], context: JobContext) -> Any:
    """Run the executor where Ctrl-C may interrupt it, unlike the task that it is in."""
    return checked(function, await function(context))


def checked(function: Callable[..., Any], result: Any) -> Any:
    """Return what an executor returned; raise `TypeError` for what it only made, and of which nothing has run."""
    if isinstance(result, CoroutineType):
        result.close()
        raise TypeError(f"{function!r} returned a coroutine, of which nothing has run: await it in an async function")
    if isinstance(result, AsyncGeneratorType):
        raise TypeError(f"{function!r} returned an async generator: send its values with job.send")
    return result


def _traces(task: trio.lowlevel.Task) -> tuple[int | None, int]:
    """Return how often a task has let others run, and how many references to it there are; None if unknown.

    Trio counts the first for `trio.testing.assert_checkpoints`. The second grows where a lock or a limiter notes its
    holder and lets nobody run meanwhile, as by `acquire_nowait`; or where something is kept for the task by a weak
    reference to it.
    """
    if _references_to is None:
        return None, 0
    return getattr(task, "_schedule_points", None), _references_to(task) + getweakrefcount(task)


def _let_out(group: BaseException) -> None:
    """Raise what of a nursery's exceptions must leave the attempt; the nursery's own scope has taken all else."""
    for leaf in leaves(group):
        if isinstance(leaf, EXITS):
            raise leaf
    if trio.current_effective_deadline() == -inf and (cancelled := parted(group, trio.Cancelled)[0]) is not None:
        raise cancelled


def _merge(raised: BaseException | None, group: BaseException | None) -> BaseException | None:
    """Return what the executor raised and what came out of its nursery as one exception.

    The group that the attempt's own nursery makes is opened where it has a single exception; any other group is
    kept whole.
    """
    if group is None:
        return raised
    exceptions = list(group.exceptions) if isinstance(group, BaseExceptionGroup) else [group]
    if raised is not None:
        exceptions.insert(0, raised)
    if len(exceptions) == 1:
        return exceptions[0]
    return BaseExceptionGroup("the executor and its child tasks raised", exceptions)


def _source_of(scope: trio.CancelScope) -> str | None:
    """Return what cancelled a scope, as `trio.Cancelled.source` tells it; None if unknown.

    Where no task has met that at a checkpoint, it is told by nothing else.
    """
    return getattr(getattr(scope, "_cancel_reason", None), "source", None)
