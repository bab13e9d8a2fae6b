"""Sessions over a store on another machine, with what can go wrong there, on a line without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from bridge import executors as ready
from line import anybody, open_line
from remote_store import RemoteStore, Server

import jobtrio
from jobtrio import Executors, JobContext
from jobtrio.websocket import CloseCode
from jobtrio.websocket.protocol import decode_retry_after

if TYPE_CHECKING:
    from trio.testing import MockClock

executors = Executors()
executors.register("words", expose=True)(ready.get("words").function)


@executors.register("count", expose=True)
async def count(job: JobContext) -> str:
    for number in range(1, 6):
        await job.send(number)
        await trio.sleep(1)
    return "done"


def items_of(heard: list[Any]) -> list[Any]:
    return [item for message in heard for item in message.get("items", ())]


@pytest.mark.parametrize("after", ["0", "3", "5", "end"])
async def test_while_the_ending_is_on_its_way(autojump_clock: MockClock, after: str) -> None:
    """A client that comes when the end is stored and not yet here gets what is missing, once, and the end."""
    store = RemoteStore(Server())
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("count")
        store.network.slow["finish"] = 5
        await trio.sleep(6)
        async with open_line(registry, f"/jobs/{job.id}?after={after}") as line:
            heard, code = await line.hear_out()
        assert (await registry.get(job.id)).outcome is not None
        assert items_of(heard) == [1, 2, 3, 4, 5][5 if after == "end" else int(after) :]
        assert [message["type"] for message in heard].count("end") == 1
        assert code == CloseCode.COMPLETED


async def test_a_job_that_never_said_anything(autojump_clock: MockClock) -> None:
    """A submission of a job that sends nothing is followed to its end, whenever that is stored."""
    for delay in (0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 1.0):
        async with jobtrio.open_registry(executors, store=RemoteStore(Server())) as registry:
            async with open_line(registry, authenticate=anybody) as line:
                submitted = await line.ask({"type": "submit", "id": 1, "executor": "words", "payload": ""})
                await trio.sleep(delay)
                answer = await line.ask({"type": "subscribe", "id": 2, "job": submitted["job"], "after": "end"})
                assert answer["type"] == "subscribed"
                with trio.fail_after(5):
                    assert (await line.hear())["outcome"] == {"type": "completed", "result": 0}


async def test_only_what_is_stored(autojump_clock: MockClock) -> None:
    """What the worker itself has sent is shown once it is stored, and its numbers mean the same elsewhere."""
    server = Server()
    store = RemoteStore(server)
    async with (
        jobtrio.open_registry(executors, store=store) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job = await here.submit("count")
        await trio.sleep(1.5)
        store.network.failing = {"append_messages"}
        async with open_line(here, f"/jobs/{job.id}") as line:
            assert (await line.hear())["last"] == 2
            assert items_of([await line.hear()]) == [1, 2]
            with trio.move_on_after(2):
                await line.hear()
                raise AssertionError("it was not stored")
            async with open_line(there, f"/jobs/{job.id}?after=3") as other:
                refused, code = await other.hear_out()
                assert (refused[0]["code"], refused[0]["last"], code) == ("future_cursor", 2, CloseCode.BAD_CURSOR)
            store.network.failing = set()
            heard, _ = await line.hear_out()
            assert items_of(heard) == [3, 4, 5]


@pytest.mark.parametrize("slow", ["append_messages", "finish"])
async def test_what_is_not_known_here_yet(autojump_clock: MockClock, slow: str) -> None:
    """A client that saw elsewhere what the worker does not know to be stored is told to try again; nothing is lost."""
    server = Server()
    store = RemoteStore(server)
    store.network.slow[slow] = 5
    async with (
        jobtrio.open_registry(executors, store=store) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job = await here.submit("words" if slow == "finish" else "count", "a b c")
        async with open_line(there, f"/jobs/{job.id}") as line:
            subscribed, seen = await line.hear(), await line.hear()
        last = seen["seq"] + len(seen["items"]) - 1
        path = f"/jobs/{job.id}?epoch={subscribed['epoch']}&after="
        async with open_line(here, f"{path}{last}") as line:
            heard, code = await line.hear_out()
            assert ([message["code"] for message in heard], code) == (["unavailable"], CloseCode.DRAINING)
        async with open_line(here, f"{path}{last + 10}") as line:
            heard, code = await line.hear_out()
            assert ([message["code"] for message in heard], code) == (["future_cursor"], CloseCode.BAD_CURSOR)
        await trio.sleep(5)
        async with open_line(here, f"{path}{last}") as line:
            heard, code = await line.hear_out()
        assert seen["items"] + items_of(heard) == (["a", "b", "c"] if slow == "finish" else [1, 2, 3, 4, 5])
        assert code == CloseCode.COMPLETED


@pytest.mark.parametrize("after", ["0", "2", "end"])
async def test_from_another_process(autojump_clock: MockClock, after: str) -> None:
    """A bridge that has read nothing of a running job begins exactly where it is asked to."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job = await here.submit("count")
        await trio.sleep(2.5)
        async with open_line(there, f"/jobs/{job.id}?after={after}") as line:
            heard, code = await line.hear_out()
        assert heard[0]["last"] == 3
        assert items_of(heard) == [1, 2, 3, 4, 5][3 if after == "end" else int(after) :]
        assert code == CloseCode.COMPLETED


