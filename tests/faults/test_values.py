"""What jobs bring comes back as it was, in every durable store, however odd it is; what can't be kept is refused."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from other_texts import Label
from store_urls import STORES, check_store, new_url

import jobtrio
from jobtrio import Completed, JobState, PayloadError
from jobtrio.abc import JobQuery
from jobtrio.stores._url import parse_store_url
from jobtrio.stores.memory import MemoryJobStore
from jobtrio.testing._workers import ids, new_entry, open_worker, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio.testing import MockClock

    from jobtrio.abc import Claim, JobStore

NASTY = "a\x00b\x01\x1f\x7f\x85\u2028\ufeff\uffff 'q' \"d\" \\ {} NULL $1 %s :x -- /* \n\r\t 😀 é"


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest) -> str:
    """A place of each kind."""
    return new_url(request.param, request)


@pytest.fixture
def open_store(url: str) -> Callable[[], JobStore]:
    """Give stores on one place."""
    return parse_store_url(url).make_store


async def test_one_registry_at_a_time(open_store: Callable[[], JobStore]) -> None:
    """A store that is open can't be opened once more, and can be when it is closed; until then it takes no calls."""
    store = open_store()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="is not open"):
            await store.load("id")
        async with open_worker(lambda: store) as worker:
            with pytest.raises(RuntimeError, match="is open"):
                async with open_worker(lambda: store):
                    pass
            await worker.insert(new_entry())


async def test_nasty_texts(open_store: Callable[[], JobStore]) -> None:
    """Whatever is text comes back: in payloads, metadata, states, results, tokens, errors and reasons."""
    async with open_worker(open_store) as worker:
        nasty = {NASTY: [NASTY, {"x": NASTY}]}
        retry = jobtrio.RetryPolicy()
        claim = await worker.start(new_entry(payload=nasty, metadata=nasty, retry=retry, expires_in=60.0))
        job_id = claim.entry.id
        assert claim.entry.payload == claim.entry.metadata == nasty
        error = jobtrio.JobError("exception", NASTY, NASTY, NASTY)
        sent: list[jobtrio.Message] = [jobtrio.Token(1, 1, nasty), jobtrio.Progress(2, 1, 0.5, None, NASTY)]
        assert await worker.store.append_messages(claim, sent)
        assert await worker.store.save_state(claim, nasty)
        assert await worker.store.retry(claim, error, 0.0)
        await worker.pass_time(0)
        claim = await worker.claim_one()
        assert (claim.entry.saved_state, claim.entry.error) == (nasty, error)
        assert await worker.store.release(claim, NASTY)
        claim = await worker.claim_one()
        assert await worker.store.finish(claim, Completed(nasty))
        cancelled = await worker.start()
        assert await worker.store.request_cancel(cancelled.entry.id, NASTY, 0.0)
        assert await worker.store.finish(cancelled, Completed(), messages=tokens(1, 1))
    async with open_worker(open_store) as worker:
        record = await worker.record(job_id)
        assert (record.payload, record.metadata, record.result) == (nasty, nasty, nasty)
        assert (await worker.stream(job_id))[:2] == sent
        reasons = [line.reason for line in await worker.history(job_id)]
        assert reasons == [None, None, str(error), None, None, NASTY, None, None]
        assert (await worker.record(cancelled.entry.id)).cancel_reason == NASTY
        assert (await worker.load(cancelled.entry.id)).outcome == jobtrio.Cancelled(NASTY)


async def test_large_values_come_back(
    url: str, open_store: Callable[[], JobStore], request: pytest.FixtureRequest
) -> None:
    """Large payloads, metadata, states, results, errors and tokens come back whole, and go with their job."""
    large = {"text": "é" * 100_000}
    async with open_worker(open_store) as worker:
        claim = await worker.start(new_entry(payload=large, metadata=large, retry=jobtrio.RetryPolicy()))
        job_id = claim.entry.id
        assert claim.entry.payload == claim.entry.metadata == large
        sent = [jobtrio.Token(n, 1, large) for n in range(1, 40)]
        error = jobtrio.JobError("exception", "E", "m" * 50_000, "t" * 50_000)
        for state in (large, "small", large):
            assert await worker.store.save_state(claim, state)
        assert await worker.store.retry(claim, error, 0.0, messages=sent)
        await worker.pass_time(0)
        claim = await worker.claim_one()
        assert claim.entry.saved_state == large
        assert claim.entry.error == error
        assert await worker.store.finish(claim, Completed(large))
    async with open_worker(open_store) as worker:
        record = await worker.record(job_id)
        assert (record.payload, record.metadata, record.result, record.error) == (large, large, large, error)
        stream = await worker.stream(job_id)
        while not isinstance(stream[-1], jobtrio.End):
            stream += await worker.stream(job_id, getattr(stream[-1], "seq", 0))
        assert stream[:39] == sent
        assert await worker.store.delete(job_id)
    assert check_store(url, request) == {}


