"""Hints from a Redis: what is listened to, what is made of it, and a link that falls silent."""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from jobtrio import StoreUnavailableError
from jobtrio.stores._announcer import Announcer
from jobtrio.stores.redis import _subscriber
from jobtrio.stores.redis._subscriber import PING_EVERY, WATCHED_FOR, Subscriber

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import pytest
    from trio.testing import MockClock


class FakeLink:
    """A link over which the test publishes."""

    def __init__(self) -> None:
        self.closed = trio.Event()
        self.channels: set[str] = set()
        self.unsubscribed: list[str] = []
        self.is_silent = False
        self._send, self._receive = trio.open_memory_channel[tuple[str, str]](100)

    def subscribe(self, channels: Sequence[str]) -> None:
        assert not self.closed.is_set()
        self.channels |= set(channels)
        for channel in channels:
            self.publish(channel, "")

    def unsubscribe(self, channels: Sequence[str]) -> None:
        assert not self.closed.is_set()
        self.channels.difference_update(channels)
        self.unsubscribed += channels

    def publish(self, channel: str, text: str) -> None:
        if channel in self.channels:
            self._send.send_nowait((channel, text))

    async def published(self) -> AsyncIterator[tuple[str, str]]:
        async for each in self._receive:
            yield each

    async def ping(self) -> None:
        if self.is_silent:
            self.close()

    def close(self) -> None:
        self.closed.set()


class Rig:
    """A subscriber over fake links; also the connector and the listener."""

    def __init__(self) -> None:
        self.links: list[FakeLink] = []
        self.refuses = False
        self.slow = False
        self.connected = trio.Event()
        self.heard: list[Any] = []
        connector: Any = self
        listener: Any = self
        self.announcer = Announcer(listener, trio.current_time, lambda: None)
        self.subscriber = Subscriber(connector, "{p}:", self.announcer, lambda: self.connected)

    @asynccontextmanager
    async def connect(self, *, turns: bool) -> AsyncIterator[FakeLink]:
        assert not turns  # that is for the connection that the calls use
        if self.refuses:
            raise StoreUnavailableError("refused")
        if self.slow:
            await trio.sleep(0.5)
        self.links.append(FakeLink())
        yield self.links[-1]

    def work_ready(self) -> None:
        self.heard.append("work")

    def due_changed(self) -> None:
        self.heard.append("due")

    def messages_added(self, job_id: str | None) -> None:
        self.heard.append(("messages", job_id))

    def cancel_requested(self, job_id: str | None) -> None:
        self.heard.append(("cancel", job_id))

    def take(self) -> list[Any]:
        heard, self.heard = self.heard, []
        return heard


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    """Run hints in the background."""
    rig = Rig()
    rig.connected.set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.subscriber.run)
        await trio.testing.wait_all_tasks_blocked()
        yield rig
        nursery.cancel_scope.cancel()


async def test_what_hints_say(autojump_clock: MockClock) -> None:
    """Work, times and requests to cancel are told; a first time that is later than another is not."""
    async with open_rig() as rig:
        # From now on hints are heard; before, they were not.
        assert rig.take() == ["due", "work", ("cancel", None)]
        (link,) = rig.links
        for text in ("work", "due:5.0", "due:9.0", "due:2.0", "cancel:a:b"):
            link.publish("{p}:hints", text)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.take() == ["work", "due", "due", ("cancel", "a:b")]
        assert rig.announcer._next == trio.current_time() + 2


async def test_hints_of_strangers(autojump_clock: MockClock) -> None:
    """What no jobtrio has published harms nobody, and hints are heard after it."""
    async with open_rig() as rig:
        (link,) = rig.links
        rig.take()
        for text in ("due:soon", "due:", "\ufffd", "work"):
            link.publish("{p}:hints", text)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.take()[-1] == "work"


