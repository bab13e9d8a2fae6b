"""A job's messages as text, in chunks of consecutive ones, for stores that keep them in rows.

It owns how messages are encoded and where they are cut into chunks. It must not know where chunks are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias, assert_never

import msgspec

from jobtrio._codec import decode_value, encode_value
from jobtrio._errors import PayloadError
from jobtrio._messages import End, Gap, Message, Progress, Restart, Token, last_of
from jobtrio._records import JobError
from jobtrio.stores._texts import plain_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

CHUNK_MESSAGES: Final = 256
CHUNK_TEXT: Final = 64 * 1024
"""Bytes and messages beyond which a chunk takes no more."""

READ_TEXT: Final = 4 * 1024 * 1024
"""Characters beyond which one reading stops, however many messages were asked for."""

Item: TypeAlias = tuple[int, bytes]
"""A message's number, and its text: a JSON array that begins with its kind."""

TOKEN, PROGRESS, RESTART = 0, 1, 2
"""The kinds of messages, as each one's text begins."""


def encoded(messages: Sequence[Message]) -> Sequence[Item]:
    """Return messages as they are stored.

    Raises:
        PayloadError: A token's value can't be stored.
    """
    return [_item(message) for message in messages] if messages else ()


def length_of(items: Sequence[Item]) -> int:
    """Return how many bytes messages have as they are stored."""
    return sum(len(text) for _, text in items)


def restart_text(attempt: int, error: JobError, delay: float) -> bytes:
    """Return a `Restart` as it is stored."""
    return b"[%d,%d,%b,%b]" % (RESTART, attempt, plain_text(error), plain_text(delay))


def _item(message: Message) -> Item:
    match message:
        case Token(seq=seq, attempt=attempt, value=value):
            return seq, b"[%d,%d,%b]" % (TOKEN, attempt, encode_value("a token", value))
        case Progress(seq=seq, attempt=attempt, done=done, total=total, note=note):
            told = plain_text(done), plain_text(total), plain_text(note)
            return seq, b"[%d,%d,%b,%b,%b]" % (PROGRESS, attempt, *told)
        case Restart(seq=seq, attempt=attempt, error=error, delay=delay):
            return seq, restart_text(attempt, error, delay)
        case Gap() | End():
            raise PayloadError(f"a {type(message).__name__} is no message that an attempt appends")
        case _:
            assert_never(message)


def cut(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Cut messages into runs without holes, none of them large unless one message is."""
    chunk: list[Item] = []
    size = 0
    for item in items:
        seq, text = item
        if chunk and (seq != chunk[-1][0] + 1 or len(chunk) >= CHUNK_MESSAGES or size + len(text) > CHUNK_TEXT):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(text)
    if chunk:
        yield chunk


def body_of(chunk: Sequence[Item]) -> str:
    """Return the text of a chunk."""
    return (b"[%b]" % b",".join([text for _, text in chunk])).decode()


def read(chunks: Iterable[tuple[int, int, str | bytes]], after: int, limit: int) -> list[Message]:
    """Return up to ``limit`` messages behind number ``after``, behind a `Gap` where some are not kept.

    A chunk that can't be read, or has not as many messages as it should, is as good as one that is not kept.

    Args:
        chunks: The numbers of each chunk's first and last message, and its text, in order.
        after: The number.
        limit: How many at most.
    """
    messages: list[Message] = []
    size = unreadable = 0
    for first, last, body in chunks:
        if last <= after:
            continue
        try:
            parts = [_message(seq, part) for seq, part in zip(range(first, last + 1), decode_value(body), strict=True)]
        except Exception:
            if messages:
                break  # next time it is told as the gap before what follows
            unreadable = last
            continue
        if first > after + 1 and not messages:
            messages.append(Gap(after + 1, first - 1))
        start = max(0, after + 1 - first)
        messages += parts[start : start + limit - len(messages)]
        size += len(body)
        if len(messages) >= limit or size > READ_TEXT:
            break
    return messages if messages or not unreadable else [Gap(after + 1, unreadable)]


def reached(messages: Sequence[Message], after: int) -> int:
    """Return the number up to which has been read, or told as a gap, with messages that were read behind ``after``."""
    return last_of(messages[-1]) if messages else after


def _message(seq: int, parts: list[Any]) -> Message:
    kind, attempt, *rest = parts
    if kind == TOKEN:
        return Token(seq, attempt, rest[0])
    if kind == PROGRESS:
        return Progress(seq, attempt, *rest)
    return Restart(seq, attempt, msgspec.convert(rest[0], JobError), rest[1])