async def test_nasty_names(open_store: Callable[[], JobStore]) -> None:
    """Ids, keys, queues, executors, tags and workers may be any printable text, of any length that is allowed."""
    names = ["'; DROP TABLE jobs; --", '"\\{},NULL', "NULL", "%s$1", "é😀" * 100, "{}", "x" * 200, "\\", "("]
    async with open_worker(open_store) as worker:
        for name in names:
            executor = f"e {name}"[:200]
            entry = new_entry(executor, queue=f"q {name}"[:200], tags={name: name}, key=name, job_id=name)
            await worker.insert(entry)
            query = JobQuery(tags={name: name}, queue=entry.plan.queue, executor=executor)
            assert ids(await worker.store.find(query)) == [name]
            room, executors = {entry.plan.queue: 1}, {executor}
            claims = await worker.store.claim(f"c {name}"[:200], limit=1, lease=60.0, room=room, executors=executors)
            assert ids(claims) == [name]
            assert (await worker.insert(new_entry(key=name)))[0].id == name
            assert await worker.store.finish(claims[0], Completed(name), messages=tokens(1, 2))
            assert len(await worker.stream(name)) == 3
            assert await worker.store.delete(name)


async def test_names_of_a_text_class(open_store: Callable[[], JobStore]) -> None:
    """Names and ids that are text of a class of their own count as the plain text, wherever they are given."""
    executors = jobtrio.Executors()
    executors.register(Label("print"), queue=Label("paper"))(print)
    async with jobtrio.open_registry(executors, store=open_store(), queues={Label("paper"): 1}) as registry:
        held = await registry.create_job(queue=Label("paper"), metadata={Label("a"): 1})
        async with registry.execute_and_stream(Label(held.id), Label("print")) as lines:
            with trio.fail_after(60):
                assert [line async for line in lines] == ["[DONE]"]
        job = await registry.submit(print, job_id=Label("id"), key=Label("key"))
        with trio.fail_after(60):
            assert await job.wait() == Completed()
        texts = (job.id, job.record.executor, job.record.queue, job.record.key, executors.get("print").queue)
        plain = ("id", "print", "paper", "key", "paper")
        assert [(type(text), text) for text in texts] == [(str, text) for text in plain]
        assert (await registry.get(Label(held.id))).record.metadata == {"a": 1}
        assert await registry.find(after=Label(held.id)) == [job.record]
        assert await registry.history(Label("id")) == await registry.history("id")
        assert not await registry.cancel(Label("id"))
        await registry.remove(Label("id"))
        assert registry.peek(Label("id")) is None


async def test_texts_that_utf8_cannot_hold(open_store: Callable[[], JobStore]) -> None:
    """Half a surrogate pair, in an exception's message or a reason, is stored as an escape."""
    async with open_worker(open_store) as worker:
        failed, cancelled = await worker.start(), await worker.start()
        error = jobtrio.JobError("exception", "E\ud800", "half \ud800", "\udfff")
        assert await worker.store.finish(failed, jobtrio.Failed(error))
        assert await worker.store.request_cancel(cancelled.entry.id, "why \udfff", 0.0)
        assert await worker.store.finish(cancelled, Completed(), messages=tokens(1, 1))
        stored = jobtrio.JobError("exception", "E\\ud800", "half \\ud800", "\\udfff")
        assert (await worker.record(failed.entry.id)).error == stored
        assert (await worker.record(cancelled.entry.id)).cancel_reason == "why \\udfff"


async def test_names_that_no_job_can_have(open_store: Callable[[], JobStore]) -> None:
    """What can't be an id is that of no job, and what can't be a queue or a tag is none's."""
    names = ["\ud800", "", "a\nb", "\0", "x" * 100_000]
    async with jobtrio.open_registry(store=open_store(), queues={}) as registry:
        for name in names:
            for call in (registry.get, registry.history, registry.cancel, registry.remove):
                with pytest.raises(jobtrio.UnknownJobError):
                    await call(name)
            with pytest.raises(jobtrio.UnknownJobError):
                await registry.find(after=name)
    async with open_worker(open_store) as worker:
        claim = await worker.start()
        await worker.insert(new_entry(None))
        for name in names:
            assert await worker.store.read_messages(name, 0, 10) is None
            assert await worker.store.follow(name, 0, 10) == (None, None)
            assert not await worker.store.start_held(name, claim.entry.plan)
            for query in (JobQuery(queue=name), JobQuery(executor=name), JobQuery(tags={"x": name})):
                assert await worker.store.find(query) == []


class Panicky:
    """A value whose own code raises what is no `Exception`."""

    def __repr__(self) -> str:
        raise BaseException("broken")


async def test_values_that_cannot_be_stored(open_store: Callable[[], JobStore]) -> None:
    """What JSON can't hold, or is larger than 8 MiB, is refused before anything is stored."""
    executors = jobtrio.Executors()

    @executors.register("return")
    async def give_back(job: jobtrio.JobContext) -> Any:
        with pytest.raises(PayloadError):
            await job.send(object())
        with pytest.raises(PayloadError):
            await job.save_state({1, "x", object()})
        return object() if job.payload is None else Panicky()

    async with jobtrio.open_registry(executors, store=open_store()) as registry:
        for payload in (object(), "\ud800", float("nan"), "x" * 10_000_000, {"x": [object()]}):
            with pytest.raises(PayloadError):
                await registry.submit("return", payload)
        assert await registry.find() == []
        for payload in ("x" * 8_000_000, None):
            outcome = await (await registry.submit("return", payload)).wait()
            assert isinstance(outcome, jobtrio.Failed)
            assert outcome.error.type == "PayloadError"


