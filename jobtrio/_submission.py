"""From what the user gives to `submit` to a job that can be stored: checks, defaults, the plan.

It owns the meaning of submit's parameters. It must not know stores or tasks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import attrs

from jobtrio._checks import check_metadata, check_moment, check_name, check_seconds, check_tags, check_wait, show
from jobtrio._codec import encode_value
from jobtrio._entry import JobEntry, Plan
from jobtrio._errors import GiveUp, UnknownExecutorError
from jobtrio._ids import new_id
from jobtrio._patterns import key_for
from jobtrio._policies import JobPriority, RetryPolicy, check_priority, check_retry
from jobtrio._state import JobState
from jobtrio._threads import run_in_thread
from jobtrio.executors import Executors, Registration, check_executor, executor_name, is_async_executor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Iterable

    import trio

    from jobtrio._context import JobContext

logger = logging.getLogger("jobtrio")


class UnservedQueueError(ValueError):
    """A queue whose jobs the registry would never run.

    Attributes:
        queue: The queue's name.
    """

    def __init__(self, queue: str, served: Iterable[str]) -> None:
        self.queue = queue
        self._served = tuple(served)
        super().__init__(queue, self._served)

    def __str__(self) -> str:
        served = ", ".join(map(repr, self._served)) or "none"
        return f"queue must be one that this registry serves ({served}); got {self.queue!r}: it would wait for ever"


class _DefaultQueue(str):
    """The queue's name where none was given: equal to "default", yet told apart from it."""

    __slots__ = ()

    def __reduce__(self) -> str:
        return "DEFAULT_QUEUE"  # a spec that was copied or pickled has been given none either


DEFAULT_QUEUE = _DefaultQueue("default")


class _Held:
    """Stands for the executor of a job that is held until it is given one."""


HELD = _Held()


@attrs.frozen(kw_only=False)
class JobSpec:
    """One job for `JobRegistry.submit_many`: the parameters of `JobRegistry.submit`.

    Attributes:
        executor: An async or plain function, a partial or callable object of either kind, or a registered name.
        payload: What the executor is given.
        job_id: The job's id, 1 to 200 printable characters; None generates one.
        key: An idempotency key: while the job is kept, another submission with this key returns it.
        queue: The queue to wait in; if not given, the one that the executor is registered with, or else "default".
        priority: Its `JobPriority`.
        time_limit: Seconds an attempt may take; None for what the executor is registered with.
        retry: The retry policy; None for what the executor is registered with.
        delay: Seconds from submission to the earliest start.
        run_at: The earliest start, an aware datetime.
        expires_in: Seconds from submission within which the first attempt has to start.
        tags: Strings by name, to find the job by; at most 1,000.
        metadata: Any values by name.
    """

    executor: Callable[[Any], Any] | str
    payload: Any = None
    job_id: str | None = attrs.field(default=None, kw_only=True)
    key: str | None = attrs.field(default=None, kw_only=True)
    queue: str = attrs.field(default=DEFAULT_QUEUE, kw_only=True)
    priority: JobPriority = attrs.field(default=JobPriority.NORMAL, kw_only=True)
    time_limit: float | None = attrs.field(default=None, kw_only=True)
    retry: RetryPolicy | None = attrs.field(default=None, kw_only=True)
    delay: float | None = attrs.field(default=None, kw_only=True)
    run_at: datetime | None = attrs.field(default=None, kw_only=True)
    expires_in: float | None = attrs.field(default=None, kw_only=True)
    tags: Mapping[str, str] | None = attrs.field(default=None, kw_only=True)
    metadata: Mapping[str, Any] | None = attrs.field(default=None, kw_only=True)


