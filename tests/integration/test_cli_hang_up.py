"""Commands whose terminal is closed, as when a window is, or a connection is lost."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import store_shell
from store_shell import LIMIT

from jobtrio._processes import living_in_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from store_shell import Command, Shell

pytestmark = pytest.mark.once

PRINTING = """\
import jobtrio, store_jobs
executors = jobtrio.Executors()

@executors.register("talk")
async def talk(job):
    print("begins\\n", end="")  # in one piece, also where Python does not buffer it
    await job.send("begins")
    await store_jobs.appearance(job.payload)
    print("ends")
"""


class Terminal:
    """A terminal, and what runs on it."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._ours, self._theirs = pty.openpty()
        self._is_open = True

    def start(self, *args: str) -> Command:
        """Start a command as the leader of the terminal's session."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self._theirs)
        command = self._shell.start(*args, start_new_session=True, **streams)
        os.close(self._theirs)
        return command

    def start_in_background(self, *args: str) -> int:
        """Start a command from a shell that then ends, as at a logout; return its id."""
        script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp('sh', sys.argv[1:])"
        shell = ["sh", "-c", 'set -m; "$@" & echo "pid $!."; read line', "sh", sys.executable, "-m", "jobtrio", *args]
        streams: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), self._theirs)
        variables = {**os.environ, "PYTHONPATH": os.path.dirname(store_shell.__file__)}
        command = [sys.executable, "-c", script, *shell]
        leader = subprocess.Popen(command, cwd=self._shell.folder, env=variables, start_new_session=True, **streams)
        os.close(self._theirs)
        pid = self.read_until(b"jobtrio: worker ").partition(b"pid ")[2].partition(b".")[0]
        os.write(self._ours, b"\n")
        leader.wait(LIMIT)
        return int(pid)

    def read_until(self, part: bytes) -> bytes:
        """Read what is shown up to some part of it."""
        shown = b""
        while part not in shown:
            assert select.select([self._ours], [], [], LIMIT)[0], shown
            shown += os.read(self._ours, 4096)
        return shown

    def close(self) -> None:
        """Be gone, with a SIGHUP for the session's leader; what is written from then on fails."""
        if self._is_open:
            self._is_open = False
            os.close(self._ours)


@pytest.fixture
def terminal(shell: Shell) -> Iterator[Terminal]:
    """Return a terminal."""
    terminal = Terminal(shell)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0")])
