"""What of a job's stream is handed over to a watcher, from where on, and where the stream moves."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
import trio.testing
from scripted_bridge import Peer, end, open_bridge

import jobtrio
from jobtrio._subscription import Subscription
from jobtrio._token_log import TokenLog
from jobtrio.cli._follow import Sieve, follow
from jobtrio.cli._sources import BridgeSource
from jobtrio.websocket import RemoteJob, open_client
from jobtrio.websocket.protocol import Get, Refused

LOST = jobtrio.JobError("lost", "LeaseLost", "gone")
END = jobtrio.End(12, jobtrio.Completed())


def tokens(first: int, last: int, attempt: int = 1) -> list[jobtrio.Message]:
    """Return tokens by their numbers."""
    return [jobtrio.Token(seq, attempt, f"{seq}/{attempt}") for seq in range(first, last + 1)]


class TestSieve:
    def test_nothing_lost(self) -> None:
        """As long as nothing is lost all is wanted, gaps too."""
        messages = [jobtrio.Gap(4, 6), *tokens(7, 8), *tokens(9, 9, attempt=2), jobtrio.Gap(10, 11), END]
        assert Sieve().wanted(messages) == messages

    def test_lost_attempt(self) -> None:
        """After a loss the stream goes on with the lost attempt's restart, whatever numbers were shown before."""
        sieve = Sieve()
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        restart = jobtrio.Restart(4, 1, LOST, 0)
        assert sieve.wanted([*tokens(1, 3), restart, *tokens(5, 6, attempt=2)]) == [restart, *tokens(5, 6, attempt=2)]

    def test_lost_second_attempt(self) -> None:
        """The restart that it goes on with is that of the attempt that was lost, not of one before it."""
        sieve = Sieve()
        first = [*tokens(1, 2), jobtrio.Restart(3, 1, LOST, 0), *tokens(4, 6, attempt=2)]
        assert sieve.wanted(first) == first
        sieve.start_over()
        restart = jobtrio.Restart(5, 2, LOST, 0)
        assert sieve.wanted([*first[:4], restart]) == [restart]

    def test_lost_for_good(self) -> None:
        """A loss with which the job ends is shown by its end."""
        sieve = Sieve()
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        assert sieve.wanted([*tokens(1, 3), attrs.evolve(END, seq=4)]) == [attrs.evolve(END, seq=4)]

    def test_lost_before_anything_was_shown(self) -> None:
        """Where nothing was shown all is wanted."""
        sieve = Sieve()
        assert not sieve.start_over()
        assert sieve.wanted(tokens(1, 2, attempt=2)) == tokens(1, 2, attempt=2)

    def test_restart_that_is_no_longer_kept(self) -> None:
        """Where the restart itself is gone it goes on with the next attempt, behind what is missed of both."""
        sieve = Sieve()
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        follows = tokens(7, 8, attempt=2)
        assert sieve.wanted([jobtrio.Gap(1, 6), *follows]) == [jobtrio.Gap(1, 6), *follows]

    def test_restart_that_is_no_longer_kept_with_a_number_that_was_shown(self) -> None:
        """Nor is anything missed in silence where numbers that the lost attempt had shown stand for what is gone."""
        sieve = Sieve()
        sieve.wanted([*tokens(1, 2), jobtrio.Restart(3, 1, LOST, 0), *tokens(4, 9, attempt=2)])
        sieve.start_over()
        follows = tokens(8, 9, attempt=3)
        gaps = [jobtrio.Gap(1, 5), jobtrio.Gap(6, 7)]
        assert sieve.wanted([*gaps, *follows]) == [jobtrio.Gap(4, 7), *follows]

    def test_what_is_gone_was_shown(self) -> None:
        """Of what was shown before the restart nothing is missed when it is no longer kept."""
        sieve = Sieve()
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        restart = jobtrio.Restart(4, 1, LOST, 0)
        assert sieve.wanted([jobtrio.Gap(1, 3), restart]) == [restart]
        sieve.start_over()
        assert sieve.wanted([jobtrio.Gap(1, 2), *tokens(3, 3), restart, END]) == [END]

    def test_lost_behind_a_restart(self) -> None:
        """The restart of an attempt is shown once, and what is gone behind it is told."""
        sieve = Sieve()
        restart = jobtrio.Restart(4, 1, LOST, 0)
        sieve.wanted([*tokens(1, 3), restart])
        sieve.start_over()
        follows = [jobtrio.Gap(5, 6), *tokens(7, 8, attempt=2), jobtrio.Restart(9, 2, LOST, 0)]
        assert sieve.wanted([*tokens(1, 3), restart, *follows]) == follows

    def test_what_is_gone_behind_the_restart(self) -> None:
        """A gap behind what was awaited is wanted as ever."""
        sieve = Sieve()
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        stream = [jobtrio.Restart(4, 1, LOST, 0), jobtrio.Gap(5, 7), *tokens(8, 8, attempt=2)]
        assert sieve.wanted(stream) == stream

    def test_lost_again_behind_what_is_gone(self) -> None:
        """A gap that was not told yet when the stream was cut off again is forgotten."""
        sieve = Sieve()
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        assert sieve.wanted([jobtrio.Gap(1, 3)]) == []
        sieve.start_over()
        follows = tokens(7, 7, attempt=2)
        assert sieve.wanted([jobtrio.Gap(2, 6), *follows]) == [jobtrio.Gap(2, 6), *follows]

    def test_nothing_but_what_was_shown_is_gone(self) -> None:
        """Where all that is gone was shown before the lost attempt, nothing is missed, whatever comes next."""
        sieve = Sieve()
        sieve.wanted([*tokens(1, 2), jobtrio.Restart(3, 1, LOST, 0), *tokens(4, 9, attempt=2)])
        sieve.start_over()
        assert sieve.wanted([jobtrio.Gap(1, 3), attrs.evolve(END, seq=4)]) == [attrs.evolve(END, seq=4)]

    def test_end_behind_what_is_gone(self) -> None:
        """Where all but the end is gone, what is missed is told before it."""
        sieve = Sieve()
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        assert sieve.wanted([jobtrio.Gap(1, 11), END]) == [jobtrio.Gap(1, 11), END]


