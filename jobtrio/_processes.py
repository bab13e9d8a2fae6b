"""What the operating system says about processes: who lives, in which session, and a safe hold on one.

It only looks: nothing here signals or reaps. What is not to be had everywhere has its substitute here.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def _finds_us() -> bool:
    """Whether ``/proc`` lists processes by the numbers that they have here."""
    try:
        with open("/proc/self/stat", "rb") as file:
            return int(file.read().split()[0]) == os.getpid()
    except (OSError, ValueError):
        return False


HAS_PROC = _finds_us()
"""Whether processes can be seen in ``/proc``."""

IS_FOREIGN = not HAS_PROC and os.path.exists("/proc/stat")
"""Whether ``/proc`` is another PID namespace's, with other numbers: then `ps`, which reads it, can't list ours."""

LISTING = ("ps", "-A", "-o", "pid=", "-o", "stat=")
"""What lists them where there is no ``/proc``: id and state."""

PARENTS = ("ps", "-A", "-o", "pid=", "-o", "ppid=")
"""What lists them with their parents, likewise."""


def living_in_session(session: int) -> list[int]:
    """Return the ids of the session's processes, but for zombies: these only wait for their parent.

    Raises:
        OSError: There is nothing to list them with, or no descriptor left.
        subprocess.SubprocessError: The listing failed.
    """
    return [pid for pid in _listed() if session_of(pid) == session and not _is_dead(pid)]


def open_pidfd(pid: int) -> int | None:
    """Return a descriptor of the process; None where there is no such process, or the system has none to give."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def look_at(child: int) -> Literal["running", "ended", "lost", "unknown"]:
    """Say how a child is, without reaping it; it is lost where somebody else has reaped it."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return "unknown"
    try:
        seen = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return "lost"
    return "running" if seen is None else "ended"


def session_of(pid: int) -> int | None:
    """Return the id of a process's session, or None where there is no such process."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def began_at(pid: int) -> str | None:
    """Return when a process began, by the system's own count; None where it does not tell, or there is no such process.

    With its id it is a name that no other process ever has.
    """
    try:
        fields = _stat(pid)
    except OSError:  # there may be no descriptor left
        return None
    return fields[19].decode() if fields else None


def parents_of_all() -> dict[int, int]:
    """Return the parent of every process, by id. Zombies count: a session may outlive its leader.

    Raises:
        OSError: There is nothing to list them with, or no descriptor left.
        subprocess.SubprocessError: The listing failed.
    """
    if HAS_PROC:
        parents = {}
        for pid in _listed():
            with suppress(OSError):  # one that can't be looked at is not to hide the others
                if fields := _stat(pid):
                    parents[pid] = int(fields[1])
        return parents
    rows = (line.split() for line in _lines_of(PARENTS))
    return {int(pid): int(parent) for pid, parent in rows}


def sessions_with(variable: str) -> Iterator[tuple[int, bytes]]:
    """Yield the session of each process that was started with a variable in its environment, and what that said.

    Those that can't be looked at, as a stranger's, are passed over; without ``/proc`` there is nothing to look at.
    """
    begin = f"{variable}=".encode()
    for pid in _listed() if HAS_PROC else ():
        with suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            values = [entry.removeprefix(begin) for entry in file.read().split(b"\0") if entry.startswith(begin)]
            if values and (session := session_of(pid)):  # 0 is one that another PID namespace has begun
                yield from ((session, value) for value in values)


def _listed() -> Iterator[int]:
    """Yield the ids of all processes; those that `ps` lists are without zombies."""
    if HAS_PROC:
        yield from (int(name) for name in os.listdir("/proc") if name.isdecimal())
        return
    for line in _lines_of(LISTING):
        pid, state = line.split(maxsplit=1)
        if not state.startswith(b"Z"):
            yield int(pid)


def _lines_of(command: Sequence[str]) -> list[bytes]:
    if IS_FOREIGN:
        raise OSError("/proc is another PID namespace's: nothing tells the processes of this one")
    return subprocess.run(command, capture_output=True, check=True).stdout.splitlines()


def _is_dead(pid: int) -> bool:
    """Whether `/proc` shows the process as a zombie with no thread left, or not at all."""
    if not HAS_PROC:
        return False
    try:
        fields = _stat(pid)
    except OSError:
        return False
    # The state is the third field, the number of threads the 20th. A process whose first thread has
    # ended looks like a zombie while its other threads run.
    return fields is None or (fields[0] in (b"Z", b"X", b"x") and int(fields[17]) <= 1)


def _stat(pid: int) -> list[bytes] | None:
    """Return what `/proc` says of a process, from the third field on; None where there is no such process.

    Raises:
        OSError: It could not be read.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
