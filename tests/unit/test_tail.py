"""Tails: when the stream of a job that runs elsewhere is looked at, and what that takes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from jobtrio import Completed, End, JobPriority, Message, StoreUnavailableError, Token
from jobtrio._entry import JobEntry, Plan, finish, start
from jobtrio._known import KnownEntries
from jobtrio._subscription import Subscription
from jobtrio._tail import (
    FEW,
    LONGER,
    LOOK_AFTER,
    LOOK_AT_LEAST,
    LOOK_FIRST,
    LOOK_FOR_END,
    MUCH,
    REMEMBERED,
    TOGETHER,
    Tails,
)
from jobtrio._token_log import TokenLog
from jobtrio.abc import JobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock


class Bench:
    """Tails of jobs in a store that notes when it is asked."""

    def __init__(self, *, claims: bool = True) -> None:
        self.looks: list[float] = []
        self.messages: list[Message] = []
        self.takes = 0.0
        self.most = 1_000_000  # messages that one reading gives
        self.away = False
        self.then: Message | None = None  # what comes just behind the next reading
        self.fed: set[str] = set()
        self.known = KnownEntries()
        self.outage_limit, self.in_time = 10.0, False
        self.given_up: list[str] = []
        store: Any = self
        self.tails = Tails(store, lambda job_id, log: job_id in self.fed, self._give_up, claims=claims)
        self._began = trio.current_time()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[trio.Nursery]:
        """Run the tails within the block."""
        async with trio.open_nursery() as nursery:
            self.tails.nursery = nursery
            nursery.start_soon(self.tails.run)
            await trio.testing.wait_all_tasks_blocked()
            yield nursery
            nursery.cancel_scope.cancel()

    follow: Any = JobStore.follow

    async def read_messages(self, job_id: str, after: int, limit: int) -> list[Message]:
        """Note the call."""
        self.looks.append(round(trio.current_time() - self._began, 6))
        await trio.sleep(self.takes)
        if self.away:
            raise StoreUnavailableError("away")
        messages = self.messages[after : after + min(limit, self.most)]
        if self.then is not None:
            self.messages.append(self.then)
            self.then = None
        return messages

    def _give_up(self, entry: JobEntry | None, log: TokenLog, why: str, by: type[Exception]) -> None:
        log.cut_off(why, by)
        self.given_up.append(why)

    async def look(self, job_id: str) -> JobEntry | None:
        """Return the job if it has ended, and else nothing new."""
        if not self.messages or not isinstance(end := self.messages[-1], End):
            return None
        entry = self._new(job_id)
        start(entry, claim="c", worker="w", now=0.0)
        finish(entry, end.outcome, worker="w", now=1.0)
        return entry

    def say(self, value: object) -> None:
        """Have another message in the store."""
        self.messages.append(Token(len(self.messages) + 1, 1, value))

    def entry(self, name: str = "id", *, started: bool = True) -> JobEntry:
        """Return a job that is known here, with a log."""
        entry = self._new(name)
        if started:
            start(entry, claim="c", worker="w", now=0.0)
        entry.log = TokenLog(100)
        return self.known.entry_of(entry)

    def _new(self, name: str) -> JobEntry:
        return JobEntry(name, Plan("work", None, "default", JobPriority.NORMAL, None, None, "w"), None, 0.0)


def last(entry: JobEntry) -> int:
    """Return how many messages were copied."""
    assert entry.log is not None
    return entry.log.last


@asynccontextmanager
async def following(takes: float = 0.0) -> AsyncIterator[tuple[Bench, JobEntry]]:
    """Run the tails, and follow one job, of which a read takes so many seconds."""
    bench = Bench()
    bench.takes = takes
    async with bench.running():
        entry = bench.entry()
        bench.tails.follow(entry)
        yield bench, entry


async def test_ever_more_seldom(autojump_clock: MockClock) -> None:
    """Where nothing comes, the pauses between two looks double, up to a limit."""
    async with following() as (bench, entry):
        bench.tails.follow(entry)  # which is the same tail
        await trio.sleep(9)
    pauses = [2 * LOOK_AFTER, 4 * LOOK_AFTER, LOOK_AT_LEAST, LOOK_AT_LEAST, LOOK_AT_LEAST]
    assert bench.looks == [0, *(sum(pauses[:n]) for n in range(1, 6))]


async def test_looks_at_many(autojump_clock: MockClock) -> None:
    """Streams where nothing happens are looked at together, and each as often as it would be alone."""
    bench = Bench()
    async with bench.running():
        entries = [bench.entry(f"id-{n}") for n in range(160)]
        for entry in entries:
            bench.tails.follow(entry)
            await trio.sleep(LOOK_AT_LEAST / len(entries))
        await trio.sleep(10)
        bench.looks.clear()
        await trio.sleep(2 * LOOK_AT_LEAST)
    assert 2 * len(entries) <= len(bench.looks) <= 3 * len(entries)
    assert len(set(bench.looks)) <= 2 * LOOK_AT_LEAST / TOGETHER + 1
    assert max(bench.looks.count(moment) for moment in set(bench.looks)) <= len(entries) / 8  # and not all of them


async def test_news(autojump_clock: MockClock) -> None:
    """What comes without a hint is copied in time; from then on it is looked at more often again."""
    async with following() as (bench, entry):
        await trio.sleep(6)
        bench.say("a")
        before = len(bench.looks)
        await trio.sleep(LOOK_AT_LEAST + 2 * LOOK_AFTER)
        assert last(entry) == 1
        at, and_again, later, *_ = bench.looks[before:]
        assert (at, later) == (and_again, at + LOOK_AFTER)


async def test_a_hint(autojump_clock: MockClock) -> None:
    """A hint has it looked at once, and more often again, however seldom it was."""
    async with following() as (bench, entry):
        await trio.sleep(6)
        bench.say("a")
        bench.looks.clear()
        bench.tails.look("id")
        bench.tails.look("another")
        await trio.sleep(LOOK_AFTER * 1.5)
        assert last(entry) == 1
        assert bench.looks == [6, 6 + LOOK_AFTER]


@pytest.mark.parametrize("is_read", [True, False])
async def test_what_nobody_reads(is_read: bool, autojump_clock: MockClock) -> None:
    """Who only waits for the end is told of it in time, without a look at each message."""
    async with following() as (bench, entry):
        assert entry.log is not None
        if is_read:
            Subscription(entry.log)
        await trio.sleep(1)
        bench.looks.clear()
        for _ in range(100):
            bench.say("a")
            bench.tails.look("id")
            await trio.sleep(0.02)
        bench.messages.append(End(101, Completed()))
        bench.tails.look("id")
        await trio.sleep(LOOK_FOR_END * 1.01)
        assert entry.outcome == Completed()
    assert bench.looks[0] == 1
    assert 101 <= len(bench.looks) <= 102 if is_read else 2 / LOOK_FOR_END <= len(bench.looks) <= 2 + 2.1 / LOOK_FOR_END


async def test_the_end_of_a_short_job_that_nobody_reads(autojump_clock: MockClock) -> None:
    """The pauses make the wait for an end but a little longer."""
    async with following() as (bench, entry):
        await trio.sleep(0.01)
        bench.say("a")
        bench.tails.look("id")
        await trio.sleep(0.0001)
        bench.messages.append(End(2, Completed()))
        bench.tails.look("id")
        await trio.sleep(0.01 * LONGER * 1.01)
        assert entry.outcome == Completed()


@pytest.mark.parametrize("is_news", [True, False])
@pytest.mark.parametrize("takes", [LOOK_FOR_END / 2, LOOK_FOR_END * 2])
async def test_a_hint_during_a_look_that_nobody_reads(takes: float, is_news: bool, autojump_clock: MockClock) -> None:
    """What comes during a look is looked at in its time, whatever that look finds."""
    async with following(takes) as (bench, _entry):
        await trio.sleep(8)
        bench.looks.clear()
        if is_news:
            bench.say("a")
        bench.tails.look("id")
        await trio.sleep(LOOK_FOR_END / 4)
        bench.tails.look("id")
        await trio.sleep(LOOK_AFTER)
        assert bench.looks[:2] == [8, 8 + max(takes, LOOK_FOR_END)]


async def test_a_reader_of_what_nobody_read_before(autojump_clock: MockClock) -> None:
    """Who begins to read has all that there is by then, though a look was put off before."""
    async with following() as (bench, entry):
        await trio.sleep(1)
        for reached in (1, 1):  # the second look is put off
            bench.say("a")
            bench.tails.look("id")
            await trio.testing.wait_all_tasks_blocked()
            assert last(entry) == reached
        bench.looks.clear()
        for _ in range(2):
            bench.tails.follow(entry)
            await trio.testing.wait_all_tasks_blocked()
            assert last(entry) == 2
        assert bench.looks == [1]


async def test_what_was_there_before(autojump_clock: MockClock) -> None:
    """Who comes late has all that there is by then: it is looked until nothing more comes."""
    bench = Bench()
    async with bench.running():
        bench.say("a")
        entry = bench.entry()
        bench.tails.follow(entry)
        await trio.sleep(LOOK_AFTER / 2)
        assert last(entry) == 1
        assert bench.looks == [0, 0]


async def test_much_at_once(autojump_clock: MockClock) -> None:
    """Where much has come, there may be more than one look gives."""
    async with following() as (bench, entry):
        await trio.sleep(6)
        for _ in range(FEW):
            bench.say("a")
        bench.looks.clear()
        bench.tails.look("id")
        await trio.sleep(LOOK_AFTER / 2)
        assert last(entry) == FEW
        assert bench.looks == [6, 6]


async def test_large_messages_at_once(autojump_clock: MockClock) -> None:
    """Where one look gives but a part of what has come, as it is large, the rest does not come piece by piece."""
    async with following() as (bench, entry):
        assert entry.log is not None
        Subscription(entry.log)
        await trio.sleep(6)
        bench.most = 1
        for _ in range(FEW):
            bench.say("a")
        bench.tails.look("id")
        await trio.sleep(LOOK_AFTER * 1.5)
        assert last(entry) == FEW


async def test_more_messages_than_hints(autojump_clock: MockClock) -> None:
    """Where each look that is hinted at gives but a part of what has come, it falls behind only for a while."""
    async with following() as (bench, entry):
        assert entry.log is not None
        Subscription(entry.log)
        bench.most = 1
        behind = []
        for _ in range(100):
            await trio.sleep(LOOK_AFTER / 2)
            for _ in range(2):
                bench.say("a")
            bench.tails.look("id")
            await trio.testing.wait_all_tasks_blocked()
            behind.append(len(bench.messages) - last(entry))
        assert max(behind) <= 2 * LOOK_AT_LEAST / LOOK_AFTER


async def test_more_large_messages_than_hints(autojump_clock: MockClock) -> None:
    """Where what has come is too large for one look, it is looked at again at once, each time."""
    async with following() as (bench, entry):
        assert entry.log is not None
        Subscription(entry.log)
        bench.most = 2
        for _ in range(50):
            await trio.sleep(LOOK_AFTER / 5)
            for _ in range(3):
                bench.say({"part": ["a" * (MUCH // 2)]})
            bench.tails.look("id")
            await trio.testing.wait_all_tasks_blocked()
            assert last(entry) == len(bench.messages)


async def test_the_end_between_two_readings(autojump_clock: MockClock) -> None:
    """Where the job's record says that it has ended, and the `End` was not read yet, it is looked at once more."""
    async with following() as (bench, entry):
        await trio.sleep(6)
        bench.say("a")
        bench.then = End(2, Completed())
        bench.looks.clear()
        bench.tails.look("id")
        await trio.sleep(LOOK_AFTER / 2)
        assert last(entry) == 2
        assert entry.outcome == Completed()
        assert bench.looks == [6, 6]


