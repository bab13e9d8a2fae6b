"""Values to and from JSON, for stores that outlive the process.

It owns what a durable payload, token, result or state may be: what JSON can hold. It must not know
who asks.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from jobtrio._checks import show
from jobtrio._errors import PayloadError

SIZE_LIMIT = 8 * 1024 * 1024
"""Bytes of one encoded value."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def encode_value(name: str, value: Any) -> bytes:
    """Return ``value`` as JSON.

    Raises:
        PayloadError: It is not what JSON can hold, or larger than 8 MiB; the error says which part of it.
    """
    try:
        data = _encoder.encode(value)
    except RecursionError:
        raise PayloadError(f"{name} must be what JSON can hold; it is nested too deeply") from None
    except Exception as exc:
        raise PayloadError(f"{name} must be what JSON can hold; got {show(value)}: {exc}") from exc
    if len(data) > SIZE_LIMIT:
        raise PayloadError(f"{name} must be at most {SIZE_LIMIT} bytes of JSON; got {len(data)}")
    if b"null" in data:
        _refuse_not_finite(name, msgspec.to_builtins(value))
    return data


def decode_value(data: bytes | str) -> Any:
    """Return the value that `encode_value` encoded."""
    return _decoder.decode(data)


def _refuse_not_finite(name: str, value: Any) -> None:
    """Raise `PayloadError` for a NaN or an infinity in plain values, which would come back as null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise PayloadError(f"{name} must be what JSON can hold; it contains {value!r}")
    if isinstance(value, dict):
        for item in value.values():
            _refuse_not_finite(name, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _refuse_not_finite(name, item)
