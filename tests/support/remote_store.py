"""`RemoteStore`: a store on another machine, as far as its callers can tell, for tests alone.

A `MemoryJobStore` is the server; any number of `RemoteStore` objects are its clients, each a worker's own. All
that goes either way is copied and encoded, takes time, may fail before or after it was carried out, be held up,
or never be answered. What the client does about repeated calls is what a client of a database would do.
"""

from __future__ import annotations

import copy
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import attrs
import trio
from faulty_network import Network

from jobtrio._codec import decode_value, encode_value
from jobtrio._entry import JobEntry, Plan
from jobtrio._messages import End, Gap, Message, Progress, Restart, Token
from jobtrio._nursery import open_background_nursery
from jobtrio._outage import try_for
from jobtrio._records import Cancelled, Completed, Failed, JobError, JobRecord, Outcome, Transition, WorkerReport
from jobtrio._token_log import TokenLog
from jobtrio.abc import Backlog, CancelReply, Claim, JobQuery, JobStore, LeaseReport, StoreSettings
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing._sweep import at_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Mapping, Sequence

    from jobtrio._policies import JobPriority, Retention
    from jobtrio._state import JobState


T = TypeVar("T")

Call: TypeAlias = "Callable[[MemoryJobStore], Coroutine[Any, Any, T]]"


class Server:
    """Where the jobs are. It listens to its own store and tells its clients."""

    def __init__(self) -> None:
        self.store = MemoryJobStore()
        self.clients: list[RemoteStore] = []
        self.submitters: dict[str, Retention] = {}
        self._changes: list[JobEntry] = []

    def serve(self, client: RemoteStore, call: Call[T]) -> tuple[T, list[JobEntry]]:
        """Carry out one call, whole; return what it returned and the jobs that it changed, as they then were."""
        self._changes = []
        new_log = partial(TokenLog, client.settings.retention.tokens_per_job)
        settings = attrs.evolve(client.settings, listener=self, new_log=new_log)
        self.store._use(settings)  # each call is made in the name of its client, and none of them closes the store
        return at_once(call(self.store)), self._changes

    def changed(self, entry: JobEntry) -> None:
        """Note a change for the client whose call made it."""
        self._changes.append(copied(entry))

    def work_ready(self) -> None:
        """Tell all clients."""
        self._tell("work_ready")

    def due_changed(self) -> None:
        """Tell all clients."""
        self._tell("due_changed")

    def messages_added(self, job_id: str | None) -> None:
        """Tell all clients."""
        self._tell("messages_added", job_id)

    def cancel_requested(self, job_id: str | None) -> None:
        """Tell all clients."""
        self._tell("cancel_requested", job_id)

    def _tell(self, signal: str, *args: str | None) -> None:
        for client in self.clients:
            client.signalled(signal, *args)


