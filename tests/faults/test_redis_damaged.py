"""A Redis in which somebody has written by hand: what can't be read harms the one job that it belongs to."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
import trio
from patience import until
from redis_invariants import check_jobs
from valkey_server import new_prefix, shared_server

import jobtrio
from jobtrio import (
    Completed,
    Failed,
    JobError,
    JobState,
    Restart,
    RetryPolicy,
    StoreError,
    StoreUnavailableError,
    Token,
)
from jobtrio._policies import RateLimit, Retention
from jobtrio.abc import JobQuery
from jobtrio.stores.redis import RedisJobStore
from jobtrio.testing._workers import LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from jobtrio.abc import Claim
    from jobtrio.testing._workers import Worker

pytestmark = pytest.mark.once

FIELDS = (
    *("state", "order", "created", "moved", "submission", "key", "plan", "body", "tags", "cell", "priority", "attempt"),
    *("claim", "session", "losses", "failures", "cancel", "error", "result", "saved", "saver", "history", "last"),
    *("expires", "later", "ticket"),
)

VALUES = (None, b"", b"junk", b"-1", b"1e300", b"1e999", b"nan", b"7" * 20, b"x" * 100_000, b"\xff\xfe", b',1,"QUEUED"')
"""What somebody writes into a field; None takes it out."""

KINDS = ("queued", "scheduled", "expiring", "held", "retrying", "running", "asked", "ended")

executors = jobtrio.Executors()


@executors.register("work")
async def work(job: jobtrio.JobContext) -> Any:
    """Use all that a store keeps."""
    await job.send("a")
    await job.save_state(job.attempt)
    return job.payload


class Place:
    """A prefix of the test's own.

    Attributes:
        root: What its keys begin with.
    """

    def __init__(self) -> None:
        prefix = new_prefix()
        self.root = f"{{{prefix}}}:"
        self.prefix = prefix

    def make_store(self) -> RedisJobStore:
        """Return a store."""
        return RedisJobStore(shared_server().url, prefix=self.prefix)

    def ask(self, command: str, key: str, *rest: str | bytes | int) -> Any:
        """Return the answer to a command."""
        return shared_server().ask(command, self.root + key, *rest)

    @contextmanager
    def displaced(self, key: str) -> Iterator[None]:
        """Have something else in the place of a key within the block."""
        had = self.ask("EXISTS", key)
        if had:
            self.ask("RENAME", key, f"{self.root}aside")
        self.ask("SET", key, "junk")
        yield
        self.ask("DEL", key)
        if had:
            self.ask("RENAME", "aside", self.root + key)


@pytest.fixture
def place() -> Place:
    """Give an empty prefix."""
    return Place()


async def populate(worker: Worker, names: Iterable[str]) -> None:
    """Bring a job of each kind and name into its state; its id is both."""

    def entries(kind: str, **fields: Any) -> list[Any]:
        return [
            new_entry(
                fields.pop("executor", "work"),
                n,
                job_id=f"{kind}-{name}",
                key=f"{kind}-{name}",
                tags={"a": "b"},
                **fields,
            )
            for n, name in enumerate(names)
        ]

    async def bring(kind: str, claim: Claim) -> None:
        await worker.store.append_messages(claim, tokens(1, 3))
        await worker.store.save_state(claim, "saved")
        match kind:
            case "ended":
                await worker.store.finish(claim, Completed(1))
            case "retrying":
                await worker.store.retry(claim, JobError("exception", "E", "why"), SHORT)
            case "asked":
                await worker.store.request_cancel(claim.entry.id, "why", 0.0)

    names = list(names)
    for kind in ("ended", "retrying", "running", "asked"):
        await worker.insert(*entries(kind))
        lease = SHORT if kind in ("running", "asked") else LEASE
        async with trio.open_nursery() as nursery:
            for claim in await worker.claim(1000, lease):
                nursery.start_soon(bring, kind, claim)
    await worker.insert(*entries("queued"))
    await worker.insert(*entries("scheduled", delay=SHORT))
    await worker.insert(*entries("expiring", expires_in=SHORT, queue="nobody's"))
    await worker.insert(*(new_entry(None, job_id=f"held-{name}", expires_in=LEASE) for name in names))
    await worker.insert(
        new_entry(payload="good", job_id="good"), new_entry(payload="good", job_id="later", delay=SHORT)
    )
    await trio.sleep(2 * SHORT)


async def use(place: Place, jobs: Iterable[str]) -> dict[str, Any]:
    """Do all that can be done in a registry, and take the jobs out in the end; return how they ended."""
    outcomes: dict[str, Any] = {}
    async with jobtrio.open_registry(executors, store=place.make_store(), queues={"default": 100}) as registry:
        with trio.fail_after(60):
            fresh = await registry.submit("work", "good")
            for job in (fresh, await registry.get("good"), await registry.get("later")):
                assert await job.wait() == Completed("good")
            async with trio.open_nursery() as nursery:
                for job_id in jobs:
                    nursery.start_soon(use_one, registry, job_id, outcomes)
            await registry.find(limit=1000)
            await registry.find(state=list(JobState), tags={"a": "b"}, limit=1000)
            await registry.counts()
            await registry.counts(tags={"a": "b"})
            await registry.workers()
            async with trio.open_nursery() as nursery:
                for job_id in (fresh.id, "good", "later", *outcomes):
                    nursery.start_soon(registry.remove, job_id)
    return outcomes


async def use_one(registry: jobtrio.JobRegistry, job_id: str, outcomes: dict[str, Any]) -> None:
    """Look at a job that somebody has written to, and note how it ends."""
    with suppress(jobtrio.UnknownJobError):
        job = await registry.get(job_id)
        await registry.history(job_id)
        await job.set_priority(jobtrio.JobPriority.HIGH)
        if job_id.startswith(("expiring", "held")):
            await job.cancel("enough")
        outcomes[job_id] = await job.wait()


@pytest.mark.parametrize("value", VALUES, ids=lambda value: "none" if value is None else repr(value[:10]))
async def test_a_field(place: Place, value: bytes | None) -> None:
    """Whatever somebody writes into a field of a job, the job ends and can be removed, and all others go on."""
    async with open_worker(place.make_store) as worker:
        await populate(worker, FIELDS)
        for kind in KINDS:
            for field in FIELDS:
                key = f"job:{kind}-{field}"
                place.ask(*(("HDEL", key, field) if value is None else ("HSET", key, field, value)))
    jobs = [f"{kind}-{field}" for kind in KINDS for field in FIELDS]
    outcomes = await use(place, jobs)
    unknown = {f"{kind}-state" for kind in KINDS} if value is None else set()
    assert set(jobs) - set(outcomes) == unknown
    for field in ("plan", "body", "attempt", "order"):
        assert isinstance(outcomes[f"queued-{field}"], Failed), field
    async with open_worker(place.make_store) as worker:
        assert await worker.store.find(JobQuery(limit=1000)) == []


async def test_failures_that_are_no_number(place: Place) -> None:
    """Where somebody has written into the number of failures, they are counted from the next on."""
    async with open_worker(place.make_store) as worker:
        claim = await worker.start(new_entry(retry=RetryPolicy()))
        place.ask("HSET", f"job:{claim.entry.id}", "failures", "junk")
        assert await worker.store.retry(claim, JobError("exception", "E", "why"), LEASE)
        entry = await worker.load(claim.entry.id)
        assert (entry.failures, entry.unreadable) == (1, None)
    check_jobs(shared_server(), place.prefix)


@pytest.mark.parametrize("key", ["job", "messages"])
@pytest.mark.parametrize("how", ["another type", "gone", "others' entries"])
async def test_a_key(place: Place, key: str, how: str) -> None:
    """A job whose hash is gone is unknown; one whose stream is gone, or is something else, ends; all others go on."""
    async with open_worker(place.make_store) as worker:
        await populate(worker, ["it"])
    for kind in KINDS:
        place.ask("DEL", f"{key}:{kind}-it")
        match how:
            case "another type":
                place.ask("SET", f"{key}:{kind}-it", "junk")
            case "others' entries" if key == "job":
                place.ask("HSET", f"{key}:{kind}-it", "junk", "junk")
            case "others' entries":
                place.ask("XADD", f"{key}:{kind}-it", f"{2**64 - 1}-5", "junk", "junk")
    outcomes = await use(place, [f"{kind}-it" for kind in KINDS])
    assert len(outcomes) == (0 if key == "job" else len(KINDS))


async def test_what_is_no_job(place: Place) -> None:
    """Where somebody has put something else in a job's place there is none, whoever asks for it."""
    async with open_worker(place.make_store) as worker:
        (entry,) = await worker.insert(new_entry())
        with place.displaced(f"job:{entry.id}"):
            assert await worker.store.load(entry.id) is None
            assert await worker.store.look(entry.id) is None
            assert await worker.store.follow(entry.id, 0, 10) == (None, None)
            assert await worker.store.find(JobQuery()) == []
        found = await worker.store.look(entry.id)
        assert found is not None
        assert found.id == entry.id


