"""Putting a job in with a transaction of the caller's own: it is there, and workers are told, once that commits.

The steps are the same for synchronous and asynchronous connections; only who waits for the server differs. Nothing here
begins or ends a transaction. It must not know stores or registries.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import trio
from psycopg.rows import tuple_row

from jobtrio._checks import check_name, show
from jobtrio._errors import PayloadError, StoreUnavailableError
from jobtrio._ids import worker_name
from jobtrio._policies import JobPriority, Retention
from jobtrio._submission import DEFAULT_QUEUE, Submissions
from jobtrio.executors import Executors
from jobtrio.stores.postgres._adapting import adapters_for
from jobtrio.stores.postgres._arrays import array
from jobtrio.stores.postgres._inserting import TRIES, Standing, hints_of, insertion_step, place_of
from jobtrio.stores.postgres._notices import Clock, channel_of, payloads_of
from jobtrio.stores.postgres._rows import new_row
from jobtrio.stores.postgres._schema import check_schema_name
from jobtrio.stores.postgres._statements import statements

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping
    from datetime import datetime

    from jobtrio._entry import JobEntry
    from jobtrio._policies import RetryPolicy
    from jobtrio._records import JobRecord
    from jobtrio.stores.postgres._connections import Rows, Step


class Submitter:
    """Submits jobs within transactions of programs that need neither Trio nor an open store for it.

    What `JobRegistry.submit` is to a registry, `submit_in` is to a transaction on a psycopg connection: of a web
    application, say, that runs on threads.
    """

    def __init__(self, executors: Executors, *, schema: str = "jobtrio", worker: str | None = None) -> None:
        """Choose the executors and the schema, which has to exist: a store creates it when it is opened.

        Args:
            executors: The executors that jobs can be submitted to; only their names and options matter here.
            schema: The store's schema.
            worker: This process's name in the history; None for host, process id and a random part.

        Raises:
            TypeError, ValueError: A parameter is invalid.
        """
        if not isinstance(executors, Executors):
            raise TypeError(f"executors must be an Executors; got {show(executors)}")
        self.schema: Final = check_schema_name(schema)
        self._submissions = Submissions(
            executors,
            limiter=trio.CapacityLimiter(1),
            queues=None,
            durable=True,
            checks_values=True,
            worker=worker_name() if worker is None else check_name("worker", worker),
        )

    def submit_in(
        self,
        connection: psycopg.Connection[Any],
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
    ) -> JobRecord:
        """Submit a job within the connection's transaction; return its record, or that of the job that has its key.

        The job exists for others, and workers are notified of it, once the transaction commits; never, if it is rolled
        back. A delay counts from now, not from the commit. The parameters are those of `JobRegistry.submit`.

        Args:
            connection: A synchronous psycopg connection. If no transaction is open, the job is stored at once, or with
                the one that this begins, as with any statement.
            executor: A registered executor, or its name.
            payload: What the executor is given.
            job_id: The job's id.
            key: The job's idempotency key, for as long as the job is kept.
            queue: The queue to wait in.
            priority: Its `JobPriority`.
            time_limit: Seconds an attempt may take.
            retry: The retry policy.
            delay: Seconds to the earliest start.
            run_at: The earliest start, an aware datetime.
            expires_in: Seconds within which the first attempt has to start.
            tags: Strings by name, to find the job by; at most 1,000.
            metadata: Any values by name.

        Raises:
            TypeError, ValueError, UnknownExecutorError, PayloadError: As `JobRegistry.submit`, or the connection's
                encoding lacks a character; nothing was sent.
            DuplicateJobError: ``job_id`` is in use. The transaction can go on.
            psycopg.Error: What the connection raises, as it is: it is the caller's transaction that has failed.
        """
        if not isinstance(connection, psycopg.Connection):
            raise TypeError(f"connection must be a psycopg.Connection; got {show(connection)}")
        options = (job_id, key, queue, priority, time_limit, retry, delay, run_at, expires_in, tags, metadata)
        entry = self._submissions.entry(executor, payload, *options)
        return put_in(connection, self.schema, entry).record()


def put_in(connection: psycopg.Connection[Any], schema: str, entry: JobEntry) -> JobEntry:
    """Put a job in with a synchronous connection; return it, or the one that has its key."""
    sql = statements(f'"{schema}"')
    steps = _steps(entry, schema)
    step = next(steps)
    with psycopg.RawCursor(connection, row_factory=tuple_row) as cursor:
        cursor._adapters = adapters_for(connection)
        while True:
            with _encodable(connection):
                cursor.execute(sql[step[0]].encode(), step[1:], binary=True)
            try:
                step = steps.send(cursor.fetchall())
            except StopIteration as end:
                stored: JobEntry = end.value
                return stored


async def put_in_async(connection: psycopg.AsyncConnection[Any], schema: str, entry: JobEntry) -> JobEntry:
    """Put a job in with an asynchronous connection; return it, or the one that has its key.

    Cancellation: as the connection's own.
    """
    sql = statements(f'"{schema}"')
    steps = _steps(entry, schema)
    step = next(steps)
    async with psycopg.AsyncRawCursor(connection, row_factory=tuple_row) as cursor:
        cursor._adapters = adapters_for(connection)
        while True:
            with _encodable(connection):
                await cursor.execute(sql[step[0]].encode(), step[1:], binary=True)
            try:
                step = steps.send(await cursor.fetchall())
            except StopIteration as end:
                stored: JobEntry = end.value
                return stored


@contextmanager
def _encodable(connection: psycopg.BaseConnection[Any]) -> Iterator[None]:
    """Tell which character the caller's connection can't send. Nothing was sent then."""
    try:
        yield
    except UnicodeEncodeError as exc:
        encoding = connection.info.parameter_status("client_encoding")
        raise PayloadError(
            f"the connection's client_encoding is {encoding}, which can't hold {show(exc.object[exc.start])}; "
            "set it to UTF8"
        ) from exc


def _steps(entry: JobEntry, schema: str) -> Generator[Step, Rows, JobEntry]:
    """Give the statements that put a job in, one by one, and take their answers; return what stands for the job."""
    submission = secrets.token_hex(16)
    rows = [new_row(entry, submission, Retention())]
    for _ in range(TRIES):
        # In nobody's name: also the process that submits hears of it only by the notice.
        told = array(payloads_of(hints_of([entry], rows), "", Clock()))
        found = yield (*insertion_step("insert", rows, [entry]), channel_of(schema), told)
        if found:
            place_of(found[0], entry).note(entry, submission)
            return entry
        by_ids = yield ("by_ids", array([entry.id]))
        by_keys: Rows = [] if entry.key is None else (yield ("by_keys", array([entry.key])))
        standing = Standing(by_ids, by_keys).for_(entry, submission)
        if standing is not None:
            yield ("confirm",)  # with the caller's commit, in which there may be nothing else
            return standing
        while (yield ("catch_up",))[0][0]:  # or it is its number that another has
            pass
    raise StoreUnavailableError("others put in and take out the same jobs all the time")
