"""The log of one job's messages: numbers, bounds, waking, lossless consumers."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from jobtrio import Cancelled, Completed, End, Gap, JobError, Progress, Restart, Subscription, Token
from jobtrio._ringer import Ringer
from jobtrio._token_log import FEW, OVERHANG, TokenLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio import Message, Outcome

ERROR = JobError("exception", "ValueError", "no")


def filled(limit: int, count: int) -> TokenLog:
    """Return a log to which so many tokens were sent; each token is its own number."""
    log = TokenLog(limit)
    for n in range(1, count + 1):
        assert log.send(1, n) == n
    return log


def numbers(log: TokenLog, after: int = 0) -> list[int]:
    """Return the numbers of what is kept behind ``after``."""
    return [seq_of(message) for message in log.slice(after, 10**6)]


def is_full(log: TokenLog) -> bool:
    """Return whether the log is full, asked anew at each call."""
    return log.is_full


def seq_of(message: Message) -> int:
    """Return a message's number."""
    assert not isinstance(message, Gap)
    return message.seq


def test_empty() -> None:
    """A new log has no last message and begins with number 1."""
    log = TokenLog(10)
    assert (log.last, log.first, log.end, log.slice(0, 9)) == (0, 1, None, [])


def test_all_kinds_are_numbered_together() -> None:
    """Tokens, progress, restarts and the end take numbers from 1 without holes."""
    log = TokenLog(10)
    assert log.send(1, "a") == 1
    assert log.progress(1, 0.5, 1.0, "half") == 2
    log.restart(1, ERROR, 3.0)
    assert log.send(2, "b") == 4
    log.finish(Completed(7))
    assert log.slice(0, 9) == [
        Token(1, 1, "a"),
        Progress(2, 1, 0.5, 1.0, "half"),
        Restart(3, 1, ERROR, 3.0),
        Token(4, 2, "b"),
        End(5, Completed(7)),
    ]
    assert log.last == 5


def test_the_end_is_told_once() -> None:
    """The first end stays; behind it nothing is appended but what the attempt still sends by mistake."""
    log = filled(10, 1)
    log.finish(Completed())
    log.finish(Cancelled("late"))
    log.restart(1, ERROR, 0.0)
    log.extend([Token(3, 1, "late")])
    log.cut_off("late")
    assert log.slice(0, 9) == [Token(1, 1, 1), End(2, Completed())]
    assert (log.last, log.cut) == (2, None)


def test_a_restart_is_told_once_an_attempt() -> None:
    """The same attempt's restart is appended once; a later attempt's again."""
    log = TokenLog(10)
    for attempt in (1, 1, 2, 1, 2):
        log.restart(attempt, ERROR, 0.0)
    assert [type(m) for m in log.slice(0, 9)] == [Restart, Restart]
    assert log.last == 2


def test_what_is_known_is_passed_over() -> None:
    """Messages that are there already, and gaps, are passed over."""
    log = filled(10, 3)
    log.extend([Token(2, 1, "again"), Token(3, 1, "again"), Gap(1, 2), Token(4, 1, 4)])
    assert [m.value for m in log.slice(0, 9) if isinstance(m, Token)] == [1, 2, 3, 4]


def test_taken_over_in_its_middle() -> None:
    """A log whose first message has a higher number begins there; what came before is told as missed."""
    log = TokenLog(10)
    log.extend([Token(6, 2, "f"), Restart(7, 2, ERROR, 0.0)])
    assert (log.first, log.last) == (6, 7)
    assert log.lost_before(0, lossless=False) == 5
    assert log.lost_before(5, lossless=False) == 0
    log.restart(2, ERROR, 0.0)
    assert log.last == 7
    assert log.send(3, "g") == 8


def test_an_end_in_its_middle() -> None:
    """Where only the end is known, reading begins right before it."""
    log = TokenLog(10)
    log.extend([End(8, Completed())])
    assert (log.first, log.last, log.lost_before(0, lossless=True)) == (8, 8, 7)
    assert log.slice(7, 9) == [End(8, Completed())]


@pytest.mark.parametrize("tail", [[Token(9, 1, 9)], [End(9, Completed())], [Token(9, 1, 9), End(10, Completed())]])
def test_a_hole_is_told_as_missed(tail: list[Message]) -> None:
    """Where numbers jump, what came before the hole is given up, so that numbers stay dense behind it."""
    log = filled(10, 3)
    log.extend(tail)
    assert log.lost_before(3, lossless=True) == 8
    assert log.slice(8, 9) == tail
    assert log.last == seq_of(tail[-1])