async def test_keys(place: Place) -> None:
    """Whatever somebody writes into the index of keys, no job is found that has not this key, nor behind itself."""
    async with open_worker(place.make_store) as worker:
        await worker.insert(new_entry(job_id="a"), new_entry(job_id="b", key="k"), new_entry(job_id="c", key="l"))
        for job_id in ("a", "c", "gone", "junk\n", b"\xff\xfe"):
            place.ask("HSET", "keys", "k", job_id)
            assert await worker.store.find(JobQuery(key="k")) == []
        place.ask("HSET", "keys", "k", "b")
        for order in ("junk", "", "1e300", "-1"):
            place.ask("HSET", "job:b", "order", order)
            assert ids(await worker.store.find(JobQuery(key="k"))) == ["b"]
            assert await worker.store.find(JobQuery(key="k", after="b")) == []
        assert ids(await worker.store.find(JobQuery(key="l", after="b"))) == ["c"]
        place.ask("HDEL", "job:b", "state")
        assert await worker.store.find(JobQuery(key="k")) == []


async def test_another_jobs_key(place: Place) -> None:
    """A job into which somebody has written another one's key does not take that along when it goes."""
    async with open_worker(place.make_store) as worker:
        await worker.insert(new_entry(job_id="a"), new_entry(job_id="b", key="k"))
        place.ask("HSET", "job:a", "key", "k")
        await worker.store.request_cancel("a", None, 0.0)
        assert await worker.store.delete("a")
        assert ids(await worker.store.find(JobQuery(key="k"))) == ids(await worker.insert(new_entry(key="k"))) == ["b"]


