"""Sides that run in an interpreter of their own, round by round, in step with this one.

For what may not share a heap with the other side (a million kept records slow the collector for
everybody) or needs other packages. The child prints ``ready``, then one JSON list of seconds for
each line that it reads, and ends at the end of its input.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks._harness import Side

ROOT = Path(__file__).parent.parent


class ChildFailedError(Exception):
    """A child ended, or said something that is no answer."""


@asynccontextmanager
async def open_child(module: str, *arguments: object, python: str | Path = sys.executable) -> AsyncIterator[Side]:
    """Start ``python -m module`` and give the side that asks it for rounds.

    The child waits on its input between rounds and uses no time of the other side. Ctrl-C at the terminal does not
    reach it: this process ends it, with what it started.

    *Cancellation*: the child is killed and reaped.
    """
    command = [str(python), "-m", module, *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, env=environment, start_new_session=True
    )
    try:
        lines = _Lines(process, module)
        if await lines.read() != b"ready":
            raise ChildFailedError(f"{module} did not say that it is ready")

        async def side() -> Sequence[float]:
            assert process.stdin is not None
            await process.stdin.send_all(b"go\n")
            answer = json.loads(await lines.read())
            return [float(seconds) for seconds in answer]

        yield side
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):  # a killed process is gone at once
            await process.wait()


class _Lines:
    """Whole lines of a process's output."""

    def __init__(self, process: trio.Process, name: str) -> None:
        self._process = process
        self._name = name
        self._rest = b""

    async def read(self) -> bytes:
        """Return the next line without its end."""
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            chunk = await self._process.stdout.receive_some()
            if not chunk:
                raise ChildFailedError(f"{self._name} ended: its exit status is {await self._process.wait()}")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line
