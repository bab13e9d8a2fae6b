"""Sides of the benchmarks that run in an interpreter of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from benchmarks._child import ChildFailedError, open_child

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 60.0


def _program(folder: Path, script: str) -> Path:
    program = folder / "program"
    program.write_text("#!/bin/sh\n" + script, encoding="utf-8")
    program.chmod(0o700)
    return program


async def test_what_a_child_started_ends_with_it(tmp_path: Path) -> None:
    """A child that is no longer wanted is killed with its own children, which would complain of its end."""
    number = tmp_path / "number"
    program = _program(tmp_path, f"sleep {LIMIT} &\necho $! >{number}\necho ready\ncat\n")
    async with open_child("any", python=program):
        grandchild = psutil.Process(int(number.read_text(encoding="utf-8")))
        assert grandchild.is_running()
    psutil.wait_procs([grandchild], timeout=LIMIT / 2)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


async def test_child_that_fails(tmp_path: Path) -> None:
    """A child that ends in a round fails it: nothing is taken for its figures."""
    program = _program(tmp_path, "echo ready\nread round\nexit 3\n")
    with pytest.raises(ChildFailedError, match="any ended: its exit status is 3"):
        async with open_child("any", python=program) as side:
            await side()
