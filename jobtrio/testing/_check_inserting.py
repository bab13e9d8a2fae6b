"""Store checks: putting jobs in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs
import trio

from jobtrio._codec import SIZE_LIMIT
from jobtrio._errors import DuplicateJobError, PayloadError, QueueFullError
from jobtrio._messages import End
from jobtrio._policies import JobPriority, RetryPolicy
from jobtrio._records import Completed
from jobtrio._state import JobState
from jobtrio.abc import Backlog, JobQuery
from jobtrio.testing._workers import (
    ERROR,
    LEASE,
    POLICY,
    SHORT,
    ids,
    new_entry,
    open_worker,
    open_workers,
    refused,
    tokens,
)

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio.testing._workers import OpenStore, Worker

RICH = {"text": "a\x00\n\t\"'\\ é € 😀", "numbers": [0, -1, 2**53, 0.1, 1e300], "rest": [True, False, None, {}, [], ""]}
"""A value of all that JSON can hold."""


async def check_insert_returns_what_is_stored(open_store: OpenStore) -> None:
    """Entries are stored in order and brought to what is stored, and another process finds them as they were given."""
    async with open_workers(open_store, "a", "b") as (a, b):
        plain = new_entry("work", None)
        rich = new_entry(
            "other",
            RICH,
            queue="gpu",
            priority=JobPriority.CRITICAL,
            time_limit=1.5,
            retry=POLICY,
            delay=LEASE,
            expires_in=2 * LEASE,
            key="key",
            tags={"User": "É", "n": "1"},
            metadata={"rich": RICH},
        )
        given = [entry.record() for entry in (plain, rich)]
        assert ids(await a.insert(plain, rich)) == [plain.id, rich.id]
        assert (plain.state, rich.state) == (JobState.QUEUED, JobState.SCHEDULED)
        for entry, wanted in zip((plain, rich), given, strict=True):
            found = await b.load(entry.id)
            assert found.record() == entry.record()
            assert attrs.evolve(found.record(), created_at=wanted.created_at) == wanted  # some stores set it themselves
            assert as_json(found.payload) == as_json(wanted.payload)  # 1.0 equals 1, but is another value
            assert found.plan.retry == entry.plan.retry
            assert found.plan.time_limit == entry.plan.time_limit
        record = rich.record()
        assert (record.payload, record.metadata, record.key) == (RICH, {"rich": RICH}, "key")
        assert (record.tags, record.queue, record.executor) == ({"User": "É", "n": "1"}, "gpu", "other")
        assert record.priority is JobPriority.CRITICAL
        record = await b.record(rich.id)
        assert (record.time_limit, record.retry, record.expires_in) == (1.5, POLICY, 2 * LEASE)
        record = await b.record(plain.id)
        assert (record.time_limit, record.retry, record.expires_in) == (None, None, None)


def as_json(value: Any) -> str:
    """Return a value so that 1 and 1.0, or 0 and False, are told apart."""
    return json.dumps(value, sort_keys=True)


LOOK_ALIKE = ("a", "A", "á", "ss", "ß", "a ", " a", "9" * 199, "9" * 200, "😀" * 200)
"""Names of all that may be given, each of which some database takes for another of them, or cuts off."""


async def check_names_are_told_apart(open_store: OpenStore) -> None:
    """Ids, keys, queues, executors and tags are told apart by each of their characters, and are kept whole."""
    async with open_workers(open_store, "a", "b") as (a, b):
        names = list(LOOK_ALIKE)
        await a.insert(*(new_entry(name, queue=name, job_id=name, key=name, tags={name: name}) for name in names))
        assert ids(await b.store.find(JobQuery())) == names
        assert set(await b.store.counts()) == set(names)
        for name in names:
            record = await b.record(name)
            assert (record.id, record.key, record.queue, record.executor, record.tags) == (*[name] * 4, {name: name})
            assert ids(await b.insert(new_entry(key=name))) == [name]
            queries = (JobQuery(queue=name), JobQuery(executor=name), JobQuery(key=name), JobQuery(tags={name: name}))
            for query in queries:
                assert ids(await b.store.find(query)) == [name]
            assert await b.store.backlog({name}, {name}) == Backlog(queued=1)
        for name in names:
            claims = await b.claim(executors=frozenset({name}))
            assert ids(claims) == [name]
            assert await b.store.release(claims[0], "shutdown")
        for name in names:
            claims = await b.claim(room={name: 9})
            assert ids(claims) == [name]
            assert await b.store.finish(claims[0], Completed(), messages=tokens(2, 2, attempt=2))
            assert await a.states(name) == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "COMPLETED"]
            assert (await a.stream(name))[1:] == [*tokens(2, 2, attempt=2), End(3, Completed())]
            assert await a.store.delete(name)
        assert await b.store.find(JobQuery()) == []


async def check_values_that_are_refused(open_store: OpenStore) -> None:
    """A store that checks values itself stores none of a call with one that JSON can't hold; no other is given any."""
    if not open_store().checks_values:
        return
    async with open_worker(open_store) as worker:
        for value in (object(), {"a": [1.5, float("nan")]}, "\ud800", _nested(1_000), "x" * SIZE_LIMIT):
            for fields in ({"payload": value}, {"metadata": {"m": value}}):
                with refused(PayloadError):
                    await worker.insert(new_entry(), new_entry(**fields), new_entry())
        assert await worker.store.find(JobQuery()) == []
        assert not worker.heard.changes


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


