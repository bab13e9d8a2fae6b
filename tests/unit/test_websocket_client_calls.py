"""The client against a server that follows a script: what is asked, and what is made of answers."""

from __future__ import annotations

import pickle
from copy import copy
from typing import TYPE_CHECKING, Any

import pytest
import trio
from other_texts import Label
from scripted_bridge import Peer, all_of, end, idle, numbers, open_bridge

import jobtrio
from jobtrio.websocket import (
    JobClient,
    RemoteJob,
    ServerRefusedError,
    open_client,
)
from jobtrio.websocket._client_errors import _ERRORS, error_of
from jobtrio.websocket.protocol import (
    Cancel,
    Find,
    Get,
    JobFound,
    JobsFound,
    Ok,
    Pong,
    Refused,
    Submit,
    Submitted,
    WireRetry,
    wire_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("short_pauses")


class Eager(jobtrio.RetryPolicy):
    """A policy with delays of its own."""

    def delay_after(self, attempt: int, rng: object = None) -> float:
        """Return none."""
        return 0.0


async def test_submits() -> None:
    """A submission says what was given, and nothing else."""
    heard: list[Submit] = []

    async def script(peer: Peer) -> None:
        await peer.greet(attempts=3)
        for _ in range(2):
            heard.append(request := await peer.hear(Submit))
            await peer.say(Submitted(id=request.id, job="j"))

    async with open_bridge(script) as url, open_client(url) as client:
        job = await client.submit("work")
        assert (job.id, job.record, repr(job)) == ("j", None, "<RemoteJob 'j'>")
        assert job == RemoteJob("j", client)
        assert len({job, RemoteJob("j", client), RemoteJob("k", client)}) == 2
        await client.submit(
            "work",
            {"a": 1},
            key="k",
            queue="q",
            priority=jobtrio.JobPriority.HIGH,
            time_limit=3,
            retry=jobtrio.RetryPolicy(4, 5, 6, 7, 0),
            delay=1,
            expires_in=2,
            tags={"t": "x"},
            metadata={"m": [None]},
        )
    plain, full = heard
    assert (plain.executor, plain.payload, plain.subscribe, plain.queue) == ("work", None, False, None)
    assert plain.key is not None
    assert plain.retry is None
    assert full.retry == WireRetry(max_attempts=4, initial=5, multiplier=6, max_delay=7, jitter=0)
    assert len(plain.key) >= 22
    assert (full.key, full.queue, full.priority, full.time_limit) == ("k", "q", "HIGH", 3.0)
    assert (full.delay, full.expires_in, full.tags, full.metadata) == (1.0, 2.0, {"t": "x"}, {"m": [None]})


async def test_a_server_without_retries() -> None:
    """A server that would pass over a retry policy is not asked, also where it has come in the place of another."""

    async def script(peer: Peer) -> None:
        await peer.greet(attempts=None)
        await peer.answer(Submit, Submitted(job="j"))

    async def newer(peer: Peer) -> None:
        await peer.greet(attempts=3)
        assert (await peer.hear(Submit)).retry is not None
        peer.cut()

    for scripts in ((script,), (newer, script)):
        async with open_bridge(*scripts) as url, open_client(url) as client:
            with pytest.raises(ServerRefusedError, match="does not know of retry policies"):
                await client.submit("work", retry=jobtrio.RetryPolicy())
            assert (await client.submit("work")).id == "j"


async def test_a_paused_queue() -> None:
    """A client that asks for a job is told whether it waits in a paused queue, anew each time."""
    async with jobtrio.open_registry() as registry:
        record = wire_record((await registry.create_job()).record)

    async def script(peer: Peer) -> None:
        await peer.greet()
        for paused in (True, False, True):
            await peer.answer(Get, JobFound(job=record, paused=paused))

    async with open_bridge(script) as url, open_client(url) as client:
        job = await client.get(record.id)
        told = [job.is_paused]
        for each in (job, RemoteJob(record.id, client)):
            assert await each.refresh() == each.record
            told.append(each.is_paused)
        assert told == [True, False, True]
        assert not RemoteJob(record.id, client).is_paused


async def test_submits_once() -> None:
    """A submission whose answer was lost is made again under the same key."""
    keys: list[str | None] = []

    async def first(peer: Peer) -> None:
        await peer.greet()
        keys.append((await peer.hear(Submit)).key)
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.greet()
        request = await peer.hear(Submit)
        keys.append(request.key)
        await peer.say(Submitted(id=request.id, job="j"))

    async with open_bridge(first, second) as url, open_client(url) as client:
        assert (await client.submit("work", [1])).id == "j"
    assert keys[0] == keys[1] is not None


async def test_cancels_and_finds() -> None:
    """The other calls say what was given, and give what was answered."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        cancel = await peer.hear(Cancel)
        assert (cancel.job, cancel.reason, cancel.grace) == ("j", "why", 2.0)
        await peer.say(Ok(id=cancel.id, cancelled=True))
        await peer.answer(Cancel, Ok(cancelled=False))
        find = await peer.hear(Find)
        assert (find.tags, find.state, find.limit, find.after) == ({"a": "b"}, ["COMPLETED", "FAILED"], 7, "j")
        assert find.newest_first
        assert find.key == "k"
        await peer.say(f'{{"type":"jobs","id":{find.id},"jobs":[]}}')
        find = await peer.hear(Find)
        assert (find.tags, find.state, find.limit, find.after) == (None, None, 100, None)
        assert not find.newest_first
        assert find.key is None
        await peer.say(f'{{"type":"jobs","id":{find.id},"jobs":[]}}')

    async with open_bridge(script) as url, open_client(url) as client:
        assert await client.cancel("j", "why", grace=2) is True
        assert await RemoteJob("j", client).cancel() is False
        states = [jobtrio.JobState.FAILED, jobtrio.JobState.COMPLETED]
        assert await client.find(state=states, tags={"a": "b"}, limit=7, after="j", key="k", newest_first=True) == []
        assert await client.find() == []


async def test_a_server_that_does_not_find_by_key() -> None:
    """What a server finds that passes over the key is not taken for the job that has it."""
    async with jobtrio.open_registry() as registry:
        record = (await registry.create_job(key="other")).record

    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(2):
            find = await peer.hear(Find)
            await peer.say(JobsFound(id=find.id, jobs=[wire_record(record)]))

    async with open_bridge(script) as url, open_client(url) as client:
        with pytest.raises(ServerRefusedError, match="does not know of finding by key"):
            await client.find(key="k")
        assert await client.find() == [record]


async def test_ids_of_a_text_class() -> None:
    """An id that is text of a class of its own is asked for as the plain text, and does not end the client."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Cancel, Ok(cancelled=True))
        find = await peer.hear(Find)
        assert find.after == "j"
        await peer.say(f'{{"type":"jobs","id":{find.id},"jobs":[]}}')
        request = await peer.subscribed()
        assert (request.job, request.epoch) == ("j", "e")
        await peer.say(end(1))
        get = await peer.hear(Get)
        await peer.say(Refused(id=get.id, code="unknown_job", message="none"))

    async with open_bridge(script) as url, open_client(url) as client:
        assert await client.cancel(Label("j"))
        assert await client.find(after=Label("j")) == []
        with client.subscribe(Label("j"), epoch=Label("e")) as messages:
            assert await messages.receive() == jobtrio.End(1, jobtrio.Completed())
        with pytest.raises(jobtrio.UnknownJobError):
            await client.get(Label("j"))


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda c: c.submit(len), TypeError, "executor"),
        (lambda c: c.submit("e", object()), jobtrio.PayloadError, "payload"),
        (lambda c: c.submit("e", float("nan")), jobtrio.PayloadError, "payload"),
        (lambda c: c.submit("e", metadata={"a": object()}), jobtrio.PayloadError, "metadata"),
        (lambda c: c.submit("e", key=""), ValueError, "key"),
        (lambda c: c.submit("e", queue=""), ValueError, "queue"),
        (lambda c: c.submit("e", priority=5), (TypeError, ValueError), "priority"),
        (lambda c: c.submit("e", time_limit=0), ValueError, "time_limit"),
        (lambda c: c.submit("e", retry=3), TypeError, "retry"),
        (lambda c: c.submit("e", retry=Eager()), TypeError, "retry"),  # its delays would not be those of the server
        (lambda c: c.submit("e", delay=-1), ValueError, "delay"),
        (lambda c: c.submit("e", expires_in=float("inf")), ValueError, "expires_in"),
        (lambda c: c.submit("e", tags={"a": 1}), TypeError, "tags"),
        (lambda c: c.submit("e", "\ud800"), jobtrio.PayloadError, "payload"),
        (lambda c: c.cancel(7), TypeError, "job_id"),
        (lambda c: c.cancel("j", 7), TypeError, "reason"),
        (lambda c: c.cancel("j", grace=float("nan")), ValueError, "grace"),
        (lambda c: c.get(None), TypeError, "job_id"),
        (lambda c: c.find(limit=0), ValueError, "limit"),
        (lambda c: c.find(limit=1001), ValueError, "limit"),
        (lambda c: c.find(state="running"), ValueError, "state"),
        (lambda c: c.find(after=3), TypeError, "after"),
        (lambda c: c.find(newest_first=1), TypeError, "newest_first"),
        (lambda c: c.find(key=""), ValueError, "key"),
        (lambda c: c.find_all(key=3), TypeError, "key"),
        (lambda c: c.find_all(state="running"), ValueError, "state"),
        (lambda c: c.find_all(tags={"a": 1}), TypeError, "tags"),
        (lambda c: c.find_all(newest_first=1), TypeError, "newest_first"),
        (lambda c: c.subscribe(7), TypeError, "job_id"),
        (lambda c: c.subscribe("j", -1), ValueError, "after"),
        (lambda c: c.subscribe("j", "start"), TypeError, "after"),
        (lambda c: c.subscribe("j", True), TypeError, "after"),
        (lambda c: c.subscribe("j", epoch=7), TypeError, "epoch"),
        (lambda c: c.subscribe("j", on_gap="skip"), ValueError, "on_gap"),
    ],
)
async def test_nonsense(
    call: Callable[[JobClient], Any], error: type[Exception] | tuple[type[Exception], ...], name: str
) -> None:
    """A parameter that makes no sense is refused before anything is sent, by its name."""
    async with open_bridge(idle) as url, open_client(url) as client:
        with pytest.raises(error, match=name):
            await call(client)


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        ("invalid", ValueError, "what is wrong"),
        ("unknown_executor", jobtrio.UnknownExecutorError, "'work'"),
        ("payload", jobtrio.PayloadError, "what is wrong"),
        ("duplicate_job", jobtrio.DuplicateJobError, "the key belongs to another job"),
        ("queue_full", jobtrio.QueueFullError, "max_queued is 0"),
        ("forbidden", ServerRefusedError, r"refused \(forbidden\): what is wrong"),
        ("unauthenticated", ServerRefusedError, "unauthenticated"),
        ("unknown_type", ServerRefusedError, "unknown_type"),
        ("invented", ServerRefusedError, "invented"),
    ],
)
async def test_refused_call(code: str, error: type[Exception], text: str) -> None:
    """What the server refuses is raised as the registry would raise it, and the connection serves on."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for said in ("what is wrong", ""):
            await peer.answer(Submit, Refused(code=code, message=said))

    async with open_bridge(script) as url, open_client(url) as client:
        for match in (text, None):
            with pytest.raises(error, match=match):
                await client.submit("work")


@pytest.mark.parametrize("code", sorted(_ERRORS))
def test_errors_can_be_copied(code: str) -> None:
    """An error is as much in each place where it is raised, and in another process."""
    error = error_of(Refused(id=1, code=code, message="why", first=1, last=2, limit=3), "subject")
    for other in (copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(other), str(other), vars(other)) == (type(error), str(error), vars(error))


async def test_full_queue() -> None:
    """That the queue is full is told with its limit."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Submit, Refused(code="queue_full", message="full", limit=17))

    async with open_bridge(script) as url, open_client(url) as client:
        with pytest.raises(jobtrio.QueueFullError) as caught:
            await client.submit("work")
    assert caught.value.limit == 17


