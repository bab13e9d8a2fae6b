"""A program as a job: its output, its failure, its end, and that nothing is left of it."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
import trio.testing

import jobtrio
from jobtrio import _command
from jobtrio._command import ATTEMPT, JOB, run_command
from jobtrio._errors import CommandFailedError
from jobtrio._relay import OutputPipe, Relay
from jobtrio._watchdog import watchdog

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from jobtrio._context import JobContext

MARK = "JOBTRIO_TEST_MARK"


class FakeJob:
    """A job that keeps what is sent, and whose programs can be found by a mark in their environment."""

    def __init__(self, *argv: str, **payload: Any) -> None:
        self.mark = uuid.uuid4().hex
        self.payload = {"argv": list(argv), "env": {MARK: self.mark}, "grace": 10.0, **payload}
        self.id = "job"
        self.attempt = 1
        self.sent: list[dict[str, Any]] = []
        self._waiting = trio.lowlevel.ParkingLot()

    async def send(self, token: dict[str, Any]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self.sent.append(token)
        self._waiting.unpark_all()
        await trio.lowlevel.cancel_shielded_checkpoint()

    def send_nowait(self, token: dict[str, Any]) -> None:
        if "send" in vars(self):  # a test has its own, which may wait
            raise trio.WouldBlock
        self.sent.append(token)
        self._waiting.unpark_all()

    async def saw(self, line: str) -> None:
        while line not in [text for token in self.sent for text in token.values()]:
            await self._waiting.park()

    async def run(self) -> int:
        return await run_command(cast("JobContext", self))

    def stream(self, name: str) -> list[str]:
        return [token[name] for token in self.sent if name in token]

    def processes(self) -> list[int]:
        """Return the ids of the living processes that have the mark."""
        return [pid for pid in living() if f"{MARK}={self.mark}".encode() in environment(pid)]

    async def gone(self) -> None:
        """Wait until none of them lives."""
        with trio.fail_after(60):
            while self.processes():
                await trio.testing.wait_all_tasks_blocked(0.01)


def shell(script: str, **payload: Any) -> FakeJob:
    return FakeJob("sh", "-c", script, **payload)


def python(script: str, **payload: Any) -> FakeJob:
    return FakeJob(sys.executable, "-SEc", script, **payload)


def living() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                state = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state not in "ZX":
                yield int(name)


def environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


@asynccontextmanager
async def running(job: FakeJob) -> AsyncIterator[trio.CancelScope]:
    """Run the job beside the block; leaving the block waits for its end."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(job.run)
        yield nursery.cancel_scope


@pytest.fixture(autouse=True)
def no_open_files() -> Iterator[None]:
    """Fail a test that leaves a descriptor open."""
    watchdog.forget()  # which has one open while its process is there
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    watchdog.forget()
    assert sorted(os.listdir("/proc/self/fd")) == before


# -- output


async def test_lines_of_both_streams() -> None:
    """Each line is a token that says which stream it is from, and the result is 0."""
    job = shell("echo one; echo; echo 'two  '; echo oops >&2")
    assert await job.run() == 0
    assert job.stream("stdout") == ["one", "", "two  "]
    assert job.stream("stderr") == ["oops"]
    assert all(len(token) == 1 for token in job.sent)


async def test_last_line_without_newline() -> None:
    """What follows the last line end is a token too."""
    job = shell("printf 'one\\ntwo'; printf three >&2")
    await job.run()
    assert job.stream("stdout") == ["one", "two"]
    assert job.stream("stderr") == ["three"]


async def test_no_output() -> None:
    """A program that says nothing sends nothing."""
    job = FakeJob("true")
    assert await job.run() == 0
    assert job.sent == []


async def test_much_output_that_can_not_be_sent() -> None:
    """A program that goes on and on when nothing can be sent any more leaves others their turns."""

    async def send(token: dict[str, Any]) -> None:
        raise ValueError("no")

    relay = Relay(send, print)
    output = iter([*[b"line\n"] * 1000, b""])
    relay._pipes = {"stdout": cast("Any", SimpleNamespace(read_nowait=lambda: next(output)))}
    turns = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(relay.run)
        while not relay.finished.is_set():
            await trio.lowlevel.checkpoint()
            turns += 1
    assert turns > 500


