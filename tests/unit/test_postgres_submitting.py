"""Jobs that are submitted within a transaction of the caller's own."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from psycopg import pq
from psycopg.adapt import AdaptersMap, Dumper, Loader
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

import jobtrio
from jobtrio import Completed, Executors, JobContext, JobPriority, JobState, RetryPolicy
from jobtrio.psycopg_trio import connect
from jobtrio.stores.postgres import PostgresJobStore, Submitter
from jobtrio.testing._workers import open_worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

executors = Executors()


@executors.register("double", queue="numbers", time_limit=7.0, retry=RetryPolicy(max_attempts=4))
async def double(job: JobContext) -> int:
    return 2 * int(job.payload)


async def unregistered(job: JobContext) -> None:
    """Never run."""


@pytest.fixture(autouse=True)
def _look_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers that hear of news not look for them by themselves."""
    monkeypatch.setattr("jobtrio.stores.postgres._session.LOOK_AFTER", 600.0)


@pytest.fixture
def store(postgres: str) -> PostgresJobStore:
    return PostgresJobStore(postgres)


@pytest.fixture
async def registry(store: PostgresJobStore) -> AsyncIterator[jobtrio.JobRegistry]:
    """Runs nothing of itself."""
    async with jobtrio.open_registry(executors, store=store, queues={}) as registry:
        yield registry


