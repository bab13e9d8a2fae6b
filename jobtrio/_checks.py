"""The one place that refuses nonsense: numbers, names and tags that make no sense.

Each check returns the value in its normal form, or raises `TypeError` or `ValueError` with the
parameter's name, the value, and what is allowed. It must not know what the value is for.
"""

from __future__ import annotations

import math
import operator
import re
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import chain
from typing import Any, TypeVar

from jobtrio._exceptions import EXITS

T = TypeVar("T")

NAME_LIMIT = 200
"""Characters in an id, a key, a queue's or an executor's name."""

TEXT_LIMIT = 10_000
"""Characters in a reason or a note."""

TAGS_LIMIT = 1_000
"""Tags of a job, and of a search."""

LATEST = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
"""The last moment that a record is asked to hold: behind it, time zones and rounding reach the end of `datetime`."""


def show(value: object, limit: int = 80, make: Callable[[object], str] = repr) -> str:
    """Return ``repr(value)``, shortened to ``limit`` characters; a repr that raises is named so.

    ``make`` makes the repr, or its beginning.
    """
    text = text_by(value, make, "{} whose repr")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def show_url(url: str) -> str:
    """Return a URL as an error may show it: a password may be in front of an @, or behind a ?."""
    before = re.sub(r":(//)?.*@", r":\1…@", url, flags=re.DOTALL)
    return show(re.sub(r"\?.+", "?…", before, flags=re.DOTALL))


def text_by(value: T, make: Callable[[T], str], what: str) -> str:
    """Return ``make(value)``; where the value's own code raises, say so of ``what``, with its class in the place of {}.

    Raises only what ends the program. Text of a class of its own becomes plain text.
    """
    try:
        return str.__str__(make(value))
    except EXITS:
        raise
    except BaseException as exc:
        return f"<{what.format(type(value).__name__)} raised {type(exc).__name__}>"


def clean_text(text: str) -> str:
    """Return plain text with the halves of surrogate pairs, which UTF-8 can't hold, as backslash escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="backslashreplace").decode()
    return text if text.__class__ is str else str.__str__(text)


def check_seconds(name: str, value: Any, *, zero: bool = True, infinite: bool = False) -> float:
    """Return ``value`` as float seconds: 0 or more, or above 0; finite unless ``infinite``."""
    if value.__class__ is float and (0.0 < value < math.inf or (zero and value == 0.0)):
        return float(value)  # the common case, without building the text of an error
    low = "0 or more" if zero else "above 0"
    allowed = f"a number of seconds, {low}" + (" (inf allowed)" if infinite else ", finite")
    seconds = _as_float(name, value, allowed)
    if not (0 <= seconds <= (math.inf if infinite else sys.float_info.max)) or (seconds == 0 and not zero):
        raise ValueError(f"{name} must be {allowed}; got {show(value)}")
    return seconds


def check_wait(name: str, value: Any, now: float, *, infinite: bool = False) -> float:
    """Return ``value`` as float seconds, 0 or more, that are over before the year 9999; or inf if ``infinite``."""
    seconds = check_seconds(name, value, infinite=infinite)
    if LATEST < now + seconds < math.inf:
        raise ValueError(f"{name} must end before the year 9999{', or be inf' * infinite}; got {show(value)}")
    return seconds


def check_number(name: str, value: Any, *, low: float, high: float = math.inf) -> float:
    """Return ``value`` as a finite float from ``low`` to ``high``."""
    allowed = f"a finite number from {low:g}" + ("" if math.isinf(high) else f" to {high:g}")
    number = _as_float(name, value, allowed)
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(f"{name} must be {allowed}; got {show(value)}")
    return number


def _as_float(name: str, value: Any, allowed: str) -> float:
    """Return a number as a float, NaN where it is too large for one; raise `TypeError` for anything else."""
    number = value if isinstance(value, float) else whole_number(value)
    if number is None:
        raise TypeError(f"{name} must be {allowed}; got {show(value)}")
    try:
        return float(number)
    except OverflowError:
        return math.nan


def plain_number(value: float) -> float:
    """Return a number without what a class of its own, such as one of numpy's, adds to it: JSON holds no other."""
    number = whole_number(value)
    return float(value) if number is None else number


