"""The programs in ``docs/examples/durable``, run as the tutorial tells: in several terminals, on one file.

It owns who is started, killed and waited for, and what each terminal shows. It must not know the page.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import cache
from typing import IO

from docs.tools import examples

FOLDER = examples.FOLDER / "durable"

STEPS = "5"
KILL_AFTER = "2 step 2"
"""What the watchers show when the worker is killed."""


def programs() -> list[str]:
    """Return the programs' names, as pages have them."""
    return sorted(f"durable/{path.name}" for path in FOLDER.glob("*.py"))


def shown(terminal: str) -> str:
    """Return what a terminal shows in the end.

    Raises:
        KeyError: There is no such terminal.
    """
    return _terminals()[terminal]


@cache
def _terminals() -> dict[str, str]:
    """Submit two jobs, watch them, and start a worker; kill the worker, and start another."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def start(program: str, *arguments: str) -> _Terminal:
            return stack.enter_context(_Terminal(folder, program, *arguments))

        jobs = {"monday": "count", "tuesday": "count-on"}
        submits = [start("submit", job, executor, STEPS) for job, executor in jobs.items()]
        for submit in submits:
            submit.read_on()
        watchers = {job: start("watch", job) for job in jobs}
        anna = start("worker", "anna")  # with both jobs there, it begins them at once
        for watcher in watchers.values():
            watcher.read_to(KILL_AFTER)
        anna.process.kill()
        anna.read_on()
        ben = start("worker", "ben")
        ben.read_to("ben is ready")
        for watcher in watchers.values():
            watcher.read_on()
        ben.process.terminate()
        ben.read_on()
        return {
            "anna": anna.text + "Killed\n",
            "ben": ben.text,
            "submit": "".join(submit.text for submit in submits),
            **{job: watcher.text for job, watcher in watchers.items()},
        }


class _Terminal:
    """One program, and what it has shown."""

    def __init__(self, folder: str, program: str, *arguments: str) -> None:
        argv = [sys.executable, str(FOLDER / f"{program}.py"), *arguments]
        self.process = subprocess.Popen(argv, cwd=folder, stdout=subprocess.PIPE, text=True)
        self.text = f"$ python {program}.py {' '.join(arguments)}\n"

    def __enter__(self) -> _Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def _output(self) -> IO[str]:
        assert self.process.stdout is not None  # it is a pipe
        return self.process.stdout

    def read_to(self, beginning: str) -> None:
        """Read up to a line."""
        while not (line := self._read_line()).startswith(beginning):
            if not line:
                raise EOFError(f"no line began with {beginning!r}: {self.text}")

    def read_on(self) -> None:
        """Read to the end."""
        while self._read_line():
            pass

    def _read_line(self) -> str:
        line = self._output.readline()
        self.text += line
        return line
