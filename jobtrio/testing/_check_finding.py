"""Store checks: looking at jobs, finding them, and counting them."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import attrs

from jobtrio._errors import UnknownJobError
from jobtrio._policies import RetryPolicy
from jobtrio._records import Cancelled, Completed, Failed
from jobtrio._state import JobState
from jobtrio.abc import Backlog, JobQuery
from jobtrio.testing._workers import ERROR, LEASE, ids, new_entry, open_worker, open_workers, refused, tokens

if TYPE_CHECKING:
    from jobtrio._records import JobRecord
    from jobtrio.testing._workers import OpenStore


async def check_unknown_jobs(open_store: OpenStore) -> None:
    """Of a job that nobody stored there is nothing."""
    async with open_worker(open_store) as worker:
        assert await worker.store.load("unknown") is None
        assert await worker.store.history("unknown") is None
        assert not await worker.store.delete("unknown")
        assert await worker.store.find(JobQuery()) == []


async def check_look(open_store: OpenStore) -> None:
    """Whoever looks at a job sees it as who loads it, but for what never changes and what it saved."""
    async with open_workers(open_store, "a", "b") as (a, b):
        assert await b.store.look("unknown") is None
        entries = [
            new_entry(None),
            new_entry(delay=LEASE),
            new_entry(),
            new_entry(metadata={"m": 1}, tags={"t": "v"}, key="k"),
            new_entry(retry=RetryPolicy()),
        ]
        await a.insert(*entries)
        ended, running, retrying = sorted(await a.claim(), key=lambda claim: claim.entry.order)
        assert await a.store.retry(retrying, ERROR, LEASE)
        assert await a.store.save_state(running, "saved")
        await a.store.request_cancel(running.entry.id, "why", 0.0)
        assert await a.store.finish(ended, Completed("done"), messages=tokens(1, 2))
        await a.store.request_cancel(entries[0].id, "why", 0.0)
        for entry in entries:
            seen, whole = await b.store.look(entry.id), await b.load(entry.id)
            assert seen is not None
            assert seen.order == whole.order
            for each in (seen, whole):
                each.payload = each.metadata = each.tags = each.run_at = each.expires_in = None
                each.delay = 0.0
            assert seen.record() == whole.record()
            assert seen.history() == whole.history()


async def check_find(open_store: OpenStore) -> None:
    """Jobs are found by state, by tags that all match, by queue and by executor, and by all of these together."""
    async with open_workers(open_store, "a", "b") as (a, b):
        for n in range(24):
            tags = {"kind": "odd" if n % 4 else "even", "n": str(n), "m": str((n + 4) % 24)}
            await a.insert(new_entry("abc"[n % 3], queue="xy"[n % 2], tags=tags, job_id=f"{n:02}"))
        for claim in await a.claim(limit=12):
            if int(claim.entry.id) >= 6:
                await a.store.finish(claim, Completed())
        records = await a.store.find(JobQuery())
        assert ids(records) == [f"{n:02}" for n in range(24)]
        states = [frozenset(map(JobState, names)) for names in (["RUNNING"], ["QUEUED", "COMPLETED"], ["FAILED"], [])]
        tag_sets = [{}, {"kind": "even"}, {"kind": "even", "n": "8"}, {"kind": "odd", "n": "8"}]
        tag_sets += [{"n": "1"}, {"kind": "EVEN"}, {"KIND": "even"}, {"n": "4", "m": "8"}, {"n": "4", "m": "4"}]
        for query in map(JobQuery, *zip(*product([None, *states], tag_sets, QUEUES, EXECUTORS), strict=True)):
            found = [record for record in records if _matches(record, query)]
            assert await b.store.find(query) == found, query
            assert await b.store.find(attrs.evolve(query, newest_first=True)) == found[::-1], query


QUEUES = (None, "x", "z")
EXECUTORS = (None, "a", "d")


def _matches(record: JobRecord, query: JobQuery) -> bool:
    return (
        (query.states is None or record.state in query.states)
        and (query.tags or {}).items() <= record.tags.items()
        and query.queue in (None, record.queue)
        and query.executor in (None, record.executor)
    )


async def check_find_by_key(open_store: OpenStore) -> None:
    """The job that has a key is found by it while it is kept, if it is all else that is asked for as well."""
    async with open_workers(open_store, "a", "b") as (a, b):
        entries = [new_entry(key=f"k{n}", queue="xy"[n % 2], tags={"n": str(n)}, job_id=str(n)) for n in range(5)]
        await a.insert(*entries, new_entry(job_id="k5", tags={"n": "1"}))
        (running,) = await a.claim(limit=1)
        assert await b.store.find(JobQuery(key="k0")) == [await a.record("0")]
        for query, found in (
            (JobQuery(key="k1", limit=1), ["1"]),
            (JobQuery(key="k5"), []),
            (JobQuery(key="K1"), []),
            (JobQuery(key="k1", tags={"n": "1"}, queue="y", executor="work"), ["1"]),
            (JobQuery(key="k1", states=frozenset({JobState.RUNNING, JobState.QUEUED})), ["1"]),
            (JobQuery(key="k1", states=frozenset({JobState.RUNNING})), []),
            (JobQuery(key="k0", states=frozenset({JobState.RUNNING})), ["0"]),
            (JobQuery(key="k1", states=frozenset()), []),
            (JobQuery(key="k1", tags={"n": "1", "m": "1"}), []),
            (JobQuery(key="k1", tags={"n": "2"}), []),
            (JobQuery(key="k1", queue="x"), []),
            (JobQuery(key="k1", executor="other"), []),
        ):
            assert ids(await b.store.find(query)) == found, query
            assert ids(await b.store.find(attrs.evolve(query, newest_first=True))) == found, query
        for after, found in (("0", ["1"]), ("1", []), ("2", []), ("k5", [])):
            assert ids(await b.store.find(JobQuery(key="k1", after=after))) == found
            is_before = after in ("2", "k5")
            assert bool(await b.store.find(JobQuery(key="k1", after=after, newest_first=True))) == is_before
        for key in ("k1", "unknown"):
            with refused(UnknownJobError):
                await b.store.find(JobQuery(key=key, after="unknown"))
        await a.store.finish(running, Completed())
        assert (await b.store.find(JobQuery(key="k0")))[0].state == "COMPLETED"
        assert await b.store.delete("0")
        assert await a.store.find(JobQuery(key="k0")) == []
        await a.insert(new_entry(job_id="0"))  # the same id, and none of the key
        assert await b.store.find(JobQuery(key="k0")) == []
        await b.insert(new_entry(job_id="later", key="k0"))
        assert ids(await a.store.find(JobQuery(key="k0"))) == ["later"]
        assert ids(await a.store.find(JobQuery(key="k0", after="4"))) == ["later"]


async def check_find_what_no_job_has(open_store: OpenStore) -> None:
    """Nothing is found of names and tags that no job can have; behind an unknown job that is an error all the same."""
    async with open_worker(open_store) as worker:
        await worker.insert(new_entry(None), new_entry(tags={"t": "v"}))
        for text in ("", "\0", "\ud800", "line\nbreak"):
            names = (JobQuery(queue=text), JobQuery(executor=text), JobQuery(key=text))
            for query in (*names, JobQuery(tags={"t": "v", "u": text})):
                assert await worker.store.find(query) == []
                with refused(UnknownJobError):
                    await worker.store.find(attrs.evolve(query, after="unknown"))


async def check_found_records(open_store: OpenStore) -> None:
    """What is found are records of the jobs as they are now."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start(new_entry(payload=[1], tags={"t": "v"}, metadata={"m": None}, delay=0.0, key="k"))
        await a.store.request_cancel(claim.entry.id, "why", 1.0)
        assert await b.store.find(JobQuery()) == [await a.record(claim.entry.id)]
        await a.store.finish(claim, Cancelled("why"))
        assert await b.store.find(JobQuery()) == [await a.record(claim.entry.id)]


