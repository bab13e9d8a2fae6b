"""Where lines begin and end, whatever the chunks they come in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobtrio import _lines
from jobtrio._lines import PART_LIMIT, LineSplitter

if TYPE_CHECKING:
    from collections.abc import Iterable


def split(chunks: Iterable[bytes]) -> list[dict[str, Any]]:
    splitter = LineSplitter("out")
    tokens = [token for chunk in chunks for token in splitter.feed(chunk)]
    return tokens + list(splitter.finish())


def joined(tokens: Iterable[dict[str, Any]]) -> list[str]:
    """Put the parts of each line together."""
    lines, parts = [], []
    for token in tokens:
        parts.append(token["out"])
        if not token.get("partial"):
            lines.append("".join(parts))
            parts = []
    assert not parts, "the last part of a line says that more follows"
    return lines


@pytest.mark.parametrize(
    ("data", "tokens"),
    [
        (b"", []),
        (b"\n", [{"out": ""}]),
        (b"a\n\nb\n", [{"out": "a"}, {"out": ""}, {"out": "b"}]),
        (b"a\nb", [{"out": "a"}, {"out": "b"}]),
        (b"a\r\nb\r\n", [{"out": "a"}, {"out": "b"}]),
        (b"1%\r2%\rdone\n", [{"out": "1%\r", "partial": True}, {"out": "2%\r", "partial": True}, {"out": "done"}]),
        (b"1%\r", [{"out": "1%\r"}]),
        ("grüß dich\n".encode(), [{"out": "grüß dich"}]),
        (b"\xff\x00\xc3\n\xa9", [{"out": "\\xff\x00\\xc3"}, {"out": "\\xa9"}]),
    ],
)
def test_lines_become_tokens(data: bytes, tokens: list[dict[str, Any]]) -> None:
    """Line ends are cut off, returns kept, bytes that are no text escaped."""
    assert split([data]) == tokens


def test_line_of_the_limit_is_whole() -> None:
    """A line of exactly 64 KiB is one token, one byte more makes two."""
    line = b"x" * PART_LIMIT
    assert split([line + b"\n"]) == [{"out": line.decode()}]
    assert split([line + b"\r\n"]) == [{"out": line.decode()}]
    assert split([line + b"\r", b"\n"]) == [{"out": line.decode()}]
    assert split([line + b"y\n"]) == [{"out": line.decode(), "partial": True}, {"out": "y"}]


def test_long_line_is_seen_before_it_ends() -> None:
    """What exceeds 64 KiB of a line comes at once, not when the line is done."""
    splitter = LineSplitter("out")
    assert list(splitter.feed(b"x" * PART_LIMIT)) == []
    assert list(splitter.feed(b"y")) == [{"out": "x" * PART_LIMIT, "partial": True}]
    assert list(splitter.finish()) == [{"out": "y"}]


@pytest.mark.parametrize("character", ["é", "€", "🙂"])
@pytest.mark.parametrize("before", [1, 2, 3])
def test_no_character_is_cut_in_two(character: str, before: int) -> None:
    """A character across the 64 KiB goes whole into the next part."""
    text = "x" * (PART_LIMIT - before) + character * 40_000
    tokens = split([text.encode()])
    assert joined(tokens) == [text]
    assert all(len(token["out"].encode()) <= PART_LIMIT for token in tokens)
    assert len(tokens) > 2


def test_bytes_that_only_continue_are_cut_at_the_limit() -> None:
    """Continuation bytes without a beginning can't hold up the cut."""
    tokens = split([b"\x80" * (PART_LIMIT + 10)])
    assert [len(token["out"]) for token in tokens] == [4 * PART_LIMIT, 40]


def test_idle_shows_what_was_drawn() -> None:
    """A carriage return that nothing follows yet shows its text when the stream is idle."""
    splitter = LineSplitter("out")
    assert list(splitter.feed(b"50%\r")) == []
    assert list(splitter.idle()) == [{"out": "50%\r", "partial": True}]
    assert list(splitter.idle()) == []
    assert list(splitter.feed(b"\n")) == [{"out": ""}]


def test_idle_keeps_an_unfinished_line() -> None:
    """A line that has merely not ended yet stays whole."""
    splitter = LineSplitter("out")
    assert [*splitter.feed(b"hal"), *splitter.idle()] == []
    assert list(splitter.feed(b"lo\n")) == [{"out": "hallo"}]


def test_line_left_open_is_closed() -> None:
    """A stream that ends behind a returned line still says that the line is over."""
    splitter = LineSplitter("out")
    tokens = [*splitter.feed(b"50%\r"), *splitter.idle(), *splitter.finish()]
    assert tokens == [{"out": "50%\r", "partial": True}, {"out": ""}]


PIECES = st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", "é".encode(), "🙂".encode(), b"\xff", b"\x80"])


@given(st.lists(PIECES, max_size=40), st.lists(st.integers(1, 5), max_size=60))
def test_chunks_do_not_show(pieces: list[bytes], sizes: list[int]) -> None:
    """Any way of cutting the bytes gives the same tokens, and these are the lines."""
    data = b"".join(pieces)
    chunks, start = [], 0
    for size in sizes:
        chunks.append(data[start : start + size])
        start += size
    chunks.append(data[start:])
    with mock.patch.object(_lines, "PART_LIMIT", 7):
        tokens = split([data])
        assert split(chunk for chunk in chunks if chunk) == tokens
    *ended, last = data.split(b"\n")
    lines = [line.removesuffix(b"\r") for line in ended] + ([last] if last else [])
    assert joined(tokens) == [line.decode("utf-8", "backslashreplace") for line in lines]
