"""A consumer's place in a stream: receiving, gaps, batches, leaving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from other_numbers import Whole

from jobtrio import Completed, End, Gap, LaggedError, Subscription, Token
from jobtrio._subscription import BATCH, check_position
from jobtrio._token_log import TokenLog

if TYPE_CHECKING:
    from jobtrio import Message


def filled(limit: int, count: int) -> TokenLog:
    """Return a log to which so many tokens were sent."""
    log = TokenLog(limit)
    for n in range(1, count + 1):
        log.send(1, n)
    return log


def seqs(messages: list[Message]) -> list[int]:
    """Return the messages' numbers."""
    return [message.seq for message in messages if not isinstance(message, Gap)]


def test_position() -> None:
    """A position is 0 or the number of a message so far, the end included."""
    log = filled(10, 2)
    assert [check_position(log, n) for n in range(3)] == [0, 1, 2]
    for after in (-1, 3):
        with pytest.raises(ValueError, match=f"^after must be the number of a message so far, 0 to 2; got {after}$"):
            check_position(log, after)
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match=r"^after must be"):
            check_position(log, wrong)
    log.finish(Completed())
    assert check_position(log, 3) == 3
    position = check_position(log, Whole(3))
    assert (type(position), position) == (int, 3)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"after": 1}, ValueError),
        ({"on_gap": "skip"}, ValueError),
        ({"on_gap": None}, ValueError),
        ({"lossless": 1}, TypeError),
    ],
)
def test_refused_options(options: Any, error: type[Exception]) -> None:
    """Options that make no sense are refused, and nothing is left behind in the log."""
    log = TokenLog(10)
    with pytest.raises(error, match=f"^{next(iter(options))} must be"):
        Subscription(log, **options)
    assert log._lossless is None


async def test_receive_in_order_to_the_end() -> None:
    """Every message comes once, in order, and behind the end there is nothing, again and again."""
    log = filled(10, 2)
    log.finish(Completed())
    reader = Subscription(log)
    assert [await reader.receive() for _ in range(3)] == [Token(1, 1, 1), Token(2, 1, 2), End(3, Completed())]
    for _ in range(2):
        with pytest.raises(trio.EndOfChannel):
            await reader.receive()
        with pytest.raises(trio.EndOfChannel):
            reader.receive_nowait()
        with pytest.raises(trio.EndOfChannel):
            await reader.receive_batch()
        assert [message async for message in reader] == []


async def test_after_a_number() -> None:
    """Reading begins behind the number that was given."""
    log = filled(10, 3)
    assert seqs([Subscription(log, 1).receive_nowait()]) == [2]
    with pytest.raises(trio.WouldBlock):
        Subscription(log, 3).receive_nowait()


async def test_receive_nowait() -> None:
    """What is there is taken without waiting; nothing there yet is `WouldBlock`, and loses nothing."""
    log = TokenLog(10)
    reader = Subscription(log)
    with pytest.raises(trio.WouldBlock):
        reader.receive_nowait()
    log.send(1, "a")
    log.send(1, "b")
    assert [reader.receive_nowait(), reader.receive_nowait()] == [Token(1, 1, "a"), Token(2, 1, "b")]
    with pytest.raises(trio.WouldBlock):
        reader.receive_nowait()


async def test_waiting() -> None:
    """A reader that has everything waits for the next message."""
    log = TokenLog(10)
    got: list[Message] = []

    async def read() -> None:
        async for message in Subscription(log):
            got.append(message)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for n in (1, 2):
            await trio.testing.wait_all_tasks_blocked()
            log.send(1, n)
            await trio.testing.wait_all_tasks_blocked()
            assert got[-1] == Token(n, 1, n)
        log.finish(Completed())
    assert seqs(got) == [1, 2, 3]


@pytest.mark.parametrize("cancelled", ["receive", "receive_batch", "__anext__"])
async def test_cancelled_while_waiting(cancelled: str) -> None:
    """A cancelled wait loses nothing: the next call receives what came."""
    log = TokenLog(10)
    reader = Subscription(log)
    with trio.CancelScope() as scope:
        scope.cancel()
        await getattr(reader, cancelled)()
    assert scope.cancelled_caught
    log.send(1, "a")
    assert await reader.receive() == Token(1, 1, "a")


