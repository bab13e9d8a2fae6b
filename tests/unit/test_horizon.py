"""A horizon: when all was read of a stream that there was, while more comes all the time."""

from __future__ import annotations

import pytest

from jobtrio import Message, Token
from jobtrio._horizon import AHEAD, Horizon


class Stream:
    """Messages that are there, and more of them whenever somebody asks."""

    def __init__(self, last: int, more: int) -> None:
        self.last = last
        self.asked: list[int] = []
        self._more = more

    async def read(self, after: int, limit: int) -> list[Message]:
        self.asked.append(after)
        self.last += self._more
        return [Token(seq, 1, None) for seq in range(after + 1, min(after + limit, self.last) + 1)]


@pytest.mark.parametrize("last", [1, 10, 205, 1000, 100_000])
@pytest.mark.parametrize("piece", [1, 100])
@pytest.mark.parametrize("more", [1, 7])
async def test_it_is_reached(last: int, piece: int, more: int) -> None:
    """Not before all was read that there was at first, and soon behind that, by few questions."""
    piece = max(piece, 2 * more + 1)  # it is read faster than it comes, with a question between two pieces
    stream = Stream(last, more)
    horizon = Horizon(stream.read)
    read, pieces = 0, 1
    read += len(await stream.read(0, piece))
    while not await horizon.is_reached(read):
        read += len(await stream.read(read, piece))
        pieces += 1
    assert read >= last
    assert read <= 6 * (last + AHEAD) + 4 * more * pieces
    assert len(stream.asked) - pieces <= 11


async def test_a_single_piece() -> None:
    """After the first piece nothing is asked: mostly that was all."""
    stream = Stream(10, 0)
    assert not await Horizon(stream.read).is_reached(10)
    assert stream.asked == []


async def test_a_job_that_is_gone() -> None:
    """Of a job that is kept no more nothing is ahead."""

    async def read(after: int, limit: int) -> None:
        return None

    horizon = Horizon(read)
    assert not await horizon.is_reached(1)
    assert not await horizon.is_reached(2)
    assert await horizon.is_reached(2 + AHEAD)
