"""What is stored besides costs nothing: each statement reads few pages, however many jobs there are.

The plans that count are those a long-lived worker has: made while the tables were empty and kept while they grew, with
no statistics since, or made anew when there were some. Those made each time, as behind a pooler, are looked at as well.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import attrs
import psycopg
import pytest
import trio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from jobtrio import Completed, Failed, JobPriority, JobState, RateLimit, Retention, RetryPolicy
from jobtrio.abc import JobQuery
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.postgres import _claiming as claiming
from jobtrio.stores.postgres import _connections as connections
from jobtrio.stores.postgres._statements import statements
from jobtrio.testing._workers import ERROR, LEASE, Worker, new_entry, new_plan, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres_server import PostgresServer

    from jobtrio.stores.postgres._connections import Link

JOBS = int(os.environ.get("JOBTRIO_EFFORT_JOBS", "30000"))
"""Jobs of each kind; a million for a long test."""

SQL = statements('"jobtrio"')

MANY = frozenset({"counts", "backlog", "ended_limit"})
"""Statements that count, or walk over what is kept to what is not."""

GUESSED = frozenset({"candidates_in_groups", "find_in_groups", "find_in_groups_newest_first", "complete", "renew"})
"""Statements that may walk over more until the server has looked at the tables again. What would keep the last two from
it makes them slower where many jobs run at once."""

PAGES = 1000
"""Pages that a statement may read, whose parameters name a handful of jobs. A look at all would be thousands."""

FILL = """
INSERT INTO jobtrio.jobs (
    seq, ticket, id, submission, executor, queue, priority, state, attempt, plan, payload, tags, created_at, delay, due,
    expires, started_at, finished_at, lease_until, claim, session, worker, result, history
)
SELECT
    n, n, kind || n, 's', CASE kind WHEN 'foreign' THEN 'foreign' ELSE 'work' END, 'default',
    CASE kind WHEN 'foreign' THEN 3 ELSE 1 END, state, CASE WHEN state IN ('QUEUED', 'SCHEDULED') THEN 0 ELSE 1 END,
    '{{"time_limit":null,"retry":null,"worker":"w"}}', 'null', '{{"user":"ann"}}', n,
    CASE state WHEN 'SCHEDULED' THEN 9e9 ELSE 0 END,
    CASE WHEN state IN ('SCHEDULED', 'RETRYING') THEN 9e9 ELSE 0 END, CASE state WHEN 'QUEUED' THEN 9e9 END,
    1, CASE state WHEN 'COMPLETED' THEN n END, CASE state WHEN 'RUNNING' THEN 9e9 ELSE 0 END, 'claim ' || n / 10,
    'session ' || n / 1000, 'w', CASE state WHEN 'COMPLETED' THEN 'null' END, ''
