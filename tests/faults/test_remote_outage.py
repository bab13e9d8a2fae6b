"""A store of another machine is away for a while, or for good: work goes on, ends are written, nobody hangs."""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import (
    Cancelled,
    Completed,
    End,
    Executors,
    JobCancelledError,
    JobContext,
    JobState,
    PayloadError,
    Restart,
    RetryPolicy,
    StoreUnavailableError,
    Token,
    UnknownExecutorError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio.testing import MockClock

    from jobtrio import Message, Subscription

LEASE = 60.0

executors = Executors()


@executors.register("count")
async def count(job: JobContext) -> int:
    """Send the numbers up to the payload, a second apart."""
    for number in range(job.payload):
        await job.send(number)
        await trio.sleep(1)
    return int(job.payload)


@executors.register("fail", retry=RetryPolicy(max_attempts=2, initial=1, jitter=0))
async def fail(job: JobContext) -> None:
    await trio.sleep(1)
    raise ValueError("no")


@executors.register("twice", retry=RetryPolicy(max_attempts=2, initial=10, jitter=0))
async def twice(job: JobContext) -> None:
    """Send, and fail at first."""
    await job.send(job.attempt)
    if job.attempt == 1:
        raise ValueError("no")


@executors.register("rest")
async def rest(job: JobContext) -> int:
    """Send nothing, and return the attempt's number after a second."""
    await trio.sleep(1)
    return job.attempt


@executors.register("second")
async def second(job: JobContext) -> None:
    """Send nothing, and end at the second attempt."""
    if job.attempt == 1:
        await trio.sleep_forever()


@executors.register("hang")
async def hang(job: JobContext) -> None:
    await trio.sleep_forever()


def set_away(store: RemoteStore, kind: str) -> None:
    """Begin an outage in which calls fail at once, or are not answered."""
    if kind == "away":
        store.network.away = True
    else:
        store.network.hanging = {"*"}


def set_back(store: RemoteStore) -> None:
    """End an outage."""
    store.network.away = False
    store.network.hanging = set()


async def watch_all(job: jobtrio.Job) -> None:
    """Receive all messages."""
    async for _ in job.subscribe():
        pass


async def watch_tokens(job: jobtrio.Job) -> None:
    """Receive all values."""
    async for _ in job.tokens():
        pass


async def watch_channel(job: jobtrio.Job) -> None:
    """Receive all messages by a channel."""
    async with job.open_channel() as channel:
        async for _ in channel:
            pass


KINDS = ("away", "hanging")


async def tokens(job: jobtrio.Job) -> list[Any]:
    return [value async for value in job.tokens()]


@pytest.mark.parametrize("kind", KINDS)
async def test_running_jobs_run_on(autojump_clock: MockClock, kind: str) -> None:
    """Jobs that run send and end during an outage; what they sent and how they ended is stored afterwards."""
    server = Server()
    store = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        short, long = await registry.submit("count", 5), await registry.submit("count", 25)
        failing = await registry.submit("fail")
        await trio.sleep(0.5)
        set_away(store, kind)
        with short.subscribe() as messages:  # consumers here see it as it happens
            seen = [(await messages.receive()) for _ in range(5)]
        assert [m.value for m in seen if isinstance(m, Token)] == [0, 1, 2, 3, 4]
        await trio.sleep(15)
        assert short.outcome is None  # an ending that is not kept is none
        set_back(store)
        assert await short.wait() == Completed(5)
        assert await long.wait() == Completed(25)
        assert isinstance(await failing.wait(), jobtrio.Failed)
        for job, length in ((short, 5), (long, 25)):
            stored = await store.read_messages(job.id, 0, 100)
            assert stored is not None
            assert stored[-1] == End(length + 1, Completed(length))
            assert [m.value for m in stored if isinstance(m, Token)] == [*range(length)]
            assert len(await registry.history(job.id)) == 3
        kinds = [type(m) for m in await store.read_messages(failing.id, 0, 100) or ()]
        assert kinds == [Restart, End]


@pytest.mark.parametrize("kind", KINDS)
async def test_an_end_without_messages(autojump_clock: MockClock, kind: str) -> None:
    """What a job returns that has sent nothing is written once the store is back, too: it does not run again."""
    store = RemoteStore(Server(), latency=0.01)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("rest")
        await trio.sleep(0.5)
        set_away(store, kind)
        await trio.sleep(0.3 * LEASE)
        assert job.outcome is None
        set_back(store)
        assert await job.wait() == Completed(1)
        states = [line.state for line in await registry.history(job.id)]
    assert states == [JobState.QUEUED, JobState.RUNNING, JobState.COMPLETED]


@pytest.mark.parametrize("limit", [5, 20])
async def test_more_than_is_kept(autojump_clock: MockClock, limit: int) -> None:
    """A job that sends more during an outage than is kept leaves a gap, told to every watcher; numbers stay right."""
    server = Server()
    store = RemoteStore(server)
    kept = jobtrio.Retention(tokens_per_job=limit)
    async with (
        jobtrio.open_registry(executors, store=store, lease=LEASE, retention=kept) as registry,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}, retention=kept) as elsewhere,
    ):
        job = await registry.submit("count", 50)
        there = await elsewhere.get(job.id)
        with job.subscribe(on_gap="yield") as near, there.subscribe(on_gap="yield") as far:
            await trio.sleep(2.5)
            store.network.away = True
            await trio.sleep(40)
            store.network.away = False
            for messages in (near, far):
                seen = [message async for message in messages]
                number = 0
                for message in seen:
                    if isinstance(message, jobtrio.Gap):
                        assert message.first == number + 1
                        number = message.last
                    else:
                        number += 1
                        assert message.seq == number
                        assert not isinstance(message, Token) or message.value == number - 1
                assert seen[-1] == End(51, Completed(50))
                kinds = [type(message) for message in seen]
                assert kinds.count(jobtrio.Gap) == 1
                assert len(kinds) - kinds.index(jobtrio.Gap) > limit


