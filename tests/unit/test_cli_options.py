"""The values of the command's options: what is understood, and what is refused."""

from __future__ import annotations

import argparse
import io
import math
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from jobtrio.cli import _options, build_parser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DURATIONS = [
    ("run", ["--time-limit", "--grace"]),
    ("worker", ["--grace", "--lease", "--keep-for"]),
    ("serve", ["--grace", "--lease", "--keep-for", "--flush-interval"]),
    ("submit", ["--time-limit", "--delay", "--expires-in"]),
    ("cancel", ["--grace"]),
    ("prune", ["--keep-for"]),
]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5", 1.5),
        ("30m", 1800),
        ("1.5h", 5400),
        ("7d", 604_800),
        (".5m", 30),
        ("1e3", 1000),
        ("1h30m", 5400),
        ("1d0h5s", 86_405),
        ("090m1s", 5401),
    ],
)
@pytest.mark.parametrize("read", [_options.duration, _options.positive_duration, _options.lease, _options.age])
def test_duration(read: Callable[[str], float], text: str, seconds: float) -> None:
    """A duration is seconds, or a number with its unit behind it, or several, the largest unit first."""
    assert read(text) == seconds


@pytest.mark.parametrize(
    ("read", "text", "allowed"),
    [
        *[
            (_options.duration, text, r"of 0 or more: seconds, or with units \(s, m, h, d\) such as 90s, 1.5h or 1h30m")
            for text in (
                "",
                "m",
                "-1",
                "-1m",
                "nan",
                "inf",
                "infm",
                "3w",
                "3M",
                "1_0",
                "٣",
                " 3",
                "3 m",
                "3mm",
                "1e999",
                "30m1h",
                "1h1h",
                "1.5h30m",
                "1h30",
                "1h 30m",
            )
        ],
        (_options.positive_duration, "0", "above 0"),
        (_options.positive_duration, "0h", "above 0"),
        (_options.positive_duration, "0h0m", "above 0"),
        (_options.lease, "0.01m", "of 1 s or more"),
        (_options.age, "infinity", "of 0 or more, or inf"),
    ],
)
def test_no_duration(read: Callable[[str], float], text: str, allowed: str) -> None:
    """What is none is refused, with the text and what is allowed."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a duration {allowed}.*; got '{text}'"):
        read(text)


def test_endless_duration() -> None:
    """A duration that is more than any number is none."""
    with pytest.raises(argparse.ArgumentTypeError, match="must be a duration of 0 or more"):
        _options.duration("9" * 400 + "d1s")


def test_for_ever() -> None:
    """Only ended jobs can be kept for ever."""
    assert _options.age("inf") == math.inf


@pytest.fixture
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this machine in a time zone with summer time: until 3:00 on 2026-10-25, which then is 2:00."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_berlin")
@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("12:00", 0),
        ("12:00:30", 30 / 3600),
        ("18", 6),
        ("11:59", 24 + 1 - 1 / 60),
        ("09:00Z", 25 - 2),
        ("15:00+05:00", 0),
        ("2026-10-24T18:30", 6.5),
        ("2026-10-24 18:30", 6.5),
        ("2026-10-24T18:30:00Z", 8.5),
        ("2026-10-25", 12),
        ("2026-10-25T12:00", 25),
    ],
)
def test_time_to_come(text: str, hours: float) -> None:
    """A time of day is the next such; a date and a time are of this machine's zone, unless they say of which."""
    now = datetime(2026, 10, 24, 12).astimezone()
    assert _options._moment(text, now) - now == timedelta(hours=hours)


def test_how_long_until_then() -> None:
    """A time is turned into seconds from now."""
    before, then = datetime.now(UTC), datetime.now(UTC) + timedelta(days=1)
    seconds = _options.time_to_come(then.isoformat())
    assert before + timedelta(seconds=seconds) <= then <= datetime.now(UTC) + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "soon", "24:30", "12:00pm", "1h", "-1", "2030-02-30", "2020-01-31T18:30", "0001-01-01", "٣"]
)
def test_no_time_to_come(text: str) -> None:
    """What is none, or is over, is refused, with the text and what is allowed."""
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a time to come, such as 18:30, .*; got '{text}'"):
        _options.time_to_come(text)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_of_the_standard_input(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """JSON is UTF-8, whatever the locale is: from the standard input as from a file."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO('"日本 é"'.encode()), encoding))
    assert _options.json_value("@-") == "日本 é"


def test_no_utf8_of_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no UTF-8 can't be read."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"\xff"'), "latin-1"))
    with pytest.raises(argparse.ArgumentTypeError, match="can't read the standard input: 'utf-8' codec"):
        _options.json_value("@-")


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only who wants to read it has to have one."""
    monkeypatch.setattr(sys, "stdin", None)
    assert _options.json_value("[1]") == [1]
    with pytest.raises(argparse.ArgumentTypeError, match="can't read the standard input: it is closed"):
        _options.json_value("@-")


def test_long_reason() -> None:
    """A reason may be as long as the registry takes it, and no longer."""
    assert _options.reason("x" * 10_000) == "x" * 10_000
    with pytest.raises(argparse.ArgumentTypeError, match="at most 10000 characters; got 10001"):
        _options.reason("x" * 10_001)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("hello", """; text needs quotes of its own: '"hello"'"""),
        ("x" * 80, f"""; text needs quotes of its own: '"{"x" * 80}"'"""),
        ("x" * 81, ""),
        ('{"a": 1', ""),
        ("[1,", ""),
        ('"a', ""),
    ],
)
def test_text_without_quotes(text: str, hint: str) -> None:
    """Who gave a text is shown it with quotes; what was meant to be something else, or is long, is not said again."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        _options.json_value(text)
    assert str(caught.value).partition("))")[2] == hint


@pytest.mark.parametrize(("command", "names"), DURATIONS)
def test_every_duration_is_one(command: str, names: list[str]) -> None:
    """Each option that is a duration takes both forms, and the help says once which these are."""
    [commands] = [each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction)]
    parser = commands.choices[command]
    found = [each for each in parser._actions if each.metavar == "DURATION"]
    assert [each.option_strings for each in found] == [[name] for name in names]
    for each in found:
        assert callable(each.type)
        assert each.type("2m") == each.type("120") == 120
    assert parser.format_help().count(_options.DURATIONS) == 1