async def test_a_hint_during_a_look(autojump_clock: MockClock) -> None:
    """A hint that comes while it is looked has it looked once more: the answer may be older than the hint."""
    async with following(0.1) as (bench, _entry):
        await trio.sleep(0.05)
        for _ in range(3):
            bench.tails.look("id")
        await trio.sleep(0.3)
        assert bench.looks == [0, 0.1]


async def test_a_look_that_takes_long(autojump_clock: MockClock) -> None:
    """Nothing is looked at twice at once."""
    async with following() as (bench, entry):
        await trio.sleep(1.9)
        bench.takes = 10
        bench.tails.look("id")
        await trio.sleep(9)
        assert bench.looks[-1] == 1.9
        await trio.sleep(2)  # it was answered
        assert bench.looks[-1] == 1.9
        await trio.sleep(LOOK_AT_LEAST)
        assert bench.looks[-1] > 1.9
        assert last(entry) == 0


@pytest.mark.parametrize("fed", [False, True])
async def test_a_job_that_has_not_started(fed: bool, autojump_clock: MockClock) -> None:
    """It is looked at a little later than others, and not at all if it has come to run here by then."""
    bench = Bench()
    async with bench.running():
        entry = bench.entry(started=False)
        bench.tails.follow(entry)
        if fed:
            bench.fed.add("id")
        await trio.sleep(1.1 * LOOK_FIRST)
        assert bench.looks == ([] if fed else [LOOK_FIRST])
        await trio.sleep(10)
        assert (bench.looks[1:] == []) is fed
        bench.fed.clear()  # it goes on elsewhere
        bench.looks.clear()
        await trio.sleep(1.1 * (LOOK_AFTER if fed else LOOK_AT_LEAST))
        assert bench.looks
        assert last(entry) == 0