@pytest.mark.parametrize("kind", KINDS)
async def test_callers_wait_no_longer_than_the_limit(autojump_clock: MockClock, kind: str) -> None:
    """Each call that needs the store fails after ``outage_limit`` seconds, clearly, and works again afterwards."""
    store = RemoteStore(Server(), outage_limit=4)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
        job = await registry.submit("count", 0)
        await job.wait()
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: registry.submit("count", 0),
            lambda: registry.submit_many([jobtrio.JobSpec("count", 0)]),
            lambda: registry.create_job(),
            lambda: registry.get(job.id),
            lambda: registry.find(),
            lambda: registry.history(job.id),
            lambda: registry.cancel(job.id),
            lambda: registry.remove(job.id),
            lambda: registry.drain(),
        ]
        set_away(store, kind)
        for call in calls:
            began = trio.current_time()
            with pytest.raises(StoreUnavailableError, match="the store was away for 4 s"):
                await call()
            assert 3.9 < trio.current_time() - began < 4.5
        set_back(store)
        for call in calls:
            await call()


@pytest.mark.parametrize("kind", KINDS)
async def test_who_begins_to_watch_waits_no_longer_than_the_limit(autojump_clock: MockClock, kind: str) -> None:
    """A stream that can't be begun to be read fails as calls do, and can be read afterwards; who waits waits on."""
    server = Server()
    store = RemoteStore(server, outage_limit=4)
    async with jobtrio.open_registry(executors, store=store, lease=LEASE, queues={}) as registry:
        unread, read, waited = [await registry.submit("count", 3) for _ in range(3)]
        before = read.subscribe()
        await trio.sleep(1)
        outcomes: list[jobtrio.Outcome] = []

        async def wait() -> None:
            outcomes.append(await waited.wait())

        async with trio.open_nursery() as nursery:
            set_away(store, kind)
            nursery.start_soon(wait)
            for watch in (watch_all, watch_tokens, watch_channel):
                began = trio.current_time()
                with pytest.raises(StoreUnavailableError, match="the store was away for 4 s"), trio.fail_after(100):
                    await watch(unread)
                assert 3.9 < trio.current_time() - began < 4.5
            with pytest.raises(trio.WouldBlock):
                before.receive_nowait()
            set_back(store)
            async with jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE):
                whole = [message async for message in before]
                assert whole[-1] == End(4, Completed(3))
                assert [message async for message in unread.subscribe()] == whole
                await unread.wait()
        assert outcomes == [Completed(3)]


@pytest.mark.parametrize("kind", KINDS)
async def test_who_watches_a_job_of_this_process_rides_out(autojump_clock: MockClock, kind: str) -> None:
    """Whose messages are here is watched on, also between two attempts, and by who comes in an outage."""
    store = RemoteStore(Server(), outage_limit=4)
    async with jobtrio.open_registry(executors, store=store, lease=1000) as registry:
        job, other = await registry.submit("twice"), await registry.submit("twice")
        early = job.subscribe()
        await trio.sleep(5)
        assert job.state == other.state == JobState.RETRYING
        set_away(store, kind)
        late = job.subscribe(), other.subscribe()
        await trio.sleep(20)
        set_back(store)
        whole = [message async for message in early]
        assert [type(message) for message in whole] == [Token, Restart, Token, End]
        assert [message async for message in late[0]] == whole
        assert len([message async for message in late[1]]) == len(whole)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_watches_a_silent_job_rides_out_its_loss(autojump_clock: MockClock, kind: str) -> None:
    """Who watched a job that has sent nothing here watches on where an outage costs this process the job."""
    store = RemoteStore(Server(), latency=0.001, outage_limit=4)
    async with jobtrio.open_registry(executors, store=store, lease=2) as registry:
        messages = (await registry.submit("second")).subscribe()
        await trio.sleep(1)
        set_away(store, kind)
        await trio.sleep(20)
        set_back(store)
        assert [type(message) async for message in messages] == [Restart, End]


