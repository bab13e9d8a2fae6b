"""What is opened as a schema of jobs, what is refused and left as it was, and how old formats become new ones."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
import pytest
import trio
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import jobtrio
from jobtrio._errors import StoreError, StoreUnavailableError, StoreVersionError
from jobtrio._policies import RetryPolicy
from jobtrio._records import Completed
from jobtrio.abc import JobQuery
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.stores.postgres import _schema as schema
from jobtrio.stores.postgres._statements import statements
from jobtrio.testing import STORE_CHECKS
from jobtrio.testing._workers import ERROR, Worker, ids, new_entry, open_worker, tokens

if TYPE_CHECKING:
    from postgres_server import PostgresServer

    from jobtrio.testing import StoreCheck

pytestmark = pytest.mark.once

ADDITION = """-- oldest: 1
ALTER TABLE {schema}.jobs ADD COLUMN shape text, ADD COLUMN size integer NOT NULL DEFAULT 0;
CREATE INDEX jobs_shape ON {schema}.jobs (shape) WHERE shape IS NOT NULL;
CREATE TABLE {schema}.shapes (name text PRIMARY KEY);
"""
"""What a later version might add."""

BREACH = ADDITION.replace("oldest: 1", f"oldest: {len(schema.MIGRATIONS) + 1}")
"""The same, where workers of the version before must not begin any more."""


def run(conninfo: str, *statements: LiteralString) -> list[Any]:
    """Run statements; return the rows of the last."""
    with psycopg.connect(conninfo, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def contents(conninfo: str) -> list[Any]:
    """Return all that is in the database, but for the system's own: what is there, and the rows of jobtrio's tables."""
    found = run(
        conninfo,
        "SELECT n.nspname, c.relname, c.relkind, a.attname, a.atttypid::regtype::text, a.attnotnull,"
        " pg_get_expr(d.adbin, d.adrelid), pg_get_indexdef(i.indexrelid), c.reloptions"
        " FROM pg_namespace AS n LEFT JOIN pg_class AS c ON c.relnamespace = n.oid"
        " LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
        " LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " LEFT JOIN pg_index AS i ON i.indexrelid = c.oid"
        " WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2, 3, 4",
    )
    has_meta = run(conninfo, "SELECT to_regclass('jobtrio.meta') IS NOT NULL")[0][0]
    return found + (run(conninfo, "SELECT * FROM jobtrio.meta ORDER BY 1") if has_meta else [])


async def make(conninfo: str) -> None:
    """Make a schema of jobs with a job in it."""
    async with open_worker(lambda: PostgresJobStore(conninfo)) as worker:
        await worker.insert(new_entry(job_id="kept"))


async def refused(conninfo: str, kind: type[StoreError], match: str) -> None:
    """Check that a database is refused at once, and that nothing in it is touched."""
    before = contents(conninfo)
    with trio.fail_after(60), pytest.raises(kind, match=match) as caught:
        async with open_worker(lambda: PostgresJobStore(conninfo, outage_limit=60.0)):
            pass
    assert caught.type is kind
    assert contents(conninfo) == before


# -- what is refused


@pytest.mark.parametrize(
    "theirs",
    [
        "CREATE TABLE jobtrio.theirs (x int)",
        "CREATE TABLE jobtrio.meta (key text, value text)",
        "CREATE TABLE jobtrio.meta (key text, value text); INSERT INTO jobtrio.meta VALUES ('version', '1')",
        "CREATE TABLE jobtrio.meta (version int)",
        "CREATE VIEW jobtrio.jobs AS SELECT 1",
    ],
)
async def test_of_another_program(postgres: str, theirs: LiteralString) -> None:
    """A schema in which another program keeps something is refused."""
    run(postgres, "CREATE SCHEMA jobtrio", theirs)
    await refused(postgres, StoreError, "another program's")


@pytest.mark.parametrize("version", ["", "x", "-1", "0", "00", "01", "1.5", "١", "9" * 5000])
async def test_a_version_that_is_none(postgres: str, version: str) -> None:
    """A version that no migration makes is no version."""
    await make(postgres)
    with psycopg.connect(postgres) as connection:
        connection.execute("UPDATE jobtrio.meta SET value = %s WHERE key = 'version'", [version])
    await refused(postgres, StoreError, "another program's, or damaged")


async def test_of_a_newer_version(postgres: str) -> None:
    """A format from the future is refused, unless it says that it can be used."""
    await make(postgres)
    run(postgres, "UPDATE jobtrio.meta SET value = '99' WHERE key = 'version'")
    await refused(postgres, StoreVersionError, "has the format 99")
    run(postgres, "INSERT INTO jobtrio.meta VALUES ('oldest:99', '98')")
    await refused(postgres, StoreVersionError, "has the format 99")


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE jobtrio.tags",
        "ALTER TABLE jobtrio.jobs DROP COLUMN payload",
        "DROP INDEX jobtrio.jobs_ready",
        "ALTER TABLE jobtrio.jobs ALTER COLUMN attempt TYPE bigint",
        "DROP SEQUENCE jobtrio.numbers",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'jobtrio.jobs_due'::regclass",
        "DELETE FROM jobtrio.meta WHERE key = 'parts'",
        "UPDATE jobtrio.meta SET value = 'x' WHERE key = 'parts'",
    ],
)
async def test_damaged(postgres: str, damage: LiteralString) -> None:
    """A schema of jobs in which a part is missing or not as it was made is refused."""
    await make(postgres)
    run(postgres, damage)
    await refused(postgres, StoreError, "is damaged: ")


async def test_what_others_add_does_not_matter(postgres: str) -> None:
    """A column, an index or a view beside what was made is no damage."""
    await make(postgres)
    run(
        postgres,
        "ALTER TABLE jobtrio.jobs ADD COLUMN remark text",
        "CREATE INDEX remarks ON jobtrio.jobs (remark)",
        "CREATE VIEW jobtrio.queued AS SELECT id FROM jobtrio.jobs WHERE state = 'QUEUED'",
    )
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        assert ids(await worker.store.find(JobQuery())) == ["kept"]


async def test_not_utf8(postgres_server: PostgresServer) -> None:
    """A database that can't hold every text is refused."""
    name = "latin"
    postgres_server.execute("CREATE DATABASE {} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", name)
    try:
        await refused(postgres_server.conninfo(name), StoreError, "encoding UTF8; it has LATIN1")
    finally:
        postgres_server.execute("DROP DATABASE {} WITH (FORCE)", name)


