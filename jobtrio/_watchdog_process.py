"""The watchdog's process: ends the programs of a process that is gone.

It reads from a pipe which programs are about to be started, which run, and which have ended. When the pipe ends, nobody
is there any more to end the others. It imports nothing but the standard library, and is started without the package
that it is in.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING

from jobtrio._processes import HAS_PROC, sessions_with
from jobtrio._program_session import LONGEST_PAUSE, MARK, ProgramSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

READ_SIZE = 64 * 1024
LOOK_AFTER = 1.0
"""Seconds between two looks whether the other process is there: a child that it has forked may hold the pipe open."""

BIRTH_LIMIT = 1.0
"""Seconds in which a program that was about to be started is looked for."""

IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""What would end it together with the process that it outlives."""


def main(parent: int) -> None:
    """Look after the programs of a process until it is gone, and end those that are left then."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    expected: dict[bytes, float] = {}
    programs: dict[bytes, tuple[ProgramSession, float]] = {}
    for line in _lines(parent):
        kind, mark, *rest = line.split()
        expected.pop(mark, None)
        if kind == b"?":
            expected[mark] = float(rest[0])
        elif kind == b"+":
            programs[mark] = (ProgramSession(int(rest[1])), float(rest[0]))
        else:
            programs.pop(mark, None)
    _end(programs.values())
    _end(_found(expected))


def _end(programs: Iterable[tuple[ProgramSession, float]]) -> None:
    """End programs, each with so many seconds from SIGTERM to SIGKILL."""
    for program, grace in programs:
        try:
            threading.Thread(target=program.end_by, args=(grace,)).start()
        except RuntimeError:  # no thread can be started, perhaps because of these very programs
            program.end_by(0.0)


def _found(expected: Mapping[bytes, float]) -> Iterator[tuple[ProgramSession, float]]:
    """Yield the programs that were started when nobody could tell any more which they are."""
    end = time.monotonic() + BIRTH_LIMIT
    known = set()
    while expected and HAS_PROC:
        for session, mark in sessions_with(MARK):
            if mark in expected and session not in known:
                known.add(session)
                yield ProgramSession(session), expected[mark]
        if time.monotonic() > end:
            return
        time.sleep(LONGEST_PAUSE)


def _lines(parent: int) -> Iterator[bytes]:
    """Yield what is written to the pipe, line by line, until it ends or the process that writes is gone."""
    rest = b""
    while True:
        readable, _, _ = select.select([0], [], [], LOOK_AFTER)
        if readable:
            data = os.read(0, READ_SIZE)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            yield from lines
        elif os.getppid() != parent:
            return
