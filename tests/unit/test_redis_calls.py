"""Calls to a Redis, gathered: what goes together, and what becomes of answers, errors and the cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from coredis.exceptions import (
    AuthorizationError,
    ClusterDownError,
    MovedError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)
from coredis.exceptions import ConnectionError as LinkError

from jobtrio import DuplicateJobError, StoreError, StoreUnavailableError
from jobtrio.stores.redis import _calls
from jobtrio.stores.redis._batch import GROUP_CALLS, Batch, pick
from jobtrio.stores.redis._calls import Calls
from jobtrio.stores.redis._link import Command, Link
from jobtrio.stores.redis._scripts import SCRIPTS, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager


class FakeAnswers:
    """Answers that come when the test says so."""

    def __init__(self) -> None:
        self.come = trio.Event()
        self.answers: list[Any] = []

    async def wait(self) -> list[Any]:
        await self.come.wait()
        return self.answers

    def give(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.come.set()


class FakeLink(Link):
    """A link to nowhere, which keeps what is sent."""

    def __init__(self) -> None:
        self.place = ("host", 6379)  # type: ignore[misc]
        self.closed = trio.Event()  # type: ignore[misc]
        self.astray = None
        self.sent: list[tuple[list[Command], FakeAnswers]] = []
        self.broken = False

    def send(self, commands: Sequence[Command]) -> FakeAnswers:  # type: ignore[override]
        if self.broken or self.closed.is_set():
            raise LinkError("broken")
        answers = FakeAnswers()
        self.sent.append((list(commands), answers))
        return answers

    def close(self) -> None:
        self.closed.set()


class Rig:
    """Calls that are served over a fake link."""

    def __init__(self, replicas: int) -> None:
        self.calls = Calls("{p}:", 1.0, replicas)
        self.link = FakeLink()
        self.heard: list[Any] = []

    async def ask(self, name: str = "PING", after: Callable[[list[Any]], Any] | None = None) -> Any:
        """Send a command of its own."""
        return await self.calls.make([Command(name.encode(), ())], after or self._hear)

    async def ask_and_leave(self, name: str) -> None:
        """Make a call in a task that is cancelled while it waits."""
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.ask, name)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()

    async def run(self, name: str, *arguments: str | bytes) -> Any:
        """Call a script."""
        return await self.calls.make([run(name, *arguments)], self._hear)

    def _hear(self, answers: list[Any]) -> Any:
        self.heard += answers
        return answers[0]

    def names(self, batch: int) -> list[bytes]:
        return [command.name for command in self.link.sent[batch][0]]


@pytest.fixture
def open_rig() -> Callable[..., AbstractAsyncContextManager[tuple[Rig, trio.Nursery]]]:
    """Give a function that opens a rig, and a nursery to make calls in."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def open_rig(replicas: int = 0) -> AsyncIterator[tuple[Rig, trio.Nursery]]:
        rig = Rig(replicas)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(rig.calls.serve, rig.link)
            await trio.testing.wait_all_tasks_blocked()
            yield rig, nursery
            nursery.cancel_scope.cancel()

    return open_rig


OpenRig = Any


async def test_what_is_large_goes_alone(open_rig: OpenRig) -> None:
    """A call that a server may not take goes when nothing else is under way, and the next ones when it is answered."""
    async with open_rig() as (rig, nursery):
        for argument in (b"a", b"b" * _calls.ALONE, b"c", b"d", b"e" * _calls.ALONE):
            nursery.start_soon(rig.run, "leave", argument)
            await trio.lowlevel.checkpoint()
        for n, count in enumerate((1, 1, 2, 1)):
            await trio.testing.wait_all_tasks_blocked()
            assert len(rig.link.sent) == n + 1
            assert len(rig.calls._sent[-1][0]) == count
            rig.link.sent[n][1].give([b"1"] * count if count > 1 else b"1")
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.heard) == 5


async def test_what_comes_at_once_goes_together(open_rig: OpenRig) -> None:
    """Calls that tasks make at one time are one batch, in order, and each gets its answer."""
    async with open_rig() as (rig, nursery):
        answers: dict[str, Any] = {}

        async def ask(name: str) -> None:
            answers[name] = await rig.ask(name)

        for name in "abc":
            nursery.start_soon(ask, name)
        await trio.testing.wait_all_tasks_blocked()
        assert len(rig.link.sent) == 1
        assert sorted(rig.names(0)) == [b"a", b"b", b"c"]
        rig.link.sent[0][1].give(*(name.decode().upper() for name in rig.names(0)))
        await trio.testing.wait_all_tasks_blocked()
        assert answers == {"a": "A", "b": "B", "c": "C"}


