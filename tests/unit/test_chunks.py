"""Messages in chunks of consecutive ones: where they are cut, and what is read of them."""

from __future__ import annotations

import pytest

from jobtrio import Gap, Token
from jobtrio._errors import PayloadError
from jobtrio._messages import End
from jobtrio._records import Completed
from jobtrio.stores._chunks import CHUNK_MESSAGES, CHUNK_TEXT, READ_TEXT, Item, body_of, cut, encoded, read


def items(*runs: range, size: int = 1) -> list[Item]:
    """Return messages of so many bytes with these numbers."""
    return [(seq, b"x" * size) for run in runs for seq in run]


def bounds(found: list[Item]) -> list[tuple[int, int]]:
    """Return the first and the last number of each chunk, which together are what was cut, in order."""
    chunks = list(cut(found))
    assert [item for chunk in chunks for item in chunk] == found
    return [(chunk[0][0], chunk[-1][0]) for chunk in chunks]


def test_cut_at_holes() -> None:
    """A chunk has no hole in its numbers, which its first and last tell."""
    assert bounds(items(range(1, 4), range(5, 6), range(9, 12))) == [(1, 3), (5, 5), (9, 11)]
    assert bounds([]) == []


def test_cut_by_number() -> None:
    """A chunk has no more than so many messages."""
    most = CHUNK_MESSAGES
    assert bounds(items(range(1, 2 * most + 2))) == [(1, most), (most + 1, 2 * most), (2 * most + 1, 2 * most + 1)]


def test_cut_by_size() -> None:
    """A chunk has no more than so much text, unless a single message has."""
    half, large = CHUNK_TEXT // 2, CHUNK_TEXT + 1
    assert bounds(items(range(1, 6), size=half)) == [(1, 2), (3, 4), (5, 5)]
    assert bounds(items(range(1, 3), size=large)) == [(1, 1), (2, 2)]
    assert bounds([*items(range(1, 2)), *items(range(2, 3), size=large), *items(range(3, 5))]) == [
        (1, 1),
        (2, 2),
        (3, 4),
    ]


@pytest.mark.parametrize("message", [Gap(1, 2), End(1, Completed())])
def test_what_no_attempt_appends(message: Gap | End) -> None:
    """What is told of messages is none that could be stored."""
    with pytest.raises(PayloadError, match=type(message).__name__):
        encoded([message])


def chunk(first: int, last: int, body: str | None = None) -> tuple[int, int, str]:
    """Return a chunk as it is kept, whose tokens are their numbers unless it is damaged."""
    tokens = [Token(seq, 1, seq) for seq in range(first, last + 1)]
    return first, last, body_of(encoded(tokens)) if body is None else body


def told(after: int, limit: int, *chunks: tuple[int, int, str]) -> list[int | tuple[int, int]]:
    """Return the numbers that are read, and of each gap its first and last."""
    messages = read(chunks, after, limit)
    assert all(message.value == message.seq for message in messages if isinstance(message, Token))
    return [(message.first, message.last) if isinstance(message, Gap) else message.seq for message in messages]


def test_read_from_anywhere() -> None:
    """What is behind a number is read, up to the limit, wherever chunks begin; what is not kept is told as a gap."""
    kept = [chunk(3, 5), chunk(6, 6), chunk(7, 9)]
    assert told(2, 100, *kept) == [3, 4, 5, 6, 7, 8, 9]
    assert told(4, 3, *kept) == [5, 6, 7]
    assert told(4, 1, *kept) == [5]
    assert told(5, 1, *kept) == [6]
    assert told(9, 100, *kept) == []
    assert told(0, 3, *kept) == [(1, 2), 3, 4]
    assert told(0, 1, *kept) == [(1, 2)]
    assert told(1, 2, *kept) == [(2, 2), 3]
    assert told(0, 100) == []


@pytest.mark.parametrize("damaged", ["nonsense", "[]", "[[0,1,2]]", "[[0,1,2],[0,1,3],[0,1,4]]", "[[0],[0]]"])
def test_read_of_what_is_damaged(damaged: str) -> None:
    """A chunk that can't be read is told as a gap, together with what is not kept before it, before what follows."""
    kept = [chunk(2, 3, damaged), chunk(4, 5), chunk(6, 7, damaged), chunk(8, 8)]
    assert told(0, 100, *kept) == [(1, 3), 4, 5]
    assert told(5, 100, *kept) == [(6, 7), 8]
    assert told(5, 100, *kept[:3]) == [(6, 7)]
    assert told(6, 100, *kept[:3]) == [(7, 7)]
    assert told(7, 100, *kept[:3]) == []


def test_read_of_much_text() -> None:
    """One reading stops behind the chunk with which it has read so much."""
    large = READ_TEXT // 2
    kept = [(n, n, f'[[0,1,"{"x" * large}"]]') for n in range(1, 9)]
    assert [message.seq for message in read(kept, 0, 100) if isinstance(message, Token)] == [1, 2]
