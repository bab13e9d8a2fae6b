"""Large things in a Redis: values, streams, batches and crowds, and that none of them holds the server up for long."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
from redis_invariants import check_jobs
from valkey_server import ValkeyServer, new_prefix, shared_server

from jobtrio import Completed, End, Gap, JobPriority, JobState, PayloadError, Restart, RetryPolicy, Token
from jobtrio._codec import SIZE_LIMIT
from jobtrio._policies import Retention
from jobtrio.abc import JobQuery
from jobtrio.stores.redis import RedisJobStore, _store
from jobtrio.stores.redis import _advancing as advancing
from jobtrio.stores.redis import _claiming as claiming
from jobtrio.stores.redis import _finding as finding
from jobtrio.stores.redis import _inserting as inserting
from jobtrio.stores.redis._link import Answers, Link
from jobtrio.stores.redis._scripts import run
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobtrio._entry import JobEntry
    from jobtrio.abc import Claim
    from jobtrio.stores.redis._link import Command


LARGEST = "x" * (SIZE_LIMIT - 2)
"""The largest text that a value may be."""


JOBS = 3500


@pytest.fixture
def prefix() -> str:
    """A prefix of the test's own."""
    return new_prefix()


@pytest.fixture
def open_store(prefix: str) -> Callable[[], RedisJobStore]:
    """Give stores on the shared server."""
    return lambda: RedisJobStore(shared_server().url, prefix=prefix)


async def test_largest_values(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A payload, a token, a state and a result of the largest size come back whole; larger ones are refused."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for too_large in ({"payload": LARGEST + "x"}, {"metadata": {"m": LARGEST}}):
            with pytest.raises(PayloadError, match="at most"):
                await a.insert(new_entry(**too_large))
        claim = await a.start(new_entry(payload=LARGEST))
        assert claim.entry.payload == LARGEST
        assert await a.store.append_messages(claim, [Token(1, 1, LARGEST), *tokens(2, 3)])
        assert await a.store.save_state(claim, LARGEST)
        assert await a.store.finish(claim, Completed(LARGEST))
        (record,) = await b.store.find(JobQuery())
        assert (record.payload, record.result) == (LARGEST, LARGEST)
        assert (await b.load(record.id)).saved_state == LARGEST
        stream, last = [], 0
        while piece := await b.stream(record.id, last):
            stream += piece
            last = len(stream)
        assert stream == [Token(1, 1, LARGEST), *tokens(2, 3), End(4, Completed(LARGEST))]
    check_jobs(shared_server(), prefix)


async def test_many_large_messages(open_store: Callable[[], RedisJobStore]) -> None:
    """Messages that are too many for one call go in several, and none is missing or doubled."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(retry=RetryPolicy()))
        sent = [Token(seq, 1, "x" * 500_000) for seq in range(1, 21)]
        assert await worker.store.append_messages(claim, sent[:12])
        assert await worker.store.retry(claim, ERROR, 0.0, messages=sent[10:])
        await worker.pass_time(0)
        second = await worker.claim_one()
        more = [Token(seq, 2, "y" * 500_000) for seq in range(22, 32)]
        for _ in range(2):
            assert await worker.store.finish(second, Completed(), messages=more)
        stream: list[Any] = []
        while piece := await worker.stream(claim.entry.id, len(stream)):
            assert sum(len(message.value) for message in piece if isinstance(message, Token)) < 10_000_000
            stream += piece
        assert stream == [*sent, Restart(21, 1, ERROR, 0.0), *more, End(32, Completed())]


async def test_reading_large_messages(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """One reading brings back no more of a stream than it can at once, whatever is asked for, and the next goes on."""
    monkeypatch.setattr(_store, "READ_BYTES", 10_000)
    async with open_worker(open_store) as worker:
        claim = await worker.start()
        sent = [Token(n, 1, "x" * 2000) for n in range(1, 41)]
        for token in sent:
            assert await worker.store.append_messages(claim, [token])
        read: list[Any] = []
        while some := await worker.stream(claim.entry.id, len(read)):
            assert len(some) <= 8
            read += some
        assert read == sent


async def test_renewals_of_large_jobs_that_have_ended(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a claim that holds its job no more, a renewal brings back nothing large: others wait for it meanwhile."""
    brought: list[int] = []
    original = Answers.wait

    async def wait(answers: Answers) -> list[Any]:
        told = await original(answers)
        brought.append(len(repr(told)))
        return told

    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(payload="x" * 10_000))
        assert await worker.store.save_state(claim, "x" * 10_000)
        assert await worker.store.finish(claim, Completed("x" * 10_000))
        monkeypatch.setattr(Answers, "wait", wait)
        (report,) = await worker.store.renew([claim], LEASE)
        assert not report.held
        assert report.entry.id == claim.entry.id
    assert max(brought) < 10_000


