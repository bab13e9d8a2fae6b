"""Values of any kind as JSON: as they are where JSON can hold them and a client takes them, else as their `repr`.

It owns what goes over the wire in the place of a payload, a token or a result. It must not know which of them a
value is.
"""

from __future__ import annotations

import reprlib
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from jobtrio._checks import clean_text, show
from jobtrio._codec import SCALARS, is_deeper, not_finite
from jobtrio._exceptions import EXITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPR_LIMIT = 10_000
"""Characters of a `repr` that stands for a value; what is longer ends in an ellipsis."""

VALUE_LIMIT = 16 * 1024 * 1024
"""Bytes of a value as JSON beyond which its `repr` stands for it: clients take a message with three of them."""

DEPTH_LIMIT = 500
"""Lists and mappings within each other, beyond which a value's `repr` stands for it, and a message is refused."""

LOOKED_AT = 20
"""Parts of a value that are looked at first: one that is plainly too large is not encoded in vain."""

_encode = msgspec.json.Encoder().encode
_parts_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


def value_json(value: Any) -> bytes:
    """Return a value as JSON; one that JSON can't hold, or that is too large, as ``{"repr": …}``. It never raises."""
    try:
        if _is_large(value):
            return _repr_json(value, _brief.repr)
        data = _encode(value)
        if len(data) > VALUE_LIMIT or is_deeper(data, DEPTH_LIMIT):
            return _repr_json(value)
        if type(value) not in SCALARS:
            _check_list(b"[" + data + b"]", 1)
        if b"null" in data and not_finite(msgspec.to_builtins(value, enc_hook=bytes)) is not None:
            return _repr_json(value)
    except EXITS:
        raise
    except BaseException:  # whatever the value's own code raises, or a value that is nested too deeply
        return _repr_json(value)
    return data


def values_json(values: Sequence[Any]) -> bytes:
    """Return values as a JSON array, each as `value_json` has it. It never raises."""
    try:
        data = _encode(values)
        if not SCALARS.issuperset(map(type, values)):
            _check_list(data, len(values))
    except EXITS:
        raise
    except BaseException:
        data = None
    # A NaN among them would be a null. Of the brackets of all of them, few are within each other.
    if data is None or len(data) > VALUE_LIMIT or b"null" in data or data.count(b"[") + data.count(b"{") > DEPTH_LIMIT:
        return b"[" + b",".join(map(value_json, values)) + b"]"
    return data


def value_text(value: Any) -> str:
    """Return ``str(value)`` as text that UTF-8 can hold; its `repr` where that raises."""
    try:
        text = value if value.__class__ is str else str(value)
    except EXITS:
        raise
    except BaseException:
        text = show(value, REPR_LIMIT)
    return clean_text(text)


class _Brief(reprlib.Repr):
    """Makes the beginning of a large value's `repr`, and little more."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = 2 * REPR_LIMIT + 10  # one half is the text's beginning
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = LOOKED_AT

    repr_bytes = reprlib.Repr.repr_str


_brief = _Brief()


def _repr_json(value: Any, make: Callable[[Any], str] = repr) -> bytes:
    return _encode({"repr": clean_text(show(value, REPR_LIMIT, make))})


def _is_large(value: Any) -> bool:
    """Whether a few parts of a value tell that it is too large as JSON."""
    size = 0
    parts = [value]
    for _ in range(LOOKED_AT):
        part = parts.pop()
        kind = type(part)
        if kind is str or kind is bytes:
            size += len(part)
        elif kind is dict:
            parts += islice(part.values(), LOOKED_AT)
        elif kind is list or kind is tuple:
            parts += islice(part, LOOKED_AT)
        if not parts or size > VALUE_LIMIT:
            break
    return size > VALUE_LIMIT


def _check_list(data: bytes, count: int) -> None:
    """Raise some error unless this is a list of so many values: what passed for JSON may be none."""
    data.decode()
    if len(_parts_of(data)) != count:
        raise ValueError("there are more or fewer")
