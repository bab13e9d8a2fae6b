"""The spool: what is sent now and then is handed over at once, and much is handed over in batches."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from jobtrio._errors import PayloadError, StoreUnavailableError
from jobtrio._messages import Progress, Token
from jobtrio._outage import never
from jobtrio._records import Completed
from jobtrio._spool import BATCH, FIRST, WINDOW, Spool, write_with
from jobtrio._subscription import Subscription
from jobtrio._token_log import TokenLog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from jobtrio._messages import Message


class Store:
    """Notes when it was given what."""

    def __init__(self) -> None:
        self.batches: list[tuple[float, list[int]]] = []

    async def append_messages(self, claim: object, messages: list[Message]) -> bool:
        self.batches.append((trio.current_time(), [getattr(message, "seq", 0) for message in messages]))
        return True


class RefusingStore(Store):
    """Is away at first, and refuses the second batch that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.away = 2

    async def append_messages(self, claim: object, messages: list[Message]) -> bool:
        if self.away:
            self.away -= 1
            raise StoreUnavailableError("away")
        await super().append_messages(claim, messages)
        return len(self.batches) < 2


class SlowStore(Store):
    """Answers late, and whatever has become of the task that asks: one cannot withdraw what is being written."""

    async def append_messages(self, claim: object, messages: list[Message]) -> bool:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        return await super().append_messages(claim, messages)


@asynccontextmanager
async def handing_over(store: Any, log: TokenLog) -> AsyncIterator[tuple[Spool, list[float]]]:
    """Run a spool; give it, and the list of when it was told that the store refuses."""
    spool = Spool(store, store, log)
    refused: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spool.run, lambda: refused.append(trio.current_time()))
        yield spool, refused


async def test_stopped_while_it_writes(autojump_clock: MockClock) -> None:
    """A spool that is stopped hands over nothing more, though its last batch is answered for, and never an `End`."""
    store, log = SlowStore(), TokenLog(1000)
    async with handing_over(store, log) as (spool, refused):
        log.send(1, "a")
        await trio.sleep(0.5)
        log.send(1, "b")
        spool.stop()
        assert [getattr(message, "value", None) for message in spool.rest()] == ["a", "b"]
        log.finish(Completed())
        assert [getattr(message, "value", None) for message in spool.rest()] == ["a", "b"]
    assert [seqs for _, seqs in store.batches] == [[1]]
    assert not refused


async def test_refused_when_the_end_was_quicker(autojump_clock: MockClock) -> None:
    """That a batch under way is refused says nothing of the claim once the attempt's end is being written."""

    class Refusing(SlowStore):
        async def append_messages(self, claim: object, messages: list[Message]) -> bool:
            await super().append_messages(claim, messages)
            return False

    log = TokenLog(1000)
    async with handing_over(Refusing(), log) as (spool, refused):
        log.send(1, "a")
        await trio.sleep(0.5)
        spool.stop()
    assert not refused


async def test_ended_elsewhere(autojump_clock: MockClock) -> None:
    """What others have ended gets no more messages, and its `End` is not handed over; nobody has refused it."""
    store, log = Store(), TokenLog(1000)
    async with handing_over(store, log) as (spool, refused):
        log.send(1, "a")
        await trio.sleep(1)
        log.finish(Completed())
    assert [seqs for _, seqs in store.batches] == [[1]]
    assert spool.rest() == []
    assert not refused


async def spooled(pauses: list[float]) -> tuple[list[float], list[tuple[float, list[int]]]]:
    """Send a message after each pause; return when that was, and what was handed over when."""
    store, log = Store(), TokenLog(1000)
    sent = []
    async with handing_over(store, log) as (spool, _):
        for pause in pauses:
            await trio.sleep(pause)
            log.send(1, None)
            sent.append(trio.current_time())
        await trio.sleep(1)
        spool.stop()
    return sent, store.batches


async def test_now_and_then(autojump_clock: MockClock) -> None:
    """Messages with pauses between them are handed over one by one, at once."""
    sent, batches = await spooled([0.1] * 5)
    assert [seqs for _, seqs in batches] == [[1], [2], [3], [4], [5]]
    assert all(0 < at - when <= FIRST * 1.01 for when, (at, _) in zip(sent, batches, strict=True))


async def test_many(autojump_clock: MockClock) -> None:
    """Many messages are handed over in batches, none waits longer than a window, and none comes twice."""
    sent, batches = await spooled([0.001] * 200)
    assert [seq for _, seqs in batches for seq in seqs] == [*range(1, 201)]
    assert len(batches) <= 2 + 200 * 0.001 / WINDOW
    for at, seqs in batches:
        assert at - sent[seqs[0] - 1] <= WINDOW * 1.01


