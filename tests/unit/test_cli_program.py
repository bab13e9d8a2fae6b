"""A program as the command sees it: exit codes, and the words for what became of it."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

import jobtrio
from jobtrio.cli import _program

if TYPE_CHECKING:
    from pathlib import Path


async def fate_of(exc: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, int]:
    """Return exit code, summary and number of attempts of a program whose every attempt ends with ``exc``."""
    attempts = 0

    async def run_command(job: jobtrio.JobContext) -> None:
        nonlocal attempts
        attempts += 1
        raise exc

    monkeypatch.setattr(_program, "run_command", run_command)
    program = _program.Program("make")
    async with jobtrio.open_registry() as registry:
        policy = jobtrio.RetryPolicy(max_attempts=2, initial=0)
        job = await registry.submit(program.attempt, retry=policy)
        outcome = await job.wait()
    assert isinstance(outcome, jobtrio.Failed)
    attempt = job.record.attempt
    return program.exit_code(attempt, outcome.error), program.summary(attempt, outcome, 1.5, 0), attempts


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, "0.00 s"), (0.25, "0.25 s"), (1.0, "1.0 s"), (59.9, "59.9 s"), (75, "1 min 15 s"), (119.7, "2 min 0 s")],
)
def test_duration(seconds: float, shown: str) -> None:
    """A summary shows of a duration what matters at its size."""
    summary = _program.Program("make").summary(1, jobtrio.Completed(0), seconds, 1)
    assert summary == f"jobtrio: completed in {shown}, 1 attempt, 1 line"


@pytest.mark.parametrize(
    ("returncode", "code", "words"),
    [
        (2, 2, "failed with exit code 2"),
        (-signal.SIGSEGV, 139, "was killed by SIGSEGV"),
        (-(signal.SIGRTMIN + 1), 128 + signal.SIGRTMIN + 1, f"was killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
async def test_program_that_failed(returncode: int, code: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit codes are the program's, or 128 and the signal's number, which is shown where it has no name."""
    exc = jobtrio.CommandFailedError(returncode, "failed")
    summary = f"jobtrio: {words} after 1.5 s, 2 attempts, 0 lines"
    assert await fate_of(exc, monkeypatch) == (code, summary, 2)


@pytest.mark.parametrize(
    ("number", "code", "attempts"),
    [
        (errno.ENOENT, 127, 1),
        (errno.ENOTDIR, 127, 1),
        (errno.EACCES, 126, 1),
        (errno.ENOEXEC, 126, 1),
        (errno.E2BIG, 126, 1),
        (errno.EAGAIN, 126, 2),
        (errno.EMFILE, 126, 2),
    ],
)
async def test_program_that_does_not_start(
    number: int, code: int, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program is tried again only where scarcity kept it from starting: that may pass."""
    exc = OSError(number, "no luck", "make")
    got, summary, made = await fate_of(exc, monkeypatch)
    assert (got, made) == (code, attempts)
    assert "no luck" in summary


async def test_fault_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither the program's failure nor its start is shown as it is, with 1."""
    exc = RuntimeError("the exit code is lost")
    summary = "jobtrio: failed: the exit code is lost after 1.5 s, 2 attempts, 0 lines"
    assert await fate_of(exc, monkeypatch) == (1, summary, 2)


def test_parents() -> None:
    """Each process is listed with its parent."""
    assert _program._parents()[os.getpid()] == os.getppid()


def test_parents_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, ps lists them."""
    ps = tmp_path / "ps"
    ps.write_text('#!/bin/sh\ntest "$*" = "-A -o pid= -o ppid=" && printf "    1     0\\n  300     1\\n"\n')
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    assert _program._parents() == {1: 0, 300: 1}