@pytest.mark.parametrize(("seconds", "waits"), [(1000, False), (1000, True), (math.inf, False)])
async def test_much_output_where_the_time_is_short(seconds: float, waits: bool) -> None:
    """What is left when a cancelled job's program has ended takes few turns, unless a consumer holds it up."""
    sent: list[str] = []
    turns = 0

    async def send(token: dict[str, Any]) -> None:
        nonlocal turns
        turns += 1
        sent.append(token["stdout"])
        await trio.lowlevel.checkpoint()

    def send_nowait(token: dict[str, Any]) -> None:
        if waits:
            raise trio.WouldBlock
        sent.append(token["stdout"])

    relay = Relay(send, send_nowait)
    lines = [str(n) for n in range(5000)]
    output = iter(["\n".join(lines).encode(), b""])
    relay._pipes = {"stdout": cast("Any", SimpleNamespace(read_nowait=lambda: next(output)))}
    relay.scope.deadline = trio.current_time() + seconds
    await relay.run()
    assert sent == lines
    assert 10 < turns < 500 if seconds < math.inf and not waits else turns == 5000


async def test_interrupt_waits_while_output_is_sent() -> None:
    """Ctrl-C does not strike in the midst of the output, the rest of which would be lost."""
    job = shell("echo out")
    protected = []

    async def send(token: dict[str, Any]) -> None:
        protected.append(trio.lowlevel.currently_ki_protected())

    job.send = send  # type: ignore[method-assign]
    await job.run()
    assert protected == [True]


async def test_much_output_from_both_pipes() -> None:
    """A megabyte from each pipe at once comes whole and in order, and nothing deadlocks."""
    job = python(
        "import os, threading\n"
        "data = b''.join(b'%07d\\n' % n for n in range(131072))\n"
        "def write(fd):\n"
        "    rest = data\n"
        "    while rest: rest = rest[os.write(fd, rest):]\n"
        "other = threading.Thread(target=write, args=[2]); other.start(); write(1); other.join()"
    )
    await job.run()
    expected = [f"{n:07}" for n in range(131072)]
    assert job.stream("stdout") == expected
    assert job.stream("stderr") == expected


async def test_long_line_comes_in_parts() -> None:
    """A line of 200 KB comes in parts of at most 64 KiB, all but the last of which say so."""
    job = python("print('é' * 100_000); print('next')")
    await job.run()
    *parts, last, following = job.sent
    assert len(parts) == 3
    assert all(token["partial"] is True for token in parts)
    assert "".join(token["stdout"] for token in [*parts, last]) == "é" * 100_000
    assert "partial" not in last
    assert following == {"stdout": "next"}


async def test_bytes_that_are_no_text() -> None:
    """Undecodable bytes come as backslash escapes."""
    job = python("import os; os.write(1, b'\\xff\\x00\\xe2\\x82 ok \\xe2\\x82\\xac\\n\\xe2')")
    await job.run()
    assert job.stream("stdout") == ["\\xff\x00\\xe2\\x82 ok €", "\\xe2"]


async def test_progress_is_seen_as_it_is_drawn() -> None:
    """What a program draws over again comes before the line ends."""
    job = shell("printf '50%%\\r'; sleep 100")
    async with running(job) as scope:
        await job.saw("50%\r")
        scope.cancel()
    assert job.sent == [{"stdout": "50%\r", "partial": True}, {"stdout": ""}]


async def test_output_comes_as_it_is_written() -> None:
    """A line is sent while the program runs on."""
    job = shell("echo first; sleep 100")
    async with running(job) as scope:
        await job.saw("first")
        assert job.processes()
        scope.cancel()


async def test_program_that_closes_its_output_lives_on() -> None:
    """The end of its output is not the end of a program."""
    job = shell("exec >&-; sleep 0.05; echo still here >&2; exit 3")
    with pytest.raises(CommandFailedError, match="exited with 3"):
        await job.run()
    assert job.stream("stderr") == ["still here"]


