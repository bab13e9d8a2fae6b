"""What the values of the command's options may be.

Each function turns an option's text into its value, or raises `argparse.ArgumentTypeError` with the text
and what is allowed; argparse puts the option's name before it. This module knows no option by name.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from jobtrio._checks import NAME_LIMIT, show


def seconds(text: str) -> float:
    """Return a finite number of seconds, 0 or more."""
    value = _number(text)
    if not (math.isfinite(value) and value >= 0):
        raise _refusal("a finite number of seconds, 0 or more", text)
    return value


def positive_seconds(text: str) -> float:
    """Return a finite number of seconds above 0."""
    value = _number(text)
    if not (math.isfinite(value) and value > 0):
        raise _refusal("a finite number of seconds above 0", text)
    return value


def count(text: str) -> int:
    """Return a whole number, 0 or more."""
    # Not int(text), which takes "1_000" and "٣" as well; the length keeps a slip from becoming a number.
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise _refusal("a whole number from 0 to 999999999", text)
    return int(text)


def name(text: str) -> str:
    """Return text of 1 to 200 printable characters."""
    if not (1 <= len(text) <= NAME_LIMIT and text.isprintable()):
        raise _refusal(f"1 to {NAME_LIMIT} printable characters", text)
    return text


def directory(text: str) -> str:
    """Return the path of a directory that exists."""
    if not Path(text).is_dir():
        raise _refusal("a directory that exists", text)
    return text


def variable(text: str) -> tuple[str, str]:
    """Return name and value of an environment variable from ``NAME=VALUE``."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise _refusal("NAME=VALUE", text)
    return key, value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _refusal(allowed: str, text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"must be {allowed}; got {show(text)}")
