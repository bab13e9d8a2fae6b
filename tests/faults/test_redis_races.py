"""What comes between two steps on a Redis, as a renewal before a verdict, and what other workers are told."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from redis_invariants import check_jobs
from valkey_server import new_prefix, shared_server

import jobtrio
from jobtrio import Cancelled, Completed, JobState, RetryPolicy
from jobtrio._known import refresh
from jobtrio.stores._claims import Wanted
from jobtrio.stores.redis import RedisJobStore
from jobtrio.stores.redis import _advancing as advancing
from jobtrio.stores.redis import _claiming as claiming
from jobtrio.stores.redis._session import Session
from jobtrio.stores.redis._subscriber import Subscriber
from jobtrio.testing import _check_signals
from jobtrio.testing._workers import ERROR, LEASE, SHORT, ids, new_entry, new_plan, open_worker, open_workers, tokens

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio.stores.redis._scripts import Run
    from jobtrio.testing import StoreCheck
    from jobtrio.testing._workers import Worker


@pytest.fixture
def prefix() -> str:
    """A prefix of the test's own."""
    return new_prefix()


@pytest.fixture
def open_store(prefix: str) -> Callable[[], RedisJobStore]:
    """Give stores on the shared server."""
    return lambda: RedisJobStore(shared_server().url, prefix=prefix)


