"""Runs claimed attempts and does what follows from their ends: saves each change, then publishes it.

What follows is decided in `_settlement`. It must not know where claims come from, nor which store keeps the
jobs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import trio

from jobtrio._attempt import Attempt
from jobtrio._errors import JobEndedError
from jobtrio._outage import keep_trying
from jobtrio._records import Completed, Failed
from jobtrio._settlement import (
    LOST,
    SHUTDOWN,
    Again,
    Finish,
    GiveBack,
    LetGo,
    NextStep,
    Stopped,
    Verdict,
    describe,
    settle,
)
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


class Runner:
    """The attempts that run in this process.

    Attributes:
        running: Each job's attempt, from its claim until its end is published.
        by_queue: How many of them there are, by queue.
        services: The nursery for what hands messages over, while there is one; it outlives the attempts.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        resolve: Callable[[JobEntry], Callable[[JobContext], Awaitable[Any]]],
        retry_on: Callable[[JobEntry], tuple[type[BaseException], ...]],
        open_log: Callable[[JobEntry], TokenLog],
        catch_up: Callable[[JobEntry, TokenLog, Callable[[], bool]], Awaitable[None]],
        let_go: Callable[[JobEntry], None],
    ) -> None:
        self.running: dict[str, Attempt] = {}
        self.by_queue: dict[str, int] = {}
        self.services: trio.Nursery | None = None
        self._store = store
        self._durable = store.durable
        self._resolve = resolve
        self._retry_on = retry_on
        self._open_log = open_log
        self._catch_up = catch_up
        self._let_go = let_go

    def prepare(self, claim: Claim) -> Attempt:
        """Register a claimed attempt, so that it can be stopped before its task has come to run."""
        attempt = Attempt(claim)
        self.running[claim.entry.id] = attempt
        queue = claim.entry.plan.queue
        self.by_queue[queue] = self.by_queue.get(queue, 0) + 1
        return attempt

    async def run(self, attempt: Attempt) -> None:
        """Run a prepared attempt and do what follows.

        Cancellation: the attempt's tasks are gone, and its end has been saved if that took no longer than 5 s.
        """
        try:
            if self._durable:
                await self._run_spooled(attempt)
            else:
                try:
                    verdict = await attempt.run(self._resolve, self._open_log, self._save_state)
                except BaseException:
                    await self._abandon(attempt, None)
                    raise
                step = settle(attempt.claim.entry, verdict, retry_on=self._retry_on, outlives=False)
                del verdict  # the traceback in it may hold this frame
                if type(step) is Finish:  # the way of most jobs, without a detour
                    attempt.decided = True
                    await self._store.finish(attempt.claim, step.outcome, error=step.error)
                else:
                    await self._take(attempt, step, None)
        finally:
            self._forget(attempt.claim.entry)

    def _forget(self, entry: JobEntry) -> None:
        del self.running[entry.id]
        left = self.by_queue[entry.plan.queue] - 1
        if left:
            self.by_queue[entry.plan.queue] = left
        else:
            del self.by_queue[entry.plan.queue]

    async def _run_spooled(self, attempt: Attempt) -> None:
        if attempt.claim.attempt > 1:
            entry = attempt.claim.entry  # its numbers go on where those of others ended
            await self._catch_up(entry, self._open_log(entry), attempt.is_stopped)
        spool = Spool(self._store, attempt.claim)

        def open_log(entry: JobEntry) -> TokenLog:
            log = self._open_log(entry)
            if spool.begin(log) and self.services is not None:
                self.services.start_soon(spool.run, partial(attempt.stop, LOST, 0.0))
            return log

        try:
            verdict = await attempt.run(self._resolve, open_log, self._save_state, spool.check)
        except BaseException:
            spool.stop()
            await self._abandon(attempt, spool)
            raise
        spool.stop()
        try:
            await self._follow(attempt, verdict, spool)
        finally:
            del verdict  # the traceback in it may hold this frame

    async def _abandon(self, attempt: Attempt, spool: Spool | None) -> None:
        """Say what can be said of an attempt when the registry itself is torn down: within 5 s."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + HARD_EXIT):
            await self._follow(attempt, Stopped(SHUTDOWN, None), spool)

    async def _save_state(self, entry: JobEntry, value: Any) -> None:
        attempt = self.running[entry.id]
        save = partial(self._store.save_state, attempt.claim, value)
        if not await keep_trying(save, attempt.is_lost):
            raise JobEndedError(entry.id)

    # -- what follows an attempt

    async def _follow(self, attempt: Attempt, verdict: Verdict, spool: Spool | None) -> None:
        entry = attempt.claim.entry
        await self._take(attempt, settle(entry, verdict, retry_on=self._retry_on, outlives=self._durable), spool)

    async def _take(self, attempt: Attempt, step: NextStep, spool: Spool | None) -> None:
        claim = attempt.claim
        entry = claim.entry
        match step:
            case Finish():
                step = _storable(step, spool)
                attempt.decided = True
                finish = partial(self._store.finish, claim, step.outcome, error=step.error, messages=_rest(spool))
                await self._write(attempt, finish, spool)
            case Again(error=error, delay=delay):
                retry = partial(self._store.retry, claim, error, delay, messages=_rest(spool))
                if await self._write(attempt, retry, spool) and entry.outcome is None:
                    self._open_log(entry).restart(claim.attempt, error, delay)
            case GiveBack():
                release = partial(self._store.release, claim, SHUTDOWN, messages=_rest(spool))
                await self._write(attempt, release, spool)
            case LetGo():
                if _rest(spool):
                    self._let_go(entry)  # what was shown here and not stored is not part of the stream
            case _:
                assert_never(step)

    async def _write(self, attempt: Attempt, write: Callable[[], Awaitable[bool]], spool: Spool | None) -> bool:
        """Write what becomes of a job, however long that takes; tell whether its claim still held it."""
        kept = await keep_trying(write, attempt.is_lost)
        if not kept and _rest(spool):
            self._let_go(attempt.claim.entry)
        return bool(kept)


def _rest(spool: Spool | None) -> list[Message]:
    return [] if spool is None else spool.rest()


def _storable(step: Finish, spool: Spool | None) -> Finish:
    """Return the step, or a failure in its place where the result can't be stored."""
    if spool is not None and isinstance(step.outcome, Completed):
        try:
            spool.check(step.outcome.result)
        except Exception as exc:
            return Finish(Failed(describe(exc)))
    return step
