"""A program with all that it starts: begun in a session of its own, waited for, signalled, ended.

It owns process ids, signals, and what counts as living. Its times are real seconds whatever Trio's clock
is, for a process does not live by a virtual clock. It must not know of jobs, payloads or lines.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Literal, Self

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import IO

KILL_LIMIT = 5.0
"""Seconds to wait for processes that got SIGKILL: only one in an uninterruptible call outlives it."""

LAST_LIMIT = 1.0
"""Seconds that leaving a `ProcessGroup` may block where nobody has waited for its end."""

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two looks at what lives: the first, doubled each time up to the longest."""

HAS_PROC = os.path.exists("/proc/self/stat")
"""Whether processes can be seen in ``/proc``."""

LISTING = ("ps", "-A", "-o", "pid=", "-o", "stat=")
"""What lists them where there is no ``/proc``: id and state."""


logger = logging.getLogger("jobtrio")


class ProcessGroup:
    """One program and its descendants, as long as these stay in the session it leads.

    A session rather than a process group alone: ``timeout`` and a shell's job control make groups of their
    own in the midst of a script, and who asks the terminal for a password fails instead of being stopped.

    The program is not reaped before its session is empty. Its id, which names group and session, therefore
    stays taken, and no signal can reach a stranger that was given the same number.
    """

    def __init__(self, argv: Sequence[str], *, cwd: str | None = None, env: Mapping[str, str]) -> None:
        """Start the program; it must be used in ``with``.

        Starting blocks until the program is loaded (about a millisecond) and is no checkpoint, so that no
        cancellation can come between the program's birth and its owner's care. A thread would not help: the
        interpreter holds its lock all the while.

        Raises:
            OSError: The program could not be started.
            RuntimeError: SIGCHLD is ignored, so that exit codes are lost.
        """
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
        self.id = self._popen.pid
        self._pidfd = _open_pidfd(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._popen.returncode is None:
            # By now the program has ended, unless the block was left without `end`, by an internal error.
            self.signal(signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(timeout=LAST_LIMIT)
        if self._pidfd is not None:
            os.close(self._pidfd)
        self.stdout.close()
        self.stderr.close()

    @property
    def stdout(self) -> IO[bytes]:
        """The reading end of the program's standard output."""
        assert self._popen.stdout is not None
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes]:
        """The reading end of the program's standard error."""
        assert self._popen.stderr is not None
        return self._popen.stderr

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
            await trio.to_thread.run_sync(self._end, grace, linger, limiter=_own_limiter())

    def _end(self, grace: float, linger: float) -> None:
        if not self._watch(linger):
            # A stopped process sees SIGTERM only once it goes on.
            self.signal(signal.SIGTERM, signal.SIGCONT)
            self._watch(grace)
        if not self._watch(KILL_LIMIT, repeat=signal.SIGKILL):
            logger.warning("processes %s have outlived SIGKILL by %g s", self.living(), KILL_LIMIT)

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

    def living(self) -> list[int]:
        """Return the ids of the session's processes. Zombies don't count: they only wait for their parent."""
        try:
            return [pid for pid in _listed() if _session_of(pid) == self.id and not _is_dead(pid)]
        except (OSError, subprocess.SubprocessError):
            # Nothing to list with, or no descriptor left for it: the program has to stand for its session.
            return [] if self._has_exited() else [self.id]

    def signal(self, *numbers: int) -> None:
        """Send each signal to all of the session, unless the program's id could be another's by now."""
        if not self._holds_id():
            return
        for number in numbers:
            # One call for the whole group: it can't miss a process that is just being born.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.id, number)
        for pid in self.living():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) != self.id:
                    self._signal_one(pid, numbers)

    def _signal_one(self, pid: int, numbers: Sequence[int]) -> None:
        pidfd = _open_pidfd(pid)
        try:
            # With the descriptor open the look and the signal are about the same process, or the
            # signal fails. Without one (not on Linux) microseconds lie between them.
            if _session_of(pid) != self.id:
                return
            for number in numbers:
                if pidfd is None:
                    os.kill(pid, number)
                else:
                    signal.pidfd_send_signal(pidfd, number)
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _has_exited(self) -> bool:
        return _look_at(self.id) != "running"

    def _holds_id(self) -> bool:
        return self._popen.returncode is None and _look_at(self.id) != "lost"

    def _watch(self, limit: float, repeat: int | None = None) -> bool:
        """Wait up to ``limit`` seconds for the session to be empty, and say whether it is.

        ``repeat`` is sent before each look, and so at least once: a process may be born behind the back of a
        listing, but one that has SIGKILL pending can't bear another.
        """
        end = time.monotonic() + limit
        pause = FIRST_PAUSE
        while self._signal_and_look(repeat):
            left = end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE)
        return True

    def _signal_and_look(self, number: int | None) -> bool:
        if number is not None:
            self.signal(number)
        return bool(self.living())

    def _runs_after(self, pause: float) -> bool:
        time.sleep(pause)
        return self.id in self.living()


def _own_limiter() -> trio.CapacityLimiter:
    """Return a limiter for one thread: the end of a program must not queue behind other people's threads."""
    return trio.CapacityLimiter(1)


def _open_pidfd(pid: int) -> int | None:
    """Return a descriptor of the process, or None where the system has no such thing to give."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):
        return None


def _look_at(child: int) -> Literal["running", "ended", "lost"]:
    """Say how a child is, without reaping it; it is lost where somebody else has reaped it."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return "running"
    try:
        seen = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return "lost"
    return "running" if seen is None else "ended"


def _session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _listed() -> Iterator[int]:
    """Yield the ids of all processes; those that `ps` lists are without zombies."""
    if HAS_PROC:
        yield from (int(name) for name in os.listdir("/proc") if name.isdecimal())
        return
    listing = subprocess.run(LISTING, capture_output=True, check=True)
    for line in listing.stdout.splitlines():
        pid, state = line.split(maxsplit=1)
        if not state.startswith(b"Z"):
            yield int(pid)


def _is_dead(pid: int) -> bool:
    """Whether `/proc` shows the process as a zombie with no thread left, or not at all."""
    if not HAS_PROC:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:
        return False
    # The state is the third field, the number of threads the 20th. A process whose first thread has
    # ended looks like a zombie while its other threads run.
    return fields[0] in (b"Z", b"X", b"x") and int(fields[17]) <= 1