async def test_an_old_server(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not know all statements is refused, and both versions are named."""
    monkeypatch.setattr(schema, "OLDEST_SERVER", 990000)
    await refused(postgres, StoreError, "PostgreSQL 99 or newer is needed; the server is ")


async def test_a_standby(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes no writes is one that is away: another may take its place, or it may be promoted."""
    monkeypatch.setattr(schema, "_LOOK", schema._LOOK.replace("pg_catalog.pg_is_in_recovery()", "true"))
    with pytest.raises(StoreUnavailableError, match="is a standby"):
        async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=0.3)):
            pass
    assert contents(postgres)[0][0] == "public"


@pytest.fixture
def user(postgres_server: PostgresServer, postgres: str) -> str:
    """Return the connection string of a user who may do nothing but connect."""
    password = "secret"
    name = f"user_{conninfo_to_dict(postgres)['dbname']}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
        connection.execute(statement)
    return make_conninfo(postgres, user=name, password=password)


async def test_not_permitted(postgres: str, user: str) -> None:
    """Who may not make the schema is told so; who may use a schema that is there can."""
    with pytest.raises(StoreError, match="can't be used: permission denied"):
        async with open_worker(lambda: PostgresJobStore(user)):
            pass
    name = sql.Identifier(str(conninfo_to_dict(user)["user"]))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA jobtrio AUTHORIZATION {}").format(name))
    async with open_worker(lambda: PostgresJobStore(user)) as worker:
        await worker.insert(new_entry())


async def test_least_rights(postgres: str, user: str) -> None:
    """A worker needs no more than to read and write the tables that somebody else has made."""
    await make(postgres)
    name = sql.Identifier(str(conninfo_to_dict(user)["user"]))
    with psycopg.connect(postgres, autocommit=True) as connection:
        for statement in (
            "GRANT USAGE ON SCHEMA jobtrio TO {}",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA jobtrio TO {}",
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA jobtrio TO {}",
        ):
            connection.execute(sql.SQL(statement).format(name))
    async with open_worker(lambda: PostgresJobStore(user)) as worker:
        claim = await worker.claim_one()
        assert await worker.store.finish(claim, Completed())
        assert await worker.store.delete("kept")


async def test_least_rights_of_who_looks(postgres: str, user: str) -> None:
    """Who only looks needs no more than to read the tables."""
    await make(postgres)
    name = sql.Identifier(str(conninfo_to_dict(user)["user"]))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("GRANT USAGE ON SCHEMA jobtrio TO {}").format(name))
        connection.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA jobtrio TO {}").format(name))
    async with open_worker(lambda: PostgresJobStore(user)) as worker:
        assert ids(await worker.store.find(JobQuery())) == ["kept"]


