"""A job's messages: how they are sent to the server in runs, and what its stream's entries stand for.

It owns how much goes in one call. It must not know who may append.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from jobtrio._messages import End, Gap
from jobtrio.stores import _chunks as chunks
from jobtrio.stores.redis._rows import outcome_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._messages import Message
    from jobtrio.stores.redis._link import Argument

PIECE_BYTES: Final = 2 * 1024 * 1024
"""Bytes of messages beyond which they go in several calls."""

READ_BYTES: Final = 2 * 1024 * 1024
"""Bytes beyond which one reading stops, whatever was asked for: the server does nothing else meanwhile."""


# -- sending


def pieces(messages: Sequence[Message]) -> list[list[Argument]]:
    """Return messages as the scripts take them, in pieces of bounded size; at least one, which may have no messages.

    Raises:
        PayloadError: A token's value can't be stored.
    """
    found: list[list[Argument]] = []
    piece: list[Argument] = [0]
    count = size = 0
    for run in chunks.cut(chunks.encoded(messages)):
        numbers, texts = zip(*run, strict=True)
        length = sum(map(len, texts))
        if count and size + length > PIECE_BYTES:
            found.append(piece)
            piece, count, size = [0], 0, 0
        piece += (numbers[0], len(texts), *texts)
        count += 1
        size += length
        piece[0] = count
    return [*found, piece]


# -- reading


def messages_of(reply: list[Any], after: int, limit: int) -> list[Message]:
    """Return what the script ``read`` has found: kept messages behind a number, and the `End` behind the last."""
    entries, ending = reply
    messages = chunks.read(map(_chunk, entries), after, limit)
    if ending is not None:
        state, error, result, history, seq = ending
        last = int(seq) - 1
        if not messages and after < last:
            messages.append(Gap(after + 1, last))
        if chunks.reached(messages, after) == last and len(messages) < limit:
            messages.append(End(last + 1, outcome_of(state, error, result, history)))
    return messages


def _chunk(entry: tuple[bytes, bytes]) -> tuple[int, int, bytes]:
    """Return the numbers of an entry's first and last message, and its text."""
    entry_id, body = entry
    last, count = map(int, entry_id.split(b"-"))
    return last - count + 1, last, body
