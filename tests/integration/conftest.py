"""What several of the tests with real processes share."""

from __future__ import annotations

import os
import pty
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Return both ends of a terminal; the test closes that which what it starts is given."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