async def test_messages_of_watched_jobs(autojump_clock: MockClock) -> None:
    """New messages are told of jobs that are read, for a while since they last were, and not of others."""
    async with open_rig() as rig:
        (link,) = rig.links
        rig.take()
        rig.subscriber.watch("a")
        rig.subscriber.watch("a")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.take() == [("messages", "a")]  # some may have come before the channel was heard
        link.publish("{p}:messages:a", "")
        link.publish("{p}:messages:b", "")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.take() == [("messages", "a")]
        await trio.sleep(WATCHED_FOR - 1)
        rig.subscriber.watch("a")
        rig.subscriber.watch("b")
        rig.subscriber.forget("b")
        rig.subscriber.forget("never watched")
        await trio.sleep(WATCHED_FOR - 1)
        assert link.channels == {"{p}:hints", "{p}:messages:a"}
        await trio.sleep(PING_EVERY + 2)
        assert link.channels == {"{p}:hints"}
        assert link.unsubscribed == ["{p}:messages:b", "{p}:messages:a"]


async def test_messages_of_very_many_jobs(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where so many jobs are followed that each is read but seldom, they are listened to from one read to the next."""
    monkeypatch.setattr(_subscriber, "LOOKS_A_SECOND", 2)
    watched = {f"{{p}}:messages:{n}" for n in range(60)}
    async with open_rig() as rig:
        (link,) = rig.links
        for channel in watched:
            rig.subscriber.watch(channel.rpartition(":")[2])
        await trio.sleep(60 / 2)
        assert link.channels == {"{p}:hints", *watched}
        await trio.sleep(60)
        assert link.channels == {"{p}:hints"}


async def test_a_link_that_falls_silent(autojump_clock: MockClock) -> None:
    """A link that does not answer is made anew, with all its channels, and everything is looked at again."""
    async with open_rig() as rig:
        rig.subscriber.watch("a")
        await trio.testing.wait_all_tasks_blocked()
        rig.take()
        rig.links[0].is_silent = True
        await trio.sleep(PING_EVERY - 0.1)
        rig.subscriber.watch("a")
        rig.refuses = True
        await trio.sleep(1)
        rig.subscriber.watch("b")
        rig.subscriber.forget("b")
        assert rig.take() == []
        rig.refuses = False
        await trio.sleep(1)
        assert rig.links[-1].channels == {"{p}:hints", "{p}:messages:a"}
        assert set(rig.take()) == {"due", "work", ("cancel", None), ("messages", "a")}


async def test_while_the_server_is_away(autojump_clock: MockClock) -> None:
    """No link is made while the server is known to be away; what is watched meanwhile is listened to afterwards."""
    rig = Rig()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.subscriber.run)
        await trio.sleep(10)
        rig.subscriber.watch("a")
        assert rig.links == []
        rig.connected.set()
        await trio.sleep(1)
        assert rig.links[0].channels == {"{p}:hints", "{p}:messages:a"}
        nursery.cancel_scope.cancel()


async def test_the_server_in_use_is_another(autojump_clock: MockClock) -> None:
    """Once the server in use was lost, hints are listened to on the next, though the link to the last one is well."""
    async with open_rig() as rig:
        rig.connected = trio.Event()
        rig.subscriber.follow()
        await trio.sleep(10)
        assert len(rig.links) == 1
        rig.connected.set()
        await trio.sleep(1)
        rig.take()
        rig.links[1].publish("{p}:hints", "work")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.take() == ["work"]


async def test_the_server_in_use_is_lost_meanwhile(autojump_clock: MockClock) -> None:
    """A link that was made while the server in use was lost is not listened to: it may lead to the last one."""
    async with open_rig() as rig:
        rig.slow = True
        rig.links[0].close()
        await trio.sleep(0.6)
        rig.connected = trio.Event()
        rig.subscriber.follow()
        await trio.sleep(1)
        assert len(rig.links) == 2
        assert rig.links[1].channels == set()


async def test_idle_times(autojump_clock: MockClock) -> None:
    """There is nothing to look for until the next time that is known, but for a look once in a while."""
    announcer = Rig().announcer
    assert announcer.idle_for() == 0
    announcer.asked()
    announcer.looked(inf, 5.0)
    assert announcer.idle_for() == inf
    announcer.falls_due_in(3.0)
    assert announcer.idle_for() == 3.0
    await trio.sleep(3.0)
    assert announcer.idle_for() == 0
    announcer.asked()
    announcer.looked(100.0, 5.0)
    await trio.sleep(4.0)
    assert announcer.idle_for() == 96.0
    await trio.sleep(1.0)
    assert announcer.idle_for() == 0
    announcer.asked()
    announcer.looked(100.0, 5.0)
    announcer.look_everywhere()
    assert announcer.idle_for() == 0
