"""A shell with a store: runs ``jobtrio`` commands on it, as processes where that makes a difference."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from contextlib import ExitStack, chdir, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from unittest import mock

from jobtrio.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

LIMIT = 60.0
"""Seconds after which a command that should have ended hangs."""

WAITING = re.compile(r"^jobtrio: the job (?:waits in queue|starts at|is held) .*\n", re.MULTILINE)
"""What a watcher says of a job that has not begun after two seconds, which on a busy machine is any job."""

LAUNCHER = """
import fcntl, os, signal, sys, termios
# A test run in the background of a shell ignores some signals, and so would all that it starts.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE):
    signal.signal(number, signal.SIG_DFL)
if os.isatty(0):
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "jobtrio", *sys.argv[1:]])
"""


class Command:
    """A running command.

    Attributes:
        stdout: The reading end of its standard output; None where an option leads that elsewhere.
        stderr: That of its standard error, likewise.
    """

    def __init__(self, args: tuple[str, ...], **options: Any) -> None:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.process = subprocess.Popen([sys.executable, "-c", LAUNCHER, *args], bufsize=0, **pipes)
        self.stdout: Any = self.process.stdout
        self.stderr: Any = self.process.stderr

    def line(self) -> str:
        """Return the next line of stdout, without its end."""
        line = bytes(self.stdout.readline())
        assert line.endswith(b"\n"), line
        return line.decode().removesuffix("\n")

    def error_with(self, part: str) -> str:
        """Read stderr up to a line that holds ``part``, and return that."""
        seen = []
        while line := bytes(self.stderr.readline()).decode():
            if part in line:
                return line.removesuffix("\n")
            seen.append(line)
        raise AssertionError(f"nothing with {part!r} in {seen}")

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def end(self) -> tuple[int, str, str]:
        """Wait for the end; return the exit code and the rest of stdout and stderr, without `WAITING`."""
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out.decode() if out else "", WAITING.sub("", err.decode()) if err else ""

    def close(self) -> None:
        """End what a failed test left."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def read_until(terminal: int, text: bytes | None) -> bytes:
    """Return what a terminal shows, up to ``text``; with None all there is."""
    shown = b""
    with suppress(OSError):  # how Linux says that nobody is at the other end any more
        while text is None or text not in shown:
            shown += os.read(terminal, 4096)
    return shown


@contextmanager
def _written(name: str, number: int) -> Iterator[Callable[[], str]]:
    """Give what returns all that is written to a descriptor of this process within the block, by whatever way."""
    with TemporaryFile() as file, open(number, "w", encoding="utf-8", closefd=False) as stream:
        before = os.dup(number)
        os.dup2(file.fileno(), number)
        try:
            with mock.patch.object(sys, name, stream):
                yield lambda: os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()
        finally:
            os.dup2(before, number)
            os.close(before)


@contextmanager
def _logging_anew() -> Iterator[None]:
    """Have the logging module be as in a new process within the block."""
    root = logging.root
    handlers, level = root.handlers, root.level
    root.handlers = []
    root.setLevel(logging.WARNING)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)


class Shell:
    """Runs commands on one store.

    Attributes:
        folder: The folder that they run in.
        url: The store's URL.
    """

    def __init__(self, folder: Path, stack: ExitStack, url: str = "sqlite:///jobs.db") -> None:
        self.folder = folder
        self.url = url
        self._stack = stack
        self._env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "JOBTRIO_STORE": self.url, "TERM": "xterm"}

    def start(self, *args: str, **options: Any) -> Command:
        """Start a command; it is gone when the test is over."""
        options = {"cwd": self.folder, "env": {**self._env, **options.pop("variables", {})}, **options}
        command = Command(args, **options)
        self._stack.callback(command.close)
        return command

    def run(self, *args: str, **options: Any) -> tuple[int, str, str]:
        """Run a command to its end; return exit code, stdout and stderr."""
        return self.start(*args, **options).end()

    def ask(self, *args: str, variables: Mapping[str, str] = {}) -> tuple[int, str, str]:
        """Run a command to its end as `run` does, but in this process: for what is not about the process itself.

        Commands are asked for by the hundred, and a process takes far longer to start than most of them take.
        """
        with ExitStack() as around:
            around.enter_context(chdir(self.folder))
            around.enter_context(mock.patch.dict(os.environ, {**self._env, **variables}))
            around.enter_context(mock.patch.object(sys, "path", [*sys.path]))
            out = around.enter_context(_written("stdout", 1))
            err = around.enter_context(_written("stderr", 2))
            around.enter_context(_logging_anew())
            try:
                code = main(args)
            except SystemExit as exc:
                code = int(exc.code or 0)
            for handler in logging.root.handlers:
                handler.flush()
            return code, out(), WAITING.sub("", err())

    def value(self, *args: str) -> Any:
        """Run a command with ``--json`` that succeeds; return the document that it prints."""
        code, out, err = self.ask(*args, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)

    def submit(self, *args: str) -> str:
        """Submit a job and return its id."""
        code, out, err = self.ask("submit", *args)
        assert (code, err) == (0, "")
        return out.removesuffix("\n")

    def worker(self, *args: str) -> Command:
        """Start a worker and wait until it works."""
        command = self.start("worker", "store_jobs:executors", *args)
        command.error_with("jobtrio: worker ")
        return command