@pytest.mark.parametrize("member", ["junk", "", b"\xff\xfe", "0:", "held-it", "ended-it", "queued-it"])
async def test_a_member(place: Place, member: str | bytes) -> None:
    """What somebody has put into the sets that all jobs share is not met for ever, and no job ends twice."""
    async with open_worker(place.make_store) as worker:
        await populate(worker, ["it"])
    for name in ("all", "due", "expiry", "leases", "lines", "line:7:defaultwork"):
        place.ask("ZADD", name, 5, member)
    if member != "ended-it":
        place.ask("ZADD", "ended", 5, member)
    for name in ("workers", "pauses"):
        place.ask("ZADD", name, 2**50, member)
    for name in ("cells", "limited", "paused"):
        place.ask("SADD", name, member)
    for name in ("keys", "sessions"):
        place.ask("HSET", name, member, member)
    outcomes = await use(place, [f"{kind}-it" for kind in KINDS])
    assert outcomes["ended-it"] == Completed(1)
    assert len(outcomes) == len(KINDS)
    for name in ("due", "expiry", "leases", "line:7:defaultwork"):
        assert place.ask("ZSCORE", name, member) is None, name


async def test_a_running_job_among_others(place: Place) -> None:
    """A job that runs goes on running, wherever somebody has put it besides."""
    async with open_worker(place.make_store, Retention(finished_jobs=0)) as worker:
        claim = await worker.start()
        for name in ("due", "expiry", "ended", "line:7:defaultwork", "lines"):
            place.ask("ZADD", name, 5, "7:defaultwork" if name == "lines" else claim.entry.id)
        await worker.advance()
        await worker.store.prune()
        assert await worker.claim() == []
        assert await worker.states(claim.entry.id) == ["QUEUED", "RUNNING"]
        check_jobs(shared_server(), place.prefix)
        assert await worker.store.finish(claim, Completed())


async def test_a_job_in_the_line_of_another_executor(place: Place) -> None:
    """Whoever is given a job knows its executor, and may take it from its queue, whatever line it was put into."""
    async with open_worker(place.make_store) as worker:
        (other,) = await worker.insert(new_entry("other", queue="other"))
        await worker.insert(new_entry())
        place.ask("ZADD", "line:7:defaultwork", 5, other.id)
        claims = await worker.claim(room={"default": 9}, executors={"work"})
        assert [claim.entry.plan.executor for claim in claims] == ["work"]
        assert ids(await worker.claim(room={"other": 9})) == [other.id]
    check_jobs(shared_server(), place.prefix)


