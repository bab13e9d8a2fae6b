"""A program as the command sees it: exit codes, and the words for what became of it."""

from __future__ import annotations

import errno
import os
import signal

import pytest

import jobtrio
from jobtrio import _processes
from jobtrio._running_program import RunningProgram
from jobtrio._watchdog import watchdog
from jobtrio.cli import _endings, _program
from jobtrio.executors import run_command


async def fate_of(exc: Exception, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, int]:
    """Return exit code, summary and number of attempts of a program whose every attempt ends with ``exc``."""
    attempts = 0

    async def run_command(job: jobtrio.JobContext) -> None:
        nonlocal attempts
        attempts += 1
        raise exc

    monkeypatch.setattr(_program, "run_command", run_command)
    async with jobtrio.open_registry(_program.programs) as registry:
        policy = jobtrio.RetryPolicy(max_attempts=2, initial=0)
        job = await registry.submit("run_command", {"argv": ["make"]}, retry=policy)
        outcome = await job.wait()
    assert isinstance(outcome, jobtrio.Failed)
    summary = _endings.summary(outcome, seconds=1.5, attempts=job.record.attempt, lines=0)
    return _endings.exit_code(outcome), summary, attempts


@pytest.mark.parametrize(
    ("script", "code", "words"),
    [
        ("exit 2", 2, "failed with exit code 2"),
        ("kill -SEGV $$", 139, "killed by SIGSEGV"),
        (f"kill -{signal.SIGRTMIN + 1} $$", 128 + signal.SIGRTMIN + 1, f"killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
async def test_program_that_failed(script: str, code: int, words: str) -> None:
    """Exit codes are the program's, or 128 and the signal's number, which is shown where it has no name."""
    async with jobtrio.open_registry(_program.programs) as registry:
        job = await registry.submit("run_command", {"argv": ["sh", "-c", script]})
        outcome = await job.wait()
    assert _endings.exit_code(outcome) == code
    summary = _endings.summary(outcome, seconds=1.5, attempts=2, lines=0)
    assert summary == f"jobtrio: {words} after 1.5 s, 2 attempts, 0 lines"


@pytest.mark.parametrize(("program", "code"), [("no-such-program-here", 127), ("/", 126)])
async def test_program_that_an_executor_of_the_name_does_not_start(program: str, code: int) -> None:
    """The exit codes are the same where a worker has registered `run_command` as it is."""
    async with jobtrio.open_registry() as registry:
        outcome = await (await registry.submit(run_command, {"argv": [program]})).wait()
    assert _endings.exit_code(outcome) == code


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
    assert await fate_of(exc, monkeypatch) == (code, "jobtrio: can't run 'make': no luck", attempts)


async def test_folder_that_cannot_be_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is the folder that keeps a program from starting, the folder is named."""
    exc = PermissionError(errno.EACCES, "Permission denied", "/closed")
    assert await fate_of(exc, monkeypatch) == (126, "jobtrio: can't run 'make' in '/closed': Permission denied", 1)


async def test_no_descriptor_for_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for a program's input is no folder that it is run in."""
    exc = OSError(errno.EMFILE, "Too many open files", os.devnull)
    assert await fate_of(exc, monkeypatch) == (126, "jobtrio: can't run 'make': Too many open files", 2)


async def test_fault_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is neither the program's failure nor its start is shown as it is, with 1."""
    exc = RuntimeError("the exit code is lost")
    summary = "jobtrio: failed after 1.5 s, 2 attempts, 0 lines: RuntimeError: the exit code is lost"
    assert await fate_of(exc, monkeypatch) == (1, summary, 2)


async def test_error_that_only_looks_like_a_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that says what a failed program's would is not taken for one."""
    exc = RuntimeError("'make' exited with 7")
    assert (await fate_of(exc, monkeypatch))[0] == 1


async def test_kill_where_nothing_lists_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second Ctrl-C kills the programs that run here also where no process can be listed."""
    monkeypatch.setattr(_processes, "HAS_PROC", False)
    monkeypatch.setattr(_processes, "PARENTS", ("jobtrio-no-such-program",))
    with watchdog.guarding(5.0) as mark, RunningProgram(["sleep", "1000"], env=dict(os.environ)) as group:
        watchdog.born(mark, group.id)
        _program.kill()
        await group.wait_exited()
        assert group.reap() == -signal.SIGKILL