async def test_much_at_once(autojump_clock: MockClock) -> None:
    """What is sent at once is handed over at once, in batches of a bounded size."""
    _, batches = await spooled([0.0] * 1000)
    assert [seq for _, seqs in batches for seq in seqs] == [*range(1, 1001)]
    assert [len(seqs) for _, seqs in batches] == [BATCH, BATCH, BATCH, 1000 - 3 * BATCH]
    assert {at for at, _ in batches} == {batches[0][0]}


def begun(log: TokenLog) -> Spool:
    """Return a spool of a log, which is not run."""
    unused: Any = None
    spool = Spool(unused, unused, log)
    assert spool.rest() == []
    return spool


def test_rest() -> None:
    """What was not handed over is given at the end, however much it is."""
    log = TokenLog(10_000)
    spool = begun(log)
    for number in range(1000):
        log.send(1, number)
    assert [getattr(message, "value", None) for message in spool.rest()] == [*range(1000)]


@pytest.mark.parametrize("sent", [15, 100])
async def test_what_the_log_no_longer_keeps(autojump_clock: MockClock, sent: int) -> None:
    """What was sent while nothing could be handed over is so as far as it is kept, under its own numbers, and once."""
    store, log = Store(), TokenLog(10)
    async with handing_over(store, log) as (spool, _):
        for _ in range(sent):
            log.send(1, None)
        await trio.sleep(1)
        spool.stop()
    assert [seqs for _, seqs in store.batches] == [[*range(sent - 9, sent + 1)]]
    assert spool.rest() == []


class Odd:
    """Shows itself by what no UTF-8 can hold."""

    def __repr__(self) -> str:
        return "\ud800"


@pytest.mark.parametrize(("value", "text"), [([1j], "[1j]"), (Odd(), "\\ud800")])
@pytest.mark.parametrize("others", [[], [Progress(2, 1, 1, None, None)]])
async def test_value_that_was_changed(value: Any, text: str, others: list[Message]) -> None:
    """What can't be stored any more is stored as its `repr`, and what comes with it as it is."""
    given: list[list[Message]] = []

    async def write(messages: list[Message]) -> bool:
        given.append(messages)
        if len(given) == 1:
            raise PayloadError("no")
        return True

    assert await write_with([Token(7, 2, value), *others], write, never)
    assert given[1] == [Token(7, 2, {"repr": text}), *others]


async def test_values_that_are_changed_one_after_the_other(autojump_clock: MockClock) -> None:
    """A second value that is changed while the store is away harms nobody either."""
    first: dict[str, object] = {}
    second: dict[str, object] = {}
    sent: list[Message] = [Token(1, 1, first), Token(2, 1, second), Token(3, 1, "c")]
    given: list[list[Message]] = []

    async def write(messages: list[Message]) -> bool:
        given.append(messages)
        await trio.lowlevel.checkpoint()
        for value in (first, second):
            if value and any(isinstance(message, Token) and message.value is value for message in messages):
                raise PayloadError("no")
        if trio.current_time() < 5:
            raise StoreUnavailableError("away")
        return True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_with, sent, write, never)
        for value in (first, second):
            await trio.sleep(2)
            value["x"] = 1j
    assert given[-1] == [Token(1, 1, {"repr": "{'x': 1j}"}), Token(2, 1, {"repr": "{'x': 1j}"}), Token(3, 1, "c")]


def test_an_attempt_that_goes_on() -> None:
    """Only what comes behind what others have sent is handed over."""
    log = TokenLog(10_000)
    log.send(1, "theirs")
    spool = begun(log)
    log.send(2, "ours")
    assert [getattr(message, "value", None) for message in spool.rest()] == ["ours"]


async def test_what_a_lossless_reader_gets() -> None:
    """What a log holds beyond its limit for the sake of a lossless reader is handed over as well: that one gets it."""
    log = TokenLog(2)
    spool = begun(log)
    with Subscription(log, lossless=True, stored=True) as reader:
        for number in range(1, 5):
            log.progress(1, number, None, None)
        given = spool.rest()
        spool.settled()
        assert await reader.receive_batch() == given
    assert [getattr(message, "seq", None) for message in given] == [1, 2, 3, 4]


async def test_refused(autojump_clock: MockClock) -> None:
    """A store that is away is asked again; once it refuses, that is told, and nothing more is handed over."""
    store, log = RefusingStore(), TokenLog(1000)
    async with handing_over(store, log) as (spool, refused):
        for number in range(3):
            log.send(1, number)
            await trio.sleep(1)
    assert [seqs for _, seqs in store.batches] == [[1], [2]]
    assert len(refused) == 1
    assert [getattr(message, "value", None) for message in spool.rest()] == [1, 2]
