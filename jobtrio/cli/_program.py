"""A program as the command sees it: an executor that runs it, and what became of each attempt.

It stands between ``jobtrio run`` and `run_command`: exit codes as a shell gives them, failures that no other
attempt can mend, and the words for all of it. It must not know about output, signals or the registry.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobtrio._errors import CommandFailedError, GiveUp
from jobtrio._records import Cancelled, Completed, Failed
from jobtrio.executors import run_command

if TYPE_CHECKING:
    from jobtrio._context import JobContext
    from jobtrio._records import JobError, Outcome

TIMED_OUT = 124
NOT_EXECUTABLE = 126
NOT_FOUND = 127

SCARCITY = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""Why a program may fail to start now and yet start later."""


class Program:
    """Runs one program, attempt by attempt, and keeps what the job's text-only errors don't."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._returncodes: dict[int, int] = {}  # by attempt; minus the signal's number where one ended it

    async def attempt(self, job: JobContext) -> Any:
        """Be the job's executor.

        Raises:
            CommandFailedError: The program failed.
            GiveUp: It can't be started at all, now or later.

        *Cancellation*: as that of `run_command`.
        """
        try:
            return await run_command(job)
        except CommandFailedError as exc:
            self._returncodes[job.attempt] = exc.returncode
            raise
        except OSError as exc:
            missing = exc.errno in {errno.ENOENT, errno.ENOTDIR}
            self._returncodes[job.attempt] = NOT_FOUND if missing else NOT_EXECUTABLE
            if exc.errno in SCARCITY:
                raise
            raise GiveUp(exc.strerror or str(exc)) from None

    def kill(self) -> None:
        """Send SIGKILL to the program and all of its session, whatever grace is left."""
        parents = _parents()
        leaders = {pid for pid, parent in parents.items() if parent == os.getpid()}
        for leader in leaders:
            # The group in one call: it can't miss a process that is just being born.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, signal.SIGKILL)
        for pid in parents:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) in leaders:
                    os.kill(pid, signal.SIGKILL)

    def exit_code(self, attempt: int, error: JobError) -> int:
        """Return the exit code that a shell would give for a failed attempt."""
        if error.kind == "timeout":
            return TIMED_OUT
        returncode = self._returncodes.get(attempt, 1)
        return returncode if returncode >= 0 else 128 - returncode

    def describe(self, attempt: int, error: JobError) -> str:
        """Return what happened to a failed attempt, to follow its name: "failed with exit code 3"."""
        if error.kind == "timeout":
            return "timed out"
        if error.type != CommandFailedError.__name__:
            return f"failed: {error.message or error.type}"
        code = self._returncodes[attempt]
        return f"was killed by {_signal_name(-code)}" if code < 0 else f"failed with exit code {code}"

    def summary(self, attempt: int, outcome: Outcome, seconds: float, lines: int) -> str:
        """Return how all of it ended, in a line."""
        after = f"after {_duration(seconds)}"
        match outcome:
            case Completed():
                what = f"completed in {_duration(seconds)}"
            case Failed(error) if error.kind == "gave_up":
                return f"jobtrio: can't run {self._name!r}: {error.message}"
            case Failed(error):
                what = f"{self.describe(attempt, error)} {after}"
            case Cancelled(reason):
                what = f"cancelled {after} ({reason})"
        return f"jobtrio: {what}, {_plural(attempt, 'attempt')}, {_plural(lines, 'line')}"


def _parents() -> dict[int, int]:
    """Return the parent of every process, by id. Zombies count: a session may outlive its leader."""
    if os.path.exists("/proc/self/stat"):
        stats = (_stat(name) for name in os.listdir("/proc") if name.isdecimal())
        # Behind the name, which may hold anything, come the state and the parent.
        return {int(stat.split()[0]): int(stat.rpartition(b")")[2].split()[1]) for stat in stats if stat}
    listing = subprocess.run(["ps", "-A", "-o", "pid=", "-o", "ppid="], capture_output=True, check=True)
    rows = (line.split() for line in listing.stdout.splitlines())
    return {int(pid): int(parent) for pid, parent in rows}


def _stat(pid: str) -> bytes:
    try:
        return Path("/proc", pid, "stat").read_bytes()
    except OSError:
        return b""  # gone in the meantime


def _signal_name(number: int) -> str:
    """Return a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if seconds >= 60:
        return f"{minutes} min {rest} s"
    return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
