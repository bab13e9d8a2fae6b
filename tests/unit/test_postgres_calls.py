"""Calls that are carried out together, and what becomes of those whose tasks leave."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from jobtrio._errors import StoreError, StoreUnavailableError
from jobtrio._outage import try_for
from jobtrio.stores.postgres import _calls as calls
from jobtrio.stores.postgres._calls import Call, Lane

if TYPE_CHECKING:
    from trio.testing import MockClock


class Server:
    """Carries out calls when it is let, and notes what came together."""

    def __init__(self) -> None:
        self.groups: list[list[Any]] = []
        self.open = trio.Event()
        self.open.set()
        self.error: Exception | None = None

    async def carry_out(self, group: list[Call[Any]]) -> None:
        self.groups.append([call.work for call in group])
        await self.open.wait()
        if self.error is not None:
            raise self.error
        for call in group:
            if call.work == "bad":
                call.fail(ValueError("bad"))
            elif call.work != "forgotten":
                call.succeed((call.work, "done"))

    def close(self) -> None:
        self.open = trio.Event()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def lane(server: Server, nursery: trio.Nursery) -> Lane[Any]:
    lane: Lane[Any] = Lane(server.carry_out, 10.0)
    nursery.start_soon(lane.run)
    return lane


class Caller:
    """A task that makes one call."""

    def __init__(self, nursery: trio.Nursery, lane: Lane[Any], work: Any) -> None:
        self.scope = trio.CancelScope()
        self.outcome: Any = None
        nursery.start_soon(self._run, lane, work)

    async def _run(self, lane: Lane[Any], work: Any) -> None:
        with self.scope:
            try:
                self.outcome = await lane.make(work)
            except Exception as exc:
                self.outcome = exc
        if self.scope.cancelled_caught:
            self.outcome = "cancelled"


async def test_those_who_wait_go_together(server: Server, lane: Lane[Any], nursery: trio.Nursery) -> None:
    """What is asked at the same time is one group, and so is what waits while that is under way."""
    server.close()
    callers = [Caller(nursery, lane, n) for n in range(3)]
    await wait_all_tasks_blocked()
    callers += [Caller(nursery, lane, n) for n in range(3, 6)]
    await wait_all_tasks_blocked()
    server.open.set()
    await wait_all_tasks_blocked()
    assert sorted(map(sorted, server.groups)) == [[0, 1, 2], [3, 4, 5]]
    assert [caller.outcome for caller in callers] == [(n, "done") for n in range(6)]


async def test_those_who_have_their_answers_go_together(server: Server, lane: Lane[Any]) -> None:
    """Tasks that ask again as soon as they have their answers stay one group, and don't fall apart into two."""

    async def ask_again(n: int) -> None:
        for _ in range(5):
            await lane.make(n)

    async with trio.open_nursery() as nursery:
        for n in range(4):
            nursery.start_soon(ask_again, n)
    assert len(server.groups) == 5


