"""Runs claimed attempts and does what follows from their ends: saves each change, then publishes it.

What follows is decided in `_settlement`. It must not know where claims come from, nor which store keeps the
jobs.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import trio

from jobtrio._attempt import Attempt
from jobtrio._errors import JobEndedError, PayloadError, StoreUnavailableError
from jobtrio._nursery import lineage
from jobtrio._outage import keep_trying
from jobtrio._patterns import Limits, note_running
from jobtrio._records import Completed, Failed, Outcome
from jobtrio._settlement import (
    LOST,
    SHUTDOWN,
    Again,
    Finish,
    GiveBack,
    LetGo,
    NextStep,
    Returned,
    Stopped,
    Verdict,
    describe,
    settle,
)
from jobtrio._spool import Spool, check_value, write_with

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jobtrio._context import JobContext
    from jobtrio._entry import JobEntry
    from jobtrio._registry import JobRegistry
    from jobtrio._token_log import TokenLog
    from jobtrio.abc import Claim, JobStore

logger = logging.getLogger("jobtrio")

HARD_EXIT = 5.0
"""Seconds that saving may take when the registry itself is torn down."""


class Runner:
    """The attempts that run in this process.

    Attributes:
        running: Each job's attempt, from its claim until its end is published.
        occupied: How many of them take up room: those whose executor has not ended. A job whose next attempt waits for
            an earlier one to go counts once.
        by_queue: How many of those there are, by queue.
        room: How many more there may be in each queue that has room; None for any number in every queue. Where there
            are patterns, it also names the queues of theirs that have none.
        registry: What the executors are given as their registry; there before the first attempt.
        changes: Where those wait who wait for something to be over.
        on_room: Called when one of them makes room for another.
        on_over: Called with each attempt once its end is published.
        on_grace: Called with a function that a task is to run beside the attempts: it ends the grace of one.
        on_fall: Called when one is torn down, and all others with it, before anything else is done about that.
        services: The nursery for what hands messages over, while there is one; it outlives the attempts.
    """

    registry: JobRegistry

    def __init__(
        self,
        store: JobStore,
        *,
        queues: Mapping[str, int] | None = None,
        resolve: Callable[[JobEntry], Callable[[JobContext], Awaitable[Any]]],
        retry_on: Callable[[JobEntry], tuple[type[BaseException], ...]],
        open_log: Callable[[JobEntry], TokenLog],
        catch_up: Callable[[JobEntry, TokenLog, Callable[[], bool]], Awaitable[None]],
        let_go: Callable[[JobEntry], None],
    ) -> None:
        self.running: dict[str, Attempt] = {}
        self.occupied: int = 0
        self.by_queue: dict[str, int] = {}
        self.room: Limits | None = None if queues is None else Limits(queues)
        self.changes = trio.lowlevel.ParkingLot()
        self.on_room: Callable[[], None] | None = None
        self.on_over: Callable[[Attempt], None] | None = None
        self.on_grace: Callable[[Callable[[], Awaitable[None]]], None] | None = None
        self.on_fall: Callable[[], None] | None = None
        self.services: trio.Nursery | None = None
        self._queues = None if queues is None else Limits.of(queues)
        self._tasks: dict[trio.lowlevel.Task | None, Attempt] | None = None  # once a shutdown lets no other begin
        self._store = store
        self._durable = store.durable
        self._resolve = resolve
        self._retry_on = retry_on
        self._open_log = open_log
        self._catch_up = catch_up
        self._let_go = let_go
        # Bound once: what is made for each attempt anew costs the collector, too.
        self._save = self._save_state
        self._open_spooled = self._open_spooled_log

    def prepare(self, claim: Claim) -> Attempt:
        """Register a claimed attempt, so that it can be stopped before its task has come to run."""
        attempt = Attempt(claim, self.on_grace)
        self.running[claim.entry.id] = attempt
        self._count(claim.entry.plan.queue, 1)
        return attempt

    def _count(self, queue: str, more: int) -> None:
        self.occupied += more
        running = self.by_queue.get(queue, 0) + more
        if running:
            self.by_queue[queue] = running
        else:
            del self.by_queue[queue]
        if self._queues is not None and self.room is not None:
            note_running(self.room, self._queues, queue, running)

    def refuse(self) -> None:
        """Note with the attempt that the current task is part of, if any, that a shutdown refused it something."""
        if self._tasks is None:
            self._tasks = {attempt.task: attempt for attempt in self.running.values()}
        for task in lineage(trio.lowlevel.current_task()):
            if (attempt := self._tasks.get(task)) is not None:
                attempt.refuse()
                return

    def run(self, attempt: Attempt) -> Awaitable[None]:
        """Run a prepared attempt and do what follows.

        Cancellation: the attempt's tasks are gone, and its end has been saved if that took no longer than 5 s.
        """
        return self._run_durable(attempt) if self._durable else self._run_here(attempt)

    async def _run_here(self, attempt: Attempt) -> None:
        try:
            try:
                verdict = await attempt.run(self.registry, self._resolve, self._open_log, self._save)
            except BaseException:
                await self._abandon(attempt)
                raise
            if type(verdict) is Returned:  # the way of most jobs, without a detour
                attempt.decided = True
                await self._store.finish(attempt.claim, Completed(verdict.result))
            else:
                await self._follow(attempt, verdict)
            del verdict  # the traceback in it may hold this frame
        finally:
            self._over(attempt)

    def _over(self, attempt: Attempt) -> None:
        """Let go of an attempt whose end is published, or left to others."""
        del self.running[attempt.claim.entry.id]
        if self._tasks is not None:
            self._tasks.pop(attempt.task, None)
        if attempt.grace is not None:
            attempt.grace.cancel()
        if self.on_over is not None:
            self.on_over(attempt)
        self._make_room(attempt)
        self.look_again()

    def look_again(self) -> None:
        """Let those look again who wait for something to be over."""
        if self.changes:
            self.changes.unpark_all()

    def _make_room(self, attempt: Attempt) -> None:
        """Count an attempt no more among those that take up room; its executor has ended.

        Where it takes time to write the end, that is done before: what follows may be claimed in the same commit.
        """
        if attempt.has_room:
            attempt.has_room = False
            self.free_room(attempt.claim.entry.plan.queue)

    def keep_room(self, attempt: Attempt, queue: str) -> None:
        """Keep an attempt's room, once it is gone, for the next one, until `free_room` is called for its ``queue``."""
        if attempt.has_room and attempt.claim.entry.plan.queue == queue:
            attempt.has_room = False
        else:  # or it is another job's, which has been given the same id
            self._count(queue, 1)

    def free_room(self, queue: str) -> None:
        """Count one less in a queue."""
        self._count(queue, -1)
        if self.on_room is not None:
            self.on_room()

    async def _run_durable(self, attempt: Attempt) -> None:
        claim = attempt.claim
        try:
            verdict = await self._attempted(attempt)
            try:
                has_ended = False
                if type(verdict) is Returned and attempt.spool is None:  # the way of most jobs, without a detour
                    attempt.decided = True
                    self._make_room(attempt)
                    completed = Completed(verdict.result)
                    try:
                        if not await self._store.finish(claim, completed):
                            _warn_of_loss(claim)
                        has_ended = True
                    except (StoreUnavailableError, PayloadError):
                        pass  # the detour knows what to do
                    except Exception:
                        if _storable(completed) is completed:  # it is not about the result, which nobody had checked
                            raise
                if not has_ended:
                    await self._follow(attempt, verdict)
            except trio.Cancelled:
                # All is torn down. What was under way may be asked for again: it ends as it was to.
                await self._follow_at_last(attempt, verdict)
                raise
            finally:
                del verdict  # the traceback in it may hold this frame
                if attempt.if_lost is not None and claim.entry.outcome is None:
                    attempt.if_lost()
        finally:
            self._over(attempt)

    async def _attempted(self, attempt: Attempt) -> Verdict:
        """Run an attempt of a durable job to its verdict; where all is torn down, see to it and raise."""
        entry = attempt.claim.entry
        try:
            if attempt.claim.attempt > 1:  # its numbers go on where those of others ended
                await self._catch_up(entry, self._open_log(entry), attempt.is_stopped)
                attempt.is_caught_up = not attempt.is_stopped()
            return await attempt.run(self.registry, self._resolve, self._open_spooled, self._save, check_value)
        except SystemExit:
            # It would end whoever ran it next, and so on: it counts as lost, like a job that kills its worker.
            self._give_up(attempt)
            raise
        except BaseException:
            await self._abandon(attempt)
            raise

    def _open_spooled_log(self, entry: JobEntry) -> TokenLog:
        """Return the log of an attempt that is about to send, and have it handed over to the store from now on."""
        attempt, log = self.running[entry.id], self._open_log(entry)
        attempt.spool = Spool(self._store, attempt.claim, log)
        if self.services is not None:
            self.services.start_soon(attempt.spool.run, partial(attempt.stop, LOST, 0.0))
        return log

    async def _abandon(self, attempt: Attempt) -> None:
        """Say what can be said of an attempt when the registry itself is torn down: within 5 s."""
        if self.on_fall is not None:
            self.on_fall()
        await self._follow_at_last(attempt, Stopped(SHUTDOWN, None))

    async def _follow_at_last(self, attempt: Attempt, verdict: Verdict) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + HARD_EXIT) as scope:
            await self._follow(attempt, verdict)
        if scope.cancelled_caught:
            logger.warning(
                "job %s: attempt %d is lost: the registry was torn down, and its end was not written within %g s",
                attempt.claim.entry.id,
                attempt.claim.attempt,
                HARD_EXIT,
            )

    def _give_up(self, attempt: Attempt) -> None:
        """Leave a job to the end of its lease."""
        logger.error(
            "job %s: attempt %d is lost: its executor raised SystemExit", attempt.claim.entry.id, attempt.claim.attempt
        )
        if attempt.spool is not None:
            attempt.spool.stop()
        self._settled(attempt, kept=False)

    async def _save_state(self, entry: JobEntry, value: Any) -> None:
        attempt = self.running[entry.id]
        save = partial(self._store.save_state, attempt.claim, value)
        if not await keep_trying(save, attempt.is_lost):
            raise JobEndedError(entry.id)

    # -- what follows an attempt

    async def _follow(self, attempt: Attempt, verdict: Verdict) -> None:
        if attempt.spool is not None:
            attempt.spool.stop()
        claim = attempt.claim
        step = settle(claim.entry, verdict, retry_on=self._retry_on, outlives=self._durable)
        if isinstance(step, GiveBack | LetGo) and isinstance(verdict, Stopped) and verdict.exception is not None:
            text = "job %s: attempt %d raised as it was stopped, and the job goes on"
            logger.info(text, claim.entry.id, claim.attempt, exc_info=verdict.exception)
        await self._take(attempt, step)

    async def _take(self, attempt: Attempt, step: NextStep) -> None:
        claim = attempt.claim
        entry = claim.entry
        match step:
            case Finish():
                attempt.decided = True
                finish = partial(self._store.finish, claim, _storable(step.outcome), error=step.error)
                try:
                    await self._write(attempt, finish)
                except PayloadError as exc:  # the result was changed since it was returned, while the store was away
                    failed = partial(self._store.finish, claim, Failed(describe(exc)))
                    await self._write(attempt, failed)
            case Again(error=error, delay=delay):
                retry = partial(self._store.retry, claim, error, delay, counts=step.counts)
                if await self._write(attempt, retry) and entry.outcome is None:
                    self._open_log(entry).restart(claim.attempt, error, delay)
            case GiveBack():
                release = partial(self._store.release, claim, SHUTDOWN)
                await self._write(attempt, release)
            case LetGo():
                logger.warning("job %s: attempt %d is lost: its lease was not renewed in time", entry.id, claim.attempt)
                self._settled(attempt, kept=False)
            case _:
                assert_never(step)

    async def _write(self, attempt: Attempt, write: Callable[..., Awaitable[bool]]) -> bool:
        """Write what becomes of a job, behind the rest of its messages; tell whether its claim still held it."""
        self._make_room(attempt)
        rest = [] if attempt.spool is None else attempt.spool.rest()
        kept = bool(await write_with(rest, write, attempt.is_lost))
        if not kept:
            _warn_of_loss(attempt.claim)
        self._settled(attempt, kept=kept)
        return kept

    def _settled(self, attempt: Attempt, *, kept: bool) -> None:
        """See to an attempt's messages once it is said what becomes of the job, or that it is another's."""
        if attempt.spool is None:
            return
        if not kept and attempt.spool.rest():
            self._let_go(attempt.claim.entry)  # what was shown here and not stored is not part of the stream
        else:
            attempt.spool.settled()


def _warn_of_loss(claim: Claim) -> None:
    """Say of an attempt that is over that its claim no longer held the job."""
    logger.warning(
        "job %s: attempt %d is lost: its lease was over before its end was written", claim.entry.id, claim.attempt
    )


def _storable(outcome: Outcome) -> Outcome:
    """Return the outcome, or a failure in its place where the result can't be stored."""
    if isinstance(outcome, Completed):
        try:
            check_value(outcome.result)
        except Exception as exc:
            return Failed(describe(exc))
    return outcome