async def test_a_short_outage_goes_unnoticed(autojump_clock: MockClock) -> None:
    """A submission during an outage that is over in time succeeds, and there is one job."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry, trio.open_nursery() as nursery:

        async def come_back() -> None:
            await trio.sleep(5)
            set_back(store)

        set_away(store, "away")
        nursery.start_soon(come_back)
        job = await registry.submit("count", 2)
        assert await job.wait() == Completed(2)
        assert len(await registry.find()) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_opening(autojump_clock: MockClock, kind: str) -> None:
    """A registry can't be opened on a store that is away, and says so in time."""
    store = RemoteStore(Server(), outage_limit=4)
    set_away(store, kind)
    with trio.fail_after(5), pytest.raises(StoreUnavailableError):
        async with jobtrio.open_registry(executors, store=store):
            raise AssertionError("opened")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("executor", ["count", "fail", "hang"])
@pytest.mark.parametrize("how", ["normally", "by an exception", "by a cancellation"])
async def test_leaving_for_good(autojump_clock: MockClock, kind: str, executor: str, how: str) -> None:
    """With the store gone for good, leaving takes no longer than a lease and a call's limit, whatever runs."""
    server = Server()
    store = RemoteStore(server)
    with trio.fail_after(100 * LEASE), trio.CancelScope() as scope:
        try:
            async with jobtrio.open_registry(executors, store=store, lease=LEASE) as registry:
                await registry.submit(executor, 5)
                await trio.sleep(0.5)
                set_away(store, kind)
                began = trio.current_time()
                if how == "by an exception":
                    raise KeyError("mine")
                if how == "by a cancellation":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        except KeyError:
            assert how == "by an exception"
    assert trio.current_time() - began <= LEASE + store.outage_limit
    async with jobtrio.open_registry(executors, store=RemoteStore(server), lease=LEASE) as registry:
        (record,) = await registry.find()
        assert not record.state.is_final  # it was neither lost nor made up


async def test_waiters_when_their_registry_closes(autojump_clock: MockClock) -> None:
    """Who waits for a job that goes on elsewhere gets an error when the registry closes, in each way of waiting."""
    server = Server()
    errors: list[str] = []

    async def expect(wait: Callable[[], Awaitable[Any]]) -> None:
        with pytest.raises(trio.BrokenResourceError, match="closed before the job ended"):
            await wait()
        errors.append("broken")

    async with trio.open_nursery() as nursery:
        async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as registry:
            job = await registry.submit("count", 3)

            for wait in (job.wait, job.result, job.subscribe().receive, lambda: tokens(job)):
                nursery.start_soon(expect, wait)
            await trio.sleep(1)
            assert not errors
    assert errors == ["broken"] * 4
    assert job.outcome is None


@pytest.mark.parametrize("how", ["normally", "by an exception"])
async def test_readers_of_a_job_that_has_ended_when_their_registry_closes(autojump_clock: MockClock, how: str) -> None:
    """Who reads a job that did not run here gets its end where that is known as the registry is left."""
    ends: list[Message] = []
    async with trio.open_nursery() as nursery:
        with suppress(JobCancelledError):
            async with jobtrio.open_registry(executors, store=RemoteStore(Server()), queues={}) as registry:
                job = await registry.submit("count", 3)
                messages = job.subscribe()
                nursery.start_soon(_read_end, messages, ends)
                await trio.sleep(1)
                await job.cancel("enough")
                assert await job.wait() == Cancelled("enough")
                if how == "by an exception":
                    await job.result()
    assert ends == [End(1, Cancelled("enough"))]


async def _read_end(messages: Subscription, ends: list[Message]) -> None:
    ends.append(await messages.receive())