class RemoteStore(JobStore):
    """One worker's client of a `Server`."""

    is_elsewhere = True

    def __init__(self, server: Server, *, latency: float = 0.01, outage_limit: float = 10.0) -> None:
        self.network = Network(latency, outage_limit)
        self.outage_limit = outage_limit
        self._claimed_at = -inf
        self.settings: StoreSettings
        self._server = server
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def open(self, settings: StoreSettings) -> AsyncIterator[None]:
        """Connect for the duration of the block."""
        self.settings = settings
        await try_for(self.outage_limit, lambda: self.network.carry("open", lambda: None))
        async with open_background_nursery() as self._nursery:
            self._server.clients.append(self)
            try:
                yield
            finally:
                self._server.clients.remove(self)
                self._server.store.leave(settings.worker)
                self._nursery = None

    def signalled(self, signal: str, *args: str | None) -> None:
        """Pass on a signal of the server's, as late as anything from there."""
        if self._nursery is not None:
            self._nursery.start_soon(self._signal, signal, args)

    async def _signal(self, signal: str, args: tuple[str | None, ...]) -> None:
        await trio.sleep(self.network.latency)
        if not (self.network.away or self.network.deaf):
            getattr(self.settings.listener, signal)(*args)

    # -- calls

    async def _change(self, name: str, call: Call[T]) -> tuple[T, list[JobEntry]]:
        return await self.network.carry(name, lambda: self._server.serve(self, call))

    async def _ask(self, name: str, call: Call[T]) -> T:
        return (await self._change(name, call))[0]

    async def _write(self, name: str, claim: Claim, call: Call[bool]) -> bool:
        """Make a write that needs a claim; bring the claim's entry up to what is stored then."""

        async def written(store: MemoryJobStore) -> JobEntry | None:
            held = await call(store)
            kept = store.peek(claim.entry.id)
            return copied(kept) if held and kept is not None else None

        stored, changes = await self._change(name, written)
        if stored is None:
            stored = next((entry for entry in changes if entry.id == claim.entry.id), None)  # evicted at its end
        if stored is None:
            return False
        self._learn(claim.entry, stored)
        return True

    def _learn(self, entry: JobEntry, stored: JobEntry) -> None:
        """Bring an entry up to what is stored, and tell of its change of state if there was one.

        A repeated call finds no change to tell of at the server; the entry shows that it was not told of.
        """
        is_news = not entry.order or stored.progress > entry.progress
        for field in attrs.fields(JobEntry):
            if field.name not in ("plan", "log"):
                setattr(entry, field.name, getattr(stored, field.name))
        entry.plan = entry.plan.with_priority(stored.plan.priority)
        if is_news:
            self.settings.listener.changed(entry)

    def _tell(self, changes: Iterable[JobEntry]) -> None:
        for entry in changes:
            self.settings.listener.changed(entry)

    async def insert(self, entries: Sequence[JobEntry], submission: str) -> list[JobEntry]:
        """Store new jobs, all or none."""
        sent = [copied(entry) for entry in entries]

        async def insert(store: MemoryJobStore) -> list[JobEntry]:
            self._server.submitters.update({entry.id: self.settings.retention for entry in sent})
            return [copied(entry) for entry in await store.insert(sent, submission)]

        answer = await self._ask("insert", insert)
        kept = []
        ids: set[str] = set()
        for entry, stored in zip(entries, answer, strict=True):
            if stored.id == entry.id and stored.submission == submission and entry.id not in ids:
                self._learn(entry, stored)
                stored = entry
            ids.add(entry.id)
            kept.append(stored)
        return kept

    async def load(self, job_id: str) -> JobEntry | None:
        """Return a copy of a job, or None."""
        return await self._ask("load", lambda store: _copied(store.load(job_id)))

    async def find(self, query: JobQuery) -> list[JobRecord]:
        """Return the matching jobs, the oldest first."""
        records = await self._ask("find", lambda store: store.find(query))
        return [
            attrs.evolve(
                record, payload=_wired(record.payload), metadata=_wired(record.metadata), result=_wired(record.result)
            )
            for record in records
        ]

    async def history(self, job_id: str) -> list[Transition] | None:
        """Return a job's changes of state, the oldest first, or None for an unknown job."""
        return await self._ask("history", lambda store: store.history(job_id))

    async def counts(self) -> dict[str, dict[JobState, int]]:
        """Return how many jobs are in each state, by queue."""
        return await self._ask("counts", lambda store: store.counts())

    async def counts_of(self, tags: Mapping[str, str]) -> dict[str, dict[JobState, int]]:
        """Return how many jobs that have tags are in each state, by queue."""
        return await self._ask("counts_of", lambda store: store.counts_of(tags))

    async def workers(self) -> list[WorkerReport]:
        """Return the workers that are there."""
        return await self._ask("workers", lambda store: store.workers())

    async def pause(self, queue: str, seconds: float = inf) -> None:
        """Have no claim start a job of this queue."""
        await self._ask("pause", lambda store: store.pause(queue, seconds))

    async def resume(self, queue: str) -> None:
        """Have claims start jobs of this queue again."""
        await self._ask("resume", lambda store: store.resume(queue))

    async def paused(self) -> dict[str, float]:
        """Return the paused queues."""
        return await self._ask("paused", lambda store: store.paused())

    async def backlog(self, queues: Collection[str] | None, executors: Collection[str] | None = None) -> Backlog:
        """Return how many jobs of ``executors`` wait in ``queues``."""
        return await self._ask("backlog", lambda store: store.backlog(queues, executors))

    async def delete(self, job_id: str) -> bool:
        """Remove an ended job."""
        return await self._ask("delete", lambda store: store.delete(job_id))

    async def start_held(self, job_id: str, plan: Plan) -> bool:
        """Give a held job its plan."""
        plan = attrs.evolve(plan, function=None)

        async def start(store: MemoryJobStore) -> bool:
            # It counts with one retention for all, that by which the job was put in.
            retention = self._server.submitters.get(job_id, self.settings.retention)
            store.settings = attrs.evolve(store.settings, retention=retention)
            return await store.start_held(job_id, plan)

        return await self._ask("start_held", start)

    async def set_priority(self, job_id: str, priority: JobPriority) -> JobEntry | None:
        """Give a job that waits another priority."""
        return await self._ask("set_priority", lambda store: _copied(store.set_priority(job_id, priority)))

    async def claim(
        self,
        claim_id: str,
        *,
        limit: int,
        lease: float,
        room: Mapping[str, int] | None = None,
        executors: Collection[str] | None = None,
    ) -> list[Claim]:
        """Start up to ``limit`` ready jobs."""

        async def claim(store: MemoryJobStore) -> list[Claim]:
            store._claimed_at = self._claimed_at  # where it is repeated, that stays
            claims = await store.claim(claim_id, limit=limit, lease=lease, room=room, executors=executors)
            self._claimed_at = store._claimed_at
            return [Claim(copied(claim.entry), claim.id, claim.attempt) for claim in claims]

        claims = await self._ask("claim", claim)
        self._tell(claim.entry for claim in claims)
        return claims

    async def next_start(self, room: Mapping[str, int] | None = None) -> float:
        """Return the seconds until a job may start that a rate limit held back in this client's last claim."""

        async def next_start(store: MemoryJobStore) -> float:
            store._claimed_at = self._claimed_at
            return await store.next_start(room)

        return await self._ask("next_start", next_start)

    async def renew(self, claims: Sequence[Claim], lease: float) -> list[LeaseReport]:
        """Let claims last, and report on each."""

        async def renew(store: MemoryJobStore) -> list[LeaseReport]:
            return [LeaseReport(each.held, copied(each.entry)) for each in await store.renew(claims, lease)]

        return await self._ask("renew", renew)

    async def finish(
        self, claim: Claim, outcome: Outcome, *, error: JobError | None = None, messages: Sequence[Message] = ()
    ) -> bool:
        """End a running job."""
        outcome, sent = _outcome(outcome), [_message(message) for message in messages]
        error = None if error is None else _error(error)
        return await self._write(
            "finish", claim, lambda store: store.finish(claim, outcome, error=error, messages=sent)
        )

    async def retry(
        self, claim: Claim, error: JobError, delay: float, *, counts: bool = True, messages: Sequence[Message] = ()
    ) -> bool:
        """Let a failed attempt be followed by another."""
        error, sent = _error(error), [_message(message) for message in messages]
        return await self._write(
            "retry", claim, lambda store: store.retry(claim, error, delay, counts=counts, messages=sent)
        )

    async def release(self, claim: Claim, reason: str, *, messages: Sequence[Message] = ()) -> bool:
        """Return a running job to its queue."""
        sent = [_message(message) for message in messages]
        return await self._write("release", claim, lambda store: store.release(claim, reason, messages=sent))

    async def request_cancel(self, job_id: str, reason: str | None, grace: float) -> CancelReply | None:
        """Ask to cancel."""
        reason = _wired(reason)

        async def request(store: MemoryJobStore) -> CancelReply | None:
            reply = await store.request_cancel(job_id, reason, grace)
            return None if reply is None else CancelReply(copied(reply.entry), reply.accepted)

        reply, changes = await self._change("request_cancel", request)
        self._tell(changes)
        return reply

    async def save_state(self, claim: Claim, value: Any) -> bool:
        """Keep a value for the job's next attempt."""
        value = _wired(value)
        return await self._write("save_state", claim, lambda store: store.save_state(claim, value))

    async def append_messages(self, claim: Claim, messages: Sequence[Message]) -> bool:
        """Append an attempt's messages."""
        sent = [_message(message) for message in messages]
        return await self._write("append_messages", claim, lambda store: store.append_messages(claim, sent))

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message] | None:
        """Return kept messages."""
        messages = await self._ask("read_messages", lambda store: store.read_messages(job_id, after, limit))
        return None if messages is None else [_message(message) for message in messages]

    async def advance(self) -> float:
        """Do what has fallen due."""
        pause, changes = await self._change("advance", lambda store: store.advance())
        self._tell(changes)
        return pause

    async def prune(self) -> float:
        """Remove what is no longer kept."""
        return await self._ask("prune", lambda store: store.prune())


