"""`JobStore`: the contract that every store of jobs keeps, whether in memory or on another machine.

It says what a store must do, and what must remain true when a call is cancelled, fails halfway or loses its reply. It
must not know how a store does it, nor who calls it.

The rules, for all stores:

* A store keeps every field of a `JobEntry` and its `Plan` except ``log``, ``unreadable`` and ``function``. Each call
  that hands out an entry hands out all of it, but for ``lease_until``, which is the store's own, and what `look` may
  leave out. The functions `start`, `become_ready`, `retry` and `finish` of this module take an entry through its life,
  and write its history.
* A call may be repeated after `StoreUnavailableError` or a cancellation, with the same arguments: what the first call
  did is recognised, and the second returns what the first would have returned. (`request_cancel`, `delete` and
  `start_held` carry no mark: a second call finds what the first has left, and callers know what to make of that. And
  once another claim has had the job, `retry` and `release` may return False.)
* A change of a running job's state needs the claim that holds it (`Claim`: its id and the attempt's number). Without it
  nothing is written, and the call returns False. This is the fencing that keeps a worker that lost its lease from
  writing.
* On success the `JobEntry` that was passed, or that the claim carries, has been updated to what is stored.
* A durable store keeps values, which are payloads, metadata, tokens, results and saved states, as the JSON that
  ``msgspec.json.encode`` makes of them, and hands out what that decodes to. That this can be done was checked before,
  but for payloads and metadata where the store `checks_values`, and for results and saved states: what `finish` and
  `save_state` raise for one of those harms only its own job.
* A request to cancel that was accepted wins over every ending written after it: the job ends `Cancelled`. A later
  request may shorten the grace period of the first, and changes nothing else about it.
* A call that gets no answer raises `StoreUnavailableError` within ``outage_limit``.
* An entry that is handed out carries its history (``steps``), whose end tells the newer of two from the older, and its
  number among all insertions (``order``), which tells a job from a later one with the same id. Of a long history the
  oldest attempts may be left out. Its place in line (``ticket``) tells the newer of two with one history: it is higher
  after each change of the priority.
* `Restart` and `End` are appended to the job's messages by the store, in one step with the change of state. After a
  release or a lapse the `Restart` has an error of kind ``"lost"`` and no delay; that of a lapse is the entry's
  ``error`` as well.
* Limits by queue may have patterns among their keys, each of whose queues has that limit for itself. `key_for` says
  which key stands for a queue.
* A delay and what limits a wait count from insertion, by the store's clock. A held job may wait for
  `Retention.held_for` of the process that inserts it, counted from when it could start, and for ``expires_in`` if it
  has one; `start_held` lifts the former. What has waited too long fails with the kind ``"expired"``, and is never
  started.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import attrs

from jobtrio._entry import CancelRequest as CancelRequest
from jobtrio._entry import JobEntry as JobEntry
from jobtrio._entry import Plan as Plan
from jobtrio._entry import become_ready as become_ready
from jobtrio._entry import finish as finish
from jobtrio._entry import retry as retry
from jobtrio._entry import start as start
from jobtrio._errors import UnknownJobError
from jobtrio._pages import PAGE, FoundJobs
from jobtrio._patterns import key_for as key_for
from jobtrio._policies import RateLimit, Retention
from jobtrio._state import JobState, counts_by_queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from jobtrio._messages import Message
    from jobtrio._policies import JobPriority
    from jobtrio._records import JobError, JobRecord, Outcome, Transition, WorkerReport
    from jobtrio._token_log import TokenLog


class StoreListener(Protocol):
    """What a store notifies when something has happened. The calls return at once, in Trio's thread."""

    def changed(self, entry: JobEntry) -> None:
        """This process has changed the job's state, and the change is kept.

        Called for each change, in order, that of its insertion first, with the entry as it is then.
        """

    def work_ready(self) -> None:
        """A job may have become ready, or there may be room for one under `StoreSettings.max_running_total`.

        May call back into `JobStore.ready_nowait`.
        """

    def due_changed(self) -> None:
        """Something may fall due earlier than `JobStore.advance` said."""

    def messages_added(self, job_id: str | None) -> None:
        """Another process may have added messages to this job; None for any job: the store may have missed some."""

    def cancel_requested(self, job_id: str | None) -> None:
        """Another process may have asked to cancel this job; None for any job: the store may have missed requests."""