async def test_batches_are_bounded(open_rig: OpenRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes only so many calls, and no more once they are large."""
    monkeypatch.setattr(_calls, "BATCH_CALLS", 3)
    monkeypatch.setattr(_calls, "BATCH_BYTES", 100)
    for size, counts in ((1, [3, 2]), (60, [2, 2]), (50, [2, 2])):
        async with open_rig() as (rig, nursery):
            for _ in range(5):
                nursery.start_soon(rig.run, "leave", bytes(size))
            await trio.testing.wait_all_tasks_blocked()
            assert [len(calls) for calls, *_ in rig.calls._sent] == counts


async def test_batches_under_way(open_rig: OpenRig) -> None:
    """While two batches are under way, the next calls gather in a third; answers are heeded in the order of batches."""
    async with open_rig() as (rig, nursery):
        for name in "abcd":
            nursery.start_soon(rig.ask, name)
            await trio.testing.wait_all_tasks_blocked()
        assert [rig.names(n) for n in range(len(rig.link.sent))] == [[b"a"], [b"b"]]
        rig.link.sent[1][1].give("B")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.heard == []
        rig.link.sent[0][1].give("A")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.heard == ["A", "B"]
        assert rig.names(2) == [b"c", b"d"]


async def test_cancelled_before_it_is_sent(open_rig: OpenRig) -> None:
    """A call that is cancelled while it waits is not sent."""
    async with open_rig() as (rig, nursery):
        for name in "ab":
            nursery.start_soon(rig.ask, name)
            await trio.testing.wait_all_tasks_blocked()
        await rig.ask_and_leave("c")
        rig.link.sent[0][1].give("A")
        rig.link.sent[1][1].give("B")
        nursery.start_soon(rig.ask, "d")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.names(2) == [b"d"]


async def test_idle(open_rig: OpenRig) -> None:
    """Calls that are under way are waited for, and those that are behind them."""
    async with open_rig() as (rig, nursery), trio.open_nursery() as idle:
        for name in "abc":
            nursery.start_soon(rig.ask, name)
            await trio.testing.wait_all_tasks_blocked()
        idle.start_soon(rig.calls.wait_idle)
        for n in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert idle.child_tasks
            rig.link.sent[n][1].give("fine")
        await trio.testing.wait_all_tasks_blocked()
        assert not idle.child_tasks


async def test_idle_once_those_that_waited_were_cancelled(open_rig: OpenRig) -> None:
    """Calls that are not made any more are not waited for, in whatever order the tasks take notice of that."""
    for _ in range(20):
        async with open_rig() as (rig, nursery), trio.open_nursery() as idle:
            for name in "ab":
                nursery.start_soon(rig.ask, name)
                await trio.testing.wait_all_tasks_blocked()
            await rig.ask_and_leave("c")
            idle.start_soon(rig.calls.wait_idle)
            await trio.testing.wait_all_tasks_blocked()
            for _, answers in rig.link.sent:
                answers.give("fine")
            await trio.testing.wait_all_tasks_blocked()
            assert not idle.child_tasks


async def test_cancelled_when_it_was_sent(open_rig: OpenRig) -> None:
    """A call that was sent may be cancelled at once, and its answer is heeded all the same; a refusal harms nobody."""
    async with open_rig() as (rig, nursery):

        def refuse(_: list[Any]) -> None:
            rig.heard.append("refused")
            raise DuplicateJobError("id")

        with trio.CancelScope() as scope:
            async with trio.open_nursery() as others:
                others.start_soon(rig.ask, "a")
                others.start_soon(rig.ask, "b", refuse)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        nursery.start_soon(rig.ask, "c")
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[0][1].give("A", "B") if rig.names(0) == [b"a", b"b"] else rig.link.sent[0][1].give("B", "A")
        rig.link.sent[1][1].give("C")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(rig.heard) == ["A", "C", "refused"]
        assert rig.heard[-1] == "C"


async def test_scripts_that_are_not_known(open_rig: OpenRig) -> None:
    """When the server does not know a script, it is given all of them, and the call is made again."""
    async with open_rig() as (rig, nursery):
        nursery.start_soon(rig.run, "delete", "id")
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[0][1].give(NoScriptError("no matching script"))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.names(1) == [b"SCRIPT LOAD"] * len(SCRIPTS)
        rig.link.sent[1][1].give(*("digest" for _ in SCRIPTS))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.link.sent[2][0] == rig.link.sent[0][0]
        rig.link.sent[2][1].give([1])
        await trio.testing.wait_all_tasks_blocked()
        assert rig.heard == [1]


@pytest.mark.parametrize("error", [ResponseError("OOM command not allowed"), TimeoutError("SCRIPT LOAD timed out")])
async def test_scripts_that_can_not_be_loaded(open_rig: OpenRig, error: Exception) -> None:
    """Where that fails, so does the call, and only that."""
    async with open_rig() as (rig, nursery):
        errors: list[Exception] = []
        nursery.start_soon(_note, errors, rig.run, "delete", "id")
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[0][1].give(NoScriptError("no matching script"))
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[1][1].give(*(error for _ in SCRIPTS))
        await trio.testing.wait_all_tasks_blocked()
        assert [type(error) for error in errors] == [StoreUnavailableError]


async def test_a_link_that_is_lost_while_scripts_are_loaded(open_rig: OpenRig) -> None:
    """A call whose script was to be loaded over a link that is lost is made over the next, or refused as all are."""
    async with open_rig() as (rig, nursery):
        errors: list[Exception] = []
        for name in ("first", "second"):
            nursery.start_soon(_note, errors, rig.run, "delete", name)
            await trio.testing.wait_all_tasks_blocked()
            rig.link.sent[0][1].give(NoScriptError("no matching script"))
            await trio.testing.wait_all_tasks_blocked()
            assert rig.names(1) == [b"SCRIPT LOAD"] * len(SCRIPTS)
            rig.link.close()
            await trio.testing.wait_all_tasks_blocked()
            rig.link = FakeLink()
            if name == "first":
                nursery.start_soon(rig.calls.serve, rig.link)
                await trio.testing.wait_all_tasks_blocked()
                rig.link.sent.pop()[1].give([1])
                await trio.testing.wait_all_tasks_blocked()
                assert rig.heard == [1]
        assert errors == []
        rig.calls.close()
        await trio.testing.wait_all_tasks_blocked()
        assert [type(error) for error in errors] == [StoreUnavailableError]


async def _note(errors: list[Exception], call: Any, *arguments: Any) -> None:
    try:
        await call(*arguments)
    except Exception as exc:
        errors.append(exc)


@pytest.mark.parametrize(
    ("error", "kind", "part"),
    [
        (ReadOnlyError("You can't write"), StoreUnavailableError, "host:6379: READONLY You can't write"),
        (MovedError("1 other:7000"), StoreUnavailableError, "MOVED"),
        (ClusterDownError("The cluster is down"), StoreUnavailableError, "CLUSTERDOWN"),
        (ResponseError("OOM command not allowed"), StoreUnavailableError, "OOM"),
        (ResponseError("BUSY Redis is busy"), StoreUnavailableError, "BUSY"),
        (TimeoutError("slow"), StoreUnavailableError, "slow"),
        (LinkError("lost"), StoreUnavailableError, "lost"),
        (ResponseError("ERR wrong"), StoreError, "ERR wrong"),
    ],
)
async def test_errors(
    open_rig: OpenRig, error: Exception, kind: type[Exception], part: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An error is that of its own call, which alone is told; whoever asked the wrong server asks another.

    That the server refuses what it is asked for, or is silent, is logged as well: whoever waits has no other sign.
    """
    async with open_rig() as (rig, nursery):
        errors: list[Exception] = []
        others: list[Exception] = []
        nursery.start_soon(_note, errors, rig.ask)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(_note, others, rig.ask)
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[1][1].give("fine")
        rig.link.sent[0][1].give(error)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(each) for each in errors] == [kind]
        assert part in str(errors[0])
        assert errors[0].__cause__ is error
        assert (rig.link.astray is error) == any(code in part for code in ("READONLY", "MOVED", "CLUSTERDOWN"))
        assert rig.link.closed.is_set() == (rig.link.astray is not None)
        assert rig.heard == ["fine"] or rig.link.closed.is_set()
        is_told = part in ("OOM", "BUSY", "CLUSTERDOWN", "slow")
        assert caplog.messages == ([f"the store is away: {errors[0]}"] if is_told else [])


