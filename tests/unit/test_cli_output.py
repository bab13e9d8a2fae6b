"""How what the command says is written, also where no thread can be started to write it."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from patience import wait_until

from jobtrio.cli import _log
from jobtrio.cli._output import Output, outlive_readers
from jobtrio.stores._outages import OUTAGE

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


def test_no_thread_to_log_in_until_the_end(pipe: tuple[int, int], no_threads: pytest.MonkeyPatch) -> None:
    """What was logged where no thread could be started is shown at the end of the process, if one can be then."""
    no_threads.setattr(sys, "stderr", sys.__stderr__)
    no_threads.setattr(threading.Event, "wait", None)  # there is nobody to wait for
    handler = _log.StderrHandler()
    handler.emit(record_of(0))
    handler.flush()
    no_threads.undo()
    no_threads.setattr(_log, "STDERR", pipe[1])
    handler.flush()
    assert os.read(pipe[0], 100) == b"line 0\n"


def test_what_is_logged_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run warns of its job and of its store's absence; of the file it tells, as any client does, errors alone."""
    options: dict[str, Any] = {}
    monkeypatch.setattr(logging, "basicConfig", options.update)
    _log.log_to_stderr(logging.ERROR, lasts=True)
    (handler,) = options["handlers"]
    records = {
        name: logging.LogRecord(name, level, __file__, 1, "", None, None)
        for name, level in (
            ("jobtrio", logging.WARNING),
            ("jobtrio.stores.sqlite", logging.WARNING),
            ("jobtrio.stores.redis", logging.ERROR),
            ("jobtrio.stores.postgres", logging.WARNING),
        )
    }
    vars(records["jobtrio.stores.postgres"])[OUTAGE] = True
    shown = [name for name, record in records.items() if handler.filter(record)]
    assert shown == ["jobtrio", "jobtrio.stores.redis", "jobtrio.stores.postgres"]
    assert options["level"] == logging.WARNING


def record_of(n: int) -> logging.LogRecord:
    """Return a record."""
    return logging.LogRecord("app", logging.WARNING, __file__, 1, f"line {n}", None, None)