@attrs.frozen
class StoreSettings:
    """What a store is given when it is opened.

    Attributes:
        worker: This process's name in the history.
        retention: What to keep of ended jobs and of streams.
        max_queued: How many jobs may wait for their first start, for stores that can tell at once.
        max_running_total: How many jobs of a queue may run across all workers, by queue. This worker's claims keep to
            it, whatever others claim at the same moment; a queue that no key stands for (`key_for`) has no such limit.
        listener: What to notify.
        new_log: Makes the log of a job, for stores that keep streams in this process; its methods are not public.
        new_entry: Makes a job from what `JobRegistry.submit` takes, with its checks and the executors' defaults, for
            stores that accept jobs in other ways as well; None if nobody submits.
        rate_limits: How many jobs of a queue may start in a time, by queue, counting those that other workers start.
            This worker's claims keep to it in the same way.
    """

    worker: str
    retention: Retention
    max_queued: int
    listener: StoreListener
    new_log: Callable[[], TokenLog]
    max_running_total: Mapping[str, int] = attrs.field(factory=dict)
    new_entry: Callable[..., JobEntry] | None = None
    rate_limits: Mapping[str, RateLimit] = attrs.field(factory=dict)


@attrs.define(eq=False)
class Claim:
    """The right to run one attempt of a job: the fencing token of all that the attempt writes.

    Attributes:
        entry: The job, as claimed.
        id: The id of the call to `JobStore.claim`.
        attempt: The attempt's number, from 1.
    """

    entry: JobEntry
    id: str
    attempt: int


@attrs.frozen
class JobQuery:
    """What `JobStore.find` looks for; None stands for anything.

    Attributes:
        states: Any of these states; nothing is found if there are none.
        tags: All of these tags, if there are any.
        queue: This queue.
        executor: This executor's name.
        key: This key, which at most one job has; a store looks for it where it looks when it inserts.
        limit: At most this many: the first ones.
        after: The id of the last job of the page before.
        newest_first: Whether the newest come first.
    """

    states: frozenset[JobState] | None = None
    tags: Mapping[str, str] | None = None
    queue: str | None = None
    executor: str | None = None
    key: str | None = None
    limit: int = 100
    after: str | None = None
    newest_first: bool = False


@attrs.define
class CancelReply:
    """What became of a request to cancel.

    Attributes:
        entry: The job, as it is now.
        accepted: Whether it is alive and will end `Cancelled`, or just has.
    """

    entry: JobEntry
    accepted: bool


@attrs.frozen
class LeaseReport:
    """What `JobStore.renew` says about one claim.

    Attributes:
        held: Whether the claim still holds its job.
        entry: The job, with the request to cancel if there is one.
    """

    held: bool
    entry: JobEntry


@attrs.frozen
class Backlog:
    """How many jobs wait, of those that were asked about.

    Attributes:
        queued: Ready to be claimed.
        retrying: Waiting for their next attempt.
        scheduled: Waiting for their start time.
        running: Running in any process.
    """

    queued: int = 0
    retrying: int = 0
    scheduled: int = 0
    running: int = 0