class Submissions:
    """Makes jobs out of what users give, for one registry."""

    def __init__(
        self,
        executors: Executors | None,
        *,
        limiter: trio.CapacityLimiter,
        queues: Collection[str] | None,
        durable: bool,
        checks_values: bool = False,
        worker: str,
    ) -> None:
        self.executors: Executors = Executors() if executors is None else executors
        self._limiter = limiter
        self._queues = queues
        self._durable = durable
        self._encodes = durable and not checks_values  # to find out whether it can be stored
        self._worker = worker
        self._adapted: dict[str, Callable[[JobContext], Awaitable[Any]]] = {}  # the registered executors
        self._last: tuple[Any, ...] = (None,) * 7  # what was given last, and its plan: one, as threads may submit

    def entry(
        self,
        executor: Callable[[Any], Any] | str | _Held,
        payload: Any,
        job_id: str | None,
        key: str | None,
        queue: str,
        priority: JobPriority,
        time_limit: float | None,
        retry: RetryPolicy | None,
        delay: float | None,
        run_at: datetime | None,
        expires_in: float | None,
        tags: Mapping[str, str] | None,
        metadata: Mapping[str, Any] | None,
        *,
        now: float | None = None,
    ) -> JobEntry:
        """Return a new job, submitted at the time ``now``; the executor `HELD` makes a held one.

        Raises:
            TypeError, ValueError: A parameter makes no sense; the error names it, its value, and what is allowed.
            UnknownExecutorError: No executor has this name.
            PayloadError: The payload or metadata can't be stored, where the store is durable and leaves that to this.
        """
        plan = self.plan(executor, queue, priority, time_limit, retry)
        if now is None:
            now = time.time()
        if job_id is None:
            job_id = submission = new_id()
        else:
            job_id, submission = check_name("job_id", job_id), ""
        entry = JobEntry(job_id, plan, payload, now, submission)
        if key is not None:
            entry.key = check_name("key", key)
        if tags is not None:
            entry.tags = check_tags("tags", tags)
        if metadata is not None:
            entry.metadata = check_metadata("metadata", metadata)
        if delay is not None or run_at is not None:
            self._schedule(entry, delay, run_at)
        if expires_in is not None:
            entry.expires_in = check_seconds("expires_in", expires_in, zero=False)
            if entry.expires_in <= entry.delay:
                raise ValueError(
                    f"expires_in must exceed the delay of {entry.delay:g} s, or the job would never start; "
                    f"got {show(expires_in)}"
                )
        if self._encodes:
            encode_value("payload", entry.payload)
            if entry.metadata is not None:
                encode_value("metadata", entry.metadata)
        return entry

    def plan(
        self,
        executor: Callable[[Any], Any] | str | _Held,
        queue: str = DEFAULT_QUEUE,
        priority: JobPriority = JobPriority.NORMAL,
        time_limit: float | None = None,
        retry: RetryPolicy | None = None,
    ) -> Plan:
        """Return how to run a job, with the executor's registered options where none are given."""
        last = self._last
        last_plan: Plan | None = last[6]
        if (
            executor is last[0]
            and queue is last[1]
            and priority is last[2]
            and time_limit is last[3]
            and retry is last[4]
            and self.executors.changes == last[5]
            and last_plan is not None
        ):
            return last_plan  # jobs submitted alike share one plan
        given = (executor, queue, priority, time_limit, retry, self.executors.changes)
        registration, name, function = self._resolve(executor)
        if registration is not None:
            queue = registration.queue or "default" if queue is DEFAULT_QUEUE else queue
            time_limit = registration.time_limit if time_limit is None else time_limit
            retry = registration.retry if retry is None else retry
        if time_limit is not None:
            time_limit = check_seconds("time_limit", time_limit, zero=False, infinite=True)
        retry = check_retry(retry, plain="stores keep no other class" if self._durable else None)
        queue = "default" if queue is DEFAULT_QUEUE else check_name("queue", queue)
        if not self._durable and self._queues is not None and key_for(queue, self._queues) is None:
            raise UnservedQueueError(queue, self._queues)
        plan = Plan(name, function, queue, check_priority(priority), time_limit, retry, self._worker)
        self._last = (*given, plan)
        return plan

    def function_of(self, entry: JobEntry) -> Callable[[JobContext], Awaitable[Any]]:
        """Return the function that runs a job's attempts.

        Raises:
            UnknownExecutorError: It is not registered here.
            GiveUp: The job can't be read, in this attempt or another one.
        """
        if entry.unreadable is not None:
            logger.warning("job %s is not run, but fails: %s", entry.id, entry.unreadable)
            raise GiveUp(entry.unreadable)
        if entry.plan.function is not None:
            return entry.plan.function
        return self._adapt(self.executors.get(entry.plan.executor or ""))

    def retry_on(self, entry: JobEntry) -> tuple[type[BaseException], ...]:
        """Return the exceptions to retry for a job."""
        name, function = entry.plan.executor, entry.plan.function
        if name is None or name not in self.executors:
            return (Exception,)
        registration = self.executors.get(name)
        if function is not None and function is not self._adapt(registration):
            return (Exception,)  # one that is not registered and merely has the same name
        return registration.retry_on

    def _adapt(self, registration: Registration) -> Callable[[JobContext], Awaitable[Any]]:
        function = self._adapted.get(registration.name)
        if function is None:
            function = self._adapted[registration.name] = as_async(registration.function, self._limiter)
        return function

    def name_of(self, executor: Callable[[Any], Any] | str) -> str:
        """Return the name under which an executor's jobs are found."""
        if isinstance(executor, str):
            return check_name("executor", executor)
        check_executor(executor)
        registration = self.executors.find(executor)
        return executor_name(executor) if registration is None else registration.name

    def _resolve(
        self, executor: Callable[[Any], Any] | str | _Held
    ) -> tuple[Registration | None, str | None, Callable[[JobContext], Awaitable[Any]] | None]:
        if isinstance(executor, _Held):
            return None, None, None
        if isinstance(executor, str):
            registration: Registration | None = self.executors.get(check_name("executor", executor))
        else:
            check_executor(executor)
            registration = self.executors.find(executor)
        if registration is not None:
            return registration, registration.name, self._adapt(registration)
        assert not isinstance(executor, str)
        if self._durable:
            raise UnknownExecutorError(executor_name(executor), self.executors)
        return None, executor_name(executor), as_async(executor, self._limiter)

    @staticmethod
    def _schedule(entry: JobEntry, delay: float | None, run_at: datetime | None) -> None:
        if delay is not None and run_at is not None:
            raise ValueError(f"delay and run_at exclude each other; got delay={show(delay)} and run_at={show(run_at)}")
        if delay is not None:
            entry.delay = check_wait("delay", delay, entry.created_at)
        else:
            entry.run_at = check_moment("run_at", run_at).timestamp()
            entry.delay = max(entry.run_at - entry.created_at, 0.0)
        if entry.delay > 0:
            entry.state = JobState.SCHEDULED


def as_async(
    function: Callable[[Any], Any], limiter: trio.CapacityLimiter | None = None
) -> Callable[[JobContext], Awaitable[Any]]:
    """Return an executor as an async one: a plain function is run in a thread, by default under Trio's limiter."""
    if is_async_executor(function):
        return function

    async def in_thread(context: JobContext) -> Any:
        return await run_in_thread(function, context, limiter)

    return in_thread
