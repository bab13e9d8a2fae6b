"""`RedisJobStore`: the front of the store.

It turns the contract's calls into calls of scripts, and their answers into what callers are given. What is done with
the data is decided by the scripts; what they are given and what their answers mean, in the modules that are named
like the calls.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobtrio._checks import check_count, check_flag, check_name, check_seconds, show
from jobtrio._errors import StoreUnavailableError
from jobtrio._state import JobState
from jobtrio.abc import Backlog, CancelReply, Claim, JobQuery, LeaseReport, StoreSettings
from jobtrio.stores import _rules as rules
from jobtrio.stores._claims import Wanted
from jobtrio.stores._sessions import SessionStore
from jobtrio.stores._texts import plain_text
from jobtrio.stores.redis import _claiming as claiming
from jobtrio.stores.redis import _finding as finding
from jobtrio.stores.redis import _inserting as inserting
from jobtrio.stores.redis import _settling as settling
from jobtrio.stores.redis._address import parse_address
from jobtrio.stores.redis._link import Command
from jobtrio.stores.redis._rows import entry_of, whole_row
from jobtrio.stores.redis._scripts import FIELDS, LIGHT, run
from jobtrio.stores.redis._session import Session
from jobtrio.stores.redis._streams import READ_BYTES, messages_of
from jobtrio.stores.redis._texts import plan_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from jobtrio._entry import JobEntry, Plan
    from jobtrio._messages import Message
    from jobtrio._policies import JobPriority
    from jobtrio._records import JobError, JobRecord, Outcome, Transition, WorkerReport
    from jobtrio.stores.redis._batch import Part
    from jobtrio.stores.redis._link import Argument
    from jobtrio.stores.redis._subscriber import Subscriber

T = TypeVar("T")


class RedisJobStore(SessionStore[Session]):
    """Keeps jobs in Redis or Valkey, for the processes of many machines.

    What a call has acknowledged survives this process; whether it survives the server's depends on the server's
    settings. Times are the server's. Payloads, tokens and results are JSON of at most 8 MiB each.

    An object serves one registry at a time.
    """

    is_elsewhere = True
    checks_values = True

    def __init__(
        self, url: str, *, prefix: str = "jobtrio", replicas: int = 0, outage_limit: float = 10.0, create: bool = True
    ) -> None:
        """Choose the server; `open_registry` connects to it.

        Args:
            url: ``redis://HOST:PORT/DATABASE``, with ``USER:PASSWORD@`` before the host, in which ``/ ? # [ ] %`` are
                ``%2F`` and the like; ``rediss://`` for TLS. Several hosts, separated by commas, are tried in turn. What
                else the command takes in a URL, such as ``?prefix=…``, is a parameter here.
            prefix: What all keys begin with, in braces, so that a cluster keeps them together: 1 to 200 printable
                characters without braces and colons.
            replicas: How many replicas must have what a call wrote before it is answered; while there are fewer, the
                store is away.
            outage_limit: Seconds that a caller waits for a server that is away.
            create: Whether to create a store if nothing is under the prefix; otherwise opening fails then.

        Raises:
            TypeError, ValueError: A parameter is invalid.
        """
        self.outage_limit: float = check_seconds("outage_limit", outage_limit, zero=False)
        self._replicas: Final = check_count("replicas", replicas, low=0)
        self._address: Final = parse_address(url)
        self._creates: Final = check_flag("create", create)
        self._prefix: Final = f"{{{_check_prefix(prefix)}}}:"

    def _new_session(self, settings: StoreSettings) -> Session:
        return Session(
            self._address,
            self._prefix,
            settings,
            replicas=self._replicas,
            creates=self._creates,
            outage_limit=self.outage_limit,
            look_after=self.poll_interval,
        )

    def __repr__(self) -> str:
        return f"<RedisJobStore {self._address} {self._prefix}>"

    # -- putting in, finding, taking out

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        """Store new jobs, all or none."""
        session = self._opened
        call = inserting.insert(entries, submission, session.settings.retention)
        return await session.call(
            call, lambda answer: inserting.inserted(answer, entries, submission, session.announcer)
        )

    async def load(self, job_id: str) -> JobEntry | None:
        """Return a job, or None."""
        if not job_id.isprintable():
            return None  # UTF-8 may not hold it
        return await self._opened.call(self._row(job_id, finding.LOADED), lambda row: _entry(row, job_id))

    async def look(self, job_id: str) -> JobEntry | None:
        """Return a job, or None, without what never changes."""
        if not job_id.isprintable():
            return None
        return await self._opened.call(
            self._row(job_id, finding.LOADED, LIGHT), lambda row: _entry(whole_row(row), job_id)
        )

    async def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the matching jobs, in the order of their submission."""
        return await finding.find(self._opened.calls, query, self._row)

    async def history(self, job_id: str) -> list[Transition] | None:
        """Return a job's changes of state, the oldest first, or None for an unknown job."""
        entry = await self.load(job_id)
        return None if entry is None else entry.history()

    async def counts(self) -> dict[str, dict[JobState, int]]:
        """Return, for each queue that has jobs, how many are in each state."""
        return await self._opened.call(run("counts"), finding.counts)

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        """Return the same of the jobs that have all of these tags."""
        return await finding.counts_of(self._opened.calls, tags)

    async def workers(self) -> list[WorkerReport]:
        """Return the workers that are present, by name."""
        return await self._opened.call(run("workers"), finding.workers)

    async def pause(self, queue: str, seconds: float = inf) -> None:
        """Have no claim start a job of this queue, until `resume`, or for some seconds at least."""
        session = self._opened
        await session.call(run("pause", queue, repr(seconds)), bool)
        if seconds < inf:
            session.announcer.falls_due_in(seconds)

    async def resume(self, queue: str) -> None:
        """Have claims start jobs of this queue again."""
        session = self._opened
        await session.call(run("resume", queue), bool)
        session.announcer.listener.work_ready()

    async def paused(self) -> dict[str, float]:
        """Return the queues that are paused, by name, in order, and for how many seconds more."""
        return await self._opened.call(run("paused"), finding.paused)

    async def backlog(self, queues: Collection[str] | None, executors: Collection[str] | None = None) -> Backlog:
        """Return how many jobs of ``executors`` wait in ``queues``, without held ones and what waits for `resume`."""
        count = partial(finding.backlog, queues=queues, executors=executors)
        return await self._opened.calls.make([run("paused"), run("counts")], count)

    async def delete(self, job_id: str) -> bool:
        """Remove an ended job and all that belongs to it; False for an unknown one."""

        def deleted(answer: int | bytes, is_repeated: bool) -> bool:
            if isinstance(answer, bytes):
                raise rules.still_lives(job_id, JobState(answer.decode()))
            return bool(answer) or is_repeated

        return job_id.isprintable() and await self._call_once(deleted, "delete", job_id)

    # -- running

    async def start_held(self, job_id: str, plan: Plan) -> bool:
        """Give a held job its plan, and make it ready; False if it is not held (any more)."""

        def started(answer: int, is_repeated: bool) -> bool:
            if answer:
                self._opened.announcer.look_everywhere()
            return answer == 1 or (answer == 2 and is_repeated)

        arguments = (plan.queue, plan.executor or b"", plan_text(plan))
        return job_id.isprintable() and await self._call_once(started, "start_held", job_id, *arguments)

    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        """Give a job that waits for a start another priority; return the job, or None for an unknown one."""
        if not job_id.isprintable():
            return None
        call = run("set_priority", job_id, int(priority), brings=finding.LOADED)
        return await self._opened.call(call, lambda row: None if row is None else entry_of(row))

    async def claim(
        self,
        claim_id: str,
        *,
        limit: int,
        lease: float,
        room: Mapping[str, int] | None = None,
        executors: Collection[str] | None = None,
    ) -> list[Claim]:
        """Start up to ``limit`` ready jobs, by priority, then in the order in which they became ready."""
        session, wanted = self._opened, Wanted(claim_id, limit, lease, room, executors)
        claims = await session.call(claiming.claim(session, wanted), partial(claiming.claimed, session, wanted))
        session.answered = claim_id
        return claims

    async def next_start(self, room: Mapping[str, int] | None = None) -> float:
        """Return the seconds until a job may start that a rate limit held back in the last claim."""
        session = self._opened
        return await session.call(run("next_starts", session.claimed_at), partial(claiming.next_start, session, room))

    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        """Let claims last ``lease`` seconds from now, and report on each, in order; be there for as long."""
        session = self._opened
        session.is_shown = True
        reports: list[LeaseReport] = []
        for some in claiming.slices(claims):
            call = claiming.renew(session, some, lease)
            reports += await session.call(call, partial(claiming.renewed, some))
        return reports

    async def finish(
        self,
        claim: Claim,
        outcome: Outcome,
        *,
        error: JobError | None = None,
        messages: Sequence[Message] = (),
    ) -> bool:
        """End a running job, after appending ``messages``."""
        return await settling.finish(self._opened, claim, settling.ending_of(outcome, error), messages)

    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        """Let a failed attempt be followed by another in ``delay`` seconds, after appending ``messages``."""
        return await settling.retry(self._opened, claim, error, delay, counts, messages)

    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        """Return a running job to its queue unfinished, after appending ``messages``."""
        return await settling.release(self._opened, claim, reason, messages)

    async def request_cancel(self, job_id: str, reason: str | None, grace: float) -> CancelReply | None:
        """Ask to cancel: a job that does not run ends at once, a running one when its attempt is gone."""
        session = self._opened
        if not job_id.isprintable():
            return None

        def asked(answer: list[Any] | None, is_repeated: bool) -> CancelReply | None:
            if answer is None:
                return None
            accepted, row = answer
            entry = entry_of(row)
            is_done = is_repeated and entry.state is JobState.CANCELLED
            return session.announcer.replied(CancelReply(entry, bool(accepted) or is_done))

        arguments = (repr(float(grace)), plain_text(reason), session.worker)
        return await self._call_once(asked, "cancel", job_id, *arguments, brings=finding.LOADED)

    async def save_state(self, claim: Claim, value: Any) -> bool:
        """Keep a value for the job's next attempt."""
        return await settling.save_state(self._opened, claim, value)

    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        """Append an attempt's messages; those that are stored already are skipped."""
        return await settling.append(self._opened, claim, messages)

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        """Return up to ``limit`` kept messages after number ``after``, or None for an unknown job."""
        if not job_id.isprintable():
            return None
        heed = partial(_messages, self._opened.subscriber, job_id, after, limit)
        return await self._opened.call(run("read", job_id, after, limit, READ_BYTES), heed)

    async def follow(self, job_id: str, after: int, limit: int) -> tuple[list[Message] | None, JobEntry | None]:
        """Return what `read_messages` returns, and what `look` does right behind it, in one trip."""
        if not job_id.isprintable():
            return None, None
        subscriber = self._opened.subscriber

        def heed(answers: list[Any]) -> tuple[list[Message] | None, JobEntry | None]:
            found, row = answers
            return _messages(subscriber, job_id, after, limit, found), _entry(whole_row(row), job_id)

        # A batch keeps this order: only scripts may go earlier, with those of other calls.
        parts: list[Part] = [run("read", job_id, after, limit, READ_BYTES), self._row(job_id, finding.LOADED, LIGHT)]
        return await self._opened.calls.make(parts, heed)

    # -- calls

    def _row(self, job_id: str, brings: int = 0, fields: Sequence[str] = FIELDS) -> Command:
        """Return the command that reads a job's row, but for its id; with `LIGHT`, also but for what users gave."""
        return Command(b"HMGET", (f"{self._prefix}job:{job_id}", *fields), brings)

    async def _call_once(
        self, after: Callable[[Any, bool], T], name: str, job_id: str, *arguments: Argument, brings: int = 0
    ) -> T:
        """Call a script by which a repeated call would not be recognised; ``after`` is told whether this may be one."""
        session, what = self._opened, (name, job_id)
        is_repeated = what in session.doubtful
        call = run(name, job_id, *arguments, brings=brings)
        try:
            answer = await session.call(call, lambda found: after(found, is_repeated))
        except StoreUnavailableError:
            session.doubtful.add(what)
            raise
        session.doubtful.discard(what)
        return answer


def _check_prefix(prefix: Any) -> str:
    name = check_name("prefix", prefix)
    if set(name) & set("{}:"):
        raise ValueError(f"prefix must have no braces and no colon; got {show(prefix)}")
    return name


def _messages(
    subscriber: Subscriber, job_id: str, after: int, limit: int, found: list[Any] | None
) -> list[Message] | None:
    """Return what the script ``read`` has found, and have news of the job be heard as long as there may be any."""
    if found is None:
        return None
    if found[1] is None:
        subscriber.watch(job_id)
    else:
        subscriber.forget(job_id)  # nothing comes behind the `End`
    return messages_of(found, after, limit)


def _entry(row: list[Any], job_id: str) -> JobEntry | None:
    return None if row[0] is None else entry_of([*row, job_id.encode()])
