"""A job that nobody can read, since something else has written it, is made to fail, and harms no other."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import trio
from psycopg import sql
from store_urls import STORES, new_url
from valkey_server import shared_server

import jobtrio
from jobtrio import Completed, End, Failed, Gap, JobPriority, JobState, Retention, Token
from jobtrio.abc import JobQuery
from jobtrio.stores._url import parse_store_url
from jobtrio.testing._workers import SHORT, ids, new_entry, open_worker, tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.abc import JobStore
    from jobtrio.stores._url import Address

pytestmark = pytest.mark.once

executors = jobtrio.Executors()


@executors.register("echo")
async def echo(job: jobtrio.JobContext) -> Any:
    return job.payload


class Place:
    """Where the jobs are, and how a stranger writes there."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.make_store: Callable[[], JobStore] = address.make_store

    def damage(self, job_id: str, column: str, value: str) -> None:
        """Change what is stored of a job."""
        match self._address.kind:
            case "sqlite":
                with closing(sqlite3.connect(self._address.place)) as file:
                    file.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, job_id))
                    file.commit()
            case "postgres":
                statement = sql.SQL("UPDATE jobtrio.jobs SET {} = %s WHERE id = %s").format(sql.Identifier(column))
                with psycopg.connect(self._address.place) as connection:
                    connection.execute(statement, [value, job_id])
            case "redis":
                field = "body" if column in ("payload", "metadata") else column
                shared_server().ask("HSET", f"{{{self._address.options['prefix']}}}:job:{job_id}", field, value)

    def damage_messages(self, job_id: str, last: int, count: int, text: str = "[[") -> None:
        """Make a chunk of a job's messages nonsense: it has so many, up to a number."""
        chosen = (
            f"UPDATE {{}}messages SET body = '{text}' "
            "WHERE last = {} AND job = (SELECT seq FROM {}jobs WHERE id = '{}')"
        )
        match self._address.kind:
            case "sqlite":
                with closing(sqlite3.connect(self._address.place)) as file:
                    file.execute(chosen.format("", last, "", job_id))
                    file.commit()
            case "postgres":
                with psycopg.connect(self._address.place) as connection:
                    connection.execute(chosen.format("jobtrio.", last, "jobtrio.", job_id).encode())
            case "redis":
                key = f"{{{self._address.options['prefix']}}}:messages:{job_id}"
                entries: Any = shared_server().ask("XRANGE", key, "-", "+")
                shared_server().ask("DEL", key)
                for entry_id, (name, body) in entries:
                    shared_server().ask("XADD", key, entry_id, name, text if entry_id == f"{last}-{count}" else body)


@pytest.fixture(params=STORES)
def place(request: pytest.FixtureRequest) -> Place:
    """Gives an empty store of each kind."""
    return Place(parse_store_url(new_url(request.param, request)))


QUEUED = (
    ("payload", "{"),
    ("payload", '"\\ud800'),
    ("metadata", "[1"),
    ("plan", "[]"),
    ("priority", "7"),
    ("tags", "7"),
)


