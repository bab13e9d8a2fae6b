"""A test that failed while the machine stood still is run again: what a stall of seconds did is no one's fault.

Many tests need what they start to get on within some time, as each lease and each limit of an outage is one. On a
shared machine all of it may stand still for seconds: nothing runs, or no file is written. A thread beside the tests
notices that. A test that failed is run again only where it did, and what was run again is told at the end.

It is a plugin of pytest. It must not know any test.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

LATE = 0.5
"""Seconds by which something has to come too late to be called a standstill."""

TRIES = 3
"""How often a test is run at most."""

_PAUSE = 0.05
_PAUSES_PER_SYNC = 20
_NAME = "machine stood still"


class _Watch(threading.Thread):
    """Sleeps a little, writes a little now and then, and notes by how much the next time comes too late."""

    def __init__(self) -> None:
        super().__init__(name="standstill", daemon=True)
        self._seen: list[tuple[float, float]] = []

    def run(self) -> None:
        with tempfile.TemporaryFile() as file:
            turns = 0
            while True:
                due = time.monotonic() + _PAUSE
                time.sleep(_PAUSE)
                turns += 1
                if turns % _PAUSES_PER_SYNC == 0:
                    os.pwrite(file.fileno(), b".", 0)
                    os.fsync(file.fileno())
                if (now := time.monotonic()) - due > LATE:
                    self._seen.append((now, now - due))

    def longest_since(self, began: float) -> float:
        """Return the seconds of the longest standstill that ended after a time; 0 if there was none."""
        time.sleep(2 * _PAUSE)  # for one that has just ended to be seen
        return max((late for ended, late in list(self._seen) if ended > began), default=0.0)


_watch = _Watch()


def pytest_sessionstart() -> None:
    """Begin to watch."""
    if not _watch.is_alive():
        _watch.start()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test, and again where it failed beside a standstill."""
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for n in range(1, TRIES + 1):
        began = time.monotonic()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if n == TRIES or not any(report.failed for report in reports) or not (late := _watch.longest_since(began)):
            break
        item.user_properties.append((_NAME, f"{late:.1f} s"))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say which tests were run again."""
    again = {
        report.nodeid: [str(value) for name, value in report.user_properties if name == _NAME]
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport)
    }
    for nodeid, stalls in again.items():
        if stalls:
            terminalreporter.write_line(f"RUN AGAIN {nodeid} - the machine stood still for {', '.join(stalls)}")
