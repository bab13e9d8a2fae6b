"""The benchmarks' command: how it ends, and that it leaves nothing behind; and measures that need processes."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import pytest

from benchmarks._harness import Session
from benchmarks._stream_rows import measure_streams
from benchmarks.fleet.costs import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
LIMIT = 60.0


class Command:
    """``python -m benchmarks``, whose temporary files go to a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.files = folder / "files"
        self.files.mkdir()
        self.figures = folder / "figures.json"
        self._process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start it as a terminal does: in a group of its own."""
        command = [sys.executable, "-m", "benchmarks", "--json", str(self.figures), *arguments]
        environment = {**os.environ, "TMPDIR": str(self.files)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        return self._process

    def left(self) -> list[int]:
        """Return the processes that are there yet."""
        return [process.pid for process in psutil.process_iter() if _folder_of(process) == str(self.files)]

    def close(self) -> None:
        """End what is left."""
        for pid in self.left():
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.communicate()


def _folder_of(process: psutil.Process) -> str | None:
    try:
        folder: str | None = process.environ().get("TMPDIR")
    except psutil.Error:
        return None
    return folder


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Give the command, and end it behind the test."""
    command = Command(tmp_path)
    yield command
    command.close()


@pytest.mark.parametrize("name", ["stores", "websocket"])
def test_ctrl_c(command: Command, name: str) -> None:
    """Ctrl-C in the midst ends the command with 130 and one line; no process and no file is left."""
    process = command.start("--tiny", *[name] * 60)  # it is in the midst of them for longer than a machine stands still
    assert process.stdout is not None
    while " × " not in process.stdout.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=LIMIT)
    assert (process.returncode, said) == (130, f"\ninterrupted; figures so far: {command.figures}\n")
    assert '"rows": [\n' in command.figures.read_text(encoding="utf-8")
    assert list(command.files.iterdir()) == []
    end = time.monotonic() + LIMIT
    while command.left():
        assert time.monotonic() < end


@pytest.mark.parametrize("arguments", [("--list",), ("stores", "--tiny")])
def test_reader_that_leaves(command: Command, arguments: tuple[str, ...]) -> None:
    """Who reads the table may leave: the command ends without a word."""
    process = command.start(*arguments)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(LIMIT) == 128 + signal.SIGPIPE
    assert list(command.files.iterdir()) == []


async def test_rows_of_many_streams(tmp_path: Path) -> None:
    """Worker, watcher and server each have a row, beside the same jobs in memory; a server's time is shared by all."""
    seconds = itertools.count()
    session = Session(rounds=1, tiny=True)
    await measure_streams(session, f"sqlite:///{tmp_path / 'jobs.db'}", "any", lambda: float(next(seconds)))
    worker, watcher, server, late = session.rows
    assert [row.name.partition(", ")[2] for row in session.rows] == ["worker CPU", "watcher CPU", "server CPU", "p50"]
    assert worker.subject != watcher.subject
    assert server.subject.rounds == ((1 / 50,),)
    assert all(row.ratio is not None and row.ratio > 0 for row in (worker, watcher, server))
    assert (late.other, len(late.subject.rounds[0])) == (None, 50)


def test_processor_time_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """What processes of a server have used counts when they have ended, and one that ends at the look fails nothing."""
    others: list[psutil.Process] = []
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: others)
    server = Server(os.getpid())
    before = server.seconds()
    child = subprocess.Popen([sys.executable, "-c", "import time\nwhile time.process_time() < 0.1: pass"])
    others.append(psutil.Process(child.pid))
    assert child.wait(LIMIT) == 0
    assert server.seconds() >= before + 0.08