async def test_one_too_many() -> None:
    """A call that was one too many in its second is made again by itself."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Submit, Refused(code="rate", message="slow down"))
        await peer.answer(Submit, Submitted(job="j"))

    async with open_bridge(script) as url, open_client(url) as client:
        assert (await client.submit("work")).id == "j"


async def test_server_that_can_not_serve_now() -> None:
    """A call that the server can't carry out now is made again, also at its successor."""

    async def draining(peer: Peer) -> None:
        await peer.greet()
        for _ in range(2):
            request = await peer.hear(Submit)
            await peer.say(Refused(id=request.id, code="unavailable", message="the server is shutting down"))
        keys.add(request.key)
        await peer.close(1012)

    async def successor(peer: Peer) -> None:
        await peer.greet()
        request = await peer.hear(Submit)
        keys.add(request.key)
        await peer.say(Submitted(id=request.id, job="j"))

    keys = set[str | None]()
    async with open_bridge(draining, successor) as url, open_client(url) as client:
        assert (await client.submit("work")).id == "j"
    assert len(keys) == 1


async def test_server_that_can_not_serve_for_long() -> None:
    """A call that the server could not carry out within the limit fails with what it said; others are not held up."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        while True:
            request = await peer.hear(object)
            if isinstance(request, Submit):
                await peer.say(Refused(id=request.id, code="unavailable", message="the store is away"))
            else:
                assert isinstance(request, Cancel)
                await peer.say(Ok(id=request.id, cancelled=True))

    async with open_bridge(script) as url, open_client(url, outage_limit=1.0) as client:
        start = trio.current_time()
        with pytest.raises(jobtrio.StoreUnavailableError, match="the store is away"):
            await client.submit("work")
        assert trio.current_time() - start >= 1.0
        assert await client.cancel("j")


async def test_too_large_for_the_server() -> None:
    """What is larger than the server takes is refused here: sent, it would end the connection, again and again."""

    async def script(peer: Peer) -> None:
        await peer.greet(message_bytes=300)
        await peer.answer(Submit, Submitted(job="j"))

    async with open_bridge(script) as url, open_client(url) as client:
        with pytest.raises(jobtrio.PayloadError, match=r"at most 300 bytes for this server; got 3\d\d"):
            await client.submit("work", "x" * 300)
        assert (await client.submit("work", "x")).id == "j"


async def test_abandoned_call() -> None:
    """A call that is cancelled is forgotten; its answer, when it comes, is nobody's."""
    abandoned = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        first = await peer.hear(Get)
        await abandoned.wait()
        second = await peer.hear(Submit)
        await peer.say(Pong(id=first.id), Submitted(id=second.id, job="j"))

    async with open_bridge(script) as url, open_client(url) as client:
        with trio.move_on_after(0.05):
            await client.get("j")
        abandoned.set()
        assert (await client.submit("work")).id == "j"