def whole_number(value: Any) -> int | None:
    """Return a whole number of any class, such as numpy's, as a plain one; None for True, False and all else."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_count(name: str, value: Any, *, low: int = 1) -> int:
    """Return ``value``, a whole number of at least ``low``; of one that is larger than stores can hold, the largest."""
    allowed = f"a whole number, {low} or more"
    number = whole_number(value)
    if number is None:
        raise TypeError(f"{name} must be {allowed}; got {show(value)}")
    if number < low:
        raise ValueError(f"{name} must be {allowed}; got {show(value)}")
    return min(number, sys.maxsize)


def check_name(name: str, value: Any) -> str:
    """Return ``value``, text of 1 to 200 printable characters."""
    if isinstance(value, str) and 1 <= len(value) <= NAME_LIMIT and value.isprintable():
        return str.__str__(value)
    wrong = ValueError if isinstance(value, str) else TypeError
    raise wrong(f"{name} must be text of 1 to {NAME_LIMIT} printable characters; got {show(value)}")


def check_id(name: str, value: Any) -> str:
    """Return ``value``, text; whether a job has this id is the store's to say."""
    if isinstance(value, str):
        return str.__str__(value)
    raise TypeError(f"{name} must be text; got {show(value)}")


def from_thread(call: str, by: str) -> str:
    """Return how another thread than Trio's makes a call: what errors say to those that made it by themselves."""
    return f"trio.from_thread.{by}({call}), with trio_token= where Trio did not start it"


def other_run(what: str, instead: str, by: str, of: str = "registry") -> RuntimeError:
    """Return the error of who does in another run of Trio, or none, ``what`` must be done in the registry's."""
    return RuntimeError(
        f"{what} within the run of Trio that opened the {of}; in another thread say {from_thread(instead, by)}"
    )


def check_flag(name: str, value: Any) -> bool:
    """Return ``value``, True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {show(value)}")
    return value


def check_text(name: str, value: Any) -> str | None:
    """Return ``value``, None or text of at most 10,000 characters."""
    if value is None:
        return None
    allowed = f"None or text of at most {TEXT_LIMIT} characters"
    if not isinstance(value, str):
        raise TypeError(f"{name} must be {allowed}; got {show(value)}")
    if len(value) > TEXT_LIMIT:
        raise ValueError(f"{name} must be {allowed}; got {len(value)} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} must be {allowed}, and no half of a surrogate pair; got {show(value)}") from None
    return str.__str__(value)


def check_tags(name: str, value: Any) -> dict[str, str] | None:
    """Return a copy of ``value``, a mapping of at most 1,000 names to names; None stands for none."""
    if value is None:
        return None
    if value.__class__ is not dict and not isinstance(value, Mapping):  # the latter takes its time
        raise TypeError(f"{name} must be a mapping of text to text; got {show(value)}")
    tags = dict(value)
    if len(tags) > TAGS_LIMIT:
        raise ValueError(f"{name} must be at most {TAGS_LIMIT}; got {len(tags)}")
    for text in chain(tags, tags.values()):
        if text.__class__ is not str or not 0 < len(text) <= NAME_LIMIT or not text.isprintable():
            # It is no tag, or text of a class of its own, which is kept as plain text.
            return {check_name(f"a key of {name}", key): check_name(f"{name}[{key!r}]", tags[key]) for key in tags}
    return tags or None


def check_metadata(name: str, value: Any) -> dict[str, Any] | None:
    """Return a copy of ``value``, a mapping with text keys; None stands for none."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping with text keys; got {show(value)}")
    return {check_name(f"a key of {name}", key): value[key] for key in value} or None


def check_moment(name: str, value: Any) -> datetime:
    """Return ``value``, an aware datetime before the year 9999, in UTC."""
    allowed = "an aware datetime before the year 9999"
    if not isinstance(value, datetime):
        raise TypeError(f"{name} must be {allowed}; got {show(value)}")
    if value.utcoffset() is None:
        raise ValueError(f"{name} must be {allowed}; {show(value)} has no time zone")
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        moment = None
    if moment is None or moment.timestamp() > LATEST:
        raise ValueError(f"{name} must be {allowed}; got {show(value)}")
    return moment