async def test_a_job_that_can_only_run_elsewhere(autojump_clock: MockClock) -> None:
    """A process that claims nothing looks at once, whether the job has started or not."""
    bench = Bench(claims=False)
    async with bench.running():
        bench.say("a")
        entry = bench.entry(started=False)
        bench.tails.follow(entry)
        await trio.testing.wait_all_tasks_blocked()
        assert last(entry) == 1


async def test_a_hint_before_it_is_followed(autojump_clock: MockClock) -> None:
    """A job of which there was a hint before somebody followed it is looked at as soon as somebody does."""
    bench = Bench()
    async with bench.running():
        entry = bench.entry(started=False)
        bench.say("a")
        bench.tails.look("id")
        for n in range(REMEMBERED - 1):
            bench.tails.look(f"{n}")
        bench.tails.follow(entry)
        await trio.testing.wait_all_tasks_blocked()
        assert last(entry) == 1
        for n in range(3 * REMEMBERED):
            bench.tails.look(f"{n}")
        assert list(bench.tails._hinted) == [f"{n}" for n in range(2 * REMEMBERED, 3 * REMEMBERED)]


async def test_it_comes_to_run_here_for_a_while(autojump_clock: MockClock) -> None:
    """What was looked at seldom, and then ran here, is looked at soon when it goes on elsewhere."""
    async with following() as (bench, entry):
        await trio.sleep(6)
        bench.fed.add("id")
        await trio.sleep(6)
        bench.fed.clear()
        await trio.sleep(1.1 * LOOK_AFTER)
        bench.say("a")
        await trio.sleep(2 * LOOK_AFTER)
        assert last(entry) == 1


