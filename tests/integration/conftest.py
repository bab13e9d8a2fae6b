"""What several of the tests with real processes share."""

from __future__ import annotations

import contextlib
import os
import pty
from typing import TYPE_CHECKING

import pytest
from store_shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """Return a shell with a store of its own; what it started is gone when the test is over."""
    with contextlib.ExitStack() as stack:
        yield Shell(tmp_path, stack)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Return both ends of a terminal; the test closes that which what it starts is given."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
