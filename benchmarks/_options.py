"""What the values of the commands' options may be; argparse puts the option's name before what they say."""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """Return a number of things, of which there has to be one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more; got {text}")
    return int(text)


def duration(text: str) -> float:
    """Return seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be seconds above 0; got {text}")
    return value
