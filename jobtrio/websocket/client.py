"""`open_client`: jobs of a server, as if they were in this process.

It puts the parts together and turns calls into requests. What a connection is, and what becomes of it, is the
keeper's.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio
from msgspec.structs import replace

from jobtrio._checks import (
    NAME_LIMIT,
    check_count,
    check_flag,
    check_id,
    check_metadata,
    check_name,
    check_seconds,
    check_tags,
    check_text,
    show,
    show_url,
)
from jobtrio._errors import UnknownJobError
from jobtrio._ids import new_id
from jobtrio._nursery import open_background_nursery
from jobtrio._pages import PAGE, FoundJobs
from jobtrio._policies import JobPriority, check_priority, check_retry
from jobtrio._state import check_states
from jobtrio._subscription import check_on_gap
from jobtrio.websocket._client_address import check_token, parse_url
from jobtrio.websocket._client_errors import ServerRefusedError
from jobtrio.websocket._client_feed import Feed
from jobtrio.websocket._client_job import RemoteJob
from jobtrio.websocket._client_keeper import Keeper
from jobtrio.websocket._client_subscription import RemoteSubscription
from jobtrio.websocket._requests import MOST_FOUND
from jobtrio.websocket.protocol import (
    Cancel,
    Find,
    Get,
    JobFound,
    JobsFound,
    Ok,
    Submit,
    Submitted,
    record_of,
    wire_retry,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from jobtrio._policies import RetryPolicy
    from jobtrio._records import JobRecord
    from jobtrio._state import JobState
    from jobtrio._subscription import OnGap
    from jobtrio.websocket._client_feed import Start
    from jobtrio.websocket._requests import PriorityName
    from jobtrio.websocket.protocol import AnyReply, AnyRequest

R = TypeVar("R")


class JobClient:
    """Submits, finds, watches and cancels the jobs of a server. Made by `open_client`.

    A call is repeated when the connection is lost before its answer came, or when the server can't carry it out now.
    Nothing is done twice because of that: a submission has a key, the caller's or one that is generated here. A server
    that gives signs of life but no answer is waited for without limit: a cancel scope around a call bounds that. After
    the block of `open_client`, calls raise `trio.ClosedResourceError`. Within it, calls in a thread other than Trio's
    raise `RuntimeError`, which says how to make them.
    """

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the server now."""
        return self._keeper.is_connected

    async def submit(
        self,
        executor: str,
        payload: Any = None,
        *,
        key: str | None = None,
        queue: str | None = None,
        priority: JobPriority = JobPriority.NORMAL,
        time_limit: float | None = None,
        retry: RetryPolicy | None = None,
        delay: float | None = None,
        expires_in: float | None = None,
        tags: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RemoteJob:
        """Submit a job, once, and return its handle.

        Args:
            executor: The name of an executor that the server exposes.
            payload: What the executor is given: what JSON can hold.
            key: An idempotency key: while the job is kept, another submission with this key returns it. None generates
                one, so that a submission whose answer was lost is not made twice.
            queue: The queue to wait in; None for the executor's own.
            priority: Strict between levels, first in first out within one.
            time_limit: Seconds an attempt may take; None for the executor's own.
            retry: The retry policy; None for the executor's own. A server takes one of up to ``Limits.attempts``
                attempts, or of as many as the executor is registered with.
            delay: Seconds from now to the earliest start.
            expires_in: Seconds from now within which the first attempt has to start; more than the delay.
            tags: Strings by name, to find the job by; at most 1,000.
            metadata: Any values by name that JSON can hold.

        Raises:
            TypeError, ValueError: A parameter is invalid; the error names it.
            PayloadError: The payload can't be sent, or is larger than the server accepts.
            UnknownExecutorError: The server exposes no executor of this name.
            DuplicateJobError: The key belongs to another job, which this client may not see; its ``job_id`` is "".
            QueueFullError: As many jobs wait for their first start as the server allows.
            StoreUnavailableError: The server's store was away too long, and the job may have been stored; or the server
                was shutting down for too long.
            ServerUnavailableError: The server was away too long. The job may have been accepted.
            ServerRefusedError: The server does not let this client submit, or does not know of retry policies.

        Cancellation: the job may have been accepted.
        """
        request = Submit(
            executor=check_name("executor", executor),
            payload=payload,
            key=new_id() if key is None else check_name("key", key),
            queue=None if queue is None else check_name("queue", queue),
            priority=cast("PriorityName", check_priority(priority).name),
            time_limit=None if time_limit is None else check_seconds("time_limit", time_limit, zero=False),
            retry=wire_retry(check_retry(retry, plain="servers know no other class")),
            delay=None if delay is None else check_seconds("delay", delay),
            expires_in=None if expires_in is None else check_seconds("expires_in", expires_in, zero=False),
            tags=check_tags("tags", tags),
            metadata=check_metadata("metadata", metadata),
        )
        return RemoteJob((await self._ask(request, executor, Submitted)).job, self)

    def subscribe(
        self, job_id: str, after: Start = 0, *, epoch: str | None = None, on_gap: OnGap = "raise"
    ) -> RemoteSubscription:
        """Return a channel that receives a job's messages after number ``after``, up to its `End`.

        Args:
            job_id: The job.
            after: The number of the last message that is not wanted; 0 for all that are kept, ``"end"`` for what
                comes from now on.
            epoch: The epoch in which ``after`` was seen, if another client saw it.
            on_gap: What to do about messages no longer kept: ``"raise"`` a `LaggedError`, or ``"yield"`` a `Gap`.

        Raises:
            TypeError, ValueError: A parameter is invalid. What the server finds wrong is raised by receiving.
        """
        self._keeper.check_thread("client.subscribe()", "client.subscribe, job_id", "run_sync")
        job_id = check_id("job_id", job_id)
        check_text("job_id", job_id)
        if after != "end":
            after = check_count("after", after, low=0)
        epoch = check_text("epoch", epoch)
        check_on_gap(on_gap)
        idle = trio.lowlevel.ParkingLot()
        book = self._keeper.book

        def changed(feed: Feed) -> None:
            book.feed_changed(feed)
            idle.unpark_all()

        feed = Feed(job_id, after, epoch, changed)
        subscription = RemoteSubscription(feed, idle, on_gap)
        if len(job_id) > NAME_LIMIT:
            feed.fail(UnknownJobError(job_id))  # no job has such an id
        else:
            book.add_feed(feed)
        return subscription

    async def cancel(self, job_id: str, reason: str | None = None, *, grace: float = 0.0) -> bool:
        """Ask a job to end, and return at once; it is gone when its outcome is published.

        Args:
            job_id: The job.
            reason: Why; kept in the record and sent to every consumer. The first request's reason stays.
            grace: Seconds between setting the job's ``stopping`` and cancelling it.

        Returns:
            True if the job was alive: it will end `Cancelled`. False if it has ended, or its ending is decided; if the
            connection was lost meanwhile, this very request may have ended it.

        Raises:
            TypeError, ValueError: A parameter is invalid; the error names it.
            UnknownJobError: The server knows no such job, or this client may not see it.
            StoreUnavailableError: The server's store was away too long.
            ServerUnavailableError: The server was away too long. The request may have been made.
            ServerRefusedError: The server does not let this client cancel.

        Cancellation: the request may have been made.
        """
        job_id = check_id("job_id", job_id)
        request = Cancel(job=job_id, reason=check_text("reason", reason), grace=check_seconds("grace", grace))
        return bool((await self._ask(request, job_id, Ok)).cancelled)

    async def get(self, job_id: str) -> RemoteJob:
        """Return the handle of a job, with its record.

        Raises:
            TypeError, ValueError: ``job_id`` is not a string, or not one that UTF-8 can hold.
            UnknownJobError: The server knows no such job, or this client may not see it.
            StoreUnavailableError: The server's store was away too long.
            ServerUnavailableError: The server was away too long.
            ServerRefusedError: The server does not let this client look.

        Cancellation: nothing has changed.
        """
        job_id = check_id("job_id", job_id)
        found = await self._ask(Get(job=job_id), job_id, JobFound)
        return RemoteJob(job_id, self, record_of(found.job), is_paused=found.paused)

    async def fetch(self, job_id: str) -> JobRecord:
        """Return a job's record. Raises what `get` raises.

        Cancellation: nothing has changed.
        """
        record = (await self.get(job_id)).record
        assert record is not None  # it was asked for
        return record

    async def find(
        self,
        *,
        state: JobState | Iterable[JobState] | None = None,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
        limit: int = 100,
        after: str | None = None,
        newest_first: bool = False,
    ) -> list[JobRecord]:
        """Return the records of the jobs that match and that this client may see, in the order of their submission.

        If the records are large, a page has fewer than ``limit`` although more follow: only an empty page means that
        there are no more.

        Args:
            state: One state or several; None for any.
            tags: Tags that must all match.
            key: The key, as it was given to `submit`: at most one job has it.
            limit: How many at most, 1 to 1,000.
            after: The id of the last job of the page before.
            newest_first: Whether the newest come first, rather than the oldest.

        Raises:
            TypeError, ValueError: A parameter is invalid; the error names it.
            UnknownJobError: ``after`` is not (or no longer) kept.
            StoreUnavailableError: The server's store was away too long.
            ServerUnavailableError: The server was away too long.
            ServerRefusedError: The server does not let this client look.

        Cancellation: nothing has changed.
        """
        if (limit := check_count("limit", limit)) > MOST_FOUND:
            raise ValueError(f"limit must be a whole number, 1 to {MOST_FOUND}; got {show(limit)}")
        if after is not None:
            after = check_id("after", after)
        return await self._find(replace(_query(state, tags, key, newest_first), limit=limit, after=after))

    def find_all(
        self,
        *,
        state: JobState | Iterable[JobState] | None = None,
        tags: Mapping[str, str] | None = None,
        key: str | None = None,
        newest_first: bool = False,
    ) -> AsyncIterator[JobRecord]:
        """Return an async iterator over the records of all jobs that match and that this client may see.

        They come in the order of their submission, and are read in pages of at most 100; otherwise it is like that of
        `JobRegistry.find_all`. The parameters are those of `find`.

        Raises:
            TypeError, ValueError: A parameter is invalid; the error names it.
            UnknownJobError: While iterating: no job of the last page is kept any more. Begin again.
            StoreUnavailableError: While iterating: the server's store was away too long. Further iteration resumes
                where it left off.
            ServerUnavailableError: While iterating: the server was away too long. Further iteration resumes where it
                left off.
            ServerRefusedError: While iterating: the server does not let this client look.
            trio.BusyResourceError: While iterating: another task is waiting for the next record.

        Cancellation: further iteration resumes where it left off.
        """
        query = _query(state, tags, key, newest_first)
        return FoundJobs(lambda after: self._find(replace(query, limit=PAGE, after=after)))

    async def _find(self, request: Find) -> list[JobRecord]:
        records = [record_of(job) for job in (await self._ask(request, request.after or "", JobsFound)).jobs]
        if request.key is not None and any(record.key != request.key for record in records):
            raise ServerRefusedError("protocol", "the server does not know of finding by key")
        return records

    async def _ask(self, request: AnyRequest, subject: str, answer: type[R]) -> R:
        self._keeper.check_thread("a client's method", "client.submit, executor", "run")
        reply: AnyReply = await self._keeper.ask(request, subject)
        if not isinstance(reply, answer):
            got = type(reply).__name__
            raise ServerRefusedError("protocol", f"{answer.__name__} was due, and {got} came")
        return reply


def _query(
    state: JobState | Iterable[JobState] | None, tags: Mapping[str, str] | None, key: str | None, newest_first: bool
) -> Find:
    states = check_states(state)
    return Find(
        tags=check_tags("tags", tags),
        state=None if states is None else sorted(states),
        key=None if key is None else check_name("key", key),
        newest_first=check_flag("newest_first", newest_first),
    )


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_client(
    url: str, *, token: str | None = None, outage_limit: float = 10.0, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[JobClient]:
    """Connect to a server, and stay connected within the block.

    A lost connection is re-established, after a growing pause with jitter, and all subscriptions go on where they were.
    Subscriptions wait for the server however long it is away.

    Args:
        url: ``ws://HOST:PORT/ws``, or ``wss://`` for an encrypted connection.
        token: What the server's ``authenticate`` is given; None for none.
        outage_limit: Seconds that opening and calls wait for a server that is away, is shutting down, or says that its
            store is away; inf for no limit. A server that has vanished without a word counts as away once it has been
            silent for 2.5 of its heartbeats, by default after 37.5 seconds.
        ssl_context: How to encrypt, and whom to trust; None for the system's defaults.

    Raises:
        TypeError, ValueError: A parameter is invalid; the error names it.
        ServerUnavailableError: The server was away too long.
        ServerRefusedError: The server refuses this client, or is not jobtrio's. A token is checked after the handshake:
            if it is wrong, calls and subscriptions raise this.

    Cancellation: the connection is cut off; what was asked for may have been done.
    """
    address = parse_url(url)
    limit = check_seconds("outage_limit", outage_limit, zero=False, infinite=True)
    if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
        raise TypeError(f"ssl_context must be an ssl.SSLContext or None; got {show(ssl_context)}")
    if ssl_context is not None and not address.secure:
        raise ValueError(f"ssl_context is for wss:// alone; got {show_url(url)}")
    if ssl_context is not None and ssl_context.protocol is ssl.PROTOCOL_TLS_SERVER:  # no handshake would succeed
        made = "as ssl.create_default_context() makes it"
        raise ValueError(f"ssl_context must be one for clients, {made}; got one for servers")
    keeper = Keeper(address, check_token(token), ssl_context, limit)
    async with open_background_nursery() as nursery:
        nursery.start_soon(keeper.run)
        try:
            await keeper.wait_opened()
            yield JobClient(keeper)
            await keeper.leave()
        finally:
            keeper.book.fail(trio.ClosedResourceError("the client is closed"))