async def test_many_read_at_once(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """However many read large streams at once, one go brings much to one of them, and little to each other."""
    monkeypatch.setattr(_store, "READ_BYTES", 10_000)
    async with open_worker(open_store) as worker:
        claims = [await worker.start() for _ in range(10)]
        sent = [Token(n, 1, "x" * 2000) for n in range(1, 21)]
        for claim in claims:
            for token in sent:
                assert await worker.store.append_messages(claim, [token])
        got: dict[str, list[Any]] = {claim.entry.id: [] for claim in claims}
        sizes: list[int] = []

        async def read(job_id: str) -> None:
            some = await worker.stream(job_id, len(got[job_id]))
            sizes.append(len(some))
            got[job_id] += some

        async def read_all() -> list[int]:
            sizes.clear()
            async with trio.open_nursery() as nursery:
                for job_id in got:
                    nursery.start_soon(read, job_id)
            return sorted(sizes)

        assert await read_all() == [1] * 9 + [8]
        while any(await read_all()):
            pass
        assert all(messages == sent for messages in got.values())


async def test_small_streams_beside_large_ones(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads a stream of small entries has all of it in one go, beside however many that read large ones."""
    monkeypatch.setattr(_store, "READ_BYTES", 200_000)
    async with open_worker(open_store) as worker:
        large, small = await worker.start(), await worker.start()
        assert await worker.store.append_messages(large, [Token(n, 1, "x" * 60_000) for n in range(1, 9)])
        for n in range(1, 21):
            assert await worker.store.append_messages(small, tokens(n, n))

        async def read() -> None:
            assert await worker.stream(small.entry.id) == tokens(1, 20)

        for _ in range(5):  # in what order they ask is left to chance
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                for _ in range(5):
                    nursery.start_soon(worker.stream, large.entry.id)


@pytest.mark.parametrize("what", ["payload", "saved state", "history"])
async def test_claims_of_large_jobs(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A call claims no more jobs than it can bring back at once, and says that there are more."""
    monkeypatch.setattr(claiming, "MOST_BYTES", 1000)
    async with open_worker(open_store) as worker:
        entries = [new_entry(payload="x" * 600 if what == "payload" else None) for _ in range(5)]
        await worker.insert(*entries)
        if what != "payload":
            state, reason = ("x" * 600, "shutdown") if what == "saved state" else (None, "x" * 600)
            for claim in await worker.claim():
                assert await worker.store.save_state(claim, state)
                assert await worker.store.release(claim, reason)
        await trio.sleep(2 * SHORT)  # for hints that are under way to arrive
        claimed: list[list[str]] = []
        while not claimed or len(claimed[-1]) == 2:
            worker.heard.forget()
            claimed.append(ids(await worker.claim()))
            if len(claimed[-1]) == 2:
                await worker.heard.wait_for("work_ready")
        assert claimed == [ids(entries[:2]), ids(entries[2:4]), ids(entries[4:])]


@pytest.mark.parametrize("what", ["load", "look"])
async def test_many_jobs_are_loaded(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Of the jobs that many ask for at once no more come together than come in time, should they be large."""
    sent: list[int] = []
    original = Link.send

    def send(link: Link, commands: Sequence[Command]) -> Answers:
        sent.append(sum(command.name == b"HMGET" for command in commands))
        return original(link, commands)

    async with open_worker(open_store) as worker:
        entries = [new_entry() for _ in range(200)]
        await worker.insert(*entries)
        monkeypatch.setattr(Link, "send", send)
        loaded: dict[str, JobEntry | None] = {}

        async def load(job_id: str) -> None:
            loaded[job_id] = await getattr(worker.store, what)(job_id)

        async with trio.open_nursery() as nursery:
            for job_id in [*ids(entries), "unknown"]:
                nursery.start_soon(load, job_id)
        assert loaded.pop("unknown") is None
        assert {job_id: entry.id for job_id, entry in loaded.items() if entry} == {each.id: each.id for each in entries}
        assert sum(sent) == 201
        assert max(sent) <= 32


async def test_many_jobs_are_followed(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows jobs asks for their messages and for themselves in one trip, with others in one script."""
    sent: list[Counter[bytes]] = []
    original = Link.send

    def send(link: Link, commands: Sequence[Command]) -> Answers:
        sent.append(Counter(command.name for command in commands))
        return original(link, commands)

    async with open_worker(open_store) as worker:
        entries = await worker.insert(*(new_entry() for _ in range(60)))
        monkeypatch.setattr(Link, "send", send)
        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(worker.store.follow, entry.id, 0, 10)
    trips = [counter for counter in sent if counter[b"HMGET"]]
    assert [counter[b"EVALSHA"] for counter in trips] == [1] * len(trips)
    assert sum(counter[b"HMGET"] for counter in trips) == 60
    assert max(counter[b"HMGET"] for counter in trips) == 32  # they may be large


async def test_many_jobs_are_cancelled(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are cancelled at once, a script brings back but a few of the jobs, which may be large."""
    scripts: list[int] = []
    original = Link.send

    def send(link: Link, commands: Sequence[Command]) -> Answers:
        scripts.extend(list(each.arguments).count(b'"why"') for each in commands if each.name == b"EVALSHA")
        return original(link, commands)

    async with open_worker(open_store) as worker:
        entries = [new_entry() for _ in range(100)]
        await worker.insert(*entries)
        monkeypatch.setattr(Link, "send", send)
        async with trio.open_nursery() as nursery:
            for entry in entries:
                nursery.start_soon(worker.store.request_cancel, entry.id, "why", 0.0)
        assert sum(scripts) == 100
        assert max(scripts) <= 2
        assert {record.state for record in await worker.store.find(JobQuery())} == {JobState.CANCELLED}


async def test_many_jobs_are_found(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of jobs that are found more come together the smaller they are, so that others don't wait for the connection."""
    sent: list[int] = []
    original = Link.send

    def send(link: Link, commands: Sequence[Command]) -> Answers:
        sent.append(sum(command.name == b"HMGET" for command in commands))
        return original(link, commands)

    monkeypatch.setattr(finding, "READ_BYTES", 30_000)
    async with open_worker(open_store) as worker:
        sizes = [10] * 100 + [10_000] * 50 + [10] * 100
        entries = [new_entry(payload="x" * size) for size in sizes]
        await worker.insert(*entries)
        monkeypatch.setattr(Link, "send", send)
        records = await worker.store.find(JobQuery(limit=1000))
        assert [(record.id, len(str(record.payload))) for record in records] == [
            (entry.id, size) for entry, size in zip(entries, sizes, strict=True)
        ]
        rows = [number for number in sent if number]
        assert rows[:4] == [4, 8, 16, 32]
        assert rows.count(2) > 5
        assert rows[-2:] == [32, 250 - sum(rows[:-1])]


async def test_claims_of_many_jobs(open_store: Callable[[], RedisJobStore]) -> None:
    """A call claims a bounded number of jobs, whatever there is room for, and says that there may be more."""
    async with open_worker(open_store) as worker:
        await worker.insert(*(new_entry() for _ in range(JOBS)))
        counts: list[int] = []
        while not counts or counts[-1] == 1000:
            worker.heard.forget()
            counts.append(len(await worker.claim(limit=JOBS)))
            if counts[-1] == 1000:
                await worker.heard.wait_for("work_ready")
        assert counts == [1000, 1000, 1000, 500]


async def test_renewals_of_many_claims(prefix: str) -> None:
    """However many claims are renewed, one script renews a bounded number; each is reported on, in order."""
    with ValkeyServer() as server:
        async with open_worker(lambda: RedisJobStore(server.url, prefix=prefix)) as worker:
            await worker.insert(*(new_entry() for _ in range(JOBS)))
            claims: list[Claim] = []
            while some := await worker.claim(limit=JOBS):
                claims += some
            assert await worker.store.finish(claims[JOBS // 2], Completed())
            server.ask("CONFIG", "RESETSTAT")
            reports = await worker.store.renew(claims, LEASE)
            assert _calls_of(server, "evalsha") == 4
            assert [report.held for report in reports] == [n != JOBS // 2 for n in range(JOBS)]
            assert [report.entry.id for report in reports] == ids(claims)
        check_jobs(server, prefix)


async def test_claims_past_many_that_have_expired() -> None:
    """A call passes over a bounded number of jobs that have expired, and says that there may be more behind them."""
    with ValkeyServer() as server:
        async with open_worker(lambda: RedisJobStore(server.url)) as worker:
            await worker.insert(*(new_entry(expires_in=SHORT) for _ in range(3 * 500 + 1)))
            entry = new_entry()
            await worker.insert(entry)
            await trio.sleep(2 * SHORT)
            calls = 1
            while True:
                worker.heard.forget()
                server.ask("CONFIG", "RESETSTAT")
                claims = await worker.claim()
                assert _calls_of(server, "hmget") < 700
                if claims:
                    break
                calls += 1
                await worker.heard.wait_for("work_ready")
            assert ids(claims) == [entry.id]
            assert calls == 4
            assert await worker.pass_time(0) > SHORT
        assert sorted(check_jobs(server, "jobtrio").values()) == [*["FAILED"] * 1501, "RUNNING"]


def _calls_of(server: ValkeyServer, command: str) -> int:
    """Return how often a command was called, also by scripts, since that was reset."""
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", str(server.ask("INFO", "commandstats")))
    return int(found[1]) if found else 0


@pytest.mark.parametrize("what", ["ready", "expired", "lapsed", "lapsed with saved states"])
async def test_large_jobs_fall_due(
    open_store: Callable[[], RedisJobStore], prefix: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """One look brings back no more of what is due than it can at once; all of it is found in the end."""
    monkeypatch.setattr(advancing, "MOST_BYTES", 1000)
    options: dict[str, dict[str, Any]] = {"ready": {"delay": SHORT}, "expired": {"expires_in": SHORT}}
    large = "x" * 600
    async with open_worker(open_store) as worker:
        payload = None if what == "lapsed with saved states" else large
        entries = [new_entry(payload=payload, **options.get(what, {})) for _ in range(5)]
        await worker.insert(*entries)
        if what.startswith("lapsed"):
            claims = await worker.claim(lease=SHORT)
            assert len(claims) == 5
            if payload is None:
                for claim in claims:
                    assert await worker.store.save_state(claim, large)
        await trio.sleep(2 * SHORT)
        session = worker.store._session  # type: ignore[attr-defined]
        due = await session.call(advancing.look(session.worker), advancing.found)
        found = {"ready": due.changed, "expired": due.expired}.get(what, due.lapsed)
        assert (len(found), due.next) == (2, 0)
        await worker.pass_time(0)
        states = {record.state for record in await worker.store.find(JobQuery())}
        assert states == {JobState.FAILED if what == "expired" else JobState.QUEUED}
    check_jobs(shared_server(), prefix)


async def test_too_many_in_one_call(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that are too many for one call are refused before anything is sent, with what is allowed."""
    monkeypatch.setattr(inserting, "MOST_JOBS", 3)
    monkeypatch.setattr(inserting, "MOST_BYTES", 1024 * 1024)
    async with open_worker(open_store) as worker:
        with pytest.raises(ValueError, match="at most 3 jobs and 1 MiB; got 4 jobs and"):
            await worker.insert(*(new_entry() for _ in range(4)))
        with pytest.raises(ValueError, match=r"got 2 jobs and 1\.1 MiB"):
            await worker.insert(*(new_entry(payload="x" * 600_000) for _ in range(2)))
        assert await worker.store.find(JobQuery()) == []


async def test_many_jobs() -> None:
    """Thousands of jobs in one call, found, claimed, ended and removed: the server is never held up for long."""
    # What a busy machine takes of the server's time counts as well: that has to be at the wrong moment each time.
    shares: list[float] = []
    while not shares or (shares[-1] >= 1 / 3 and len(shares) < 10):
        shares.append(await _share_of_the_slowest())
    assert shares[-1] < 1 / 3, shares


async def _share_of_the_slowest() -> float:
    """Return what the slowest call takes, as a share of the one that may not be cut: a whole submission."""
    with ValkeyServer() as server:
        server.ask("CONFIG", "SET", "slowlog-log-slower-than", 0, "slowlog-max-len", 100_000)
        keep = Retention(finished_jobs=0)
        async with open_worker(lambda: RedisJobStore(server.url), keep) as worker:
            entries = [new_entry(queue="ab"[n % 2], tags={"n": str(n % 7)}) for n in range(JOBS)]
            await worker.insert(*entries)
            await _check_pages(worker)
            insert = _slowest(server)
            done = 0
            while claims := await worker.claim(limit=500):
                async with trio.open_nursery() as nursery:
                    for claim in claims:
                        nursery.start_soon(worker.store.finish, claim, Completed())
                done += len(claims)
            assert done == JOBS
            await worker.store.prune()
            assert await worker.store.find(JobQuery()) == []
        others = _slowest(server)
        assert check_jobs(server, "jobtrio") == {}
        keys = server.ask("KEYS", "*")
        assert isinstance(keys, list)
        assert sorted(keys) == ["{jobtrio}:number", "{jobtrio}:version"]
        return others / insert


async def _check_pages(worker: Any) -> None:
    for tags, queue, count in (({"n": "3"}, None, JOBS // 7), ({}, "b", JOBS // 2), ({"n": "3"}, "b", JOBS // 14)):
        query = JobQuery(tags=tags, queue=queue, limit=10_000)
        records = await worker.store.find(query)
        assert len(records) == count
        assert all(record.tags.items() >= tags.items() and queue in (None, record.queue) for record in records)
        assert [record.created_at for record in records] == sorted(record.created_at for record in records)


def _slowest(server: ValkeyServer) -> int:
    """Return how many microseconds the slowest command has taken since this was last asked."""
    entries = server.ask("SLOWLOG", "GET", -1)
    server.ask("SLOWLOG", "RESET")
    assert isinstance(entries, list)
    return max(int(entry[2]) for entry in entries if entry[3][0].upper() == "EVALSHA")


async def test_pages_of_many_groups(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of many queues, executors and states come in order, however few are looked at in one call."""
    monkeypatch.setattr(finding, "LOOKED_AT", 60)
    async with open_worker(open_store) as worker:
        entries = [
            new_entry(f"e{n % 3}", queue=f"q{n % 5}", tags={"all": "y", "some": str(n % 4)}, job_id=f"{n:03}")
            for n in range(150)
        ]
        for entry in entries:
            await worker.insert(entry)
        await worker.claim(limit=40)
        every = ids(entries)
        states = frozenset({entry.state for entry in entries}) | {(await worker.load("000")).state}
        assert ids(await worker.store.find(JobQuery(states=states, limit=1000))) == every
        assert ids(await worker.store.find(JobQuery(tags={"all": "y"}, limit=1000))) == every
        found = await worker.store.find(JobQuery(tags={"all": "y", "some": "2"}, queue="q1", limit=1000))
        assert ids(found) == [f"{n:03}" for n in range(150) if n % 4 == 2 and n % 5 == 1]
        for newest_first, expected in ((False, every), (True, every[::-1])):
            query = JobQuery(states=states, limit=1000, newest_first=newest_first)
            assert ids(await worker.store.find(query)) == expected
            pages: list[str] = []
            query = JobQuery(executor="e1", limit=7, newest_first=newest_first)
            while page := ids(await worker.store.find(query)):
                assert len(page) <= 7
                pages += page
                query = attrs.evolve(query, after=page[-1])
            assert pages == [job_id for job_id in expected if int(job_id) % 3 == 1]


async def test_more_groups_than_are_looked_at(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are too many queues to look into each of them for the next job, jobs are looked at one by one."""
    pages = []
    page_of = finding._page

    def page(*args: Any) -> Any:
        pages.append(args)
        return page_of(*args)

    monkeypatch.setattr(finding, "LOOKED_AT", 10)
    monkeypatch.setattr(finding, "_page", page)
    async with open_worker(open_store) as worker:
        entries = [new_entry(queue=f"q{n}", tags={"all": "y"}) for n in range(20)]
        await worker.insert(*entries)
        for tags in ({}, {"all": "y"}):
            pages.clear()
            query = JobQuery(states=frozenset({JobState.QUEUED}), tags=tags, limit=20)
            assert ids(await worker.store.find(query)) == ids(entries)
            assert len(pages) <= 3


async def test_a_query_of_many_tags(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """The more tags each job has to be held against, the fewer are looked at in one call; all of them are found."""
    looked: list[int] = []
    page_of = finding._page

    def page(*args: Any) -> Any:
        looked.append(looks())
        return page_of(*args)

    monkeypatch.setattr(finding, "_page", page)
    tags = {f"t{n}": "y" for n in range(250)}
    async with open_worker(open_store) as worker:
        entries = [new_entry(tags=tags) for _ in range(100)]
        await worker.insert(*entries, new_entry(tags={"t0": "y"}))
        for newest_first, expected in ((False, ids(entries)), (True, ids(entries)[::-1])):
            looked.clear()
            query = JobQuery(tags=tags, limit=1000, newest_first=newest_first)
            assert ids(await worker.store.find(query)) == expected
            looked.append(looks())
            assert max(after - before for before, after in pairwise(looked)) <= 10_000 + 1
            assert len(looked) == 4


@pytest.mark.parametrize("looked_at", [7, 100, 1000])
async def test_counting_many(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch, looked_at: int
) -> None:
    """Jobs that have tags are each counted once, however few are looked at in one call, and none looks at too many."""
    looked: list[int] = []

    def noted_run(*args: Any) -> Any:
        looked.append(looks())
        return run(*args)

    monkeypatch.setattr(finding, "LOOKED_AT", looked_at)
    monkeypatch.setattr(finding, "run", noted_run)
    many = {f"t{n}": "y" for n in range(150)}
    none = dict.fromkeys(JobState, 0)
    async with open_worker(open_store) as worker:
        await worker.insert(*(new_entry(queue=f"q{n % 3}", tags={**many, "m": str(n % 7)}) for n in range(210)))
        await worker.claim(limit=30, room={"q1": 30})
        assert await worker.store.counts_of({"m": "6", "t1": "y"}) == {
            "q0": none | {JobState.QUEUED: 10},
            "q1": none | {JobState.QUEUED: 6, JobState.RUNNING: 4},
            "q2": none | {JobState.QUEUED: 10},
        }
        looked.clear()
        counts = await worker.store.counts_of(many)
        assert sorted((queue, sum(states.values())) for queue, states in counts.items()) == [
            ("q0", 70),
            ("q1", 70),
            ("q2", 70),
        ]
        looked.append(looks())
        assert max(after - before for before, after in pairwise(looked)) <= 10_000 + len(many)
        assert len(looked) - 1 >= max(210 * len(many) // 10_000, 210 // looked_at)


async def test_many_that_count(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those who count at one time, the server puts off the ones behind the first ten thousand jobs."""
    runs: list[str] = []

    def noted_run(name: str, *args: Any) -> Any:
        runs.append(name)
        return run(name, *args)

    monkeypatch.setattr(finding, "run", noted_run)
    tags = [{f"t{n}": "y"} for n in range(13)]
    async with open_worker(open_store) as worker:
        await worker.insert(*(new_entry(tags=dict.fromkeys((f"t{n}" for n in range(13)), "y")) for _ in range(999)))

        async def count(tags: dict[str, str]) -> None:
            counts = await worker.store.counts_of(tags)
            assert counts == {"default": dict.fromkeys(JobState, 0) | {JobState.QUEUED: 999}}

        async with trio.open_nursery() as nursery:
            for each in tags:
                nursery.start_soon(count, each)
    assert len(tags) < len(runs) <= len(tags) + 3


async def test_a_tag_among_many_queues(open_store: Callable[[], RedisJobStore]) -> None:
    """A query with a tag that few jobs have looks at these, rather than into all queues."""
    server = shared_server()
    async with open_worker(open_store) as worker:
        entries = [new_entry(queue=f"q{n}", tags={"user": f"{n % 100}"}) for n in range(300)]
        await worker.insert(*entries)
        queued, failed = (frozenset({state}) for state in (JobState.QUEUED, JobState.FAILED))
        for states, queue, expected in (
            (queued, None, ids(entries[7::100])),
            (queued, "q107", ids(entries[107:108])),
            (failed, None, []),
        ):
            server.ask("CONFIG", "RESETSTAT")
            query = JobQuery(states=states, queue=queue, tags={"user": "7"})
            assert ids(await worker.store.find(query)) == expected
            assert (_calls_of(server, "zcount"), _calls_of(server, "smembers")) == (1, 0)


async def test_a_key_among_many_jobs(open_store: Callable[[], RedisJobStore]) -> None:
    """A job is found by its key with one look at the keys and one at the job, whatever else is asked for."""
    server = shared_server()
    async with open_worker(open_store) as worker:
        entries = [new_entry(queue=f"q{n}", key=f"k{n}", tags={"user": f"{n % 100}"}) for n in range(300)]
        await worker.insert(*entries)
        tags, states = {"user": "7"}, frozenset({JobState.QUEUED})
        for query, expected in (
            (JobQuery(key="k107"), ids(entries[107:108])),
            (JobQuery(key="k107", tags=tags, queue="q107", executor="work", states=states), ids(entries[107:108])),
            (JobQuery(key="k108", tags=tags, queue="q107", executor="work", states=states), []),
        ):
            server.ask("CONFIG", "RESETSTAT")
            assert ids(await worker.store.find(query)) == expected
            assert (_calls_of(server, "hget"), _calls_of(server, "hmget")) == (1, 1)
            assert not any(_calls_of(server, name) for name in ("zcount", "zrange", "zscore", "smembers", "hgetall"))


async def test_queries_among_many_queues(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which queues there are is looked up once for all queries that are made at one time; each gets its own answer."""
    monkeypatch.setattr(finding, "LOOKED_AT", 20)
    server = shared_server()
    found: dict[str, list[str]] = {}
    async with open_worker(open_store) as worker:
        entries = [new_entry(f"e{n % 2}", queue=f"q{n}") for n in range(40)]
        await worker.insert(*entries)

        async def find(name: str, **wanted: Any) -> None:
            found[name] = ids(await worker.store.find(JobQuery(**wanted)))

        server.ask("CONFIG", "RESETSTAT")
        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(partial(find, f"q{n}", queue=f"q{n}"))
            nursery.start_soon(partial(find, "e1", executor="e1", queue="q3"))
            nursery.start_soon(partial(find, "e0", executor="e0", queue="q3"))
            nursery.start_soon(partial(find, "failed", states=frozenset({JobState.FAILED})))
        assert _calls_of(server, "smembers") == 1
    one_each = {f"q{n}": [entry.id] for n, entry in enumerate(entries)}
    assert found == {**one_each, "e1": [entries[3].id], "e0": [], "failed": []}


async def test_queries_of_all_of_many_queues(prefix: str) -> None:
    """Queries that look into many queues each are not all answered by one script, which would hold others up."""
    found: dict[int, list[str]] = {}
    with ValkeyServer() as server:
        async with open_worker(lambda: RedisJobStore(server.url, prefix=prefix)) as worker:
            entries = [new_entry(queue=f"q{n % 300}") for n in range(600)]
            await worker.insert(*entries)

            async def find(limit: int) -> None:
                query = JobQuery(states=frozenset({JobState.QUEUED}), limit=limit)
                found[limit] = ids(await worker.store.find(query))

            server.ask("CONFIG", "RESETSTAT")
            async with trio.open_nursery() as nursery:
                for limit in range(1, 51):
                    nursery.start_soon(find, limit)
            assert _calls_of(server, "evalsha") >= 4
            assert _calls_of(server, "zcount") == 50 * (1 + 300)  # nobody's are looked into twice
    assert found == {limit: ids(entries)[:limit] for limit in range(1, 51)}


async def test_the_last_of_many_queues(open_store: Callable[[], RedisJobStore]) -> None:
    """Where few jobs are left, a query looks at these, rather than into all queues for each state."""
    server = shared_server()
    async with open_worker(open_store) as worker:
        entries = [new_entry("even" if n % 2 else "odd", queue=f"q{n}") for n in range(300)]
        await worker.insert(*entries)
        server.ask("CONFIG", "RESETSTAT")
        assert ids(await worker.store.find(JobQuery(executor="odd", after=entries[289].id))) == ids(entries[290::2])
        assert (_calls_of(server, "zcount"), _calls_of(server, "smembers")) == (1, 0)


async def test_a_claim_among_many_lines(open_store: Callable[[], RedisJobStore]) -> None:
    """A claim looks at the lines that it takes jobs from, however many others have jobs that are ready."""
    levels = (JobPriority.HIGH, JobPriority.LOW, JobPriority.NORMAL)
    async with open_worker(open_store) as worker:
        entries = [
            new_entry(("even", "odd")[n % 2], queue=f"q{n}", priority=levels[n % 3], job_id=f"{n}") for n in range(3000)
        ]
        await worker.insert(*entries)
        left = sorted(entries, key=lambda entry: (-entry.plan.priority, entry.order))

        async def claim(limit: int, **wanted: Any) -> list[str]:
            with looks_at_most(20):
                claimed = ids(await worker.claim(limit, **wanted))
            left[:] = [entry for entry in left if entry.id not in claimed]
            return claimed

        assert await claim(3) == ["0", "3", "6"]
        assert await claim(3, room={"q2998": 2, "none": 1}, executors=["odd", "even"]) == ["2998"]
        assert await claim(2, executors=["odd"]) == ["9", "15"]
        await worker.insert(*(new_entry(priority=JobPriority.CRITICAL, job_id=f"more-{n}") for n in range(100)))
        assert await claim(100) == [f"more-{n}" for n in range(100)]
        assert await worker.claim(3, executors=["neither"]) == []
        assert [each for _ in range(3) for each in ids(await worker.claim(1000))] == ids(left)


async def test_limited_claims_among_many_queues(open_store: Callable[[], RedisJobStore]) -> None:
    """A claim counts the jobs that run, rather than look into each of the queues that have a limit over all workers."""
    async with open_workers(open_store, "a", "b", totals={"q*": 2, "q3": 1}) as (a, b):
        await a.insert(*(new_entry(f"work{n % 2}", queue=f"q{n % 300}", job_id=f"{n}") for n in range(900)))
        with looks_at_most(60):
            claimed = ids(await a.claim(3, room={"q*": 1})) + ids(await b.claim(3))
        assert claimed == ["0", "1", "2", "3", "4", "5"]
        claimed += ids(await b.claim(1000))
        assert await a.claim() == []  # where fewer queues have jobs than jobs run
        assert Counter(int(job_id) % 300 for job_id in claimed) == {n: 1 if n == 3 else 2 for n in range(300)}


async def test_a_claim_among_many_full_queues(open_store: Callable[[], RedisJobStore]) -> None:
    """A claim does not look into the lines of queues in which as many jobs run as may."""
    async with open_workers(open_store, "worker", totals={"q*": 1}) as (worker,):
        await worker.insert(*(new_entry(queue=f"q{n % 300}") for n in range(600)))
        await worker.claim(300)
        (other,) = await worker.insert(new_entry(queue="other"))
        with looks_at_most(20):
            assert ids(await worker.claim()) == [other.id]


async def test_ends_beside_many_limits(open_store: Callable[[], RedisJobStore]) -> None:
    """Jobs that end together, in queues without a limit, look up once which limits there are."""
    async with open_workers(open_store, "worker", totals={"q*": 1}) as (worker,):
        await worker.insert(new_entry(queue="q"), *(new_entry(queue=f"other{n}") for n in range(20)))
        claims = await worker.claim()
        server = shared_server()
        server.ask("CONFIG", "RESETSTAT")
        async with trio.open_nursery() as nursery:
            for claim in claims:
                nursery.start_soon(worker.store.finish, claim, Completed())
        assert _calls_of(server, "smembers") == _calls_of(server, "evalsha") == 1


@contextmanager
def looks_at_most(most: int) -> Iterator[None]:
    """Check that the server looks into sorted sets no more than so often within the block."""
    before = looks()
    yield
    assert looks() - before <= most


def looks() -> int:
    """Return how often the server was asked so far for a part of a sorted set, or whether something is there."""
    stats = str(shared_server().ask("INFO", "commandstats"))
    return sum(int(calls) for calls in re.findall(r"cmdstat_(?:zrange|exists|zcard|zscore):calls=(\d+)", stats))


async def test_names_that_could_be_confused(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """Queues, executors, tags and keys whose texts run into each other stay apart."""
    async with open_worker(open_store) as worker:
        pairs = [("a", "bc"), ("ab", "c"), ("1:a", "b"), ("a:1", "b"), ("é", "x"), ("{x}", "}")]
        for n, (queue, executor) in enumerate(pairs):
            await worker.insert(new_entry(executor, queue=queue, job_id=str(n), tags={queue: executor}, key=queue))
        for n, (queue, executor) in enumerate(pairs):
            for query in (
                JobQuery(queue=queue),
                JobQuery(executor=executor, queue=queue),
                JobQuery(tags={queue: executor}),
            ):
                assert ids(await worker.store.find(query)) == [str(n)], query
            assert ids(await worker.claim(room={queue: 5}, executors={executor})) == [str(n)]
        assert set(await worker.store.counts()) == {queue for queue, _ in pairs}
        await worker.insert(new_entry(job_id="job:x"), new_entry(job_id="{y}"))
        assert (await worker.load("{y}")).id == "{y}"
    check_jobs(shared_server(), prefix)


async def test_a_lease_without_end(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A lease that is longer than the server can count is one that lasts."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(lease=1e300)
        (report,) = await worker.store.renew([claim], 1e300)
        assert report.held
        assert await worker.store.finish(claim, Completed())
    check_jobs(shared_server(), prefix)


@pytest.mark.parametrize("seconds", [2.0**53, 1e300])
async def test_an_expiry_without_end(open_store: Callable[[], RedisJobStore], prefix: str, seconds: float) -> None:
    """A job that expires later than the server can count leaves nothing of that behind, however it ends."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(expires_in=seconds))
        assert await worker.store.finish(claim, Completed())
        waiting, held = await worker.insert(new_entry(expires_in=seconds), new_entry(None, expires_in=seconds))
        check_jobs(shared_server(), prefix)
        assert await worker.store.start_held(held.id, new_entry().plan)
        for job_id in (waiting.id, held.id):
            await worker.store.request_cancel(job_id, None, 0.0)
    check_jobs(shared_server(), prefix)


async def test_a_grace_without_end(open_store: Callable[[], RedisJobStore]) -> None:
    """Of two requests the first one's reason stays and the shorter grace counts, however long either is."""
    async with open_worker(open_store) as worker:
        claim = await worker.start()
        for reason, grace in (("first", 1e300), ("second", 1e301), ("third", 2.0**60)):
            await worker.store.request_cancel(claim.entry.id, reason, grace)
        (report,) = await worker.store.renew([claim], LEASE)
        assert report.entry.cancel is not None
        assert (report.entry.cancel.reason, report.entry.cancel.grace) == ("first", 2.0**60)


async def test_the_clock_steps_back(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A history does not go back in time, and no duration is negative, though the server's clock does."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry())
        key = f"{{{prefix}}}:job:{claim.entry.id}"
        server = shared_server()
        late = float(str(server.ask("HGET", key, "moved"))) + 1000
        history = json.loads(f"[{str(server.ask('HGET', key, 'history'))[1:]}]")
        history[0] = late
        server.ask("HSET", key, "moved", late, "history", "," + json.dumps(history)[1:-1])
        assert await worker.store.finish(claim, Completed())
        record = await worker.record(claim.entry.id)
        assert record.duration == 0
        assert record.finished_at is not None
        assert record.finished_at.timestamp() == pytest.approx(late)
    check_jobs(server, prefix)


async def test_streams_are_bounded(open_store: Callable[[], RedisJobStore]) -> None:
    """As many messages are kept of a stream that comes one by one as `Retention` says, neither more nor fewer."""
    async with open_worker(open_store, Retention(tokens_per_job=10)) as worker:
        claim = await worker.start()
        for n in range(1, 31):
            assert await worker.store.append_messages(claim, tokens(n, n))
            gap = [Gap(1, n - 10)] if n > 10 else []
            assert await worker.stream(claim.entry.id) == [*gap, *tokens(max(n - 9, 1), n)]


async def test_a_lowered_limit_of_messages(prefix: str) -> None:
    """Where a worker keeps fewer messages than the last one did, a long stream is cut with its next message."""

    def open_store() -> RedisJobStore:
        return RedisJobStore(shared_server().url, prefix=prefix)

    async with open_worker(open_store) as worker:
        claim = await worker.start()
        for first in range(1, 5001, 250):
            await worker.store.append_messages(claim, tokens(first, first + 249))
    async with open_worker(open_store, Retention(tokens_per_job=100)) as worker:
        (report,) = await worker.store.renew([claim], LEASE)
        assert report.held
        await worker.store.append_messages(claim, tokens(5001, 5001))
        gap, *rest = await worker.stream(claim.entry.id)
        assert gap == Gap(1, 4750)
        assert rest == tokens(4751, 5001)


async def test_one_bad_call_harms_no_other(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A call that the server can't carry out fails alone, though others are carried out with it."""
    async with open_worker(open_store) as worker:
        await worker.insert(*(new_entry() for _ in range(3)))
        shared_server().ask("SET", f"{{{prefix}}}:claim:two", "no list")
        failed: list[str] = []
        claimed: list[Claim] = []

        async def claim(claim_id: str) -> None:
            try:
                claimed.extend(await worker.store.claim(claim_id, limit=1, lease=LEASE))
            except Exception as exc:
                failed.append(f"{claim_id} {exc}")

        async with trio.open_nursery() as nursery:
            for claim_id in ("one", "two", "three"):
                nursery.start_soon(claim, claim_id)
        (text,) = failed
        assert text.startswith("two")
        assert "WRONGTYPE" in text or "wrong kind" in text
        assert sorted(each.id for each in claimed) == ["one", "three"]


async def test_a_limit_that_is_none(open_store: Callable[[], RedisJobStore]) -> None:
    """Whoever sets no limit by asking for as much as a number can say gets all that there is."""
    async with open_worker(open_store) as worker:
        kept = await worker.insert(*(new_entry() for _ in range(3)))
        assert ids(await worker.claim(limit=sys.maxsize)) == ids(kept)
        assert ids(await worker.store.find(JobQuery(limit=sys.maxsize))) == ids(kept)


async def test_jobs_taken_from_outside(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """Jobs that somebody else has removed from the server are gone, and hold nothing up."""
    async with open_worker(open_store) as worker:
        await worker.insert(new_entry(), new_entry(delay=SHORT), new_entry(expires_in=SHORT, queue="late"))
        await worker.insert(new_entry(queue="run"))
        (running,) = await worker.claim(room={"run": 1}, lease=SHORT)
        jobs = shared_server().ask("KEYS", f"{{{prefix}}}:job:*")
        assert isinstance(jobs, list)
        assert len(jobs) == 4
        shared_server().ask("DEL", *jobs)
        assert await worker.store.find(JobQuery()) == []
        assert await worker.claim() == []
        assert await worker.pass_time() > SHORT
        assert not await worker.store.finish(running, Completed())
        entry = new_entry()
        await worker.insert(entry)
        assert ids(await worker.claim()) == [entry.id]


async def test_fields_taken_from_outside(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A job that somebody else keeps from expiring does not, one whose claim he has removed is lost."""
    server = shared_server()
    async with open_worker(open_store) as worker:
        lost = await worker.start(lease=SHORT)
        lasting, longer = new_entry(expires_in=SHORT), new_entry(expires_in=SHORT)
        released = new_entry(expires_in=SHORT, queue="released")
        await worker.insert(lasting, longer, released)
        for entry in (lasting, released):
            server.ask("HDEL", f"{{{prefix}}}:job:{entry.id}", "expires")
        (claim,) = await worker.claim(room={"released": 1})
        assert await worker.store.release(claim, "shutdown")
        until = float(str(server.ask("HGET", f"{{{prefix}}}:job:{longer.id}", "expires")))
        server.ask("HSET", f"{{{prefix}}}:job:{longer.id}", "expires", f"{until + LEASE:.6f}")
        server.ask("HDEL", f"{{{prefix}}}:job:{lost.entry.id}", "claim")
        with trio.fail_after(60):
            assert await worker.pass_time() > SHORT
        assert [(await worker.load(each.id)).state for each in (lasting, longer, released)] == ["QUEUED"] * 3
        assert await worker.states(lost.entry.id) == ["QUEUED", "RUNNING", "QUEUED"]
        assert not await worker.store.finish(lost, Completed())
        assert len(await worker.claim()) == 4
    check_jobs(server, prefix)


async def test_a_time_taken_from_outside(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A job that was not started in time fails, also where somebody else has removed it from those that expire."""
    async with open_worker(open_store) as worker:
        (entry,) = await worker.insert(new_entry(expires_in=SHORT))
        assert shared_server().ask("ZREM", f"{{{prefix}}}:expiry", entry.id) == 1
        await trio.sleep(2 * SHORT)
        assert await worker.claim() == []
        await worker.advance()
        assert await worker.states(entry.id) == ["QUEUED", "FAILED"]
    check_jobs(shared_server(), prefix)


async def test_a_start_taken_from_outside(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A job that somebody else has removed from those that start later is met once it expires, and not for ever."""
    async with open_worker(open_store) as worker:
        (entry,) = await worker.insert(new_entry(delay=SHORT, expires_in=2 * SHORT))
        assert shared_server().ask("ZREM", f"{{{prefix}}}:due", entry.id) == 1
        await trio.sleep(3 * SHORT)
        with trio.fail_after(60):
            assert await worker.pass_time(0) > SHORT
        assert await worker.states(entry.id) == ["SCHEDULED", "QUEUED", "FAILED"]
    check_jobs(shared_server(), prefix)


async def test_what_belongs_to_jobs_taken_from_outside(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A stream that somebody else has removed is a gap before the end, and the key of a job that he has is free."""

    def take(name: str) -> None:
        assert shared_server().ask("DEL", f"{{{prefix}}}:{name}") == 1

    async with open_worker(open_store) as worker:
        ended, running = [await worker.start() for _ in range(2)]
        for claim in (ended, running):
            assert await worker.store.append_messages(claim, tokens(1, 5))
        assert await worker.store.finish(ended, Completed(1))
        for claim in (ended, running):
            take(f"messages:{claim.entry.id}")
        assert await worker.stream(ended.entry.id) == [Gap(1, 5), End(6, Completed(1))]
        assert await worker.stream(ended.entry.id, 3) == [Gap(4, 5), End(6, Completed(1))]
        assert await worker.stream(ended.entry.id, 5) == [End(6, Completed(1))]
        assert await worker.stream(running.entry.id) == []
        assert await worker.store.append_messages(running, tokens(6, 7))
        assert await worker.stream(running.entry.id) == [Gap(1, 5), *tokens(6, 7)]

        await worker.insert(new_entry(key="k", job_id="one"))
        take("job:one")
        (two,) = await worker.insert(new_entry(key="k", job_id="two"))
        assert two.id == "two"
        (same,) = await worker.insert(new_entry(key="k"))
        assert same.id == "two"


async def test_a_lost_claim_of_many(open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of one claim that end with its lease come as they were submitted, also where they are seen to in slices."""
    looks, found = [], advancing.found

    def note(answer: list[Any]) -> advancing.Due:
        looks.append(found(answer))
        return looks[-1]

    monkeypatch.setattr(advancing, "SLICE", 5)
    monkeypatch.setattr(advancing, "found", note)
    async with open_workers(open_store, "a", "b") as (a, b):
        entries = [new_entry(job_id=f"{n * 7 % 23:02}") for n in range(23)]
        await a.insert(*entries)
        assert len(await a.claim(limit=11, lease=SHORT)) == 11
        assert len(await a.claim(limit=12, lease=SHORT)) == 12
        await b.pass_time()
        assert ids(await b.claim()) == ids(entries)
    assert max(len(due.lapsed) for due in looks) == 5


async def test_names_leave_nothing_behind(prefix: str, open_store: Callable[[], RedisJobStore]) -> None:
    """Queues and executors without a job are forgotten, also the queue in which a held one waited for its executor."""
    async with open_worker(open_store) as worker:
        held, other = new_entry(None, queue="held"), new_entry(None, queue="held")
        await worker.insert(held, other)
        for entry in (held, other):
            assert await worker.store.start_held(entry.id, new_plan("late", "late"))
            check_jobs(shared_server(), prefix)
        for claim in await worker.claim():
            await worker.end(claim)
            await worker.store.delete(claim.entry.id)
            check_jobs(shared_server(), prefix)


async def test_claims_leave_nothing_behind(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """What a claim has found is kept until it is known to have arrived, and no longer than a while beyond the lease."""

    def kept() -> Any:
        return shared_server().ask("KEYS", f"{{{prefix}}}:claim:*")

    async with open_worker(open_store) as worker:
        for n in range(3):
            await worker.insert(new_entry())
            (claim,) = await worker.store.claim(str(n), limit=1, lease=LEASE)
            assert kept() == [f"{{{prefix}}}:claim:{n}"]
            left = shared_server().ask("PTTL", kept()[0])
            assert isinstance(left, int)
            assert 1000 * LEASE < left <= 1000 * (LEASE + 60)
            assert await worker.store.finish(claim, Completed())
        assert await worker.claim() == []
        assert kept() == []


async def test_pruning_jobs_of_many_tags(prefix: str) -> None:
    """The more tags jobs have, the fewer are removed in one go: each tag is a set to take them out of."""
    with ValkeyServer() as server:
        async with open_worker(lambda: RedisJobStore(server.url, prefix=prefix), Retention(finished_jobs=0)) as worker:
            for n in range(6):
                await worker.insert(new_entry(tags={f"{n} {m}": "y" for m in range(4000)}))
            for claim in await worker.claim():
                await worker.end(claim)
            server.ask("CONFIG", "RESETSTAT")
            await worker.store.prune()
            assert _calls_of(server, "zrem") > 6 * 4000
            assert _calls_of(server, "evalsha") == 3
        assert check_jobs(server, prefix) == {}


@pytest.mark.parametrize("how", ["finished", "cancelled while it ran", "cancelled", "expired"])
async def test_ended_jobs_are_pruned_as_they_come(open_store: Callable[[], RedisJobStore], how: str) -> None:
    """Many jobs that end one after another are not all kept until somebody prunes, whichever way they end."""
    async with open_worker(open_store, Retention(finished_jobs=5)) as worker:
        assert await worker.store.prune() > 0
        entries = [new_entry(expires_in=SHORT if how == "expired" else None) for _ in range(100)]
        await worker.insert(*entries)
        match how:
            case "finished":
                for claim in await worker.claim():
                    await worker.store.finish(claim, Completed())
            case "cancelled while it ran":
                for claim in await worker.claim():
                    await worker.store.request_cancel(claim.entry.id, None, 0.0)
                    await worker.store.finish(claim, Completed())
            case "cancelled":
                for entry in entries:
                    await worker.store.request_cancel(entry.id, None, 0.0)
            case _:
                await worker.pass_time()
        with trio.fail_after(60):
            while len(await worker.store.find(JobQuery(limit=1000))) > 5:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_workers_that_did_not_leave(prefix: str, open_store: Callable[[], RedisJobStore]) -> None:
    """A worker that was not seen for as long as it said leaves nothing behind once another comes."""
    async with open_workers(open_store, "gone", "here") as (gone, here):
        await gone.store.renew([], SHORT)
        await trio.sleep(2 * SHORT)
        await here.store.renew([], LEASE)
        assert shared_server().ask("ZCARD", f"{{{prefix}}}:workers") == 1
        assert shared_server().ask("HLEN", f"{{{prefix}}}:sessions") == 1
