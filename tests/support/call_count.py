"""`calls_made`: what something costs in calls, which a busy machine does not change."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Calls:
    """How many calls were made, those to C included."""

    count = 0


@contextmanager
def calls_made() -> Iterator[Calls]:
    """Count the calls that this thread makes within the block."""
    calls = Calls()

    def count_call(_frame: object, event: str, _arg: object) -> None:
        calls.count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count_call)
    try:
        yield calls
    finally:
        sys.setprofile(before)