def test_passing_over() -> None:
    """What is passed over takes its numbers, and nothing before it is kept; what is known is not passed over."""
    log = filled(10, 3)
    log.pass_over(3)
    assert numbers(log) == [1, 2, 3]
    log.pass_over(7)
    assert (log.last, log.first, numbers(log)) == (7, 8, [])
    assert log.send(2, "next") == 8
    log.finish(Completed())
    log.pass_over(20)
    assert (log.last, numbers(log, 7)) == (9, [8, 9])


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_no_more_than_the_limit_can_be_read(limit: int) -> None:
    """However many are sent, exactly the newest ``limit`` can be read, and the memory is bounded."""
    log = TokenLog(limit)
    for n in range(1, 4 * limit + 100):
        log.send(1, n)
        assert log.last == n
        assert log.first == max(1, n - limit + 1)
        missed = log.lost_before(0, lossless=False)
        assert missed == log.first - 1
        assert len(log._items) < limit + max(limit // 8, 16)
    assert numbers(log, log.first - 1) == list(range(log.first, log.last + 1))


def test_the_end_is_kept_beside_the_limit() -> None:
    """The end does not displace a message."""
    log = filled(2, 2)
    log.finish(Completed())
    assert (log.first, numbers(log)) == (1, [1, 2, 3])


def test_extend_is_bounded_too() -> None:
    """Progress, restarts and messages from elsewhere are dropped as tokens are."""
    log = TokenLog(3)
    for n in range(200):
        log.progress(1, n, None, None)
    log.extend([Token(n, 1, n) for n in range(201, 400)])
    assert (log.first, log.last) == (397, 399)
    assert len(log._items) < 3 + 16


def test_newest_progress() -> None:
    """The newest progress is found up to any number, as far as it is kept."""
    log = TokenLog(4)
    assert log.newest_progress(log.last) is None
    log.send(1, "a")
    assert log.newest_progress(log.last) is None
    log.progress(1, 1, 2, "half")
    log.send(1, "b")
    log.extend([Progress(4, 2, 2, 2, None), Token(5, 2, "c")])
    assert log.newest_progress(log.last) == Progress(4, 2, 2, 2, None)
    assert log.newest_progress(3) == Progress(2, 1, 1, 2, "half")
    assert log.newest_progress(1) is None
    for _ in range(3):
        log.send(2, "d")
    assert (log.first, log.newest_progress(log.last)) == (5, None)
    log.finish(Completed(None))
    assert log.newest_progress(log.last) is None


def test_newest_progress_behind_a_hole() -> None:
    """What came before a hole is not kept, nor is its progress."""
    log = TokenLog(10)
    log.progress(1, 1, 2, None)
    log.extend([Token(5, 1, "a")])
    assert log.newest_progress(log.last) is None
    log.pass_over(9)
    assert log.newest_progress(log.last) is None
    log.extend([Progress(10, 1, 2, 2, None)])
    assert log.newest_progress(log.last) == Progress(10, 1, 2, 2, None)


def test_slice() -> None:
    """A slice has at most what was asked for, and the end only where there is room for it."""
    log = filled(10, 5)
    assert numbers(log, 3) == [4, 5]
    assert [seq_of(m) for m in log.slice(1, 2)] == [2, 3]
    log.finish(Completed())
    assert [seq_of(m) for m in log.slice(3, 2)] == [4, 5]
    assert [seq_of(m) for m in log.slice(3, 3)] == [4, 5, 6]
    assert log.slice(5, 1) == [End(6, Completed())]
    assert log.slice(6, 9) == []


def test_lost_before() -> None:
    """Who stands right before the oldest message has missed nothing; one further back has."""
    log = filled(10, 25)
    assert (log.first, log.lost_before(15, lossless=False), log.lost_before(14, lossless=False)) == (16, 0, 15)


async def test_waiting_wakes_once_a_message() -> None:
    """Whoever has read everything waits, and each message wakes all of them."""
    log = TokenLog(10)
    woken: list[int] = []

    async def wait(n: int) -> None:
        await log.wait_beyond(0)
        woken.append(n)

    async with trio.open_nursery() as nursery:
        for n in range(3):
            nursery.start_soon(wait, n)
        await trio.testing.wait_all_tasks_blocked()
        assert woken == []
        log.send(1, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(woken) == [0, 1, 2]
        assert not log._idle


async def test_not_waiting_is_a_checkpoint() -> None:
    """Where there is something behind the number, it does not wait but gives way."""
    log = filled(10, 1)
    with trio.testing.assert_checkpoints():
        await log.wait_beyond(0)


async def test_a_cancelled_wait_leaves_nothing() -> None:
    """A reader that is cancelled while it waits is forgotten, and the next message finds nobody."""
    log = TokenLog(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.wait_beyond, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert len(log._idle) == 1
        nursery.cancel_scope.cancel()
    assert not log._idle
    log.send(1, "a")


async def test_many_are_woken_together() -> None:
    """More than a few waiting consumers are woken by the ringer, later, with all that was sent meanwhile."""
    ringer = Ringer()
    log = TokenLog(100, ringer=ringer)
    seen: list[int] = []

    async def wait(after: int) -> None:
        await log.wait_beyond(after)
        seen.append(log.last)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        for turn in (0, 1, 2):
            async with trio.open_nursery() as readers:
                for _ in range(FEW + 1):
                    readers.start_soon(wait, 2 * turn)
                await trio.testing.wait_all_tasks_blocked()
                log.send(1, "a")
                assert len(log._idle) == FEW + 1
                log.send(1, "b")
                assert ringer._pending == [log]
            assert seen == [2 * turn + 2] * (FEW + 1)
            seen.clear()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("count", [FEW, FEW + 1])
@pytest.mark.parametrize("ringer", [None, Ringer()])
async def test_without_a_ringer_all_are_woken_at_once(ringer: Ringer | None, count: int) -> None:
    """A few consumers, or any number where no ringer runs, are woken on the spot."""
    log = TokenLog(100, ringer=ringer)
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(log.wait_beyond, 0)
        await trio.testing.wait_all_tasks_blocked()
        assert len(log._idle) == count
        log.send(1, "a")
        assert not log._idle


async def test_a_few_are_not_kept_waiting() -> None:
    """Up to a few consumers are woken on the spot, although a ringer runs."""
    ringer = Ringer()
    log = TokenLog(100, ringer=ringer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        for _ in range(FEW):
            nursery.start_soon(log.wait_beyond, 0)
        await trio.testing.wait_all_tasks_blocked()
        log.send(1, "a")
        assert not log._idle
        assert not ringer._pending
        nursery.cancel_scope.cancel()


async def test_the_end_wakes_on_the_spot() -> None:
    """The end wakes all readers and all who wait for it, however many, without the ringer."""
    ringer = Ringer()
    log = TokenLog(100, ringer=ringer)
    outcomes: list[object] = []

    async def wait_end() -> None:
        outcomes.append(await log.wait_end())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ringer.run)
        async with trio.open_nursery() as readers:
            for _ in range(FEW + 1):
                readers.start_soon(log.wait_beyond, 0)
                readers.start_soon(wait_end)
            await trio.testing.wait_all_tasks_blocked()
            log.finish(Completed(1))
            assert not log._idle
        assert outcomes == [Completed(1)] * (FEW + 1)
        nursery.cancel_scope.cancel()


async def test_a_ringer_that_stops_wakes_first() -> None:
    """A ringer that is cancelled wakes everybody that it was to wake, and is then passed by."""
    ringer = Ringer()
    log = TokenLog(100, ringer=ringer)
    async with trio.open_nursery() as readers:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ringer.run)
            for _ in range(FEW + 1):
                readers.start_soon(log.wait_beyond, 0)
            await trio.testing.wait_all_tasks_blocked()
            log.send(1, "a")
            nursery.cancel_scope.cancel()
        assert not log._idle
        assert not ringer.is_running
        for _ in range(FEW + 1):
            readers.start_soon(log.wait_beyond, 1)
        await trio.testing.wait_all_tasks_blocked()
        log.send(1, "b")
        assert not log._idle


async def test_wait_end() -> None:
    """The end that is there already is given at a checkpoint; a message before it wakes nobody."""
    log = TokenLog(10)
    outcomes: list[object] = []

    async def wait() -> None:
        outcomes.append(await log.wait_end())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        log.send(1, "a")
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == []
        log.finish(Completed(1))
    assert outcomes == [Completed(1)]
    with trio.testing.assert_checkpoints():
        assert await log.wait_end() == Completed(1)


async def test_ctrl_c_comes_behind_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing gets between an end and the waking of those who wait for it, whoever ends the log."""
    is_protected: list[bool] = []

    def end(seq: int, outcome: Outcome) -> End:
        is_protected.append(trio.lowlevel.currently_ki_protected())
        return End(seq, outcome)

    monkeypatch.setattr("jobtrio._token_log.End", end)
    TokenLog(10).finish(Completed())
    assert is_protected == [True]


async def test_cut_off() -> None:
    """A log that is cut off wakes all who wait, and tells those who wait for the end."""
    log = TokenLog(10)

    async def wait() -> None:
        with pytest.raises(trio.BrokenResourceError, match="the store is closed"):
            await log.wait_end()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(log.wait_beyond, 0)
        await trio.testing.wait_all_tasks_blocked()
        log.cut_off("the store is closed")
    with pytest.raises(trio.BrokenResourceError, match="the store is closed"):
        await log.wait_end()


async def test_cut_off_and_cancelled() -> None:
    """Who is cancelled in the step that cuts the log off is told that alone."""
    log = TokenLog(10)
    told: list[str] = []

    async def wait(name: str, wait: Callable[[], Awaitable[object]]) -> None:
        try:
            await wait()
        except trio.Cancelled:
            told.append(name)
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "end", log.wait_end)
        nursery.start_soon(wait, "message", Subscription(log).receive)
        await trio.testing.wait_all_tasks_blocked()
        log.cut_off("the registry has failed")
        nursery.cancel_scope.cancel()
    assert sorted(told) == ["end", "message"]


async def test_a_log_that_was_cut_off_nobody_was_waiting_for() -> None:
    """Cutting off a log without readers is noted all the same."""
    log = TokenLog(10)
    log.cut_off("gone")
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        Subscription(log).receive_nowait()


# -- lossless consumers


async def test_full_when_one_more_would_drop_the_unread() -> None:
    """The log is full when the oldest message that one more token would displace is unread."""
    log = filled(3, 2)
    reader = Subscription(log, lossless=True)
    assert not is_full(log)
    log.send(1, 3)
    assert is_full(log)
    reader.position = 1
    assert not is_full(log)
    log.send(1, 4)
    assert is_full(log)
    reader.close()
    assert not is_full(log)


async def test_not_full_for_the_others() -> None:
    """Without a lossless consumer a log is never full."""
    log = filled(3, 9)
    assert not is_full(log)
    with Subscription(log, log.last, lossless=True):
        assert not is_full(log)
    assert not is_full(log)


async def test_the_slowest_counts() -> None:
    """Of several lossless consumers the slowest holds the sender up."""
    log = TokenLog(2)
    fast, slow = Subscription(log, lossless=True), Subscription(log, lossless=True)
    log.send(1, 1)
    log.send(1, 2)
    fast.position = 2
    assert is_full(log)
    slow.position = 2
    assert not is_full(log)


async def test_room_is_made_by_reading_and_leaving() -> None:
    """A waiting sender looks again when a lossless consumer reads, closes, or is forgotten."""
    log = filled(1, 1)
    looked: list[str] = []

    async def wait(name: str) -> None:
        await log.wait_room()
        looked.append(name)

    readers = [Subscription(log, lossless=True) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, "read")
        await trio.testing.wait_all_tasks_blocked()
        readers[0].receive_nowait()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, "closed")
        await trio.testing.wait_all_tasks_blocked()
        readers[1].close()
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, "forgotten")
        await trio.testing.wait_all_tasks_blocked()
        del readers[2]
        gc.collect()
    assert looked == ["read", "closed", "forgotten"]


async def test_progress_overhangs_for_a_lossless_consumer() -> None:
    """What is always appended is kept for a lossless consumer, up to a bound, and then told as missed."""
    log = TokenLog(50)
    reader = Subscription(log, lossless=True)
    for n in range(OVERHANG * 50):
        log.progress(1, n, None, None)
    assert log.lost_before(0, lossless=True) == 0
    assert log.lost_before(0, lossless=False) == 50
    for n in range(20):
        log.progress(1, n, None, None)
    assert log.lost_before(0, lossless=True) == 20
    assert len(log._items) == OVERHANG * 50
    assert reader.position == 0


async def test_what_a_lossless_consumer_has_read_is_dropped() -> None:
    """An overhang is given back as it is read."""
    log = TokenLog(50)
    reader = Subscription(log, lossless=True)
    for n in range(90):
        log.progress(1, n, None, None)
    assert len(log._items) == 90
    reader.position = 30
    log.progress(1, 0, None, None)
    assert (len(log._items), log.lost_before(0, lossless=True)) == (61, 30)
    reader.close()
    log.progress(1, 0, None, None)
    assert (len(log._items), log.lost_before(0, lossless=True)) == (62, 30)
    for _ in range(5):
        log.progress(1, 0, None, None)
    assert len(log._items) < 50 + 16


async def test_what_is_unread_is_kept_wherever_the_log_begins() -> None:
    """An overhang is kept for a lossless consumer also where much was dropped before it came."""
    log = filled(50, 200)
    with Subscription(log, log.last, lossless=True) as reader:
        for n in range(90):
            log.progress(1, n, None, None)
        assert len(await reader.receive_batch()) == 90


class Vanishing:
    """A set of consumers that are gone by the time they are looked at, as the collector may have it."""

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Vanishing:
        return self

    def __next__(self) -> Subscription:
        raise StopIteration


def test_consumers_that_vanish_meanwhile() -> None:
    """A lossless consumer may be collected between two looks."""
    log = filled(3, 18)
    log._lossless = Vanishing()  # type: ignore[assignment]
    assert not is_full(log)
    log.send(1, 19)
    assert len(log._items) == 3