async def test_receive_gives_way_every_256() -> None:
    """Of what is there at most 256 messages are received between two checkpoints, however they came."""
    log = TokenLog(10_000)
    reader = Subscription(log)
    for count in (BATCH - 1, BATCH, 1, BATCH, 3 * BATCH):
        for _ in range(count):
            log.send(1, None)
        received = await count_between_checkpoints(reader, count)
        assert max(received) <= BATCH


class Steps(trio.abc.Instrument):
    """Begins a new run of messages at each step of the task that made it."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.runs = [0]

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.runs.append(0)


async def count_between_checkpoints(reader: Subscription, count: int) -> list[int]:
    """Receive so many messages; return how many came between each two checkpoints."""
    steps = Steps()
    trio.lowlevel.add_instrument(steps)
    for _ in range(count):
        await reader.receive()
        steps.runs[-1] += 1
    trio.lowlevel.remove_instrument(steps)
    return steps.runs


async def test_gives_way_between_batches() -> None:
    """Replaying a long log gives way after each 256 messages."""
    log = filled(10_000, 3 * BATCH)
    reader = Subscription(log)
    runs = await count_between_checkpoints(reader, 3 * BATCH)
    assert runs == [256, 256, 256]
    assert BATCH == 256


async def test_a_reader_that_is_behind_takes_a_slice() -> None:
    """What is there is taken at once, up to 256 messages, however it is received."""
    log = filled(10_000, 3 * BATCH)
    for receive in ("receive", "__anext__"):
        reader = Subscription(log)
        await getattr(reader, receive)()
        assert reader.position == BATCH
    reader = Subscription(log)
    reader.receive_nowait()
    assert reader.position == BATCH


async def test_waiting_is_a_checkpoint_that_counts() -> None:
    """Whoever has just waited receives the next 256 messages without giving way."""
    log = filled(10_000, 10)
    reader = Subscription(log)
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            for _ in range(10):
                await reader.receive()
            await reader.receive()
            with trio.testing.assert_no_checkpoints():
                for _ in range(255):
                    await reader.receive()

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(256):
            log.send(1, None)


async def test_uneven_arrivals_give_way_in_time() -> None:
    """Batches that add up to more than 256 don't stretch the distance between two checkpoints."""
    log = filled(10_000, BATCH - 1)
    reader = Subscription(log)
    for _ in range(BATCH - 1):
        with trio.testing.assert_no_checkpoints():
            await reader.receive()
    for _ in range(BATCH):
        log.send(1, None)
    with trio.testing.assert_no_checkpoints():
        await reader.receive()
    with trio.testing.assert_checkpoints():
        await reader.receive()


async def test_batches() -> None:
    """A batch has all that is there, at least one, at most as many as asked for, in order."""
    log = filled(1000, 5)
    reader = Subscription(log)
    assert seqs(await reader.receive_batch(2)) == [1, 2]
    assert seqs(await reader.receive_batch()) == [3, 4, 5]
    log.send(1, 6)
    log.send(1, 7)
    log.send(1, 8)
    assert seqs([await reader.receive()]) == [6]
    other: Any = Whole(1)
    assert seqs(await reader.receive_batch(other)) == [7]
    assert seqs(await reader.receive_batch(5)) == [8]
    log.send(1, 9)
    log.finish(Completed())
    assert seqs(await reader.receive_batch()) == [9, 10]


@pytest.mark.parametrize("size", [1, 2, 3, 8, 9, 10, 300])
async def test_batches_of_what_was_taken_before(size: int) -> None:
    """Batches give what the reader has taken already, each message once, whatever their size."""
    log = filled(1000, 10)
    reader = Subscription(log)
    got = seqs([await reader.receive()])
    assert reader.position == 10
    while len(got) < 10:
        batch = await reader.receive_batch(size)
        assert len(batch) == min(size, 10 - len(got))
        got += seqs(batch)
    assert got == list(range(1, 11))


