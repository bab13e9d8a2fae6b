"""What is refused of what is read, so that nobody stumbles over it later."""

from __future__ import annotations

import pytest

from jobtrio.stores._salvage import FIRST, LAST, checked_steps


def steps(*times: float) -> list[object]:
    """Return a flat history with changes at these times."""
    return [part for at in times for part in (at, "QUEUED", 1, "worker", None)]


def test_times_of_a_history() -> None:
    """Each change has a time that a calendar has, whichever of them it is."""
    checked_steps(steps(FIRST, 0.0, LAST))
    for times in ((FIRST - 1, 0.0), (0.0, FIRST - 1), (LAST + 1, 0.0), (0.0, LAST + 1)):
        with pytest.raises(ValueError, match="is no time"):
            checked_steps(steps(*times))