@pytest.fixture
def stalled(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the end to read of a full pipe into which it is logged."""
    ours, theirs = pipe
    monkeypatch.setattr(_log, "STDERR", theirs)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while True:
            os.write(theirs, b"\n" * select.PIPE_BUF)
    return ours


def test_log_that_is_read_slowly(stalled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that goes on reading, yet slowly, holds up whoever logs for a small part of the time, and no less."""
    now = waited = 0.0
    wait = threading.Event.wait

    def read_a_little(event: threading.Event, seconds: float | None = None) -> bool:
        nonlocal now, waited
        if seconds is None:
            return wait(event)
        os.read(stalled, select.PIPE_BUF)
        is_set = wait(event, 0.01)
        now += seconds
        waited += seconds
        return is_set

    monkeypatch.setattr(_log, "monotonic", lambda: now)
    monkeypatch.setattr(threading.Event, "wait", read_a_little)
    handler = _log.StderrHandler()
    for n in range(200):
        handler.emit(record_of(n))
        now += 0.05
    assert _log.PATIENCE < waited <= _log.PATIENCE + _log.SHARE * now
    now += 3600
    waited = 0.0
    handler.emit(record_of(200))
    assert 0 < waited <= _log.PATIENCE  # however long nothing was logged


def test_log_that_is_too_long(stalled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a reader has stalled for long it is told how many lines are missing, and where."""
    monkeypatch.setattr(_log, "KEPT", 3)
    monkeypatch.setattr(_log, "PATIENCE", 0.0)
    handler = _log.StderrHandler()
    handler.emit(record_of(0))
    wait_until(handler._lines.empty)  # it is being written
    for n in range(1, 10):
        handler.emit(record_of(n))
    written = b""
    while b"line 3\n" not in written:
        written += os.read(stalled, select.PIPE_BUF)
    handler.emit(record_of(10))
    handler.flush()
    written += os.read(stalled, select.PIPE_BUF)
    assert written.decode().split("\n")[-7:] == [
        *(f"line {n}" for n in range(4)),
        "jobtrio: 6 lines came too quickly to be logged",
        "line 10",
        "",
    ]


def test_last_lines_of_a_log(stalled: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the process, a slow reader is waited for a moment; what was dropped is told also then."""
    monkeypatch.setattr(_log, "KEPT", 1)
    monkeypatch.setattr(_log, "PATIENCE", 0.0)
    handler = _log.StderrHandler()
    handler.emit(record_of(0))
    wait_until(handler._lines.empty)
    for n in range(1, 4):
        handler.emit(record_of(n))
    reader = threading.Thread(target=os.read, args=(stalled, 1024 * 1024))
    reader.start()
    handler.flush()
    reader.join()
    assert os.read(stalled, 1024).endswith(b"line 0\nline 1\njobtrio: 2 lines came too quickly to be logged\n")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return what is written of a log, which begins once whoever logs waits for it."""
    begun, wait, data = threading.Event(), threading.Event.wait, list[bytes]()

    def wait_for(event: threading.Event, seconds: float | None = None) -> bool:
        if seconds:
            begun.set()
        return wait(event, seconds)

    def write(fd: int, line: bytes) -> None:
        begun.wait()
        data.append(line)

    monkeypatch.setattr(threading.Event, "wait", wait_for)
    monkeypatch.setattr(_log, "write_now", write)
    monkeypatch.setattr(_log, "PATIENCE", 60.0)
    monkeypatch.setattr(_log, "LAST_WORD", 60.0)
    return data


def test_log_before_what_follows(written: list[bytes]) -> None:
    """What is logged is written before whoever logs goes on, and may say something else."""
    _log.StderrHandler().emit(record_of(0))
    assert written == [b"line 0\n"]


def test_last_line_of_a_log(written: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the process, a line that is just being written is waited for as well."""
    monkeypatch.setattr(_log, "PATIENCE", 0.0)
    handler = _log.StderrHandler()
    handler.emit(record_of(0))
    wait_until(handler._lines.empty)
    assert written == []
    handler.flush()
    assert written[0] == b"line 0\n"


def test_log_that_cannot_be_written(written: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """What can't be written, as on a full disk, is lost, and what is logged later is not."""

    def write_if_there_is_room(fd: int, line: bytes) -> None:
        written.append(line)
        if len(written) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_log, "write_now", write_if_there_is_room)
    handler = _log.StderrHandler()
    for n in range(2):
        handler.emit(record_of(n))
    assert written == [b"line 0\n", b"line 1\n"]


def test_log_of_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """A message and arguments that don't fit are told as the mistake that they are; whoever logs them does not fail."""
    log = logging.Logger("app")
    log.addHandler(_log.StderrHandler())
    log.warning("%d rows", "no")
    err = capsys.readouterr().err
    assert err.startswith("--- Logging error ---\n")
    assert "Message: '%d rows'\nArguments: ('no',)\n" in err


def test_log_from_within_the_log(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A finaliser or a signal's handler may log wherever it comes in whoever logs, and holds up nothing."""
    monkeypatch.setattr(_log, "STDERR", pipe[1])
    monkeypatch.setattr(_log, "PATIENCE", 0.01)
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    comes_at, has_come = 0, True
    while has_come:
        comes_at += 1
        has_come = _log_from_within(comes_at)
        written = b""
        while written.count(b"\n") < 2 + has_come:
            written += os.read(pipe[0], 100)
    assert comes_at > 10


def _log_from_within(comes_at: int) -> bool:
    """Log two lines, and another from within the n-th call that the second one makes; tell whether there was one."""
    handler = _log.StderrHandler()
    handler.handle(record_of(0))
    calls = 0

    def come(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += "call" in event
        if calls == comes_at:
            sys.setprofile(None)
            handler.handle(record_of(1))

    def log() -> None:
        sys.setprofile(come)
        handler.handle(record_of(2))
        sys.setprofile(None)

    thread = threading.Thread(target=log, daemon=True)  # one that hangs is not to hold up the tests
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), f"call {comes_at}"
    return calls >= comes_at


def test_streams_that_are_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    """What a program has put in the place of its streams stays, as where a test runs a worker in its own process."""
    before = sys.stdout, sys.stderr
    outlive_readers()
    assert (sys.stdout, sys.stderr) == before
    print("caught")
    assert capsys.readouterr().out == "caught\n"