# -- encoding and decoding


def copied(entry: JobEntry) -> JobEntry:
    """Return a job as the other side sees it: a copy of its own, without functions and streams."""
    twin = copy.copy(entry)
    twin.plan = attrs.evolve(entry.plan, function=None)
    twin.log = None
    twin.payload = _wired(entry.payload)
    twin.metadata = _wired(entry.metadata)
    twin.saved_state = _wired(entry.saved_state)
    twin.tags = None if entry.tags is None else dict(entry.tags)
    twin.outcome = None if entry.outcome is None else _outcome(entry.outcome)
    twin.steps = None if entry.steps is None else list(entry.steps)
    return twin


async def _copied(loading: Any) -> JobEntry | None:
    entry = await loading
    return None if entry is None else copied(entry)


def _message(message: Message) -> Message:
    match message:
        case Token(value=value):
            return attrs.evolve(message, value=_wired(value))
        case Progress(note=note):
            return attrs.evolve(message, note=_wired(note))
        case Restart(error=error):
            return attrs.evolve(message, error=_error(error))
        case End(outcome=outcome):
            return attrs.evolve(message, outcome=_outcome(outcome))
        case Gap():
            return message


def _outcome(outcome: Outcome) -> Outcome:
    match outcome:
        case Completed(result=result):
            return Completed(_wired(result))
        case Failed(error=error):
            return Failed(_error(error))
        case Cancelled(reason=reason):
            return Cancelled(_wired(reason))


def _error(error: JobError) -> JobError:
    return JobError(error.kind, _wired(error.type), _wired(error.message), _wired(error.traceback))


def _wired(value: Any) -> Any:
    return decode_value(encode_value("what is sent", value))