async def check_find_in_pages(open_store: OpenStore) -> None:
    """Full pages follow each other without holes or repetitions, whatever the jobs do in between, in either order."""
    async with open_worker(open_store) as worker:
        entries = [new_entry(tags={"of": "page", "half": str(n % 2)}, queue="ab"[n % 2]) for n in range(10)]
        await worker.insert(*entries[:4])
        await worker.insert(*entries[4:])
        queries = [
            (JobQuery(limit=3), entries),
            (JobQuery(limit=3, tags={"of": "page"}), entries),
            (JobQuery(limit=3, tags={"of": "page", "half": "1"}), entries[1::2]),
            (JobQuery(limit=3, queue="b"), entries[1::2]),
            (JobQuery(limit=3, executor="work"), entries),
        ]
        queries += [(attrs.evolve(query, newest_first=True), found[::-1]) for query, found in queries]
        for query, found in queries:
            expected, after = ids(found), None
            while page := ids(await worker.store.find(attrs.evolve(query, after=after))):
                assert page == expected[:3]
                expected, after = expected[3:], page[-1]
                for claim in await worker.claim(limit=1):  # which stands behind the others when it is ready again
                    await worker.store.release(claim, "shutdown")
            assert not expected, query
        for query in (JobQuery(queue="b"), JobQuery(tags={"half": "1"})):  # the last one may not match it any more
            assert ids(await worker.store.find(attrs.evolve(query, after=entries[4].id))) == ids(entries[5::2])
        (running,) = ids(await worker.claim(limit=1))
        query = JobQuery(states=frozenset({JobState.QUEUED}), after=running)
        assert ids(await worker.store.find(query)) == ids(entries)[1 + ids(entries).index(running) :]
        with refused(UnknownJobError) as errors:
            await worker.store.find(JobQuery(after="unknown"))
        assert errors[0].job_id == "unknown"