async def test_answer_of_another_kind() -> None:
    """An answer that can't be one is an error."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.answer(Submit, Pong())

    async with open_bridge(script) as url, open_client(url) as client:
        with pytest.raises(ServerRefusedError, match="Submitted was due, and Pong came"):
            await client.submit("work")


async def test_messages_of_later_versions() -> None:
    """Messages and fields that came after this client are passed over."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.subscribed()
        await peer.say('{"type":"confetti","sub":1}', '{"type":"events","sub":1,"seq":1,"attempt":1,"items":[1],"x":0}')
        await peer.say(Refused(code="invented", message="about nothing"), Ok(), Pong(id="x"), end(2))

    async with open_bridge(script) as url, open_client(url) as client:
        assert numbers(await all_of(client.subscribe("a job"))) == [1, 2]


async def test_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more messages are sent in a second than the server takes."""
    monkeypatch.setattr("jobtrio.websocket._client_times.WINDOW", 0.2)
    heard: list[float] = []

    async def script(peer: Peer) -> None:
        await peer.greet(messages_per_second=3.0)
        for _ in range(7):
            request = await peer.hear(Submit)
            heard.append(trio.current_time())
            await peer.say(Submitted(id=request.id, job="j"))

    async with open_bridge(script) as url, open_client(url) as client, trio.open_nursery() as nursery:
        for _ in range(7):
            nursery.start_soon(client.submit, "work")
    assert heard[3] - heard[0] > 0.1
    assert heard[6] - heard[3] > 0.1