async def test_no_time_limit(open_store: Callable[[], JobStore]) -> None:
    """A job whose time limit is infinite has none in any process, even where its executor is registered with one."""
    executors = jobtrio.Executors()

    @executors.register("named", time_limit=3)
    async def named(job: jobtrio.JobContext) -> str:
        return str(job.deadline)

    async with jobtrio.open_registry(executors, store=open_store(), queues={}) as registry:
        held = await registry.create_job(time_limit=math.inf)
        assert (await registry.find())[0].time_limit == math.inf
        plain = await registry.submit("named", time_limit=math.inf)
    async with jobtrio.open_registry(executors, store=open_store()) as registry:
        async with registry.execute_and_stream(held.id, "named") as lines:
            assert [line async for line in lines] == ["[DONE]"]
        assert await (await registry.get(held.id)).result() == await (await registry.get(plain.id)).result() == "inf"


async def test_times_outlast_the_process(open_store: Callable[[], JobStore]) -> None:
    """Scheduled and held jobs, and those that wait for a retry, keep their times when all processes have ended."""
    executors = jobtrio.Executors()

    @executors.register("fail", retry=jobtrio.RetryPolicy(initial=300, jitter=0))
    async def fail(job: jobtrio.JobContext) -> None:
        raise ValueError(job.id)

    async with jobtrio.open_registry(executors, store=open_store()) as registry:
        scheduled = await registry.submit("fail", delay=300)
        held = await registry.create_job()
        retrying = await registry.submit("fail")
        with trio.fail_after(60), registry.subscribe_events() as events:
            while (await events.receive()).state is not JobState.RETRYING:
                pass
        records = [(await registry.get(job.id)).record for job in (scheduled, held, retrying)]
    async with jobtrio.open_registry(executors, store=open_store()) as registry:
        assert [(await registry.get(job.id)).record for job in (scheduled, held, retrying)] == records
        assert [record.state for record in records] == ["SCHEDULED", "QUEUED", "RETRYING"]


async def test_a_clock_that_is_wrong(open_store: Callable[[], JobStore], monkeypatch: pytest.MonkeyPatch) -> None:
    """When a delay ends is told by the clock that tells when the job was submitted, not by the submitter's."""
    executors = jobtrio.Executors()
    executors.register("print")(print)
    late = SimpleNamespace(time=lambda: time.time() - 3600)
    monkeypatch.setattr("jobtrio._submission.time", late)
    async with jobtrio.open_registry(executors, store=open_store(), queues={}) as registry:
        job = await registry.submit("print", delay=100, expires_in=200)
        for record in (job.record, *await registry.find()):
            assert record.run_at is not None
            assert abs(record.run_at - record.created_at - timedelta(seconds=100)) < timedelta(milliseconds=1)


class TrustingStore(MemoryJobStore):
    """A durable store, as far as registries can tell, that encodes results as the contract has it and nothing else."""

    durable = True
    claims_at_once = False

    async def finish(
        self,
        claim: Claim,
        outcome: jobtrio.Outcome,
        *,
        error: jobtrio.JobError | None = None,
        messages: Sequence[jobtrio.Message] = (),
    ) -> bool:
        """End a running job."""
        if isinstance(outcome, Completed):
            msgspec.json.encode(outcome.result)
        return await super().finish(claim, outcome, error=error, messages=messages)


async def test_a_store_that_checks_no_result(autojump_clock: MockClock) -> None:
    """A result that can't be stored fails its own job alone, whatever a store raises that is not of this library."""
    executors = jobtrio.Executors()

    @executors.register("return")
    async def give_back(job: jobtrio.JobContext) -> Any:
        await trio.sleep(1.0 if job.payload else 0.0)
        return job.payload or object()

    async with jobtrio.open_registry(executors, store=TrustingStore()) as registry:
        other = await registry.submit("return", "good")
        outcome = await (await registry.submit("return")).wait()
        assert isinstance(outcome, jobtrio.Failed)
        assert outcome.error.type == "PayloadError"
        assert await other.wait() == Completed("good")


async def test_a_store_that_fails_once() -> None:
    """What a store raises at the end of a job is not passed over where it is not about the result."""

    class FailingStore(TrustingStore):
        has_failed = False

        async def finish(self, claim: Claim, outcome: jobtrio.Outcome, **more: Any) -> bool:
            if not self.has_failed:
                self.has_failed = True
                raise ArithmeticError("as told")
            return await super().finish(claim, outcome, **more)

    executors = jobtrio.Executors()

    @executors.register("return")
    async def give_back(job: jobtrio.JobContext) -> str:
        return "good"

    with pytest.raises(ArithmeticError, match="as told"):
        async with jobtrio.open_registry(executors, store=FailingStore()) as registry:
            await (await registry.submit("return")).wait()