@pytest.mark.parametrize("how", ["forgotten", "replaced"])
async def test_readers_of_handles_that_are_gone(autojump_clock: MockClock, how: str) -> None:
    """Who reads a stream gets that error too where nobody holds the job, or where its id is another job's by then."""
    server = Server()
    async with trio.open_nursery() as nursery, jobtrio.open_registry(store=RemoteStore(server)) as there:
        async with jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as registry:
            job = await registry.submit("count", 3, job_id="id")
            messages = job.subscribe()
            if how == "forgotten":
                del job
                gc.collect()
            nursery.start_soon(_expect_closed, messages.receive)
            await trio.sleep(1)
            if how == "replaced":
                await there.cancel("id")
                await there.remove("id")
                assert await registry.submit("count", 3, job_id="id") != job
                nursery.start_soon(_expect_closed, job.wait)
        with trio.fail_after(1):
            await trio.testing.wait_all_tasks_blocked()


async def _expect_closed(wait: Callable[[], Awaitable[Any]]) -> None:
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError, match="closed before the job ended"):
        await wait()


async def test_waiting_when_the_registry_is_closed(autojump_clock: MockClock) -> None:
    """Who begins to wait for a job that goes on elsewhere gets that error too if the registry is closed by then."""
    async with jobtrio.open_registry(executors, store=RemoteStore(Server()), queues={}) as registry:
        job = await registry.submit("count", 3)
    for wait in (job.wait, job.result, job.subscribe().receive, lambda: tokens(job)):
        with trio.fail_after(1), pytest.raises(trio.BrokenResourceError, match="closed before the job ended"):
            await wait()


async def test_payloads_are_checked_first(autojump_clock: MockClock) -> None:
    """What can't be stored is refused before anything is, and fails the job where the job sends or returns it."""
    results: list[str] = []
    odd = Executors()

    @odd.register("send")
    async def send(job: JobContext) -> None:
        for call in (job.send, job.save_state):
            with pytest.raises(PayloadError):
                await call(object())
        with pytest.raises(PayloadError):
            job.send_nowait([1, float("nan")])
        results.append("refused")

    @odd.register("return")
    async def give(job: JobContext) -> object:
        return object()

    store = RemoteStore(Server())
    async with jobtrio.open_registry(odd, store=store) as registry:
        before = list(store.network.calls)
        for bad in (object(), {"x": float("inf")}, [lambda: None]):
            with pytest.raises(PayloadError, match="payload"):
                await registry.submit("send", bad)
            with pytest.raises(PayloadError, match="metadata"):
                await registry.submit("send", metadata={"x": bad})
            with pytest.raises(PayloadError):
                await registry.submit_many([jobtrio.JobSpec("send"), jobtrio.JobSpec("send", bad)])
        assert "insert" not in store.network.calls[len(before) :]
        assert await (await registry.submit("send")).wait() == Completed(None)
        assert results == ["refused"]
        outcome = await (await registry.submit("return")).wait()
        assert isinstance(outcome, jobtrio.Failed)
        assert outcome.error.type == "PayloadError"


async def test_a_policy_of_another_class(autojump_clock: MockClock) -> None:
    """A policy that stores can't keep is refused by name, and the job is tried as it says where none has to."""

    class Eager(RetryPolicy):
        def delay_after(self, attempt: int, rng: object = None) -> float:
            return 0.5

    async def fails(job: JobContext) -> None:
        raise OSError

    executors = Executors()
    executors.register("fails")(fails)
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        with pytest.raises(TypeError, match="retry must be a RetryPolicy itself"):
            await registry.submit("fails", retry=Eager(2))
        assert await registry.find() == []
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(fails, retry=Eager(2))
        restarts = [message.delay async for message in job.subscribe() if isinstance(message, Restart)]
        assert restarts == [0.5]


async def test_a_result_that_is_changed_before_it_is_stored(autojump_clock: MockClock) -> None:
    """A result that can't be stored any more when the store is back fails its job alone."""
    odd = Executors()
    result: list[Any] = ["fine"]
    store = RemoteStore(Server())

    @odd.register("odd")
    async def give(job: JobContext) -> list[Any]:
        store.network.away = True
        return result

    async with jobtrio.open_registry(odd, store=store) as registry:
        job = await registry.submit("odd")
        await trio.sleep(1)
        result.append(object())
        store.network.away = False
        outcome = await job.wait()
        assert isinstance(outcome, jobtrio.Failed)
        assert outcome.error.type == "PayloadError"


def nested(levels: int) -> Any:
    value: Any = "[" * 300 + '"{\\'
    for level in range(levels):
        value = [value] if level % 2 else {"{": value}
    return value


