"""What many ask at once shares trips, harms nobody else when it fails, and gets along with other writers."""

from __future__ import annotations

from contextlib import asynccontextmanager, closing, suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import postgres_faults
import psycopg
import pytest
import trio
from postgres_invariants import check_schema
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from until_answered import until_answered

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    DuplicateJobError,
    End,
    Gap,
    IllegalTransitionError,
    JobState,
    Retention,
    StoreUnavailableError,
)
from jobtrio._known import refresh
from jobtrio.abc import JobQuery, LeaseReport
from jobtrio.psycopg_trio import connect
from jobtrio.stores.postgres import PostgresJobStore, Submitter
from jobtrio.stores.postgres import _pruning as pruning
from jobtrio.stores.postgres._advancing import LOCKED_FOR
from jobtrio.stores.postgres._connections import CONFLICTS, TRIES, Link
from jobtrio.stores.postgres._rows import entry_of
from jobtrio.testing import STORE_CHECKS
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from postgres_server import PostgresServer

    from jobtrio.testing import StoreCheck


pytestmark = pytest.mark.once


async def gather(*calls: Callable[[], Awaitable[object]]) -> list[object]:
    """Make calls at the same time; return their answers, or their errors, in order."""
    answers: list[object] = [None] * len(calls)

    async def make(n: int, call: Callable[[], Awaitable[object]]) -> None:
        try:
            answers[n] = await call()
        except Exception as exc:
            answers[n] = exc

    async with trio.open_nursery() as nursery:
        for n, call in enumerate(calls):
            nursery.start_soon(make, n, call)
    return answers


