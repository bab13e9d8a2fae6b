"""Runs claimed attempts and settles what follows: saves each change, then publishes it.

It turns an attempt's verdict into the job's next state by the job's policy. It must not know where claims
come from, nor which store keeps the jobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from jobtrio import _attempt
from jobtrio._attempt import Attempt, Raised, Returned, Stopped, TimedOut, Verdict, describe
from jobtrio._errors import GiveUp, JobEndedError, RetryLater
from jobtrio._outage import keep_trying
from jobtrio._policies import RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed, JobError, Outcome
from jobtrio._spool import Spool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._context import JobContext
    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import Claim, JobStore

HARD_EXIT = 5.0
"""Seconds that saving may take when the registry itself is torn down."""

SHUTDOWN_REASON = "shutdown"


class Runner:
    """The attempts that run in this process.

    Attributes:
        running: Each job's attempt, from its claim until its end is published.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        resolve: Callable[[JobEntry], Callable[[JobContext], Awaitable[Any]]],
        retry_on: Callable[[JobEntry], tuple[type[BaseException], ...]],
        open_log: Callable[[JobEntry], TokenLog],
        publish: Callable[[JobEntry], None],
        on_gone: Callable[[], None],
    ) -> None:
        self.running: dict[str, tuple[Attempt, Claim]] = {}
        self._store = store
        self._resolve = resolve
        self._retry_on = retry_on
        self._open_log = open_log
        self._publish = publish
        self._on_gone = on_gone

    def prepare(self, claim: Claim) -> Attempt:
        """Register a claimed attempt, so that it can be stopped before its task has come to run."""
        plan = claim.entry.plan
        attempt = Attempt(claim.entry, is_last=claim.attempt >= plan.max_attempts, limit=plan.time_limit)
        self.running[claim.entry.id] = (attempt, claim)
        return attempt

    async def run(self, attempt: Attempt, claim: Claim) -> None:
        """Run a prepared attempt and settle what follows.

        Cancellation: the attempt's tasks are gone, and its end has been saved if that took no longer than 5 s.
        """
        try:
            if self._store.durable:
                await self._run_spooled(attempt, claim)
            else:
                verdict = await self._run_guarded(attempt, claim, None)
                await self._settle(attempt, claim, verdict, None)
        finally:
            del self.running[claim.entry.id]
            self._on_gone()

    async def _run_spooled(self, attempt: Attempt, claim: Claim) -> None:
        spool = Spool(self._store, claim, self._open_log(claim.entry))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.run)
            verdict = await self._run_guarded(attempt, claim, spool)
            nursery.cancel_scope.cancel()
        await self._settle(attempt, claim, verdict, spool)

    async def _run_guarded(self, attempt: Attempt, claim: Claim, spool: Spool | None) -> Verdict:
        entry = claim.entry
        try:
            function = self._resolve(entry)
        except Exception as exc:
            attempt.over = True
            return Raised(exc)
        prepare = None if spool is None else spool.check
        try:
            return await attempt.run(
                function, self._open_log(entry), _Saver(self._store, claim, attempt.is_lost), prepare
            )
        except BaseException:
            # The registry is torn down: what can be said of this attempt is said within a bound.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + HARD_EXIT):
                await self._settle(attempt, claim, Stopped(_attempt.SHUTDOWN, None), spool)
            raise

    # -- what follows an attempt

    async def _settle(self, attempt: Attempt, claim: Claim, verdict: Verdict, spool: Spool | None) -> None:
        match verdict:
            case Returned(result):
                await self._end(claim, self._completed(result, spool), spool)
            case Raised(exception):
                await self._failed(claim, exception, spool)
            case TimedOut(limit, exception):
                await self._fail_or_retry(claim, _timed_out(limit, exception), self._policy_delay(claim), spool)
            case Stopped(_attempt.LOST, _):
                pass  # fenced: nothing that it did counts, and the store has it for others
            case Stopped(_attempt.SHUTDOWN, _) if self._store.durable:
                messages = [] if spool is None else spool.rest()
                await keep_trying(
                    lambda: self._store.release(claim, SHUTDOWN_REASON, messages=messages), attempt.is_lost
                )
                self._publish(claim.entry)
            case Stopped(cause, exception):
                error = None if exception is None else describe(exception)
                await self._end(claim, _cancelled(claim.entry, cause), spool, error)

    async def _failed(self, claim: Claim, exception: BaseException, spool: Spool | None) -> None:
        delay = None
        error = describe(exception)
        if isinstance(exception, GiveUp):
            error = describe(exception, "gave_up")
        elif isinstance(exception, RetryLater):
            policy = claim.entry.plan.retry or RetryPolicy()
            delay = exception.delay if claim.attempt < policy.max_attempts else None
        elif _is_retried(exception, self._retry_on(claim.entry)):
            delay = self._policy_delay(claim)
        await self._fail_or_retry(claim, error, delay, spool)

    @staticmethod
    def _policy_delay(claim: Claim) -> float | None:
        policy = claim.entry.plan.retry
        if policy is None or claim.attempt >= policy.max_attempts:
            return None
        return policy.delay_after(claim.attempt)

    async def _fail_or_retry(self, claim: Claim, error: JobError, delay: float | None, spool: Spool | None) -> None:
        if delay is None:
            await self._end(claim, Failed(error), spool)
            return
        seconds, messages = delay, _rest(spool)
        kept = await keep_trying(
            lambda: self._store.retry(claim, error, seconds, messages=messages), self._is_lost(claim)
        )
        if kept:
            if claim.entry.outcome is None:
                self._open_log(claim.entry).restart(claim.attempt, error, seconds)
            self._publish(claim.entry)

    async def _end(self, claim: Claim, outcome: Outcome, spool: Spool | None, error: JobError | None = None) -> None:
        self.running[claim.entry.id][0].decided = True
        messages = _rest(spool)
        if await keep_trying(
            lambda: self._store.finish(claim, outcome, error=error, messages=messages), self._is_lost(claim)
        ):
            self._publish(claim.entry)

    def _is_lost(self, claim: Claim) -> Callable[[], bool]:
        return self.running[claim.entry.id][0].is_lost

    @staticmethod
    def _completed(result: Any, spool: Spool | None) -> Outcome:
        if spool is not None:
            try:
                spool.check(result)
            except Exception as exc:
                return Failed(describe(exc))
        return Completed(result)