async def test_a_link_that_is_broken() -> None:
    """Calls under way fail when a link is lost; those that were to be sent over it are made over the next."""
    rig = Rig(0)
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.calls.serve, rig.link)
        nursery.start_soon(_note, errors, rig.ask)
        await trio.testing.wait_all_tasks_blocked()
        rig.link.broken = True
        for name in ("first", "second"):
            nursery.start_soon(_note, errors, rig.ask, name)
            await trio.testing.wait_all_tasks_blocked()
        assert rig.link.closed.is_set()
        assert [str(error) for error in errors] == ["host:6379: connection lost"]
        rig.link = FakeLink()
        nursery.start_soon(rig.calls.serve, rig.link)
        await trio.testing.wait_all_tasks_blocked()
        assert rig.names(0) == [b"first", b"second"]
        rig.link.sent[0][1].give(1, 2)
        await rig.calls.wait_idle()
        assert rig.heard == [1, 2]
        nursery.cancel_scope.cancel()
    assert len(errors) == 1


async def test_behind_an_answer_that_is_the_last(open_rig: OpenRig) -> None:
    """Nothing is sent over a link that the server closes because of what it got; what waits is for the next."""
    async with open_rig() as (rig, nursery):
        errors: list[Exception] = []
        for argument in (b"a" * _calls.ALONE, b"b"):
            nursery.start_soon(_note, errors, rig.run, "leave", argument)
            await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[0][1].give(ResponseError("Protocol error: invalid bulk length"))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.link.closed.is_set()
        assert len(rig.link.sent) == 1
        assert ["invalid bulk length" in str(error) for error in errors] == [True]
        rig.link = FakeLink()
        nursery.start_soon(rig.calls.serve, rig.link)
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[0][1].give([1])
        await rig.calls.wait_idle()
        assert rig.heard == [1]