async def test_program_waits_for_a_slow_consumer() -> None:
    """While a send waits nothing more is read, so that the program waits, and nothing is lost."""
    job = python(
        "import sys; sys.stdout.write('x' * 65535 + '\\n' + 'y' * 999_999 + '\\n'); sys.stdout.flush(); "
        "sys.stderr.write('done')"
    )
    gate, send = trio.Event(), job.send

    async def slow_send(token: dict[str, Any]) -> None:
        if "stdout" in token:
            await gate.wait()
        await send(token)

    job.send = slow_send  # type: ignore[method-assign]
    async with running(job):
        await trio.testing.wait_all_tasks_blocked(0.2)
        assert job.sent == []
        gate.set()
    assert "".join(job.stream("stdout")) == "x" * 65535 + "y" * 999_999
    assert job.stream("stderr") == ["done"]


async def run_with_a_late_consumer(job: FakeJob) -> None:
    """Run a program whose consumer takes nothing before the program has ended."""
    gate, send = trio.Event(), job.send

    async def slow_send(token: dict[str, Any]) -> None:
        await gate.wait()
        await send(token)

    job.send = slow_send  # type: ignore[method-assign]
    async with running(job):
        await job.gone()
        await trio.testing.wait_all_tasks_blocked(0.05)
        gate.set()


async def test_slow_consumer_gets_all_that_an_ended_program_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is still in the pipe when the program has ended waits for the consumer without limit."""
    monkeypatch.setattr(_command, "DRAIN_LIMIT", 0.0)
    script = "import fcntl, os; fcntl.fcntl(1, 1031, 1 << 20); os.write(1, b'x' * 65535 + b'\\n' + b'y' * 300_000)"
    job = python(script)  # 1031 is F_SETPIPE_SZ
    await run_with_a_late_consumer(job)
    assert "".join(job.stream("stdout")) == "x" * 65535 + "y" * 300_000


async def test_slow_consumer_gets_all_of_a_pipe_of_packets() -> None:
    """A pipe that gives less than it is asked for, such as ``dd oflag=direct`` makes, is read to its end as well."""
    job = python(
        "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETFL, os.O_DIRECT)\nfor n in range(9): os.write(1, b'%d\\n' % n)"
    )
    await run_with_a_late_consumer(job)
    assert job.stream("stdout") == [str(n) for n in range(9)]


async def test_lines_of_a_descendant_that_ends_a_moment_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program leaves behind may finish its sentence, as the end of a pipeline does."""
    monkeypatch.setattr("jobtrio._command.LINGER", 60)
    job = FakeJob("bash", "-c", "echo late > >(sleep 0.02; cat)")
    await job.run()
    assert job.stream("stdout") == ["late"]


# -- what the program is given


async def test_environment_is_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload's variables are added to this process's own, and None takes one away."""
    monkeypatch.setenv("KEPT", "kept")
    monkeypatch.setenv("CHANGED", "before")
    monkeypatch.setenv("GONE", "before")
    job = shell('echo "$KEPT ${GONE-none} $CHANGED $NEW"', env={"CHANGED": "after", "NEW": "ä", "GONE": None})
    await job.run()
    assert job.stream("stdout") == ["kept none after ä"]


async def test_which_job_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program finds its job and attempt in its environment, not those of this process; the payload may say others."""
    for name in (JOB, ATTEMPT):
        monkeypatch.setenv(name, "of this process")
    job = shell(f'echo "${JOB} ${{{ATTEMPT}-none}}"')
    job.id, job.attempt = "a=\u2603", 2
    await job.run()
    job.payload["env"] = {JOB: "mine", ATTEMPT: None}
    await job.run()
    assert job.stream("stdout") == ["a=\u2603 2", "mine none"]


async def test_folder(tmp_path: Path) -> None:
    """The program runs in the folder of the payload."""
    job = FakeJob("pwd", cwd=str(tmp_path))
    await job.run()
    assert job.stream("stdout") == [str(tmp_path)]


async def test_paths(tmp_path: Path) -> None:
    """The program, its arguments, the folder and variables may be paths, as for `subprocess`."""
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\npwd; echo "$1 $HOME"\n')
    script.chmod(0o755)
    job = FakeJob()
    job.payload = {"argv": [script, Path("a b")], "cwd": tmp_path, "env": {"HOME": tmp_path / "home"}}
    assert await job.run() == 0
    assert job.stream("stdout") == [str(tmp_path), f"a b {tmp_path / 'home'}"]


async def test_no_standard_input() -> None:
    """A program that reads its input finds it empty."""
    assert await FakeJob("cat").run() == 0