async def check_counts(open_store: OpenStore) -> None:
    """Jobs are counted by state, and those that wait or run by queue, without the held ones."""
    async with open_worker(open_store) as worker:
        for queue, more in (("x", 0), ("y", 1)):
            retrying = await worker.start(new_entry(queue=queue, retry=RetryPolicy()))
            await worker.store.retry(retrying, ERROR, LEASE)
            await worker.start(new_entry(queue=queue))
            ended = await worker.start(new_entry(queue=queue))
            await worker.store.finish(ended, Failed(ERROR))
            await worker.insert(
                *(new_entry(queue=queue, delay=LEASE) for _ in range(2 + more)), new_entry(None, queue=queue)
            )
        await worker.insert(*(new_entry(queue="x") for _ in range(3)))
        counts = await worker.store.counts()
        assert counts == {
            "x": _each(RUNNING=1, RETRYING=1, SCHEDULED=2, FAILED=1, QUEUED=4),
            "y": _each(RUNNING=1, RETRYING=1, SCHEDULED=3, FAILED=1, QUEUED=1),
        }
        assert await worker.store.backlog(None) == Backlog(queued=3, retrying=2, scheduled=5, running=2)
        assert await worker.store.backlog({"x"}) == Backlog(queued=3, retrying=1, scheduled=2, running=1)
        assert await worker.store.backlog({"y", "z"}) == Backlog(queued=0, retrying=1, scheduled=3, running=1)
        assert await worker.store.backlog(set()) == Backlog()
        assert await worker.store.backlog({"x"}, {"work", "other"}) == await worker.store.backlog({"x"})
        assert await worker.store.backlog(None, {"other"}) == Backlog()
        assert await worker.store.backlog(None, set()) == Backlog()


async def check_counts_of_tags(open_store: OpenStore) -> None:
    """Jobs that have tags are counted where all of these match, each in the state that it is in now."""
    async with open_workers(open_store, "a", "b") as (a, b):
        held = new_entry(None, queue="y", tags={"of": "these"})
        rest = [
            new_entry(queue="xy"[n % 2], tags={"of": "these", "half": str(n % 4 // 2)}, delay=LEASE * (n > 5))
            for n in range(8)
        ]
        await a.insert(held, new_entry(tags={"half": "1"}), new_entry(), *rest)
        assert await b.store.counts_of({"of": "these"}) == {
            "x": _each(QUEUED=3, SCHEDULED=1),
            "y": _each(QUEUED=4, SCHEDULED=1),
        }
        ended, running, *_ = await a.claim(room={"x": 2})
        assert await a.store.finish(ended, Completed())
        await b.store.request_cancel(held.id, None, 0.0)
        assert await b.store.counts_of({"of": "these"}) == {
            "x": _each(QUEUED=1, SCHEDULED=1, RUNNING=1, COMPLETED=1),
            "y": _each(QUEUED=3, SCHEDULED=1, CANCELLED=1),
        }
        for order in (("half", "of"), ("of", "half")):  # the rarer one first, and last
            tags = {"half": "1", "of": "these"}
            assert await b.store.counts_of({name: tags[name] for name in order}) == {
                "x": _each(SCHEDULED=1, RUNNING=1),
                "y": _each(QUEUED=1, SCHEDULED=1),
            }
        for tags in ({"of": "others"}, {"OF": "these"}, {"of": "these", "half": "2"}, {"of": "these", "n": "1"}):
            assert await b.store.counts_of(tags) == {}
        for text in ("", "\0", "\ud800", "line\nbreak"):
            assert await b.store.counts_of({"of": "these", "half": text}) == {}
        assert await b.store.delete(ended.entry.id)
        await a.store.release(running, "shutdown")
        many = {f"tag {n}": "same" for n in range(100)}
        await a.insert(*(new_entry(tags={**many, "n": str(n)}) for n in range(105)))
        assert (await b.store.counts_of({"of": "these"}))["x"] == _each(QUEUED=2, SCHEDULED=1)
        assert await b.store.counts_of(many) == {"default": _each(QUEUED=105)}
        assert await b.store.counts_of({**many, "n": "3"}) == {"default": _each(QUEUED=1)}
        assert await b.store.counts_of({**many, "tag 7": "another"}) == {}


def _each(**counts: int) -> dict[JobState, int]:
    return {state: counts.get(state, 0) for state in JobState}
