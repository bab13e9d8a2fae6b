"""`Salvage`, and the checks of what is read: what there is of a job that was written by somebody else, or damaged.

A job that can't be read whole is told from others by its entry's ``unreadable``. It is not run, but made to fail, and
an answer that has other jobs in it is given all the same. It must not know how a store keeps jobs.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any, Final, TypeVar

from jobtrio._entry import STEP
from jobtrio._records import Failed, JobError
from jobtrio._state import FINAL_STATES, JobState

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio._entry import JobEntry

T = TypeVar("T")

FIRST: Final = -62135596800.0
LAST: Final = 253402300799.0
"""The first and the last second that a `datetime` can tell: of the years 1 and 9999."""

STATES: Final[dict[str, JobState]] = {str(state): state for state in JobState}
"""Each state, by its name."""

_INT: Final = frozenset({int})
_TEXT: Final = frozenset({str})
_TEXT_OR_NONE: Final = frozenset({str, type(None)})


class Salvage:
    """Reads the parts of one job.

    Attributes:
        why: What can't be read of it, and why; None where all could.
    """

    def __init__(self) -> None:
        self.why: str | None = None

    def part(self, name: str, decode: Callable[[Any], T], stored: Any, instead: T) -> T:
        """Return what ``decode`` makes of what is stored, or ``instead`` where it can't."""
        try:
            return decode(stored)
        except Exception as exc:
            if self.why is None:
                self.why = f"its {name} can't be read: {type(exc).__name__}: {exc}"
            return instead

    def error(self) -> JobError:
        """Return what a job fails with that can't be read."""
        return JobError("exception", "StoreError", self.why or "")

    def note(self, entry: JobEntry) -> JobEntry:
        """Note in an entry what can't be read of it; where that is how it has ended, it has failed."""
        entry.unreadable = self.why
        if entry.state in FINAL_STATES and entry.outcome is None:
            entry.state = JobState.FAILED
            entry.error = entry.error or self.error()
            entry.outcome = Failed(entry.error)
        return entry


def check_time(at: float) -> float:
    """Return a time that a calendar has; raise where it is none."""
    if not FIRST <= at <= LAST:
        raise ValueError(f"{at} is no time")
    return at


def check_finite(number: float) -> float:
    """Return a number of seconds that can be counted with; raise where it is none."""
    if not isfinite(number):
        raise ValueError(f"{number} is no number of seconds")
    return number


def checked_steps(steps: list[Any]) -> list[Any]:
    """Return a flat history, its states no longer as text; raise where it is none.

    Of each change it has when, to which state, in which attempt, by which worker and for which reason.
    """
    ats, attempts, workers, reasons = (steps[n::STEP] for n in (0, 2, 3, 4))
    check_time(min(ats))
    check_time(max(ats))
    is_sound = _INT.issuperset(map(type, attempts)) and _TEXT.issuperset(map(type, workers))
    if len(steps) % STEP or not is_sound or not _TEXT_OR_NONE.issuperset(map(type, reasons)):
        raise ValueError("it is no history")
    steps[1::STEP] = [STATES[state] for state in steps[1::STEP]]
    return steps