TRAPS = """
CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE FUNCTION public.unnest(bigint[]) RETURNS SETOF bigint LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE FUNCTION public.nextval(text) RETURNS bigint LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped'; END$$;
CREATE FUNCTION public.hashtextextended(text, integer) RETURNS bigint LANGUAGE plpgsql
    AS $$BEGIN RAISE 'trapped'; END$$;
DO $do$
DECLARE
    kinds text[] := ARRAY['text', 'name', 'numeric', 'int2', 'int4', 'int8', 'float8']
        || ARRAY['oid', 'regclass', 'regnamespace'];
    operator text; a text; b text;
BEGIN
    FOREACH a IN ARRAY kinds LOOP
        FOREACH b IN ARRAY kinds LOOP
            EXECUTE format('CREATE FUNCTION public.trap(%s, %s) RETURNS boolean', a, b)
                || ' LANGUAGE plpgsql AS $$BEGIN RAISE ''trapped''; END$$';
            FOREACH operator IN ARRAY ARRAY['||', '=', '<', '>', '<=', '>=', '+', '-'] LOOP
                EXECUTE format(
                    'CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.trap)', operator, a, b
                );
            END LOOP;
        END LOOP;
    END LOOP;
END $do$;
"""
"""What one may make who may make anything in a schema that others search: it takes their values just as they are."""

TRAPPED = ["check_cancel_wins", "check_counts", "check_dropped_messages_leave_a_gap", "check_find", "check_lapse"]
TRAPPED += ["check_limits_hold_at_once", "check_prune_by_count", "check_repeated_insert", "check_start_held"]


@pytest.mark.parametrize("check", [check for check in STORE_CHECKS if check.__name__ in TRAPPED])
async def test_traps_in_the_search_path(postgres: str, check: StoreCheck) -> None:
    """Functions and operators that others have made are not run with a worker's rights."""
    run(postgres, TRAPS)
    await check(lambda: PostgresJobStore(postgres))


def test_functions_are_the_servers() -> None:
    """Functions that statements call are called by their full names, but for what is none or has no other."""
    called = re.findall(r"(?<![\w.])([a-z_]+)\(", "".join(statements('"jobtrio"').values()))
    assert set(called) <= {"coalesce", "extract", "greatest", "least", "unnest"}


async def test_rights_that_are_taken_away(postgres: str, user: str, caplog: pytest.LogCaptureFixture) -> None:
    """What the role may not do any more, while the store is open, is an outage until it is granted again."""
    name = str(conninfo_to_dict(user)["user"])
    executors = jobtrio.Executors()
    begun, opened = trio.Event(), trio.Event()

    @executors.register("wait")
    async def wait(job: jobtrio.JobContext) -> int:
        begun.set()
        await opened.wait()
        return 1

    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA jobtrio AUTHORIZATION {}").format(sql.Identifier(name)))
        store = PostgresJobStore(user, outage_limit=2.0)
        async with jobtrio.open_registry(executors, store=store) as registry:
            job = await registry.submit("wait")
            await begun.wait()
            connection.execute(sql.SQL("ALTER SCHEMA jobtrio OWNER TO CURRENT_USER"))
            for _ in range(2):
                with trio.fail_after(60), pytest.raises(StoreUnavailableError, match="permission denied"):
                    await registry.submit("wait")
            opened.set()
            await trio.sleep(0.1)
            assert job.outcome is None  # it has returned, but that is not stored yet
            connection.execute(sql.SQL("ALTER SCHEMA jobtrio OWNER TO {}").format(sql.Identifier(name)))
            with trio.fail_after(60):
                assert await job.wait() == Completed(1)
                assert await (await registry.submit("wait")).wait() == Completed(1)
    # Perhaps more than once: what was planned before goes on in between.
    assert any("check what the role is granted" in text for text in caplog.messages)


# -- what is accepted


@pytest.mark.parametrize("name", ["jobs", "Jobs_2", "_", "user", "a" * 48])
async def test_names(postgres: str, name: str) -> None:
    """Schemas of all names live beside each other."""
    stores = [PostgresJobStore(postgres, schema=each) for each in (name, "other")]
    async with open_worker(lambda: stores[0]) as one, open_worker(lambda: stores[1]) as two:
        await one.insert(new_entry(job_id="id"))
        await two.insert(new_entry(job_id="id"))
        assert ids(await one.claim()) == ids(await two.claim()) == ["id"]
    found = {row[0] for row in run(postgres, "SELECT nspname FROM pg_namespace")}
    assert {name, "other"} <= found


