"""From a job's messages to what is sent: as few texts as the limits allow.

It owns the batching: tokens that follow each other go into one ``events``. It must not know when anything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobtrio._messages import Token
from jobtrio.websocket._translation import reply_to
from jobtrio.websocket._values import value_text, values_json
from jobtrio.websocket.protocol import encode_events, encode_reply

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jobtrio._messages import Message

ENVELOPE = 160
"""Bytes kept free in each message for what stands around the items."""

FIRST_RUN = 8
"""Tokens that are encoded together before it is known how large they are."""


def replies(messages: Sequence[Message], *, sub: int | None, tracebacks: bool, items: int, size: int) -> Iterator[str]:
    """Return messages of a job as the texts to send, in order.

    Args:
        messages: The messages.
        sub: The subscription's number; None on a tail.
        tracebacks: Whether the client may see tracebacks.
        items: The most tokens in a text.
        size: The most bytes of a text, unless a single token is larger.
    """
    run: list[Any] = []  # the values of tokens that follow each other
    start = attempt = 0
    for message in messages:
        if isinstance(message, Token):
            if run and (message.attempt != attempt or len(run) == items):
                yield from _events(run, sub, start, attempt, size)
                run = []
            if not run:
                start, attempt = message.seq, message.attempt
            run.append(message.value)
        else:
            yield from _events(run, sub, start, attempt, size)
            run = []
            yield encode_reply(reply_to(message, sub, tracebacks=tracebacks))
    yield from _events(run, sub, start, attempt, size)


def _events(values: list[Any], sub: int | None, seq: int, attempt: int, size: int) -> Iterator[str]:
    """Return values, if there are any, as the texts to send."""
    if not values:
        return
    for count, data in _pieces(values, size - ENVELOPE):
        yield encode_events(sub, seq, attempt, data)
        seq += count


def plain_texts(messages: Sequence[Message], *, items: int, size: int) -> Iterator[str]:
    """Return the tokens among messages as the plain texts to send, in order, as those of `replies` are limited."""
    texts: list[str] = []
    length = 0
    for message in messages:
        if isinstance(message, Token):
            text = value_text(message.value)
            more = len(text) if text.isascii() else len(text.encode())
            if length and (length + more > size or len(texts) == items):
                yield "".join(texts)
                texts, length = [], 0
            texts.append(text)
            length += more
    if length:
        yield "".join(texts)


def _pieces(values: list[Any], size: int) -> Iterator[tuple[int, bytes]]:
    """Return values as JSON arrays of at most ``size`` bytes, or of a single value, each with how many it holds.

    A few are encoded at a time, and more as long as they turn out to be small: a whole batch may be a hundred times
    what is sent at once, and would be held for each client as long as that takes to read it.
    """
    parts: list[bytes] = []
    count = at = 0
    length, most = 1, FIRST_RUN
    while at < len(values):
        run = values[at : at + most]
        data = values_json(run)[1:-1]
        fits = length + len(data) + 1 <= size
        if not fits and len(run) > 1:
            most = len(run) // 2
            continue
        if not fits and parts:
            yield count, b"[" + b",".join(parts) + b"]"
            parts, count, length = [], 0, 1
        parts.append(data)
        at += len(run)
        count += len(run)
        length += len(data) + 1
        most = 2 * len(run) if fits else 1
    yield count, b"[" + b",".join(parts) + b"]"
