"""A worker's log where it is slow, and its end where that stalls."""

from __future__ import annotations

import math
import os
import signal
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest
import trio

import jobtrio
from jobtrio.cli._output import LAST_WORD, STDERR, STDOUT, Output
from jobtrio.cli._working import Worker, WorkerPlan, _mind_terminals
from jobtrio.stores.memory import MemoryJobStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from trio.testing import MockClock

    from jobtrio.cli._output import Piece
    from jobtrio.cli._working import Say

PLAN = WorkerPlan(
    executors=jobtrio.Executors(),
    lifespan=nullcontext,
    max_running=1,
    queues=None,
    totals={},
    rates={},
    name=None,
    grace=0.0,
    lease=30.0,
    retention=jobtrio.Retention(),
)


@PLAN.executors.register("nothing")
async def nothing(job: jobtrio.JobContext) -> None:
    """Return at once."""


@pytest.mark.parametrize(("seconds", "lines", "beyond"), [(0.4 * LAST_WORD, 3, ""), (math.inf, 0, "; 3 changes not")])
async def test_log_that_is_slow(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, seconds: float, lines: int, beyond: str
) -> None:
    """The last lines of the log are waited for before the summary, though not for ever."""
    written: list[Piece] = []

    async def write(output: Output, pieces: Iterable[Piece]) -> None:
        shown = list(pieces)
        if shown[0][0] == STDOUT:
            await trio.sleep(seconds)
        written.extend(shown)

    @asynccontextmanager
    async def run_one_job(registry: jobtrio.JobRegistry, say: Say) -> AsyncIterator[None]:
        await (await registry.submit("nothing")).wait()
        signal.raise_signal(signal.SIGTERM)
        yield

    monkeypatch.setattr(Output, "write", write)
    begun = trio.current_time()
    assert await Worker(MemoryJobStore(), PLAN, as_json=True, beside=run_one_job).serve() == 0
    assert trio.current_time() - begun <= 2 * LAST_WORD
    assert [fd for fd, _ in written].count(STDOUT) == lines
    assert (STDERR, "jobtrio: SIGTERM: starts nothing more\n") in written
    assert written[-1][0] == STDERR
    assert written[-1][1].startswith(f"jobtrio: stopped; 1 completed{beyond}")
    assert beyond or "not logged" not in written[-1][1]


@pytest.mark.parametrize("terminal", [STDOUT, STDERR])
async def test_one_terminal(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, terminal: int) -> None:
    """As long as one of its streams is a terminal it is looked whether that is still there, and once more."""
    looks: list[float] = []
    monkeypatch.setattr("jobtrio.cli._working.forget_dead_terminals", lambda: looks.append(trio.current_time()))
    monkeypatch.setattr(os, "isatty", lambda fd: fd == terminal and len(looks) < 3)
    await _mind_terminals()
    assert len(looks) == 4
