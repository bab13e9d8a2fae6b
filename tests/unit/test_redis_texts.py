"""What jobs are stored as in Redis, and what is refused where it is read."""

from __future__ import annotations

from math import inf

import msgspec
import pytest

from jobtrio._entry import CancelRequest
from jobtrio._records import JobError
from jobtrio.stores._texts import error_of, plain_text
from jobtrio.stores.redis._texts import DIGITS, cancel_of, count_of


@pytest.mark.parametrize("count", [0, 7, 10**DIGITS - 1])
def test_counts(count: int) -> None:
    """Numbers of things are read as far as the scripts count."""
    assert count_of(str(count).encode()) == count


@pytest.mark.parametrize("text", [b"", b"-1", b"1.0", b" 1", b"x", b"1" * (DIGITS + 1)])
def test_no_counts(text: bytes) -> None:
    """What the scripts would not count is refused."""
    with pytest.raises(ValueError, match="it is "):
        count_of(text)


def test_most_digits() -> None:
    """The scripts count exactly: with the numbers that Lua has, which are floating-point."""
    assert float(10**DIGITS - 1) + 1 == 10**DIGITS < 2**53 < 10 ** (DIGITS + 1)


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        (b"1.5,2.0,null", CancelRequest(1.5, None, 2.0)),
        (b'1.5,0.0,"a, b, and c"', CancelRequest(1.5, "a, b, and c", 0.0)),
        (b"1.5,inf,null", CancelRequest(1.5, None, inf)),
    ],
)
def test_requests_to_cancel(text: bytes, request_: CancelRequest) -> None:
    """A reason may hold commas, and a grace may have no end."""
    assert cancel_of(text) == request_


@pytest.mark.parametrize("text", [b"", b"1.5,2.0", b"nan,2.0,null", b"1.5,nan,null", b"1.5,-1.0,null", b"1.5,2.0,1"])
def test_no_requests_to_cancel(text: bytes) -> None:
    """What is no request is refused."""
    with pytest.raises((ValueError, msgspec.ValidationError)):
        cancel_of(text)


def test_what_is_no_unicode() -> None:
    """Text that UTF-8 may not hold is stored all the same, as well as it can be."""
    assert plain_text("a\ud800b") == rb'"a\\ud800b"'
    error = JobError("exception", "E\udfff", "m\ud800", "t\ud801")
    assert error_of(plain_text(error)) == JobError("exception", "E\\udfff", "m\\ud800", "t\\ud801")