async def test_two_logs_of_a_job(autojump_clock: MockClock) -> None:
    """A log that was parted with is followed beside the new one for as long as somebody holds it."""
    bench = Bench()
    async with bench.running():
        entry = bench.entry()
        old = entry.log
        bench.tails.follow(entry)
        entry.log = TokenLog(100)
        bench.tails.follow(entry)
        await trio.testing.wait_all_tasks_blocked()
        bench.say("a")
        bench.tails.look("id")
        await trio.testing.wait_all_tasks_blocked()
        assert old is not None
        assert (old.last, last(entry)) == (1, 1)


async def test_a_hint_beside_a_log_that_is_over(autojump_clock: MockClock) -> None:
    """A hint has the new log looked at, also where it shows that the old one is to be followed no more."""
    async with following() as (bench, entry):
        await trio.testing.wait_all_tasks_blocked()
        entry.log = TokenLog(100)  # nobody holds the old one
        bench.tails.follow(entry)
        await trio.testing.wait_all_tasks_blocked()
        bench.say("a")
        bench.tails.look("id")
        await trio.testing.wait_all_tasks_blocked()
        assert last(entry) == 1


async def test_hints_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """However many hints come, a stream stands once among those to be looked at; if nobody reads it, a few times."""
    async with following() as (bench, entry):
        for most in (1 + LOOK_AT_LEAST / LOOK_FOR_END, 1):
            for _ in range(1000):
                bench.tails.look("id")
                await trio.sleep(0.01)
            assert len(bench.tails._listed) <= most
            assert entry.log is not None
            Subscription(entry.log)
            await trio.sleep(LOOK_AT_LEAST)