async def check_full_queue(open_store: OpenStore) -> None:
    """As many jobs as `max_queued` may wait for their first start; a store that refuses more stores none of a call."""
    async with open_workers(open_store, "a", max_queued=4) as (worker,):
        first = [new_entry(retry=RetryPolicy()), new_entry(None), new_entry(delay=LEASE, key="k")]
        await worker.store.insert(first, "mark")
        try:
            await worker.insert(new_entry(), new_entry())
        except QueueFullError:
            pass
        else:
            assert len(await worker.store.find(JobQuery())) == 5
            return  # not every store says so
        assert ids(await worker.store.find(JobQuery())) == ids(first)
        await worker.insert(last := new_entry())
        assert ids(await worker.store.insert(first, "mark")) == ids(first)
        assert ids(await worker.insert(new_entry(key="k"))) == [first[2].id]
        (claim,) = await worker.claim(limit=1)
        await worker.insert(new_entry())
        assert await worker.store.retry(claim, ERROR, 0.0)
        await worker.store.request_cancel(last.id, None, 0.0)
        await worker.insert(new_entry())
        with refused(QueueFullError) as errors:
            await worker.insert(new_entry())
        assert errors[0].limit == 4


async def check_insert_of_nothing(open_store: OpenStore) -> None:
    """No entries are no jobs."""
    async with open_worker(open_store) as worker:
        assert await worker.insert() == []
        assert await worker.store.find(JobQuery()) == []


async def check_duplicate_ids_are_refused(open_store: OpenStore) -> None:
    """An id in use, or twice in one call, raises and stores nothing of the call; the job that has it stays as it is."""
    async with open_workers(open_store, "a", "b") as (a, b):
        first = new_entry(payload="first")
        await a.insert(first)
        for worker in (a, b):
            await _refused(worker, first.id, [new_entry(), new_entry(job_id=first.id), new_entry()])
            await _refused(worker, "twice", [new_entry(job_id="twice"), new_entry(), new_entry(job_id="twice")])
            assert (await worker.load(first.id)).payload == "first"
        claim = await a.claim_one()
        await a.store.finish(claim, Completed())
        await _refused(b, first.id, [new_entry(job_id=first.id)])


async def _refused(worker: Worker, job_id: str, entries: list[JobEntry]) -> None:
    with refused(DuplicateJobError) as errors:
        await worker.insert(*entries)
    assert errors[0].job_id == job_id
    assert len(await worker.store.find(JobQuery())) == 1


async def check_key_in_use_gives_its_job(open_store: OpenStore) -> None:
    """A key in use returns the job that has it, in any process, whatever has become of it or the new job's id."""
    async with open_workers(open_store, "a", "b") as (a, b):
        (first,) = await a.insert(new_entry(payload="first", key="k"))
        claim = await a.claim_one()
        for payload in ("second", "third"):
            for job_id in (None, first.id):
                (answer,) = await b.insert(new_entry(payload=payload, key="k", job_id=job_id))
                assert answer.record() == (await a.load(first.id)).record()
            await a.store.finish(claim, Completed("done"))
        assert ids(await a.store.find(JobQuery())) == [first.id]


async def check_keys_within_one_call(open_store: OpenStore) -> None:
    """Within one call the first job with a key takes the place of the others, beside jobs without one."""
    async with open_worker(open_store) as worker:
        given = [new_entry(key="k"), new_entry(), new_entry(key="k"), new_entry(key="other")]
        answer = await worker.insert(*given)
        assert ids(answer) == [given[0].id, given[1].id, given[0].id, given[3].id]
        assert ids(await worker.store.find(JobQuery())) == [given[0].id, given[1].id, given[3].id]


async def check_ids_and_keys_within_one_call(open_store: OpenStore) -> None:
    """Jobs of one call are stored in order: what one before has taken is in use, and what is still to come is not."""
    async with open_worker(open_store) as worker:
        await worker.insert(new_entry(job_id="old", key="taken"))
        first, again = (
            new_entry(payload="first", job_id="one", key="k"),
            new_entry(payload="again", job_id="one", key="k"),
        )
        assert [entry.payload for entry in await worker.insert(first, again)] == ["first", "first"]
        assert len(worker.heard.of("one")) == 1
        given = [new_entry(job_id="two", key="taken"), new_entry(job_id="two", key="l"), new_entry(key="l")]
        assert ids(await worker.insert(*given)) == ["old", "two", "two"]
        with refused(DuplicateJobError) as errors:
            await worker.insert(new_entry(job_id="old", key="free"), new_entry(key="free"))
        assert errors[0].job_id == "old"
        assert ids(await worker.store.find(JobQuery())) == ["old", "one", "two"]


