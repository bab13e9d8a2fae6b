"""How attempts and jobs end, in words and as exit codes: the same for every command that watches a job.

Pure: all of it is read from records. It must not know where it is shown.
"""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from jobtrio._records import Cancelled, Completed, Failed
from jobtrio.cli import _program

if TYPE_CHECKING:
    from datetime import datetime

    from jobtrio._records import JobError, Outcome

FAILED = 1
TIMED_OUT = 124
CANCELLED = 125
"""The exit codes of a job that failed, whose time was up, and that somebody else cancelled."""

RELEASED = "Released"
"""The type of the error of an attempt that its worker gave back."""

_NURSERY = re.compile(r"^ExceptionGroup: Exceptions from Trio nursery \(\d+ sub-exceptions?\): ")
"""What stands in an error's text before the exceptions that a nursery has raised as a group."""

FURTHER = "\n  "
"""What begins the second line of a text, and each behind it."""


def exit_code(outcome: Outcome) -> int:
    """Return the exit code of a command that watched a job to this end."""
    match outcome:
        case Completed():
            return 0
        case Cancelled():
            return CANCELLED
        case Failed(error) if error.kind == "timeout":
            return TIMED_OUT
        case Failed(error):
            code = _program.exit_code(error)
            return FAILED if code is None else code


def describe(error: JobError) -> str:
    """Return what happened to a failed attempt or job, to follow its name: "failed: ValueError: row 2"."""
    what, why = _describe(error)
    return f"{what}: {why}" if why else what


def _describe(error: JobError) -> tuple[str, str]:
    """Return what happened, and why where there is more to say."""
    match error.kind:
        case "timeout":
            return "timed out", ""
        case "lost":
            return "was given back by its worker" if error.type == RELEASED else "was lost", one_line(error.message)
        case "expired":
            return "expired", one_line(error.message)
        case "gave_up":
            return "gave up", one_line(error.message or error.type)
    code = _program.returncode_of(error)
    if code is None:
        return "failed", one_line(str(error))
    return f"was killed by {_signal_name(-code)}" if code < 0 else f"failed with exit code {code}", ""


def summary(outcome: Outcome, *, seconds: float | None, attempts: int | None, lines: int | None = None) -> str:
    """Return how all of it ended, in a line.

    Args:
        outcome: The outcome.
        seconds: How long it took; None where it never started, or that is not known.
        attempts: How many attempts there were; None where it is not known.
        lines: How many lines its programs wrote; None where it is not known.
    """
    after, why = "", ""
    if seconds is not None:
        after = f" after {duration(seconds)}"
    elif attempts == 0:
        after = " before it started"
    match outcome:
        case Completed():
            what = "completed" if seconds is None else f"completed in {duration(seconds)}"
        case Failed(error) if error.type in _program.NOT_STARTED:
            return f"jobtrio: {one_line(error.message, 1000)}"
        case Failed(error):
            what, why = _describe(error)
            what = what.removeprefix("was ") + after  # or it would be jobtrio that was killed
        case Cancelled(reason):
            what = f"cancelled{after}" + (f" ({one_line(reason)})" if reason else "")
    counts = [plural(number, noun) for number, noun in ((attempts, "attempt"), (lines, "line")) if number is not None]
    return f"jobtrio: {', '.join([what, *counts])}" + (f": {why}" if why else "")


def duration(seconds: float) -> str:
    """Return a duration as a person would say it."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    if round(seconds, 1) >= 60:
        return f"{minutes} min {rest} s"
    return f"{seconds:.2f} s" if round(seconds, 2) < 1 else f"{seconds:.1f} s"


def second(moment: datetime) -> str:
    """Return a moment of UTC as a log tells it."""
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def shown_share(done: float, total: float) -> float:
    """Return how much of a total is done, to be rounded: as the whole only where nothing is left."""
    return done / total if done >= total else min(done / total, 0.99)


def plural(number: int, noun: str) -> str:
    """Return a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def one_line(text: str, limit: int = 200) -> str:
    """Return a text as one line of printable characters, shortened where it is long."""
    text = printable(" ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def brief(error: str, limit: int) -> str:
    """Return an error's text where there is little room: of what a nursery has raised, what is in the group."""
    return one_line(_NURSERY.sub("", error), limit)


def printable(text: str, *, lines: bool = False) -> str:
    """Return a text, of one line or of many, with escapes for what a terminal would take for more than text.

    Of many all but the first are indented: what others say can't pass for a line of its own.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else FURTHER if lines and char == "\n" else ascii(char)[1:-1] for char in text
    )


def _signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
