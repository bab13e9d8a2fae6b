"""All processes of a program: those of the session that it leads, looked at and signalled without reaching a stranger.

It owns the safety of signalling. It must not know whose children they are, nor import more than the standard library:
the watchdog's process loads nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

from jobtrio._processes import HAS_PROC, began_at, living_in_session, look_at, open_pidfd, session_of

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "JOBTRIO_PROGRAM"
"""The variable in a program's environment by which it is found where nobody could tell its id."""

KILL_LIMIT = 5.0
"""Seconds to wait for processes that got SIGKILL: only one in an uninterruptible call outlives it."""

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds between two looks at what lives: the first, doubled each time up to the longest."""


class ProgramSession:
    """The session that a program leads.

    A session rather than a process group alone: ``timeout`` and a shell's job control make groups of their
    own in the midst of a script, and who asks the terminal for a password fails instead of being stopped.

    Attributes:
        id: The program's id, which names its group and its session.
    """

    def __init__(self, session: int) -> None:
        self.id = session
        self._began_at = began_at(session)

    def living(self) -> list[int]:
        """Return the ids of the session's processes. Zombies don't count: they only wait for their parent."""
        try:
            return living_in_session(self.id)
        except (OSError, subprocess.SubprocessError):
            # Nothing to list with, or no descriptor left for it: the program has to stand for its session.
            return [self.id] if look_at(self.id) in ("running", "unknown") else []

    def send_signal(self, *numbers: int) -> None:
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
        pidfd = open_pidfd(pid)
        try:
            # With the descriptor open the look and the signal are about the same process, or the
            # signal fails. Without one (not on Linux) microseconds lie between them.
            if session_of(pid) != self.id:
                return
            for number in numbers:
                if pidfd is None:
                    os.kill(pid, number)
                else:
                    signal.pidfd_send_signal(pidfd, number)
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _holds_id(self) -> bool:
        """Whether the id is still the program's, rather than a stranger's who was given the same number."""
        # While anybody lives in the session its number is given to no other process. So whoever has it now is its
        # leader, or the session was empty by then.
        if HAS_PROC:
            return began_at(self.id) in (self._began_at, None)
        return session_of(self.id) in (self.id, None)

    def end_by(self, grace: float, linger: float = 0.0) -> list[int]:
        """End all of the session, blocking; return the ids of what has outlived SIGKILL by `KILL_LIMIT`.

        Args:
            grace: Seconds from SIGTERM to SIGKILL.
            linger: Seconds before SIGTERM.
        """
        if not self._watch(linger):
            # A stopped process sees SIGTERM only once it goes on.
            self.send_signal(signal.SIGTERM, signal.SIGCONT)
            self._watch(grace)
        return [] if self._watch(KILL_LIMIT, repeat=signal.SIGKILL) else self.living()

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
            self.send_signal(number)
        # While the program itself runs nobody else need be looked for. A list of all processes costs milliseconds of
        # the interpreter's lock, and many programs may be in their grace at one time.
        return look_at(self.id) == "running" or bool(self.living())