async def test_batch_waits_for_the_first() -> None:
    """An empty batch is never given: it waits."""
    log = TokenLog(10)
    reader = Subscription(log)
    got: list[list[Message]] = []

    async def read() -> None:
        got.append(await reader.receive_batch())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        log.send(1, "a")
    assert got == [[Token(1, 1, "a")]]


async def test_batches_give_way() -> None:
    """Batches are checkpoints once 256 messages were taken, and before that only where they wait."""
    log = filled(10_000, 4 * BATCH)
    reader = Subscription(log)
    with trio.testing.assert_no_checkpoints():
        await reader.receive_batch()
    with trio.testing.assert_checkpoints():
        await reader.receive_batch(10)
    with trio.testing.assert_no_checkpoints():
        assert len(await reader.receive_batch(1000)) == 3 * BATCH - 10


# -- gaps


async def test_gap_raises_once() -> None:
    """Who fell behind is told once which messages are gone, and reads on behind them."""
    log = filled(2, 5)
    reader = Subscription(log)
    with pytest.raises(LaggedError) as excinfo:
        await reader.receive()
    assert (excinfo.value.first, excinfo.value.last) == (1, 3)
    assert str(excinfo.value) == "messages 1 to 3 are no longer kept"
    assert seqs([reader.receive_nowait(), reader.receive_nowait()]) == [4, 5]


@pytest.mark.parametrize("receive", ["receive", "receive_batch", "__anext__"])
async def test_gap_raises_everywhere(receive: str) -> None:
    """Each way of receiving tells of a gap."""
    reader = Subscription(filled(2, 5))
    with pytest.raises(LaggedError, match="messages 1 to 3 are no longer kept"):
        await getattr(reader, receive)()


async def test_gap_yields() -> None:
    """With ``on_gap="yield"`` the gap is a message of its own in its place."""
    log = filled(2, 5)
    log.finish(Completed())
    reader = Subscription(log, 1, on_gap="yield")
    assert [message async for message in reader] == [Gap(2, 3), Token(4, 1, 4), Token(5, 1, 5), End(6, Completed())]
    assert await Subscription(log, on_gap="yield").receive_batch() == [Gap(1, 3)]
    assert Subscription(log, on_gap="yield").receive_nowait() == Gap(1, 3)


async def test_the_end_comes_behind_a_gap() -> None:
    """Whatever was dropped, the end is received."""
    log = filled(1, 9)
    log.finish(Completed())
    reader = Subscription(log, 2)
    with pytest.raises(LaggedError, match="messages 3 to 8"):
        reader.receive_nowait()
    assert seqs(await reader.receive_batch()) == [9, 10]


@pytest.mark.parametrize("receive", ["receive", "receive_batch", "__anext__"])
@pytest.mark.parametrize("on_gap", ["raise", "yield"])
async def test_what_is_behind_a_gap_comes_next(receive: str, on_gap: Any) -> None:
    """However slowly a gap is dealt with, what was there behind it is received, and not told of as the next gap."""
    log = filled(4, 10)
    reader = Subscription(log, on_gap=on_gap)
    received: list[Any] = []
    while len(received) < 5:
        try:
            message = await getattr(reader, receive)()
        except LaggedError:
            message = Gap(1, 6)
        received += message if isinstance(message, list) else [message]
        log.send(1, "meanwhile")
    assert received == [Gap(1, 6), *(Token(n, 1, n) for n in range(7, 11))]


async def test_no_more_than_is_stored_comes_behind_a_gap() -> None:
    """One that receives what is stored gets no more than that behind a gap either."""
    log = filled(4, 10)
    log.set_stored(8)
    reader = Subscription(log, on_gap="yield", stored=True)
    assert await reader.receive_batch() == [Gap(1, 6)]
    assert seqs(await reader.receive_batch()) == [7, 8]
    log.set_stored(6)
    assert await Subscription(log, on_gap="yield", stored=True).receive_batch() == [Gap(1, 6)]