async def check_key_is_free_once_its_job_is_gone(open_store: OpenStore) -> None:
    """A key lasts as long as its job is kept."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(key="k"))
        await worker.store.finish(claim, Completed())
        assert await worker.store.delete(claim.entry.id)
        entry = new_entry(key="k")
        assert ids(await worker.insert(entry)) == [entry.id]


async def check_order_of_insertions(open_store: OpenStore) -> None:
    """Each job has a number above those of all before it, also once they are gone, which every entry of it carries."""
    async with open_workers(open_store, "a", "b") as (a, b):
        last = 0
        for worker in (a, b, a):
            entries = [new_entry(), new_entry(job_id="again"), new_entry(priority=JobPriority.HIGH)]
            await worker.insert(*entries)
            orders = {entry.id: entry.order for entry in entries}
            assert [last, *orders.values()] == sorted({last, *orders.values()})
            last = entries[-1].order
            assert {job_id: (await b.load(job_id)).order for job_id in orders} == orders
            claims = await b.claim()
            assert {claim.entry.id: claim.entry.order for claim in claims} == orders
            for claim in claims:
                assert await b.store.finish(claim, Completed())
                assert await a.store.delete(claim.entry.id)


async def check_order_over_a_restart(open_store: OpenStore) -> None:
    """Where a durable store is opened anew, its counts go on: new jobs have higher numbers, and stand behind."""
    if not open_store().durable:
        return
    async with open_worker(open_store) as worker:
        await worker.insert(*(early := [new_entry() for _ in range(3)]), gone := new_entry())
        await worker.store.request_cancel(gone.id, None, 0.0)
        assert await worker.store.delete(gone.id)
    async with open_worker(open_store) as worker:
        await worker.insert(late := new_entry())
        assert late.order > gone.order
        assert ids(await worker.store.find(JobQuery())) == ids([*early, late])
        assert ids(await worker.claim()) == ids([*early, late])


async def check_repeated_insert(open_store: OpenStore) -> None:
    """A repeated call is recognised by its mark and answered alike, also when its jobs have moved on."""
    async with open_worker(open_store) as worker:
        await worker.insert(new_entry(None, job_id="old", key="taken"))
        jobs = [("one", None), ("two", "k"), ("three", "k"), ("five", "taken"), ("four", None)]
        answers = []
        for _ in range(3):  # each time with new entries: only the mark and the ids tell
            entries = [new_entry(job_id=job_id, key=key) for job_id, key in jobs]
            answers.append(ids(await worker.store.insert(entries, "mark")))
            for claim in await worker.claim(limit=1):
                await worker.store.finish(claim, Completed())
        assert answers == [["one", "two", "two", "old", "four"]] * 3
        assert ids(await worker.store.find(JobQuery())) == ["old", "one", "two", "four"]
        assert await worker.claim() == []
        assert await worker.states("one") == ["QUEUED", "RUNNING", "COMPLETED"]


async def check_concurrent_inserts(open_store: OpenStore) -> None:
    """Of many processes that store one id, one succeeds; of many that store one key, all get one job."""
    async with open_workers(open_store, *"abcd") as workers:
        refused: list[str] = []
        answers: list[str] = []

        async def insert(worker: Worker) -> None:
            answers.extend(ids(await worker.insert(new_entry(key="k"))))
            try:
                await worker.insert(new_entry(job_id="one"))
            except DuplicateJobError as exc:
                refused.append(exc.job_id)

        async with trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(insert, worker)
        assert refused == ["one"] * 3
        assert len(set(answers)) == 1
        assert len(await workers[0].store.find(JobQuery())) == 2


async def check_order_of_delayed_jobs(open_store: OpenStore) -> None:
    """Jobs that one call stores with one delay become ready in their order."""
    async with open_worker(open_store) as worker:
        entries = [new_entry(delay=SHORT) for _ in range(20)]
        for entry in entries:
            entry.created_at, entry.run_at = entries[0].created_at, entries[0].run_at
        await worker.insert(*entries)
        await worker.pass_time()
        assert ids(await worker.claim(limit=20)) == ids(entries)


async def check_delay_counts_from_insertion(open_store: OpenStore) -> None:
    """A delayed job is scheduled, becomes ready when its delay is over, and `advance` says how long that is.

    Neither that nor its expiry depends on the submitter's clock.
    """
    async with open_worker(open_store) as worker:
        soon, late = new_entry(delay=SHORT), new_entry(delay=LEASE)
        await worker.insert(late)
        assert LEASE / 2 < await worker.advance() <= LEASE
        await worker.insert(soon)
        assert await worker.claim() == []
        await worker.pass_time()
        assert ids(await worker.claim()) == [soon.id]
        assert await worker.states(soon.id) == ["SCHEDULED", "QUEUED", "RUNNING"]
        assert await worker.states(late.id) == ["SCHEDULED"]
        slow = [new_entry(delay=LEASE), new_entry(expires_in=LEASE)]
        for entry in slow:
            entry.created_at -= 2 * LEASE
        await worker.insert(*slow)
        await worker.advance()
        assert ids(await worker.claim()) == [slow[1].id]
