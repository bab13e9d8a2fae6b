"""The watchdog: a process that ends the programs of this one when it is gone, however it went.

It owns the way to that process, which is started with the first program and ends with this process. It must not know
how programs are ended.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import secrets
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

MOST_UNREAD: Final = 64 * 1024
"""Bytes that it may leave unread beyond what the pipe holds. One that leaves more stands still, and is replaced."""

NAME: Final = "jobtrio-watchdog"
"""An argument without a meaning, by which people know it in a list of processes."""

BOOT: Final = """
import sys, types
package = sys.modules["jobtrio"] = types.ModuleType("jobtrio")  # the package itself would load Trio
package.__path__ = [sys.argv[1]]
from jobtrio._watchdog_process import main
main(int(sys.argv[2]))
"""

logger = logging.getLogger("jobtrio")


class Watchdog:
    """The watchdog of this process, and what it is to know."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._programs: dict[str, tuple[float, int | None]] = {}  # seconds of grace, and the session once there is one
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    @property
    def pid(self) -> int | None:
        """The id of its process, or None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def sessions(self) -> list[int]:
        """The ids of the programs that run."""
        return [session for _, session in self._programs.values() if session is not None]

    @contextlib.contextmanager
    def guarding(self, grace: float) -> Iterator[str]:
        """See to it that a program's session ends with this process, ``grace`` seconds from SIGTERM to SIGKILL.

        Gives a mark. The program is to be started with it in its environment, as `MARK`: by that it is found where this
        process is gone before it could tell, by `born`, which session it is.
        """
        mark = secrets.token_hex(8)
        with self._lock:
            self._programs[mark] = (grace, None)
            self._tell(_told(mark, grace, None))
        try:
            yield mark
        finally:
            with self._lock:
                self._programs.pop(mark, None)
                self._tell(f"- {mark}\n")

    def born(self, mark: str, session: int) -> None:
        """Tell which session it is."""
        with self._lock:
            grace, _ = self._programs[mark]
            self._programs[mark] = (grace, session)
            self._tell(_told(mark, grace, session))

    def forget(self) -> None:
        """Part with the watchdog's process, as this process does when it ends, and a child that it has forked."""
        if self._process is not None:
            _pipe_of(self._process).close()
            self._process.returncode = 0  # nobody waits for it
        self._begin()  # with a new lock: in a child, another thread of the parent's may have held that one

    def _tell(self, line: str) -> None:
        if self._process is None:
            if self._programs:
                self._start()
            return
        self._unread += line.encode()
        if not self._write(self._process) or len(self._unread) > MOST_UNREAD:
            self._replace(self._process)

    def _replace(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()  # before the pipe is closed, or it would take this process for gone
        process.wait()
        _pipe_of(process).close()
        self._process = None
        self._start()
        logger.warning("the watchdog %d was gone, or stood still; another one is started", process.pid)

    def _write(self, process: subprocess.Popen[bytes]) -> bool:
        """Write what the pipe takes; tell whether there is somebody to read it."""
        if process.poll() is not None:
            return False  # where SIGPIPE is not ignored, as usual in Python, to write would end this process
        try:
            self._unread = self._unread[os.write(_pipe_of(process).fileno(), self._unread) :]
        except BlockingIOError:
            pass  # it goes with the next line
        except OSError:
            return False
        return True

    def _start(self) -> None:
        # A program that names its interpreter does so there, and has loaded it: that takes longer than all of the rest.
        spawn = sys.modules.get("multiprocessing.spawn")
        executable = sys.executable if spawn is None else spawn.get_executable()
        if not executable or getattr(sys, "frozen", False):
            return  # this program is no interpreter that could be started
        flags = "-ISB" if sys.dont_write_bytecode else "-IS"  # -I passes over the environment, where that may be said
        argv = [os.fsdecode(executable), flags, "-c", BOOT, os.path.dirname(__file__), str(os.getpid()), NAME]
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        try:
            process = subprocess.Popen(
                argv, stdin=pipe, stdout=null, stderr=null, bufsize=0, cwd="/", start_new_session=True
            )
        except OSError as exc:
            logger.warning("no watchdog could be started: programs will outlive this process if it is killed: %s", exc)
            return
        os.set_blocking(_pipe_of(process).fileno(), False)
        self._process = process
        self._unread = "".join(_told(mark, *program) for mark, program in self._programs.items()).encode()
        self._write(process)


def _told(mark: str, grace: float, session: int | None) -> str:
    return f"? {mark} {grace!r}\n" if session is None else f"+ {mark} {grace!r} {session}\n"


def _pipe_of(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


watchdog: Final = Watchdog()
"""The one of this process."""

atexit.register(watchdog.forget)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=watchdog.forget)