async def test_waiting_without_taking() -> None:
    """One that waits first and takes later is told at once of what is there, and gives way behind each batch."""
    reader = Subscription(filled(1000, 600))
    for _ in range(2):
        await reader._arrived()
        assert len(reader._take_there()) == BATCH
        with trio.CancelScope() as scope:
            scope.cancel()
            await reader._arrived()
        assert scope.cancelled_caught
    await reader._arrived()
    assert len(reader._take_there()) == 600 - 2 * BATCH
    late = Subscription(filled(4, 10), on_gap="yield")
    assert late._take_there() == [Gap(1, 6), *(Token(n, 1, n) for n in range(7, 11))]


async def test_what_was_taken_is_not_lost() -> None:
    """Messages that were taken from the log stay with the reader when the log drops them."""
    log = filled(2, 2)
    reader = Subscription(log)
    assert reader.receive_nowait() == Token(1, 1, 1)
    for n in range(3, 30):
        log.send(1, n)
    assert reader.receive_nowait() == Token(2, 1, 2)
    with pytest.raises(LaggedError, match="messages 3 to 27"):
        reader.receive_nowait()


# -- leaving


@pytest.mark.parametrize("leave", ["close", "with", "aclose", "async with"])
async def test_closed(leave: str) -> None:
    """However it is left, receiving from it raises, also what was taken already."""
    log = filled(10, 3)
    reader = Subscription(log)
    await reader.receive()
    match leave:
        case "close":
            reader.close()
        case "with":
            with reader as same:
                assert same is reader
        case "aclose":
            await reader.aclose()
        case _:
            async with reader:
                pass
    for _ in range(2):
        for receive in (reader.receive, reader.receive_batch, reader.__anext__):
            with pytest.raises(trio.ClosedResourceError):
                await receive()
        with pytest.raises(trio.ClosedResourceError):
            reader.receive_nowait()
        reader.close()


async def test_aclose_is_a_checkpoint() -> None:
    """`aclose` gives way, and has closed even if it was cancelled."""
    reader = Subscription(TokenLog(10))
    with trio.testing.assert_checkpoints():
        await reader.aclose()
    other = Subscription(TokenLog(10))
    with trio.CancelScope() as scope:
        scope.cancel()
        await other.aclose()
    with pytest.raises(trio.ClosedResourceError):
        other.receive_nowait()


async def test_closing_wakes_the_receiver() -> None:
    """A receiver that waits is told that its subscription was closed; another's goes on waiting."""
    log = TokenLog(10)
    reader, other = Subscription(log), Subscription(log)
    got: list[Message] = []

    async def read_closed() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive()

    async def read_on() -> None:
        got.append(await other.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_on)
        async with trio.open_nursery() as first:
            first.start_soon(read_closed)
            await trio.testing.wait_all_tasks_blocked()
            reader.close()
        assert got == []
        log.send(1, "a")
    assert got == [Token(1, 1, "a")]


@pytest.mark.parametrize("stored", [False, True])
async def test_leaving_wakes_nobody_else(stored: bool) -> None:
    """Whoever leaves a stream wakes those who wait in the same subscription, and none of its other readers."""
    log = TokenLog(10)
    if stored:
        log.set_stored(0)
    waiting = [Subscription(log, stored=stored) for _ in range(5)]
    async with trio.open_nursery() as nursery:

        async def read(subscription: Subscription) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await subscription.receive()

        for subscription in (*waiting, waiting[0]):
            nursery.start_soon(read, subscription)
        await trio.testing.wait_all_tasks_blocked()
        idle = log._idle_stored if stored else log._idle
        Subscription(log).close()
        assert len(idle) == 6
        for subscription, left in zip(waiting, (4, 3, 2, 1, 0), strict=True):
            subscription.close()
            assert len(idle) == left


class _NotListed(dict[Any, Any]):
    """A mapping in which one may look for a key, and not at all of them."""

    def __iter__(self) -> Any:
        raise AssertionError("everybody who waits was looked at")

    keys = values = items = __iter__


async def test_leaving_looks_at_nobody_else() -> None:
    """Of 10,000 that watch a job 5,000 may leave at once: none of them looks for its receiver among the others'."""
    log = TokenLog(10)
    log._idle = _NotListed()
    reader, other = Subscription(log), Subscription(log)

    async def read(subscription: Subscription) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await subscription.receive()

    async with trio.open_nursery() as nursery:
        for subscription in (reader, reader, other):
            nursery.start_soon(read, subscription)
        await trio.testing.wait_all_tasks_blocked()
        reader.close()
        assert len(log._idle) == 1
        other.close()
    assert not log._idle


