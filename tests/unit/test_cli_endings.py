"""How jobs end, in words and as exit codes."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import jobtrio
from jobtrio.cli import _endings, _log


def failed(kind: Any, type: str, message: str) -> jobtrio.Failed:
    """Return a failure."""
    return jobtrio.Failed(jobtrio.JobError(kind, type, message))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.00 s"),
        (0.25, "0.25 s"),
        (0.996, "1.0 s"),
        (1.0, "1.0 s"),
        (59.9, "59.9 s"),
        (59.96, "1 min 0 s"),
        (60, "1 min 0 s"),
        (75, "1 min 15 s"),
        (119.7, "2 min 0 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 0 min"),
        (3600, "1 h 0 min"),
        (7380, "2 h 3 min"),
    ],
)
def test_duration(seconds: float, shown: str) -> None:
    """A summary shows of a duration what matters at its size."""
    summary = _endings.summary(jobtrio.Completed(0), seconds=seconds, attempts=1, lines=1)
    assert summary == f"jobtrio: completed in {shown}, 1 attempt, 1 line"


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (jobtrio.Completed(3), 0, "completed in 2.0 s, 1 attempt"),
        (jobtrio.Cancelled(None), 125, "cancelled after 2.0 s, 1 attempt"),
        (jobtrio.Cancelled(""), 125, "cancelled after 2.0 s, 1 attempt"),
        (jobtrio.Cancelled("no\nneed"), 125, "cancelled after 2.0 s (no need), 1 attempt"),
        (failed("timeout", "TimedOut", "too long"), 124, "timed out after 2.0 s, 1 attempt"),
        (failed("exception", "KeyError", "'a'"), 1, "failed after 2.0 s, 1 attempt: KeyError: 'a'"),
        (failed("exception", "KeyError", ""), 1, "failed after 2.0 s, 1 attempt: KeyError"),
        (failed("gave_up", "GiveUp", "no use"), 1, "gave up after 2.0 s, 1 attempt: no use"),
        (failed("gave_up", "GiveUp", ""), 1, "gave up after 2.0 s, 1 attempt: GiveUp"),
        (failed("expired", "Expired", "not started"), 1, "expired after 2.0 s, 1 attempt: not started"),
        (failed("lost", "LeaseLost", "worker 'w'"), 1, "lost after 2.0 s, 1 attempt: worker 'w'"),
    ],
)
def test_ending(outcome: jobtrio.Outcome, code: int, words: str) -> None:
    """Every kind of ending has its exit code and its words, all in one line."""
    assert _endings.exit_code(outcome) == code
    assert _endings.summary(outcome, seconds=2.0, attempts=1) == f"jobtrio: {words}"


@pytest.mark.parametrize("code", [0, 256, 65536])
def test_failure_is_never_a_success(code: int) -> None:
    """An executor's own number that is no exit code, such as a status of `os.system`, does not end as 0."""
    message = f"'make' exited with {code}"
    outcome = failed("exception", "CommandFailedError", message)
    assert _endings.exit_code(outcome) == 1
    assert _endings.describe(outcome.error) == _endings.one_line(f"failed: CommandFailedError: {message}")


@pytest.mark.parametrize("which", ["SIGNONESUCH", "signal 0", "signal 128"])
def test_signal_that_is_not_known_here(which: str) -> None:
    """A signal of another system's is named as it is told."""
    outcome = failed("exception", "CommandFailedError", f"'make' was ended by {which}")
    assert _endings.exit_code(outcome) == 1
    assert _endings.describe(outcome.error) == f"failed: CommandFailedError: 'make' was ended by {which}"


def test_program_with_a_long_name() -> None:
    """However long a program's path is, it is said why it can't be run."""
    outcome = failed("gave_up", "ProgramMissingError", f"can't run '/{'d/' * 200}make': no such program")
    assert _endings.summary(outcome, seconds=0.1, attempts=1).endswith("/d/make': no such program")


def test_never_started() -> None:
    """A job that never started took no time."""
    summary = _endings.summary(jobtrio.Cancelled("x"), seconds=None, attempts=0)
    assert summary == "jobtrio: cancelled before it started (x), 0 attempts"


@pytest.mark.parametrize(
    ("outcome", "attempts", "words"),
    [
        (jobtrio.Completed(3), None, "completed"),
        (jobtrio.Completed(3), 1, "completed, 1 attempt"),
        (jobtrio.Cancelled("x"), None, "cancelled (x)"),
        (jobtrio.Cancelled("x"), 1, "cancelled (x), 1 attempt"),
        (failed("exception", "KeyError", "'a'"), 3, "failed, 3 attempts: KeyError: 'a'"),
        (failed("exception", "KeyError", "'a'"), None, "failed: KeyError: 'a'"),
        (failed("expired", "Expired", "too late"), None, "expired: too late"),
        (failed("expired", "Expired", "too late"), 0, "expired before it started, 0 attempts: too late"),
    ],
)
def test_unknown_time(outcome: jobtrio.Outcome, attempts: int | None, words: str) -> None:
    """What is not known is left out: only a job without an attempt ended before it started."""
    assert _endings.summary(outcome, seconds=None, attempts=attempts) == f"jobtrio: {words}"


def test_log() -> None:
    """What is logged holds nothing that a terminal would take for more than text."""
    said = "red \x1b[31m\x07"
    record = logging.makeLogRecord({"name": "jobtrio.websocket", "msg": "%s", "args": (said,)})
    assert _log.SpeakerFormatter().format(record) == "jobtrio: red \\x1b[31m\\x07"
    record = logging.makeLogRecord({"name": "app", "msg": "a", "exc_text": said})
    assert _log.SpeakerFormatter().format(record) == "app: a\n  red \\x1b[31m\\x07"


def test_the_time_in_a_log() -> None:
    """What a worker logs begins with the time, as its lines of jobs do."""
    record = logging.makeLogRecord({"name": "jobtrio.stores.sqlite", "msg": "the store is back", "created": 1e9})
    assert _log.SpeakerFormatter(dated=True).format(record) == "2001-09-09T01:46:40Z jobtrio: the store is back"


def test_a_logged_line_is_one() -> None:
    """What others say can't begin a line that looks as if jobtrio had logged it; other programs' lines are indented."""
    said = "gone\njobtrio: all is well"
    record = logging.makeLogRecord({"name": "jobtrio.sqlite", "msg": "%s", "args": (said,)})
    assert _log.SpeakerFormatter().format(record) == "jobtrio: gone\\njobtrio: all is well"
    record = logging.makeLogRecord({"name": "app", "msg": "a\njobtrio: all is well"})
    assert _log.SpeakerFormatter().format(record) == "app: a\n  jobtrio: all is well"


def test_one_line() -> None:
    """Text of others is one line of printable characters, shortened where it is long."""
    assert _endings.one_line("é\n\tb  c\x1b[31m") == "é b c\\x1b[31m"
    assert _endings.one_line("x" * 200) == "x" * 200
    assert _endings.one_line("x" * 300) == "x" * 199 + "…"
