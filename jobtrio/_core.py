"""What a registry is made of, put together: store, dispatcher, runner, leases, tails, events.

It owns the order in which the parts start and stop, and the publishing of changes. It must not check user input
(`_registry` and `_submission` do), nor know one store from another.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final

import attrs
import trio

from jobtrio._calls import RegistryCalls
from jobtrio._checks import check_id
from jobtrio._dispatcher import Dispatcher
from jobtrio._errors import StoreUnavailableError, UnknownJobError
from jobtrio._events import Events
from jobtrio._leases import Leases
from jobtrio._nursery import lineage
from jobtrio._ringer import Ringer
from jobtrio._runner import HARD_EXIT, Runner
from jobtrio._settlement import SHUTDOWN
from jobtrio._state import JobState
from jobtrio._submission import Submissions
from jobtrio._tail import GONE, Tails
from jobtrio._token_log import TokenLog
from jobtrio.abc import Claim, JobStore, StoreSettings
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobtrio._attempt import Attempt
    from jobtrio._entry import JobEntry
    from jobtrio._policies import RateLimit, Retention
    from jobtrio._registry import JobRegistry
    from jobtrio.executors import Executors


CLOSED: Final = "the registry was closed before the job ended"
"""What readers of a job that goes on elsewhere are told."""

PRUNE_AFTER: Final = 1 / 60
PRUNE_AT_MOST: Final = 60.0
"""Between two prunings, as a share of the time that ended jobs are kept, and in seconds: the lesser of the two. So much
longer are they kept, but not each of them is removed by itself."""


@attrs.frozen
class RegistryStats:
    """Counts of a registry's jobs at one moment.

    Attributes:
        worker: This process's name.
        states: How many kept jobs are in each state; empty with a durable store, where `JobRegistry.counts` gives them.
        running: How many jobs run in this process, not counting those that are over and whose ends are being written.
        max_running: How many may run at once.
        running_by_queue: How many run in this process, by queue.
    """

    worker: str
    states: dict[JobState, int]
    running: int
    max_running: int
    running_by_queue: dict[str, int]


class RegistryCore(RegistryCalls):
    """The inside of one registry; also the store's listener and the handles' owner."""

    def __init__(
        self,
        executors: Executors | None,
        store: JobStore | None,
        *,
        max_running: int,
        queues: Mapping[str, int] | None,
        max_queued: int,
        retention: Retention,
        lease: float,
        worker: str,
        max_running_total: Mapping[str, int],
        rate_limits: Mapping[str, RateLimit],
    ) -> None:
        super().__init__(MemoryJobStore() if store is None else store)
        self._ringer = Ringer()
        self.submissions: Submissions = Submissions(
            executors,
            limiter=trio.CapacityLimiter(max_running),
            queues=queues,
            durable=self._durable,
            checks_values=self.store.checks_values,
            worker=worker,
        )
        self.settings: StoreSettings = StoreSettings(
            *(worker, retention, max_queued, self, self._new_log),
            max_running_total=max_running_total,
            new_entry=self.submissions.entry,
            rate_limits=rate_limits,
        )
        self.events: Events = Events()
        self._max_running = max_running
        self._queues = queues
        # Those whose jobs run here; None for all.
        self._executors = self.submissions.executors if self._durable else None
        self._stop = trio.Event()
        self._claimed_by = inf  # until when, by the clock of Trio, claims under way are waited for, once it ends
        self.serving: trio.Event = trio.Event()
        self._tails = Tails(self.store, self._feeds, self._give_up, claims=queues != {})
        self._runner = Runner(
            self.store,
            queues=queues,
            resolve=self.submissions.function_of,
            retry_on=self.submissions.retry_on,
            open_log=self._log_of,
            catch_up=self._tails.catch_up,
            let_go=self._let_go,
        )
        self._leases = Leases(self.store, lease, shows=queues != {})
        if self._durable:
            self._runner.on_over = self._attempt_over
        self._dispatcher = Dispatcher(
            self.store,
            self._runner,
            max_running=max_running,
            executors=self._executors,
            lease=lease if self._durable else inf,
            is_paced=bool(rate_limits),
            adopt=self._adopt if self._durable else None,
        )

    # -- life

    def introduce(self, registry: JobRegistry) -> None:
        """Take the registry's front, which executors are given."""
        self._runner.registry = registry

    @trio.lowlevel.enable_ki_protection
    async def serve(self) -> None:
        """Run the parts until `close`. Jobs end before the services that they use."""
        try:
            # Bounded by close(): the jobs of a cancelled program are stopped by it, in order, not all at once.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as services:
                    self._tails.nursery = self._runner.services = services
                    if self._queues != {}:  # a process that only watches does not decide what is kept
                        services.start_soon(self._prune)
                    services.start_soon(self._ringer.run)
                    if self._durable:
                        services.start_soon(self._leases.run)
                        services.start_soon(self._tails.run)
                    else:
                        await self.store.renew((), inf)  # this worker is there
                    try:
                        async with trio.open_nursery() as jobs:
                            self._dispatcher.jobs = jobs
                            jobs.start_soon(self._dispatch)
                            self.serving.set()
                        with trio.move_on_after(HARD_EXIT):
                            await self._tails.see_ends()
                    finally:
                        self._tails.nursery = None  # what is followed from here on is cut off in the end
                    services.cancel_scope.cancel()
        finally:
            await self._end()

    async def _end(self) -> None:
        """End what is left: here rather than in `close`, which a second Ctrl-C may interrupt."""
        self._dispatcher.jobs = None
        self._closed = self._dispatcher.closing = True
        try:
            await self.store.abandon(SHUTDOWN)
        finally:
            self.events.close()
            self._tails.cut_off(CLOSED)
            self._served.set()
            self._runner.look_again()

    @trio.lowlevel.enable_ki_protection
    async def _dispatch(self) -> None:
        claiming = trio.CancelScope(shield=True)  # where all is torn down as well, a claim under way is waited for
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._claim, claiming)
            try:
                await self._stop.wait()
            finally:
                self._dispatcher.closing = True
                self._bound_claiming()
                with trio.CancelScope(shield=True):
                    await self._wait_claimed()  # again, since a second Ctrl-C may have ended that of `shutdown`
                claiming.cancel()
        self._dispatcher.dismiss()

    @trio.lowlevel.enable_ki_protection
    async def _claim(self, scope: trio.CancelScope) -> None:
        try:
            with scope:
                await self._dispatcher.run()
        finally:
            self._claimed_by = -inf  # no answer comes any more

    def _bound_claiming(self) -> None:
        self._claimed_by = min(self._claimed_by, trio.current_time() + HARD_EXIT)

    async def _wait_claimed(self) -> None:
        """Wait, within limits, for a claim under way: what it brings is given back rather than left to lapse."""
        with trio.move_on_at(self._claimed_by):
            while self._dispatcher.is_claiming:
                await self._runner.changes.park()

    async def wait_done(self) -> None:
        """Wait for what this process runs and, where nothing outlives it, for all that will run."""
        await self._wait_idle(scheduled=True, others=not self._durable)

    async def drain(self) -> None:
        """Wait until nothing is queued, waiting to retry, or running here."""
        jobs = self._dispatcher.jobs
        if jobs is not None and any(task.parent_nursery is jobs for task in lineage(trio.lowlevel.current_task())):
            raise RuntimeError("a job that waits for drain() waits for itself: call it from outside the jobs")
        self.check_awaited("registry.drain()", "registry.drain")
        await trio.lowlevel.checkpoint()
        await self._wait_idle(scheduled=False, others=True)

    @trio.lowlevel.enable_ki_protection
    async def _wait_idle(self, *, scheduled: bool, others: bool) -> None:
        while not self._served.is_set():
            if not self._runner.running:
                if not others or self._closed:  # once it is shut down, nothing that waits is started here
                    return
                answers = self._dispatcher.answers
                try:
                    backlog = await self._ask(partial(self.store.backlog, self._queues, self._executors))
                except trio.ClosedResourceError:
                    return  # meanwhile all of it was closed
                if answers != self._dispatcher.answers:
                    continue  # what was running as it was counted may wait for its next attempt by now
                waiting = backlog.queued + backlog.retrying + (backlog.scheduled if scheduled else 0)
                # A claim under way may hold what the backlog counts no more.
                is_settled = self._dispatcher.has_looked and not self._dispatcher.is_claiming
                if is_settled and not waiting and not self._runner.running:
                    return
            with trio.move_on_after(self.store.poll_interval):
                await self._runner.changes.park()

    @trio.lowlevel.enable_ki_protection
    async def shutdown(self, grace: float) -> None:
        """Stop claiming, stop what runs, and wait until it is gone."""
        self.check_awaited("registry.shutdown()", "registry.shutdown")
        self._closed = self._leases.closing = True
        self._dispatcher.stop(grace)
        self._bound_claiming()
        await self._wait_claimed()
        while self._runner.running:
            await self._runner.changes.park()
        if not self._served.is_set():  # else what lives in the store is another registry's
            await self.store.abandon(SHUTDOWN)

    @trio.lowlevel.enable_ki_protection
    async def close(self) -> None:
        """End everything, in order: the jobs, then the services, then the subscriptions."""
        try:
            await self.shutdown(0.0)
        finally:
            self._stop.set()  # also where the wait was interrupted: `serve` ends when the jobs are gone
        await self._served.wait()

    @trio.lowlevel.enable_ki_protection
    async def _prune(self) -> None:
        rest = min(PRUNE_AFTER * self.settings.retention.finished_for, PRUNE_AT_MOST)
        while True:
            try:
                pause = await self.store.prune()
            except StoreUnavailableError:
                await trio.sleep(self.store.poll_interval)
                continue
            if pause == inf:
                await self._runner.changes.park()
                pause = rest
            await trio.sleep(max(pause, rest) if pause > 0 else 0)  # each job has a moment of its own

    @trio.lowlevel.enable_ki_protection
    async def pause(self, queue: str, seconds: float) -> None:
        """Have no more jobs of a queue started; whoever waits for those that wait in it looks again."""
        await super().pause(queue, seconds)
        self._runner.look_again()

    async def remove(self, job_id: str) -> None:
        """Forget an ended job, here as well: whoever holds its handle keeps what that says."""
        job_id = check_id("job_id", job_id)
        known = self._known.get(job_id)
        if known is not None:
            with trio.move_on_after(self.store.outage_limit):
                await self._tails.see_end(known)
        await super().remove(job_id)
        if known is not None and job_id not in self._runner.running:
            self._log_of(known).cut_off(GONE)  # for readers that have not seen its end
            self._known.forget(known)

    # -- what the store tells

    def changed(self, entry: JobEntry) -> None:
        """Tell everybody of a job's newest change."""
        told = entry  # that by which others know the job may be ahead of it
        if self._durable:
            entry = self._known.entry_of(entry)
        if entry.outcome is not None:
            if self._durable and not self._is_written_here(entry):
                self._tails.look(entry.id)  # the copy here may lag: it is brought up to the End that is stored
            elif entry.log is not None:
                entry.log.finish(entry.outcome)
            self._runner.look_again()
        if self.events.log is None:
            return
        if self._durable:
            self.events.publish_in_order(entry, told, self.settings.worker)
        else:
            self.events.publish(told.last_transition(), told.plan.executor)

    def work_ready(self) -> None:
        """Have the dispatcher start what is ready."""
        self._dispatcher.work_ready()

    def due_changed(self) -> None:
        """Have the dispatcher look when the next due time is."""
        self._dispatcher.ring()

    def messages_added(self, job_id: str | None) -> None:
        """Have the job's tail look, or all of them."""
        if job_id is None:
            self._tails.look_at_all()
        else:
            self._tails.look(job_id)

    def cancel_requested(self, job_id: str | None) -> None:
        """Have the leases look, where another process has asked."""
        if not self._durable:
            return
        if job_id is None or job_id in self._runner.running:
            self._leases.look()
        if self._dispatcher.is_claiming:
            self._dispatcher.asked_early.add(job_id)  # the answer to the claim may not have come yet

    def _new_log(self) -> TokenLog:
        return TokenLog(self.settings.retention.tokens_per_job, ringer=self._ringer)

    @trio.lowlevel.enable_ki_protection
    def open_log(self, entry: JobEntry) -> TokenLog:
        """Return a job's log in this process for a reader, brought up to what is stored from now on."""
        log = self._log_of(entry)
        if self._durable and log.end is None:
            if not self._served.is_set():
                self.check_run("job.subscribe()", "job.subscribe")
            log.may_lag = not self._feeds(entry.id, log)
            if self._served.is_set():
                log.cut_off(CLOSED)
            else:
                self._tails.follow(entry)
        return log

    async def catch_up(self, entry: JobEntry) -> TokenLog:
        """Return a job's log in this process with all that is stored by now, or raise `UnknownJobError`."""
        if self._durable and self._log_of(entry).end is None:
            self.check_awaited("job.span()", "job.span")
        log = self.open_log(entry)
        if log.may_lag:
            await self._ask(partial(self._tails.look_now, entry))
            if log.cut == GONE:
                raise UnknownJobError(entry.id)
        else:
            await trio.lowlevel.checkpoint()
        return log

    async def has_stored(self, entry: JobEntry, number: int) -> bool:
        """Tell whether the store has a message of which a log in this process may not know."""
        if not self._durable:
            await trio.lowlevel.checkpoint()
            return False  # the log has all there is
        return bool(await self._ask(partial(self.store.read_messages, entry.id, number - 1, 1)))

    def _log_of(self, entry: JobEntry) -> TokenLog:
        log = entry.log
        if log is None:
            log = entry.log = self._new_log()
            if entry.outcome is not None and not self._durable:
                log.finish(entry.outcome)
        return log

    def _feeds(self, job_id: str, log: TokenLog) -> bool:
        """Whether an attempt in this process writes to this log of this job, with all in it that came before."""
        attempt = self._runner.running.get(job_id)
        return attempt is not None and attempt.is_caught_up and attempt.claim.entry.log is log

    def _is_written_here(self, entry: JobEntry) -> bool:
        """Whether a job's end was written by an attempt in this process that has all messages before it.

        An attempt after which the job was to go on may not have them: others may have ended the job since. Nor may one
        that lost its job on the way: what it has sent may not be stored.
        """
        attempt = self._runner.running.get(entry.id)
        if attempt is None or not (attempt.decided and attempt.is_caught_up):
            return False
        claim = attempt.claim
        return claim.entry is entry and (entry.claim, entry.attempt) == (claim.id, claim.attempt)

    def _let_go(self, entry: JobEntry) -> None:
        """Part with the local stream of a job that was lost: others go on with other messages of the same numbers."""
        log, entry.log = entry.log, None
        if log is not None:
            log.cut_off("this process lost the job, whose stream goes on elsewhere: subscribe again")

    def _give_up(self, entry: JobEntry | None, log: TokenLog, why: str, by: type[Exception]) -> None:
        """Part with a stream that can't be followed, unless an attempt here is about to feed it."""
        if entry is not None and entry.log is log:
            if entry.id in self._runner.running:
                return
            entry.log = None  # the next to watch tries again
        log.cut_off(why, by)

    def _attempt_over(self, attempt: Attempt) -> None:
        self._leases.ended(attempt)
        entry = attempt.claim.entry
        if entry.outcome is not None and entry.log is not None and entry.log.end is None:
            self._tails.look(entry.id)  # others have ended it, and no tail could look while the attempt fed the log

    def _adopt(self, claim: Claim, asked: float) -> Attempt:
        """Prepare an attempt by a claim asked for at ``asked``; an entry that is known here stands for its job."""
        known = self._known.claimed(claim.entry)
        if known is not claim.entry:
            claim = Claim(known, claim.id, claim.attempt)
        attempt = self._runner.prepare(claim)
        self._leases.started(attempt, asked)
        if not self._dispatcher.asked_early.isdisjoint((None, claim.entry.id)):
            self._leases.look()
        return attempt

    def peek(self, job_id: str) -> JobEntry | None:
        """Return a job that this process holds, or None."""
        return self.store.peek(job_id) or self._known.get(job_id)

    def __len__(self) -> int:
        return len(self.store) + len(self._known)

    def stats(self) -> RegistryStats:
        """Return this process's counts."""
        return RegistryStats(
            worker=self.settings.worker,
            states=self.store.tally(),
            running=self._runner.occupied,
            max_running=self._max_running,
            running_by_queue=dict(self._runner.by_queue),
        )