def test_jobs_end(shell: Shell, terminal: Terminal, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A worker whose terminal is closed drains: what ends within the grace has ended, even where it prints."""
    (tmp_path / "talking.py").write_text(PRINTING)
    worker = terminal.start(*command, "talking:executors", "--grace", "3600")
    job = shell.submit("talk", "--payload", json.dumps(str(tmp_path / "gate")))
    later = shell.submit("talk", "--delay", "3600", "--payload", "null")
    terminal.read_until(b"begins\r\n")
    terminal.close()
    with pytest.raises(subprocess.TimeoutExpired):
        worker.process.wait(0.5)  # it waits for the job
    (tmp_path / "gate").touch()
    assert worker.process.wait(LIMIT) == 0
    assert shell.value("show", job)["job"]["state"] == "COMPLETED"
    assert shell.value("show", later)["job"]["state"] == "SCHEDULED"


def test_programs_end(shell: Shell, terminal: Terminal) -> None:
    """What does not end within the grace goes back to its queue, and its program is gone, whatever that ignores."""
    worker = terminal.start("worker", "jobtrio.cli:programs", "--grace", "0.1")
    script = "trap '' HUP TERM; echo $$; while :; do sleep 1; done"
    payload = {"argv": ["sh", "-c", script], "grace": 0.1}
    watcher = shell.start("submit", "run_command", json.dumps(payload), "--watch")
    program = int(watcher.line())
    job = watcher.error_with("submitted").split()[-1]
    terminal.read_until(b"started")
    terminal.close()
    assert worker.process.wait(LIMIT) == 0
    assert living_in_session(program) == []
    assert shell.value("show", job)["job"]["state"] == "QUEUED"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_twice(shell: Shell, tmp_path: Path, number: signal.Signals) -> None:
    """What shell and system both send, or ``timeout`` to process and group, does not hurry a worker; Ctrl-C does."""
    worker = shell.worker("--grace", "3600")
    watcher = shell.start("submit", "wait", json.dumps(str(tmp_path / "gate")), "--watch")
    assert watcher.line() == "attempt 1"
    worker.send(number)
    worker.error_with(f"{number.name}: starts nothing more")
    worker.send(number)
    with pytest.raises(subprocess.TimeoutExpired):
        worker.process.wait(0.5)
    worker.send(signal.SIGINT)
    worker.error_with("Ctrl-C: ends at once")
    worker.error_with("returned")
    assert worker.end()[0] == 0


@contextlib.contextmanager
def worker_by(shell: Shell, *starter: str) -> Iterator[subprocess.Popen[str]]:
    """Give a worker that works, and that another program has become."""
    command = [*starter, sys.executable, "-m", "jobtrio", "worker", "store_jobs:executors", "--store", shell.url]
    variables = {**os.environ, "PYTHONPATH": os.path.dirname(store_shell.__file__)}
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    worker = subprocess.Popen(command, cwd=shell.folder, env=variables, text=True, stdin=null, stdout=null, stderr=pipe)
    try:
        assert worker.stderr is not None
        while "jobtrio: worker " not in worker.stderr.readline():
            assert worker.poll() is None
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def test_without_heed(shell: Shell) -> None:
    """A worker that was started with SIGHUP ignored, as by nohup, goes on ignoring it."""
    with worker_by(shell, "nohup") as worker:
        worker.send_signal(signal.SIGHUP)
        assert shell.ask("submit", "echo", "--watch")[0] == 0
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=LIMIT)
        assert worker.returncode == 0
        assert "SIGHUP" not in err


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_silenced_and_heeded_all_the_same(shell: Shell, number: signal.Signals, name: str) -> None:
    """A worker started with SIGINT ignored, as by a script's ``&``, drains when it is sent one all the same."""
    with worker_by(shell, "sh", "-c", "trap '' INT TERM; exec \"$@\"", "sh") as worker:
        worker.send_signal(number)
        _, err = worker.communicate(timeout=LIMIT)
        assert worker.returncode == 0
        assert f"{name}: starts nothing more" in err


def test_in_the_background(shell: Shell, terminal: Terminal, tmp_path: Path) -> None:
    """A worker in the background gets no SIGHUP when its shell ends: it works on, and no job fails by printing."""
    (tmp_path / "talking.py").write_text(PRINTING)
    worker = terminal.start_in_background("worker", "talking:executors", "--store", shell.url)
    try:
        terminal.close()
        limit = time.monotonic() + LIMIT
        while {os.readlink(f"/proc/{worker}/fd/{fd}") for fd in (1, 2)} != {os.devnull}:
            assert time.monotonic() < limit
            time.sleep(0.01)
        assert shell.ask("submit", "talk", json.dumps(str(tmp_path)), "--watch")[0] == 0
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("store", [(), ("--store", "sqlite:///jobs.db")])
def test_run(terminal: Terminal, store: tuple[str, ...]) -> None:
    """A program whose terminal is closed is gone with what it started, whatever that ignores."""
    script = "trap '' HUP; (trap '' TERM HUP; while :; do sleep 1; done) & echo $$ .; while :; do sleep 1; done"
    command = terminal.start("run", "--grace", "0.1", *store, "--", "sh", "-c", script)
    words = terminal.read_until(b" .").split()
    program = int(words[words.index(b".") - 1])
    terminal.close()
    assert command.process.wait(LIMIT) in (129, 1)  # 1 where it was quicker to see that it can't write
    assert living_in_session(program) == []


def test_watch(shell: Shell, terminal: Terminal, tmp_path: Path) -> None:
    """A watcher whose terminal is closed ends by what it was told, and leaves the job alone."""
    shell.worker()
    job = shell.submit("wait", json.dumps(str(tmp_path / "gate")))
    command = terminal.start("watch", job)
    terminal.read_until(b"attempt 1")
    terminal.close()
    assert command.process.wait(LIMIT) == 129
    (tmp_path / "gate").touch()
    assert shell.ask("watch", job)[0] == 0