async def test_values_as_large_as_one_that_is_refused(open_rig: OpenRig) -> None:
    """They fail with that one, rather than have the server close a link for each; smaller ones are for the next."""
    async with open_rig() as (rig, nursery):
        errors: list[Exception] = []
        for size in (2 * _calls.ALONE, _calls.ALONE, 3 * _calls.ALONE, 1, 2 * _calls.ALONE):
            nursery.start_soon(_note, errors, rig.run, "leave", bytes(size))
            await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[0][1].give(ResponseError("Protocol error: invalid bulk length"))
        await trio.testing.wait_all_tasks_blocked()
        assert ["invalid bulk length" in str(error) for error in errors] == [True] * 3
        assert len({id(error) for error in errors}) == 3
        rig.link = FakeLink()
        nursery.start_soon(rig.calls.serve, rig.link)
        for n in range(2):
            await trio.testing.wait_all_tasks_blocked()
            rig.link.sent[n][1].give([n])
        await rig.calls.wait_idle()
        assert rig.heard == [0, 1]


async def test_errors_of_many() -> None:
    """Each task that a lost link or an outage fails is given an error of its own, whose traceback tells of it alone."""
    rig = Rig(0)
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:
        for _ in range(2):
            for _ in range(2):
                nursery.start_soon(_note, errors, rig.ask)
            await trio.testing.wait_all_tasks_blocked()
            if not errors:
                nursery.start_soon(rig.calls.serve, rig.link)
                await trio.testing.wait_all_tasks_blocked()
                rig.link.close()
            else:
                rig.calls.fail_waiting("refused")
            await trio.testing.wait_all_tasks_blocked()
    assert sorted(map(str, errors)) == ["host:6379: connection lost"] * 2 + ["refused"] * 2
    assert len({id(error) for error in errors}) == 4


LATE = "not sent within 1 s: there was no connection, or what came before took longer"