async def test_long_looks_leave_nothing_behind(autojump_clock: MockClock) -> None:
    """Nor does a stream stand there more often whose time comes while it is being looked at."""
    async with following(2 * LOOK_AFTER) as (bench, entry):
        assert entry.log is not None
        Subscription(entry.log)
        for _ in range(20):
            bench.say("a")
            bench.tails.look("id")
            await trio.sleep(2.5 * LOOK_AFTER)
        assert len(bench.tails._listed) <= 1


async def test_an_end_that_a_hint_tells_of_leaves_nothing_behind(autojump_clock: MockClock) -> None:
    """Nor does a stream stand there any more whose end was found before its time came."""
    async with following() as (bench, entry):
        await trio.sleep(LOOK_AFTER / 2)
        bench.messages.append(End(1, Completed(1)))
        bench.tails.look("id")
        await trio.sleep(2 * LOOK_AT_LEAST)
        assert entry.log is not None
        assert entry.log.end is not None
        assert not bench.tails._listed


async def test_each_in_its_time(autojump_clock: MockClock) -> None:
    """A stream is looked at in its time, whatever others are to be looked at later."""
    bench = Bench()
    async with bench.running():
        one, other = bench.entry("one"), bench.entry("other")
        bench.tails.follow(one)
        await trio.sleep(LOOK_AFTER)
        bench.tails.follow(other)
        await trio.sleep(1.5 * LOOK_AFTER)
    assert bench.looks == [0, LOOK_AFTER, 2 * LOOK_AFTER]


async def test_away(autojump_clock: MockClock) -> None:
    """While the store is away it is looked again, and what there is then is copied."""
    bench = Bench()
    async with bench.running():
        entry = bench.entry()
        bench.away = True
        bench.say("a")
        bench.tails.follow(entry)
        await trio.sleep(5)
        bench.away = False
        await trio.sleep(1.1 * LOOK_AT_LEAST)
        assert last(entry) == 1


async def test_away_too_long(autojump_clock: MockClock) -> None:
    """Of a stream that was never read, that is told after the time that callers wait; others are looked at again."""
    bench = Bench()
    async with bench.running():
        begun, never = bench.entry(), bench.entry("never")
        bench.tails.follow(begun)
        await trio.testing.wait_all_tasks_blocked()
        bench.away = True
        bench.tails.follow(never)
        await trio.sleep(9.9)
        assert bench.given_up == []
        await trio.sleep(100)
        assert bench.given_up == ["the store was away for 10 s: away"]
        bench.away = False
        bench.say("a")
        await trio.sleep(1.1 * LOOK_AT_LEAST)
        assert (last(begun), last(never)) == (1, 0)


async def test_an_end_that_is_found(autojump_clock: MockClock) -> None:
    """A stream is forgotten as soon as its `End` is copied."""
    async with following() as (bench, entry):
        bench.say("a")
        bench.messages.append(End(2, Completed()))
        await trio.testing.wait_all_tasks_blocked()
        assert last(entry) == 2
        assert not bench.tails._tails


@pytest.mark.parametrize("is_read_behind", [True, False])
async def test_an_end_before_what_was_read(is_read_behind: bool, autojump_clock: MockClock) -> None:
    """Where a store comes back with less than was read, and the job has ended, readers are told; no other ever is."""
    bench = Bench()
    async with bench.running():
        entry = bench.entry()
        assert entry.log is not None
        bench.tails.follow(entry)
        for n in range(3):
            bench.say(n)
        await trio.sleep(1)
        assert last(entry) == 3
        if not is_read_behind:
            bench.messages.clear()
        bench.messages.append(End(len(bench.messages) + 1, Completed()))
        await trio.sleep(3 * LOOK_AT_LEAST)
        if is_read_behind:
            assert (entry.outcome, entry.log.end) == (Completed(), End(4, Completed()))
            assert not bench.given_up
        else:
            assert entry.log.cut is not None
            assert "subscribe again" in entry.log.cut
        assert not bench.tails._tails


