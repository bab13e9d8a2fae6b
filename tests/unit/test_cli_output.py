"""How what the command says is written, also where no thread can be started to write it."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from jobtrio.cli import _log
from jobtrio.cli._output import Output

if TYPE_CHECKING:
    from collections.abc import Iterator

LINES = "".join(f"line {n}\n" for n in range(20000))
"""More than a pipe holds."""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Return the two ends of a pipe."""
    ours, theirs = os.pipe()
    yield ours, theirs
    for fd in (ours, theirs):
        os.close(fd)


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let no thread be started, as where a job has started too many processes."""

    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch


async def read(fd: int, size: int) -> bytes:
    """Return so many bytes of a pipe."""
    data = b""
    while len(data) < size:
        await trio.lowlevel.wait_readable(fd)
        data += os.read(fd, size - len(data))
    return data


@pytest.mark.parametrize("blocking", [True, False])
async def test_no_thread_to_write_in(pipe: tuple[int, int], blocking: bool, no_threads: pytest.MonkeyPatch) -> None:
    """Where no thread can be started all is written nevertheless, and a reader that stalls holds up nobody else."""
    ours, theirs = pipe
    os.set_blocking(theirs, blocking)
    output = Output()
    no_threads.setitem(output._encodings, theirs, "utf-8")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(output.write, [(theirs, LINES)])
        await trio.testing.wait_all_tasks_blocked()
        assert await read(ours, len(LINES)) == LINES.encode()


async def test_reader_that_left_and_no_thread(pipe: tuple[int, int], no_threads: pytest.MonkeyPatch) -> None:
    """That the reader has left is seen without a thread, too."""
    ours, theirs = pipe
    output = Output()
    no_threads.setitem(output._encodings, theirs, "utf-8")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, ours)
    os.close(null)
    with pytest.raises(BrokenPipeError):
        await output.write([(theirs, LINES)])


def test_no_thread_to_log_in(pipe: tuple[int, int], no_threads: pytest.MonkeyPatch) -> None:
    """Where no thread can be started nothing that logs fails, and what it logged is shown with what follows."""
    ours, theirs = pipe
    no_threads.setattr(_log, "STDERR", theirs)
    no_threads.setattr(sys, "stderr", sys.__stderr__)
    handler = _log.StderrHandler()
    records = [logging.LogRecord("app", logging.WARNING, __file__, 1, text, None, None) for text in ("one", "two")]
    handler.emit(records[0])
    no_threads.undo()
    no_threads.setattr(_log, "STDERR", theirs)
    handler.emit(records[1])
    assert os.read(ours, 100) == b"one\ntwo\n"
