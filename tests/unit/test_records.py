"""Records: times as they are shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from jobtrio import _records
from jobtrio._records import moment

if TYPE_CHECKING:
    from datetime import tzinfo

    import pytest


@given(st.floats(datetime(1, 1, 2, tzinfo=UTC).timestamp(), datetime(9999, 1, 1, tzinfo=UTC).timestamp()))
def test_moments(timestamp: float) -> None:
    """They are those of the standard library, to the microsecond."""
    assert moment(timestamp) == datetime.fromtimestamp(timestamp, UTC)


def test_moments_that_a_clock_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system counts seconds in 32 bits, jobs may start later than 2038 all the same."""

    class Datetime(datetime):
        @classmethod
        def fromtimestamp(cls, timestamp: float, tz: tzinfo | None = None) -> Datetime:
            raise OverflowError("timestamp out of range for platform time_t")

    monkeypatch.setattr(_records, "datetime", Datetime)
    assert moment(253370764800.0) == datetime(9999, 1, 1, tzinfo=UTC)