async def test_overdue(autojump_clock: trio.testing.MockClock) -> None:
    """A call that could not be sent in time fails; one that came later waits on."""
    rig = Rig(0)
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_note, errors, rig.ask)
        await trio.sleep(0.9)
        nursery.start_soon(_note, errors, rig.ask)
        await trio.sleep(0.2)
        rig.calls.fail_overdue()
        await trio.testing.wait_all_tasks_blocked()
        assert [str(error) for error in errors] == [LATE]
        nursery.start_soon(rig.calls.wait_idle)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        rig.calls.fail_waiting("refused")
        await trio.testing.wait_all_tasks_blocked()
        assert str(errors[1]) == "refused"
        assert not nursery.child_tasks
        nursery.start_soon(_note, errors, rig.ask)
        await trio.sleep(1.1)
        rig.calls.fail_overdue()
    assert str(errors[2]) == LATE


async def test_too_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many calls wait; others wait to make theirs."""
    monkeypatch.setattr(_calls, "WAITING", 2)
    rig = Rig(0)
    async with trio.open_nursery() as nursery:
        for name in "abc":
            nursery.start_soon(rig.ask, name)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(rig.calls.serve, rig.link)
        await trio.testing.wait_all_tasks_blocked()
        assert [rig.names(n) for n in range(len(rig.link.sent))] == [[b"a", b"b"], [b"c"]]
        nursery.cancel_scope.cancel()


async def test_overdue_where_too_many_wait(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where calls fail that could not be sent in time, others take their places."""
    monkeypatch.setattr(_calls, "WAITING", 2)
    rig = Rig(0)
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(_note, errors, rig.ask)
        for count in (2, 4):
            await trio.sleep(1.1)
            rig.calls.fail_overdue()
            await trio.testing.wait_all_tasks_blocked()
            assert len(errors) == count