async def test_a_line_that_is_gone(place: Place) -> None:
    """A line that somebody has removed is not looked for again, and the next job of it is announced."""
    async with open_workers(place.make_store, "a", "b") as (a, b):
        await b.heard.wait_for("due_changed")  # it hears hints now
        await a.insert(new_entry())
        place.ask("DEL", "line:7:defaultwork")
        assert await a.claim() == []
        assert place.ask("ZCARD", "lines") == 0
        await trio.sleep(SHORT)  # for what is under way to arrive
        b.heard.forget()
        (entry,) = await a.insert(new_entry())
        await b.heard.wait_for("work_ready")
        assert ids(await b.claim()) == [entry.id]


SHARED = (
    *("number", "all", "cells", "lines", "leases", "pauses", "rates", "workers", "sessions"),
    "cell:QUEUED:7:defaultwork",
)


@pytest.mark.parametrize("key", SHARED)
async def test_a_key_of_all(place: Place, key: str, caplog: pytest.LogCaptureFixture) -> None:
    """While something else is in the place of what all jobs share, the store is away, and says why; then it goes on."""
    limits = {"default": RateLimit(1000, per=1)}
    store = place.make_store()
    async with jobtrio.open_registry(executors, store=store, lease=1.0, rate_limits=limits) as registry:
        first = await registry.submit("work", 1)
        assert await first.wait() == Completed(1)
        outcomes: list[Any] = []

        async def submit() -> None:
            outcomes.append(await (await registry.submit("work", 2)).wait())

        async with trio.open_nursery() as nursery:
            with place.displaced(key):
                nursery.start_soon(submit)
                await until(lambda: any("wrong kind" in text or "not an integer" in text for text in caplog.messages))
        assert outcomes == [Completed(2)]


async def test_leases_that_are_none(place: Place) -> None:
    """No job is started while its lease could not be put among the others."""
    async with open_worker(place.make_store) as worker:
        await worker.insert(new_entry())
        with place.displaced("leases"), pytest.raises(StoreUnavailableError, match="wrong kind of value"):
            await worker.claim()
        await worker.claim_one()
    check_jobs(shared_server(), place.prefix)


@pytest.mark.parametrize("key", ["number", "lines", "limited"])
async def test_nothing_is_half_done(place: Place, key: str) -> None:
    """What can't be done, since something else is in the place of what all jobs share, is done once, when it can be."""
    async with open_workers(place.make_store, "worker", totals={"default": 9}) as (worker,):
        claims = [await worker.start(lease=lease) for lease in (SHORT, LEASE, LEASE)]
        for claim in claims:
            assert await worker.store.append_messages(claim, tokens(1, 2))
        lapsed, released, failed = claims
        (due,) = await worker.insert(new_entry(delay=SHORT))
        calls = (
            worker.store.advance,
            partial(worker.store.release, released, "why"),
            partial(worker.store.retry, failed, JobError("exception", "E", "why"), LEASE),
        )
        await trio.sleep(2 * SHORT)
        refused = 0
        with place.displaced(key):
            for call in 4 * calls:
                try:
                    await call()
                except StoreUnavailableError:
                    refused += 1
        assert refused >= 4
        await worker.advance()
        for call in calls[1:]:
            assert await call()
        for claim in claims:
            assert [type(message) for message in await worker.stream(claim.entry.id)] == [Token, Token, Restart]
        assert (await worker.load(lapsed.entry.id)).losses == 1
        assert {each.entry.id for each in await worker.claim()} == {due.id, lapsed.entry.id, released.entry.id}
    check_jobs(shared_server(), place.prefix)


async def expect_refusals(place: Place, key: str, *calls: Callable[[], Awaitable[object]]) -> None:
    """See that these calls say, and opening too, that something else is in the place of a key."""
    with place.displaced(key):
        for call in calls:
            with pytest.raises(StoreUnavailableError, match="wrong kind of value"):
                await call()
        with pytest.raises(StoreError, match="not jobtrio's, or is damaged"):
            async with open_worker(place.make_store):
                pass