async def test_values_that_are_nested_deeply(autojump_clock: MockClock) -> None:
    """What is nested so deeply that those who read it might fail is refused, and all that is accepted can be read."""
    odd = Executors()

    @odd.register("odd")
    async def echo(job: JobContext) -> Any:
        return job.payload

    async with jobtrio.open_registry(odd, store=RemoteStore(Server())) as registry:
        for levels in (201, 900, 5000):
            with pytest.raises(PayloadError, match="nested"):
                await registry.submit("odd", nested(levels))
        assert await (await registry.submit("odd", nested(200))).wait() == Completed(nested(200))
        wide = [[[n]] for n in range(1000)]
        assert await (await registry.submit("odd", wide)).wait() == Completed(wide)


@pytest.mark.parametrize("value", [msgspec.Raw(b"nope"), {"a": [msgspec.Raw(b"[1,")]}, [msgspec.Raw(b"1 2")]])
async def test_values_that_only_look_encoded(value: Any, autojump_clock: MockClock) -> None:
    """Text that is passed on as JSON and is none is refused; it would be stored, and no worker could read it."""
    odd = Executors()

    @odd.register("odd")
    async def echo(job: JobContext) -> Any:
        return job.payload

    async with jobtrio.open_registry(odd, store=RemoteStore(Server())) as registry:
        with pytest.raises(PayloadError, match="must be what JSON can hold"):
            await registry.submit("odd", value)
        job = await registry.submit("odd", [msgspec.Raw(b'{"a": 1}')])
        assert await job.wait() == Completed([{"a": 1}])


@pytest.mark.parametrize("ends", ["at once", "later", "by an error"])
async def test_tokens_that_are_changed_behind_their_sending(autojump_clock: MockClock, ends: str) -> None:
    """A token that can't be stored any more, because its job has changed it, is stored as its repr; all goes on."""
    odd = Executors()

    @odd.register("odd")
    async def send(job: JobContext) -> None:
        token: list[Any] = ["before"]
        await job.send(token)
        await job.send("next")
        token[:] = [complex(1, 2)]
        if ends == "later":
            await trio.sleep(1)
        assert ends != "by an error"

    store = RemoteStore(Server())
    async with jobtrio.open_registry(odd, store=store) as registry:
        job = await registry.submit("odd")
        outcome = await job.wait()
        stored = await store.read_messages(job.id, 0, 100)
        assert stored == [
            jobtrio.Token(1, 1, {"repr": "[(1+2j)]"}),
            jobtrio.Token(2, 1, "next"),
            jobtrio.End(3, outcome),
        ]
        assert isinstance(outcome, jobtrio.Failed if ends == "by an error" else Completed)


async def test_unknown_executors_are_left_to_others(autojump_clock: MockClock) -> None:
    """A worker takes only jobs whose executors it has; submitting under a name that it does not know fails."""
    server = Server()
    one, other = Executors(), Executors()
    one.register("one")(count)
    one.register("other")(count)

    @other.register("other")
    async def work(job: JobContext) -> str:
        return "by the other"

    async with jobtrio.open_registry(one, store=RemoteStore(server), queues={}) as submitter:
        with pytest.raises(UnknownExecutorError):
            await submitter.submit("third")
        with pytest.raises(UnknownExecutorError):
            await submitter.submit(work)
        first, second = await submitter.submit("one", 0), await submitter.submit("other")
        async with jobtrio.open_registry(other, store=RemoteStore(server)):
            assert await second.wait() == Completed("by the other")
            await trio.sleep(20)
            assert (await submitter.get(first.id)).state == JobState.QUEUED


async def test_text_that_is_no_unicode(autojump_clock: MockClock) -> None:
    """Text with half a surrogate pair, in an exception, a reason or a note, can't stop a job from ending."""
    odd = Executors()
    half = "half a pair: \udcff"

    @odd.register("raise", retry=RetryPolicy(max_attempts=2, initial=0, jitter=0))
    async def fail_oddly(job: JobContext) -> None:
        raise ValueError(half)

    @odd.register("note")
    async def note(job: JobContext) -> None:
        job.progress(1, note=half)

    @odd.register("hang")
    async def wait(job: JobContext) -> None:
        await trio.sleep_forever()

    async with jobtrio.open_registry(odd, store=RemoteStore(Server())) as registry:
        with trio.fail_after(60):
            outcome = await (await registry.submit("raise")).wait()
            assert isinstance(outcome, jobtrio.Failed)
            assert "half a pair: " in outcome.error.message
            assert isinstance(await (await registry.submit("note")).wait(), jobtrio.Failed)
            job = await registry.submit("hang")
            with pytest.raises(ValueError, match="reason"):
                await job.cancel(half)
            assert await job.cancel("whole")
            assert await job.wait() == jobtrio.Cancelled("whole")