class JobStore(ABC):
    """Keeps jobs, their history and their messages.

    Attributes:
        claims_at_once: Whether `claim_nowait` returns all that `claim` would.
        durable: Whether what it keeps outlives the process. Payloads, tokens and results then have to be what JSON can
            hold, executors must have names, and messages are handed over by `append_messages`.
        is_elsewhere: Whether another process carries out its calls, so that jobs can run here meanwhile. Free capacity
            is then filled in two halves, one while the other runs.
        outage_limit: Seconds that a caller waits for a store that is away; inf for one that is never away.
        in_time: Whether the store itself makes sure that each call answers or raises within ``outage_limit``, even if
            what holds the jobs never answers. If it does not, its callers set a deadline for each call.
        checks_values: Whether `insert` itself raises `PayloadError`, and stores nothing, where a payload or metadata
            can't be stored. If it does not, its callers encode them once more before, to find out.
        poll_interval: Seconds after which to poll for work if no wake-up came; inf if none can get lost.
    """

    claims_at_once: ClassVar[bool] = False
    durable: ClassVar[bool] = True
    in_time: ClassVar[bool] = False
    is_elsewhere: ClassVar[bool] = False
    checks_values: ClassVar[bool] = False
    outage_limit: float = 10.0
    poll_interval: float = 5.0

    @abstractmethod
    def open(self, settings: StoreSettings) -> AbstractAsyncContextManager[None]:
        """Make the store usable within the block; all its background work ends with it.

        What is raised in the block propagates out of it as it is. A nursery would put it in a group.

        Raises:
            StoreUnavailableError: It could not be reached within ``outage_limit``.
            StoreVersionError: Its format is newer than this version knows.
            StoreError: It is foreign or damaged; nothing was written.
        """

    @abstractmethod
    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        """Store new jobs, all or none, and return them in order.

        A job whose key is in use is not stored, even if its id is in use as well: the one that has the key takes its
        place in the result, also within one call. ``submission`` marks the call, so that a repetition is recognised.

        Raises:
            DuplicateJobError: An id is in use, or occurs twice in ``entries``.
            QueueFullError: More jobs than ``max_queued`` would wait for their first start.
        """

    @abstractmethod
    async def load(self, job_id: str) -> JobEntry | None:
        """Return a job, or None."""

    async def look(self, job_id: str) -> JobEntry | None:
        """Return a job, or None, as `load` does; the parts of it that never change may have any value.

        Those parts are its payload, metadata, tags, ``run_at``, ``delay`` and ``expires_in``; ``saved_state`` may have
        any value, too. A consumer asks for the job in this way with each piece of its stream, so that a store need not
        read a large payload each time.
        """
        return await self.load(job_id)

    @abstractmethod
    async def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the matching jobs, in the order of their submission, or in the opposite one.

        Raises:
            UnknownJobError: The query's ``after`` is not kept.
        """

    @abstractmethod
    async def history(self, job_id: str) -> list[Transition] | None:
        """Return a job's changes of state, the oldest first, or None for an unknown job."""

    @abstractmethod
    async def counts(self) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs, how many are in each state, 0 where none is."""

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs with all of these tags, how many of them are in each state, as `counts`.

        A job that changes its state meanwhile is counted once, in a state that it had meanwhile. A store that can count
        jobs where they are should do so; this finds them, page by page.
        """

        def find(after: str | None) -> Awaitable[list[JobRecord]]:
            return self.find(JobQuery(tags=tags, limit=PAGE, after=after))

        while True:
            with suppress(UnknownJobError):  # a whole page was removed meanwhile
                return counts_by_queue([(record.queue, record.state, 1) async for record in FoundJobs(find)])

    @abstractmethod
    async def workers(self) -> list[WorkerReport]:
        """Return the workers that are present, by name: those that renewed within their lease and are not closed."""

    @abstractmethod
    async def pause(self, queue: str, seconds: float = inf) -> None:
        """Have no claim that begins from now on, whichever worker's, start a job of this queue, until `resume`.

        Nothing else changes. A queue need not have jobs. With ``seconds`` below inf, 0 or more, the pause also ends
        when they are over. That falls due as other things do, and all listeners are then told that there may be work.
        Of two pauses the one that ends later counts.
        """

    @abstractmethod
    async def resume(self, queue: str) -> None:
        """Have claims start jobs of this queue again, and tell all listeners that there may be work."""

    @abstractmethod
    async def paused(self) -> dict[str, float]:
        """Return the queues that are paused, by name, in order, and for how many seconds more; inf until `resume`."""

    @abstractmethod
    async def backlog(self, queues: Collection[str] | None, executors: Collection[str] | None = None) -> Backlog:
        """Return how many jobs of ``executors`` wait in the queues that ``queues`` stand for (`key_for`); None for all.

        Held ones are not counted, nor are those that don't run of queues that are paused until `resume`.
        """

    @abstractmethod
    async def delete(self, job_id: str) -> bool:
        """Remove an ended job and all that belongs to it; False for an unknown one.

        Raises:
            IllegalTransitionError: It has not ended.
        """

    @abstractmethod
    async def start_held(self, job_id: str, plan: Plan) -> bool:
        """Give a held job its plan, and make it ready if it is due, behind all that are; False if it is not held.

        It is not (or no longer) held if it was started, has ended, or has waited too long. It keeps the priority that
        it has: somebody may have changed that since the plan was made.
        """

    @abstractmethod
    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        """Give a job that waits for a start another priority; return the job as it is then, or None for an unknown one.

        A job waits while it is scheduled, queued or retrying, also while it is held. One that is ready stands behind
        all that are; one that has this priority already stays where it is. A job that runs or has ended stays as it is.
        It is no change of state: the history stays as it is, and the listener is not told.
        """

    @abstractmethod
    async def claim(
        self,
        claim_id: str,
        *,
        limit: int,
        lease: float,
        room: Mapping[str, int] | None = None,
        executors: Collection[str] | None = None,
    ) -> list[Claim]:
        """Start up to ``limit`` ready jobs, by priority, then in the order in which they became ready.

        None of a queue that is `paused`. No more than `StoreSettings.max_running_total` of a queue run then, across all
        workers, and no more start than `StoreSettings.rate_limits` lets. Repeated, the call returns what it had claimed
        and still holds, and nothing else; where it holds nothing any more, it may claim anew.

        Args:
            claim_id: Marks the call and all it claims.
            limit: How many at most.
            lease: Seconds until the claims lapse unless renewed.
            room: The queues to take from and how many at most from each; None for all queues. A key may be a pattern:
                it has as many for each queue that it stands for (`key_for`). One that is named keeps to what is said
                of it, also where that is 0.
            executors: Only jobs of these executors; None for all.
        """

    @abstractmethod
    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        """Let claims last ``lease`` seconds from now, and report on each, in order.

        It also reports that this worker is present for as long, even with no claims.
        """

    @abstractmethod
    async def finish(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        error: JobError | None = None,
        messages: Sequence[Message] = (),
    ) -> bool:
        """End a running job, after appending ``messages``.

        If a request to cancel was accepted before, it ends `Cancelled` with that reason instead, and the error of a
        failure is kept as the entry's. ``error`` is what a cancelled attempt's clean-up raised.
        """

    @abstractmethod
    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        """Let a failed attempt be followed by another in ``delay`` seconds, after appending ``messages``.

        It is one of the entry's ``failures`` if it ``counts``. If a request to cancel was accepted before, the job ends
        `Cancelled` instead; ``error`` is kept all the same.
        """

    @abstractmethod
    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        """Return a running job to its queue unfinished, after appending ``messages``.

        If a request to cancel was accepted before, the job ends `Cancelled` instead.
        """

    @abstractmethod
    async def request_cancel(self, job_id: str, reason: str | None, grace: float) -> CancelReply | None:
        """Ask to cancel: a job that does not run ends at once, a running one when its attempt is gone.

        Either way the request is kept in the entry. The first one's reason stays. Returns None for an unknown job.
        """

    @abstractmethod
    async def save_state(self, claim: Claim, value: Any) -> bool:
        """Keep a value for the job's next attempt."""

    @abstractmethod
    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        """Append an attempt's messages, numbered without holes; those that are stored already are skipped."""

    @abstractmethod
    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        """Return up to ``limit`` kept messages after number ``after``, or None for an unknown job.

        A `Gap` stands where messages are missing: no longer kept at the beginning, or never handed over. It counts as
        one of them.
        """

    async def follow(self, job_id: str, after: int, limit: int) -> tuple[list[Message] | None, JobEntry | None]:
        """Return what `read_messages` returns, and what `look` does, which is no older than the messages.

        A consumer asks in this way for each piece of its stream, so that a store need not be asked twice.
        """
        return await self.read_messages(job_id, after, limit), await self.look(job_id)

    @abstractmethod
    async def advance(self) -> float:
        """Do what has fallen due: starts and retries, expiries, lapsed leases, pauses; the earliest of each first.

        A job whose lease has lapsed returns to its queue, or fails with the kind ``"lost"`` at the third time in a row:
        an attempt that ends by `retry` or `release` restarts the count. If a request to cancel was accepted before, it
        ends `Cancelled`, and the lapse is not kept as its error.

        Returns the seconds until there is more to do; inf if nothing is known, 0 if there may be more at once.
        """

    async def next_start(self, room: Mapping[str, int] | None = None) -> float:
        """Return the seconds until a claim may start a job that `StoreSettings.rate_limits` held back in the last one.

        That is 0 where the time has come since that claim, and inf where none was held back. It may be less, also where
        no job is ready. Of queues from which there is no ``room`` to take, nothing need be said.
        """
        return inf

    @abstractmethod
    async def prune(self) -> float:
        """Remove what `Retention` no longer keeps; return the seconds until there may be more, inf for never.

        It is called again at once if that is 0, and else up to a minute later than it says.
        """

    async def abandon(self, reason: str) -> None:  # noqa: B027 - most stores have nothing to do
        """End what cannot outlive this process. A durable store has nothing of the kind."""

    def claim_nowait(
        self, claim_id: str, *, limit: int, lease: float, room: Mapping[str, int] | None = None
    ) -> list[Claim]:
        """Do what `claim` does, for all executors, on the spot; a store that has to ask elsewhere claims nothing."""
        return []

    def ready_nowait(self, room: Mapping[str, int] | None = None, most: int | None = None) -> int:
        """Return how many jobs `claim_nowait` would find, as far as it goes; it need not count beyond ``most``."""
        return 0

    def peek(self, job_id: str) -> JobEntry | None:
        """Return a job that this process holds anyway, at once, or None."""
        return None

    def tally(self) -> dict[JobState, int]:
        """Return how many jobs are in each state, as far as this process knows at once."""
        return {}

    def __len__(self) -> int:
        """Return how many jobs the store holds in this process."""
        return 0

    def __bool__(self) -> bool:
        """Return True: ``store or another`` is the store, also where it holds no jobs."""
        return True
