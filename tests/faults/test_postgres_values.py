"""What jobs bring comes back as it was, also what texts of PostgreSQL can't hold; what can't be kept is refused."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import postgres_faults
import psycopg
import pytest
import trio
from postgres_invariants import check_schema
from psycopg import sql
from psycopg.conninfo import make_conninfo
from store_scenario import try_what_cannot_be_encoded

import jobtrio
from jobtrio import Completed, End, JobPriority, JobState, Token
from jobtrio.abc import JobQuery
from jobtrio.stores.postgres import PostgresJobStore
from jobtrio.testing._workers import LEASE, SHORT, ids, new_entry, open_worker

if TYPE_CHECKING:
    from postgres_server import PostgresServer

    from jobtrio._entry import JobEntry

NASTY = "a\x00b\x01\x1f\x7f\x85\u2028\ufeff\uffff 'q' \"d\" \\ {} NULL $1 %s :x -- /* \n\r\t 😀 é"


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer) -> str:
    """A database for the tests that don't mind each other."""
    return postgres_server.create_database()


@pytest.mark.parametrize("where", ["environment", "database", "conninfo"])
async def test_another_encoding_for_clients(postgres: str, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Texts come back also where clients have another encoding by default."""
    conninfo = postgres
    if where == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    elif where == "database":
        with psycopg.connect(postgres, autocommit=True) as connection:
            name = sql.Identifier(connection.info.dbname)
            connection.execute(sql.SQL("ALTER DATABASE {} SET client_encoding = 'SQL_ASCII'").format(name))
    else:
        conninfo = make_conninfo(postgres, client_encoding="LATIN1")
    async with open_worker(lambda: PostgresJobStore(conninfo)) as worker:
        claim = await worker.start(new_entry(payload=NASTY, key="😀", tags={"é": "😀"}))
        assert claim.entry.payload == NASTY
        assert await worker.store.finish(claim, Completed(NASTY))
        assert ids(await worker.store.find(JobQuery(tags={"é": "😀"}))) == [claim.entry.id]
        assert (await worker.load(claim.entry.id)).outcome == Completed(NASTY)


async def test_another_reading_of_arrays(postgres: str) -> None:
    """What is not given stays so, also where the database reads NULL in an array as a text."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET array_nulls = off").format(name))
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        given, bare = new_entry(key="NULL", payload="NULL"), new_entry()
        await worker.insert(given, bare)
        assert ids(await worker.store.find(JobQuery())) == [given.id, bare.id]
        assert [entry.key for entry in (await worker.load(given.id), await worker.load(bare.id))] == ["NULL", None]
        for claim in await worker.claim():
            assert await worker.store.finish(claim, Completed("NULL" if claim.entry.id == given.id else None))
        assert (await worker.load(bare.id)).outcome == Completed(None)


async def test_values_of_several_lines(shared: str) -> None:
    """Values that are JSON already, with line breaks, come back as what they stand for."""
    pretty, plain = msgspec.Raw(b'{\r\n\t"a": [\n1\n]\n}'), {"a": [1]}
    async with open_worker(lambda: PostgresJobStore(shared)) as worker:
        claim = await worker.start(new_entry(payload=pretty, metadata={"m": pretty}))
        assert (claim.entry.payload, claim.entry.metadata) == (plain, {"m": plain})
        assert await worker.store.save_state(claim, pretty)
        assert await worker.store.finish(claim, Completed(pretty), messages=[Token(1, 1, pretty), Token(2, 1, 2)])
        entry = await worker.load(claim.entry.id)
        assert (entry.saved_state, entry.outcome) == (plain, Completed(plain))
        assert await worker.stream(entry.id) == [Token(1, 1, plain), Token(2, 1, 2), End(3, Completed(plain))]