async def test_a_hint_just_before_all_is_cut_off() -> None:
    """Who reads is told so, also where there is news when nobody looks any more."""
    bench = Bench()
    entry = bench.entry()
    assert entry.log is not None
    bench.tails.follow(entry)
    bench.tails.look("id")
    bench.tails.cut_off("closed")
    assert entry.log.cut == "closed"


async def test_an_answer_that_is_overtaken_by_an_attempt(autojump_clock: MockClock) -> None:
    """What comes when an attempt has begun to feed the log here is passed over: that has all that came before."""
    bench = Bench()
    bench.takes = 1.0
    async with bench.running():
        entry = bench.entry()
        assert entry.log is not None
        bench.say("a")
        bench.messages.append(End(2, Completed()))
        bench.tails.follow(entry)
        await trio.sleep(0.5)
        bench.fed.add("id")
        entry.log.send(1, "a")
        await trio.sleep(1)
        assert (last(entry), entry.log.end) == (1, None)


async def test_an_answer_behind_an_attempt_that_has_lost_the_job(autojump_clock: MockClock) -> None:
    """What is read meanwhile does not go behind what was sent here and never stored: the numbers are the same."""
    async with following(takes=1.0) as (bench, entry):
        await trio.sleep(0.5)
        log, entry.log = entry.log, None
        assert log is not None
        log.send(1, "lost")
        log.cut_off("this process lost the job")
        bench.say("stored instead")
        bench.say("behind it")
        bench.messages.append(End(3, Completed()))
        await trio.sleep(1.0)
        assert log.slice(0, 9) == [Token(1, 1, "lost")]


async def test_catching_up_with_more_than_is_read_at_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt begins behind all that was sent before, in however many pieces that is read."""
    monkeypatch.setattr("jobtrio._tail.PIECE", 2)
    bench = Bench()
    for n in range(5):
        bench.say(n)
    entry = bench.entry()
    assert entry.log is not None
    await bench.tails.catch_up(entry, entry.log, lambda: False)
    assert last(entry) == 5


async def test_catching_up_with_a_job_that_others_have_ended(autojump_clock: MockClock) -> None:
    """An attempt that begins too late copies what was sent before, but for the `End`: that comes with the record."""
    bench = Bench()
    bench.say("a")
    bench.messages.append(End(2, Completed()))
    entry = bench.entry()
    assert entry.log is not None
    await bench.tails.catch_up(entry, entry.log, lambda: False)
    assert last(entry) == 1
    assert entry.log.end is None


@pytest.mark.parametrize("why", ["ended", "cut off", "nobody"])
async def test_over(why: str, autojump_clock: MockClock) -> None:
    """What has ended, was cut off, or is held by nobody is looked at no more, and forgotten."""
    async with following() as (bench, entry):
        await trio.sleep(1)
        bench.looks.clear()
        assert entry.log is not None
        match why:
            case "ended":
                entry.log.finish(Completed())
            case "cut off":
                entry.log.cut_off("on purpose")
            case "nobody":
                entry.log = None
        bench.tails.look("id")
        await trio.sleep(10)
        assert bench.looks == []
        assert not bench.tails._tails
        assert not bench.tails._listed


async def test_many_take_no_tasks(autojump_clock: MockClock) -> None:
    """Streams where nothing happens have no tasks of their own."""
    bench = Bench()
    async with bench.running() as nursery:
        entries = [bench.entry(f"{n}", started=n % 2 == 0) for n in range(300)]
        for entry in entries:
            bench.tails.follow(entry)
        await trio.sleep(3)
        assert 300 <= len(bench.looks) <= 900
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        for _ in range(20):
            for entry in entries:
                bench.tails.look(entry.id)
            await trio.sleep(0.01)
        await trio.sleep(30)
        assert len(bench.tails._listed) == 300


async def test_very_many_are_looked_at_more_seldom(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many streams are silent, there are no more looks than so many a second; a hint is heeded at once."""
    monkeypatch.setattr("jobtrio._tail.LOOKS_A_SECOND", 20)
    bench = Bench()
    async with bench.running():
        entries = [bench.entry(f"{n}", started=False) for n in range(200)]
        for entry in entries:
            bench.tails.follow(entry)
        await trio.sleep(60)
        assert 0.7 * 60 * 20 < len(bench.looks) <= 60 * 20
        bench.say("a")
        bench.tails.look("7")
        await trio.testing.wait_all_tasks_blocked()
        assert last(entries[7]) == 1