@pytest.mark.parametrize("after", [0, 2])
async def test_follow(after: int) -> None:
    """A job is followed from the message that is wanted to its end."""
    seen: list[jobtrio.Message] = []

    async def count(job: jobtrio.JobContext) -> None:
        for n in range(1, 4):
            await job.send(n)

    async def show(messages: list[jobtrio.Message]) -> None:
        seen.extend(messages)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count)
        if after:
            await job.wait()
        await follow(registry, job, show, after=after)
    numbers = [message.seq for message in seen if not isinstance(message, jobtrio.Gap)]
    assert numbers == [*range(after + 1, 4), 4]


@pytest.mark.parametrize(("after", "numbers"), [(2, [3, 4]), (3, [4]), (4, []), (50, [])])
async def test_a_number_that_is_still_to_come(after: int, numbers: list[int]) -> None:
    """Where the stream is a copy that may lag it is waited for the number, at most to the job's end."""
    log = TokenLog(100)
    log.may_lag = True
    moving = Moving()
    moving.logs.append(log)
    seen: list[jobtrio.Message] = []
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            seen.extend(await seen_of(moving, after))

        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        log.extend([*tokens(1, 3), attrs.evolve(END, seq=4)])
    assert [getattr(message, "seq", None) for message in seen] == numbers


class Moving:
    """Stands for a job whose stream moves, and for its registry: each log but the last is cut off."""

    id = "a"

    def __init__(self, *streams: list[jobtrio.Message], kept: bool = True, replaced: bool = False) -> None:
        self._kept = kept
        self._replaced = replaced
        self.logs: list[TokenLog] = []
        for stream in streams:
            log = TokenLog(100)
            log.extend(stream)
            log.cut_off("moved")
            self.logs.append(log)

    def subscribe(self, after: int, **options: Any) -> Subscription:
        return Subscription(self.logs.pop(0), after, **options)

    async def get(self, job_id: str) -> Moving:
        await trio.lowlevel.checkpoint()
        if not self._kept:
            raise jobtrio.UnknownJobError(job_id)
        return Moving() if self._replaced else self


async def seen_of(job: Any, after: int = 0) -> list[jobtrio.Message]:
    """Return all that is handed over of a job."""
    seen: list[jobtrio.Message] = []

    async def show(messages: list[jobtrio.Message]) -> None:
        seen.extend(messages)

    await follow(job, job, show, after=after)
    return seen


async def test_stream_that_moves() -> None:
    """Where this process lost the job, the stream goes on behind what was shown, with the restart."""
    restart = jobtrio.Restart(2, 1, LOST, 0)
    second = [*tokens(1, 1), restart, *tokens(3, 4, attempt=2), jobtrio.End(5, jobtrio.Completed())]
    assert await seen_of(Moving(tokens(1, 3), second)) == [*tokens(1, 3), *second[1:]]
    nothing_kept: list[jobtrio.Message] = [jobtrio.Restart(1, 1, LOST, 0), jobtrio.End(2, jobtrio.Completed())]
    assert await seen_of(Moving(tokens(1, 3), nothing_kept)) == [*tokens(1, 3), *nothing_kept]


async def test_stream_that_moves_behind_a_number() -> None:
    """The restart is shown though its number is no higher than the one that was given."""
    second = [*tokens(1, 1), jobtrio.Restart(2, 1, LOST, 0), jobtrio.End(3, jobtrio.Completed())]
    assert await seen_of(Moving(tokens(1, 4), second), after=3) == [*tokens(4, 4), *second[1:]]


async def test_stream_that_moves_before_anything_was_shown() -> None:
    """Where this process lost the job before the message that is wanted, the stream begins with that all the same."""
    second = [*tokens(1, 4), jobtrio.End(5, jobtrio.Completed())]
    assert await seen_of(Moving(tokens(1, 3), second), after=3) == second[3:]


@pytest.mark.parametrize("fate", [{"kept": False}, {"replaced": True}])
async def test_stream_that_is_gone(fate: dict[str, bool]) -> None:
    """A stream that is cut off because the job is no longer kept is an error, also where another one has its id."""
    with pytest.raises(jobtrio.UnknownJobError):
        await seen_of(Moving(tokens(1, 3), tokens(1, 3), **fate))


async def test_end_that_is_known_of_a_job_that_may_not_be_looked_up() -> None:
    """Who begins behind the end is told how it was, also by a server that shows the stream and not the record."""

    async def script(peer: Peer) -> None:
        await peer.greet()
        for sub in (1, 2):
            await peer.subscribed(sub, last=3)
            await peer.say(end(3, sub))
        await peer.answer(Get, Refused(code="unknown_job", message=""))

    async def show(messages: list[jobtrio.Message]) -> None:
        raise AssertionError(messages)

    async with open_bridge(script) as url, open_client(url) as client:
        source = BridgeSource(RemoteJob("j", client), None)
        await source.follow(show, 3)
        assert await source.ending() == (jobtrio.Completed(None), None, None)
