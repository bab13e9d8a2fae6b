"""How ``prune`` goes on until nothing is left to remove."""

from __future__ import annotations

import argparse
import json
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

import jobtrio
from jobtrio.cli._prune import prune

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest


class Slices:
    """A store that removes two jobs in a slice."""

    outage_limit = math.inf

    def __init__(self, ended: int) -> None:
        self._ended = ended

    @asynccontextmanager
    async def open(self, settings: Any) -> AsyncIterator[None]:
        """Be open."""
        yield

    async def counts(self) -> Any:
        """Count the jobs."""
        await trio.lowlevel.checkpoint()
        return {"q": dict.fromkeys(jobtrio.JobState, 0) | {jobtrio.JobState.FAILED: self._ended}}

    async def prune(self) -> float:
        """Remove a slice."""
        await trio.lowlevel.checkpoint()
        self._ended = max(self._ended - 2, 0)
        return 0.0 if self._ended else 60.0


async def test_slices(capsys: pytest.CaptureFixture[str]) -> None:
    """Slice by slice all is removed that is not to be kept."""
    store: Any = Slices(5)
    assert await prune(argparse.Namespace(keep=0, keep_for=None, json=True), store) == 0
    assert json.loads(capsys.readouterr().out) == {"removed": 5, "kept": 0}
