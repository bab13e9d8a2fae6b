"""The watchdog's process: ends the programs of a process that is gone.

It reads from a pipe which programs run, and which have ended. When the pipe ends, nobody is there any more to end the
others. It imports nothing but the standard library, and is started without the package that it is in.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING

from jobtrio._program_session import ProgramSession

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READ_SIZE = 64 * 1024
LOOK_AFTER = 1.0
"""Seconds between two looks whether the other process is there: a child that it has forked may hold the pipe open."""

IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
"""What would end it together with the process that it outlives."""


class _Program(ProgramSession):
    """A program that another process has started."""

    def __init__(self, session: int, grace: float) -> None:
        super().__init__(session)
        self.grace = grace


def main(parent: int) -> None:
    """Look after the programs of a process until it is gone, and end those that are left then."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    programs: dict[int, _Program] = {}
    for line in _lines(parent):
        kind, session, *rest = line.split()
        if kind == b"+":
            programs[int(session)] = _Program(int(session), float(rest[0]))
        else:
            programs.pop(int(session), None)
    _end(programs.values())


def _end(programs: Iterable[_Program]) -> None:
    for program in programs:
        try:
            threading.Thread(target=program.end_by, args=(program.grace,)).start()
        except RuntimeError:  # no thread can be started, perhaps because of these very programs
            program.end_by(0.0)


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