async def test_values_that_fail_reach_no_server(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be encoded is refused before anything is asked of the server."""
    async with open_worker(lambda: PostgresJobStore(shared)) as worker:
        claim = await worker.start()
        faults = postgres_faults.install(monkeypatch)
        await try_what_cannot_be_encoded(worker, claim)
        assert faults.count == 0
        await worker.end(claim)


async def test_more_than_one_statement_takes(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Much that comes together goes in pieces, and is stored all or none as ever."""
    monkeypatch.setattr("jobtrio.stores.postgres._arrays.LARGEST", 1000)
    monkeypatch.setattr("jobtrio.stores.postgres._calls.LARGEST", 1000)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        entries = [new_entry(payload="x" * 400, job_id=f"{n:02}", tags={"n": str(n)}) for n in range(20)]
        faults = postgres_faults.install(monkeypatch)
        assert ids(await worker.insert(*entries)) == ids(entries)
        assert [names for names in faults.asked if names == ("insert",)] == [("insert",)] * 10
        with pytest.raises(jobtrio.DuplicateJobError):
            await worker.insert(*(new_entry(payload="x" * 900) for _ in range(5)), new_entry(job_id="07"))
        assert ids(await worker.store.find(JobQuery())) == ids(entries)
        assert ids(await worker.claim(limit=20)) == ids(entries)
        claims = [await worker.start() for _ in range(3)]
        many = [jobtrio.Token(n, 1, "x" * 300) for n in range(1, 31)]
        assert await worker.store.retry(claims[0], jobtrio.JobError("exception", "E", ""), 60.0, messages=many)
        assert await worker.store.append_messages(claims[1], many)
        assert await worker.store.finish(claims[2], Completed("x" * 3000), messages=many)
        for claim in claims:
            assert (await worker.stream(claim.entry.id))[:30] == many
        claims = [await worker.start() for _ in range(5)]
        faults.asked.clear()
        async with trio.open_nursery() as nursery:
            for claim in claims:
                nursery.start_soon(worker.store.save_state, claim, "x" * 400)
        assert [names.count("keep_state") for names in faults.asked if "keep_state" in names] == [1] * 3
        assert {len((await worker.load(claim.entry.id)).saved_state) for claim in claims} == {400}
        faults.asked.clear()
        async with trio.open_nursery() as nursery:
            for claim in claims:
                retry = partial(worker.store.retry, messages=[jobtrio.Token(1, 1, "x" * 400)])
                nursery.start_soon(retry, claim, jobtrio.JobError("exception", "E", ""), 60.0)
        assert [names.count("move") for names in faults.asked if "move" in names] == [1] * 3
    check_schema(postgres, ids(entries))


async def test_claims_of_large_jobs(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large jobs one call claims no more than comes in time, by their order, and has the next called for at once."""
    monkeypatch.setattr("jobtrio.stores.postgres._claiming.ANSWERED", 1000)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        entries = [new_entry(payload="x" * 300, queue=f"queue {n % 3}") for n in range(10)]
        entries += [new_entry(payload="y" * 5000), new_entry(payload="z", priority=JobPriority.HIGH)]
        await worker.insert(*entries)
        claimed: list[list[str]] = []
        while claims := await worker.claim():
            claimed.append([claim.entry.payload[0] for claim in claims])
            if len(claimed) < 3:
                worker.heard.forget()
                await worker.heard.wait_for("work_ready")
        assert claimed == [list("zxxxx"), list("xxxx"), list("xxy")]
    check_schema(postgres, ids(entries))


async def test_a_repeated_claim_of_large_jobs(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the answer was lost that said that there are more, they are called for when it comes again."""
    monkeypatch.setattr("jobtrio.stores.postgres._claiming.ANSWERED", 1000)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(*(new_entry(payload="x" * 600) for _ in range(5)))
        claims = await worker.store.claim("call", limit=9, lease=LEASE)
        assert len(claims) == 2
        worker.heard.forget()
        await worker.heard.wait_for("work_ready")
        assert ids(await worker.store.claim("call", limit=9, lease=LEASE)) == ids(claims)
        worker.heard.forget()
        await worker.heard.wait_for("work_ready")


async def test_large_jobs_fall_due(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large jobs that fall due together no more are looked at in one go than come in time."""
    monkeypatch.setattr("jobtrio.stores.postgres._advancing.ANSWERED", 1000)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        entries = [new_entry(payload="x" * 600, delay=SHORT) for _ in range(5)]
        await worker.insert(*entries)
        await trio.sleep(2 * SHORT)
        for count in (2, 4, 5):
            await worker.store.advance()
            assert len(await worker.store.find(JobQuery(states=frozenset({JobState.QUEUED})))) == count
        assert len(await worker.claim(lease=SHORT)) == 5
        await trio.sleep(2 * SHORT)
        for count in (2, 4, 5):
            await worker.store.advance()
            assert len(await worker.store.find(JobQuery(states=frozenset({JobState.QUEUED})))) == count
        assert [claim.entry.payload for claim in await worker.claim()] == ["x" * 600] * 5


async def test_large_jobs_are_loaded(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of large jobs that many ask for no more come with one trip than come in time; all are answered, also for none."""
    monkeypatch.setattr("jobtrio.stores.postgres._reading.ANSWERED", 1000)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        entries = [new_entry(payload="x" * 300) for _ in range(10)]
        await worker.insert(*entries)
        faults = postgres_faults.install(monkeypatch)
        loaded: dict[str, JobEntry | None] = {}

        async def load(job_id: str) -> None:
            loaded[job_id] = await worker.store.load(job_id)

        async with trio.open_nursery() as nursery:
            for job_id in ["unknown", *ids(entries)]:
                nursery.start_soon(load, job_id)
        assert "unknown" in list(loaded)[:5]  # with the first of the others
        assert {job_id: entry and entry.payload for job_id, entry in loaded.items()} == {
            **dict.fromkeys(ids(entries), "x" * 300),
            "unknown": None,
        }
        assert faults.asked == [("some_by_ids",)] * 3


READS = {
    "load": lambda store, job_id: store.load(job_id),
    "look": lambda store, job_id: store.look(job_id),
    "read": lambda store, job_id: store.read_messages(job_id, 0, 10),
}


@pytest.mark.parametrize(("kinds", "trips"), [(["load"], 3), (["look"], 3), (["read"], 3), ([*READS], 5)])
async def test_large_results_are_read(
    postgres: str, monkeypatch: pytest.MonkeyPatch, kinds: list[str], trips: int
) -> None:
    """Of large results that many ask for no more come with one trip than come in time, whatever asks for them."""
    monkeypatch.setattr("jobtrio.stores.postgres._reading.ANSWERED", 1000)
    outcome = Completed("x" * 300)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(*(new_entry() for _ in range(10)))
        claims = await worker.claim(limit=10)
        for claim in claims:
            assert await worker.store.finish(claim, outcome)
        faults = postgres_faults.install(monkeypatch)
        found: dict[tuple[str, str], Any] = {}

        async def read(kind: str, job_id: str) -> None:
            found[kind, job_id] = await READS[kind](worker.store, job_id)

        async with trio.open_nursery() as nursery:
            for kind in kinds:
                for job_id in ["unknown", *ids(claims)]:
                    nursery.start_soon(read, kind, job_id)
        for kind in kinds:
            assert found.pop((kind, "unknown")) is None
        assert len(found) == 10 * len(kinds)
        assert {(each[0] if isinstance(each, list) else each).outcome for each in found.values()} == {outcome}
        assert len(faults.asked) == trips * len(kinds)


async def test_following_is_one_trip(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows a job asks for its messages and for itself at once."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        (entry,) = await worker.insert(new_entry())
        faults = postgres_faults.install(monkeypatch)
        messages, found = await worker.store.follow(entry.id, 0, 10)
        assert messages == []
        assert found is not None
        assert found.id == entry.id
        assert faults.asked == [("messages",)]


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    "query", [JobQuery(), JobQuery(queue="large"), JobQuery(tags={"t": "large"})], ids=["all", "group", "tag"]
)
async def test_large_jobs_are_found(
    postgres: str, monkeypatch: pytest.MonkeyPatch, query: JobQuery, *, newest_first: bool
) -> None:
    """Of large jobs no more come with one trip than come in time, and yet all are found that were asked for."""
    monkeypatch.setattr("jobtrio.stores.postgres._finding.ANSWERED", 1000)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        entries = [new_entry(payload="x" * 300, queue="large", tags={"t": "large"}) for _ in range(9)]
        entries += [new_entry(queue="large", tags={"t": "large"})]
        await worker.insert(*entries)
        for claim in await worker.claim(limit=2):
            assert await worker.store.finish(claim, Completed("y" * 1000))
        found = ids(entries)[:: -1 if newest_first else 1]
        faults = postgres_faults.install(monkeypatch)
        for limit, trips in ((20, 3), (10, 3), (6, 2), (1, 1)) if newest_first else ((20, 4), (10, 4), (6, 3), (1, 1)):
            faults.asked.clear()
            wanted = attrs.evolve(query, newest_first=newest_first, limit=limit)
            assert ids(await worker.store.find(wanted)) == found[:limit]
            assert len(faults.asked) == trips
        faults.asked.clear()
        behind = attrs.evolve(query, newest_first=newest_first, after=found[5])
        assert ids(await worker.store.find(behind)) == found[6:]
        assert [names for names in faults.asked if names == ("order_of",)] == [("order_of",)]


async def test_many_jobs_are_found(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more jobs come with one trip than Trio's thread can make records of in a moment."""
    monkeypatch.setattr("jobtrio.stores.postgres._finding.TOGETHER", 4)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        entries = [new_entry() for _ in range(9)]
        await worker.insert(*entries)
        faults = postgres_faults.install(monkeypatch)
        for limit in (3, 4, 8, 9, 100):
            assert ids(await worker.store.find(JobQuery(limit=limit))) == ids(entries)[:limit]
        assert faults.asked == [("find_all",)] * (1 + 1 + 2 + 3 + 3)


async def test_jobs_are_found_by_many_tags(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The more tags a query names, each of which is looked up for each job, the fewer jobs come with one trip."""
    monkeypatch.setattr("jobtrio.stores.postgres._finding.LOOKED_UP", 10)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        tags = {f"tag {n}": "same" for n in range(3)}
        entries = [new_entry(tags=tags) for _ in range(7)]
        await worker.insert(*entries)
        faults = postgres_faults.install(monkeypatch)
        for limit in (2, 3, 7, 100):
            assert ids(await worker.store.find(JobQuery(tags=tags, limit=limit))) == ids(entries)[:limit]
        assert faults.asked == [("candidates_by_tag",), ("find_by_tag",)] * (1 + 1 + 3 + 3)
        many = {**tags, **{f"another {n}": "same" for n in range(20)}}
        assert await worker.store.find(JobQuery(tags=many)) == []
