"""A program with all that it starts: begun in a session of its own, waited for, ended.

It owns the order and the safety of waiting and reaping; how a session is signalled belongs to `_program_session`.
Its times are real seconds whatever Trio's clock is, for a process does not live by a virtual clock. It must not know of
jobs, payloads or lines.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Self

import trio

from jobtrio._processes import look_at, open_pidfd
from jobtrio._program_session import FIRST_PAUSE, KILL_LIMIT, LONGEST_PAUSE, ProgramSession

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import IO

LAST_LIMIT = 1.0
"""Seconds that leaving a `RunningProgram` may block where nobody has waited for its end."""

logger = logging.getLogger("jobtrio")


class RunningProgram(ProgramSession):
    """One program and its descendants, as long as these stay in the session it leads.

    The program is not reaped before its session is empty. Its id, which names group and session, therefore
    stays taken, and no signal can reach a stranger that was given the same number.

    Attributes:
        stdout: The reading end of the program's standard output.
        stderr: That of its standard error.
    """

    def __init__(self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str]) -> None:
        """Start the program; it must be used in ``with``.

        Starting blocks until the program is loaded (about a millisecond) and is no checkpoint, so that no
        cancellation can come between the program's birth and its owner's care. A thread would not help before Python
        3.12: the interpreter holds its lock all the while.

        Raises:
            OSError: The program could not be started.
            RuntimeError: SIGCHLD is ignored, so that exit codes are lost.
        """
        if not hasattr(os, "killpg"):
            raise OSError(
                errno.ENOSYS, "programs can be run on POSIX systems only: this one has no sessions of processes"
            )
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
            raise RuntimeError("SIGCHLD is ignored in this process: no program's exit code could be known")
        pipe = subprocess.PIPE
        self._popen = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            bufsize=0,
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self.stdout: IO[bytes] = self._popen.stdout
        self.stderr: IO[bytes] = self._popen.stderr
        super().__init__(self._popen.pid)
        self._pidfd = open_pidfd(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.returncode is None:
            # By now the program has ended, unless the block was left without `end`, by an internal error.
            self.send_signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=LAST_LIMIT)
        if self._pidfd is not None:
            os.close(self._pidfd)
        self.stdout.close()
        self.stderr.close()

    async def wait_exited(self) -> None:
        """Wait until the program itself has ended, whatever it leaves behind.

        *Cancellation*: the program runs on.
        """
        if self._pidfd is not None:
            await trio.lowlevel.wait_readable(self._pidfd)
            return
        pause = FIRST_PAUSE
        while await trio.to_thread.run_sync(self._runs_after, pause, limiter=_own_limiter()):
            pause = min(2 * pause, LONGEST_PAUSE)

    @trio.lowlevel.enable_ki_protection
    async def end(self, grace: float, *, linger: float = 0.0) -> None:
        """End all of the session. What outlives SIGKILL is named in a warning.

        Args:
            grace: Seconds from SIGTERM to SIGKILL.
            linger: Seconds before SIGTERM.

        *Cancellation*: shielded, for at most ``linger``, ``grace`` and `KILL_LIMIT` together.
        """
        with trio.CancelScope(shield=True):  # the bound: the thread counts real seconds and returns by itself
            try:
                survivors = await trio.to_thread.run_sync(self.end_by, grace, linger, limiter=_own_limiter())
            except RuntimeError as exc:  # no thread can be started, perhaps because of this very program
                logger.warning("the session of process %d is killed without its grace: %s", self.id, exc)
                survivors = await self._kill()
        if survivors:
            logger.warning("processes %s have outlived SIGKILL by %g s", survivors, KILL_LIMIT)

    async def _kill(self) -> list[int]:
        """Do without a thread what ends in any case, by real seconds too; return the ids of what has outlived it."""
        end = time.monotonic() + KILL_LIMIT
        while self._signal_and_look(signal.SIGKILL) and time.monotonic() < end:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(FIRST_PAUSE)
        return self.living()

    def reap(self) -> int:
        """Return the exit code of the program, which has ended, or minus the number of its signal.

        From here on its id may belong to another.

        Raises:
            RuntimeError: The code is lost, because something else in this process waited for the program; or
                the program still runs.
        """
        try:
            reaped, status = os.waitpid(self.id, os.WNOHANG)
        except ChildProcessError:
            self._popen.returncode = 0  # or Popen would wait for it in turn
            raise RuntimeError(
                f"the exit code of process {self.id} is lost: something else here waits for all children"
            ) from None
        if not reaped:
            raise RuntimeError(f"process {self.id} has not ended")
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        return self._popen.returncode

    def _holds_id(self) -> bool:
        if self._popen.returncode is not None:
            return False
        # Where something else has waited for the program, its number may be another's once its session is empty.
        return look_at(self.id) != "lost" or (bool(self.living()) and super()._holds_id())

    def _runs_after(self, pause: float) -> bool:
        time.sleep(pause)
        seen = look_at(self.id)
        return self.id in self.living() if seen == "unknown" else seen == "running"


def _own_limiter() -> trio.CapacityLimiter:
    """Return a limiter for one thread: the end of a program must not queue behind other people's threads."""
    return trio.CapacityLimiter(1)
