"""A program with all that it starts: what counts as living, and that no stranger is ever signalled."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import runpy
import signal
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from jobtrio import _processes, _program_session, _running_program
from jobtrio._processes import began_at, living_in_session
from jobtrio._program_session import ProgramSession
from jobtrio._running_program import RunningProgram

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

STUBBORN = "trap '' TERM; echo up; while :; do sleep 0.01; done"

IN_TWO_GROUPS = "import os, time; os.fork() or (os.setpgid(0, 0), print('up', flush=True)); time.sleep(100)"

BROKEN = {"nothing": ("jobtrio-no-such-program",), "failing": ("false",)}
"""What lists no process."""

STRANGERS = pytest.mark.parametrize(
    ("system", "told_by"), [("descriptors", "began_at"), ("listing", "session_of")], indirect=["system"]
)
"""By what it is seen that a number is another process's by now."""


def shell(script: str) -> RunningProgram:
    return RunningProgram(["sh", "-c", script], env=dict(os.environ))


@pytest.fixture(autouse=True)
def no_open_files() -> Iterator[None]:
    """Fail a test that leaves a descriptor open."""
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


def missing(*args: Any) -> Any:
    raise FileNotFoundError(errno.ENOENT, "No such file or directory")


def exhausted(*args: Any) -> Any:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test as on Linux, on a system with `ps` alone, or where no process can be listed."""
    if request.param != "descriptors":
        for module in (_processes, _program_session):
            monkeypatch.setattr(module, "HAS_PROC", False)
        monkeypatch.setattr(_processes, "open", missing, raising=False)
        monkeypatch.delattr(os, "pidfd_open")
    if request.param in BROKEN:
        monkeypatch.setattr(_processes, "LISTING", BROKEN[request.param])


@pytest.mark.parametrize("system", ["descriptors", "listing", "nothing", "failing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_program_that_ignores_sigterm_is_killed() -> None:
    """On every system the program is asked first, killed after the grace, and reaped."""
    with shell(STUBBORN) as program:
        assert program.stdout.read(3) == b"up\n"
        assert program.id in program.living()
        await program.end(grace=0.05)
        assert program.living() == []
        assert program.reap() == -signal.SIGKILL


@pytest.mark.parametrize("system", ["descriptors", "listing", "nothing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_program_that_ends_by_itself() -> None:
    """On every system the end of the program is noticed, and its exit code is its own."""
    with shell("exit 3") as program:
        await program.wait_exited()
        await program.end(grace=10)
        assert program.reap() == 3


@pytest.mark.parametrize("system", ["descriptors", "listing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_rest_of_the_session_is_listed() -> None:
    """Where processes can be listed, what the program leaves behind has its time and its end."""
    with shell(f"({STUBBORN}) & exit 0") as program:
        await program.wait_exited()
        assert program.stdout.read(3) == b"up\n"
        assert program.living()
        await program.end(grace=0.05)
        assert program.living() == []
        assert program.reap() == 0
        assert program.stdout.read() == b""


@pytest.mark.parametrize("system", ["descriptors", "listing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_group_of_its_own_within_the_session() -> None:
    """Where processes can be listed, one that left the group but not the session is ended too."""
    with RunningProgram([sys.executable, "-SEc", IN_TWO_GROUPS], env={}) as program:
        assert program.stdout.read(3) == b"up\n"
        assert {os.getpgid(pid) for pid in program.living()} > {program.id}
        await program.end(grace=10)
        assert program.reap() == -signal.SIGTERM
        assert program.stdout.read() == b""


@pytest.mark.parametrize(("opened", "living"), [(exhausted, 2), (missing, 0)])
async def test_what_can_not_be_looked_at_lives(opened: Any, living: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that can't be looked at is taken for living, and hides no other; one that is gone is not."""
    with RunningProgram([sys.executable, "-SEc", IN_TWO_GROUPS], env={}) as program:
        assert program.stdout.read(3) == b"up\n"
        with monkeypatch.context() as patch:
            patch.setattr(_processes, "open", opened, raising=False)
            assert len(program.living()) == living
        await program.end(grace=10)
        assert program.reap() == -signal.SIGTERM


