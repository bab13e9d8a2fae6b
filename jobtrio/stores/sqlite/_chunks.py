"""A job's messages in the file: rows of consecutive messages, bounded by `Retention.tokens_per_job`.

It owns how messages are encoded, numbered on, cut into chunks and dropped from the front. It must not know who
may append.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, TypeAlias, assert_never

import msgspec

from jobtrio._codec import decode_value
from jobtrio._errors import PayloadError
from jobtrio._messages import End, Gap, Message, Progress, Restart, Token
from jobtrio._records import JobError
from jobtrio.stores.sqlite._rows import error_text, scrub, text_of
from jobtrio.stores.sqlite._statements import SQL

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

CHUNK_MESSAGES: Final = 256
CHUNK_TEXT: Final = 64 * 1024
"""Characters and messages beyond which a chunk takes no more."""

READ_TEXT: Final = 4 * 1024 * 1024
"""Characters beyond which one reading stops, however many messages were asked for."""

TRIMMED: Final = 200
"""Chunks dropped at once."""

Item: TypeAlias = tuple[int, str]
"""A message's number, and its text: a JSON array that begins with its kind."""

_TOKEN, _PROGRESS, _RESTART = 0, 1, 2

_encode = msgspec.json.Encoder().encode


# -- encoding


def encoded(messages: Sequence[Message]) -> list[Item]:
    """Return messages as they are stored.

    Raises:
        PayloadError: A token's value can't be stored.
    """
    return [_item(message) for message in messages]


def restart_item(seq: int, attempt: int, error: JobError, delay: float) -> Item:
    """Return a `Restart` as it is stored."""
    return seq, f"[{_RESTART},{attempt},{error_text(error)},{_text(delay)}]"


def _item(message: Message) -> Item:
    match message:
        case Token(seq=seq, attempt=attempt, value=value):
            return seq, f"[{_TOKEN},{attempt},{text_of('a token', value)}]"
        case Progress(seq=seq, attempt=attempt, done=done, total=total, note=note):
            note = None if note is None else scrub(note)
            return seq, f"[{_PROGRESS},{attempt},{_text(done)},{_text(total)},{_text(note)}]"
        case Restart(seq=seq, attempt=attempt, error=error, delay=delay):
            return restart_item(seq, attempt, error, delay)
        case Gap() | End():
            raise PayloadError(f"a {type(message).__name__} is no message that an attempt appends")
        case _:
            assert_never(message)


def _text(value: Any) -> str:
    return _encode(value).decode()


# -- writing


def last_number(connection: sqlite3.Connection, job: int) -> int:
    """Return the number of a job's last message, its `End` not counted; 0 before the first."""
    row = connection.execute(SQL["chunks_end"], (job,)).fetchone()
    return 0 if row is None else int(row[1])


def append(connection: sqlite3.Connection, job: int, items: Sequence[Item], keep: int) -> None:
    """Append a job's messages, pass over those that are stored, and drop the oldest beyond ``keep``."""
    last = last_number(connection, job)
    fresh = [item for item in items if item[0] > last]
    for chunk in _chunks(fresh):
        first = chunk[0][0]
        if first > last + 1 and last:
            # What comes before a hole is no longer kept: what can be read has no hole in it.
            connection.execute(SQL["drop_chunks"], (job, job, -1))
        last = chunk[-1][0]
        body = ",".join(text for _, text in chunk)
        connection.execute(SQL["insert_chunk"], (job, first, last, f"[{body}]"))
    if last > keep and fresh:
        connection.execute(SQL["trim_chunks"], (job, job, last - keep, last - keep, TRIMMED))


def _chunks(items: Sequence[Item]) -> Iterator[list[Item]]:
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


# -- reading


def read(connection: sqlite3.Connection, job: int, after: int, limit: int) -> list[Message]:
    """Return up to ``limit`` kept messages behind number ``after``, behind a `Gap` where some are not kept."""
    messages: list[Message] = []
    size = 0
    with closing(connection.execute(SQL["chunks"], (job, job, after + 1))) as chunks:
        for first, last, body in chunks:
            if last <= after:
                continue
            if first > after + 1 and not messages:
                messages.append(Gap(after + 1, first - 1))
            parts = decode_value(body)
            start = max(0, after + 1 - first)
            stop = start + limit - len(messages)
            messages += (_message(first + n, part) for n, part in enumerate(parts[start:stop], start))
            size += len(body)
            if len(messages) >= limit or size > READ_TEXT:
                break
    return messages


def _message(seq: int, parts: list[Any]) -> Message:
    kind, attempt, *rest = parts
    if kind == _TOKEN:
        return Token(seq, attempt, rest[0])
    if kind == _PROGRESS:
        return Progress(seq, attempt, *rest)
    return Restart(seq, attempt, msgspec.convert(rest[0], JobError), rest[1])
