"""What of a job's stream is handed over to a watcher, from where on, and where the stream moves."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio

import jobtrio
from jobtrio._subscription import Subscription
from jobtrio._token_log import TokenLog
from jobtrio.cli._follow import Sieve, follow

LOST = jobtrio.JobError("lost", "LeaseLost", "gone")
END = jobtrio.End(9, jobtrio.Completed())


def tokens(first: int, last: int, attempt: int = 1) -> list[jobtrio.Message]:
    """Return tokens by their numbers."""
    return [jobtrio.Token(seq, attempt, f"{seq}/{attempt}") for seq in range(first, last + 1)]


class TestSieve:
    def test_behind_a_number(self) -> None:
        """Messages up to the number are passed over; the end is not, whatever the number."""
        sieve = Sieve(2)
        assert sieve.wanted(tokens(1, 2)) == []
        assert sieve.wanted([*tokens(3, 4), END]) == [*tokens(3, 4), END]
        assert Sieve(1000).wanted([*tokens(1, 8), END]) == [END]

    def test_part_of_a_gap(self) -> None:
        """Of a gap only what was wanted is missed."""
        assert Sieve(4).wanted([jobtrio.Gap(1, 3)]) == []
        assert Sieve(4).wanted([jobtrio.Gap(1, 6), *tokens(7, 7)]) == [jobtrio.Gap(5, 6), *tokens(7, 7)]

    def test_lost_attempt(self) -> None:
        """After a loss the stream goes on with the lost attempt's restart, whatever numbers were shown before."""
        sieve = Sieve(0)
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        restart = jobtrio.Restart(4, 1, LOST, 0)
        assert sieve.wanted([*tokens(1, 3), restart, *tokens(5, 6, attempt=2)]) == [restart, *tokens(5, 6, attempt=2)]

    def test_lost_for_good(self) -> None:
        """A loss with which the job ends is shown by its end."""
        sieve = Sieve(0)
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        assert sieve.wanted([*tokens(1, 3), attrs.evolve(END, seq=4)]) == [attrs.evolve(END, seq=4)]

    def test_lost_before_anything_was_shown(self) -> None:
        """Where nothing was shown all is wanted."""
        sieve = Sieve(0)
        sieve.start_over()
        assert sieve.wanted(tokens(1, 2, attempt=2)) == tokens(1, 2, attempt=2)

    def test_restart_that_is_no_longer_kept(self) -> None:
        """Where the restart itself is gone the next attempt's first message is where it goes on."""
        sieve = Sieve(0)
        sieve.wanted(tokens(1, 5))
        sieve.start_over()
        assert sieve.wanted([jobtrio.Gap(1, 6), *tokens(7, 8, attempt=2)]) == tokens(7, 8, attempt=2)


@pytest.mark.parametrize("after", [0, 2, 50])
async def test_follow(after: int) -> None:
    """A job is followed from the message that is wanted to its end, also where that message is still to come."""
    seen: list[jobtrio.Message] = []

    async def count(job: jobtrio.JobContext) -> None:
        for n in range(1, 4):
            await job.send(n)

    async def show(messages: list[jobtrio.Message]) -> None:
        seen.extend(messages)

    async with jobtrio.open_registry() as registry:
        job = await registry.submit(count)
        await follow(registry, job, show, after=after)
    numbers = [message.seq for message in seen if not isinstance(message, jobtrio.Gap)]
    assert numbers == [*range(after + 1, 4), 4]


class Moving:
    """Stands for a job whose stream moves, and for its registry: each log but the last is cut off."""

    id = "a"

    def __init__(self, *streams: list[jobtrio.Message], kept: bool = True) -> None:
        self._kept = kept
        self._logs = []
        for stream in streams:
            log = TokenLog(100)
            log.extend(stream)
            log.cut_off("moved")
            self._logs.append(log)

    def subscribe(self, **options: Any) -> Subscription:
        return Subscription(self._logs.pop(0), **options)

    async def get(self, job_id: str) -> None:
        await trio.lowlevel.checkpoint()
        if not self._kept:
            raise jobtrio.UnknownJobError(job_id)


async def seen_of(job: Any) -> list[jobtrio.Message]:
    """Return all that is handed over of a job."""
    seen: list[jobtrio.Message] = []

    async def show(messages: list[jobtrio.Message]) -> None:
        seen.extend(messages)

    await follow(job, job, show)
    return seen


async def test_stream_that_moves() -> None:
    """Where this process lost the job, the stream goes on behind what was shown, with the restart."""
    restart = jobtrio.Restart(2, 1, LOST, 0)
    second = [*tokens(1, 1), restart, *tokens(3, 4, attempt=2), jobtrio.End(5, jobtrio.Completed())]
    assert await seen_of(Moving(tokens(1, 3), second)) == [*tokens(1, 3), *second[1:]]


async def test_stream_that_is_gone() -> None:
    """A stream that is cut off because the job is no longer kept is an error."""
    with pytest.raises(jobtrio.UnknownJobError):
        await seen_of(Moving(tokens(1, 3), tokens(1, 3), kept=False))
