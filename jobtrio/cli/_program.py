"""A program as a job: the executor behind ``jobtrio run``, and what its errors mean.

A job may end in another process than the one that watches it, so all that is known of its end is the text of
its error: this module knows how to read that of `run_command`. It must not know about output, signals or the
registry.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
from typing import TYPE_CHECKING, Any

from jobtrio._command import NOT_A_PROGRAM, NOT_THERE
from jobtrio._errors import CommandFailedError, GiveUp
from jobtrio._processes import parents_of_all
from jobtrio._watchdog import watchdog
from jobtrio.executors import Executors, run_command

if TYPE_CHECKING:
    from jobtrio._context import JobContext
    from jobtrio._records import JobError

RUN_COMMAND = "run_command"
"""The name under which the jobs of ``jobtrio run`` are stored: any worker that has it may run them."""

NOT_EXECUTABLE = 126
NOT_FOUND = 127

SCARCITY = {errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
"""Why a program may fail to start now and yet start later."""

ENDED = re.compile(
    r" (?:exited with (?P<code>\d{1,3})|was ended by (?P<signal>SIG\w+)|was ended by signal (?P<number>\d{1,3}))\Z"
)
"""What a `CommandFailedError` says at the end of its message."""

RETURNCODES = {*range(-127, 256)} - {0}
"""Those of failed programs. Of a larger number a process would show the last eight bits: of 256 a success."""

programs: Executors = Executors()
"""What a worker needs for the jobs of ``jobtrio run``."""


class ProgramMissingError(GiveUp):
    """There is no such program, now or later."""


class ProgramUnfitError(GiveUp):
    """The program can't be executed, now or later."""


class ProgramStartError(Exception):
    """The program can't be started now; it may be later."""


@programs.register(RUN_COMMAND)
async def run_program(job: JobContext) -> Any:
    """Do what `run_command` does, but give up at once on a program that can't be started.

    Raises:
        CommandFailedError: The program failed.
        ProgramMissingError: It isn't there.
        ProgramUnfitError: It can't be executed.
        ProgramStartError: It could not be started for want of something that may be there later.

    *Cancellation*: as that of `run_command`.
    """
    try:
        return await run_command(job)
    except OSError as exc:
        program = job.payload["argv"][0]
        is_folder = exc.filename not in (None, program, os.devnull)  # that is its standard input
        where = f" in {exc.filename!r}" if is_folder else ""
        text = f"can't run {program!r}{where}: {exc.strerror or exc}"
        if exc.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise ProgramMissingError(text) from None
        if exc.errno in SCARCITY:
            raise ProgramStartError(text) from None
        raise ProgramUnfitError(text) from None


NOT_STARTED = {
    ProgramMissingError.__name__: NOT_FOUND,
    ProgramUnfitError.__name__: NOT_EXECUTABLE,
    ProgramStartError.__name__: NOT_EXECUTABLE,
}
"""The exit codes of programs that were not started, by the type of the error."""

WHY_NOT_STARTED = {
    f"[Errno {errno.ENOENT}] {NOT_THERE}: ": NOT_FOUND,
    f"[Errno {errno.EACCES}] {NOT_A_PROGRAM}: ": NOT_EXECUTABLE,
}
"""The same where a worker has registered `run_command` as it is, by how the error's message begins."""


def heed_children() -> None:
    """See that the exit codes of programs can be known, whatever was inherited from whoever started us."""
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def returncode_of(error: JobError) -> int | None:
    """Return a failed program's exit code, or minus the number of the signal that ended it; None for another error."""
    if error.type != CommandFailedError.__name__ or (match := ENDED.search(error.message)) is None:
        return None
    if match["code"]:
        code = int(match["code"])
    else:
        # Another system may have signals that this one does not know.
        code = -int(match["number"] or signal.Signals.__members__.get(match["signal"], 0))
    return code if code in RETURNCODES else None


def exit_code(error: JobError) -> int | None:
    """Return the exit code that a shell would give for a program that failed with this error; None for another."""
    if error.type in NOT_STARTED:
        return NOT_STARTED[error.type]
    for why, known in WHY_NOT_STARTED.items():
        if error.message.startswith(why):
            return known
    code = returncode_of(error)
    return code if code is None or code >= 0 else 128 - code


def kill() -> None:
    """Send SIGKILL to the programs of this process and all of their sessions, whatever grace is left."""
    try:
        parents = parents_of_all()
    except (OSError, subprocess.SubprocessError):
        parents = dict.fromkeys(watchdog.sessions, os.getpid())  # those that are known where processes can't be listed
    leaders = {pid for pid, parent in parents.items() if parent == os.getpid()} - {watchdog.pid}
    for leader in leaders:
        # The group in one call: it can't miss a process that is just being born.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, signal.SIGKILL)
    for pid in parents:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(pid) in leaders:
                os.kill(pid, signal.SIGKILL)
