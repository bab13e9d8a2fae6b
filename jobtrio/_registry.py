"""`JobRegistry`: the front of the library.

It checks what it is given and passes calls on; what a call means is decided in the part it goes to. Nothing
below this module knows it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import attrs
import trio

from jobtrio._checks import (
    LATEST,
    check_count,
    check_flag,
    check_id,
    check_name,
    check_seconds,
    check_tags,
    check_wait,
    show,
)
from jobtrio._job import Job
from jobtrio._pages import PAGE, FoundJobs
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import moment
from jobtrio._state import JobState, check_states
from jobtrio._streams import TextStream
from jobtrio._submission import DEFAULT_QUEUE, HELD, JobSpec
from jobtrio._subscription import Subscription
from jobtrio.abc import JobQuery
from jobtrio.executors import Executors, check_executor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from datetime import datetime

    from jobtrio._core import RegistryCore, RegistryStats
    from jobtrio._events import EventSubscription
    from jobtrio._records import JobRecord, Transition, WorkerReport


_parameters = attrgetter(*(field.name for field in attrs.fields(JobSpec)))  # in the order in which `entry` takes them


class JobRegistry:
    """The jobs of a program: submits, finds, watches and cancels them. Made by `open_registry`.

    Its methods are for the run of Trio that opened it. Elsewhere, for example in another thread, those that can't be
    called there raise ``RuntimeError``, which says how to make the call.
    """

    def __init__(self, core: RegistryCore) -> None:
        self._core = core
        core.introduce(self)

    @property
    def executors(self) -> Executors:
        """The named executors."""
        return self._core.submissions.executors

    # -- submitting

    async def submit(
        self,
        executor: Callable[[Any], Any] | str,
        payload: Any = None,
        *,
        job_id: str | None = None,
        key: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: JobPriority = JobPriority.NORMAL,
        time_limit: float | None = None,
        retry: RetryPolicy | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        expires_in: float | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Job:
        """Accept a job and return its handle; it runs as soon as it can.

        Args:
            executor: An async function, a plain function (run in a worker thread), a partial or callable object of
                either kind, or the name of a registered one. It gets a `JobContext`.
            payload: What the executor is given as ``job.payload``.
            job_id: The job's id, 1 to 200 printable characters; None generates one, of 128 random bits.
            key: An idempotency key: while the job is kept, another submission with this key returns it.
            queue: The queue to wait in; if not given, the one that the executor is registered with, or else "default".
            priority: Strict between levels, first in first out within one.
            time_limit: Seconds an attempt may take; None for what the executor is registered with.
            retry: The retry policy; None for what the executor is registered with. Without one there is one attempt.
            delay: Seconds from now to the earliest start; excludes ``run_at``.
            run_at: The earliest start, an aware datetime.
            expires_in: Seconds from now within which the first attempt has to start; more than the delay.
            tags: Strings by name, to find the job by; at most 1,000.
            metadata: Any values by name.

        Raises:
            TypeError, ValueError: A parameter is invalid; the error names it, its value, and what is allowed.
            UnknownExecutorError: No executor has this name.
            PayloadError: The payload or the metadata can't be stored (durable stores).
            DuplicateJobError: ``job_id`` is in use.
            QueueFullError: As many jobs wait for their first start as ``max_queued`` allows (memory store).
            StoreUnavailableError: The store was away too long (durable stores). The job may have been stored.
            trio.ClosedResourceError: The registry is shut down; if that was while the store was away, the job may have
                been stored.

        Cancellation: the job was not accepted; with a durable store it may have been.
        """
        entry = self._core.submissions.entry(
            executor,
            payload,
            job_id,
            key,
            queue,
            priority,
            time_limit,
            retry,
            delay,
            run_at,
            expires_in,
            tags,
            metadata,
        )
        return Job((await self._core.insert((entry,)))[0], self._core)

    async def submit_many(self, specs: Iterable[JobSpec]) -> list[Job]:
        """Accept several jobs, all or none, and return their handles in order.

        Raises what `submit` raises, for the first spec that is at fault.

        Cancellation: none was accepted; with a durable store all may have been.
        """
        if not isinstance(specs, Iterable):
            raise TypeError(f"specs must be an iterable of JobSpec values; got {show(specs)}")
        specs, entries = list(specs), []
        now = time.time()  # of all: those that are to start at one moment become ready in order
        for n, spec in enumerate(specs):
            if not isinstance(spec, JobSpec):
                raise TypeError(f"specs must be JobSpec values; specs[{n}] is {show(spec)}")
            try:
                entries.append(self._core.submissions.entry(*_parameters(spec), now=now))
            except Exception as exc:
                exc.add_note(f"in specs[{n}]")
                raise
        return [Job(entry, self._core) for entry in await self._core.insert(entries)]

    async def create_job(
        self,
        payload: Any = None,
        *,
        job_id: str | None = None,
        key: str | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: JobPriority = JobPriority.NORMAL,
        time_limit: float | None = None,
        retry: RetryPolicy | None = None,
        delay: float | None = None,
        run_at: datetime | None = None,
        expires_in: float | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Job:
        """Accept a job without an executor: it is held until `execute_and_stream` provides one.

        A job that nobody executes within `Retention.held_for` seconds, counted from its earliest start, fails as
        expired. The parameters and errors are those of `submit`.

        Cancellation: the job was not accepted; with a durable store it may have been.
        """
        entry = self._core.submissions.entry(
            HELD, payload, job_id, key, queue, priority, time_limit, retry, delay, run_at, expires_in, tags, metadata
        )
        return Job((await self._core.insert((entry,)))[0], self._core)

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def execute_and_stream(
        self, job_id: str, executor: Callable[[Any], Any] | str, *, time_limit: float | None = None
    ) -> AsyncIterator[TextStream]:
        """Start a held job, or join one that was already started, and give its stream as text.

        Within the block, the async iterator yields ``str(token)`` for each token from the beginning, and then one
        line: ``[DONE]``, ``[ERROR] message`` or ``[CANCELLED]``. The first executor wins. Leaving the block early
        cancels nothing. The job stays in the queue that it was created for, even if the executor is registered for
        another.

        Args:
            job_id: A job from `create_job`, or any other.
            executor: What to run, if nothing has been started yet.
            time_limit: Seconds an attempt may take; wins over what the job was created with.

        Raises:
            TypeError, ValueError: A parameter is invalid.
            UnknownJobError: No job has this id.
            UnknownExecutorError: Nothing has been started yet, and no executor has this name.
            StoreUnavailableError: The store was away too long (durable stores). The job may have been started. While
                iterating: as `Subscription.receive`.
            trio.ClosedResourceError: The registry is closed (durable stores), or its store serves another one by now.
            LaggedError: While iterating: messages are no longer kept. Further iteration goes on after them.
            trio.BrokenResourceError: While iterating: as `Subscription.receive` (durable stores).

        Cancellation: a job that was started goes on.
        """
        if not isinstance(executor, str):
            check_executor(executor)
        if time_limit is not None:
            time_limit = check_seconds("time_limit", time_limit, zero=False, infinite=True)
        entry = await self._core.load(job_id)
        if entry.is_held and not entry.state.is_final:
            held = entry.plan
            plan = self._core.submissions.plan(
                executor,
                queue=held.queue,
                priority=held.priority,
                time_limit=held.time_limit if time_limit is None else time_limit,
                retry=held.retry,
            )
            await self._core.start_held(entry, plan)
        with Subscription(self._core.open_log(entry)) as messages:
            yield TextStream(messages)

    # -- finding

    async def get(self, job_id: str) -> Job:
        """Return the handle of a job.

        Raises:
            TypeError: `job_id` is not a string.
            UnknownJobError: No job has this id.
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores).

        Cancellation: nothing has changed.
        """
        return Job(await self._core.load(job_id), self._core)

    async def find(
        self,
        *,
        state: JobState | Iterable[JobState] | None = None,
        tags: Mapping[str, str] | None = None,
        queue: str | None = None,
        executor: Callable[[Any], Any] | str | None = None,
        key: str | None = None,
        limit: int = 100,
        after: str | None = None,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """Return the records of the jobs that match, in the order of their submission.

        Args:
            state: One state or several; None for any.
            tags: Tags that must all match.
            queue: The queue.
            executor: The executor, or its name.
            key: The key, as it was given to `submit`: at most one job has it.
            limit: How many at most, 1 or more.
            after: The id of the last job of the page before.
            newest_first: Whether the newest come first, rather than the oldest.

        Raises:
            TypeError, ValueError: A parameter is invalid; the error names it, its value, and what is allowed.
            UnknownJobError: ``after`` is not (or no longer) kept.
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores).

        Cancellation: nothing has changed.
        """
        if after is not None:
            after = check_id("after", after)
        query = self._query(state, tags, queue, executor, key, newest_first)
        query = attrs.evolve(query, limit=check_count("limit", limit), after=after)
        return await self._core.ask(partial(self._core.store.find, query))

    def find_all(
        self,
        *,
        state: JobState | Iterable[JobState] | None = None,
        tags: Mapping[str, str] | None = None,
        queue: str | None = None,
        executor: Callable[[Any], Any] | str | None = None,
        key: str | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[JobRecord]:
        """Return an async iterator over the records of all jobs that match, in the order of their submission.

        They are read in pages of 100, and a record shows its job as it was when its page was read. Jobs that are
        submitted before the last one is given are found as well, but not with ``newest_first``: they come before those
        that are yet to be read. The loop may cancel the jobs that it is given, or remove them. The parameters are those
        of `find`.

        Raises:
            TypeError, ValueError: A parameter is invalid; the error names it, its value, and what is allowed.
            UnknownJobError: While iterating: no job of the last page is kept any more. Begin again.
            StoreUnavailableError: While iterating: the store was away too long (durable stores). Further iteration
                resumes where it left off.
            trio.BusyResourceError: While iterating: another task is waiting for the next record.
            trio.ClosedResourceError: While iterating: the registry is closed (durable stores).

        Cancellation: further iteration resumes where it left off.
        """
        query = self._query(state, tags, queue, executor, key, newest_first)

        def find(after: str | None) -> Awaitable[list[JobRecord]]:
            return self._core.ask(partial(self._core.store.find, attrs.evolve(query, limit=PAGE, after=after)))

        return FoundJobs(find)

    def _query(
        self,
        state: JobState | Iterable[JobState] | None,
        tags: Mapping[str, str] | None,
        queue: str | None,
        executor: Callable[[Any], Any] | str | None,
        key: str | None,
        newest_first: bool,
    ) -> JobQuery:
        return JobQuery(
            states=check_states(state),
            tags=check_tags("tags", tags),
            queue=None if queue is None else check_name("queue", queue),
            executor=None if executor is None else self._core.submissions.name_of(executor),
            key=None if key is None else check_name("key", key),
            newest_first=check_flag("newest_first", newest_first),
        )

    async def history(self, job_id: str) -> list[Transition]:
        """Return a job's changes of state, the oldest first.

        Of more than 1,000 changes the first and the newest are kept. Only whole attempts are left out: a hole in the
        attempt numbers shows which.

        Raises:
            TypeError: `job_id` is not a string.
            UnknownJobError: No job has this id.
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores).

        Cancellation: nothing has changed.
        """
        return await self._core.ask_of(job_id, self._core.store.history)

    def subscribe_events(self) -> EventSubscription:
        """Return a receive channel of every `Transition` from now on; `LaggedError` when 10,000 behind.

        With a durable store these are the changes that this process makes; `history` has those of all processes.
        """
        return self._core.events.subscribe()

    def stats(self) -> RegistryStats:
        """Return counts of this process's jobs, at once.

        Raises:
            RuntimeError: Called from a thread other than Trio's, or after Trio's run has ended (in memory).
        """
        self._check_run("registry.stats()", "registry.stats")
        return self._core.stats()

    async def counts(self, *, tags: Mapping[str, str] | None = None) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs, how many are in each state, across all workers of the store.

        Args:
            tags: Count only the jobs that have all of these tags. They are looked up one by one, and one that changes
                its state meanwhile is counted once.

        Raises:
            TypeError, ValueError: ``tags`` is invalid; the error says what is allowed.
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores).

        Cancellation: nothing has changed.
        """
        wanted, store = check_tags("tags", tags), self._core.store
        return await self._core.ask(partial(store.counts_of, wanted) if wanted else store.counts)

    async def workers(self) -> list[WorkerReport]:
        """Return the workers that are present, by name: the registries on this store that claim jobs.

        A worker that died is among them until its lease is over.

        Raises:
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores).

        Cancellation: nothing has changed.
        """
        return await self._core.ask(self._core.store.workers)

    def peek(self, job_id: str) -> Job | None:
        """Return the handle of a job that this process holds, at once; None for any other.

        In memory those are all jobs that are kept. With a durable store they are those that run here and those for
        which this process has a handle or a subscription; `get` finds the others.

        Raises:
            TypeError: `job_id` is not a string.
            RuntimeError: Called from a thread other than Trio's, or after Trio's run has ended (in memory).
        """
        job_id = check_id("job_id", job_id)
        self._check_run("registry.peek()", "registry.peek, job_id")
        entry = self._core.peek(job_id)
        return None if entry is None else Job(entry, self._core)

    def __contains__(self, job_id: object) -> bool:
        if not isinstance(job_id, str):
            return False
        self._check_run("job_id in registry", "registry.peek, job_id")
        return self._core.peek(job_id) is not None

    def __len__(self) -> int:
        self._check_run("len(registry)", "len, registry")
        return len(self._core)

    def __bool__(self) -> bool:
        return True  # also without jobs

    def _check_run(self, call: str, instead: str) -> None:
        if not self._core.store.durable:  # else what is asked for is read and nothing is done about it
            self._core.check_run(call, instead)

    # -- what waits

    async def set_priority(self, job_id: str, priority: JobPriority) -> bool:
        """Give a job that waits for a start another priority, whichever process submitted it.

        A job waits while it is scheduled, queued or retrying, also while it is held. One that is ready goes to the end
        of the line of its new priority, as a retried one does; if it has this priority already, it stays where it is.
        The next attempt has the new priority, and so have those that follow it. This is no change of state: the history
        stays as it is, and there is no event.

        Args:
            job_id: The job.
            priority: The priority that it is to have.

        Returns:
            True if the job waits, and now has this priority. False if it runs or has ended; nothing was changed then.

        Raises:
            TypeError, ValueError: A parameter is invalid.
            UnknownJobError: No job has this id.
            StoreUnavailableError: The store was away too long (durable stores). The priority may have been changed.
            trio.ClosedResourceError: The registry is closed (durable stores), or its store serves another one by now.

        Cancellation: it may have been changed.
        """
        return await self._core.set_priority(job_id, priority)

    async def pause(self, queue: str, seconds: float = inf) -> None:
        """Start no more jobs of a queue, on any worker of the store, until `resume`, or until some seconds are over.

        No claim that begins after this has returned starts a job of the queue; a claim that was in progress still may.
        Running jobs keep running. Jobs are accepted as before, and wait; so do jobs that become due or are retried, and
        those that their workers return or lose. The time of ``expires_in`` keeps running. A durable store keeps the
        pause, whatever becomes of this process. If a queue is paused twice, the pause that ends later counts.

        Args:
            queue: The queue. It need not have jobs. A name that ends in ``*`` is that of a single queue here.
            seconds: How long the pause lasts, 0 or more, unless `resume` ends it earlier; inf for until then. It has to
                end before the year 9999.

        Raises:
            TypeError, ValueError: A parameter is invalid.
            StoreUnavailableError: The store was away too long (durable stores). The queue may be paused.
            trio.ClosedResourceError: The registry is closed.

        Cancellation: the queue may be paused.
        """
        queue = check_name("queue", queue)
        await self._core.pause(queue, check_wait("seconds", seconds, time.time(), infinite=True))

    async def resume(self, queue: str) -> None:
        """Start jobs of a queue again, on all workers, at once. For a queue that is not paused it changes nothing.

        Raises:
            TypeError, ValueError: The name is invalid.
            StoreUnavailableError: The store was away too long (durable stores). The queue may no longer be paused.
            trio.ClosedResourceError: The registry is closed.

        Cancellation: the queue may no longer be paused.
        """
        await self._core.resume(check_name("queue", queue))

    async def paused(self) -> dict[str, datetime | None]:
        """Return the queues that are paused, by name, in order, and when each pause ends; None for until `resume`.

        Raises:
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores).

        Cancellation: nothing has changed.
        """
        paused, now = await self._core.ask(self._core.store.paused), time.time()
        return {queue: None if left == inf else moment(min(now + left, LATEST)) for queue, left in paused.items()}

    # -- ending

    async def cancel(self, job_id: str, reason: str | None = None, *, grace: float = 0.0) -> bool:
        """Ask a job to end, and return at once; it is gone when its outcome is published.

        Args:
            job_id: The job.
            reason: Why; kept in the record and sent to every consumer. The first request's reason stays.
            grace: Seconds between setting the job's ``stopping`` and cancelling it. A later request may shorten it.

        Returns:
            True if the job was alive: it will end `Cancelled`, with no further attempt. False if it has ended, or its
            ending is decided. If such an ending can't be stored before the lease is over, the job is cancelled after
            all, as soon as the store answers (durable stores).

        Raises:
            TypeError, ValueError: A parameter is invalid.
            UnknownJobError: No job has this id.
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores), or its store serves another one by now.

        Cancellation: the request may have been made.
        """
        return await self._core.cancel(job_id, reason, grace=grace)

    async def remove(self, job_id: str) -> None:
        """Forget an ended job.

        Raises:
            TypeError: `job_id` is not a string.
            UnknownJobError: No job has this id.
            IllegalTransitionError: It has not ended.
            StoreUnavailableError: The store was away too long (durable stores).
            trio.ClosedResourceError: The registry is closed (durable stores).

        Cancellation: the job may have been removed.
        """
        await self._core.remove(job_id)

    async def drain(self) -> None:
        """Wait until nothing runs here, and nothing that this process would run is queued or waiting to retry.

        Jobs with a start time in the future are not waited for, nor held ones, nor those whose queue is paused until
        `resume`.

        Raises:
            RuntimeError: It was called inside a job of this registry, which would wait for itself.
            StoreUnavailableError: The store was away too long (durable stores).

        Cancellation: the jobs go on.
        """
        await self._core.drain()

    async def shutdown(self, grace: float = 0.0) -> None:
        """Claim nothing more, tell running jobs to stop, cancel them after ``grace`` seconds, wait until all are gone.

        In memory every other unfinished job then ends ``Cancelled("shutdown")``; a durable store keeps them for others.
        Nothing can be submitted afterwards.

        Cancellation: the shutdown goes on; it is completed when the registry's block is left.
        """
        grace = check_seconds("grace", grace)
        await self._core.shutdown(grace)