@pytest.mark.parametrize(("column", "value"), QUEUED)
async def test_queued(place: Place, column: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is claimed, and fails without being run; all others run, before it and behind it."""
    if column == "priority" and "Redis" in repr(place.make_store()):
        column, value = "plan", '{"executor":"echo","queue":"default","priority":7,"worker":""}'
    async with jobtrio.open_registry(executors, store=place.make_store(), queues={}) as registry:
        jobs = [await registry.submit("echo", n, tags={"n": str(n)}) for n in range(3)]
        place.damage(jobs[1].id, column, value)
        assert [record.id for record in await registry.find()] == [job.id for job in jobs]
        assert (await registry.get(jobs[1].id)).record.id == jobs[1].id
    async with jobtrio.open_registry(executors, store=place.make_store()) as registry:
        with trio.fail_after(60):
            outcomes = [await (await registry.get(job.id)).wait() for job in jobs]
        assert [outcomes[0], outcomes[2]] == [Completed(0), Completed(2)]
        assert isinstance(outcomes[1], Failed)
        assert outcomes[1].error.kind == "gave_up"
        assert "can't be read" in outcomes[1].error.message
        for job in jobs:
            await registry.remove(job.id)
        assert await registry.find() == []
    assert any(jobs[1].id in text and "can't be read" in text for text in caplog.messages)


@pytest.mark.parametrize("priority", JobPriority)
async def test_another_priority(place: Place, priority: JobPriority) -> None:
    """One that waits can be given another priority, also where that is what can't be read, and fails in its turn."""
    async with open_worker(place.make_store) as worker:
        jobs = [new_entry(), new_entry(), new_entry()]
        await worker.insert(*jobs)
        place.damage(jobs[0].id, "payload", "{")
        place.damage(jobs[1].id, "priority", "7")
        for job, is_readable in ((jobs[0], False), (jobs[1], True)):
            entry = await worker.store.set_priority(job.id, priority)
            assert entry is not None
            assert entry.plan.priority is priority
            kept = await worker.load(job.id)
            assert (kept.plan.priority, kept.unreadable is None) == (priority, is_readable)
        claims = await worker.claim()
        assert {claim.entry.id: claim.entry.plan.priority for claim in claims} == {
            jobs[0].id: priority,
            jobs[1].id: priority,
            jobs[2].id: JobPriority.NORMAL,
        }
        if priority is JobPriority.LOW:
            assert ids(claims) == ids([jobs[2], *jobs[:2]])
        elif priority is not JobPriority.NORMAL:
            assert ids(claims) == ids(jobs)


async def test_running(place: Place) -> None:
    """A lease that is over is seen to, and a request to cancel is kept, whatever became of the job's payload."""
    async with open_worker(place.make_store) as worker:
        await worker.insert(new_entry(), new_entry())
        one, two = await worker.claim(lease=SHORT)
        await worker.store.request_cancel(one.entry.id, "why", 0.0)
        for claim in (one, two):
            place.damage(claim.entry.id, "payload", "{")
        await worker.pass_time()
        assert await worker.states(one.entry.id) == ["QUEUED", "RUNNING", "CANCELLED"]
        assert await worker.states(two.entry.id) == ["QUEUED", "RUNNING", "QUEUED"]
        assert [claim.entry.unreadable is None for claim in await worker.claim()] == [False]


TIMES = ("1e300", "-1e300", "nan", "inf")
HISTORIES = (
    *("1e300,'QUEUED',1,'w',null", "'x','QUEUED',1,'w',null", "1,'QUEUED','x','w',null", "1,'QUEUED',1.5,'w',null"),
    *("1,'QUEUED',1", "1,[],1,'w',null", "1,'QUEUED',1,7,null", "1,'QUEUED',1,'w',7"),
)
REQUESTS = ("[1e300,null,0]", '["x",null,0]', "[1,7,0]", '[1,null,"x"]', "[1,null,-1]", "[1]", "7")
WRONG = (
    *((column, value) for column in ("created_at", "run_at") for value in TIMES),
    *(("history", value.replace("'", '"')) for value in HISTORIES),
    *(("cancel", value) for value in REQUESTS),
)


@pytest.mark.parametrize("name", [name for name in STORES if name != "redis"])
@pytest.mark.parametrize(("column", "value"), WRONG)
async def test_no_time(name: str, column: str, value: str, request: pytest.FixtureRequest) -> None:
    """A time that no calendar has, a history or a request that is none, harm one job; all others are found, and run."""
    place = Place(parse_store_url(new_url(name, request)))
    if column == "history":
        value = f"[{value}]" if name == "sqlite" else f",{value}"
    async with jobtrio.open_registry(executors, store=place.make_store(), queues={}) as registry:
        jobs = [await registry.submit("echo", n) for n in range(3)]
        if name == "sqlite" and column.endswith("_at"):
            with pytest.raises(sqlite3.IntegrityError):
                place.damage(jobs[1].id, column, value)
            return
        place.damage(jobs[1].id, column, value)
        assert [record.id for record in await registry.find()] == [job.id for job in jobs]
        assert (await registry.history(jobs[1].id))[0].job_id == jobs[1].id
    async with jobtrio.open_registry(executors, store=place.make_store()) as registry:
        with trio.fail_after(60):
            outcomes = [await (await registry.get(job.id)).wait() for job in jobs]
        assert [outcomes[0], outcomes[2]] == [Completed(0), Completed(2)]
        assert isinstance(outcomes[1], Failed)
        assert "can't be read" in outcomes[1].error.message


@pytest.mark.parametrize("value", [*REQUESTS, "{"])
async def test_no_request(place: Place, value: str) -> None:
    """What is no request to cancel leaves a running job its lease, and lets it end; others are told of theirs."""
    async with open_worker(place.make_store) as worker:
        claims = [await worker.start() for _ in range(2)]
        bad, good = ids(claims)
        await worker.store.request_cancel(good, "why", 0.0)
        place.damage(bad, "cancel", value)
        reports = await worker.store.renew(claims, SHORT)
        assert [report.held for report in reports] == [True, True]
        told = [report.entry.cancel for report in reports]
        assert [cancel and cancel.reason for cancel in told] == [None, "why"]
        assert await worker.store.finish(claims[0], Completed(1))
        assert (await worker.load(bad)).outcome is not None


@pytest.mark.parametrize("column", ["due", "expires", "delay", "expires_in", "finished_at"])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
async def test_never_due(column: str, value: str, request: pytest.FixtureRequest) -> None:
    """What PostgreSQL takes for a time, and nobody can wait for, holds up no other job; its own can be cancelled."""
    place = Place(parse_store_url(new_url("postgresql", request)))
    async with jobtrio.open_registry(executors, store=place.make_store(), queues={}) as registry:
        jobs = [await registry.submit("echo", n, delay=0.1, expires_in=60) for n in range(3)]
        place.damage(jobs[1].id, column, value)
    async with jobtrio.open_registry(executors, store=place.make_store()) as registry:
        with trio.fail_after(60):
            for n in (0, 2):
                assert await (await registry.get(jobs[n].id)).wait() == Completed(n)
            with suppress(jobtrio.UnknownJobError):  # one that has ended for ever so long is not kept
                await registry.cancel(jobs[1].id)
                await (await registry.get(jobs[1].id)).wait()


ENDED = (("result", "{", JobState.FAILED), ("history", ",[", JobState.COMPLETED), ("state", "PAUSED", JobState.FAILED))


@pytest.mark.parametrize(("column", "value", "state"), ENDED)
async def test_ended(place: Place, column: str, value: str, state: JobState) -> None:
    """An ending that can't be read is no success, and those that can be are found beside it."""
    async with open_worker(place.make_store) as worker:
        claims = [await worker.start() for _ in range(2)]
        for claim in claims:
            assert await worker.store.finish(claim, Completed(1))
        bad, good = ids(claims)
        place.damage(bad, column, value)
        found = {record.id: record.state for record in await worker.store.find(JobQuery())}
        assert found == {bad: state, good: JobState.COMPLETED}
        entry = await worker.load(bad)
        assert isinstance(entry.outcome, Failed if state is JobState.FAILED else Completed)
        if column == "result":
            assert await worker.stream(bad) == [End(1, entry.outcome)]
        assert sum((await worker.store.counts())["default"].values()) >= 1


async def test_removed(place: Place) -> None:
    """Jobs that are too old are removed, also those whose tags can't be read."""
    async with open_worker(place.make_store, Retention(finished_jobs=0)) as worker:
        claims = [await worker.start(new_entry(tags={"a": "b"})) for _ in range(4)]
        for claim, value in zip(claims, ("{", "[7]", '{"a": {}}', '{"a": "b"}'), strict=True):
            place.damage(claim.entry.id, "tags", value)
            assert await worker.store.finish(claim, Completed())
        await worker.store.prune()
        assert await worker.store.find(JobQuery()) == []


@pytest.mark.parametrize("bad", [1, 2, 3])
@pytest.mark.parametrize("text", ["[[", "[]", '[[0,1,"a"]]', '[[0,1,"a"],[0,1,"b"],[0,1,"c"]]'])
async def test_messages(place: Place, text: str, bad: int) -> None:
    """Messages that can't be read, or are not as many as there were, are told as a gap; all others are read."""
    async with open_worker(place.make_store) as worker:
        claim = await worker.start()
        for first in (1, 3, 5):
            assert await worker.store.append_messages(claim, tokens(first, first + 1))
        place.damage_messages(claim.entry.id, 2 * bad, 2, text)
        expected: list[Any] = [tokens(1, 2), tokens(3, 4), tokens(5, 6)]
        expected[bad - 1] = [Gap(2 * bad - 1, 2 * bad)]
        assert await worker.store.finish(claim, Completed(1))
        stream: list[Any] = []
        while not stream or not isinstance(stream[-1], End):
            after = 0 if not stream else getattr(stream[-1], "seq", None) or stream[-1].last
            piece = await worker.stream(claim.entry.id, after)
            assert piece
            stream += piece
        assert stream == [*(message for chunk in expected for message in chunk), End(7, Completed(1))]


async def test_messages_before_another_attempt(place: Place) -> None:
    """Where nothing of a stream can be read, the next attempt's messages have numbers behind it, and none is lost."""
    again = jobtrio.Executors()

    @again.register("work")
    async def work(job: jobtrio.JobContext) -> None:
        await job.send("again")

    async with open_worker(place.make_store) as worker:
        claim = await worker.start()
        assert await worker.store.release(claim, "no more", messages=tokens(1, 2))
        place.damage_messages(claim.entry.id, 2, 2)
        place.damage_messages(claim.entry.id, 3, 1)  # the `Restart`
    stream = [Gap(1, 3), Token(4, 2, "again"), End(5, Completed())]
    for serves in (True, False):
        queues = None if serves else dict[str, int]()
        async with jobtrio.open_registry(again, store=place.make_store(), queues=queues) as registry:
            job = await registry.get(claim.entry.id)
            await job.wait()
            with job.subscribe(on_gap="yield") as messages:
                assert [message async for message in messages] == stream
