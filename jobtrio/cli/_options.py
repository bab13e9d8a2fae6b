"""What the values of the command's options may be.

Each function turns an option's text into its value, or raises `argparse.ArgumentTypeError` with the text
and what is allowed; argparse puts the option's name before it. This module knows no option by name.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import sys
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

from jobtrio._checks import NAME_LIMIT, TEXT_LIMIT, clean_text, show
from jobtrio._policies import JobPriority, RateLimit
from jobtrio._state import JobState
from jobtrio.stores._url import parse_store_url

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}

DURATION = re.compile(r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)([smhd]?)")

SUM = re.compile(r"(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?")
"""Several whole numbers with units, the largest unit first."""

DURATIONS = """\
DURATION is seconds, or has units (s, m, h, d): 90, 90s, 1.5h, 1h30m, 7d
"""
"""What the help of a command that takes durations says of them."""


RATE = re.compile(r"([0-9]+)/([^,]+)(?:,([0-9]+))?")
"""So many in a time, and how many of them at once."""

QUOTED = 80
"""The most characters of a text that is shown with the quotes that it lacks."""


class OnceEach(argparse.Action):
    """Collects pairs of a name and something else, and refuses a name that was given before."""

    def __call__(
        self, parser: Any, namespace: argparse.Namespace, values: Any, option_string: str | None = None
    ) -> None:
        """Add a pair."""
        pairs: list[tuple[str, Any]] = getattr(namespace, self.dest)
        if any(name == values[0] for name, _ in pairs):
            raise argparse.ArgumentError(self, f"{show(values[0])} was given twice")
        setattr(namespace, self.dest, [*pairs, values])


def duration(text: str) -> float:
    """Return the seconds of a duration of 0 or more."""
    return _duration(text, "of 0 or more", 0.0)


def positive_duration(text: str) -> float:
    """Return the seconds of a duration above 0."""
    return _duration(text, "above 0", math.ulp(0.0))


def lease(text: str) -> float:
    """Return the seconds of a duration of a second or more."""
    return _duration(text, "of 1 s or more", 1.0)


def age(text: str) -> float:
    """Return the seconds of a duration of 0 or more, or inf for ever."""
    return math.inf if text == "inf" else _duration(text, "of 0 or more, or inf", 0.0)


def time_to_come(text: str) -> float:
    """Return the seconds until a time of day comes next, or until a date and a time; of this zone unless they say."""
    now = datetime.now().astimezone()
    try:
        seconds = (_moment(text, now) - now).total_seconds()
    except (ValueError, OverflowError):  # at the ends of the calendar
        seconds = -1.0
    if seconds < 0:
        raise _refusal("a time to come, such as 18:30, 2030-01-31T18:30 or 2030-01-31T18:30Z", text)
    return seconds


def count(text: str) -> int:
    """Return a whole number, 0 or more."""
    return _whole(text, "a whole number", 0, 999_999_999)


def positive_count(text: str) -> int:
    """Return a whole number, 1 or more."""
    return _whole(text, "a whole number", 1, 999_999_999)


def port(text: str) -> int:
    """Return a port's number, or 0."""
    return _whole(text, "a port", 0, 65535)


def name(text: str) -> str:
    """Return text of 1 to 200 printable characters."""
    if not _is_name(text):
        raise _refusal(f"1 to {NAME_LIMIT} printable characters", text)
    return text


def reason(text: str) -> str:
    """Return text of at most 10,000 characters."""
    if len(text) > TEXT_LIMIT:
        raise argparse.ArgumentTypeError(f"must be at most {TEXT_LIMIT} characters; got {len(text)}")
    return clean_text(text)


def directory(text: str) -> str:
    """Return the path of a directory that exists."""
    if not os.path.isdir(text):  # unlike pathlib, it does not take '' for the current one
        raise _refusal("a directory that exists", text)
    return text