class _Saver:
    """Saves an attempt's state, under its claim."""

    __slots__ = ("_claim", "_is_lost", "_store")

    def __init__(self, store: JobStore, claim: Claim, is_lost: Callable[[], bool]) -> None:
        self._store = store
        self._claim = claim
        self._is_lost = is_lost

    async def __call__(self, value: Any) -> None:
        if not await keep_trying(lambda: self._store.save_state(self._claim, value), self._is_lost):
            raise JobEndedError(self._claim.entry.id)


def _rest(spool: Spool | None) -> list[Message]:
    return [] if spool is None else spool.rest()


def _is_retried(exception: BaseException, classes: tuple[type[BaseException], ...]) -> bool:
    """Whether all that an exception stands for is of the classes to retry."""
    if isinstance(exception, classes):
        return True
    return isinstance(exception, BaseExceptionGroup) and exception.split(classes)[1] is None


def _timed_out(limit: float, exception: BaseException | None) -> JobError:
    message = f"the attempt took longer than its time limit of {limit:g} s"
    if exception is None:
        return JobError("timeout", "TimedOut", message)
    after = describe(exception)
    return JobError("timeout", "TimedOut", f"{message}; its clean-up raised {after}", after.traceback)


def _cancelled(entry: JobEntry, cause: str) -> Cancelled:
    if cause == _attempt.SHUTDOWN:
        return Cancelled(SHUTDOWN_REASON)
    return Cancelled(None if entry.cancel is None or cause == _attempt.SELF else entry.cancel.reason)
