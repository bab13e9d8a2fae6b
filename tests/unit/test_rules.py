"""What every store decides alike."""

from __future__ import annotations

import pytest

from jobtrio import Retention
from jobtrio.stores import _rules as rules
from jobtrio.testing._workers import new_entry

HELD_FOR = "nobody executed it within the time that it is held (held_for)"
EXPIRES_IN = "not started within {} s (expires_in)"


@pytest.mark.parametrize(
    ("executor", "delay", "expires_in", "message"),
    [
        (None, 0.0, None, HELD_FOR),
        (None, 0.0, 299.0, EXPIRES_IN.format(299)),
        (None, 0.0, 300.0, EXPIRES_IN.format(300)),
        (None, 0.0, 301.0, HELD_FOR),
        (None, 50.0, 349.0, EXPIRES_IN.format(349)),
        (None, 50.0, 351.0, HELD_FOR),
        ("work", 0.0, 299.0, EXPIRES_IN.format(299)),
        ("work", 50.0, 1000.0, EXPIRES_IN.format(1000)),
        ("work", 0.0, None, "not started in time"),
    ],
)
def test_why_it_has_expired(executor: str | None, delay: float, expires_in: float | None, message: str) -> None:
    """A job that was not started in time says which of its times was over first, and by whose parameter."""
    entry = new_entry(executor, delay=delay, expires_in=expires_in)
    error = rules.expired(entry, Retention(held_for=300.0))
    assert (error.kind, error.message) == ("expired", message)