FROM (
    SELECT nextval('jobtrio.numbers') AS n, kind, state
    FROM generate_series(1, {count}) CROSS JOIN (VALUES {kinds}) AS kinds (kind, state)
) AS numbered
"""

KINDS = ", ".join(
    f"('{kind}', '{state}')"
    for kind, state in (
        ("foreign", "QUEUED"),
        ("ready", "QUEUED"),
        ("scheduled", "SCHEDULED"),
        ("retrying", "RETRYING"),
        ("ended", "COMPLETED"),
    )
)


def fill(conninfo: str) -> None:
    """Add jobs of all kinds, with tags and messages: those that a worker must not start stand before those it may."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute(FILL.format(count=JOBS, kinds=KINDS).encode())
        connection.execute(FILL.format(count=JOBS // 30, kinds="('running', 'RUNNING')").encode())
        connection.execute("INSERT INTO jobtrio.tags SELECT seq, 'user', 'ann' FROM jobtrio.jobs WHERE seq % 7 = 0")
        connection.execute(
            "INSERT INTO jobtrio.messages SELECT seq, part, part, '[[0,1,1]]'"
            " FROM jobtrio.jobs CROSS JOIN generate_series(1, 2) AS part WHERE seq % 7 = 0"
        )


# -- what the store asks


Asked = dict[str, tuple[Any, ...]]


def listen_in(asked: Asked) -> pytest.MonkeyPatch:
    """Note what is asked from now on: of each statement the parameters that say most."""
    patch = pytest.MonkeyPatch()

    def note(name: str, parameters: tuple[Any, ...]) -> None:
        if name in SQL and len(str(parameters)) >= len(str(asked.get(name, ""))):
            asked[name] = parameters

    original, original_all = connections.Link.fetch, connections.Link.fetch_all

    async def one(self: Any, name: str, *parameters: Any) -> Any:
        note(name, parameters)
        return await original(self, name, *parameters)

    async def several(self: Any, steps: Any) -> Any:
        steps = list(steps)
        for name, *parameters in steps:
            note(name, tuple(parameters))
        return await original_all(self, steps)

    patch.setattr(connections.Link, "fetch", one)
    patch.setattr(connections.Link, "fetch_all", several)
    return patch


async def ask_all(conninfo: str, asked: Asked) -> None:
    """Have a store ask everything that it may ask; ``asked`` is what it has asked by then."""
    keep = Retention(finished_jobs=JOBS - 100, finished_for=float("inf"), tokens_per_job=5)
    async with open_worker(lambda: PostgresJobStore(conninfo), retention=keep) as worker:
        with psycopg.connect(conninfo) as connection:  # so that it has to catch up
            connection.execute("SELECT setval('jobtrio.numbers', 1)")
        await _live(worker, conninfo)
        await _look(worker)
    totals, rates = {"few": 3, "default": JOBS}, {"few": RateLimit(1, per=0.5), "u*": RateLimit(1, per=1)}

    def unheard() -> PostgresJobStore:
        return PostgresJobStore(conninfo, listen=False)

    async with open_workers(unheard, "worker", retention=keep, totals=totals, rates=rates) as (worker,):
        await worker.insert(new_entry(queue="few", executor="own"), new_entry(queue="few", executor="own"))
        assert await worker.claim(room={"few": 1, "default": 2}, executors={"own"})
        assert await worker.store.next_start() < 1
        assert await worker.store.renew((), 1.0) == []
        with trio.fail_after(60):
            while "asked_to_stop" not in asked:  # noqa: ASYNC110 - it looks for news by itself
                await trio.sleep(0.1)


async def _live(worker: Worker, conninfo: str) -> None:
    store = worker.store
    own = frozenset({"own"})
    await worker.insert(*(new_entry("own", retry=RetryPolicy(), tags={"t": str(n)}) for n in range(4)))
    for n in range(4, 8):
        await worker.insert(new_entry("own", retry=RetryPolicy(), tags={"t": str(n)}, key=f"key {n}"))
    await worker.insert(new_entry("own", key="key 5"))
    held = new_entry(None)
    await worker.insert(held)
    await store.start_held(held.id, new_plan("own"))
    one, two, three, four, five, six, *rest = await worker.claim(executors=own)
    with psycopg.connect(conninfo) as other:  # so that it has to be waited for
        other.execute("SELECT FROM jobtrio.jobs WHERE id = %s FOR UPDATE", [one.entry.id])
        await store.renew([one, two], LEASE)
    await store.append_messages(one, tokens(1, 2))
    await store.append_messages(one, tokens(9, 20))
    await store.append_messages(one, tokens(21, 40))
    await store.save_state(one, "x")
    await store.request_cancel(two.entry.id, None, 0.0)
    await store.finish(two, Completed())
    await store.finish(one, Completed(), messages=tokens(41, 42))
    await store.finish(three, Failed(ERROR))
    await store.retry(four, ERROR, 0.0)
    await store.set_priority(four.entry.id, JobPriority.HIGH)
    await store.release(five, "shutdown")
    await store.renew([three], LEASE)
    await worker.insert(new_entry("own", expires_in=0.05))
    await worker.claim(lease=0.05, executors=own)
    await worker.pass_time(0.3)
    await store.finish(six, Completed())
    await store.delete(two.entry.id)
    for claim in rest:
        await store.finish(claim, Completed())


async def _look(worker: Worker) -> None:
    store = worker.store
    for query in (
        JobQuery(limit=10),
        JobQuery(tags={"user": "ann"}, limit=10),
        JobQuery(tags={"user": "ann", "t": "1"}, queue="default", executor="own", after="ready2", limit=10),
        JobQuery(states=frozenset({JobState.QUEUED, JobState.FAILED}), limit=10),
        JobQuery(executor="work", states=frozenset({JobState.RETRYING}), tags={"user": "ann"}, limit=10),
        JobQuery(key="key 6"),
        JobQuery(key="key 6", executor="own", tags={"t": "6"}),
    ):
        await store.find(query)
        await store.find(attrs.evolve(query, newest_first=True))
    await store.load("ready2")
    await store.look("ready2")
    await store.history("ready2")
    await store.read_messages("ended10", 1, 10)
    await store.counts()
    await store.counts_of({"user": "ann", "t": "1"})
    await store.workers()
    await store.backlog({"default"}, {"own"})
    await store.pause("other")
    assert await store.paused() == {"other": inf}
    await store.resume("other")
    await store.prune()


@attrs.frozen
class Database:
    """A schema full of jobs.

    Attributes:
        conninfo: Where it is.
        asked: What a store on it asks.
        old: A session as a worker has it that has been there since the tables were empty, with all plans made then.
    """

    conninfo: str
    asked: Asked
    old: psycopg.Connection[Any]


@contextmanager
def full(postgres_server: PostgresServer, *, emptied: bool = False) -> Iterator[Database]:
    """Fill a schema, and have a store ask; where it was ``emptied`` before, the server knows that of its tables."""
    conninfo = postgres_server.create_database()
    asked: Asked = {}

    async def make() -> None:
        async with open_worker(lambda: PostgresJobStore(conninfo)):
            pass

    trio.run(make)
    with psycopg.connect(conninfo, autocommit=True) as old:
        if emptied:
            empty(old)
        plan_all(old)
        fill(conninfo)
        patch = listen_in(asked)
        try:
            trio.run(ask_all, conninfo, asked)
        finally:
            patch.undo()
        yield Database(conninfo, asked, old)
    postgres_server.execute("DROP DATABASE {} WITH (FORCE)", str(conninfo_to_dict(conninfo)["dbname"]))


@pytest.fixture(scope="module")
def database(postgres_server: PostgresServer) -> Iterator[Database]:
    """A schema whose tables the server has never looked at."""
    with full(postgres_server) as database:
        yield database


@pytest.fixture(scope="module")
def filled_meanwhile(postgres_server: PostgresServer) -> Iterator[Database]:
    """Another such schema, for tests that add many jobs: though they roll them back, those stay behind in indexes."""
    with full(postgres_server) as database:
        yield database


@pytest.fixture(scope="module")
def once_empty(postgres_server: PostgresServer) -> Iterator[Database]:
    """A schema whose tables were empty when the server looked at them last."""
    with full(postgres_server, emptied=True) as database:
        yield database


def empty(connection: psycopg.Connection[Any]) -> None:
    """Have the server clean up tables from which all jobs have gone."""
    connection.execute(FILL.format(count=1000, kinds="('ready', 'QUEUED')").encode())
    connection.execute("ANALYZE jobtrio.jobs")
    connection.execute("DELETE FROM jobtrio.jobs")
    connection.execute("VACUUM jobtrio.jobs, jobtrio.tags, jobtrio.messages")
    connection.execute("SELECT setval('jobtrio.numbers', 1, false)")


def plan_all(connection: psycopg.Connection[Any]) -> None:
    """Have the server make and keep a plan for each statement, as it does for a worker; no statistics come later."""
    for table in ("jobs", "tags", "messages"):
        connection.execute(f"ALTER TABLE jobtrio.{table} SET (autovacuum_enabled = off)".encode())
    connection.execute(connections._TUNING.encode())
    for name, statement in SQL.items():
        connection.execute(f"PREPARE {name} AS {statement}".encode())
        nothing = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", statement))))
        connection.execute(f"EXPLAIN EXECUTE {name}{f'({nothing})' if nothing else ''}".encode())


def pages(connection: psycopg.Connection[Any], statement: str, parameters: tuple[Any, ...] = ()) -> int:
    """Return how many pages a statement reads; nothing of it stays."""
    with connection.transaction(force_rollback=True):
        cursor = psycopg.RawCursor(connection)
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}".encode(), parameters or None)
        row = cursor.fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def execution(name: str, parameters: tuple[Any, ...]) -> str:
    """Return how a statement is carried out by a plan that is kept."""
    given = ", ".join("NULL" if each is None else sql.Literal(str(each)).as_string() for each in parameters)
    return f"EXECUTE {name}{f'({given})' if given else ''}"


def fresh(name: str, parameters: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return parameters with which a statement has something to do once more."""
    match name:
        case "claim":
            return ("another claim", *parameters[1:])
        case "insert_all":
            ids, *others = parameters
            return (re.sub(r'"([\w-]+)"', r'"new \1"', ids), *others)
        case "insert_chunks":
            jobs, *others = parameters
            return (re.sub(r"\d+", "99999999", jobs), *others)
        case _:
            return parameters


def test_every_statement_is_asked(database: Database) -> None:
    """What follows looks at all statements, and none is left over."""
    assert database.asked.keys() == SQL.keys()


@pytest.mark.parametrize("name", sorted(SQL.keys() - MANY))
def test_kept_plans(database: Database, name: str) -> None:
    """A plan that was made for empty tables is right for full ones."""
    assert pages(database.old, execution(name, fresh(name, database.asked[name]))) <= PAGES


@pytest.mark.parametrize("name", sorted(SQL.keys() - MANY - GUESSED))
def test_kept_plans_of_emptied_tables(once_empty: Database, name: str) -> None:
    """A plan that was made when all jobs had gone, as the server knew, is right for as long as it knows no better."""
    assert pages(once_empty.old, execution(name, fresh(name, once_empty.asked[name]))) <= PAGES


@pytest.mark.parametrize("name", sorted(SQL.keys() - MANY))
def test_fresh_plans(database: Database, name: str) -> None:
    """A plan that is made for each question, in a session that nobody has tuned, is right as well."""
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        assert pages(connection, SQL[name], fresh(name, database.asked[name])) <= PAGES


@pytest.mark.parametrize("name", ["lasts", "lock"])
def test_fresh_plans_of_empty_lists(database: Database, name: str) -> None:
    """Where a list is empty no index is walked over for it, though to the planner it implies the condition of each."""
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        assert pages(connection, SQL[name], ("{1,2}", "{}")) <= PAGES


@pytest.fixture(scope="module")
def analysed(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """Return a session whose plans were all made when the server had looked at the full tables."""
    with psycopg.connect(database.conninfo, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE jobtrio.jobs, jobtrio.tags, jobtrio.messages")
        plan_all(connection)
        yield connection


@pytest.mark.parametrize("name", sorted(SQL.keys() - MANY))
def test_plans_with_statistics(database: Database, analysed: psycopg.Connection[Any], name: str) -> None:
    """A plan that is kept, and was made for full tables with all that the server knows of them, is right as well."""
    assert pages(analysed, execution(name, fresh(name, database.asked[name]))) <= PAGES


@pytest.mark.parametrize("kept", [True, False])
def test_claims_pass_over_what_runs(filled_meanwhile: Database, kept: bool) -> None:
    """However many jobs run, a claim counts those of the queues alone that are limited over all workers."""
    parameters = fresh("claim", filled_meanwhile.asked["claim"])
    with filled_meanwhile.old.transaction(force_rollback=True):
        elsewhere = FILL.replace("'default'", "'another queue'")
        filled_meanwhile.old.execute(elsewhere.format(count=JOBS // 2, kinds="('running', 'RUNNING')").encode())
        statement, asked = (execution("claim", parameters), ()) if kept else (SQL["claim"], parameters)
        read = pages(filled_meanwhile.old, statement, asked)
    assert read <= PAGES


@pytest.mark.parametrize("kept", [True, False])
def test_claims_of_a_long_line(database: Database, kept: bool) -> None:
    """However many jobs of a line are ready, a claim looks at no more of them than it may take."""
    parameters = fresh("claim", database.asked["claim"])
    limit, room, executors, totals = ("10",), (None, None), ("{work}",), (None, None)
    parameters = (*parameters[:5], *limit, *room, *executors, *totals, *parameters[11:])
    statement, asked = (execution("claim", parameters), ()) if kept else (SQL["claim"], parameters)
    assert pages(database.old, statement, asked) <= PAGES


@pytest.mark.parametrize("kept", [True, False])
def test_claims_by_pattern(filled_meanwhile: Database, kept: bool) -> None:
    """Where limits are those of patterns, a claim counts and takes no more than where they are those of queues."""
    parameters = fresh("claim", filled_meanwhile.asked["claim"])
    none, executors, others = ("{}", "{}"), ("{work}",), parameters[11:14]
    rates = ("{}", "{}", "{}", '{"other","def",""}', "{0.001,0.001,1}", "{0,0.009,1}")
    patterns = ('{"other","def",""}', "{1,10,1}", '{"zzz","d"}', "{1,1000000}")
    parameters = (*parameters[:5], "10", *none, *executors, *none, *others, *patterns, *rates)
    with filled_meanwhile.old.transaction(force_rollback=True):
        elsewhere = FILL.replace("'default'", "'another queue'")
        filled_meanwhile.old.execute(elsewhere.format(count=JOBS // 2, kinds="('running', 'RUNNING')").encode())
        statement, asked = (execution("claim", parameters), ()) if kept else (SQL["claim"], parameters)
        read = pages(filled_meanwhile.old, statement, asked)
        taken = len(psycopg.RawCursor(filled_meanwhile.old).execute(SQL["claim"].encode(), parameters).fetchall())
    assert (read <= PAGES, taken) == (True, 10)


@pytest.mark.parametrize("kept", [True, False])
def test_claims_pass_over_what_is_paused(database: Database, kept: bool) -> None:
    """However many jobs of a paused queue are ready, a claim does not look at them, and takes what others have."""
    parameters = fresh("claim", database.asked["claim"])
    limit, room, executors, totals = ("10",), (None, None), ("{work}",), (None, None)
    parameters = (*parameters[:5], *limit, *room, *executors, *totals, *parameters[11:])
    statement, asked = (execution("claim", parameters), ()) if kept else (SQL["claim"], parameters)
    with database.old.transaction(force_rollback=True):
        database.old.execute("INSERT INTO jobtrio.paused VALUES ('default')")
        elsewhere = FILL.replace("'default'", "'later'")
        database.old.execute(elsewhere.format(count=3, kinds="('apart', 'QUEUED')").encode())
        read = pages(database.old, statement, asked)
        taken = len(psycopg.RawCursor(database.old).execute(SQL["claim"].encode(), parameters).fetchall())
    assert (read <= PAGES, taken) == (True, 3)


async def test_claims_of_many_long_lines(postgres: str) -> None:
    """Of most of many lines a claim looks at the first job alone, however many of each it may take."""
    lines = FILL.replace("'default'", "'line ' || n % 150")
    asked: Asked = {}
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        patch = listen_in(asked)
        try:
            assert await worker.claim(limit=10) == []
        finally:
            patch.undo()
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(connections._TUNING.encode())
        read = []
        for count in (150, 150 * 20):
            connection.execute(lines.format(count=count, kinds="('ready', 'QUEUED')").encode())
            read.append(pages(connection, SQL["claim"], asked["claim"]))
    short, long = read
    assert long <= 1.5 * short


def test_claims_of_many_executors(database: Database) -> None:
    """Of many lines of one queue a claim looks once at the first job of each, however few it wants."""
    before, behind = database.asked["claim"][:5], database.asked["claim"][11:]
    lines = FILL.replace("'default'", "'many'").replace("'work'", "'work ' || n")
    with database.old.transaction(force_rollback=True):
        database.old.execute(lines.format(count=100, kinds="('ready', 'QUEUED')").encode())
        claims = ((*before, limit, "{many}", "{1}", None, None, None, *behind) for limit in ("1", "1000"))
        few, all_of_them = (pages(database.old, SQL["claim"], fresh("claim", claim)) for claim in claims)
    assert few <= 1.1 * all_of_them


async def test_a_renewal_writes_to_no_index(postgres: str) -> None:
    """The end of a lease is in no index: what every worker does most is a small write, where a page has room."""

    async def updates(link: Link) -> tuple[int, int]:
        count = (
            "SELECT pg_stat_get_xact_tuples_updated(jobs), pg_stat_get_xact_tuples_hot_updated(jobs)"
            " FROM (SELECT 'jobtrio.jobs'::regclass AS jobs) AS named"
        )
        counts: list[tuple[int, int]] = await (await link.connection.execute(count)).fetchall()
        return counts[0]

    async def renew(link: Link) -> list[tuple[int, int]]:
        counts = []
        async with link.connection.transaction():
            counts.append(await updates(link))
            await claiming.renew(link, claims, LEASE, session.identity, session.notices)
            counts.append(await updates(link))
        return counts

    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        claims = [await worker.start() for _ in range(3)]
        session = worker.store._session  # type: ignore[attr-defined]
        (rows, small), (all_rows, all_small) = await session.connections.use(renew)
        assert (all_rows - rows, all_small - small) == (3, 3)