async def test_renewed_before_the_verdict(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """A lease that was found to be over, and renewed before its job was taken, is kept."""
    async with open_worker(open_store) as worker:
        claim = await worker.start(lease=SHORT)
        await trio.sleep(2 * SHORT)
        session = worker.store._session  # type: ignore[attr-defined]
        due = await session.call(advancing.look(session.worker), advancing.found)
        assert ids(due.lapsed) == [claim.entry.id]
        (report,) = await worker.store.renew([claim], LEASE)
        assert report.held
        verdicts = advancing.verdicts(due, session.worker, session.settings.retention)
        assert await session.calls.make(verdicts, lambda answers: answers) == [None]
        assert (await worker.load(claim.entry.id)).state is JobState.RUNNING
        assert await worker.store.finish(claim, Completed())
    check_jobs(shared_server(), prefix)


@pytest.mark.parametrize("meanwhile", ["finished", "claimed again", "cancelled"])
async def test_verdicts_that_come_too_late(
    open_store: Callable[[], RedisJobStore], prefix: str, meanwhile: str
) -> None:
    """What was found to be due is not carried out where something else has become of the job meanwhile."""
    async with open_worker(open_store) as worker:
        (entry,) = await worker.insert(new_entry(expires_in=SHORT if meanwhile == "cancelled" else None))
        if meanwhile != "cancelled":
            (claim,) = await worker.store.claim("same", limit=1, lease=SHORT)
        await trio.sleep(2 * SHORT)
        session = worker.store._session  # type: ignore[attr-defined]
        due = await session.call(advancing.look(session.worker), advancing.found)
        assert ids([*due.lapsed, *due.expired]) == [entry.id]
        match meanwhile:
            case "finished":
                assert await worker.store.finish(claim, Completed())
            case "claimed again":
                assert await worker.store.release(claim, "shutdown")
                assert len(await worker.store.claim("same", limit=1, lease=SHORT / 10)) == 1
                await trio.sleep(SHORT)
            case _:
                assert await worker.store.request_cancel(entry.id, None, 0.0)
        states = await worker.states(entry.id)
        verdicts = advancing.verdicts(due, session.worker, session.settings.retention)
        assert await session.calls.make(verdicts, lambda answers: answers) == [None]
        assert await worker.states(entry.id) == states
    check_jobs(shared_server(), prefix)


@pytest.mark.parametrize(
    "check", [_check_signals.check_earlier_times_are_announced, _check_signals.check_work_is_announced]
)
async def test_news_of_its_own(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch, check: StoreCheck
) -> None:
    """A process knows of what it has done itself, also while it hears no hints."""

    async def hear_nothing(subscriber: Subscriber) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(Subscriber, "run", hear_nothing)
    await check(open_store)


async def test_a_claim_whose_answer_was_lost(open_store: Callable[[], RedisJobStore]) -> None:
    """A claim that is made again, for want of an answer, is told of."""
    async with open_worker(open_store) as worker:
        (entry,) = await worker.insert(new_entry())
        session = worker.store._session  # type: ignore[attr-defined]
        await session.call(claiming.claim(session, Wanted("one", 1, LEASE, None, None)), lambda _: None)
        for _ in range(2):
            assert ids(await worker.store.claim("one", limit=1, lease=LEASE)) == [entry.id]
        assert worker.heard.of(entry.id) == await worker.history(entry.id)


async def test_doubtful_calls(open_store: Callable[[], RedisJobStore]) -> None:
    """A call that was not answered is taken for the one that did what is found, if it can have been; and once."""
    async with open_worker(open_store) as worker:
        session = worker.store._session  # type: ignore[attr-defined]
        (started, ended) = await worker.insert(new_entry(None), new_entry())
        assert await worker.store.start_held(started.id, new_plan("one"))
        for name, expected in (("another", False), ("one", True)):
            session.doubtful.add(("start_held", started.id))
            assert await worker.store.start_held(started.id, new_plan(name)) is expected
        assert not await worker.store.start_held(started.id, new_plan("one"))
        assert await worker.store.request_cancel(ended.id, None, 0.0)
        session.doubtful.add(("cancel", ended.id))
        for accepted in (True, False):
            reply = await worker.store.request_cancel(ended.id, None, 0.0)
            assert reply is not None
            assert reply.accepted is accepted


async def test_a_renewal_that_is_older_than_a_request(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request to cancel that a process knows of is not forgotten for a renewal that was carried out before it."""
    async with open_worker(open_store) as worker:
        claim = await worker.start()
        renewed, requested = trio.Event(), trio.Event()

        async def answer_late(session: Session, call: Run, after: Callable[[Any], Any]) -> Any:
            answer = await call_at_once(session, call, lambda answer: answer)
            renewed.set()
            await requested.wait()
            return after(answer)

        call_at_once = Session.call
        async with trio.open_nursery() as nursery:
            with monkeypatch.context() as patch:
                patch.setattr(Session, "call", answer_late)
                nursery.start_soon(worker.store.renew, [claim], LEASE)
                await renewed.wait()
            reply = await worker.store.request_cancel(claim.entry.id, "why", 0.0)
            assert reply is not None
            refresh(claim.entry, reply.entry)
            requested.set()
        assert claim.entry.record().cancel_reason == "why"


@pytest.mark.parametrize("again", [False, True])
async def test_a_state_that_arrives_late(
    open_store: Callable[[], RedisJobStore], prefix: str, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """What a cut network delivers late, behind saves that were acknowledged, changes nothing, whoever has the job."""
    async with open_workers(open_store, "a", "b") as (a, b):
        claim = await a.start()
        late: list[Run] = []

        async def note(session: Session, call: Run, after: Callable[[Any], Any]) -> Any:
            late.append(call)
            return await call_at_once(session, call, after)

        call_at_once = Session.call
        with monkeypatch.context() as patch:
            patch.setattr(Session, "call", note)
            assert await a.store.save_state(claim, "old")
        assert await a.store.save_state(claim, "new")
        if again:
            await a.store.release(claim, "shutdown")
            claim = await b.claim_one()
            assert await b.store.save_state(claim, "newest")
            await b.store.release(claim, "shutdown")
            claim = await a.claim_one()
            assert claim.entry.saved_state == "newest"
        session = a.store._session  # type: ignore[attr-defined]
        await session.calls.make(late, lambda answers: answers)
        assert (await b.load(claim.entry.id)).saved_state == ("newest" if again else "new")
        assert await a.store.save_state(claim, "last")
        assert (await b.load(claim.entry.id)).saved_state == "last"
        assert await b.store.save_state(claim, "of another process")
        assert (await a.load(claim.entry.id)).saved_state == "of another process"
    check_jobs(shared_server(), prefix)


@pytest.mark.parametrize("emptied_by", ["cancel", "expiry"])
async def test_a_line_that_was_emptied(open_store: Callable[[], RedisJobStore], prefix: str, emptied_by: str) -> None:
    """When the last job of a line has gone without a start, the next one is announced to other workers again."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await _hears(b)
        entry = new_entry(expires_in=SHORT if emptied_by == "expiry" else None)
        await a.insert(entry)
        await b.heard.wait_for("work_ready")
        if emptied_by == "cancel":
            await a.store.request_cancel(entry.id, None, 0.0)
        else:
            await a.pass_time()
        check_jobs(shared_server(), prefix)
        await _settled(b)
        await a.insert(new_entry())
        await b.heard.wait_for("work_ready")


async def test_a_line_that_grows(open_store: Callable[[], RedisJobStore]) -> None:
    """Behind jobs that are ready, others are not announced: each worker with room has been told of the first."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await _hears(b)
        for entry in (new_entry(), new_entry(queue="another")):
            await a.insert(entry)
            await b.heard.wait_for("work_ready")
            await _settled(b)
        await a.insert(new_entry(), new_entry(queue="another"))
        await a.insert(new_entry(delay=LEASE))
        await b.heard.wait_for("due_changed")  # this comes behind what is said of the others
        assert not b.heard._event("work_ready").is_set()


async def test_earlier_times_are_told_to_others(open_store: Callable[[], RedisJobStore]) -> None:
    """Other workers are told what falls due before all that they know of, and need not look again and again."""
    async with open_workers(open_store, "a", "b") as (a, b):
        await a.insert(new_entry(retry=RetryPolicy()), new_entry())
        (running,) = await a.claim(limit=1, lease=9 * LEASE)
        await _hears(b)
        changes: tuple[tuple[float, Callable[[float], Awaitable[object]]], ...] = (
            (8 * LEASE, lambda seconds: a.insert(new_entry(delay=seconds))),
            (7 * LEASE, lambda seconds: a.insert(new_entry(expires_in=seconds, queue="unused"))),
            (6 * LEASE, lambda seconds: a.store.retry(running, ERROR, seconds)),
            (5 * LEASE, lambda seconds: a.claim(lease=seconds)),
        )
        for seconds, change in changes:
            assert await b.advance() > seconds
            await _settled(b)
            await change(seconds)
            await b.heard.wait_for("due_changed")
            assert seconds - LEASE < await b.advance() <= seconds


async def test_messages_are_told_to_others(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads a job's messages is told of new ones in another process, of each `Restart`, and of the `End`."""
    async with open_workers(open_store, "a", "b") as (a, b):
        told = partial(b.heard._event, "messages_added")
        monkeypatch.setattr(b.heard, "messages_added", lambda _: told().set())
        await _hears(b)
        claim = await a.start(new_entry(retry=RetryPolicy()))
        (waiting,) = await a.insert(new_entry(delay=LEASE))
        changes: tuple[tuple[str, Callable[[], Awaitable[object]]], ...] = (
            (claim.entry.id, lambda: a.store.append_messages(claim, tokens(1, 1))),
            (claim.entry.id, lambda: a.store.retry(claim, ERROR, LEASE)),
            (claim.entry.id, lambda: a.store.request_cancel(claim.entry.id, "why", 0.0)),
            (waiting.id, lambda: a.store.request_cancel(waiting.id, "why", 0.0)),
        )
        for job_id, change in changes:
            await b.stream(job_id)
            await _settled(b)
            await change()
            await b.heard.wait_for("messages_added")


async def test_workers_leave_nothing(open_store: Callable[[], RedisJobStore], prefix: str) -> None:
    """Of a worker that is closed nothing stays, nor of one that was killed, once its time is up and another comes."""
    server = shared_server()
    async with open_worker(open_store) as worker:
        server.ask("ZADD", f"{{{prefix}}}:workers", 1, "killed")
        server.ask("HSET", f"{{{prefix}}}:sessions", "killed", '0,0,"w"')
        await worker.store.renew([], LEASE)
        assert server.ask("HLEN", f"{{{prefix}}}:sessions") == server.ask("ZCARD", f"{{{prefix}}}:workers") == 1
    assert server.ask("EXISTS", f"{{{prefix}}}:sessions", f"{{{prefix}}}:workers") == 0


async def test_two_connections(open_store: Callable[[], RedisJobStore]) -> None:
    """However much a process asks for, and however many jobs it watches, a server has two of its connections."""
    executors = jobtrio.Executors()

    @executors.register("say")
    async def say(job: jobtrio.JobContext) -> None:
        await job.send(job.id)

    before = _connections()
    async with jobtrio.open_registry(executors, store=open_store()) as registry, trio.open_nursery() as nursery:
        for job in await registry.submit_many([jobtrio.JobSpec("say")] * 10):
            nursery.start_soon(job.wait)
            nursery.start_soon(registry.find)
        await job.wait()
        assert len(_connections() - before) == 2


def _connections() -> set[str]:
    """Return the ids of all connections that the server has, but for the one that asks."""
    listed = str(shared_server().ask("CLIENT", "LIST"))
    return {line.split()[0] for line in listed.splitlines() if "cmd=client|list" not in line}


async def _hears(worker: Worker) -> None:
    """Wait until a worker hears hints: it is told to look everywhere then."""
    await worker.heard.wait_for("due_changed")
    await _settled(worker)


async def _settled(worker: Worker) -> None:
    await trio.sleep(SHORT)  # for what is under way to arrive
    worker.heard.forget()


async def test_cancelled_before_hints_are_heard(
    open_store: Callable[[], RedisJobStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request made while a worker did not listen yet, or not for a moment, is found when it does."""
    listens, run = trio.Event(), Subscriber.run

    async def run_late(subscriber: Subscriber) -> None:
        await listens.wait()
        await run(subscriber)

    monkeypatch.setattr(Subscriber, "run", run_late)
    executors = jobtrio.Executors()
    begun = trio.Event()

    @executors.register("hang")
    async def hang(job: jobtrio.JobContext) -> None:
        begun.set()
        await trio.sleep_forever()

    async with jobtrio.open_registry(executors, store=open_store(), lease=600.0) as worker:
        job = await worker.submit("hang")
        with trio.fail_after(60):
            await begun.wait()
            async with jobtrio.open_registry(executors, store=open_store(), queues={}) as registry:
                assert await registry.cancel(job.id, "enough")
            listens.set()
            assert await job.wait() == Cancelled("enough")