async def test_program_leads_its_session() -> None:
    """Group and session are the program's own, so that no terminal can stop it and no signal hits us."""
    job = python("import os; print(os.getpid() == os.getpgid(0) == os.getsid(0))")
    await job.run()
    assert job.stream("stdout") == ["True"]


# -- failure


async def test_exit_code_fails_the_job() -> None:
    """Another exit code than 0 raises, after all output was sent."""
    job = shell("echo out; exit 42")
    with pytest.raises(CommandFailedError, match="'sh' exited with 42") as caught:
        await job.run()
    assert caught.value.returncode == 42
    assert job.stream("stdout") == ["out"]


@pytest.mark.parametrize(("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 1, "signal 35")])
async def test_signal_fails_the_job(number: int, name: str) -> None:
    """A program that a signal ended raises with the signal's name, where it has one."""
    with pytest.raises(CommandFailedError, match=f"ended by {name}$") as caught:
        await python(f"import os; os.kill(os.getpid(), {int(number)})").run()
    assert caught.value.returncode == -number


@pytest.mark.parametrize(
    ("program", "error", "match"),
    [
        ("jobtrio-no-such-program", FileNotFoundError, "no such program.*jobtrio-no-such-program"),
        ("/", PermissionError, "not an executable program: '/'"),
        ("/etc/passwd", PermissionError, "not an executable program: '/etc/passwd'"),
        ("/etc/passwd/x", NotADirectoryError, "/etc/passwd/x"),
    ],
)
async def test_program_that_cannot_be_started(program: str, error: type[OSError], match: str) -> None:
    """A program that isn't there or isn't one is named with the reason."""
    with pytest.raises(error, match=match) as caught:
        await FakeJob(program).run()
    assert caught.value.filename == program


async def test_ignored_sigchld_is_refused() -> None:
    """Where exit codes would be lost nothing is started."""
    job = FakeJob("true")
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(RuntimeError, match="SIGCHLD is ignored"):
            await job.run()
    finally:
        signal.signal(signal.SIGCHLD, before)


class OddError(Exception):
    """What a send raises in these tests."""


async def test_failed_send_ends_the_program() -> None:
    """When a send raises, the program is ended, its further output dropped, and the exception comes out bare."""
    job = shell("trap 'seq 100000; exit' TERM; echo out; while :; do sleep 0.01; done")

    attempts = []

    async def bad_send(token: dict[str, Any]) -> None:
        attempts.append(token)
        raise OddError

    job.send = bad_send  # type: ignore[method-assign]
    with pytest.raises(OddError):
        await job.run()
    assert attempts == [{"stdout": "out"}]
    assert not job.processes()


@pytest.mark.parametrize(
    ("payload", "error", "match"),
    [
        (None, TypeError, "payload must be a mapping.*None"),
        ([], TypeError, "payload must be a mapping"),
        ({}, ValueError, r"payload\['argv'\] must be given"),
        ({"argv": ["true"], "shell": True}, ValueError, "no other fields than.*'argv'.*got 'shell'"),
        ({"argv": ["true"], 1: 2}, ValueError, "got 1"),
        ({"argv": "true"}, TypeError, r"payload\['argv'\] must be a list.*'true'"),
        ({"argv": b"true"}, TypeError, r"payload\['argv'\] must be a list"),
        ({"argv": None}, TypeError, r"payload\['argv'\] must be a list"),
        ({"argv": {"true"}}, TypeError, r"payload\['argv'\] must be a list"),
        ({"argv": []}, ValueError, "at least the program"),
        ({"argv": [""]}, ValueError, "at least the program"),
        ({"argv": ["true", 1]}, TypeError, r"payload\['argv'\]\[1\] must be text or a path; got 1"),
        ({"argv": ["true", None]}, TypeError, r"payload\['argv'\]\[1\] must be text"),
        ({"argv": ["true", b"x"]}, TypeError, r"payload\['argv'\]\[1\] must be text"),
        ({"argv": ["tr\0ue"]}, ValueError, r"payload\['argv'\]\[0\] must be text without NUL"),
        ({"argv": ["true", "\ud800"]}, ValueError, r"payload\['argv'\]\[1\] must be text without.*surrogates"),
        ({"argv": ["true"], "cwd": 1}, TypeError, r"payload\['cwd'\] must be text or a path; got 1"),
        ({"argv": ["true"], "cwd": ""}, ValueError, r"payload\['cwd'\] must be a folder"),
        ({"argv": ["true"], "cwd": "/no such"}, ValueError, r"payload\['cwd'\] must be a folder.*'/no such'"),
        ({"argv": ["true"], "cwd": "/etc/passwd"}, ValueError, r"payload\['cwd'\] must be a folder"),
        ({"argv": ["true"], "cwd": "/\0"}, ValueError, r"payload\['cwd'\] must be text without NUL"),
        ({"argv": ["true"], "cwd": Path("/no such")}, ValueError, r"payload\['cwd'\] must be a folder.*/no such"),
        ({"argv": ["true"], "env": []}, TypeError, r"payload\['env'\] must be a mapping"),
        ({"argv": ["true"], "env": {"A": 1}}, TypeError, r"payload\['env'\]\['A'\] must be text.*got 1"),
        ({"argv": ["true"], "env": {1: "a"}}, TypeError, r"a name in payload\['env'\] must be text or a path; got 1"),
        ({"argv": ["true"], "env": {"": "a"}}, ValueError, r"a name in payload\['env'\].*got ''"),
        ({"argv": ["true"], "env": {"A=B": "a"}}, ValueError, r"a name in payload\['env'\].*got 'A=B'"),
        ({"argv": ["true"], "env": {"A\0": "a"}}, ValueError, r"a name in payload\['env'\].*NUL"),
        ({"argv": ["true"], "env": {"A": "a\0"}}, ValueError, r"payload\['env'\]\['A'\] must be text without NUL"),
        ({"argv": ["true"], "grace": -1}, ValueError, r"payload\['grace'\] must be.*got -1"),
        ({"argv": ["true"], "grace": math.nan}, ValueError, r"payload\['grace'\] must be.*got nan"),
        ({"argv": ["true"], "grace": math.inf}, ValueError, r"payload\['grace'\] must be.*got inf"),
        ({"argv": ["true"], "grace": None}, TypeError, r"payload\['grace'\] must be.*got None"),
        ({"argv": ["true"], "grace": True}, TypeError, r"payload\['grace'\] must be.*got True"),
        ({"argv": ["true"], "grace": "5"}, TypeError, r"payload\['grace'\] must be.*got '5'"),
    ],
)
async def test_senseless_payload_is_refused(payload: Any, error: type[Exception], match: str) -> None:
    """A payload that makes no sense is refused with the field, the value and what is allowed."""
    job = FakeJob()
    job.payload = payload
    with pytest.raises(error, match=match):
        await job.run()


def test_text_that_the_locale_cannot_hold_is_refused_as_such() -> None:
    """Text that can't be handed to a program in this process's locale is refused by the name of its encoding."""
    done = subprocess.run([sys.executable, "-c", CHECK], env=of_ascii(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() in {
        r"payload['argv'][1] must be text in the encoding of this process's locale, ascii; got '\u2603'",
        "taken",  # where C is a locale of UTF-8
    }


def test_an_id_that_the_locale_cannot_hold() -> None:
    """A job's id is handed to its program in UTF-8, whatever this process's locale."""
    argv = [sys.executable, "-c", IN_ASCII]
    done = subprocess.run(argv, env=of_ascii(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == r"{'stdout': '\u2603'}"


def of_ascii() -> dict[str, str]:
    """Return the environment of a process whose locale holds ASCII alone, where C is not one of UTF-8."""
    return os.environ | {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


IN_ASCII = r"""
import jobtrio, trio
from jobtrio.executors import run_command

async def main():
    async with jobtrio.open_registry() as registry:
        payload = {"argv": ["sh", "-c", "echo $JOBTRIO_JOB"]}
        job = await registry.submit(run_command, payload, job_id="\u2603")
        await job.result()
        print(ascii((await job.subscribe().receive()).value))

trio.run(main)
"""

CHECK = r"""
from jobtrio._command import Command
try:
    Command.from_payload({"argv": ["true", "\u2603"]})
except ValueError as exc:
    print(ascii(str(exc)).strip('"'))
else:
    print("taken")
"""


async def test_fields_may_be_none() -> None:
    """A folder or an environment of None is as good as none, and a tuple as a list."""
    job = FakeJob()
    job.payload = {"argv": ("true",), "cwd": None, "env": None, "grace": 0}
    assert await job.run() == 0


# -- the end of all that was started


STUBBORN = "(trap '' TERM PIPE; echo up; while :; do sleep 0.01; done) & "


async def test_descendants_end_with_the_program() -> None:
    """What the program leaves behind is told to end, and its parting words are sent."""
    job = shell("(trap 'echo bye; exit' TERM; echo up; while :; do sleep 0.01; done) & sleep 0.1")
    assert await job.run() == 0
    assert job.stream("stdout") == ["up", "bye"]
    assert not job.processes()


async def test_descendant_that_ignores_sigterm_is_killed() -> None:
    """What ignores SIGTERM gets SIGKILL when the grace is over."""
    job = shell(STUBBORN + "sleep 0.1", grace=0.05)
    assert await job.run() == 0
    assert job.stream("stdout") == ["up"]
    assert not job.processes()


async def test_grandchildren_die_when_cancelled() -> None:
    """Cancelling ends what ignores SIGTERM, what was forked twice and what made a group of its own."""
    job = FakeJob(
        "bash",
        "-c",
        f"set -m; {STUBBORN} ( (echo up; exec sleep 100) & ) ; set +m; timeout 100 sh -c 'echo up; sleep 100' & wait",
        grace=0.05,
    )
    async with running(job) as scope:
        with trio.fail_after(60):
            while job.stream("stdout") != ["up"] * 3:
                await job.saw("up")
                await trio.lowlevel.checkpoint()
        assert len(job.processes()) >= 4
        scope.cancel()
    assert not job.processes()


async def test_cancelled_program_says_goodbye() -> None:
    """What a cancelled program writes before it ends is sent."""
    job = shell("trap 'seq -f %0100.0f 2000; echo bye >&2; exit 0' TERM; echo up; while :; do sleep 0.01; done")
    async with running(job) as scope:
        await job.saw("up")
        scope.cancel()
    assert job.stream("stdout") == ["up", *(f"{n:0100}" for n in range(1, 2001))]  # more than a pipe holds
    assert job.stream("stderr")[-1] == "bye"


async def test_no_thread_to_end_it_in(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where no thread can be started, what a program has left is killed at once, and its exit code is its own."""

    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", refuse)
    job = shell(STUBBORN + "echo out; exit 3")
    with pytest.raises(CommandFailedError, match="exited with 3"):
        await job.run()
    assert not job.processes()
    assert "killed without its grace: can't start new thread" in caplog.text


async def test_stopped_program_is_told_to_end() -> None:
    """A program that was stopped is made to go on, so that it sees SIGTERM."""
    job = shell("trap 'echo bye; exit' TERM; echo up; kill -STOP $$; while :; do sleep 0.01; done")
    async with running(job) as scope:
        await job.saw("up")
        (pid,) = job.processes()
        await trio.to_thread.run_sync(os.waitid, os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        scope.cancel()
    assert job.stream("stdout") == ["up", "bye"]


async def test_grace_is_real_time(autojump_clock: trio.testing.MockClock) -> None:
    """A virtual clock does not shorten the time that a real program has for its end."""
    job = shell("trap 'sleep 0.1; echo bye; exit' TERM; echo up; while :; do sleep 0.01; done")
    async with running(job) as scope:
        await job.saw("up")
        scope.cancel()
    assert job.stream("stdout") == ["up", "bye"]


@pytest.mark.parametrize("left", ["sleep 100", "yes"])
async def test_session_of_its_own_does_not_hang_the_job(left: str, tmp_path: Path) -> None:
    """What left the session is out of reach, but neither a pipe held open nor endless output holds up the job."""
    script = f"setsid sh -c 'touch up; exec {left}' & while ! test -e up; do sleep 0.01; done; echo done >&2"
    job = shell(script, cwd=str(tmp_path))
    try:
        assert await job.run() == 0
        assert job.stream("stderr") == ["done"]
    finally:
        for pid in job.processes():
            os.kill(pid, signal.SIGKILL)
    assert set(job.stream("stdout")) <= {"y", ""}


@pytest.fixture
def pipe() -> Iterator[tuple[OutputPipe, int]]:
    """Return a pipe's end to read, and the other, which stays open."""
    fd, other = os.pipe()
    with open(fd, "rb", buffering=0) as file, open(other, "wb", buffering=0):
        yield OutputPipe(file), other


async def test_all_that_a_pipe_held(pipe: tuple[OutputPipe, int]) -> None:
    """Of a pipe that a stranger goes on to write to, what it held when the program was gone is read, and no more."""
    output, other = pipe
    os.write(other, b"one")
    output.close_input()
    os.write(other, b"two")
    assert [output.read_nowait(), output.read_nowait()] == [b"one", b""]


async def test_program_gone_before_more_is_waited_for(
    pipe: tuple[OutputPipe, int], autojump_clock: trio.testing.MockClock
) -> None:
    """Nothing more is waited for where the program was gone since it was looked, while a consumer took its time."""
    output, _ = pipe
    assert output.read_nowait() is None
    output.close_input()
    with trio.fail_after(60):
        await output.wait_readable()
    assert output.read_nowait() == b""


async def test_consumer_that_never_reads_does_not_hang_a_cancelled_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A send that waits for ever is given up a while after the program is gone."""
    monkeypatch.setattr(_command, "DRAIN_LIMIT", 0.01)
    job = FakeJob("yes", grace=0.05)
    entered = trio.Event()

    async def stuck_send(token: dict[str, Any]) -> None:
        entered.set()
        await trio.sleep_forever()

    job.send = stuck_send  # type: ignore[method-assign]
    async with running(job) as scope:
        await entered.wait()
        scope.cancel()
    assert not job.processes()


async def test_cancelled_while_the_rest_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job whose program is gone can still be cancelled while its output waits for a consumer."""
    monkeypatch.setattr(_command, "DRAIN_LIMIT", 0.01)
    job = shell("echo out")

    async def stuck_send(token: dict[str, Any]) -> None:
        await trio.sleep_forever()

    job.send = stuck_send  # type: ignore[method-assign]
    async with running(job) as scope:
        await trio.testing.wait_all_tasks_blocked(0.05)
        await job.gone()
        scope.cancel()


async def test_cancelled_before_the_start_never_runs(tmp_path: Path) -> None:
    """A job that is cancelled already starts nothing."""
    job = shell("touch started", cwd=str(tmp_path))
    with trio.CancelScope() as scope:
        scope.cancel()
        await job.run()
    assert scope.cancelled_caught
    assert os.listdir(tmp_path) == []


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the n-th step of any task that runs in it."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.scope = trio.CancelScope()
        self._root = trio.lowlevel.current_task()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._root or (task.parent_nursery is not None and self._is_ours(task)):
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()

    def _is_ours(self, task: trio.lowlevel.Task) -> bool:
        while task is not self._root:
            if task.parent_nursery is None:
                return False
            task = task.parent_nursery.parent_task
        return True


async def run_bare(job: FakeJob) -> None:
    """Run a job out of which nothing comes in a group."""
    try:
        await job.run()
    except BaseExceptionGroup:
        pytest.fail("it came in a group")


@pytest.mark.parametrize("script", ["echo out; echo err >&2", "echo out; sleep 100 & echo err >&2; exit 3"])
async def test_cancelled_at_every_step(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a cancellation comes, it comes out bare, no process is left, and no token is there twice."""
    monkeypatch.setattr(_command, "LINGER", 0.005)
    step, cancelled = 0, True
    while cancelled:
        step += 1
        job, instrument = shell(script), CancelAt(step)
        trio.lowlevel.add_instrument(instrument)
        try:
            with instrument.scope:
                await run_bare(job)
        except CommandFailedError:
            pass
        finally:
            trio.lowlevel.remove_instrument(instrument)
        cancelled = instrument.left <= 0
        assert not job.processes(), f"cancelled at step {step}"
        assert job.stream("stdout") in ([], ["out"])
        assert job.stream("stderr") in ([], ["err"])
    assert step > 10
    assert len(job.sent) == 2


# -- as a job of a registry


async def test_time_limit_of_a_job() -> None:
    """A job whose time is up ends as timed out when its program is gone, parting words included."""
    fake = shell("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.01; done")
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(run_command, fake.payload, time_limit=0.1)
        async with job.subscribe() as messages:
            lines = [message.value async for message in messages if isinstance(message, jobtrio.Token)]
    assert isinstance(job.outcome, jobtrio.Failed)
    assert job.outcome.error.kind == "timeout"
    assert {"stdout": "bye"} in lines
    assert not fake.processes()


async def test_cancelled_job() -> None:
    """A job ends as cancelled, though its program exits with 0, and nothing of it is left."""
    fake = shell(f"{STUBBORN} trap 'exit 0' TERM; while :; do sleep 0.01; done", grace=0.05)
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(run_command, fake.payload)
        async for line in job.tokens():
            assert line == {"stdout": "up"}
            await job.cancel("enough")
            assert await job.wait() == jobtrio.Cancelled("enough")
            assert not fake.processes()
            break


async def test_failed_job_is_tried_again(tmp_path: Path) -> None:
    """A program that fails is run again under a policy; its message has the exit code."""
    fake = shell("test -e failed || { touch failed; exit 3; }", cwd=str(tmp_path))
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(run_command, fake.payload, retry=jobtrio.RetryPolicy(initial=0, jitter=0))
        async with job.subscribe() as messages:
            restart, end = [message async for message in messages]
    assert isinstance(restart, jobtrio.Restart)
    assert restart.error.message == "'sh' exited with 3"
    assert isinstance(end, jobtrio.End)
    assert end.outcome == jobtrio.Completed(0)


async def test_lossless_consumer_holds_up_the_program() -> None:
    """A consumer that may lose nothing gets every line, however few are kept."""
    async with jobtrio.open_registry(retention=jobtrio.Retention(tokens_per_job=10)) as registry:
        job = await registry.submit(run_command, {"argv": ["seq", "20000"]})
        async with job.subscribe(lossless=True) as messages:
            lines = [message.value["stdout"] async for message in messages if isinstance(message, jobtrio.Token)]
    assert lines == [str(n) for n in range(1, 20001)]


@pytest.mark.parametrize("leave", [KeyError, KeyboardInterrupt])
async def test_registry_left_by_an_exception(leave: type[BaseException]) -> None:
    """Leaving the registry by an exception leaves no program behind."""
    fake = shell(f"{STUBBORN} wait", grace=0.05)

    async def leave_early() -> None:
        async with jobtrio.open_registry() as registry:
            job = await registry.submit(run_command, fake.payload)
            async for _ in job.tokens():
                raise leave

    with pytest.raises(leave):
        await leave_early()
    assert not fake.processes()


def test_interrupted_process_leaves_no_program() -> None:
    """Ctrl-C, wherever it strikes, ends the programs before the process."""
    fake = shell("(sleep 1000 & echo up; wait)", grace=0.05)  # the mark is the program's, not the watchdog's
    script = (
        "import jobtrio, signal, trio\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it may be ignored where the tests run
        "from jobtrio.executors import run_command\n"
        "async def main():\n"
        "    async with jobtrio.open_registry() as registry:\n"
        f"        job = await registry.submit(run_command, {fake.payload})\n"
        "        async for line in job.tokens(): print(line, flush=True)\n"
        "trio.run(main)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"{'stdout': 'up'}\n"
        assert fake.processes()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert b"KeyboardInterrupt" in errors
    assert process.returncode == -signal.SIGINT
    assert not fake.processes()


WITHOUT_DESCRIPTORS = """
import os, resource, trio, jobtrio
from jobtrio.executors import run_command

async def main():
    async with jobtrio.open_registry() as registry:
        job = await registry.submit(run_command, {"argv": ["sh", "-c", "echo begun; sleep 1; echo over"]})
        async with job.subscribe() as messages:
            await messages.receive()
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
            try:
                while True:
                    os.open("/dev/null", os.O_RDONLY)
            except OSError:
                pass
            print([m.value for m in [m async for m in messages][:-1]], await job.wait())

trio.run(main)
"""


def test_no_descriptors_left() -> None:
    """A program that has begun ends as it does, also where this process can open nothing more."""
    done = subprocess.run([sys.executable, "-c", WITHOUT_DESCRIPTORS], capture_output=True, text=True, check=False)
    assert done.stdout == "[{'stdout': 'over'}] Completed(result=0)\n", done.stderr