async def test_lost_hints(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where hints may have been lost, all streams are looked at soon; of very many, no more than so many a second."""
    monkeypatch.setattr("jobtrio._tail.LOOKS_A_SECOND", 20)
    bench = Bench()
    async with bench.running():
        entries = [bench.entry(f"{n}") for n in range(200)]
        bench.fed.add("7")
        for entry in entries[:10]:
            bench.tails.follow(entry)
        await trio.sleep(6)
        bench.say("a")
        bench.tails.look_at_all()
        await trio.sleep(LOOK_FIRST + 10 / 20)
        assert [last(entry) for entry in entries[:10]] == [int(n != 7) for n in range(10)]
        for entry in entries[10:]:
            bench.tails.follow(entry)
        await trio.sleep(15)  # each is looked at by itself every 10 seconds
        before = len(bench.looks)
        for _ in range(3):
            bench.tails.look_at_all()
        await trio.sleep(4)
        assert 0.7 * 4 * 20 < len(bench.looks) - before <= 4 * 20


async def test_lost_hints_during_a_look(autojump_clock: MockClock) -> None:
    """A look that is under way may come too early: there is another one soon."""
    async with following(takes=1.0) as (bench, entry):
        await trio.sleep(0.5)
        bench.then = Token(1, 1, "a")
        bench.tails.look_at_all()
        await trio.sleep(0.6)
        assert last(entry) == 0
        await trio.sleep(1.0 + LOOK_FIRST)
        assert last(entry) == 1


async def test_a_new_one_beside_very_many(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many streams are silent, one that is new is soon looked at; several new ones one after the other."""
    monkeypatch.setattr("jobtrio._tail.LOOKS_A_SECOND", 20)
    bench = Bench()
    async with bench.running():
        entries = [bench.entry(f"{n}", started=False) for n in range(203)]
        for entry in entries[:200]:
            bench.tails.follow(entry)
        await trio.sleep(60)
        bench.say("a")
        for entry in entries[200:]:
            bench.tails.follow(entry)
        await trio.sleep(1.1 * LOOK_FIRST)
        assert [last(entry) for entry in entries[200:]] == [1, 0, 0]
        await trio.sleep(2 / 20)
        assert [last(entry) for entry in entries[200:]] == [1, 1, 1]


async def test_a_new_one_behind_many_that_are_over(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for no turns of streams that are followed no more."""
    monkeypatch.setattr("jobtrio._tail.LOOKS_A_SECOND", 20)
    bench = Bench()
    async with bench.running():
        for n in range(200):
            bench.tails.follow(bench.entry(f"{n}", started=False))  # whose log is let go of at once
            bench.tails.look(f"{n}")
        bench.say("a")
        entry = bench.entry("new", started=False)
        bench.tails.follow(entry)
        await trio.sleep(2 / 20)
        assert last(entry) == 1


async def test_many_who_want_all_there_is(autojump_clock: MockClock) -> None:
    """However many ask at once for all there is by now, each message is read about once."""
    bench = Bench()
    bench.takes = 1.0
    async with bench.running() as nursery:
        entry = bench.entry()
        bench.tails.follow(entry)
        await trio.sleep(1.5)
        for value in range(3000):
            bench.say(value)
        looks = len(bench.looks)
        seen: list[int] = []

        async def look() -> None:
            await bench.tails.look_now(entry)
            seen.append(last(entry))

        for _ in range(100):
            nursery.start_soon(look)
        await trio.sleep(100)
        assert seen == [3000] * 100
        assert len(bench.looks) - looks < 20 + 100 / LOOK_AT_LEAST
