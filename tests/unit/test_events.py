"""The registry's events: every change of state, to whoever listens."""

from __future__ import annotations

import gc
from datetime import UTC, datetime
from weakref import WeakSet

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import JobState, LaggedError, Transition
from jobtrio._events import EVENTS_KEPT, Events, EventSubscription


def change(n: int) -> Transition:
    """Return a change that is told apart by its job's id."""
    return Transition(str(n), datetime.now(UTC), None, JobState.QUEUED, 0, "w", None)


def is_kept(events: Events) -> bool:
    """Return whether changes are kept for anybody."""
    return events.log is not None


async def nothing(job: jobtrio.JobContext) -> None:
    """Return at once."""


async def test_every_change_from_now_on() -> None:
    """A listener gets each change of each job in order, none from before, and the end with the registry."""
    async with jobtrio.open_registry(worker="w") as registry:
        early = await registry.submit(nothing)
        await early.wait()
        events = registry.subscribe_events()
        job = await registry.submit(nothing)
        await job.wait()
        assert [events.receive_nowait() for _ in range(3)] == await registry.history(job.id)
        with pytest.raises(trio.WouldBlock):
            events.receive_nowait()
        held = await registry.create_job()
    got = [transition async for transition in events]
    assert [(t.job_id, t.state) for t in got] == [(held.id, "QUEUED"), (held.id, "CANCELLED")]
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            await events.receive()
        with pytest.raises(trio.EndOfChannel):
            events.receive_nowait()


async def test_waiting_for_a_change() -> None:
    """A listener that has everything waits for the next change."""
    events = Events()
    listener = events.subscribe()
    got: list[str] = []

    async def listen() -> None:
        got.append((await listener.receive()).job_id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        events.publish(change(1))
    assert got == ["1"]


async def test_each_listener_gets_all() -> None:
    """Listeners don't take from each other."""
    events = Events()
    listeners = [events.subscribe(), events.subscribe()]
    events.publish(change(1))
    late = events.subscribe()
    events.publish(change(2))
    events.close()
    assert [[t.job_id async for t in each] for each in (*listeners, late)] == [["1", "2"], ["1", "2"], ["2"]]


async def test_falling_behind() -> None:
    """Exactly 10,000 changes are kept; one more is told as missed, and reading goes on behind it."""
    assert EVENTS_KEPT == 10_000
    events = Events()
    listener = events.subscribe()
    for n in range(EVENTS_KEPT):
        events.publish(change(n))
    assert listener.receive_nowait().job_id == "0"
    other = events.subscribe()
    for n in range(EVENTS_KEPT + 1):
        events.publish(change(n))
    with pytest.raises(LaggedError):
        other.receive_nowait()
    assert other.receive_nowait().job_id == "1"


async def test_what_all_have_read_is_not_kept() -> None:
    """Changes are kept for the listener that is furthest behind, and for none that is closed or forgotten."""
    events, kept = Events(), WeakSet[Transition]()

    def tell(*readers: EventSubscription) -> None:
        for n in range(2000):
            told = change(n)
            kept.add(told)
            events.publish(told)
            for reader in readers:
                assert reader.receive_nowait().job_id == str(n)

    first, second, third, slow = (events.subscribe() for _ in range(4))
    tell(first, second, third)
    assert len(kept) == 2000
    assert [slow.receive_nowait().job_id for _ in range(2000)] == [str(n) for n in range(2000)]
    tell(first, second, third, slow)
    assert len(kept) < 600
    second.close()
    del third
    gc.collect()
    tell(first, slow)
    assert len(kept) < 600


async def test_a_change_that_comes_too_late() -> None:
    """What is answered when the registry is closed is told to nobody: the end stays the last that a listener gets."""
    events = Events()
    behind, listener = events.subscribe(), events.subscribe()
    events.publish(change(1))
    assert listener.receive_nowait().job_id == "1"
    events.close()
    events.publish(change(2))
    assert behind.receive_nowait().job_id == "1"
    for each in (behind, listener):
        for _ in range(2):
            with pytest.raises(trio.EndOfChannel):
                each.receive_nowait()


async def test_after_the_end() -> None:
    """Whoever subscribes when the registry is closed is told so at once."""
    events = Events()
    events.close()
    with pytest.raises(trio.EndOfChannel):
        await events.subscribe().receive()
    async with jobtrio.open_registry() as registry:
        pass
    assert [t async for t in registry.subscribe_events()] == []


@pytest.mark.parametrize("leave", ["close", "aclose", "with", "async with", "forget"])
async def test_nothing_is_kept_for_nobody(leave: str) -> None:
    """Once the last listener has left, however it did, no change is kept any more."""
    events = Events()
    listener = events.subscribe()
    events.publish(change(1))
    assert is_kept(events)
    match leave:
        case "close":
            listener.close()
        case "aclose":
            with trio.testing.assert_checkpoints():
                await listener.aclose()
        case "with":
            with listener as same:
                assert same is listener
        case "async with":
            async with listener:
                pass
        case _:
            del listener
            gc.collect()
    events.publish(change(2))
    assert not is_kept(events)
    if leave != "forget":
        with pytest.raises(trio.ClosedResourceError):
            listener.receive_nowait()
    later = events.subscribe()
    events.publish(change(3))
    assert later.receive_nowait().job_id == "3"


async def test_nobody_has_ever_listened() -> None:
    """Where nobody listens a change is kept nowhere."""
    events = Events()
    events.publish(change(1))
    assert not is_kept(events)


async def test_closing_one_of_two() -> None:
    """A listener that leaves does not end the others."""
    events = Events()
    one, other = events.subscribe(), events.subscribe()
    one.close()
    one.close()
    events.publish(change(1))
    assert other.receive_nowait().job_id == "1"


async def test_cancelled_while_waiting() -> None:
    """A cancelled wait loses nothing."""
    events = Events()
    listener = events.subscribe()
    with trio.CancelScope() as scope:
        scope.cancel()
        await listener.receive()
    assert scope.cancelled_caught
    events.publish(change(1))
    assert (await listener.receive()).job_id == "1"
