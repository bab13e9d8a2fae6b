"""A change is told once, also where somebody in the same process has read it before its writer was answered."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from store_urls import STORES, new_url

from jobtrio import (
    Cancelled,
    Completed,
    End,
    Executors,
    Failed,
    JobState,
    Restart,
    RetryPolicy,
    Token,
    open_registry,
)
from jobtrio import _entry as steps
from jobtrio._events import Events
from jobtrio._known import refresh
from jobtrio.stores._announcer import Announcer, Placed, Settled
from jobtrio.stores._url import parse_store_url
from jobtrio.testing._workers import ERROR, LEASE, Heard, new_entry, open_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio import JobContext
    from jobtrio._entry import JobEntry
    from jobtrio.abc import Claim, JobStore
    from jobtrio.testing._workers import Worker


def _copied(entry: JobEntry) -> JobEntry:
    twin = copy.copy(entry)
    twin.steps = list(entry.steps or ())
    return twin


def _announcer(heard: Heard) -> Announcer:
    return Announcer(heard, time.monotonic, lambda: None)


def overtake(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an entry read what is stored just before its writer is answered, as a reader that is quicker would."""
    announcer: Any = worker.store._opened.announcer  # type: ignore[attr-defined]
    for name in ("learned", "ended"):
        monkeypatch.setattr(announcer, name, _behind_a_reader(_announcer(Heard()), name, getattr(announcer, name)))


def _behind_a_reader(quiet: Any, name: str, tell: Callable[..., None]) -> Callable[..., None]:
    def told(entry: JobEntry, *arguments: Any, **options: Any) -> None:
        read = _copied(entry)
        getattr(quiet, name)(read, *arguments, **options)
        refresh(entry, read)
        tell(entry, *arguments, **options)

    return told


@pytest.fixture(params=STORES)
def make_store(request: pytest.FixtureRequest) -> Callable[[], JobStore]:
    """Gives a store, not opened yet, on one and the same place."""
    address = parse_store_url(new_url(request.param, request))
    return address.make_store


async def fail(worker: Worker, claim: Claim) -> None:
    assert await worker.store.finish(claim, Failed(ERROR))


async def complete(worker: Worker, claim: Claim) -> None:
    assert await worker.store.finish(claim, Completed(1))


async def cancel(worker: Worker, claim: Claim) -> None:
    await worker.store.request_cancel(claim.entry.id, "why", 0.0)
    assert await worker.store.finish(claim, Cancelled("why"))


async def retry(worker: Worker, claim: Claim) -> None:
    assert await worker.store.retry(claim, ERROR, LEASE)


async def release(worker: Worker, claim: Claim) -> None:
    assert await worker.store.release(claim, "shutdown")


LEAVING = (complete, fail, cancel, retry, release)


@pytest.mark.parametrize("leave", LEAVING)
async def test_overtaken_by_a_reader(
    make_store: Callable[[], JobStore], monkeypatch: pytest.MonkeyPatch, leave: Callable[[Worker, Claim], Any]
) -> None:
    """What a reader has brought an entry to is told all the same, and once, when the writer is answered."""
    async with open_worker(make_store) as worker:
        claim = await worker.start(new_entry(retry=RetryPolicy()))
        overtake(worker, monkeypatch)
        await leave(worker, claim)
        history = await worker.history(claim.entry.id)
        assert worker.heard.of(claim.entry.id) == history
        assert claim.entry.state is history[-1].state
        assert claim.entry.state is not JobState.RUNNING
        assert claim.entry.history() == history


def test_overtaken_by_the_end() -> None:
    """An entry that a reader has brought to the job's end stays there when the writer of an attempt is answered."""
    entry, heard = new_entry(), Heard()
    entry.order = 1
    steps.start(entry, claim="here", worker="a", now=1.0)
    steps.become_ready(entry, worker="a", now=2.0, reason="shutdown")
    stored = _copied(entry)
    steps.start(entry, claim="elsewhere", worker="b", now=3.0)
    steps.finish(entry, Completed(1), worker="b", now=4.0)
    _announcer(heard).settled(entry, Settled(stored, is_news=True))
    assert entry.outcome == Completed(1)
    assert [line.state for line in entry.history()] == ["QUEUED", "RUNNING", "QUEUED", "RUNNING", "COMPLETED"]


def _claimed(entry: JobEntry) -> JobEntry:
    """Return a new job as a claim finds it."""
    stored = copy.copy(entry)
    stored.order = 7
    steps.start(stored, claim="claim", worker="a", now=time.time())
    return stored