async def test_without_its_sequence(postgres: str) -> None:
    """In tables that came without their sequence, as by logical replication, new jobs are numbered behind the old."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(*(new_entry(job_id=str(n)) for n in range(5)))
    run(postgres, "SELECT setval('jobtrio.numbers', 1, false)", "DELETE FROM jobtrio.jobs WHERE id IN ('0', '1')")
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(new_entry(job_id="new"))
        assert [claim.entry.id for claim in await worker.claim()] == ["2", "3", "4", "new"]


async def test_a_sequence_that_is_far_behind(postgres: str) -> None:
    """However many numbers are to be passed over, no statement takes long, and none without a job that has them."""
    first, last = "SELECT setval('jobtrio.numbers', 1, false)", "SELECT last_value FROM jobtrio.numbers"
    for _ in range(2):
        async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
            pass
    assert run(postgres, last) == [(1,)]
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(*(new_entry(job_id=str(n)) for n in range(9)), new_entry(job_id="far"))
    run(postgres, "UPDATE jobtrio.jobs SET seq = 5000000, ticket = 5000000 WHERE id = 'far'", first)
    with psycopg.connect(postgres, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET statement_timeout = '400ms'").format(name))
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        assert run(postgres, last) == [(5_000_000,)]
        run(postgres, first)
        await worker.insert(new_entry(job_id="new"))
        assert ids(await worker.store.find(JobQuery()))[-2:] == ["far", "new"]


async def test_who_writes_nothing(postgres: str) -> None:
    """Where nothing may be written, jobs can be looked at, also those that came without their sequence."""
    await make(postgres)
    run(postgres, "SELECT setval('jobtrio.numbers', 1, false)")
    reader = make_conninfo(postgres, options="-c default_transaction_read_only=on")
    async with open_worker(lambda: PostgresJobStore(reader, outage_limit=2.0)) as worker:
        assert ids(await worker.store.find(JobQuery())) == ["kept"]


async def test_an_empty_schema(postgres: str) -> None:
    """A schema that somebody has made for it is filled."""
    run(postgres, "CREATE SCHEMA jobtrio")
    await make(postgres)


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
async def test_made_by_many_at_once(postgres_server: PostgresServer, postgres: str, level: str) -> None:
    """Many processes that open an empty database at the same time make one schema, whatever it isolates by default."""
    name = sql.Identifier(str(conninfo_to_dict(postgres)["dbname"]))
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        statement = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}")
        connection.execute(statement.format(name, sql.Literal(level)))

    async def open_and_insert(n: int) -> None:
        async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
            await worker.insert(new_entry(job_id=str(n)))

    async with trio.open_nursery() as nursery:
        for n in range(8):
            nursery.start_soon(open_and_insert, n)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        assert sorted(ids(await worker.store.find(JobQuery()))) == [str(n) for n in range(8)]


# -- from one version to the next


def know(monkeypatch: pytest.MonkeyPatch, *additions: str) -> None:
    """Have stores that are opened from now on know these migrations besides."""
    known = tuple(map(schema.migration_of, additions))
    monkeypatch.setattr(schema, "MIGRATIONS", ORIGINAL + known)


ORIGINAL = schema.MIGRATIONS


@pytest.mark.parametrize("version", range(1, len(ORIGINAL) + 1))
async def test_migrated_is_as_new(
    postgres: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """A schema of each older version that is brought up to date equals a new one, and keeps its jobs."""
    monkeypatch.setattr(schema, "MIGRATIONS", ORIGINAL[:version])
    await make(postgres)
    know(monkeypatch, ADDITION)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        assert ids(await worker.store.find(JobQuery())) == ["kept"]
    fresh = postgres_server.create_database()
    await make(fresh)
    assert contents(postgres) == contents(fresh)
    postgres_server.execute("DROP DATABASE {} WITH (FORCE)", str(conninfo_to_dict(fresh)["dbname"]))


async def test_migrations_are_one_transaction(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a migration fails, the schema stays as it was, for the version that had made it."""
    await make(postgres)
    before = contents(postgres)
    know(monkeypatch, ADDITION, "-- oldest: 1\nCREATE TABLE {schema}.jobs (x int);")
    with pytest.raises(StoreError, match="already exists"):
        await make(postgres)
    assert contents(postgres) == before
    know(monkeypatch)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        assert ids(await worker.store.find(JobQuery())) == ["kept"]