@asynccontextmanager
async def on_trio(conninfo: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await connect(conninfo) as connection:
        yield connection


@asynccontextmanager
async def synchronous(conninfo: str) -> AsyncIterator[psycopg.Connection[Any]]:
    with psycopg.connect(conninfo) as connection:
        yield connection


KINDS = [on_trio, synchronous]


async def commit(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if isinstance(connection, psycopg.AsyncConnection):
        await connection.commit()
    else:
        connection.commit()


async def roll_back(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    if isinstance(connection, psycopg.AsyncConnection):
        await connection.rollback()
    else:
        connection.rollback()


async def execute(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], statement: str) -> None:
    if isinstance(connection, psycopg.AsyncConnection):
        await connection.execute(statement.encode())
    else:
        connection.execute(statement.encode())


@pytest.mark.parametrize("kind", KINDS)
async def test_commit(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """A job is there when the transaction has committed, not before, and then idle workers hear of it at once."""
    async with kind(postgres) as connection, jobtrio.open_registry(executors, store=PostgresJobStore(postgres)):
        await trio.sleep(0.2)  # the worker has nothing to do
        await execute(connection, "CREATE TABLE orders (id int)")
        record = await store.submit_in(connection, double, 21)
        assert (record.state, record.executor, record.payload) == (JobState.QUEUED, "double", 21)
        with pytest.raises(jobtrio.UnknownJobError):
            await registry.get(record.id)
        assert await registry.find() == []
        await commit(connection)
        job = await registry.get(record.id)
        with trio.fail_after(60):
            assert await job.wait() == Completed(42)
        assert (await registry.history(record.id))[0].at == record.created_at


@pytest.mark.parametrize("kind", KINDS)
async def test_rollback(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """A job whose transaction is rolled back was never there: its id and its key are free."""
    async with kind(postgres) as connection:
        record = await store.submit_in(connection, "double", 1, job_id="id", key="key")
        assert record.id == "id"
        await roll_back(connection)
        await trio.sleep(0.1)
        assert await registry.find() == []
        assert (await registry.submit("double", 2, job_id="id", key="key")).record.payload == 2


@pytest.mark.parametrize("kind", KINDS)
async def test_parameters(postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Any) -> None:
    """The parameters and the executors' defaults are those of `submit`, and what is stored is what is returned."""
    run_at = datetime.now(UTC) + timedelta(hours=1)
    options: list[dict[str, Any]] = [
        {},
        {
            "job_id": "chosen",
            "key": "k",
            "queue": "other",
            "priority": JobPriority.HIGH,
            "time_limit": 3,
            "retry": RetryPolicy(max_attempts=9),
            "delay": 60.0,
            "expires_in": 90.0,
            "tags": {"user": "é", "n": "1"},
            "metadata": {"m": ["\x00", None]},
        },
        {"run_at": run_at},
    ]
    async with kind(postgres) as connection:
        records = [await store.submit_in(connection, double, {"x": "\x00"}, **each) for each in options]
        await commit(connection)
    assert records == await registry.find()
    plain, rich, late = records
    assert (plain.queue, plain.max_attempts, plain.payload) == ("numbers", 4, {"x": "\x00"})
    assert (rich.id, rich.key, rich.queue, rich.priority) == ("chosen", "k", "other", JobPriority.HIGH)
    assert (rich.max_attempts, rich.tags, rich.metadata) == (9, {"user": "é", "n": "1"}, {"m": ["\x00", None]})
    assert (rich.state, late.state, late.run_at) == (JobState.SCHEDULED, JobState.SCHEDULED, run_at)
    assert [record.id for record in await registry.find(tags={"n": "1"})] == ["chosen"]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_in_use(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """A key in use gives its job; an id in use is refused; the transaction goes on in either case."""
    await registry.submit("double", 0, job_id="id", key="key")
    async with kind(postgres) as connection:
        assert (await store.submit_in(connection, double, 1, key="key")).id == "id"
        with pytest.raises(jobtrio.DuplicateJobError) as caught:
            await store.submit_in(connection, double, 2, job_id="id")
        assert caught.value.job_id == "id"
        first = await store.submit_in(connection, double, 3, key="new")
        assert (await store.submit_in(connection, double, 4, key="new")).id == first.id
        await commit(connection)
    assert [record.payload for record in await registry.find()] == [0, 3]


@pytest.mark.parametrize("kind", KINDS)
async def test_numbers_that_others_have(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """Where the server gives out again the numbers of jobs that there are, a new one is put in behind those."""
    await registry.submit_many([jobtrio.JobSpec("double", n) for n in range(30)])
    async with kind(postgres) as connection:
        await execute(connection, "SELECT setval('jobtrio.numbers', 1, false)")
        await store.submit_in(connection, double, 30)
        await commit(connection)
    assert [record.payload for record in await registry.find()] == [*range(31)]


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_refused(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """What `submit` refuses is refused before anything is sent, and the transaction goes on."""
    async with kind(postgres) as connection:
        for error, given, options in (
            (jobtrio.UnknownExecutorError, ("unknown",), {}),
            (jobtrio.UnknownExecutorError, (unregistered,), {}),
            (jobtrio.PayloadError, (double, object()), {}),
            (ValueError, (double, 1), {"delay": -1}),
            (TypeError, (double, 1), {"tags": {"n": 1}}),
        ):
            with pytest.raises(error):
                await store.submit_in(connection, *given, **options)
        await execute(connection, "SELECT 1")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    for stranger in (None, "connection", registry):
        with pytest.raises(TypeError, match="connection must be"):
            await store.submit_in(stranger, double)  # type: ignore[arg-type]


async def test_a_store_that_knows_no_executors(postgres: str, store: PostgresJobStore) -> None:
    """A store that is not open, or was not opened by a registry, says so."""
    with psycopg.connect(postgres) as connection:
        with pytest.raises(RuntimeError, match="is not open"):
            await store.submit_in(connection, "double")
        async with open_worker(lambda: store):
            with pytest.raises(RuntimeError, match="was not opened by a registry"):
                await store.submit_in(connection, "double")


async def test_in_what_the_caller_has_set(postgres: str, store: PostgresJobStore, registry: Any) -> None:
    """Row factories, autocommit, savepoints, pipelines and isolation levels are the caller's, and don't matter."""
    with psycopg.connect(postgres, row_factory=dict_row, autocommit=True) as connection:
        await store.submit_in(connection, double, "at once")
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with connection.transaction():
            with connection.transaction(force_rollback=True):
                await store.submit_in(connection, double, "never")
            await store.submit_in(connection, double, "in a transaction")
        with connection.pipeline(), connection.transaction():
            await store.submit_in(connection, double, "in a pipeline")
    async with await connect(postgres, prepare_threshold=0) as other:
        await other.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        await store.submit_in(other, double, "serializable")
        await other.commit()
        async with other.pipeline():
            await store.submit_in(other, double, "in a pipeline on Trio")
    assert [record.payload for record in await registry.find()] == [
        "at once",
        "in a transaction",
        "in a pipeline",
        "serializable",
        "in a pipeline on Trio",
    ]


class _Odd(Loader):
    """Makes something else of everything."""

    format = pq.Format.BINARY

    def load(self, data: Any) -> Any:
        return {"odd": bytes(data)}


class _OddDumper(Dumper):
    format = pq.Format.BINARY

    def dump(self, obj: Any) -> bytes:
        return b"odd"


def _register(context: Any) -> None:
    for name in ("text", "int8", "float8", "int4", "int2"):
        context.adapters.register_loader(name, _Odd)
    context.adapters.register_dumper(str, _OddDumper)


@pytest.mark.parametrize("kind", KINDS)
async def test_adapters_of_the_callers(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """What the caller has made of types and values for his connection is for his own statements."""
    async with kind(postgres) as connection:
        _register(connection)
        first = await store.submit_in(connection, "double", 1, key="k", tags={"a": "b"})
        assert await store.submit_in(connection, "double", 2, key="k") == first
        await commit(connection)
    assert (await registry.get(first.id)).record == first


async def test_adapters_for_all(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program registers for all its connections changes nothing in a store."""
    mine = AdaptersMap(psycopg.adapters)
    for name in ("_loaders", "_dumpers", "_dumpers_by_oid"):  # for the time of the test
        monkeypatch.setattr(psycopg.adapters, name, getattr(mine, name))
    _register(psycopg)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        claim = await worker.start()
        assert await worker.store.finish(claim, Completed(1))
        assert (await worker.load(claim.entry.id)).outcome == Completed(1)
        assert await worker.advance() > 0


async def test_a_transaction_that_has_failed(postgres: str, store: PostgresJobStore, registry: Any) -> None:
    """What the connection says comes as it is: it is the caller's transaction."""
    with psycopg.connect(postgres) as connection:
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM nothing")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await store.submit_in(connection, double)


async def test_a_delay_is_heard_of(postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry) -> None:
    """A worker learns with the commit when a delayed job falls due, though it has nothing to do before."""
    async with jobtrio.open_registry(executors, store=PostgresJobStore(postgres)):
        await trio.sleep(0.2)
        with psycopg.connect(postgres) as connection:
            record = await store.submit_in(connection, double, 1, delay=0.3)
        with trio.fail_after(60):
            assert await (await registry.get(record.id)).wait() == Completed(2)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_can_not_say_it(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """What the encoding of the caller's connection lacks is refused by name, and the transaction can go on."""
    async with kind(make_conninfo(postgres, client_encoding="LATIN1")) as connection:
        with pytest.raises(jobtrio.PayloadError, match=r"client_encoding is LATIN1, which can't hold '😀'; set it to"):
            await store.submit_in(connection, double, 1, tags={"mood": "😀"})
        record = await store.submit_in(connection, double, 1, tags={"mood": "é"})
        await commit(connection)
    assert [found.id for found in await registry.find(tags={"mood": "é"})] == [record.id]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_connection_that_converts_nothing(
    postgres: str, store: PostgresJobStore, registry: jobtrio.JobRegistry, kind: Callable[[str], Any]
) -> None:
    """With SQL_ASCII, whose texts psycopg gives as bytes, jobs are put in and found in the way as ever."""
    job = await registry.submit(double, {"a": "é"}, job_id="id", key="k", tags={"é": "😀"})
    async with kind(make_conninfo(postgres, client_encoding="SQL_ASCII")) as connection:
        assert await store.submit_in(connection, double, 1, key="k") == job.record
        with pytest.raises(jobtrio.DuplicateJobError):
            await store.submit_in(connection, double, 1, job_id="id")
        record = await store.submit_in(connection, double, {"b": "😀"}, key="new")
        assert await store.submit_in(connection, double, 1, key="new") == record
        await commit(connection)
    assert (await registry.get(record.id)).record == record


# -- without a store


@contextmanager
def made(postgres: str) -> Iterator[None]:
    async def make() -> None:
        async with open_worker(lambda: PostgresJobStore(postgres)):
            pass

    trio.run(make)
    yield


def test_without_trio(postgres: str) -> None:
    """A program without Trio submits with a synchronous connection, and a worker elsewhere runs it."""
    with made(postgres):
        submitter = Submitter(executors, worker="web")
        with psycopg.connect(postgres) as connection:
            record = submitter.submit_in(connection, "double", 4, tags={"t": "v"}, key="k")
            assert submitter.submit_in(connection, double, 5, key="k").id == record.id
            submitter.submit_in(connection, "double", 6)
            connection.rollback()
            record = submitter.submit_in(connection, double, 7, priority=JobPriority.LOW)

    async def work() -> tuple[Any, list[jobtrio.Transition]]:
        async with jobtrio.open_registry(executors, store=PostgresJobStore(postgres)) as registry:
            (found,) = await registry.find()
            assert found.id == record.id
            with trio.fail_after(60):
                return await (await registry.get(found.id)).result(), await registry.history(found.id)

    result, history = trio.run(work)
    assert result == 14
    assert history[0].worker == "web"
    assert (record.queue, record.priority, record.max_attempts) == ("numbers", JobPriority.LOW, 4)


def test_what_a_submitter_refuses(postgres: str) -> None:
    """Parameters that make no sense, and connections that are not synchronous, are refused."""
    with pytest.raises(TypeError, match="executors must be"):
        Submitter({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="schema must be"):
        Submitter(executors, schema="a b")
    with pytest.raises(ValueError, match="worker must be"):
        Submitter(executors, worker="")
    with pytest.raises(TypeError, match="connection must be"):
        Submitter(executors).submit_in(None, "double")  # type: ignore[arg-type]
    with psycopg.connect(postgres) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        Submitter(executors, schema="elsewhere").submit_in(connection, "double")