def test_overtaken_by_a_claim() -> None:
    """A new job is told of before its start, though the claim is answered first."""
    entry, heard = new_entry(submission="mark"), Heard()
    announcer, stored = _announcer(heard), _claimed(entry)
    with announcer.putting_in([entry], "mark"):
        announcer.changed([stored])
        announcer.placed(entry, Placed(7, JobState.QUEUED, entry.created_at, 0.0, None), "mark")
    assert heard.changes == stored.history() == entry.history()
    assert (entry.order, entry.state) == (7, JobState.RUNNING)


def test_overtaken_by_a_claim_and_its_end() -> None:
    """A new job is told of once, before all that becomes of it by the time that its call is answered."""
    entry, heard = new_entry(submission="mark"), Heard()
    announcer, stored = _announcer(heard), _claimed(entry)
    with announcer.putting_in([entry], "mark"):
        announcer.changed([stored])
        ended = _copied(stored)
        steps.finish(ended, Completed(1), worker="a", now=time.time())
        announcer.changed([ended])
        announcer.placed(entry, Placed(7, JobState.QUEUED, entry.created_at, 0.0, None), "mark")
    assert heard.changes == ended.history()


def test_overtaken_by_a_claim_beside_a_call_with_the_same_id() -> None:
    """A new job is told of before its start, though another call under way has its id, and is refused for that."""
    entry, heard = new_entry(submission="mark"), Heard()
    announcer, stored = _announcer(heard), _claimed(entry)
    with announcer.putting_in([entry], "mark"):
        with announcer.putting_in([_copied(entry)], "another"):
            announcer.changed([stored])
        announcer.placed(entry, Placed(7, JobState.QUEUED, entry.created_at, 0.0, None), "mark")
    assert heard.changes == stored.history() == entry.history()


def test_overtaken_by_a_claim_where_a_call_repeats_an_id() -> None:
    """A new job is told of before its start, though a later one of its call that it stands for has its id as well."""
    entry, heard = new_entry(submission="mark", key="key"), Heard()
    announcer, stored = _announcer(heard), _claimed(entry)
    with announcer.putting_in([entry, _copied(entry)], "mark"):
        announcer.changed([stored])
        announcer.placed(entry, Placed(7, JobState.QUEUED, entry.created_at, 0.0, None), "mark")
    assert heard.changes == stored.history() == entry.history()


def test_told_of_by_the_second_call() -> None:
    """A new job whose first call was answered by nobody is told of as it began, whatever was told of it since."""
    entry, heard = new_entry(submission="mark"), Heard()
    announcer, stored = _announcer(heard), _claimed(entry)
    announcer.changed([stored])
    announcer.learned(entry, stored)
    assert [line.state for line in heard.changes] == ["RUNNING", "QUEUED"]
    assert entry.history() == stored.history()


def test_overtaken_by_the_next_start() -> None:
    """An attempt's end is told of though the job's entry knows of the next one by then."""
    entry, heard = new_entry(), Heard()
    entry.order = 1
    steps.start(entry, claim="one", worker="a", now=1.0)
    steps.become_ready(entry, worker="a", now=2.0, reason="shutdown")
    stored = _copied(entry)
    steps.start(entry, claim="two", worker="a", now=3.0)
    _announcer(heard).settled(entry, Settled(stored, is_news=True))
    assert [line.state for line in heard.changes] == ["QUEUED"]


async def test_events_of_what_was_overtaken(make_store: Callable[[], JobStore]) -> None:
    """An event is of the change that is told, though others in this process know what came after it."""
    async with open_registry(store=make_store(), queues={}) as registry, registry.subscribe_events() as events:
        job = await registry.create_job()
        await job.cancel()
        told = copy.copy(job._entry)
        told.steps = None
        registry._core.changed(told)
        assert [(await events.receive()).state for _ in range(3)] == ["QUEUED", "CANCELLED", "QUEUED"]


@pytest.mark.parametrize("by", ["this", "another"])
async def test_events_in_order(make_store: Callable[[], JobStore], by: str) -> None:
    """What this process has done with a job is told in order and once, whichever answer is the first."""
    async with open_registry(store=make_store(), queues={}, worker="this") as registry:
        with registry.subscribe_events() as events:
            core, running = registry._core, new_entry(retry=RetryPolicy())
            running.order = 1
            steps.start(running, claim="one", worker="this", now=1.0)
            core.changed(running)
            retrying = _copied(running)
            steps.retry(retrying, ERROR, worker="this", now=2.0)
            ready = _copied(retrying)
            steps.become_ready(ready, worker=by, now=3.0)
            again = _copied(ready)
            steps.start(again, claim="two", worker="this", now=4.0)
            for told in (again, ready, retrying) if by == "this" else (again, retrying):
                core.changed(told)
            states = [(await events.receive()).state for _ in range(4 if by == "this" else 3)]
            assert states == ["RUNNING", "RETRYING", *(["QUEUED"] if by == "this" else []), "RUNNING"]
            with pytest.raises(trio.WouldBlock):
                events.receive_nowait()