async def test_the_store_is_away(autojump_clock: MockClock) -> None:
    """While the store can't be asked, requests are refused as unavailable, and tails closed as to be tried again."""
    store = RemoteStore(Server(), outage_limit=3)
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("count")
        async with open_line(registry, authenticate=anybody) as line:
            await line.hear()
            store.network.away = True
            for request in (
                {"type": "subscribe", "job": "other"},
                {"type": "get", "job": "other"},
                {"type": "find"},
                {"type": "cancel", "job": "other"},
                {"type": "submit", "executor": "words"},
            ):
                assert (await line.ask({**request, "id": 1}))["code"] == "unavailable"
            async with open_line(registry, "/jobs/other") as tail:
                heard, code = await tail.hear_out()
                assert (heard[-1]["code"], code) == ("unavailable", CloseCode.DRAINING)
                assert tail.farewell is not None
                assert 0.5 <= (decode_retry_after(tail.farewell.reason) or 0.0) <= 1.5
            store.network.away = False
            assert (await line.ask({"type": "ping", "id": 2}))["type"] == "pong"
        await job.wait()


async def test_a_run_that_is_lost(autojump_clock: MockClock) -> None:
    """When this process has lost the job, its watchers are told to come back, and then see how it goes on elsewhere."""
    server = Server()
    lost = RemoteStore(server)
    async with jobtrio.open_registry(executors, store=lost, lease=2) as first:
        job = await first.submit("count")
        await trio.sleep(1.5)
        async with (
            jobtrio.open_registry(executors, store=RemoteStore(server)) as second,
            open_line(first, f"/jobs/{job.id}") as tail,
            open_line(first) as line,
        ):
            await line.ask({"type": "subscribe", "id": 1, "job": job.id})
            lost.network.away = True
            await trio.sleep(4)
            lost.network.away = False
            heard, code = await tail.hear_out()
            assert (heard[-1]["code"], code) == ("unavailable", CloseCode.DRAINING)
            with trio.fail_after(100):
                while (message := await line.hear())["type"] != "error":
                    pass
            assert (message["sub"], message["code"]) == (1, "unavailable")
            last = max(each["seq"] + len(each["items"]) - 1 for each in heard if each["type"] == "events")
            async with open_line(first, f"/jobs/{job.id}?after={last}&epoch={heard[0]['epoch']}") as again:
                more, code = await again.hear_out()
            assert code == CloseCode.COMPLETED
            await second.drain()
    seen = [
        (each["seq"] + n, each["attempt"], item)
        for each in heard + more
        if each["type"] == "events"
        for n, item in enumerate(each["items"])
    ]
    assert [seq for seq, _, _ in seen] == sorted({seq for seq, _, _ in seen})
    assert [item for _, attempt, item in seen if attempt == 2] == [1, 2, 3, 4, 5]


async def test_the_job_is_gone(autojump_clock: MockClock) -> None:
    """When a job is removed from its store while others watch, they are told, and it is then unknown."""
    server = Server()
    async with (
        jobtrio.open_registry(executors, store=RemoteStore(server)) as here,
        jobtrio.open_registry(executors, store=RemoteStore(server), queues={}) as there,
    ):
        job = await here.submit("words", "a b")
        await job.wait()
        async with open_line(there, f"/jobs/{job.id}") as line:
            assert (await line.hear_out())[1] == CloseCode.COMPLETED
        await here.remove(job.id)
        async with open_line(there, f"/jobs/{job.id}") as line:
            assert (await line.hear_out())[1] in (CloseCode.UNKNOWN_JOB, CloseCode.DRAINING)