async def live_all(worker: Worker) -> None:
    """Have jobs do all that changes rows."""
    for n in range(4):  # so that statements are prepared
        claim = await worker.start(new_entry(tags={"n": str(n)}, retry=RetryPolicy()))
        assert await worker.store.append_messages(claim, tokens(1, 2))
        assert await worker.store.save_state(claim, n)
        assert (await worker.store.renew([claim], 60.0))[0].held
        assert await worker.store.retry(claim, ERROR, 0.0)
        await worker.pass_time(0)
        claim = await worker.claim_one()
        assert await worker.store.release(claim, "shutdown")
        claim = await worker.claim_one()
        assert await worker.store.request_cancel(claim.entry.id, None, 0.0)
        assert await worker.store.finish(claim, Completed())
        claim = await worker.start()
        assert await worker.store.finish(claim, Completed(), messages=tokens(1, 2))
        assert len(await worker.stream(claim.entry.id)) == 3
        assert await worker.store.find(JobQuery(tags={"n": str(n)}))
        assert await worker.store.delete(claim.entry.id)
    await worker.store.prune()
    assert await worker.store.counts()


@pytest.mark.parametrize("addition", [ADDITION, BREACH])
async def test_a_mixed_fleet(postgres: str, monkeypatch: pytest.MonkeyPatch, addition: str) -> None:
    """A worker that runs as a newer version migrates goes on, and both do all there is to do, side by side."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as old:
        await live_all(old)
        know(monkeypatch, addition)
        async with open_worker(lambda: PostgresJobStore(postgres)) as new:
            for _ in range(2):
                await live_all(old)
                await live_all(new)
            claim = await old.start()
            other = await new.start()
            assert await old.store.finish(claim, Completed())
            assert await new.store.finish(other, Completed())
        know(monkeypatch)
        if addition is ADDITION:
            async with open_worker(lambda: PostgresJobStore(postgres)) as late:
                await live_all(late)
        else:
            await refused(postgres, StoreVersionError, f"has the format {len(ORIGINAL) + 1}")
        await live_all(old)


@pytest.mark.parametrize(
    ("options", "kind", "match"),
    [
        ({"schema": ""}, ValueError, "schema must be"),
        ({"schema": "a b"}, ValueError, "schema must be"),
        ({"schema": 'x"; DROP'}, ValueError, "schema must be"),
        ({"schema": "pg_jobs"}, ValueError, "schema must be"),
        ({"schema": "a" * 49}, ValueError, "schema must be"),
        ({"schema": "ä"}, ValueError, "schema must be"),
        ({"schema": None}, TypeError, "schema must be"),
        ({"pool_size": 0}, ValueError, "pool_size must be"),
        ({"pool_size": 1.5}, TypeError, "pool_size must be"),
        ({"listen": None}, TypeError, "listen must be"),
        ({"outage_limit": 0}, ValueError, "outage_limit must be"),
        ({"outage_limit": "1"}, TypeError, "outage_limit must be"),
        ({"conninfo": 3}, TypeError, "conninfo must be"),
        ({"conninfo": "nonsense"}, ValueError, "conninfo must be"),
        ({"conninfo": "hots=localhost password=secret"}, ValueError, "conninfo must be"),
        ({"conninfo": "host=localhost password=secret\udcff"}, ValueError, "conninfo must be"),
        ({"conninfo": "host=localhost password=secret\0 dbname=jobs"}, ValueError, "conninfo must be"),
        ({"conninfo": "postgresql://host/db?user=u&outage=secret"}, ValueError, "knows no 'outage'; store_from_url"),
        ({"conninfo": "postgresql://host/db?schema=secret"}, ValueError, "knows no 'schema'; store_from_url takes"),
        ({"conninfo": "hots=localhost password=a?secret=b"}, ValueError, "written %2F %3F %40 and %25$"),
        ({"conninfo": "postgresql://host/db?password=a&secret=b"}, ValueError, "written %2F %3F %40 and %25$"),
        ({"conninfo": "postgresql://host/db?hots=b&password=secret"}, ValueError, "knows no 'hots'; store_from_url"),
    ],
)
def test_parameters_that_make_no_sense(options: dict[str, Any], kind: type[Exception], match: str) -> None:
    """Each parameter that makes no sense is refused when the store is made, and passwords are not shown."""
    options = {"conninfo": "", **options}
    with pytest.raises(kind, match=match) as caught:
        PostgresJobStore(**options)
    assert "secret" not in str(caught.value)


def test_no_password_is_shown() -> None:
    """Who prints a store shows where it is, and nothing that is secret."""
    assert "secret" not in repr(PostgresJobStore("postgresql://user:secret@host/db"))