async def test_many_who_wait_are_not_held_up(
    server: Server, lane: Lane[Any], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who have come while others were under way go before what the others ask next, once they are enough."""
    monkeypatch.setattr(calls, "ENOUGH", 2)

    async def ask_twice(name: str) -> None:
        await lane.make(f"{name}, first")
        await lane.make(f"{name}, second")

    async def groups_behind(*waiting: str) -> list[list[str]]:
        server.groups.clear()
        server.close()
        nursery.start_soon(ask_twice, "early")
        await wait_all_tasks_blocked()
        for name in waiting:
            nursery.start_soon(lane.make, name)
        await wait_all_tasks_blocked()
        server.open.set()
        await wait_all_tasks_blocked()
        return [sorted(group) for group in server.groups]

    assert await groups_behind("a") == [["early, first"], ["a", "early, second"]]
    assert await groups_behind("a", "b") == [["early, first"], ["a", "b"], ["early, second"]]


async def test_groups_are_bounded(
    server: Server, lane: Lane[Any], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group has so many calls at most; the others are the next ones."""
    monkeypatch.setattr(calls, "GROUP", 2)
    callers = [Caller(nursery, lane, n) for n in range(5)]
    await wait_all_tasks_blocked()
    assert sorted(map(len, server.groups)) == [1, 2, 2]
    assert all(caller.outcome for caller in callers)


async def test_waiting_is_bounded(
    server: Server, lane: Lane[Any], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond so many calls tasks wait to make theirs, and leave when they are cancelled."""
    monkeypatch.setattr(calls, "WAITING", 2)
    server.close()
    callers = [Caller(nursery, lane, n) for n in range(4)]
    await wait_all_tasks_blocked()
    waiting = [caller for caller in callers if caller.outcome is None][-1]
    waiting.scope.cancel()
    await wait_all_tasks_blocked()
    server.open.set()
    await wait_all_tasks_blocked()
    done = [caller.outcome for caller in callers]
    assert all(outcome is not None for outcome in done)
    assert sum(map(len, server.groups)) >= 3


async def test_waiting_for_room_is_bounded(
    autojump_clock: MockClock, server: Server, lane: Lane[Any], nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no room comes to be in time, a call fails as one does that gets no answer."""
    monkeypatch.setattr(calls, "WAITING", 1)
    server.close()
    Caller(nursery, lane, "first")
    await wait_all_tasks_blocked()
    with pytest.raises(StoreUnavailableError, match="no room for another call within 10 s"):
        await lane.make("second")
    server.open.set()


async def test_errors(server: Server, lane: Lane[Any], nursery: trio.Nursery) -> None:
    """One that fails harms no other; one that was forgotten fails as well."""
    callers = [Caller(nursery, lane, work) for work in ("good", "bad", "forgotten")]
    await wait_all_tasks_blocked()
    good, bad, forgotten = (caller.outcome for caller in callers)
    assert good == ("good", "done")
    assert isinstance(bad, ValueError)
    assert isinstance(forgotten, StoreUnavailableError)


@pytest.mark.parametrize(
    ("error", "kind"), [(StoreUnavailableError("away"), StoreUnavailableError), (RuntimeError("fault"), StoreError)]
)
async def test_a_group_that_fails(
    server: Server, lane: Lane[Any], nursery: trio.Nursery, error: Exception, kind: type[StoreError]
) -> None:
    """Each gets an error of its own, a fault too, and the lane goes on."""
    server.error = error
    callers = [Caller(nursery, lane, n) for n in range(2)]
    await wait_all_tasks_blocked()
    assert [type(caller.outcome) for caller in callers] == [kind, kind]
    assert callers[0].outcome is not callers[1].outcome
    server.error = None
    assert await lane.make("again") == ("again", "done")


async def test_withdrawn(server: Server, lane: Lane[Any], nursery: trio.Nursery) -> None:
    """A call that was not taken yet leaves with its task, and is not carried out."""
    server.close()
    first = Caller(nursery, lane, "first")
    await wait_all_tasks_blocked()
    second = Caller(nursery, lane, "second")
    await wait_all_tasks_blocked()
    second.scope.cancel()
    await wait_all_tasks_blocked()
    assert second.outcome == "cancelled"
    server.open.set()
    await wait_all_tasks_blocked()
    assert (first.outcome, server.groups) == (("first", "done"), [["first"]])


async def test_withdrawn_at_once(server: Server, lane: Lane[Any]) -> None:
    """A call that leaves before the lane has woken up for it is none: there is nothing to carry out."""
    await wait_all_tasks_blocked()
    with trio.CancelScope() as scope:
        scope.deadline = trio.current_time()  # looked at before any other task has a turn
        await lane.make("it")
    await wait_all_tasks_blocked()
    assert scope.cancelled_caught
    assert server.groups == []
    assert await lane.make("another") == ("another", "done")


async def test_waited_for(server: Server, lane: Lane[Any], nursery: trio.Nursery) -> None:
    """A call that was taken is waited for, though its task is cancelled."""
    server.close()
    caller = Caller(nursery, lane, "it")
    await wait_all_tasks_blocked()
    caller.scope.cancel()
    await wait_all_tasks_blocked()
    assert caller.outcome is None
    server.open.set()
    await wait_all_tasks_blocked()
    assert caller.outcome == ("it", "done")


async def test_put_back(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A call that would keep others waiting gets another turn, behind them; one that was cancelled meanwhile leaves."""
    held_up = True
    turns: list[list[Any]] = []

    async def carry_out(group: list[Call[Any]]) -> list[Call[Any]]:
        turns.append([call.work for call in group])
        await trio.sleep(0.01)
        late = [call for call in group if call.work == "late" and held_up]
        for call in group:
            if call not in late:
                call.succeed("done")
        return late

    lane: Lane[Any] = Lane(carry_out, 10.0)
    nursery.start_soon(lane.run)
    await wait_all_tasks_blocked()
    late, cancelled = Caller(nursery, lane, "late"), Caller(nursery, lane, "late")
    await wait_all_tasks_blocked()
    assert turns
    cancelled.scope.cancel()
    assert await lane.make("other") == "done"
    assert await lane.make("another") == "done"
    assert (late.outcome, cancelled.outcome) == (None, "cancelled")
    held_up = False
    await lane.make("a third")
    await trio.sleep(1)
    assert late.outcome == "done"


async def test_a_reader_may_leave(server: Server, nursery: trio.Nursery) -> None:
    """Where calls change nothing, their tasks leave at once."""
    lane: Lane[Any] = Lane(server.carry_out, 10.0, changes_nothing=True)
    nursery.start_soon(lane.run)
    server.close()
    callers = [Caller(nursery, lane, n) for n in range(2)]
    await wait_all_tasks_blocked()
    callers[0].scope.cancel()
    await wait_all_tasks_blocked()
    assert callers[0].outcome == "cancelled"
    server.open.set()
    await wait_all_tasks_blocked()
    assert callers[1].outcome == (1, "done")


async def test_a_reader_that_has_left(server: Server, nursery: trio.Nursery) -> None:
    """What nobody waits for any more gets no other turn: it may be large, and others would wait for it."""

    async def carry_out(group: list[Call[Any]]) -> list[Call[Any]]:
        await server.carry_out(group)
        return [call for call in group if not call.is_answered]

    lane: Lane[Any] = Lane(carry_out, 10.0, changes_nothing=True)
    nursery.start_soon(lane.run)
    server.close()
    caller = Caller(nursery, lane, "forgotten")
    await wait_all_tasks_blocked()
    caller.scope.cancel()
    await wait_all_tasks_blocked()
    assert caller.outcome == "cancelled"
    server.open.set()
    await lane.make("next")
    assert server.groups == [["forgotten"], ["next"]]


async def test_given_up(autojump_clock: MockClock, server: Server, lane: Lane[Any], nursery: trio.Nursery) -> None:
    """Calls that wait too long fail, taken or not; those that came later go on waiting."""
    server.close()
    first = Caller(nursery, lane, "first")
    await wait_all_tasks_blocked()
    second = Caller(nursery, lane, "second")
    await trio.sleep(9)
    third = Caller(nursery, lane, "third")
    await trio.sleep(2)
    lane.give_up_overdue()
    await wait_all_tasks_blocked()
    assert [type(caller.outcome) for caller in (first, second)] == [StoreUnavailableError] * 2
    outcomes = [third.outcome]
    server.open.set()
    await wait_all_tasks_blocked()
    assert [*outcomes, third.outcome] == [None, ("third", "done")]
    assert server.groups == [["first"], ["third"]]


async def test_let_go_at_the_limit(server: Server, lane: Lane[Any], autojump_clock: MockClock) -> None:
    """Who tries again after a failure has its answer when its time is over, although the call is under way by then."""
    server.error = StoreUnavailableError("away")

    async def ask() -> Any:
        try:
            return await lane.make("asked")
        except StoreUnavailableError:
            server.error = None
            server.close()
            raise

    began = trio.current_time()
    with pytest.raises(StoreUnavailableError, match="away for 2 s: away"):
        await try_for(2.0, ask, in_time=True)
    assert trio.current_time() - began == pytest.approx(2.0)
    server.open.set()
    assert await lane.make("next") == ("next", "done")
    assert server.groups == [["asked"], ["asked"], ["next"]]


async def test_let_go_at_the_limit_though_cancelled_before(
    server: Server, lane: Lane[Any], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A task that was cancelled while its call was under way waits for the answer, but no longer than its limit."""
    scope, left = trio.CancelScope(), trio.Event()
    server.error = StoreUnavailableError("away")

    async def ask() -> Any:
        try:
            return await lane.make("asked")
        except StoreUnavailableError:
            server.error = None
            server.close()
            raise

    async def call() -> None:
        with scope:
            await try_for(2.0, ask, in_time=True)
        left.set()

    nursery.start_soon(call)
    await trio.sleep(1)
    scope.cancel()
    await trio.sleep(0.5)
    lane.give_up_overdue()
    await wait_all_tasks_blocked()
    assert not left.is_set()
    await trio.sleep(1)
    lane.give_up_overdue()
    await wait_all_tasks_blocked()
    assert left.is_set()


async def test_drained(server: Server, lane: Lane[Any], nursery: trio.Nursery) -> None:
    """Draining waits for what waits and what is under way, and refuses all else."""
    server.close()
    callers = [Caller(nursery, lane, n) for n in range(2)]
    await wait_all_tasks_blocked()
    drained = trio.Event()

    async def drain() -> None:
        await lane.drain()
        drained.set()

    callers.append(Caller(nursery, lane, 2))
    await wait_all_tasks_blocked()
    nursery.start_soon(drain)
    await wait_all_tasks_blocked()
    assert not drained.is_set()
    late = Caller(nursery, lane, 3)
    await wait_all_tasks_blocked()
    assert isinstance(late.outcome, StoreUnavailableError)
    server.open.set()
    await wait_all_tasks_blocked()
    assert drained.is_set()
    assert all(caller.outcome for caller in callers)
    with trio.fail_after(60):
        await lane.drain()


async def test_a_lane_that_ends(server: Server, nursery: trio.Nursery) -> None:
    """Calls under way as the lane is cancelled fail: they may have been carried out; others are refused."""
    lane: Lane[Any] = Lane(server.carry_out, 10.0)
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await lane.run()

    nursery.start_soon(run)
    server.close()
    callers = [Caller(nursery, lane, "under way")]
    await wait_all_tasks_blocked()
    callers.append(Caller(nursery, lane, "waits"))
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    callers.append(Caller(nursery, lane, "late"))
    await wait_all_tasks_blocked()
    assert [type(caller.outcome) for caller in callers] == [StoreUnavailableError] * 3
    assert server.groups == [["under way"]]


async def test_making_heeds_cancellation(lane: Lane[Any]) -> None:
    """A task that is cancelled already makes no call."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await partial(lane.make, "never")()
    assert scope.cancelled_caught


async def test_who_is_tried_when_others_hold_up_some() -> None:
    """New calls together, and one by one only where one is held up, but for those with its name; late ones in order."""
    late, *fresh = (Call(work) for work in ("late", "a", "b", "b", "c"))
    late.put_back()
    tried: list[str] = []
    locked: set[str] = set()

    async def is_carried_out(group: list[Call[str]]) -> bool:
        tried.append(" ".join(call.work for call in group))
        return locked.isdisjoint(call.work for call in group)

    assert await calls.singly([late, *fresh], is_carried_out, lambda work: {work}) == []
    assert tried == ["a b b c", "late"]
    tried.clear()
    locked.add("b")
    assert await calls.singly([late, *fresh], is_carried_out, lambda work: {work}) == fresh[1:3]
    assert tried == ["a b b c", "a", "b", "c", "late"]
