"""A job's messages: how they are sent to the server in runs, and what its stream's entries stand for.

It owns how messages are encoded and cut into runs. It must not know who may append.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, assert_never

from jobtrio._errors import PayloadError
from jobtrio._messages import End, Gap, Message, Progress, Restart, Token
from jobtrio.stores import _chunks as chunks
from jobtrio.stores._chunks import PROGRESS, RESTART, TOKEN
from jobtrio.stores.redis._rows import outcome_of
from jobtrio.stores.redis._texts import NULL, array_text, error_text, plain_text, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio._records import JobError
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
    for run in chunks.cut(map(_text, messages)):
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


def restart_text(attempt: int, error: JobError, delay: float) -> bytes:
    """Return a `Restart` as it is stored."""
    return array_text((_plain(RESTART), _plain(attempt), error_text(error), _plain(delay)))


def _text(message: Message) -> tuple[int, bytes]:
    match message:
        case Token(seq=seq, attempt=attempt, value=value):
            return seq, b"[%d,%d,%b]" % (TOKEN, attempt, text_of("a token", value))
        case Progress(seq=seq, attempt=attempt, done=done, total=total, note=note):
            return seq, array_text([*map(_plain, (PROGRESS, attempt, done, total, note))])
        case Restart(seq=seq, attempt=attempt, error=error, delay=delay):
            return seq, restart_text(attempt, error, delay)
        case Gap() | End():
            raise PayloadError(f"a {type(message).__name__} is no message that an attempt appends")
        case _:
            assert_never(message)


def _plain(value: Any) -> bytes:
    return NULL if value is None else plain_text(value)


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