async def test_overdue_is_told(
    open_rig: OpenRig, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says once that calls are not sent in time, and that they are when none has been late for a while."""
    async with open_rig() as (rig, nursery):
        errors: list[Exception] = []
        for _ in range(_calls.UNDER_WAY):
            nursery.start_soon(rig.ask)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(2):
            nursery.start_soon(_note, errors, rig.ask)
        await trio.sleep(1.1)
        rig.calls.fail_overdue()
        await trio.testing.wait_all_tasks_blocked()
        assert [str(error) for error in errors] == [LATE] * 2
        for n in range(_calls.UNDER_WAY):
            assert caplog.messages == [f"the store is away: {LATE}"]
            rig.link.sent[n][1].give(n)
            await trio.sleep(_calls.CALM)
    assert caplog.messages == [f"the store is away: {LATE}", "the store is back"]


async def test_replicas(open_rig: OpenRig) -> None:
    """Where replicas have to have it, a batch that writes ends with the question, and fails where too few do."""
    async with open_rig(2) as (rig, nursery):
        errors: list[Exception] = []
        nursery.start_soon(_note, errors, rig.run, "delete", "one")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.link.sent[0][0][-1] == Command(b"WAIT", (2, 500))
        rig.link.sent[0][1].give([1], 1)
        nursery.start_soon(_note, errors, rig.run, "delete", "two")
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[1][1].give([2], 2)
        nursery.start_soon(_note, errors, rig.run, "counts")
        await trio.testing.wait_all_tasks_blocked()
        assert rig.names(2) == [b"EVALSHA"]
        rig.link.sent[2][1].give([[]])
        await trio.testing.wait_all_tasks_blocked()
        assert [str(error) for error in errors] == ["fewer than 2 replicas have what was written"]
        assert rig.heard == [2, []]


@pytest.mark.parametrize("error", [LinkError("lost"), AuthorizationError("NOPERM no permissions to run 'wait'")])
async def test_not_told_of_replicas(open_rig: OpenRig, error: Exception) -> None:
    """A call that was answered has failed all the same, unless it is known that replicas have what it wrote."""
    async with open_rig(1) as (rig, nursery):
        errors: list[Exception] = []
        nursery.start_soon(_note, errors, rig.run, "delete", "one")
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[0][1].give([1], error)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(each) for each in errors] == [StoreUnavailableError]
        assert str(error) in str(errors[0])
        assert rig.heard == []
        nursery.start_soon(_note, errors, rig.run, "delete", "two")
        await trio.testing.wait_all_tasks_blocked()
        rig.link.sent[1][1].give(ReadOnlyError("READONLY"), ResponseError("WAIT cannot be used with replicas"))
        await trio.testing.wait_all_tasks_blocked()
        assert rig.link.astray is not None  # a call's own error comes first


# -- batches


def test_calls_of_one_script_become_one_command() -> None:
    """They share a command, behind the number of their arguments each, and every one finds its answer."""
    batch = Batch("{p}:")
    places = [batch.add([run("delete", "a")]), batch.add([Command(b"PING", ())]), batch.add([run("delete", "b")])]
    places.append(batch.add([run("counts"), run("delete", "c")]))
    deleting, ping, counting = batch.commands()
    assert deleting == Command(b"EVALSHA", (SCRIPTS["delete"].digest, 1, "{p}:", 1, "a", 1, "b", 1, "c"))
    assert (ping.name, counting.arguments) == (b"PING", (SCRIPTS["counts"].digest, 1, "{p}:", 0))
    answers: list[Any] = [["A", ResponseError("B"), "C"], "PONG", [[]]]
    assert pick(answers, places[0]) == ["A"]
    assert pick(answers, places[1]) == ["PONG"]
    assert isinstance(pick(answers, places[2])[0], ResponseError)
    assert pick(answers, places[3]) == [[], "C"]
    failed = LinkError("lost")
    assert pick([failed, failed, failed], places[3]) == [failed, failed]


def test_what_asks_for_the_same_is_asked_once() -> None:
    """Calls that write nothing and ask for the same have one answer: it may be about all jobs that there are."""
    batch = Batch("{p}:")
    runs = [run("counts"), run("find", "a"), run("find", "b"), run("delete", "x")]
    places = [batch.add([each]) for each in (*runs, *runs)]
    assert [command.arguments[3:] for command in batch.commands()] == [(0,), (1, "a", 1, "b"), (1, "x", 1, "x")]
    answers = [["counted"], ["A", "B"], [1, 0]]
    assert [pick(answers, place)[0] for place in places] == ["counted", "A", "B", 1, "counted", "A", "B", 0]


def test_groups_are_bounded() -> None:
    """A script is given a bounded number of calls, and no more once they are large."""
    batch = Batch("{p}:")
    for n in range(GROUP_CALLS + 1):
        assert batch.add([run("delete", str(n))], 100) == [(n // GROUP_CALLS, n % GROUP_CALLS)]
    batch = Batch("{p}:")
    sizes = [200_000, 100_000, 100_000]
    assert [batch.add([run("delete", "x")], size) for size in sizes] == [[(0, 0)], [(0, 1)], [(1, 0)]]
    batch = Batch("{p}:")
    for n in range(3):  # what a command brings is no script's answer
        parts: list[Any] = [run("read", str(n)), Command(b"HMGET", ("key",), 200_000)]
        assert batch.add(parts, 200_000) == [(0, n), (n + 1, None)]


@pytest.mark.parametrize(("name", "writes"), [("read", False), ("counts", False), ("find", False), ("claim", True)])
def test_what_writes(name: str, writes: bool) -> None:
    """A batch says whether anything in it writes, and a script that does not is not allowed to."""
    batch = Batch("{p}:")
    batch.add([Command(b"HMGET", ("key",)), run(name)])
    assert batch.writes == writes
    batch.add([run("finish")])
    batch.add([run("read")])
    assert batch.writes
    assert (b"no-writes" in SCRIPTS[name].text) != writes


@pytest.mark.parametrize(
    ("name", "grows"),
    [("insert", True), ("append", True), ("save_state", True), ("append_last", False), ("finish", False)],
)
def test_what_is_refused_for_want_of_memory(name: str, grows: bool) -> None:
    """A server that has no memory left takes nothing new; what lets a job come to its end it does take."""
    assert (b"allow-oom" in SCRIPTS[name].text) != grows


async def test_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the store is closed, calls that wait are refused, also those that wait for room, and so are new ones."""
    monkeypatch.setattr(_calls, "WAITING", 1)
    calls = Calls("{p}:", 1.0, 0)
    refused: list[str] = []

    async def ask(name: str) -> None:
        with pytest.raises(StoreUnavailableError, match="the store was closed"):
            await calls.make([Command(b"PING", ())], lambda answers: answers)
        refused.append(name)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "first")
            nursery.start_soon(ask, "second")
            await trio.testing.wait_all_tasks_blocked()
            calls.close()
        await ask("late")
    assert sorted(refused) == ["first", "late", "second"]