@pytest.mark.parametrize("system", ["descriptors", "listing", "nothing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_wait_for_exit_can_be_cancelled() -> None:
    """Giving up the wait leaves the program as it is."""
    with shell("echo up; exec sleep 100") as program:
        assert program.stdout.read(3) == b"up\n"
        with trio.move_on_after(0.01) as scope:
            await program.wait_exited()
        assert scope.cancelled_caught
        assert program.living() == [program.id]
        await program.end(grace=10)
        assert program.reap() == -signal.SIGTERM


@pytest.mark.parametrize("system", ["descriptors", "listing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_threads_of_others_hold_up_nothing() -> None:
    """A program is ended, and its end is seen, also where all of Trio's threads are in use."""
    limiter = trio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    with shell("exec sleep 100") as program:
        async with trio.open_nursery() as nursery, limiter:
            nursery.start_soon(program.end, 10)
            with trio.fail_after(60):
                await program.wait_exited()
        assert program.reap() == -signal.SIGTERM


@pytest.mark.parametrize("has_waitid", [True, False])
@pytest.mark.parametrize("system", ["listing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_waiting_without_descriptors(has_waitid: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All processes are listed again and again only where the system can't be asked about the one."""
    seen = []
    living = RunningProgram.living

    def look(program: RunningProgram) -> list[int]:
        seen.append(program.id)
        return living(program)

    monkeypatch.setattr(RunningProgram, "living", look)
    if not has_waitid:
        monkeypatch.delattr(os, "waitid")
    with shell("exit 3") as program:
        await program.wait_exited()
        assert bool(seen) is not has_waitid
        await program.end(grace=10)
        assert program.reap() == 3


PAUSES = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.05, 0.05]
"""Seconds between looks, at first."""


@pytest.mark.parametrize("system", ["listing"], indirect=True)
@pytest.mark.usefixtures("system")
async def test_pauses_while_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that has to be looked at again and again is so ever more seldom: it may run for days."""
    pauses: list[float] = []
    looks = iter([*["running"] * (len(PAUSES) - 1), "ended"])
    with shell("exit 0") as program:
        with monkeypatch.context() as patch:
            patch.setattr(_running_program, "time", SimpleNamespace(sleep=pauses.append))
            patch.setattr(_running_program, "look_at", lambda child: next(looks))
            await program.wait_exited()
    assert pauses == PAUSES


def test_pauses_until_the_session_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes its time to end is looked at ever more seldom, and not beyond its grace."""
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append, monotonic=lambda: sum(pauses))
    monkeypatch.setattr(_program_session, "time", clock)
    session = ProgramSession(os.getpid())
    monkeypatch.setattr(session, "living", lambda: [session.id])
    with no_signals(monkeypatch, error=ProcessLookupError):
        assert session.end_by(grace=1.0) == [session.id]
    assert pauses[: len(PAUSES)] == PAUSES
    assert sum(pauses) == pytest.approx(1.0 + _program_session.KILL_LIMIT)


async def test_first_thread_may_end_before_the_process() -> None:
    """A process whose first thread has ended looks like a zombie and yet lives."""
    script = (
        "import ctypes, threading, time\n"
        "def rest():\n"
        "    while ') Z' not in open('/proc/self/stat').read(): time.sleep(0.001)\n"
        "    print('up', flush=True); time.sleep(100)\n"
        "threading.Thread(target=rest).start(); ctypes.CDLL(None).pthread_exit(None)"
    )
    with RunningProgram([sys.executable, "-SEc", script], env={}) as program:
        assert program.stdout.read(3) == b"up\n"
        assert program.living() == [program.id]
        await program.end(grace=10)
        assert program.reap() == -signal.SIGTERM


async def test_nothing_is_listed_while_the_program_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's grace costs no look at all processes of the machine: many programs end at one time."""
    seen = []
    living, send_signal = RunningProgram.living, RunningProgram.send_signal

    def look(program: RunningProgram) -> list[int]:
        seen.append("look")
        return living(program)

    def signalled(program: RunningProgram, *numbers: int) -> None:
        send_signal(program, *numbers)
        seen.append("sent")

    with shell(STUBBORN) as program:
        assert program.stdout.read(3) == b"up\n"
        monkeypatch.setattr(RunningProgram, "living", look)
        monkeypatch.setattr(RunningProgram, "send_signal", signalled)
        await program.end(grace=0.05)
    assert seen[: seen.index("sent") + 3] == ["look", "sent", "look", "sent"]  # each signal goes to what is listed


def reap(program: RunningProgram) -> None:
    """Take the exit code from under the program's nose."""
    os.waitpid(program.id, 0)


SIGNALLING = ("killpg", "kill", "pidfd_send_signal")


@contextlib.contextmanager
def no_signals(monkeypatch: pytest.MonkeyPatch, *calls: str, error: type[Exception] = AssertionError) -> Iterator[None]:
    """Let the calls that send signals, or those that are named, fail."""

    def fail(*args: Any) -> None:
        raise error(f"a signal was sent: {args}")

    with monkeypatch.context() as patch:
        for name in calls or SIGNALLING:
            patch.setattr(signal if name == "pidfd_send_signal" else os, name, fail)
        yield


async def test_listing_that_is_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was listed may be gone by now, or a stranger; what is in the program's group gets a signal with that."""
    with shell("exit 0") as gone:
        await gone.wait_exited()
        gone.reap()
    with shell("exec sleep 100") as stranger, shell("exec sleep 100") as program:
        monkeypatch.setattr(program, "living", lambda: [gone.id, stranger.id, program.id])
        with no_signals(monkeypatch, "kill", "pidfd_send_signal"):
            program.send_signal(signal.SIGTERM)
        await program.wait_exited()
        assert program.reap() == -signal.SIGTERM


@pytest.mark.parametrize("error", [ProcessLookupError, PermissionError])
async def test_what_cannot_be_signalled(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended before its signal comes, or is another user's by now, keeps nobody from the end of the rest."""
    with RunningProgram([sys.executable, "-SEc", IN_TWO_GROUPS], env={}) as program:
        assert program.stdout.read(3) == b"up\n"
        with no_signals(monkeypatch, error=error):
            program.send_signal(signal.SIGTERM)
        with no_signals(monkeypatch, "kill"):  # it is told by a descriptor, which no stranger can get hold of
            await program.end(grace=10)
        assert program.reap() == -signal.SIGTERM


@STRANGERS
@pytest.mark.usefixtures("system")
async def test_session_of_somebody_elses_child(told_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not the program's parent can end its session too, but for a stranger's that has the same number."""
    with shell("exec sleep 100") as program:
        session = ProgramSession(program.id)
        with no_signals(monkeypatch), monkeypatch.context() as patch:
            patch.setattr(_program_session, told_by, lambda pid: "another")
            session.send_signal(signal.SIGKILL)
        session.send_signal(signal.SIGTERM)
        await program.wait_exited()
        assert program.reap() == -signal.SIGTERM


def test_when_a_process_began() -> None:
    """A later process has begun later, by a count that tells it from one that had its number before."""
    with shell("exit 0") as program:
        own, later = (int(began_at(pid) or 0) for pid in (os.getpid(), program.id))
    assert 0 < own < later


def give_number_to_another_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_running_program, "look_at", lambda child: "running")


async def test_no_signal_after_the_program_was_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the id may be another's nothing is signalled any more."""
    with shell("exit 0") as program:
        await program.wait_exited()
        assert program.reap() == 0
        give_number_to_another_child(monkeypatch)
        with no_signals(monkeypatch):
            program.send_signal(signal.SIGKILL)
            await program.end(grace=0)


async def test_no_signal_after_somebody_else_reaped_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that something else has waited for is not signalled, and its lost exit code is no success."""
    with shell("exit 0") as program:
        await program.wait_exited()
        reap(program)
        with no_signals(monkeypatch):
            await program.end(grace=0)
        with pytest.raises(RuntimeError, match=r"exit code of process .* is lost"):
            program.reap()
        give_number_to_another_child(monkeypatch)
        with no_signals(monkeypatch):
            program.send_signal(signal.SIGKILL)


@STRANGERS
@pytest.mark.usefixtures("system")
async def test_what_a_program_that_somebody_else_reaped_has_left(told_by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that waits for all children, or ignores them, costs the exit code alone: nothing is left running."""
    with shell(f"({STUBBORN}) & exit 0") as program:
        await program.wait_exited()
        assert program.stdout.read(3) == b"up\n"
        reap(program)
        assert program.living()
        with no_signals(monkeypatch), monkeypatch.context() as patch:
            patch.setattr(_program_session, told_by, lambda pid: "another")
            program.send_signal(signal.SIGKILL)
        await program.end(grace=0.05)
        assert program.living() == []
        with pytest.raises(RuntimeError, match="is lost"):
            program.reap()


async def test_program_that_somebody_else_reaped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left running either where a program was waited for before its start came back."""

    def reap_first(pid: int) -> int | None:
        os.waitpid(pid, 0)
        return _processes.open_pidfd(pid)

    monkeypatch.setattr(_running_program, "open_pidfd", reap_first)
    with shell(f"({STUBBORN}) & exit 0") as program:
        await program.wait_exited()
        await program.end(grace=0.05)
        assert program.living() == []
        with pytest.raises(RuntimeError, match="is lost"):
            program.reap()
    assert living_in_session(program.id) == []


async def test_running_program_is_not_reaped() -> None:
    """Asking too early for the exit code raises rather than blocks."""
    with shell("exec sleep 100") as program:
        with pytest.raises(RuntimeError, match="has not ended"):
            program.reap()
        await program.end(grace=10)


async def test_block_left_early_kills_the_program() -> None:
    """Leaving the block without `end`, as an internal error might, leaves nothing running."""
    with shell("echo up; exec sleep 100") as program:
        assert program.stdout.read(3) == b"up\n"
    assert program.living() == []
    with pytest.raises(ChildProcessError):
        reap(program)


def test_block_left_early_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """What outlives SIGKILL does not hang who leaves the block without `end` either."""
    monkeypatch.setattr(_running_program, "LAST_LIMIT", 0.01)
    with shell("exec sleep 100") as program:
        monkeypatch.setattr(program, "send_signal", lambda number: None)
    os.kill(program.id, signal.SIGKILL)
    os.waitid(os.P_PID, program.id, os.WEXITED | os.WNOWAIT)
    assert program.reap() == -signal.SIGKILL


async def test_survivors_are_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """What outlives SIGKILL does not hang the caller, and a warning names it."""
    monkeypatch.setattr(_program_session, "KILL_LIMIT", 0.01)
    with shell("exit 0") as program:
        await program.wait_exited()
        monkeypatch.setattr(program, "living", lambda: [12345])
        monkeypatch.setattr(os, "getpgid", lambda pid: program.id)
        await program.end(grace=0)
    assert "processes [12345] have outlived SIGKILL" in caplog.text


async def test_survivors_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What outlives SIGKILL is named and does not hang the caller there either; others have their turns meanwhile."""

    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_running_program, "KILL_LIMIT", 0.01)
    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    with shell("exit 0") as program:
        await program.wait_exited()
        monkeypatch.setattr(program, "living", lambda: [12345])
        monkeypatch.setattr(os, "getpgid", lambda pid: program.id)
        with trio.testing.assert_checkpoints():
            await program.end(grace=0)
    assert "processes [12345] have outlived SIGKILL" in caplog.text


@pytest.mark.parametrize("calls", [[(os, "listdir")], [(os, "pidfd_open"), (_processes, "open")]])
async def test_no_descriptor_left(calls: list[tuple[Any, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is out of descriptors still ends its programs, the last one that it could start too."""
    monkeypatch.setattr(_program_session, "KILL_LIMIT", 0.05)  # it may not see by itself that nobody is left
    for module, name in calls:
        monkeypatch.setattr(module, name, exhausted, raising=False)
    with shell(STUBBORN) as program:
        assert program.stdout.read(3) == b"up\n"
        await program.end(grace=0.05)
        await program.wait_exited()
        assert program.reap() == -signal.SIGKILL


async def test_what_no_listing_shows_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL goes to the group even where nothing of it was seen: it may be newer than the listing."""
    with shell(STUBBORN) as program:
        assert program.stdout.read(3) == b"up\n"
        monkeypatch.setattr(program, "living", list)
        await program.end(grace=0)
        await program.wait_exited()
        assert program.reap() == -signal.SIGKILL


def test_failed_start_leaves_nothing_open() -> None:
    """A program that can't be started costs no descriptor."""
    with pytest.raises(FileNotFoundError):
        RunningProgram(["jobtrio-no-such-program"], env={})


async def test_listing_of_another_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where /proc is another PID namespace's, no process in it is taken for one of the program's."""
    monkeypatch.setattr(_processes, "HAS_PROC", False)
    monkeypatch.setattr(_processes, "IS_FOREIGN", True, raising=False)
    with shell("exit 3") as program:
        await program.wait_exited()
        monkeypatch.setattr(_processes, "LISTING", ("echo", f"{program.id} S"))
        assert program.living() == []
        await program.end(grace=10)
        assert program.reap() == 3


def test_proc_of_another_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers in /proc count only where this process has its own there."""
    assert _processes._finds_us()
    number = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: number)
    assert not _processes._finds_us()


@pytest.mark.parametrize("opened", [missing, lambda *args: io.BytesIO(b"another system's\n")])
def test_no_proc(opened: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, or one that says something else, it is passed over."""
    monkeypatch.setattr(_processes, "open", opened, raising=False)
    assert not _processes._finds_us()


@pytest.mark.parametrize("is_there", [True, False])
def test_proc_that_does_not_show_this_process(is_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is another namespace's, which `ps` lists too; where there is no /proc at all, `ps` lists our own."""
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", missing)
        patch.setattr(os.path, "exists", lambda path: is_there)
        loaded = runpy.run_path(_processes.__file__)
    assert not loaded["HAS_PROC"]
    assert loaded["IS_FOREIGN"] is is_there


def test_parents() -> None:
    """Each process is listed with its parent."""
    assert _processes.parents_of_all()[os.getpid()] == os.getppid()


PS = r"""#!/bin/sh
case "$*" in
    "-A -o pid= -o ppid=") printf "    1     0\n  300     1\n" ;;
    "-A -o pid= -o stat=") printf "    1 Ss\n  300 Z\n  400 R+\n" ;;
    *) exit 1 ;;
esac
"""


def test_listing_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no /proc, ps lists all processes, with their parents, or without zombies."""
    ps = tmp_path / "ps"
    ps.write_text(PS)
    ps.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(_processes, "HAS_PROC", False)
    monkeypatch.setattr(_processes, "session_of", lambda pid: 7)
    assert _processes.parents_of_all() == {1: 0, 300: 1}
    assert living_in_session(7) == [1, 400]