async def test_a_receiver_looks_at_no_other() -> None:
    """Thousands may receive from one subscription: who is served or cancelled does not look for itself among them."""
    log = TokenLog(10)
    reader = Subscription(log)
    reader._waiting = _NotListed()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(reader.receive)
        await trio.testing.wait_all_tasks_blocked()
        log.send(1, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert len(reader._waiting) == 2
        nursery.cancel_scope.cancel()
    assert not reader._waiting


@pytest.mark.parametrize("how", ["served", "cancelled"])
async def test_closing_wakes_nobody_twice(how: str) -> None:
    """A receiver that is served or cancelled just before its subscription is closed is woken once."""
    log = TokenLog(10)
    reader = Subscription(log)
    later, scope = trio.Event(), trio.CancelScope()

    async def read() -> None:
        with scope, pytest.raises(trio.ClosedResourceError):
            await reader.receive()
        await later.wait()
        assert later.is_set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        if how == "served":
            log.send(1, "a")
        else:
            scope.cancel()
        reader.close()
        await trio.testing.wait_all_tasks_blocked()
        later.set()


async def test_cut_off() -> None:
    """A stream that stops without its end is an error, behind what there was, and waits for nothing."""
    log = filled(10, 1)
    reader = Subscription(log)
    log.cut_off("closed")
    assert seqs([await reader.receive()]) == [1]
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        await reader.receive()
    with pytest.raises(trio.BrokenResourceError, match="closed"):
        async for _ in reader:
            pass


# -- several tasks


async def test_two_tasks_lose_nothing() -> None:
    """Two tasks that read the same subscription get each message once, whoever gets it."""
    log = TokenLog(100)
    reader = Subscription(log)
    got: list[int] = []

    async def read() -> None:
        async for message in reader:
            got.extend(seqs([message]))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        for _ in range(5):
            await trio.testing.wait_all_tasks_blocked()
            log.send(1, None)
            log.send(1, None)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(got) == list(range(1, 11))
        log.finish(Completed())
    assert sorted(got) == list(range(1, 12))


async def test_two_tasks_in_one_replay() -> None:
    """Two tasks that replay a long log through one subscription get each message once."""
    log = filled(10_000, 10 * BATCH)
    log.finish(Completed())
    reader = Subscription(log)
    got: list[int] = []

    async def read() -> None:
        async for message in reader:
            got.extend(seqs([message]))

    async def read_batches() -> None:
        try:
            while True:
                got.extend(seqs(await reader.receive_batch(7)))
                await trio.lowlevel.checkpoint()
        except trio.EndOfChannel:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read_batches)
        nursery.start_soon(read)
    assert sorted(got) == list(range(1, 10 * BATCH + 2))


# -- lossless


async def test_lossless_reads_the_overhang() -> None:
    """A lossless consumer reads what the log keeps for it beyond the limit; others have missed that."""
    log = TokenLog(50)
    lossless, other = Subscription(log, lossless=True), Subscription(log)
    for n in range(60):
        log.progress(1, n, None, None)
    assert len(await lossless.receive_batch()) == 60
    with pytest.raises(LaggedError, match="messages 1 to 10"):
        other.receive_nowait()


async def test_reading_makes_room() -> None:
    """Each time a lossless consumer takes something, a waiting sender looks again."""
    log = filled(1, 1)
    reader = Subscription(log, lossless=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.wait_room)
        await trio.testing.wait_all_tasks_blocked()
        await reader.receive()


def test_forgotten_after_the_run() -> None:
    """A lossless subscription that outlives its run is forgotten without a word."""

    async def main() -> Subscription:
        return Subscription(TokenLog(10), lossless=True)

    reader = trio.run(main)
    assert reader._token is not None
    del reader


async def test_forgetting_is_free_for_the_others() -> None:
    """Only a lossless subscription needs the run's token."""
    assert Subscription(TokenLog(10))._token is None