async def test_pauses_that_are_none(place: Place) -> None:
    """No job is started, nor is a store opened, while something else is in the place of the paused queues.

    Nor is it said then that none is paused.
    """
    async with open_worker(place.make_store) as worker:
        await worker.insert(new_entry())
        store = worker.store
        calls = (worker.claim, store.paused, lambda: store.backlog(None), lambda: store.pause("default"))
        await expect_refusals(place, "pauses", *calls)
        await worker.claim_one()
    check_jobs(shared_server(), place.prefix)


async def test_rates_that_are_none(place: Place) -> None:
    """No job is started, nor is a store opened, while something else is in the place of the moments of next starts."""
    rates = {"default": RateLimit(1, per=1000)}
    async with open_workers(place.make_store, "worker", rates=rates) as (worker,):
        await worker.insert(new_entry(), new_entry())
        await expect_refusals(place, "rates", worker.claim, worker.store.next_start)
        await worker.claim_one()
        for moment in ("inf", "1e300"):
            place.ask("ZADD", "rates", moment, "default")
            assert await worker.store.next_start() == inf
            await worker.insert(new_entry())
            await worker.claim_one()
            assert await worker.claim() == []
    check_jobs(shared_server(), place.prefix)


async def test_a_limit_that_is_none(place: Place) -> None:
    """No job is started while it could not be noted that its queue has a limit over all workers."""
    async with open_workers(place.make_store, "worker", totals={"default": 9}) as (worker,):
        await worker.insert(new_entry())
        with place.displaced("limited"), pytest.raises(StoreUnavailableError, match="wrong kind of value"):
            await worker.claim()
        await worker.claim_one()
    check_jobs(shared_server(), place.prefix)


async def test_all_or_none(place: Place) -> None:
    """Of jobs that are put in together none is there where one could not be put into its line."""
    async with open_worker(place.make_store) as worker:
        entries = [new_entry(delay=SHORT), new_entry()]
        await worker.store.counts()  # it is connected now
        with place.displaced("lines"), pytest.raises(StoreUnavailableError, match="wrong kind of value"):
            await worker.store.insert(entries, "mark")
        check_jobs(shared_server(), place.prefix, was_refused=True)
        assert await worker.store.find(JobQuery()) == []
        assert await worker.store.insert(entries, "mark") == entries
        check_jobs(shared_server(), place.prefix, [entry.id for entry in entries])


async def test_calls_beside_one_that_is_refused(place: Place) -> None:
    """What other calls put in, that are carried out with one which can't be, is there as a whole."""
    async with open_worker(place.make_store) as worker:

        async def refused() -> None:
            with pytest.raises(StoreUnavailableError, match="wrong kind of value"):
                await worker.insert(new_entry())

        await worker.store.counts()  # it is connected now
        entries = [new_entry(delay=LEASE, tags={"t": "v"}) for _ in range(10)]
        with place.displaced("lines"):
            async with trio.open_nursery() as nursery:
                for entry in entries:
                    nursery.start_soon(worker.insert, entry)
                for _ in range(3):
                    nursery.start_soon(refused)
        kept = check_jobs(shared_server(), place.prefix, ids(entries), was_refused=True)
        assert list(kept.values()) == ["SCHEDULED"] * 10


@pytest.mark.parametrize("key", ["number", "lines"])
async def test_a_held_job_that_has_no_line(place: Place, key: str) -> None:
    """A held job is held on where it could not be put into its line."""
    async with open_worker(place.make_store) as worker:
        (held,) = await worker.insert(new_entry(None))
        for _ in range(2):
            with place.displaced(key), pytest.raises(StoreUnavailableError):
                await worker.store.start_held(held.id, new_plan())
            assert (await worker.load(held.id)).is_held
        assert await worker.store.start_held(held.id, new_plan())
        assert (await worker.claim_one()).entry.id == held.id
    check_jobs(shared_server(), place.prefix)


async def test_an_id_that_is_no_text(place: Place) -> None:
    """A running job whose id is no text is no reason to look again and again."""
    async with open_worker(place.make_store) as worker:
        shared_server().ask("HSET", place.root.encode() + b"job:\xff", "state", "RUNNING")
        place.ask("ZADD", "leases", 5, b"\xff")
        with trio.fail_after(60):
            assert await worker.store.advance() > 0