async def test_many_share_a_trip(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred insertions, and a hundred ends, take a trip or two rather than a hundred."""
    faults = postgres_faults.install(monkeypatch)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        entries = [new_entry() for _ in range(100)]
        faults.asked.clear()
        await gather(*(lambda entry=entry: worker.insert(entry) for entry in entries))
        assert 1 <= sum("insert" in names for names in faults.asked) <= 2
        claims = await worker.claim()
        assert len(claims) == 100
        faults.asked.clear()
        answers = await gather(
            *(lambda c=claim: worker.store.finish(c, Completed()) for claim in claims[:90]),
            *(lambda c=claim: worker.store.append_messages(c, tokens(1, 3)) for claim in claims[90:]),
        )
        assert answers == [True] * 100
        assert len(faults.asked) <= 2
        records = await gather(*(lambda e=entry: worker.store.load(e.id) for entry in entries))
        assert all(records)
    check_schema(postgres, ids(entries))


async def test_those_in_the_way_of_a_group(postgres: str) -> None:
    """In one group, duplicates of ids are refused, keys in use give their jobs, and all others are stored."""
    async with open_workers(lambda: PostgresJobStore(postgres), "a", "b") as (a, b):
        await a.insert(new_entry(job_id="kept", key="kept key"))
        given = [
            new_entry(job_id="one"),
            new_entry(job_id="kept"),
            new_entry(job_id="two", key="new key"),
            new_entry(job_id="three", key="new key"),
            new_entry(job_id="four", key="kept key"),
            new_entry(job_id="one"),
            new_entry(job_id="kept", key="kept key"),
        ]
        answers = await gather(*(lambda e=entry: b.insert(e) for entry in given))
        kinds = [answer[0].id if isinstance(answer, list) else type(answer) for answer in answers]
        assert kinds.count(DuplicateJobError) == 2
        assert sorted(kind for kind in kinds if isinstance(kind, str))[:2] == ["kept", "kept"]
        assert kinds[2] == kinds[3]
        assert {"one", kinds[2], "kept"} == set(ids(await a.store.find(JobQuery())))


async def test_keys_in_use_are_no_errors_of_the_server(own_postgres: PostgresServer) -> None:
    """That jobs are submitted together again, with their keys, leaves nothing in the server's log."""
    conninfo = own_postgres.create_database()
    async with open_worker(lambda: PostgresJobStore(conninfo)) as worker:
        for _ in range(2):
            stored = await worker.insert(*(new_entry(key=f"key {n}") for n in range(3)))
        assert len(await worker.store.find(JobQuery())) == len(stored) == 3
    assert "ERROR" not in own_postgres.log()


async def test_one_id_for_several(postgres: str) -> None:
    """Of jobs that are given one id at once one is stored, with its own tags and nobody else's."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(new_entry(job_id="kept", key="kept key"))
        given = [
            *(new_entry(job_id="one", tags={"same": "same", "n": str(n)}) for n in range(3)),
            new_entry(job_id="two", key="kept key"),
            new_entry(job_id="two", tags={"n": "two"}),
            new_entry(job_id="another"),
        ]
        answers = await gather(*(lambda e=entry: worker.insert(e) for entry in given))
        refused = [isinstance(answer, DuplicateJobError) for answer in answers]
        assert (refused[:3].count(True), refused[3:]) == (2, [False] * 3)
        assert [answer[0].id for answer in answers[3:] if isinstance(answer, list)] == ["kept", "two", "another"]
        stored = [entry for entry, answer in zip(given, answers, strict=True) if answer == [entry]]
        for n in ("0", "1", "2", "two"):
            expected = [entry.id for entry in stored if (entry.tags or {}).get("n") == n]
            assert ids(await worker.store.find(JobQuery(tags={"n": n}))) == expected
        assert ids(await worker.store.find(JobQuery(tags={"same": "same"}))) == ["one"]


async def test_numbers_that_others_have(postgres: str) -> None:
    """Where the server gives out again the numbers of jobs that there are, new ones are put in behind those."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(*(new_entry(job_id=str(n)) for n in range(100)))
        with psycopg.connect(postgres, autocommit=True) as connection:
            for new in ((new_entry(job_id="alone"),), (new_entry(job_id="one"), new_entry(job_id="two"))):
                connection.execute("SELECT setval('jobtrio.numbers', 1, false)")
                assert await worker.insert(*new) == list(new)
        order = [*map(str, range(100)), "alone", "one", "two"]
        assert ids(await worker.store.find(JobQuery(limit=1000))) == order
        assert [claim.entry.id for claim in await worker.claim(limit=1000)] == order


async def test_order_of_delayed_jobs_in_used_pages(postgres: str) -> None:
    """Jobs that one call stores with one delay become ready in their order, wherever in the table there is room."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        filling = [new_entry("other", payload="x" * 200) for _ in range(300)]
        await worker.insert(*filling)
        with psycopg.connect(postgres, autocommit=True) as connection:
            connection.execute("DELETE FROM jobtrio.jobs WHERE seq % 3 = 1")
            connection.execute("VACUUM jobtrio.jobs")
        delayed = [new_entry(payload="x" * (n % 7) * 100, delay=SHORT) for n in range(100)]
        await worker.insert(*delayed)
        await worker.pass_time()
        assert ids(await worker.claim(limit=100, executors={"work"})) == ids(delayed)


async def test_one_id_twice_in_a_call(postgres: str) -> None:
    """A call in which an id stands twice is refused as such, whatever the tags."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        with pytest.raises(DuplicateJobError):
            await worker.insert(new_entry(job_id="one", tags={"a": "b"}), new_entry(job_id="one", tags={"a": "b"}))
        assert await worker.store.find(JobQuery()) == []


async def test_one_that_fails_harms_no_other(postgres: str) -> None:
    """Of changes that go together one may be refused, and the others are made."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        running, queued = await worker.start(), new_entry()
        await worker.insert(queued)
        refused, cancelled, saved = await gather(
            lambda: worker.store.delete(queued.id),
            lambda: worker.store.request_cancel(running.entry.id, "why", 0.0),
            lambda: worker.store.delete("unknown"),
        )
        assert isinstance(refused, IllegalTransitionError)
        assert (getattr(cancelled, "accepted", None), saved) == (True, False)
        assert (await worker.record(running.entry.id)).cancel_reason == "why"
        assert (await worker.record(queued.id)).state is JobState.QUEUED


async def test_several_changes_of_one_job(postgres: str) -> None:
    """What is asked at once of one job is done one after the other, and each change is told once."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        for n in range(5):
            claim = await worker.start(new_entry(job_id=str(n), retry=jobtrio.RetryPolicy()))
            job_id, store = claim.entry.id, worker.store
            answers = await gather(
                lambda: store.append_messages(claim, tokens(1, 2)),  # noqa: B023 - called within this turn
                lambda: store.release(claim, "shutdown", messages=tokens(1, 4)),  # noqa: B023
                lambda: store.request_cancel(job_id, "why", 0.0),  # noqa: B023
                lambda: store.request_cancel(job_id, "again", 0.0),  # noqa: B023
                lambda: store.save_state(claim, n),  # noqa: B023
            )
            assert not any(isinstance(answer, Exception) for answer in answers)
            assert (await worker.load(job_id)).outcome in (Cancelled("why"), Cancelled("again"))
            assert worker.heard.of(job_id) == await worker.history(job_id)
    assert set(check_schema(postgres, ())) == {"0", "1", "2", "3", "4"}


async def test_an_end_that_is_read_before_it_is_answered_for(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody in this process may read what is committed a moment before the writer hears of it: it is told once."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        claims = [await worker.start(new_entry(retry=jobtrio.RetryPolicy())) for _ in range(3)]
        original = Link.fetch, Link.fetch_all

        def read_at_once(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def trip(link: Link, *args: Any) -> Any:
                answer = await method(link, *args)
                for claim in claims:
                    (row,) = await original[0](link, "by_ids", f"{{{claim.entry.id}}}")
                    refresh(claim.entry, entry_of(row))
                return answer

            return trip

        monkeypatch.setattr(Link, "fetch", read_at_once(original[0]))
        monkeypatch.setattr(Link, "fetch_all", read_at_once(original[1]))
        for _ in range(2):
            assert await worker.store.finish(claims[0], Completed("done"))
            assert await worker.store.finish(claims[1], jobtrio.Failed(ERROR))
            assert await worker.store.retry(claims[2], ERROR, LEASE)
        for claim in claims:
            assert worker.heard.of(claim.entry.id) == claim.entry.history() == await worker.history(claim.entry.id)


async def test_a_renewal_that_is_older_than_a_request(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request to cancel that a process knows of is not forgotten for a renewal that was asked for before it."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        claim = await worker.start()
        original = Link.fetch_all
        renewed, requested = trio.Event(), trio.Event()

        async def answer_late(link: Link, steps: Any) -> Any:
            steps = list(steps)
            answer = await original(link, steps)
            if any(step[0] == "renew" for step in steps):
                renewed.set()
                await requested.wait()
            return answer

        monkeypatch.setattr(Link, "fetch_all", answer_late)

        async def renew() -> None:
            (report,) = await worker.store.renew([claim], LEASE)
            assert report.held

        async with trio.open_nursery() as nursery:
            nursery.start_soon(renew)
            await renewed.wait()
            reply = await worker.store.request_cancel(claim.entry.id, "why", 0.0)
            assert reply is not None
            refresh(claim.entry, reply.entry)
            requested.set()
        assert claim.entry.record().cancel_reason == "why"


async def test_ended_jobs_are_pruned_as_they_come(postgres: str) -> None:
    """A process that ends many jobs removes those that are not kept without being asked to."""
    keep = Retention(finished_jobs=20)
    async with open_worker(lambda: PostgresJobStore(postgres), retention=keep) as worker:
        await worker.store.prune()  # as one that works does when it starts; one that only watches removes nothing
        for _ in range(2):
            await worker.insert(*(new_entry(tags={"t": "v"}) for _ in range(120)))
            for claim in await worker.claim(limit=120):
                await worker.store.finish(claim, Completed(), messages=tokens(1, 1))
        with trio.fail_after(60):
            while len(await worker.store.find(JobQuery(limit=1000))) > 100:  # noqa: ASYNC110 - it is done elsewhere
                await trio.sleep(0.02)
    check_schema(postgres, ())


async def test_two_that_prune(postgres: str) -> None:
    """Processes that prune at the same time don't get into each other's way, and keep what is to be kept."""
    keep = Retention(finished_jobs=10)
    async with open_workers(lambda: PostgresJobStore(postgres), "a", "b", retention=keep) as (a, b):
        await a.insert(*(new_entry(tags={"t": "v"}) for _ in range(90)))
        claims = await a.claim()
        await gather(*(lambda c=claim: a.store.finish(c, Completed(), messages=tokens(1, 3)) for claim in claims))
        living = await b.start()
        answers = await gather(*(worker.store.prune for worker in (a, b, a, b)))
        assert not any(isinstance(answer, Exception) for answer in answers)
        assert len(await a.store.find(JobQuery())) == 11
        await b.end(living)
    check_schema(postgres, [living.entry.id])


async def test_workers_that_did_not_leave(postgres: str) -> None:
    """With the ended jobs go the workers that were not seen for long, and no others."""
    async with open_workers(lambda: PostgresJobStore(postgres), "gone", "here") as workers:
        for worker in workers:
            await worker.store.renew([], LEASE)
        with closing(psycopg.connect(postgres, autocommit=True)) as other:
            other.execute("UPDATE jobtrio.workers SET until = until - 3600 WHERE name = 'gone'")
            await workers[1].store.prune()
            assert other.execute("SELECT name FROM jobtrio.workers").fetchall() == [("here",)]


async def test_an_ended_job_that_others_have_locked(postgres: str) -> None:
    """Pruning waits for nobody: a job that another transaction holds is passed over, and removed later."""
    async with open_worker(lambda: PostgresJobStore(postgres), Retention(finished_jobs=1)) as worker:
        ended = [await worker.start() for _ in range(3)]
        for claim in ended:
            assert await worker.store.finish(claim, Completed())
        held, _, newest = ids(ended)
        with closing(psycopg.connect(postgres)) as other, trio.fail_after(60):
            other.execute("SELECT FROM jobtrio.jobs WHERE id = %s FOR UPDATE", [held])
            await worker.store.prune()
            assert ids(await worker.store.find(JobQuery())) == [held, newest]
            other.rollback()
        await worker.store.prune()
        assert ids(await worker.store.find(JobQuery())) == [newest]
    check_schema(postgres, ())


async def test_a_job_that_is_pruned_in_part(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While many messages go, slice by slice, readers of a job that is still there find a gap, and its true end."""
    monkeypatch.setattr(pruning, "CHUNKS", 2)
    async with open_worker(lambda: PostgresJobStore(postgres), Retention(finished_jobs=0)) as worker:
        for job_id in ("first", "second"):
            claim = await worker.start(new_entry(job_id=job_id))
            for n in range(1, 4):
                assert await worker.store.append_messages(claim, tokens(n, n))
            assert await worker.store.finish(claim, Completed())
        session = worker.store._opened  # type: ignore[attr-defined]
        until = await session.connections.use(lambda link: pruning.limit(link, Retention(finished_jobs=0)))
        for _ in range(2):
            assert await session.connections.use(lambda link: pruning.prune(link, until))
        for job_id in ("first", "second"):
            assert await worker.stream(job_id) == [Gap(1, 2), *tokens(3, 3), End(4, Completed())]
        await worker.store.prune()
        assert await worker.store.find(JobQuery()) == []
    check_schema(postgres, ())


async def test_a_row_that_others_hold(postgres: str) -> None:
    """A job whose row somebody holds is passed over by those who look for work, and waited for by those who name it."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(new_entry(job_id="held"), new_entry(job_id="free"), new_entry(job_id="due", delay=SHORT))
        with closing(psycopg.connect(postgres)) as other:
            other.execute("SELECT FROM jobtrio.jobs WHERE id IN ('held', 'due') FOR UPDATE")
            assert ids(await worker.claim()) == ["free"]
            await worker.pass_time()
            assert (await worker.record("due")).state is JobState.SCHEDULED
            with trio.fail_after(60):
                await worker.store.load("held")  # reading waits for nobody
            other.rollback()
        assert ids(await worker.claim()) == ["held"]
        await worker.pass_time(LOCKED_FOR)
        assert ids(await worker.claim()) == ["due"]


IDLE = "jobtrio.stores.postgres._connections.IDLE"


async def test_a_process_that_stands_still_in_a_transaction(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of a process that was stopped in the midst of a change are let go, and its jobs are taken over."""
    monkeypatch.setattr(IDLE, "1s")
    async with open_workers(lambda: PostgresJobStore(postgres, outage_limit=120.0), "a", "b") as (a, b):
        claim = await a.start(new_entry(retry=jobtrio.RetryPolicy()), lease=SHORT)
        original = Link.fetch_all
        stopped, go_on = trio.Event(), trio.Event()

        async def stand_still(link: Link, steps: Any) -> Any:
            steps = list(steps)
            if any(step[0] == "move" for step in steps) and not stopped.is_set():
                monkeypatch.setattr(IDLE, "60s")  # for those who do not stand still
                stopped.set()
                await go_on.wait()
            return await original(link, steps)

        monkeypatch.setattr(Link, "fetch_all", stand_still)
        async with trio.open_nursery() as nursery:
            answers: list[object] = []

            async def retry() -> None:
                answers.extend(await gather(lambda: a.store.retry(claim, ERROR, 60.0)))

            nursery.start_soon(retry)
            with trio.fail_after(60):
                await stopped.wait()
                while await b.states(claim.entry.id) != ["QUEUED", "RUNNING", "QUEUED"]:
                    await b.pass_time()
            go_on.set()
        assert isinstance(answers[0], jobtrio.StoreUnavailableError)
        assert not await a.store.retry(claim, ERROR, 60.0)


def stop_behind(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[trio.Event, trio.Event]:
    """Have a process stop behind a step of one trip, of which the server has taken all before; two events tell when."""
    original = Link.fetch_all
    stopped, go_on = trio.Event(), trio.Event()

    async def stand_still(link: Link, steps: Any) -> Any:
        steps = list(steps)
        names = [step[0] for step in steps]
        if name not in names or stopped.is_set():
            return await original(link, steps)
        async with link.connection.pipeline():
            for step in steps[: names.index(name) + 1]:
                cursor: psycopg.AsyncRawCursor[Any] = psycopg.AsyncRawCursor(link.connection)
                await cursor.execute(link._sql.get(step[0], step[0]), step[1:] or None)
            with suppress(psycopg.ProgrammingError):  # it has no rows
                await cursor.fetchall()
            stopped.set()
            with trio.move_on_after(120, shield=True):  # nobody gives up in a process that stands still
                await go_on.wait()
            await cursor.execute("SELECT")
            raise AssertionError("the server waits for the rest")

    monkeypatch.setattr(Link, "fetch_all", stand_still)
    return stopped, go_on


@pytest.mark.parametrize("name", ["keep_state", "renew", "complete", "append", "lock_names", "insert"])
async def test_a_process_that_stands_still_in_a_trip(
    postgres: str, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Locks of a process that was stopped as it sent a transaction are let go, where the server can see to it."""
    if postgres_server.version < 17:
        pytest.skip("servers before PostgreSQL 17 do not count how long a transaction lasts")
    monkeypatch.setattr("jobtrio.stores.postgres._connections.LINGER", 0.1)
    totals = {"limited": 1}
    new = partial(new_entry, key="key", queue="limited")
    stopping = open_workers(lambda: PostgresJobStore(postgres, outage_limit=5.0), "a", totals=totals)
    other = open_workers(lambda: PostgresJobStore(postgres, outage_limit=30.0), "b", totals=totals)
    async with stopping as (a,), other as (b,), trio.open_nursery() as nursery:
        claims = [await a.start(new_entry()) for _ in range(2)]
        if name == "lock_names":
            await b.insert(new_entry(queue="limited"))
        stopped, go_on = stop_behind(monkeypatch, name)
        calls: dict[str, list[Callable[[], Awaitable[object]]]] = {
            "keep_state": [lambda: a.store.save_state(claims[0], "x")],
            "renew": [lambda: a.store.renew(claims, LEASE)],
            "lock_names": [a.claim],
            "insert": [lambda: a.insert(new())],
        }
        both: list[Callable[[], Awaitable[object]]] = [
            lambda: a.store.append_messages(claims[0], tokens(1, 2)),
            lambda: a.store.finish(claims[1], Completed()),
        ]
        nursery.start_soon(gather, *calls.get(name, both))
        with trio.fail_after(60):
            await stopped.wait()
        try:
            with trio.fail_after(60):
                match name:
                    case "lock_names":
                        assert len(await b.claim()) == 1
                    case "insert":
                        assert len(await b.insert(new())) == 1
                    case _:
                        for claim in claims:
                            assert await b.store.save_state(claim, "x")
        finally:
            go_on.set()


async def test_a_machine_that_is_gone(postgres: str, postgres_server: PostgresServer) -> None:
    """The server asks whether a worker's machine is still there; where both are on one, that does no harm."""
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    for host, expected in (("127.0.0.1", ["30", "5", "3", "45000"]), (str(postgres_server.folder), ["0"] * 4)):
        async with open_worker(lambda: PostgresJobStore(f"{postgres} host={host}")) as worker:  # noqa: B023
            await worker.start()
            session = worker.store._opened  # type: ignore[attr-defined]

            async def show(link: Link) -> list[str]:
                cursors = [await link.connection.execute(f"SHOW {name}".encode()) for name in names]
                return [str(row[0]) for cursor in cursors for row in await cursor.fetchall()]

            assert await session.connections.use(show) == expected


async def test_all_that_is_due_stands_still(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped as it took over a job is told of an outage, and does it when it is asked again."""
    monkeypatch.setattr(IDLE, "1s")
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=120.0)) as worker:
        claim = await worker.start(lease=SHORT)
        original = Link.fetch
        stopped = trio.Event()

        async def stand_still(link: Link, name: str, *parameters: Any) -> Any:
            if name == "lasts" and not stopped.is_set():
                monkeypatch.setattr(IDLE, "60s")
                stopped.set()
                with trio.fail_after(60):
                    await trio.lowlevel.wait_readable(link.connection.fileno())  # the server says why it hangs up
            return await original(link, name, *parameters)

        monkeypatch.setattr(Link, "fetch", stand_still)
        with pytest.raises(jobtrio.StoreUnavailableError):
            await worker.pass_time()
        await worker.store.advance()
        assert await worker.states(claim.entry.id) == ["QUEUED", "RUNNING", "QUEUED"]


async def test_a_key_in_a_transaction_that_lasts(postgres: str) -> None:
    """Whose key another transaction is putting in waits for its end; those with other keys, or without any, don't."""
    executors = jobtrio.Executors()

    @executors.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        pass

    jobs: list[jobtrio.Job] = []
    async with jobtrio.open_registry(
        executors, store=PostgresJobStore(postgres, outage_limit=120.0), queues={}
    ) as registry:

        async def submit(key: str | None = None) -> None:
            jobs.append(await registry.submit("work", key=key))

        with closing(psycopg.connect(postgres)) as other, trio.fail_after(60):
            stored = Submitter(executors).submit_in(other, "work", key="key")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(submit, "key")
                nursery.start_soon(submit, "another key")
                nursery.start_soon(submit, "key")
                await trio.sleep(0.1)
                for key in (None, "a third", "a fourth"):
                    async with trio.open_nursery() as others:
                        others.start_soon(submit, key)
                        others.start_soon(submit)
                assert len(jobs) == 7
                assert stored.id not in ids(jobs)
                other.commit()
        assert ids(jobs[7:]) == [stored.id] * 2


async def test_keys_in_a_transaction_that_is_not_waited_for(postgres: str) -> None:
    """Those who wait for another transaction's keys fail in time or leave, and are not put in later."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=4.0)) as worker:
        with closing(psycopg.connect(postgres)) as other, trio.fail_after(60):
            for key in ("one", "two"):
                other.execute(
                    "INSERT INTO jobtrio.jobs (seq, ticket, created_at, delay, due, priority, state, queue, executor,"
                    " id, key, submission, plan) VALUES (nextval('jobtrio.numbers'), 0, 0, 0, 0, 1, 'QUEUED', 'q', 'e',"
                    " %s, %s, '', '{}')",
                    [key, key],
                )
            given = [
                [new_entry(key="one")],
                [new_entry(key="three"), new_entry(key="two")],
                [new_entry(job_id="one")],
                [new_entry(key="four"), new_entry(key="four")],
            ]
            answers: list[Any] = await gather(*(lambda g=each: worker.insert(*g) for each in given))
            kinds = [type(answer) for answer in answers]
            assert kinds == [jobtrio.StoreUnavailableError] * 3 + [list]
            with trio.move_on_after(0.2) as scope:
                await worker.insert(new_entry(key="one"))
            assert scope.cancelled_caught
            other.rollback()
            await worker.insert(new_entry(key="five"))
        assert [record.key for record in await worker.store.find(JobQuery())] == ["four", "five"]


@pytest.mark.parametrize(
    ("options", "queues"),
    [
        ({"limit": 2}, ("one", "one")),
        ({"limit": 2}, ("one", "another")),
        ({"limit": 100, "room": {"one": 2}}, ("one", "one")),
    ],
)
async def test_others_claim_the_same(postgres: str, options: dict[str, Any], queues: tuple[str, str]) -> None:
    """Who finds that others are about to take what he has chosen is told to look again, as there may be more."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(*(new_entry(name, queue=queue) for name in "ab" for queue in queues))
        with closing(psycopg.connect(postgres)) as other:
            other.execute("SELECT FROM jobtrio.jobs WHERE executor = 'a' FOR UPDATE")
            worker.heard.forget()
            assert await worker.claim(**options) == []
            await worker.heard.wait_for("work_ready")
            other.execute("DELETE FROM jobtrio.jobs WHERE executor = 'a'")
            other.commit()
        assert len(await worker.claim(**options)) == 2


async def test_others_claim_the_same_of_one_queue(postgres: str) -> None:
    """Who finds that of one queue is told to look again, also where he got all that another queue has."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.insert(new_entry("a"), new_entry("b"), new_entry(queue="another", job_id="there"))
        with closing(psycopg.connect(postgres)) as other:
            other.execute("SELECT FROM jobtrio.jobs WHERE executor = 'a' FOR UPDATE")
            worker.heard.forget()
            assert ids(await worker.claim(room={"default": 1, "another": 5})) == ["there"]
            await worker.heard.wait_for("work_ready")


async def test_others_claim_the_last(postgres: str) -> None:
    """Who got all that he had chosen, or chose all that there is and came too late, does not look again at once."""
    store = PostgresJobStore(postgres)
    async with open_worker(lambda: store) as worker:
        await worker.insert(new_entry(), new_entry(), new_entry())
        assert len(await worker.claim(limit=1)) == 1
        assert not store._opened.missed.is_set()
        with closing(psycopg.connect(postgres)) as other:
            other.execute("SELECT FROM jobtrio.jobs WHERE state = 'QUEUED' LIMIT 1 FOR UPDATE")
            assert len(await worker.claim()) == 1
            assert not store._opened.missed.is_set()


async def test_a_lock_without_end(postgres: str) -> None:
    """A call that waits for a row which is never let go fails in time, and can be made when it is."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=3.0)) as worker:
        claim = await worker.start()
        with closing(psycopg.connect(postgres)) as other:
            other.execute("SELECT FROM jobtrio.jobs FOR UPDATE")
            with trio.fail_after(60), pytest.raises(jobtrio.StoreUnavailableError, match="no answer within"):
                await worker.store.finish(claim, Completed())
            other.rollback()
        assert await worker.store.finish(claim, Completed())


async def test_others_while_one_is_locked(postgres: str) -> None:
    """Where somebody has locked a running job, what is written of others is held up but once, whatever it is."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=4.0)) as worker:
        claims = [await worker.start(new_entry(retry=jobtrio.RetryPolicy())) for _ in range(5)]
        locked, appending, ending, retrying, cancelled = claims
        store = worker.store

        with closing(psycopg.connect(postgres)) as other, trio.fail_after(60):
            other.execute("SELECT FROM jobtrio.jobs WHERE id = %s FOR UPDATE", [locked.entry.id])
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_answered, lambda: store.append_messages(locked, tokens(1, 2)))
                nursery.start_soon(until_answered, lambda: store.request_cancel(locked.entry.id, "why", 0.0))
                answers = await gather(
                    lambda: until_answered(lambda: store.append_messages(appending, tokens(1, 2))),
                    lambda: until_answered(lambda: store.finish(ending, Completed(1))),
                    lambda: until_answered(lambda: store.retry(retrying, ERROR, 60.0)),
                    lambda: until_answered(lambda: store.request_cancel(cancelled.entry.id, "why", 0.0)),
                )
                assert answers[:3] == [True] * 3
                assert await worker.stream(locked.entry.id) == []
                other.rollback()
        assert await store.finish(locked, Completed(), messages=tokens(1, 3))
        assert await worker.stream(locked.entry.id) == [*tokens(1, 3), End(4, Cancelled("why"))]
        assert await worker.stream(appending.entry.id) == tokens(1, 2)
    check_schema(postgres, ids(claims))


async def test_one_that_stays_locked(postgres: str) -> None:
    """What is written of a job that somebody keeps locked holds up the others but once, however often it is tried."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=6.0)) as worker:
        locked, other = [await worker.start() for _ in range(2)]
        append = worker.store.append_messages

        async def append_locked(over: trio.Event) -> None:
            with pytest.raises(StoreUnavailableError):
                await append(locked, tokens(1, 2))
            over.set()

        with closing(psycopg.connect(postgres)) as stranger, trio.fail_after(60):
            stranger.execute("SELECT FROM jobtrio.jobs WHERE id = %s FOR UPDATE", [locked.entry.id])
            for is_known in (False, True):
                over = trio.Event()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(append_locked, over)
                    await trio.testing.wait_all_tasks_blocked()
                    await until_answered(partial(append, other, tokens(1, 1 + is_known)))
                    assert over.is_set() != is_known
                assert await worker.store.save_state(other, None)  # in a group without the one that is locked
            stranger.rollback()
        assert await append(locked, tokens(1, 2))
        assert await worker.stream(other.entry.id) == tokens(1, 2)
    check_schema(postgres, ids([locked, other]))


async def test_others_while_one_finds_no_room(postgres: str) -> None:
    """Where the server can't write one call's rows for now, others are carried out, however often all are repeated."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=6.0)) as worker:
        claims = [await worker.start() for _ in range(8)]
        with psycopg.connect(postgres, autocommit=True) as other:
            other.execute(
                """CREATE FUNCTION jobtrio.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"""
            )
            other.execute(
                "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON jobtrio.jobs FOR EACH ROW"
                " WHEN (NEW.id = 'large' OR NEW.result LIKE '%large%') EXECUTE FUNCTION jobtrio.refuse()"
            )
        with trio.fail_after(60):
            for large, others in (
                (
                    lambda: worker.store.finish(claims[0], Completed("large")),
                    [partial(worker.store.finish, claim, Completed("small")) for claim in claims[1:]],
                ),
                (
                    lambda: worker.insert(new_entry(job_id="large")),
                    [partial(worker.insert, new_entry()) for _ in claims],
                ),
            ):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(until_answered, large)
                    answers = await gather(*(partial(until_answered, call) for call in others))
                    assert not any(isinstance(answer, Exception) for answer in answers)
                    nursery.cancel_scope.cancel()


async def test_two_writes_of_one_job_behind_an_outage(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written goes together afterwards, also where there is another write of one of the jobs."""

    async def fail(*_: Any) -> None:
        raise psycopg.OperationalError("on purpose")

    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        claims = [await worker.start() for _ in range(30)]
        appending = [partial(worker.store.append_messages, claim, tokens(1, 2)) for claim in claims]
        faults = postgres_faults.install(monkeypatch)
        with monkeypatch.context() as away:
            for name in ("fetch", "fetch_all"):
                away.setattr(Link, name, fail)
            assert {type(error) for error in await gather(*appending)} == {StoreUnavailableError}
        faults.count = 0
        assert await gather(*appending, partial(worker.store.save_state, claims[0], 1)) == [True] * 31
        assert faults.count < 15


async def test_a_lease_of_a_job_that_others_have_locked(postgres: str) -> None:
    """Where somebody has locked a running job, it is held on, and the leases of all others are renewed."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        claims = [await worker.start(lease=SHORT) for _ in range(3)]
        with closing(psycopg.connect(postgres)) as other:
            other.execute("SELECT FROM jobtrio.jobs WHERE id = %s FOR UPDATE", [claims[1].entry.id])
            with trio.fail_after(60):
                reports = await worker.store.renew(claims, LEASE)
            assert [report.held for report in reports] == [True] * 3
            await worker.pass_time()
            other.rollback()
        await worker.pass_time(LOCKED_FOR)
        assert [(await worker.load(job_id)).state for job_id in ids(claims)] == ["RUNNING", "QUEUED", "RUNNING"]
        reports = await worker.store.renew(claims, LEASE)
        assert [report.held for report in reports] == [True, False, True]


async def test_leases_of_jobs_that_are_locked_for_a_moment(postgres: str) -> None:
    """A job that is locked but for a moment, as by what it sends, has its lease renewed as the others have."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=60.0)) as worker:
        claims = [await worker.start() for _ in range(5)]
        reports: list[LeaseReport] = []
        own, strange = (psycopg.connect(postgres) for _ in range(2))
        with closing(own), closing(strange), trio.fail_after(60):
            lock = "SELECT FROM jobtrio.jobs WHERE id = ANY(%s) FOR NO KEY UPDATE"
            strange.execute(lock, [ids(claims[:1])])  # and it is the first that is waited for
            own.execute(lock, [ids(claims[1:4])])
            async with trio.open_nursery() as nursery:

                async def renew() -> None:
                    reports.extend(await worker.store.renew(claims, 10 * LEASE))

                nursery.start_soon(renew)
                await wait_for_waiting(postgres, own.info.backend_pid)
                own.rollback()
        assert [report.held for report in reports] == [True] * 5
        query = "SELECT lease_until - extract(epoch FROM clock_timestamp()) > %s FROM jobtrio.jobs ORDER BY seq"
        with psycopg.connect(postgres) as connection:
            is_renewed = connection.execute(query, [5 * LEASE]).fetchall()
        assert is_renewed == [(False,), (True,), (True,), (True,), (True,)]


async def wait_for_waiting(conninfo: str, holder: int) -> None:
    """Return when somebody waits for what a session has locked."""
    with psycopg.connect(conninfo, autocommit=True) as connection, trio.fail_after(60):
        while True:
            query = "SELECT FROM pg_stat_activity WHERE %s = ANY(pg_blocking_pids(pid))"
            if connection.execute(query, [holder]).fetchone() is not None:
                return
            await trio.sleep(0.002)


@asynccontextmanager
async def a_lapse(conninfo: str) -> AsyncIterator[trio.Nursery]:
    """Take all jobs from their workers, which is committed once what is started in the block waits for it."""
    with closing(psycopg.connect(conninfo)) as other, trio.fail_after(60):
        other.execute("UPDATE jobtrio.jobs SET state = 'QUEUED', claim = NULL")
        async with trio.open_nursery() as nursery:
            yield nursery
            await wait_for_waiting(conninfo, other.info.backend_pid)
            other.commit()


async def test_a_lapse_while_it_is_renewed(postgres: str) -> None:
    """A job that is taken from its worker just as that renews is reported as lost, as soon as it is known."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=60.0)) as worker:
        claim = await worker.start()
        reports: list[LeaseReport] = []

        async def renew() -> None:
            reports.extend(await worker.store.renew([claim], LEASE))

        async with a_lapse(postgres) as nursery:
            nursery.start_soon(renew)
        assert [report.held for report in reports] == [False]


RENEWALS_WAIT = """
CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') = 'renewing' THEN PERFORM pg_advisory_xact_lock_shared(1); END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER wait BEFORE UPDATE ON jobtrio.jobs FOR EACH STATEMENT EXECUTE FUNCTION public.wait();
"""
"""Has those who call themselves so wait for a lock as they renew, with what they have locked until then."""


async def test_a_claim_while_a_renewal_has_the_job_locked(postgres: str) -> None:
    """Who passed over a job that was taken from its worker, as the renewal had it locked just then, is told of it."""
    slow = make_conninfo(postgres, application_name="renewing")
    async with (
        open_worker(lambda: PostgresJobStore(slow, outage_limit=60.0)) as renewing,
        open_worker(lambda: PostgresJobStore(postgres)) as claiming,
    ):
        claim = await renewing.start()
        with closing(psycopg.connect(postgres)) as gate:
            gate.execute(RENEWALS_WAIT)
            gate.commit()
            gate.execute("SELECT pg_advisory_xact_lock(1)")

            async def pass_over() -> None:
                await wait_for_waiting(postgres, gate.info.backend_pid)
                assert await claiming.claim() == []
                claiming.heard.forget()
                gate.commit()

            async with a_lapse(postgres) as nursery:
                nursery.start_soon(renewing.store.renew, [claim], LEASE)
                nursery.start_soon(pass_over)
        await claiming.heard.wait_for("work_ready")
        assert ids(await claiming.claim()) == [claim.entry.id]


@pytest.mark.parametrize("how", ["append", "complete"])
async def test_a_lapse_while_it_writes(postgres: str, how: str) -> None:
    """A worker whose job is being taken from it waits for that, and then writes nothing of it any more."""
    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=60.0)) as worker:
        claim = await worker.start()
        answers: list[bool] = []

        async def write() -> None:
            if how == "append":
                answers.append(await worker.store.append_messages(claim, tokens(1, 3)))
            else:
                answers.append(await worker.store.finish(claim, Completed(), messages=tokens(1, 3)))
            nursery.cancel_scope.cancel()

        async with a_lapse(postgres) as nursery:
            nursery.start_soon(write)
        assert answers == [False]
        assert await worker.stream(claim.entry.id) == []


async def test_setting_a_clock_takes_no_job_away(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases and due times go by the server's clock, whatever this machine's clock says."""
    import time

    real = time.time
    for step in (-86_400.0, 86_400.0):
        monkeypatch.setattr("time.time", lambda step=step: real() + step)
        async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
            claim = await worker.start(new_entry(expires_in=LEASE))
            delayed = new_entry(delay=LEASE)
            await worker.insert(delayed)
            await worker.pass_time()
            assert (await worker.record(claim.entry.id)).state is JobState.RUNNING
            assert (await worker.record(delayed.id)).state is JobState.SCHEDULED
            assert LEASE / 2 < await worker.advance() <= LEASE
            times = [line.at for line in await worker.history(claim.entry.id)]
            assert times == sorted(times)
            assert abs(times[0].timestamp() - real()) < 3600
            assert await worker.store.request_cancel(delayed.id, None, 0.0)
            assert await worker.store.finish(claim, Completed())


async def test_the_clock_of_the_server_steps_back(postgres: str) -> None:
    """A job that ends before it has started, by the server's clock, ends when it has started, also in its history."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        claim = await worker.start()
        with closing(psycopg.connect(postgres, autocommit=True)) as other:
            other.execute("UPDATE jobtrio.jobs SET started_at = started_at + 1000")
        assert await worker.store.finish(claim, Completed())
        record = await worker.record(claim.entry.id)
        assert record.duration == 0.0
        assert (await worker.history(claim.entry.id))[-1].at == record.finished_at


ISOLATED = ["check_claims_are_exclusive", "check_concurrent_inserts", "check_limits_hold_at_once"]
ISOLATED += ["check_race_of_cancel_and_ending", "check_race_for_the_ending", "check_repeated_insert", "check_lapse"]
ISOLATED += ["check_race_of_cancel_and_other_writes"]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("check", [check for check in STORE_CHECKS if check.__name__ in ISOLATED])
async def test_other_isolation_levels(
    postgres_server: PostgresServer, postgres: str, check: StoreCheck, level: str
) -> None:
    """Where the database has another isolation level by default, conflicts are tried again, and all is as ever."""
    name = sql.Identifier(str(conninfo_to_dict(postgres)["dbname"]))
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        statement = sql.SQL("ALTER DATABASE {} SET default_transaction_isolation = {}")
        connection.execute(statement.format(name, sql.Literal(level)))
    await check(lambda: PostgresJobStore(postgres))


async def test_many_conflicts(postgres: str) -> None:
    """What comes between others again and again is tried more often than what fails otherwise."""
    tries = 0

    async def work(_: Any) -> str:
        nonlocal tries
        tries += 1
        if tries % CONFLICTS:
            raise psycopg.errors.SerializationFailure("could not serialize access")
        return "done"

    async def fail(_: Any) -> None:
        nonlocal tries
        tries += 1
        raise psycopg.errors.InvalidSqlStatementName("lost by a pooler")

    async with open_worker(lambda: PostgresJobStore(postgres, outage_limit=60.0)) as worker:
        session: Any = worker.store._opened  # type: ignore[attr-defined]
        assert await session.connections.use(work) == "done"
        assert tries == CONFLICTS
        with pytest.raises(StoreUnavailableError):
            await session.connections.use(fail)
        assert tries == CONFLICTS + TRIES


@pytest.mark.parametrize("size", [2, 4])
async def test_many_who_look(postgres: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """However many look at the jobs, and however long that takes, leases are renewed meanwhile, and jobs end."""
    enough, full, looking = trio.Event(), trio.Event(), 0

    async def count(_: Link) -> dict[str, dict[JobState, int]]:
        nonlocal looking
        looking += 1
        if looking == size // 2:
            full.set()
        await enough.wait()
        return {}

    monkeypatch.setattr("jobtrio.stores.postgres._finding.counts", count)
    async with open_worker(lambda: PostgresJobStore(postgres, pool_size=size, outage_limit=60.0)) as worker:
        claim = await worker.start()
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(worker.store.counts)
            with trio.fail_after(60):
                await full.wait()
                (report,) = await worker.store.renew([claim], LEASE)
                assert report.held
                assert await worker.store.finish(claim, Completed())
            assert looking == size // 2
            enough.set()
        assert looking == 20


async def test_one_connection_is_enough(postgres: str) -> None:
    """With a single connection all goes on, one after the other."""
    async with open_worker(lambda: PostgresJobStore(postgres, pool_size=1)) as worker:
        entries = [new_entry() for _ in range(20)]
        answers = await gather(
            *(lambda e=entry: worker.insert(e) for entry in entries),
            worker.claim,
            worker.store.advance,
            worker.store.prune,
            worker.store.counts,
            lambda: worker.store.renew([], LEASE),
            lambda: worker.store.load("id"),
        )
        assert not any(isinstance(answer, Exception) for answer in answers)


async def test_nothing_is_left_open(postgres: str) -> None:
    """A store that is closed leaves no connection behind, and no worker that is there."""
    for _ in range(3):
        async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
            await worker.store.renew([], LEASE)
            await gather(*(worker.store.counts for _ in range(10)))
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(postgres, autocommit=True) as connection, trio.fail_after(60):
        statement = f"{count} AND backend_type = 'client backend'".encode()
        while connection.execute(statement).fetchone() != (0,):  # noqa: ASYNC110 - the server sees to it
            await trio.sleep(0.01)
        assert connection.execute("SELECT count(*) FROM jobtrio.workers").fetchone() == (0,)


async def test_one_that_was_no_worker_leaves_nothing(postgres: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that only looks asks the server for nothing more as it leaves: nobody was told that it is there."""
    faults = postgres_faults.install(monkeypatch)
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        await worker.store.counts()
        faults.asked.clear()
    assert ("leave",) not in faults.asked


async def test_jobs_that_others_have_locked(postgres: str) -> None:
    """A claim, and what falls due, wait for nobody: what another transaction holds is passed over, and taken later."""
    async with open_worker(lambda: PostgresJobStore(postgres)) as worker:
        held, free = new_entry(), new_entry()
        late, expiring = new_entry(delay=SHORT), new_entry(expires_in=SHORT)
        await worker.insert(held, free, late, expiring)
        async with await connect(postgres) as other, other.transaction():
            others = [held.id, late.id, expiring.id]
            await other.execute("SELECT 1 FROM jobtrio.jobs WHERE id = ANY(%s) FOR UPDATE", [others])
            with trio.fail_after(60):
                assert ids(await worker.claim(limit=1)) == [free.id]
                await worker.pass_time()
                assert await worker.claim() == []
        await worker.pass_time(LOCKED_FOR)
        assert (await worker.record(expiring.id)).state is JobState.FAILED
        assert ids(await worker.claim()) == [held.id, late.id]


@pytest.mark.parametrize("listen", [True, False])
async def test_all_that_is_due_is_locked(postgres: str, listen: bool) -> None:
    """Where others have locked all that is due, a worker looks again after a while, and not without end."""
    async with open_worker(lambda: PostgresJobStore(postgres, listen=listen)) as worker:
        due = new_entry(delay=SHORT)
        await worker.insert(due, new_entry(), new_entry())
        lapsing = await worker.claim(lease=SHORT)
        await worker.insert(new_entry(job_id="unlocked", delay=SHORT))
        with closing(psycopg.connect(postgres)) as other:
            other.execute("SELECT FROM jobtrio.jobs WHERE id <> 'unlocked' FOR UPDATE")
            left = await worker.pass_time()
            for _ in range(20):
                if left > LOCKED_FOR / 2:
                    break
                # Something was done, so that there might have been more; or the machine stood still.
                left = await worker.store.advance()
            assert LOCKED_FOR / 2 < left <= LOCKED_FOR
            assert (await worker.record("unlocked")).state is JobState.QUEUED
            other.rollback()
        assert await worker.pass_time(LOCKED_FOR) > LOCKED_FOR
        assert [(await worker.load(job_id)).state for job_id in (due.id, *ids(lapsing))] == ["QUEUED"] * 3
    check_schema(postgres, ())


async def test_a_held_job_that_several_start(postgres: str) -> None:
    """A held job that two start at once is claimed at once, though the second had it locked as its start was told."""
    executors = jobtrio.Executors()

    @executors.register("say")
    async def say(job: jobtrio.JobContext) -> None:
        await job.send("it")

    async def read(job_id: str) -> None:
        async with registry.execute_and_stream(job_id, "say") as lines:
            assert [line async for line in lines] == ["it", "[DONE]"]

    store = PostgresJobStore(postgres)
    async with jobtrio.open_registry(executors, store=store) as registry:
        store.poll_interval = inf
        with trio.fail_after(60):
            for _ in range(10):
                job = await registry.create_job()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(read, job.id)
                    nursery.start_soon(read, job.id)


async def test_a_job_that_somebody_would_remove(postgres: str) -> None:
    """A job that is refused to be removed, as it waits, is claimed at once, though it was locked to find that out."""
    executors = jobtrio.Executors()

    @executors.register("do nothing")
    async def do_nothing(job: jobtrio.JobContext) -> None:
        """Do nothing."""

    async def remove(job_id: str) -> None:
        for _ in range(3):
            with suppress(jobtrio.UnknownJobError, jobtrio.IllegalTransitionError):
                await registry.remove(job_id)

    store = PostgresJobStore(postgres)
    async with jobtrio.open_registry(executors, store=store) as registry:
        store.poll_interval = inf
        with trio.fail_after(60):
            for n in range(40):
                async with trio.open_nursery() as nursery:
                    job = await registry.submit("do nothing", job_id=f"job {n}")
                    for _ in range(4):
                        nursery.start_soon(remove, job.id)
                    with suppress(trio.BrokenResourceError):
                        await job.wait()