def variable(text: str) -> tuple[str, str]:
    """Return name and value of an environment variable from ``NAME=VALUE``."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise _refusal("NAME=VALUE", text)
    return key, value


def tag(text: str) -> tuple[str, str]:
    """Return name and value of a tag from ``NAME=VALUE``."""
    key, _, value = text.partition("=")
    if not (_is_name(key) and _is_name(value)):
        raise _refusal(f"NAME=VALUE, either of 1 to {NAME_LIMIT} printable characters", text)
    return key, value


def queue_limit(text: str) -> tuple[str, int | None]:
    """Return a queue and how many of its jobs may run at once from ``NAME=N``, or with None from ``NAME``."""
    queue, equals, most = text.rpartition("=")
    if not equals:
        return name(text), None
    return name(queue), positive_count(most)


def total_limit(text: str) -> tuple[str, int]:
    """Return a queue and how many of its jobs may run over all workers from ``NAME=N``."""
    queue, equals, most = text.rpartition("=")
    if not equals:
        raise _refusal("NAME=N", text)
    return name(queue), positive_count(most)


def rate_limit(text: str) -> tuple[str, RateLimit]:
    """Return a queue and how many of its jobs may start in a time from ``NAME=N/TIME`` or ``NAME=N/TIME,BURST``."""
    queue, equals, rate = text.rpartition("=")
    found = RATE.fullmatch(rate)
    if found is None or not equals:
        raise _refusal("NAME=N/TIME or NAME=N/TIME,BURST, such as api=60/m, api=5/10s or api=600/m,20", text)
    starts, time_, burst = found.groups()
    per = UNITS[time_] if time_ in UNITS else positive_duration(time_)
    try:
        return name(queue), RateLimit(positive_count(starts), float(per), positive_count(burst or "1"))
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{exc}, in {show(text)}") from None


def priority(text: str) -> JobPriority:
    """Return a priority from its name."""
    try:
        return JobPriority[text.upper()]
    except KeyError:
        raise _refusal(f"one of {', '.join(level.name.lower() for level in JobPriority)}", text) from None


def states(text: str) -> list[JobState]:
    """Return states from their names, with commas between them."""
    try:
        return [JobState(each.strip().upper()) for each in text.split(",")]
    except ValueError:
        raise _refusal(f"one or several of {','.join(JobState).lower()}", text) from None


def json_value(text: str) -> Any:
    """Return the value of JSON, given as such, or as ``@FILE``, where ``@-`` is the standard input."""
    source = text
    name = "the standard input" if text == "@-" else show(text[1:])
    if text == "@-" and sys.stdin is None:
        raise argparse.ArgumentTypeError(f"can't read {name}: it is closed")
    if text.startswith("@"):
        try:
            data = sys.stdin.buffer.read() if text == "@-" else Path(text[1:]).read_bytes()
            source = data.decode("utf-8")  # as JSON is, whatever the locale is
        except (OSError, UnicodeDecodeError) as exc:
            raise argparse.ArgumentTypeError(f"can't read {name}: {cause(exc)}") from None
    try:
        return json.loads(source, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        where = "" if source is text else f" in {name}"
        if source is text and len(text) <= QUOTED and not text.startswith(("{", "[", '"')):
            where = f"; text needs quotes of its own: {shlex.quote(json.dumps(text))}"
        raise argparse.ArgumentTypeError(f"must be JSON, or @FILE; got {show(source)} ({exc}){where}") from None


def store_url(text: str) -> str:
    """Return the URL of a store."""
    try:
        parse_store_url(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None
    return text


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def cause(exc: OSError | UnicodeDecodeError) -> str:
    """Return why a file can't be read, without its name."""
    return (isinstance(exc, OSError) and exc.strerror) or str(exc)


def _is_name(text: str) -> bool:
    return 1 <= len(text) <= NAME_LIMIT and text.isprintable()


def _whole(text: str, what: str, low: int, high: int) -> int:
    # Not int(text), which takes "1_000" and "٣" as well; the length keeps a slip from becoming a number.
    is_whole = text.isascii() and text.isdigit() and len(text) <= 9
    if not (is_whole and low <= int(text) <= high):
        raise _refusal(f"{what} from {low} to {high}", text)
    return int(text)


def _duration(text: str, allowed: str, low: float) -> float:
    value = math.nan
    if found := DURATION.fullmatch(text):
        value = float(found[1]) * UNITS[found[2]]
    elif text and (found := SUM.fullmatch(text)):
        value = sum(float(number or 0) * UNITS[unit] for number, unit in zip(found.groups(), "dhms", strict=True))
    if not low <= value < math.inf:
        raise _refusal(f"a duration {allowed}: seconds, or with units (s, m, h, d) such as 90s, 1.5h or 1h30m", text)
    return value


def _moment(text: str, now: datetime) -> datetime:
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        of_day = time.fromisoformat(text)
    today = now.astimezone(of_day.tzinfo).date()
    moment = _on(today, of_day)
    return moment if moment >= now else _on(today + timedelta(days=1), of_day)


def _on(day: date, of_day: time) -> datetime:
    return datetime.combine(day, of_day).astimezone()


def _refusal(allowed: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"must be {allowed}; got {show(text)}")