async def test_no_events_of_what_nobody_listened_to(make_store: Callable[[], JobStore]) -> None:
    """A subscription begins with the next change, whatever was told before the last one to listen had left."""
    async with open_registry(store=make_store(), queues={}, worker="this") as registry:
        core, entry = registry._core, new_entry(retry=RetryPolicy())
        entry.order = 1
        steps.start(entry, claim="one", worker="this", now=1.0)
        with registry.subscribe_events():
            pass
        core.changed(entry)  # nobody is left
        steps.retry(entry, ERROR, worker="this", now=2.0)
        core.changed(entry)
        with registry.subscribe_events() as events:
            steps.become_ready(entry, worker="this", now=3.0)
            core.changed(entry)
            assert (await events.receive()).state == "QUEUED"
            with pytest.raises(trio.WouldBlock):
                events.receive_nowait()


def test_repeated_with_a_long_history() -> None:
    """What is asked for once more is told once also where no more changes are kept than before."""
    entry, heard = new_entry(), Heard()
    entry.order = 1
    steps.start(entry, claim="one", worker="a", now=1.0)
    for _ in range(steps.HISTORY):
        steps.become_ready(entry, worker="a", now=2.0)
        steps.start(entry, claim="one", worker="a", now=2.0)
    stored = _copied(entry)
    steps.become_ready(stored, worker="a", now=3.0)
    steps.start(stored, claim="two", worker="a", now=3.0)
    assert len(stored.history()) == len(entry.history())
    announcer = _announcer(heard)
    for _ in range(2):
        announcer.settled(entry, Settled(stored, is_news=False))
    assert heard.changes == [stored.last_transition()]


@pytest.mark.parametrize("leave", LEAVING)
async def test_repeated(make_store: Callable[[], JobStore], leave: Callable[[Worker, Claim], Any]) -> None:
    """What is asked for once more is not told once more."""
    async with open_worker(make_store) as worker:
        claim = await worker.start(new_entry(retry=RetryPolicy()))
        await leave(worker, claim)
        await leave(worker, claim)
        assert worker.heard.of(claim.entry.id) == await worker.history(claim.entry.id)


@pytest.mark.parametrize("write", ["retry", "release"])
async def test_an_end_that_overtakes_a_restart(
    make_store: Callable[[], JobStore], monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """Where a job is cancelled before its attempt's writer is answered, consumers get the `Restart` that is stored."""
    store, stored, answer = make_store(), trio.Event(), trio.Event()
    original = getattr(store, write)

    async def held_up(*arguments: Any, **options: Any) -> Any:
        kept = await original(*arguments, **options)
        stored.set()
        await answer.wait()
        return kept

    async def stumble(job: JobContext) -> None:
        await job.send("a")
        if write == "release":
            await trio.sleep_forever()
        raise ValueError

    monkeypatch.setattr(store, write, held_up)
    executors = Executors()
    executors.register("stumble", retry=RetryPolicy(initial=LEASE))(stumble)
    async with open_registry(executors, store=store) as registry, trio.open_nursery() as nursery:
        job = await registry.submit("stumble")
        with job.subscribe() as messages:
            seen = [await messages.receive()]
            if write == "release":
                nursery.start_soon(registry.shutdown)
            await stored.wait()
            assert await job.cancel()
            answer.set()
            seen += [message async for message in messages]
    assert [(type(message), getattr(message, "seq", None)) for message in seen] == [(Token, 1), (Restart, 2), (End, 3)]


async def test_answers_that_say_nothing_new() -> None:
    """An answer that is as old as what was told, or older, tells nothing, and has nothing told again."""
    events = Events()
    listener = events.subscribe()
    entry = new_entry()
    steps.start(entry, claim="c", worker="a", now=1.0)
    older = _copied(entry)
    events.publish_in_order(entry, older, "a")
    steps.retry(entry, ERROR, worker="a", now=2.0)
    for told in (entry, entry, older, entry):
        events.publish_in_order(entry, told, "a")
    assert [listener.receive_nowait().state for _ in range(2)] == ["RUNNING", "RETRYING"]
    with pytest.raises(trio.WouldBlock):
        listener.receive_nowait()
