"""Values to and from JSON, for stores that outlive the process.

It owns what a durable payload, token, result or state may be: what JSON can hold. It must not know
who asks.
"""

from __future__ import annotations

import math
import re
from itertools import accumulate
from typing import Any

import msgspec

from jobtrio._checks import show
from jobtrio._errors import PayloadError
from jobtrio._exceptions import EXITS

SIZE_LIMIT = 8 * 1024 * 1024
"""Bytes of one encoded value."""

DEPTH_LIMIT = 200
"""Lists and mappings within each other. Whoever reads a value has to get as deep, wherever that is in his program."""

SHORT = 1_000
FEW = 100
"""Bytes of some JSON and exponents in it, up to which msgspec reads the numbers itself, several times as quickly."""

SCALARS = frozenset({str, int, float, bool, type(None)})
"""The classes of values that have no parts; parts may pass for JSON that was encoded before."""

_STRINGS = re.compile(rb'"[^"]*+"?')  # with an end or without, or what never ends takes n²
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


def read_float(text: str) -> float:
    """Return a number that is not whole; msgspec by itself takes 500 times as long for one near the ends of floats.

    Raises:
        ValueError: It is beyond them.
    """
    number = float(text)
    if math.isinf(number):
        raise ValueError("Number out of range")
    return number


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
_other_encoder = msgspec.msgpack.Encoder()
_other_decoder = msgspec.msgpack.Decoder()
_exponents_decoder = msgspec.json.Decoder(float_hook=read_float)


def encode_value(name: str, value: Any) -> bytes:
    """Return ``value`` as JSON, in one line and without control characters.

    Raises:
        PayloadError: It is not what JSON can hold, larger than 8 MiB, or nested too deeply; the error says which part.
    """
    if value is None:
        return b"null"
    try:
        data = _encoder.encode(value)
    except RecursionError:
        raise PayloadError(f"{name} must be what JSON can hold; it is nested too deeply") from None
    except EXITS:
        raise
    except BaseException as exc:  # the value's own code may raise anything
        raise PayloadError(f"{name} must be what JSON can hold; got {show(value)}: {exc}") from exc
    if len(data) > SIZE_LIMIT:
        raise PayloadError(f"{name} must be at most {SIZE_LIMIT} bytes of JSON; got {len(data)}")
    if is_deeper(data, DEPTH_LIMIT):
        raise PayloadError(f"{name} must be nested at most {DEPTH_LIMIT} levels deep; got {show(value)}")
    if type(value) not in SCALARS:
        try:
            decoded = decode_value(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise PayloadError(f"{name} must be what JSON can hold; got {show(value)}: {exc}") from None
        if b"null" in data and not _is_kept(value, decoded):
            _check_finite(name, value)
        if b"\n" in data or b"\r" in data or b"\t" in data:  # between parts of what was JSON already
            data = msgspec.json.format(data, indent=-1)
    elif data == b"null":
        _check_finite(name, value)
    return data


def _is_kept(value: Any, decoded: Any) -> bool:
    """Whether a value is surely what its JSON decodes to; then each null in that stands for a None.

    MessagePack keeps NaN and the infinities, and takes a third of the time that looking at each part takes.
    """
    try:
        return bool(_other_decoder.decode(_other_encoder.encode(value)) == decoded)
    except EXITS:
        raise
    except BaseException:  # of what only JSON has, such as larger numbers, or of the value's own code
        return False


def _check_finite(name: str, value: Any) -> None:
    try:
        plain = msgspec.to_builtins(value, enc_hook=bytes)  # of parts that are JSON already
    except EXITS:
        raise
    except BaseException as exc:  # it was encoded just now, so it is another each time
        raise PayloadError(f"{name} must be what JSON can hold; got {show(value)}: {exc}") from exc
    if (number := not_finite(plain)) is not None:
        raise PayloadError(f"{name} must be what JSON can hold; it contains {number!r}")


def takes_more(size: int, decoded: Any) -> bool:
    """Whether something with values that were decoded takes more bytes of JSON than ``size``, as far as can be told."""
    try:
        return len(_encoder.encode(decoded)) > size
    except Exception:  # others may have written what is nested more deeply than can be encoded here
        return True


def decode_value(data: bytes | str) -> Any:
    """Return the value that `encode_value` encoded."""
    if len(data) <= SHORT:
        return _decoder.decode(data)
    exponents = data.count("e") if isinstance(data, str) else data.count(b"e")  # at most
    return (_decoder if exponents <= FEW else _exponents_decoder).decode(data)


def is_deeper(data: bytes, levels: int) -> bool:
    """Whether some JSON has more levels of lists and mappings than so many.

    How deep a decoder gets by itself, and how deep whoever goes through the value, is another matter in each Python.
    """
    if data.count(b"[") + data.count(b"{") <= levels:
        return False  # without looking at them one by one
    marks = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_STEPS, _NO_BRACKETS)
    steps = _STRINGS.sub(b"", marks.replace(b'""', b""))  # most strings have no brackets in them
    return max(accumulate(memoryview(steps).cast("b")), default=0) > levels


def not_finite(value: Any) -> float | None:
    """Return a NaN or an infinity in plain values, which JSON would have as null; None where there is none."""
    parts = [value]
    for part in parts:  # which grows meanwhile: no value is nested too deeply for that
        if isinstance(part, dict):
            parts += part.values()
        elif isinstance(part, (list, tuple)):
            parts += part
        elif isinstance(part, float) and not math.isfinite(part):
            return part
    return None
