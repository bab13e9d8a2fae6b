"""`Limits`: what a bridge lets its clients do. Pure data, checked once."""

from __future__ import annotations

from typing import Any

import attrs

from jobtrio._checks import check_count, check_number, check_seconds
from jobtrio._policies import make_plain


def _count(_: Any, attribute: attrs.Attribute[int], value: int) -> None:
    check_count(attribute.name, value)


def _seconds(_: Any, attribute: attrs.Attribute[float], value: float) -> None:
    check_seconds(attribute.name, value, zero=False)


def _rate(_: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    check_number(attribute.name, value, low=1)


@attrs.frozen(kw_only=True)
class Limits:
    """What a client may do, and how long the bridge waits for it.

    Attributes:
        connections: Connections at once; more are refused with the HTTP status 503. Those that would take the last
            quarter of the file descriptors that the process may have are refused without an answer.
        handshakes: Connections at once that have not been accepted yet; more are refused likewise.
        handshake: Seconds for the opening handshake and for authentication, hooks included.
        header_bytes: The size of the request that opens a connection.
        message_bytes: The size of a client's message; a larger one closes the connection with 1009.
        message_frames: The frames that a client's message may come in; more close the connection with 4413.
        messages_per_second: A client's messages a second. Those beyond it are refused, and twice as many
            close the connection with 4429.
        subscriptions: Subscriptions of a connection at once.
        attempts: The attempts that a submitted job's retry policy may allow; more are refused, except as many as its
            executor is registered with.
        batch_items: Tokens in a message to a client.
        batch_bytes: The size of a message of tokens to a client, ``events`` or text; only a single larger token exceeds
            it. Other messages are as large as the result, the error or the record that they report, and ``jobs`` ends
            with the record that takes it past 1 MiB.
        heartbeat: Seconds of silence after which the bridge gives a sign of life and asks for one.
        send: Seconds for which a client may read nothing of what is sent to it; then the connection is dropped.
        closing: Seconds for the closing handshake, and for all of them when the bridge is shut down.
        retry_after: Seconds after which clients are told to come back, plus or minus up to half of it at random.
    """

    connections: int = attrs.field(default=1000, validator=_count)
    handshakes: int = attrs.field(default=250, validator=_count)
    handshake: float = attrs.field(default=10.0, validator=_seconds)
    header_bytes: int = attrs.field(default=16 * 1024, validator=_count)
    message_bytes: int = attrs.field(default=64 * 1024, validator=_count)
    message_frames: int = attrs.field(default=1024, validator=_count)
    messages_per_second: float = attrs.field(default=50, validator=_rate)
    subscriptions: int = attrs.field(default=32, validator=_count)
    attempts: int = attrs.field(default=10, validator=_count)
    batch_items: int = attrs.field(default=256, validator=_count)
    batch_bytes: int = attrs.field(default=64 * 1024, validator=_count)
    heartbeat: float = attrs.field(default=15.0, validator=_seconds)
    send: float = attrs.field(default=30.0, validator=_seconds)
    closing: float = attrs.field(default=10.0, validator=_seconds)
    retry_after: float = attrs.field(default=1.0, validator=_seconds)

    def __attrs_post_init__(self) -> None:
        make_plain(self, Limits)
