"""The multiplexed form: what each request is answered by, on a line without sockets."""

from __future__ import annotations

import json
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from bridge import executors, hang, shout, words
from line import anybody, known, open_line, owners
from turns import Turns

import jobtrio
from jobtrio import Retention, RetryPolicy
from jobtrio.websocket import CloseCode, Handshake, Limits
from jobtrio.websocket._multiplexed import MultiplexedSession
from jobtrio.websocket._pauses import Pauses
from jobtrio.websocket.protocol import decode_retry_after
from jobtrio.websocket.session import Farewell

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from datetime import datetime

    from line import Line
    from trio.testing import MockClock

    from jobtrio import JobContext, JobRegistry


@pytest.fixture
async def registry() -> AsyncIterator[JobRegistry]:
    """Open a registry of the tests' executors."""
    async with jobtrio.open_registry(executors, retention=Retention(tokens_per_job=100)) as registry:
        yield registry
        await registry.shutdown()


async def items_of(line: Line, sub: int = 1) -> list[Any]:
    """Return what the job of a subscription sends, to its end."""
    items: list[Any] = []
    while (message := await line.hear())["type"] != "end":
        if message["type"] == "events" and message["sub"] == sub:
            items += message["items"]
    return items


async def test_hello(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """The server speaks first, and says what to keep to."""
    async with open_line(registry, limits=Limits(heartbeat=5, subscriptions=3)) as line:
        assert await line.hear() == {
            "type": "hello",
            "proto": "jobtrio.v1",
            "heartbeat": 5.0,
            "limits": {"message_bytes": 65536, "subscriptions": 3, "messages_per_second": 50, "attempts": 10},
        }


async def test_hello_to_the_letter(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """The limits are whole numbers also in their writing, for clients that read them into integers."""
    async with open_line(registry) as line:
        await line.hear()
        assert line.texts[0] == (
            '{"type":"hello","proto":"jobtrio.v1","heartbeat":15.0,'
            '"limits":{"message_bytes":65536,"subscriptions":32,"messages_per_second":50,"attempts":10}}'
        )


async def test_submit_and_watch(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A job is submitted with its options, watched from its beginning, and its record asked for."""
    async with open_line(registry, authenticate=anybody) as line:
        submitted = await line.ask(
            {
                "type": "submit",
                "id": "a",
                "executor": "words",
                "payload": "to be",
                "subscribe": True,
                "key": "k",
                "priority": "HIGH",
                "time_limit": 60,
                "expires_in": 100,
                "tags": {"a": "b"},
                "metadata": {"n": [1, None]},
            }
        )
        job = await registry.get(submitted["job"])
        assert submitted == {"type": "submitted", "id": "a", "job": job.id, "sub": 1, "epoch": submitted["epoch"]}
        assert await line.hear() == {"type": "events", "sub": 1, "seq": 1, "attempt": 1, "items": ["to", "be"]}
        end = {"type": "end", "sub": 1, "seq": 3, "outcome": {"type": "completed", "result": 2}}
        assert await line.hear() == end
        found = await line.ask({"type": "get", "id": 2, "job": job.id})
        assert found["type"] == "job"
        record = found["job"]
        assert (record["tags"], record["metadata"], record["key"]) == ({"a": "b"}, {"n": [1, None]}, "k")
        assert (record["priority"], record["state"], record["result"]) == ("HIGH", "COMPLETED", 2)
        assert record["payload"] == "to be"
        again = await line.ask({"type": "submit", "id": 3, "executor": "words", "key": "k", "subscribe": True})
        assert (again["job"], again["sub"], again["epoch"]) == (job.id, 2, submitted["epoch"])
        assert await items_of(line, 2) == ["to", "be"]


async def test_subscribed(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """The answer says where the stream is, and what comes behind is numbered on from there."""
    job = await registry.submit(words, "a b c")
    await job.wait()
    async with open_line(registry) as line:
        answer = await line.ask({"type": "subscribe", "id": 1, "job": job.id, "after": 2})
        epoch = answer.pop("epoch")
        assert answer == {
            "type": "subscribed",
            "id": 1,
            "sub": 1,
            "job": job.id,
            "state": "COMPLETED",
            "attempt": 1,
            "first": 1,
            "last": 4,
        }
        assert await line.hear() == {"type": "events", "sub": 1, "seq": 3, "attempt": 1, "items": ["c"]}
        assert (await line.hear())["type"] == "end"
        again = await line.ask({"type": "subscribe", "id": 2, "job": job.id, "after": 2, "epoch": epoch})
        assert (again["sub"], again["epoch"]) == (2, epoch)


@pytest.mark.parametrize("after", [3, 4, "end"])
async def test_subscribing_at_the_end(autojump_clock: MockClock, registry: JobRegistry, after: Any) -> None:
    """On a job that has ended, a cursor at or behind its last token gives the end once more."""
    job = await registry.submit(words, "a b c")
    await job.wait()
    async with open_line(registry) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id, "after": after})
        assert await line.hear() == {
            "type": "end",
            "sub": 1,
            "seq": 4,
            "outcome": {"type": "completed", "result": 3},
        }


async def test_from_now_on(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """`end` is behind all that is there now, and nothing that follows is missed."""

    async def count(job: JobContext) -> None:
        for n in range(6):
            await job.send(n)
            await trio.sleep(1)

    job = await registry.submit(count)
    async with open_line(registry) as line:
        await trio.sleep(2.5)
        answer = await line.ask({"type": "subscribe", "id": 1, "job": job.id, "after": "end"})
        assert answer["last"] == 3
        assert await items_of(line) == [3, 4, 5]


async def test_how_far_it_is(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Who begins at the end is told the newest progress at once; to others it is sent in its turn, if they want it."""

    async def work(job: JobContext) -> None:
        for done in range(1, 4):
            await job.send(done)
            job.progress(done, 3, f"step {done}")
            await trio.sleep(1)

    job = await registry.submit(work)
    async with open_line(registry) as line:
        await trio.sleep(1.5)
        answer = await line.ask({"type": "subscribe", "id": 1, "job": job.id, "after": "end"})
        told = {"type": "progress", "seq": 4, "attempt": 1, "done": 2, "total": 3, "note": "step 2"}
        assert (answer["last"], answer["progress"]) == (4, told)
        assert await line.hear() == {"type": "events", "sub": 1, "seq": 5, "attempt": 1, "items": [3]}
        for after in (0, 3, 4):
            answer = await line.ask({"type": "subscribe", "id": 1, "job": job.id, "after": after})
            assert "progress" not in answer


async def test_cursors_that_are_refused(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A cursor in the future, out of date or of another epoch gets its own code, and no subscription."""
    job = await registry.submit(words, " ".join("x" * 200))
    await job.wait()
    async with open_line(registry) as line:
        ask = {"type": "subscribe", "id": 1, "job": job.id}
        future = await line.ask({**ask, "after": 202})
        assert (future["code"], future["last"]) == ("future_cursor", 201)
        outdated = await line.ask({**ask, "after": 5})
        assert (outdated["code"], outdated["first"], outdated["last"]) == ("outdated_cursor", 6, 100)
        wrong = await line.ask({**ask, "after": 150, "epoch": "another"})
        assert wrong["code"] == "wrong_epoch"
        assert (await line.ask({**ask, "after": 100, "epoch": wrong["epoch"]}))["type"] == "subscribed"
        assert len(await items_of(line)) == 100
        assert (await line.ask({**ask, "after": 5, "on_gap": "yield"}))["sub"] == 2
        assert await line.hear() == {"type": "gap", "sub": 2, "first": 6, "last": 100}
        assert len(await items_of(line, 2)) == 100


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (trio.BrokenResourceError, "connecting to db.example failed"),
        (jobtrio.StoreUnavailableError, "the store is away; try again"),
    ],
)
async def test_a_stream_that_is_cut_off(
    autojump_clock: MockClock, registry: JobRegistry, kind: type[Exception], said: str
) -> None:
    """A stream that can't go on says so, and nothing of what the store's failure tells: that is not for clients."""
    job = await registry.submit(hang)
    async with open_line(registry) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        job._owner.open_log(job._entry).cut_off("connecting to db.example failed", kind)
        assert await line.hear() == {"type": "error", "sub": 1, "code": "unavailable", "message": said}


async def test_falling_behind(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A subscription that falls behind what is kept is told of the gap, or ends with an error, as it was asked to."""
    started = trio.Event()

    async def send(job: JobContext) -> None:
        await started.wait()
        for n in range(500):
            await job.send(n)

    job = await registry.submit(send)
    async with open_line(registry) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        await line.ask({"type": "subscribe", "id": 2, "job": job.id, "on_gap": "yield"})
        line.is_stalled = True
        started.set()
        await job.wait()
        line.read_again()
        heard: dict[int, list[Any]] = {1: [], 2: []}
        with trio.move_on_after(1):
            while True:
                message = await line.hear()
                heard[message["sub"]].append(message)
        last = heard[1][-1]
        assert (last["type"], last["code"]) == ("error", "outdated_cursor")
        seen = 0
        for message in heard[1][:-1]:
            assert message["seq"] == seen + 1
            seen += len(message["items"])
        assert last["first"] == seen + 1
        seen = 0
        for message in heard[2]:
            if message["type"] == "gap":
                assert message["first"] == seen + 1
                seen = message["last"]
            elif message["type"] == "events":
                assert message["seq"] == seen + 1
                seen += len(message["items"])
        assert [message["type"] for message in heard[2] if message["type"] != "events"] == ["gap", "end"]
        assert heard[2][-1]["seq"] == seen + 1 == 501


async def test_unsubscribe(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Nothing of a subscription follows the answer to its unsubscribe, and its number is not used again."""

    async def send(job: JobContext) -> None:
        while True:
            await job.send("x" * 1000)
            await trio.sleep(0.01)

    job = await registry.submit(send)
    async with open_line(registry) as line:
        for sub in range(1, 20):
            assert (await line.ask({"type": "subscribe", "id": sub, "job": job.id, "after": "end"}))["sub"] == sub
            await trio.sleep(0.01 if sub % 2 else 0)
            for _ in range(sub):
                await trio.lowlevel.checkpoint()
            assert (await line.ask({"type": "unsubscribe", "id": 100 + sub, "sub": sub}))["type"] == "ok"
            await trio.sleep(0.05)
            assert line.texts[-1] == f'{{"type":"ok","id":{100 + sub}}}'
        gone = await line.ask({"type": "unsubscribe", "id": 999, "sub": 3})
        assert gone["code"] == "unknown_sub"
    await job.cancel()


@pytest.mark.parametrize("after", [0, "end"])
async def test_unsubscribe_while_messages_are_collected(
    autojump_clock: MockClock, registry: JobRegistry, after: int | str
) -> None:
    """What was given up keeps no task until its next batch would have gone out, however often that is done."""
    job = await registry.submit(_say_and_hang)
    async with open_line(registry, limits=Limits(subscriptions=1), flush_interval=1000) as line:
        for sub in range(1, 20):
            await line.ask({"type": "subscribe", "id": sub, "job": job.id, "after": after})
            if after == 0:
                assert (await line.hear())["items"] == ["here"]
            await line.ask({"type": "unsubscribe", "id": 100 + sub, "sub": sub})
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(line.session, MultiplexedSession)
        assert line.session._nursery is not None
        assert len(line.session._nursery.child_tasks) == 1  # it gives signs of life
    await job.cancel()


async def _say_and_hang(job: JobContext) -> None:
    await job.send("here")
    await trio.sleep_forever()


async def test_unsubscribe_while_much_is_being_sent(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Of a large batch, what is not yet sent when the client unsubscribes stays unsent."""

    async def send(job: JobContext) -> None:
        for _ in range(5):
            await job.send("x" * 100_000)

    job = await registry.submit(send)
    async with open_line(registry) as line:
        await line.hear()
        line.is_stalled = True
        line.say({"type": "subscribe", "id": 1, "job": job.id})
        await job.wait()
        line.read_again()
        await line.hear()
        line.is_stalled = True
        await trio.testing.wait_all_tasks_blocked()
        line.say({"type": "unsubscribe", "id": 2, "sub": 1})
        await trio.testing.wait_all_tasks_blocked()
        line.read_again()
        heard = [await line.hear()]
        while heard[-1]["type"] != "ok":
            heard.append(await line.hear())
        assert len(heard) <= 2


async def test_unsubscribe_from_what_has_fallen_behind(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """That a stream can't go on is not told to a client that has left it meanwhile."""
    go = trio.Event()

    async def flood(job: JobContext) -> None:
        await go.wait()
        for n in range(500):
            job.send_nowait(n)

    async def say(job: JobContext) -> None:
        await job.send("first")
        await trio.sleep_forever()

    job, other = await registry.submit(flood), await registry.submit(say)
    async with open_line(registry) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        await line.ask({"type": "subscribe", "id": 2, "job": other.id})
        await line.hear()
        line.is_stalled = True
        await other.cancel()
        await other.wait()
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        line.say({"type": "unsubscribe", "id": 3, "sub": 1})
        await trio.testing.wait_all_tasks_blocked()
        line.read_again()
        assert (await line.hear())["type"] == "end"
        assert await line.hear() == {"type": "ok", "id": 3}
        assert await line.ask({"type": "ping", "id": 4}) == {"type": "pong", "id": 4}
        assert json.loads(line.texts[-2]) == {"type": "ok", "id": 3}


async def test_what_comes_while_others_are_sent_to(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A stream that waits for its turn to be sent takes along what has come when it has it."""
    go = trio.Event()

    async def first(job: JobContext) -> None:
        await go.wait()
        await job.send("a")

    async def second(job: JobContext) -> None:
        await go.wait()
        await trio.sleep(1)
        for n in range(50):
            await job.send(n)
            await trio.sleep(0.1)

    jobs = [await registry.submit(first), await registry.submit(second)]
    async with open_line(registry) as line:
        for n, job in enumerate(jobs):
            await line.ask({"type": "subscribe", "id": n, "job": job.id})
        line.is_stalled = True
        go.set()
        await trio.sleep(10)
        line.read_again()
        heard = [await line.hear() for _ in range(4)]
    assert [message["items"] for message in heard if message["type"] == "events"] == [["a"], list(range(50))]


async def test_streams_of_one_who_reads_slowly(autojump_clock: MockClock) -> None:
    """However many of its streams wait for their turn, a client keeps hardly more than what is being sent to it."""
    kept: weakref.WeakSet[Any] = weakref.WeakSet()

    class Value:
        pass

    async def work(job: JobContext) -> None:
        while True:
            kept.add(value := Value())
            await job.send(value)
            await trio.sleep(0.01)

    async with jobtrio.open_registry(retention=Retention(tokens_per_job=100)) as fresh:
        job = await fresh.submit(work)
        async with open_line(fresh) as line:
            for n in range(20):
                await line.ask({"type": "subscribe", "id": n, "job": job.id, "on_gap": "yield"})
            line.send_time = 0.5
            await trio.sleep(60)
            assert len(kept) < 300
        await job.cancel()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return when the store was asked for its paused queues."""
    times: list[float] = []
    paused = jobtrio.JobRegistry.paused

    async def note(self: JobRegistry) -> dict[str, datetime | None]:
        times.append(trio.current_time())
        return await paused(self)

    monkeypatch.setattr("jobtrio._registry.JobRegistry.paused", note)
    return times


async def test_a_paused_queue(autojump_clock: MockClock, registry: JobRegistry, asked: list[float]) -> None:
    """Who asks for a job or watches it is told that it waits in a paused queue; the store is seldom asked for that."""
    await registry.pause("slow")
    job = await registry.submit(hang, queue="slow")
    running = await registry.submit(hang)
    delayed = await registry.submit(hang, queue="slow", delay=1000)
    await trio.testing.wait_all_tasks_blocked()
    async with open_line(registry) as line:
        await line.hear()
        for other in (running, delayed):
            for kind in ("get", "subscribe"):
                assert "paused" not in await line.ask({"type": kind, "id": 1, "job": other.id})
        assert asked == []
        for _ in range(5):
            for kind in ("get", "subscribe"):
                assert (await line.ask({"type": kind, "id": 1, "job": job.id}))["paused"] is True
        async with open_line(registry, f"/jobs/{job.id}") as tail:
            assert (await tail.hear())["paused"] is True
        async with open_line(registry, f"/jobs/{job.id}?format=text"):
            await trio.testing.wait_all_tasks_blocked()
        assert len(asked) == 2  # by one server each
        await registry.pause("default")
        await registry.resume("slow")
        await trio.sleep(1)
        assert "paused" not in await line.ask({"type": "get", "id": 1, "job": job.id})
        waiting = await registry.submit(hang)
        answer = await line.ask({"type": "get", "id": 1, "job": waiting.id})
        assert (answer["paused"], answer["job"]["state"]) == (True, "QUEUED")
        assert len(asked) == 3


async def test_many_who_wait_for_a_paused_queue(
    autojump_clock: MockClock, registry: JobRegistry, asked: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who ask at once share one answer of the store, and each goes without it where that takes too long."""
    pauses = Pauses(registry)
    await registry.pause("slow")
    record = (await registry.submit(hang, queue="slow")).record
    ask = registry.paused
    delay = 0.5

    async def slowly() -> dict[str, datetime | None]:
        await trio.sleep(delay)
        return await ask()

    async def note() -> None:
        told.append((await pauses.hold(record), trio.current_time() - start))

    monkeypatch.setattr(registry, "paused", slowly)
    for expected in ([(True, 0.5)] * 100, [(False, 1.0)] * 100):
        told: list[tuple[bool, float]] = []
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(note)
        assert told == expected
        await trio.sleep(1)
        delay = 1000
    assert len(asked) == 1


async def test_who_watches_many_jobs_of_a_store_that_is_slow(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each of them is it waited whether the store tells of pauses."""
    monkeypatch.setattr(registry, "paused", trio.sleep_forever)
    await registry.pause("slow")
    job = await registry.submit(hang, queue="slow")
    async with open_line(registry) as line:
        await line.hear()
        start = trio.current_time()
        for _ in range(20):
            assert "paused" not in await line.ask({"type": "get", "id": 1, "job": job.id})
        assert trio.current_time() - start == 1.0


@pytest.mark.parametrize("error", [jobtrio.StoreUnavailableError("away"), trio.ClosedResourceError()])
async def test_a_store_that_does_not_tell_of_pauses(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Where the store can't be asked for the paused queues, a job is shown without."""
    await registry.pause("slow")
    job = await registry.submit(hang, queue="slow")

    async def paused() -> dict[str, datetime | None]:
        raise error

    monkeypatch.setattr(registry, "paused", paused)
    async with open_line(registry) as line:
        await line.hear()
        for kind, answer in (("get", "job"), ("subscribe", "subscribed")):
            told = await line.ask({"type": kind, "id": 1, "job": job.id})
            assert (told["type"], "paused" in told) == (answer, False)


async def test_too_many_subscriptions(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """One subscription too many is refused; when one has ended there is room again."""
    job = await registry.submit(hang)
    async with open_line(registry, authenticate=anybody, limits=Limits(subscriptions=3)) as line:
        for n in range(3):
            assert (await line.ask({"type": "subscribe", "id": n, "job": job.id}))["type"] == "subscribed"
        refused = await line.ask({"type": "subscribe", "id": 5, "job": job.id})
        assert refused["code"] == "too_many_subscriptions"
        refused = await line.ask({"type": "submit", "id": 6, "executor": "words", "subscribe": True})
        assert refused["code"] == "too_many_subscriptions"
        assert len(registry) == 1
        assert len(line.session.feeds()) == 3
        await line.ask({"type": "unsubscribe", "id": 7, "sub": 1})
        assert (await line.ask({"type": "subscribe", "id": 8, "job": job.id}))["sub"] == 4
        await line.ask({"type": "cancel", "id": 9, "job": job.id})
        await trio.sleep(1)
        assert line.session.feeds() == []


async def test_cancel(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A job is asked to end with a reason; one that has ended is not."""
    job = await registry.submit(hang)
    async with open_line(registry, authenticate=anybody) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        answer = await line.ask({"type": "cancel", "id": 2, "job": job.id, "reason": "enough", "grace": 0})
        assert answer == {"type": "ok", "id": 2, "cancelled": True}
        assert (await line.hear())["outcome"] == {"type": "cancelled", "reason": "enough"}
        answer = await line.ask({"type": "cancel", "id": 3, "job": job.id})
        assert answer == {"type": "ok", "id": 3, "cancelled": False}


async def test_find(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Jobs are found by tags and states, page by page."""
    for n in range(5):
        await registry.submit(hang, tags={"n": str(n % 2)})
    done = await registry.submit(words, "a", key="k", tags={"n": "2"})
    await done.wait()
    async with open_line(registry) as line:
        every = (await line.ask({"type": "find", "id": 1}))["jobs"]
        assert len(every) == 6
        running = await line.ask({"type": "find", "id": 2, "state": ["RUNNING", "QUEUED"], "tags": {"n": "0"}})
        assert [record["id"] for record in running["jobs"]] == [every[n]["id"] for n in (0, 2, 4)]
        page = await line.ask({"type": "find", "id": 3, "limit": 2, "after": every[1]["id"]})
        assert page["jobs"] == every[2:4]
        page = await line.ask({"type": "find", "id": 5, "limit": 2, "newest_first": True})
        assert page["jobs"] == every[:3:-1]
        page = await line.ask({"type": "find", "id": 6, "newest_first": True, "after": every[1]["id"]})
        assert page["jobs"] == every[:1]
        for more, found in (({}, every[5:]), ({"tags": {"n": "2"}}, every[5:]), ({"tags": {"n": "1"}}, [])):
            assert (await line.ask({"type": "find", "id": 7, "key": "k", **more}))["jobs"] == found
        assert (await line.ask({"type": "find", "id": 8, "key": "none"}))["jobs"] == []
        refused = await line.ask({"type": "find", "id": 9, "key": ""})
        assert (refused["code"], refused["message"][:4]) == ("invalid", "key ")
        assert (await line.ask({"type": "find", "id": 4, "after": "none"}))["code"] == "unknown_job"
    for record in every:
        await registry.cancel(record["id"])


async def test_finding_what_has_an_odd_name(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A job whose function has a name that is no Unicode is found with the others."""

    async def odd(job: JobContext) -> None:
        pass

    odd.__qualname__ = "a\udc80"
    jobs = [await registry.submit(words, "a"), await registry.submit(odd)]
    async with open_line(registry) as line:
        found = await line.ask({"type": "find", "id": 1})
        assert [(each["id"], each["executor"]) for each in found["jobs"]] == [
            (jobs[0].id, "words"),
            (jobs[1].id, "a\\udc80"),
        ]


async def test_errors_of_requests(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Each way for a request to be wrong has its code, with the request's id, and the connection goes on."""
    wrong: list[tuple[str, str]] = [
        ('{"type":"subscribe","id":1,"job":"none"}', "unknown_job"),
        ('{"type":"subscribe","id":1,"job":""}', "unknown_job"),
        ('{"type":"get","id":1,"job":"a\\u0000b"}', "unknown_job"),
        ('{"type":"cancel","id":1,"job":"none"}', "unknown_job"),
        ('{"type":"submit","id":1,"executor":"nobody"}', "unknown_executor"),
        ('{"type":"submit","id":1,"executor":"hidden"}', "unknown_executor"),
        ('{"type":"submit","id":1,"executor":""}', "unknown_executor"),
        ('{"type":"submit","id":1,"executor":"words","time_limit":-1}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","time_limit":0}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","retry":{}}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","retry":3}', "invalid"),
        (
            '{"type":"submit","id":1,"executor":"words","retry":'
            '{"max_attempts":0,"initial":1,"multiplier":2,"max_delay":9,"jitter":0}}',
            "invalid",
        ),
        ('{"type":"submit","id":1,"executor":"words","delay":-1}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","delay":1e300}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","delay":5,"expires_in":1}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","queue":""}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","key":""}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","tags":{"a":""}}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","tags":{"a":5}}', "invalid"),
        ('{"type":"submit","id":1,"executor":"words","metadata":{"":1}}', "invalid"),
        ('{"type":"unsubscribe","id":1,"sub":7}', "unknown_sub"),
        ('{"type":"dance","id":1}', "unknown_type"),
        ('{"type":"get","id":1}', "invalid"),
    ]
    async with open_line(registry, authenticate=anybody, limits=Limits(messages_per_second=1000)) as line:
        await line.hear()
        for text, code in wrong:
            line.say(text)
            answer = await line.hear()
            assert (answer["type"], answer["code"], answer["id"]) == ("error", code, 1), text
        line.say("nonsense", "[]", b'{"type":"ping","id":1}', '{"type":"ping","id":[]}')
        for id in (None, None, 1, None):
            answer = await line.hear()
            assert (answer["code"], answer.get("id")) == ("invalid", id)
        assert await line.ask({"type": "ping", "id": 2}) == {"type": "pong", "id": 2}
        assert "hidden" not in "".join(line.texts).replace('"hidden"', "").replace("'hidden'", "")
    assert len(registry) == 0


async def test_a_reason_that_is_too_long(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A cancel with a reason or a grace that makes no sense is refused as such."""
    job = await registry.submit(hang)
    async with open_line(registry, authenticate=anybody) as line:
        for more in ({"reason": "x" * 10_001}, {"grace": -1}):
            assert (await line.ask({"type": "cancel", "id": 1, "job": job.id, **more}))["code"] == "invalid"
    await job.cancel()


async def test_a_full_queue(autojump_clock: MockClock) -> None:
    """A submission that finds the queue full is told so, and how many there may be."""
    async with jobtrio.open_registry(executors, max_queued=1) as registry:
        async with open_line(registry, authenticate=anybody) as line:
            await line.ask({"type": "submit", "id": 1, "executor": "hang", "delay": 5})
            answer = await line.ask({"type": "submit", "id": 2, "executor": "hang"})
            assert (answer["code"], answer["limit"]) == ("queue_full", 1)
        await registry.shutdown()


async def test_a_queue_that_is_not_served(autojump_clock: MockClock) -> None:
    """A submission into a queue that nobody serves is told so, and not which queues there are."""
    async with jobtrio.open_registry(executors, queues={"secret": 1}) as registry:
        async with open_line(registry, authenticate=anybody) as line:
            await line.hear()
            for more in ({}, {"queue": "other"}):
                answer = await line.ask({"type": "submit", "id": 1, "executor": "words", **more})
                message = f"queue must be one that this server serves; got {more.get('queue', 'default')!r}"
                assert answer == {"type": "error", "id": 1, "code": "invalid", "message": message}


async def test_without_authentication(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Where nobody is asked who they are, everybody may watch, and nobody submit or cancel."""
    job = await registry.submit(hang)
    async with open_line(registry) as line:
        assert (await line.ask({"type": "submit", "id": 1, "executor": "words"}))["code"] == "forbidden"
        assert (await line.ask({"type": "submit", "id": 1, "executor": "none"}))["code"] == "forbidden"
        assert (await line.ask({"type": "cancel", "id": 2, "job": job.id}))["code"] == "forbidden"
        assert (await line.ask({"type": "cancel", "id": 2, "job": "none"}))["code"] == "forbidden"
        assert (await line.ask({"type": "auth", "id": 3, "token": "x"})) == {"type": "ok", "id": 3}
        assert (await line.ask({"type": "submit", "id": 4, "executor": "words"}))["code"] == "forbidden"
        assert (await line.ask({"type": "get", "id": 5, "job": job.id}))["type"] == "job"
    assert len(registry) == 1
    await job.cancel()


async def test_authentication_by_handshake(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A token in the handshake is enough; a wrong one is refused at once."""
    async with open_line(registry, authenticate=known, token="ok-ann") as line:
        assert (await line.ask({"type": "find", "id": 1}))["type"] == "jobs"
    async with open_line(registry, authenticate=known, token="wrong") as line:
        assert [message["type"] for message in await line.hear_all()] == ["hello", "error"]
        assert line.ending.code == CloseCode.UNAUTHENTICATED


async def test_authentication_by_message(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Before `auth` nothing is answered but pings; a wrong token ends the connection."""
    async with open_line(registry, authenticate=known) as line:
        assert (await line.ask({"type": "ping", "id": 0}))["type"] == "pong"
        for request in (
            {"type": "find", "id": 1},
            {"type": "get", "id": 1, "job": "x"},
            {"type": "submit", "id": 1, "executor": "words"},
            {"type": "subscribe", "id": 1, "job": "x"},
            {"type": "cancel", "id": 1, "job": "x"},
            {"type": "unsubscribe", "id": 1, "sub": 1},
        ):
            assert (await line.ask(request))["code"] == "unauthenticated"
        assert await line.ask({"type": "auth", "id": 2, "token": "ok-ann"}) == {"type": "ok", "id": 2}
        assert (await line.ask({"type": "find", "id": 3}))["type"] == "jobs"
        await trio.sleep(100)
        assert not line.farewell
        assert (await line.ask({"type": "auth", "id": 4, "token": "wrong"}))["code"] == "unauthenticated"
        await line.hear_all()
        assert line.ending.code == CloseCode.UNAUTHENTICATED


async def test_authentication_that_does_not_come(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A client that does not say who it is in time is told so and closed."""
    async with open_line(registry, authenticate=known) as line:
        start = trio.current_time()
        heard = await line.hear_all()
        assert trio.current_time() - start == 10
        assert heard[-1]["code"] == "unauthenticated"
        assert line.ending.code == CloseCode.AUTH_TIMEOUT


async def test_authentication_whose_answer_is_read_late(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A client that says in time who it is gets its answer, also where it reads on only when that time is over."""
    async with open_line(registry, authenticate=known) as line:
        assert (await line.hear())["type"] == "hello"
        line.is_stalled = True
        line.say({"type": "auth", "id": 1, "token": "ok-ann"}, {"type": "ping", "id": 2})
        await trio.sleep(11)
        line.read_again()
        assert [await line.hear(), await line.hear()] == [{"type": "ok", "id": 1}, {"type": "pong", "id": 2}]


async def test_a_token_that_expires(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """When a token expires in mid-stream, the stream goes on and requests are refused until a new token comes."""
    expired = set()

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        return principal not in expired

    job = await registry.submit(hang)
    async with open_line(registry, authenticate=known, authorize=authorize, token="ok-old") as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        expired.add("old")
        assert (await line.ask({"type": "get", "id": 2, "job": job.id}))["code"] == "unknown_job"
        assert (await line.ask({"type": "submit", "id": 3, "executor": "words"}))["code"] == "forbidden"
        assert (await line.ask({"type": "auth", "id": 4, "token": "ok-new"}))["type"] == "ok"
        assert (await line.ask({"type": "cancel", "id": 5, "job": job.id}))["cancelled"]
        assert (await line.hear())["sub"] == 1


async def test_becoming_somebody_else(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """What the new principal may not watch is no longer shown, and the client is told."""
    mine = await registry.submit(hang, tags={"user": "ann"})
    async with open_line(registry, authenticate=known, authorize=owners, token="ok-ann") as line:
        await line.ask({"type": "subscribe", "id": 1, "job": mine.id})
        line.say({"type": "auth", "id": 2, "token": "ok-bob"})
        error = await line.hear()
        assert (error["type"], error["sub"], error["code"]) == ("error", 1, "forbidden")
        assert await line.hear() == {"type": "ok", "id": 2}
        await mine.cancel()
        await mine.wait()
        assert await line.ask({"type": "ping", "id": 3}) == {"type": "pong", "id": 3}
        assert line.texts[-2] == '{"type":"ok","id":2}'


async def test_becoming_somebody_else_while_an_end_is_sent(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Nothing of a subscription follows its end, also where that is on its way as it would no longer be shown."""
    mine = await registry.submit(hang, tags={"user": "ann"})
    async with open_line(registry, authenticate=known, authorize=owners, token="ok-ann") as line:
        await line.ask({"type": "subscribe", "id": 1, "job": mine.id})
        line.is_stalled = True
        await mine.cancel()
        await trio.sleep(1)
        line.say({"type": "auth", "id": 2, "token": "ok-bob"})
        await trio.sleep(1)
        line.read_again()
        assert [(await line.hear())["type"] for _ in range(2)] == ["end", "ok"]


async def test_tracebacks_for_somebody_else(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Whether tracebacks are shown goes by who the client is now, on streams that are open too."""

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        return action != "traceback" or bool(principal == "admin")

    job = await registry.submit("break", retry=RetryPolicy(3, initial=1))
    async with open_line(registry, authenticate=known, authorize=authorize, token="ok-ann") as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        errors = [(await line.hear())["error"]]
        await line.ask({"type": "auth", "id": 2, "token": "ok-admin"})
        errors.append((await line.hear())["error"])
        await line.ask({"type": "auth", "id": 3, "token": "ok-ann"})
        errors.append((await line.hear())["outcome"]["error"])
    assert [("Traceback" in error["traceback"]) for error in errors] == [False, True, False]


async def test_becoming_somebody_else_at_the_end(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Of a stream that has ended while its right was asked for, nothing is said behind its end."""
    job = await registry.submit(hang)

    async def authorize(principal: Any, action: str, record: Any) -> bool:
        if principal == "bob":
            await job.cancel()
            await trio.sleep(1)
        return bool(principal == "ann")

    async with open_line(registry, authenticate=known, authorize=authorize, token="ok-ann") as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        line.say({"type": "auth", "id": 2, "token": "ok-bob"})
        assert (await line.hear())["type"] == "end"
        assert await line.hear() == {"type": "ok", "id": 2}


async def test_somebody_elses_job(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A job that may not be seen is told exactly as one that does not exist; its key and its place in pages hide it."""
    hers = await registry.submit(hang, tags={"user": "ann"}, key="secret")
    mine = await registry.submit(hang, tags={"user": "bob"})
    async with open_line(registry, authenticate=known, authorize=owners, token="ok-bob") as line:
        for request in ({"type": "get"}, {"type": "subscribe"}, {"type": "cancel"}):
            seen = await line.ask({**request, "id": 1, "job": hers.id})
            none = await line.ask({**request, "id": 1, "job": "0" * 32})
            assert str(seen).replace(hers.id, "") == str(none).replace("0" * 32, "")
        assert [job["id"] for job in (await line.ask({"type": "find", "id": 2}))["jobs"]] == [mine.id]
        assert (await line.ask({"type": "find", "id": 3, "after": hers.id}))["code"] == "unknown_job"
        tags = {"user": "bob"}
        taken = await line.ask({"type": "submit", "id": 4, "executor": "words", "key": "secret", "tags": tags})
        assert taken["code"] == "duplicate_job"
        assert (await line.ask({"type": "find", "id": 6, "key": "secret"}))["jobs"] == []
        assert (await line.ask({"type": "submit", "id": 5, "executor": "words"}))["code"] == "forbidden"
        assert hers.id not in str(taken)
    assert len(registry) == 2
    await hers.cancel()
    await mine.cancel()


async def test_may_submit_but_not_look(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Who may do nothing but submit is told of its job, also where it asks with the same key once more."""

    async def producers(principal: Any, action: str, job: Any) -> bool:
        return action == "submit"

    async with open_line(registry, authenticate=known, authorize=producers, token="ok-x") as line:
        submit = {"type": "submit", "executor": "words", "payload": {"a": [1]}, "key": "k", "tags": {"b": "c"}}
        first = await line.ask({**submit, "id": 1})
        assert first["type"] == "submitted"
        assert await line.ask({**submit, "id": 2}) == {**first, "id": 2}
        assert await line.ask({**submit, "id": 5, "subscribe": True}) == {**first, "id": 5}  # and is not shown it
        changes: list[dict[str, Any]] = [{"payload": {"a": [2]}}, {"tags": {}}, {"executor": "hang"}]
        changes.append({"metadata": {"a": 1}})
        for change in changes:
            assert (await line.ask({**submit, **change, "id": 3}))["code"] == "duplicate_job"
        assert (await line.ask({"type": "get", "id": 4, "job": first["job"]}))["code"] == "unknown_job"
    assert len(registry) == 1


async def test_the_queue_that_a_submission_is_judged_by(autojump_clock: MockClock) -> None:
    """`authorize` is told in which queue a job will wait, whether the client names one or leaves it to the executor."""
    own = jobtrio.Executors()
    own.register("train", queue="gpu", expose=True)(words)
    own.register("write", expose=True)(words)
    queues: list[str] = []

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        queues.append(job.queue)
        return bool(job.queue == (own.get(job.executor).queue or "default"))

    async with jobtrio.open_registry(own) as registry:
        async with open_line(registry, authenticate=known, authorize=authorize, token="ok-x") as line:
            for executor, named in (("train", {}), ("train", {"queue": "gpu"}), ("write", {})):
                await line.ask({"type": "submit", "id": 1, "executor": executor, **named})
            around = await line.ask({"type": "submit", "id": 1, "executor": "train", "queue": "default"})
            assert around["code"] == "forbidden"
        waited = [record.queue for record in await registry.find()]
    assert (queues, waited) == (["gpu", "gpu", "default", "default"], ["gpu", "gpu", "default"])


def retry(max_attempts: int) -> dict[str, Any]:
    """Return a retry policy as it goes over the wire."""
    return {"max_attempts": max_attempts, "initial": 60, "multiplier": 1.5, "max_delay": 600, "jitter": 0}


async def test_a_retry_policy(autojump_clock: MockClock) -> None:
    """A job has the policy that its client gives, else that of its executor; `authorize` judges by the former."""
    own = jobtrio.Executors()
    own.register("write", retry=RetryPolicy(2), expose=True)(words)

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        return job.retry is None or job.retry.initial >= 60

    async with jobtrio.open_registry(own) as registry:
        async with open_line(registry, authenticate=known, authorize=authorize, token="ok-x") as line:
            submit = {"type": "submit", "id": 1, "executor": "write"}
            for given in ({}, {"retry": None}, {"retry": retry(10)}):
                await line.ask({**submit, **given})
            refused = await line.ask({**submit, "retry": {**retry(2), "initial": 0}})
            assert refused["code"] == "forbidden"
        policies = [record.retry for record in await registry.find()]
    assert policies == [RetryPolicy(2), RetryPolicy(2), RetryPolicy(10, 60, 1.5, 600, 0)]


@pytest.mark.parametrize(("own", "most"), [(None, 5), (RetryPolicy(2), 5), (RetryPolicy(7), 7)])
async def test_too_many_attempts(autojump_clock: MockClock, own: RetryPolicy | None, most: int) -> None:
    """A client may ask for so many attempts, or for those that the executor is registered with, and for no more."""
    mine = jobtrio.Executors()
    mine.register("write", retry=own, expose=True)(words)
    async with jobtrio.open_registry(mine) as registry:
        async with open_line(registry, authenticate=anybody, limits=Limits(attempts=5)) as line:
            submit = {"type": "submit", "id": 1, "executor": "write"}
            assert (await line.ask({**submit, "retry": retry(most)}))["type"] == "submitted"
            for attempts in (most + 1, 10**30):
                refused = await line.ask({**submit, "retry": retry(attempts)})
                assert refused["code"] == "invalid"
                assert refused["message"].startswith(f"retry must allow at most {most} attempts")
        assert len(await registry.find()) == 1


@pytest.mark.parametrize(
    "error", [jobtrio.StoreUnavailableError("away"), jobtrio.UnknownJobError("x"), trio.ClosedResourceError()]
)
async def test_submitted_and_not_to_be_watched(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A job that was accepted is answered as such, where its stream can't be opened as well."""

    async def span(self: jobtrio.Job) -> Any:
        raise error

    monkeypatch.setattr("jobtrio._job.Job.span", span)
    async with open_line(registry, authenticate=anybody) as line:
        answer = await line.ask({"type": "submit", "id": 1, "executor": "words", "payload": "a", "subscribe": True})
        job = await registry.get(answer["job"])
        assert answer == {"type": "submitted", "id": 1, "job": job.id}
        assert await job.wait() == jobtrio.Completed(1)
        monkeypatch.undo()
        assert (await line.ask({"type": "subscribe", "id": 2, "job": job.id}))["sub"] == 1


async def test_may_be_seen_but_not_cancelled(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """What is refused about a job that may be seen is told as refused, not as unknown."""

    async def readers(principal: Any, action: str, job: Any) -> bool:
        return action == "get"

    job = await registry.submit(hang)
    async with open_line(registry, authenticate=known, authorize=readers, token="ok-x") as line:
        assert (await line.ask({"type": "get", "id": 1, "job": job.id}))["type"] == "job"
        assert (await line.ask({"type": "cancel", "id": 2, "job": job.id}))["code"] == "forbidden"
        assert (await line.ask({"type": "subscribe", "id": 3, "job": job.id}))["code"] == "forbidden"
    await job.cancel()


@pytest.mark.parametrize("allowed", [True, False])
async def test_tracebacks(autojump_clock: MockClock, registry: JobRegistry, allowed: bool) -> None:
    """A traceback goes only to whom `authorize` allows it, in streams and in records."""
    actions: list[str] = []

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        actions.append(action)
        return allowed or action != "traceback"

    job = await registry.submit("break", retry=RetryPolicy(2, initial=1))
    async with open_line(registry, authenticate=anybody, authorize=authorize) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        restart, end = await line.hear(), await line.hear()
        record = (await line.ask({"type": "get", "id": 2, "job": job.id}))["job"]
        [found] = (await line.ask({"type": "find", "id": 3}))["jobs"]
    errors = [restart["error"], end["outcome"]["error"], record["error"], found["error"]]
    assert all(error["message"] == "broken on purpose" for error in errors)
    assert [("Traceback" in error["traceback"]) for error in errors] == [allowed] * 4
    assert actions == ["subscribe", "traceback", "get", "traceback", "find", "traceback"]


async def test_tracebacks_without_a_hook(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Without `authorize`, tracebacks go to nobody."""
    job = await registry.submit("break")
    async with open_line(registry, authenticate=anybody) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        assert (await line.hear())["outcome"]["error"]["traceback"] == ""


class Later:
    """What an async function gives that is not awaited."""

    def __await__(self) -> Generator[None, None, bool]:
        """Say no, to whoever asks."""
        yield
        return False


@pytest.mark.parametrize("how", ["raises", "hangs", "lacks an await", "raises at once", "returns nonsense"])
async def test_authenticate_that_fails(autojump_clock: MockClock, registry: JobRegistry, how: str) -> None:
    """A hook that raises, hangs or can't be awaited refuses the client, and harms nobody else."""

    async def broken(handshake: Handshake) -> Any:
        if how == "hangs":
            await trio.sleep_forever()
        if how == "lacks an await":
            return Later()
        raise KeyError(how)

    def at_once(handshake: Handshake) -> Any:
        if how == "returns nonsense":
            return "not awaitable"
        raise KeyError(how)

    hook: Any = at_once if how in ("raises at once", "returns nonsense") else broken
    async with open_line(registry, authenticate=hook, token="x") as line:
        heard = await line.hear_all()
        assert heard[-1]["code"] == "unauthenticated"
        assert line.ending.code in (CloseCode.UNAUTHENTICATED, CloseCode.AUTH_TIMEOUT)
        assert trio.current_time() <= 10


@pytest.mark.parametrize("answer", [None, False])
@pytest.mark.parametrize("path", ["/ws", "/jobs/x"])
async def test_authenticate_that_says_no(
    autojump_clock: MockClock, registry: JobRegistry, path: str, answer: Any
) -> None:
    """None and False are no principals, however much a hook that checks a token looks like one that says yes or no."""

    async def check(handshake: Handshake) -> Any:
        return answer

    async with open_line(registry, path, authenticate=check, token="wrong") as line:
        heard = await line.hear_all()
        assert heard[-1]["code"] == "unauthenticated"
        assert line.farewell == Farewell(CloseCode.UNAUTHENTICATED)


@pytest.mark.parametrize("principal", [0, "", (), True])
async def test_principals_that_look_like_none(autojump_clock: MockClock, registry: JobRegistry, principal: Any) -> None:
    """Anything else may be a principal: the user whose number is 0 is one."""

    async def check(handshake: Handshake) -> Any:
        return principal

    async with open_line(registry, authenticate=check, token="right") as line:
        assert (await line.ask({"type": "find", "id": 1}))["type"] == "jobs"


async def test_a_client_that_may_do_nothing(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A hook that says by a `PermissionError` that it knows the client has it closed with another code."""

    async def deny(handshake: Handshake) -> Any:
        raise PermissionError

    async with open_line(registry, authenticate=deny) as line:
        assert (await line.hear_all())[-1]["code"] == "forbidden"
        assert line.ending.code == CloseCode.FORBIDDEN


@pytest.mark.parametrize("how", ["raises", "hangs", "lacks an await"])
async def test_authorize_that_fails(autojump_clock: MockClock, registry: JobRegistry, how: str) -> None:
    """A hook that raises, hangs or gives no answer refuses what it was asked about, and the connection goes on."""

    async def broken(principal: Any, action: str, job: Any) -> Any:
        if how == "hangs":
            await trio.sleep_forever()
        if how == "lacks an await":
            return Later()
        raise KeyError(how)

    job = await registry.submit(hang)
    async with open_line(registry, authenticate=anybody, authorize=broken) as line:
        assert (await line.ask({"type": "get", "id": 1, "job": job.id}))["code"] == "unknown_job"
        assert (await line.ask({"type": "submit", "id": 2, "executor": "words"}))["code"] == "forbidden"
        assert (await line.ask({"type": "ping", "id": 3}))["type"] == "pong"
    await job.cancel()


async def test_the_rate(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Messages beyond the rate are refused one by one; twice as many close the connection, with when to come back."""
    async with open_line(registry, limits=Limits(messages_per_second=10)) as line:
        await line.hear()
        line.say(*({"type": "ping", "id": n} for n in range(15)), "nonsense")
        answers = [await line.hear() for _ in range(16)]
        assert [answer["type"] for answer in answers] == ["pong"] * 10 + ["error"] * 6
        assert [answer["code"] for answer in answers[10:]] == ["rate"] * 6
        message = "10 messages a second may come: this one was passed over"
        assert [answer["message"] for answer in answers[10:]] == [message] * 6
        assert [answer["id"] for answer in answers[:15]] == list(range(15))
        await trio.sleep(2)
        line.say(*({"type": "ping", "id": n} for n in range(30)))
        heard = await line.hear_all()
        assert [message["type"] for message in heard] == ["pong"] * 10 + ["error"] * 9
        assert line.ending.code == CloseCode.RATE
        assert 0.5 <= (decode_retry_after(line.ending.reason) or 0.0) <= 1.5


async def test_the_rate_while_a_request_takes_its_time(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A client that keeps to the rate is not refused what has gathered while the server was busy with a request."""

    async def thoughtful(principal: Any, action: str, job: Any) -> bool:
        await trio.sleep(9)
        return True

    job = await registry.submit(hang)
    async with open_line(
        registry, limits=Limits(messages_per_second=10), authenticate=anybody, authorize=thoughtful
    ) as line:
        await line.hear()
        line.say({"type": "get", "id": 0, "job": job.id})
        for second in range(8):
            line.say(*({"type": "ping", "id": 10 * second + n} for n in range(10)))
            await trio.sleep(1)
        assert [(await line.hear())["type"] for _ in range(81)] == ["job"] + ["pong"] * 80
    await job.cancel()


async def test_heartbeats(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """After each silence comes a sign of life with the last number of each subscription, and none in between."""
    job = await registry.submit(words, "a b", delay=40)
    async with open_line(registry, limits=Limits(heartbeat=15)) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        await line.ask({"type": "subscribe", "id": 2, "job": job.id})
        assert await line.hear() == {"type": "heartbeat", "last": {"1": 0, "2": 0}}
        assert trio.current_time() == 15
        assert await line.hear() == {"type": "heartbeat", "last": {"1": 0, "2": 0}}
        while (await line.hear())["type"] != "heartbeat":
            pass
        assert trio.current_time() == 55
        assert line.texts[-1] == '{"type":"heartbeat","last":{}}'


async def test_a_client_that_leaves(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A client that hangs up ends the session and no job."""
    job = await registry.submit(hang)
    async with open_line(registry, authenticate=anybody) as line:
        await line.ask({"type": "subscribe", "id": 1, "job": job.id})
        line.leave()
        await line.hear_all()
        assert line.ending.code is None
    assert job.state == "RUNNING"
    await job.cancel()


async def test_stop(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A session that is stopped says with which code to close; the first word counts."""
    async with open_line(registry) as line:
        await line.hear()
        line.session.stop(CloseCode.RESTART, "later")
        line.session.stop(CloseCode.INTERNAL)
        await line.hear_all()
        assert (line.ending.code, line.ending.reason) == (CloseCode.RESTART, "later")


async def test_a_fault_of_our_own(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault in a session closes that session with 1011, and is logged."""

    async def broken(*args: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("jobtrio.websocket._desk.Desk.get", broken)
    async with open_line(registry) as line, open_line(registry) as other:
        line.say({"type": "get", "id": 1, "job": "x"})
        await line.hear_all()
        assert line.ending.code == CloseCode.INTERNAL
        assert (await other.ask({"type": "ping", "id": 1}))["type"] == "pong"
    assert "RuntimeError: broken" in caplog.text


async def test_after_the_registry_is_shut_down(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """When nothing can be submitted any more, the answer says so, and what is there can still be watched."""
    job = await registry.submit(words, "a")
    await job.wait()
    await registry.shutdown()
    async with open_line(registry, authenticate=anybody) as line:
        assert (await line.ask({"type": "submit", "id": 1, "executor": "words"}))["code"] == "unavailable"
        assert (await line.ask({"type": "subscribe", "id": 2, "job": job.id}))["type"] == "subscribed"
        assert await items_of(line) == ["a"]


async def test_many_pages_of_others(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Among many jobs of others, a page holds as many of one's own as it may."""
    for n in range(600):
        await registry.submit(hang, delay=1000, tags={"user": "ann" if n % 100 else "bob"})
    async with open_line(registry, authenticate=known, authorize=owners, token="ok-bob") as line:
        first = (await line.ask({"type": "find", "id": 1, "limit": 4}))["jobs"]
        rest = (await line.ask({"type": "find", "id": 2, "limit": 4, "after": first[-1]["id"]}))["jobs"]
        assert (len(first), len(rest)) == (4, 2)
        assert all(job["tags"] == {"user": "bob"} for job in first + rest)
    await registry.shutdown()


class Dear:
    """What JSON can't hold: it goes as its repr, which is counted."""

    shown = 0

    def __repr__(self) -> str:
        Dear.shown += 1
        return "dear"


async def test_what_is_found_is_looked_at_once(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value is made JSON once: a client that looks through many jobs all the time leaves others their turns."""
    monkeypatch.setattr(Dear, "shown", 0)
    for _ in range(40):
        await registry.submit(hang, Dear(), delay=1000)
    async with open_line(registry) as line:
        jobs = (await line.ask({"type": "find", "id": 1}))["jobs"]
        assert [job["payload"] for job in jobs] == [{"repr": "dear"}] * 40
        assert Dear.shown == 40
    await registry.shutdown()


async def test_others_have_their_turns_while_jobs_are_looked_through(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many jobs there are that a client may not see, all else in the process goes on between the pages."""
    monkeypatch.setattr("jobtrio.websocket._desk.PAGE", 16)
    for _ in range(40 * 16):
        await registry.submit(hang, delay=1000, tags={"user": "ann"})
    turns, seen = Turns(), []
    find = registry.find

    async def noted(**query: Any) -> Any:
        seen.append(turns.taken)
        return await find(**query)

    monkeypatch.setattr(registry, "find", noted)
    async with open_line(registry, authenticate=known, authorize=owners, token="ok-bob") as line:
        await line.hear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns.take)
            assert (await line.ask({"type": "find", "id": 1, "tags": {"user": "ann"}}))["jobs"] == []
            nursery.cancel_scope.cancel()
    assert len(seen) >= 40
    assert seen[-1] - seen[0] >= len(seen) - 2  # a turn a page, but for the order in which Trio gives them
    await registry.shutdown()


@pytest.mark.parametrize("removed", [1, 100, 250])
async def test_jobs_of_others_that_are_removed_meanwhile(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    """That jobs which may not be seen are removed while their rights are asked for is not told, and hides none."""
    monkeypatch.setattr("jobtrio.websocket._desk.FIRST_PAGE", 250)
    theirs = [await registry.submit(words, "", tags={"user": "ann"}) for _ in range(250)]
    for job in theirs:
        await job.wait()
    for _ in range(3):
        await registry.submit(hang, delay=1000, tags={"user": "bob"})

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        if job.id == theirs[-1].id:
            for each in theirs[-removed:]:
                await registry.remove(each.id)
        return bool(job.tags["user"] == principal)

    async with open_line(registry, authenticate=known, authorize=authorize, token="ok-bob") as line:
        answer = await line.ask({"type": "find", "id": 1})
        if removed == 250:
            assert answer["code"] == "unavailable"
            assert not any(job.id in answer["message"] for job in theirs)
            answer = await line.ask({"type": "find", "id": 2})
        assert [job["tags"]["user"] for job in answer["jobs"]] == ["bob"] * 3
    await registry.shutdown()


@pytest.mark.parametrize(
    ("payload", "tags", "most"),
    [("", {}, 250), ("x" * 100_000, {}, 16), ("", {str(n): "x" * 200 for n in range(50)}, 16)],
)
async def test_large_records_are_looked_through_a_few_at_a_time(
    autojump_clock: MockClock,
    registry: JobRegistry,
    monkeypatch: pytest.MonkeyPatch,
    payload: str,
    tags: dict[str, str],
    most: int,
) -> None:
    """Of records that a client is not shown, either, a store is asked for many at once only where they are small."""
    for n in range(400):
        await registry.submit(hang, payload, delay=1000, tags={"user": "ann" if n else "bob", **tags})
    mine = await registry.submit(hang, delay=1000, tags={"user": "bob"})
    limits = []
    find = registry.find

    async def counted(**query: Any) -> Any:
        limits.append(query["limit"])
        return await find(**query)

    monkeypatch.setattr(registry, "find", counted)
    async with open_line(registry, authenticate=known, authorize=owners, token="ok-bob") as line:
        jobs = (await line.ask({"type": "find", "id": 1}))["jobs"]
    assert (len(jobs), jobs[-1]["id"]) == (2, mine.id)
    assert (limits[0], max(limits)) == (16, most)
    await registry.shutdown()


async def test_pages_have_a_size(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Records with large payloads come in smaller pages, at least one at a time, until an empty one."""
    for _ in range(5):
        await registry.submit(hang, "x" * 600_000, delay=1000)
    async with open_line(registry) as line:
        sizes, after = [], None
        while True:
            jobs = (await line.ask({"type": "find", "id": 1, "after": after}))["jobs"]
            sizes.append(len(jobs))
            if not jobs:
                break
            after = jobs[-1]["id"]
    assert sum(sizes) == 5
    assert max(sizes) == 2
    await registry.shutdown()


@pytest.mark.parametrize("tracebacks", [True, False])
@pytest.mark.parametrize("character", ["x", "\x01"])
async def test_pages_of_errors_have_a_size(
    autojump_clock: MockClock, registry: JobRegistry, character: str, tracebacks: bool
) -> None:
    """Large messages and tracebacks count, as long as they are on the wire."""
    for _ in range(40):
        await (await registry.submit(shout, character)).wait()

    async def authorize(principal: Any, action: str, job: Any) -> bool:
        return action != "traceback" or tracebacks

    async with open_line(registry, authenticate=anybody, authorize=authorize) as line:
        page = await line.ask({"type": "find", "id": 1})
    size = (1 + tracebacks) * 60_000 * (1 if character == "x" else 6)
    assert len(page["jobs"]) == 1024 * 1024 // size + 1
    assert len(page["jobs"][0]["error"]["message"]) == 60_000


async def test_pages_of_tags_and_reasons_have_a_size(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """All that can be long counts."""
    tags = {str(n): "x" * 200 for n in range(1000)}
    for _ in range(10):
        await registry.submit(hang, delay=1000, tags=tags)
    for _ in range(40):
        job = await registry.submit(hang, delay=1000)
        await job.cancel("\x01" * 10_000)
    async with open_line(registry) as line:
        assert len((await line.ask({"type": "find", "id": 1}))["jobs"]) == 6
        page = await line.ask({"type": "find", "id": 2, "state": ["CANCELLED"]})
        assert len(page["jobs"]) == 18
    await registry.shutdown()
