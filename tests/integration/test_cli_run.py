"""``jobtrio run``, driven as a user, a shell and a terminal drive it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from typing import IO, TYPE_CHECKING, Any

import pytest
import store_shell
from store_shell import LIMIT, read_until

from jobtrio._processes import living_in_session
from jobtrio.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TELL = "echo pid $$; "
"""What a script begins with to say its id, which is that of its session."""

STUBBORN = TELL + "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo ready; while :; do sleep 1; done"
"""A script that, like its child, does not go for SIGTERM."""


class Command(store_shell.Command):
    """A running ``jobtrio run``."""

    def __init__(self, *args: str, **options: Any) -> None:
        super().__init__(("run", *args), **options)
        self.session = 0

    def lines_until(self, last: str) -> None:
        """Read stdout up to a line; on the way note the session of a script that began with `TELL`."""
        while (line := self.line()) != last:
            if line.startswith("pid "):
                self.session = int(line.split()[1])

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return self.process.wait(LIMIT)

    def living(self) -> list[int]:
        """Return the processes of the session that live."""
        assert self.session
        return living_in_session(self.session)

    def close(self) -> None:
        """End what a failed test left."""
        for pid in self.living() if self.session else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().close()


@pytest.fixture
def start() -> Iterator[Callable[..., Command]]:
    """Return what starts ``jobtrio run``; it is gone when the test is over."""
    with contextlib.ExitStack() as stack:

        def start(*args: str, **options: Any) -> Command:
            command = Command(*args, **options)
            stack.callback(command.close)
            return command

        yield start


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Return a named pipe, for the two ends of a test to wait for each other."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def run(*args: str, **options: Any) -> tuple[int, str, str]:
    """Run ``jobtrio run`` with ``args`` to its end; return exit code, stdout and stderr."""
    argv = [sys.executable, "-m", "jobtrio", "run", *args]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.once
class TestOutput:
    def test_each_line_on_its_stream(self) -> None:
        """Lines of stdout come on stdout, those of stderr on stderr, and stderr ends with a summary."""
        code, out, err = run("--", "sh", "-c", "echo one; echo two >&2; echo three")
        assert (code, out) == (0, "one\nthree\n")
        assert re.fullmatch(r"two\njobtrio: completed in \d+\.\d+ s, 1 attempt, 3 lines\n", err)

    def test_live(self, start: Callable[..., Command], fifo: Path) -> None:
        """A line is there while the program waits for something that only its reader can do."""
        command = start("--", "sh", "-c", f"echo first; read x < {fifo}; echo $x")
        assert command.line() == "first"
        fifo.write_text("second\n")
        assert command.line() == "second"
        assert command.end()[0] == 0

    def test_long_line_is_one_line(self) -> None:
        """A line that comes in parts is one line on the screen and in the summary."""
        code, out, err = run("--", sys.executable, "-c", "print('x' * 200_000)")
        assert (code, out) == (0, "x" * 200_000 + "\n")
        assert "1 attempt, 1 line\n" in err

    def test_what_is_drawn_over_again(self, start: Callable[..., Command], fifo: Path) -> None:
        """A progress display that returns to its line's beginning is seen while it is drawn."""
        command = start("--", "sh", "-c", rf"printf '10%%\r'; read x < {fifo}; printf '100%%\n'")
        assert command.stdout.read(4) == b"10%\r"
        fifo.write_text("go\n")
        assert command.end()[1] == "100%\n"

    def test_bytes_and_encodings(self) -> None:
        """Bytes that are no text come as escapes, and so do characters that the output can't hold."""
        program = ("--", "printf", r"\377 \303\251\303\251\n")
        assert run(*program, encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"})[1] == "\\xff éé\n"
        assert run(*program, env={**os.environ, "PYTHONIOENCODING": "ascii"})[1] == "\\xff \\xe9\\xe9\n"

    def test_slow_reader_loses_nothing(self, start: Callable[..., Command]) -> None:
        """A reader that begins late gets every line, though there are many more than are kept."""
        count = 100_000
        command = start("--", "sh", "-c", f"echo begin >&2; seq {count}")
        command.error_with("begin")
        code, out, err = command.end()
        assert code == 0
        assert out == "".join(f"{n}\n" for n in range(1, count + 1))
        assert f"{count + 1} lines" in err

    def test_stalled_reader_holds_up_the_program(self, start: Callable[..., Command], tmp_path: Path) -> None:
        """While nobody reads, the program waits rather than fill the memory, and ends once somebody does."""
        done = tmp_path / "done"
        script = f"echo begin >&2; head -c 9000000 /dev/zero | tr '\\0' x | fold -w 1000; : > {done}"
        command = start("--", "sh", "-c", script)
        command.error_with("begin")
        wait_until_blocked(command.stdout)
        assert not done.exists()
        assert command.end()[0] == 0
        assert done.exists()

    def test_output_that_does_not_block(self, start: Callable[..., Command]) -> None:
        """A pipe that another process made non-blocking loses nothing either."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        command = start("--", "seq", "100000", stdout=writer)
        os.close(writer)
        wait_until_blocked(reader)
        with open(reader) as file:
            assert file.read() == "".join(f"{n}\n" for n in range(1, 100_001))
        assert command.end()[0] == 0

    def test_json(self) -> None:
        """With --json each message is a line of JSON, numbered without holes, the ending last."""
        code, out, err = run("--json", "--retry", "1", "--", "sh", "-c", "echo é; echo e >&2; exit 3")
        messages = [json.loads(line) for line in out.splitlines()]
        assert code == 3
        assert [message["seq"] for message in messages] == list(range(1, 7))
        kinds = [message["type"] for message in messages]
        assert kinds == ["token", "token", "restart", "token", "token", "end"]
        assert {"stdout": "é"} in [message.get("value") for message in messages]
        assert {"stderr": "e"} in [message.get("value") for message in messages]
        assert (messages[2]["attempt"], messages[2]["error"]["kind"], messages[2]["delay"]) == (
            1,
            "exception",
            1.0,
        )
        assert messages[-1]["outcome"]["type"] == "failed"
        assert messages[-1]["outcome"]["error"]["type"] == "CommandFailedError"
        assert err.splitlines()[-1].startswith("jobtrio: failed with exit code 3 after ")

    def test_json_of_a_success(self) -> None:
        """The ending of a program that exits with 0 is a completion with that result."""
        _, out, _ = run("--json", "--", "true")
        assert json.loads(out) == {"type": "end", "seq": 1, "outcome": {"type": "completed", "result": 0}}

    def test_closed_stdout(self) -> None:
        """With stdout closed from the start the program runs all the same."""
        argv = f"{sys.executable} -m jobtrio run -- sh -c 'echo lost; echo seen >&2; exit 4' >&-"
        done = subprocess.run(["sh", "-c", argv], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith("seen\njobtrio: failed with exit code 4")

    def test_full_disk(self) -> None:
        """Output that can't be written ends the program, says so, and gives 1."""
        with open("/dev/full", "wb") as full:
            argv = [sys.executable, "-m", "jobtrio", "run", "--", "sh", "-c", "echo x; exec sleep 60"]
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert done.returncode == 1
        assert re.fullmatch(
            r"jobtrio: cancelled after [\d.]+ s \(the output can't be written: No space left on device\), "
            r"1 attempt, 1 line\n",
            done.stderr,
        )


def wait_until_blocked(pipe: int | IO[bytes] | None) -> None:
    """Wait until jobtrio's pipe to us is full: for half a second nothing was added."""
    assert pipe is not None
    size, seen, limit = 0, 0, time.monotonic() + 60
    while size == 0 or seen < 10:
        assert time.monotonic() < limit, "it is not full"
        answer = fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4)
        waiting = int.from_bytes(answer, sys.byteorder)
        seen = seen + 1 if waiting == size else 0
        size = waiting
        time.sleep(0.05)


def fill(pipe: int) -> None:
    """Write to a pipe until not one more byte fits."""
    os.set_blocking(pipe, False)
    for piece in (b" " * 4096, b" "):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(pipe, piece)
    os.set_blocking(pipe, True)


class TestExitCodes:
    @pytest.mark.parametrize(
        ("script", "code", "words"),
        [
            ("exit 0", 0, "completed in"),
            ("exit 3", 3, "failed with exit code 3 after"),
            ("kill -9 $$", 137, "killed by SIGKILL after"),
            ("kill -TERM $$", 143, "killed by SIGTERM after"),
            ("exit 137", 137, "failed with exit code 137 after"),
        ],
    )
    def test_program_that_ran(self, script: str, code: int, words: str) -> None:
        """The exit code is the program's, or 128 and the number of the signal that killed it."""
        got, _, err = run("--", "sh", "-c", script)
        assert got == code
        assert f"jobtrio: {words}" in err

    def test_not_found(self) -> None:
        """A program that isn't there gives 127 at once, whatever --retry says."""
        code, _, err = run("--retry", "5", "--", "no-such-program-here")
        assert code == 127
        assert err.startswith("jobtrio: can't run 'no-such-program-here': no such program")
        assert len(err.splitlines()) == 1

    def test_not_executable(self, tmp_path: Path) -> None:
        """A file that can't be executed gives 126, and so does a folder, and a file of no known format."""
        plain, strange = tmp_path / "plain", tmp_path / "strange"
        plain.write_text("echo\n")
        strange.write_bytes(b"\x01\x02")
        strange.chmod(0o755)
        for path in (plain, tmp_path, strange):
            code, _, err = run("--", str(path))
            assert code == 126
            assert err.startswith(f"jobtrio: can't run {str(path)!r}: ")

    def test_time_limit(self, start: Callable[..., Command]) -> None:
        """A program whose time is up is ended with all that it started, and gives 124."""
        command = start("--time-limit", "0.5", "--", "sh", "-c", TELL + "echo ready; sleep 60 & sleep 60")
        command.lines_until("ready")
        code, _, err = command.end()
        assert code == 124
        assert re.fullmatch(r"jobtrio: timed out after \d+\.\d+ s, 1 attempt, 2 lines\n", err)
        assert command.living() == []

    @pytest.mark.parametrize(
        ("args", "parts"),
        [
            (["--time-limit", "soon", "--", "true"], ["--time-limit", "'soon'", "above 0"]),
            (["--time-limit", "0", "--", "true"], ["--time-limit", "'0'", "above 0"]),
            (["--time-limit", "nan", "--", "true"], ["--time-limit", "'nan'", "above 0"]),
            (["--time-limit", "inf", "--", "true"], ["--time-limit", "'inf'", "above 0: seconds"]),
            (["--grace", "-1", "--", "true"], ["--grace", "'-1'", "0 or more"]),
            (["--retry", "1.5", "--", "true"], ["--retry", "'1.5'", "whole number"]),
            (["--retry", "-1", "--", "true"], ["--retry", "'-1'", "whole number"]),
            (["--retry", "9" * 5000, "--", "true"], ["--retry", "99…", "whole number"]),
            (["--cwd", "/no/such", "--", "true"], ["--cwd", "'/no/such'", "a directory that exists"]),
            (["--cwd", "", "--", "true"], ["--cwd", "''", "a directory that exists"]),
            (["--env", "DEBUG", "--", "true"], ["--env", "'DEBUG'", "NAME=VALUE"]),
            (["--env", "=1", "--", "true"], ["--env", "'=1'", "NAME=VALUE"]),
            (["--queue", "", "--", "true"], ["--queue", "''", "1 to 200 printable characters"]),
            (["--limit", "3", "--", "true"], ["--limit", "jobtrio run --help"]),
            (["--time", "3", "--", "true"], ["--time", "jobtrio run --help"]),
            (["--retry"], ["--retry", "expected one argument"]),
            ([], ["PROGRAM is missing", "jobtrio run -- ls"]),
            (["--json", "--"], ["PROGRAM is missing"]),
            (["--", ""], ["PROGRAM", "''"]),
        ],
    )
    def test_bad_usage(self, args: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """Bad usage gives 2, and names the option, its value, and what is allowed."""
        with pytest.raises(SystemExit, match=r"^2$"):
            main(["run", *args])
        out, err = capsys.readouterr()
        assert out == ""
        for part in ("usage: jobtrio run", *parts):
            assert part in err
        assert "Traceback" not in err


@pytest.mark.once
class TestOptions:
    def test_programs_own_options_are_its_own(self) -> None:
        """What stands behind the program belongs to it, even where jobtrio has an option of that name."""
        program = (sys.executable, "-c", "import sys; print(sys.argv[1:])")
        args = ("--json", "--", "--retry", "x", "-h")
        assert run("--", *program, *args)[1] == f"{list(args)}\n"
        assert run(*program, *args)[1] == f"{list(args)}\n"

    def test_cwd_and_env(self, tmp_path: Path) -> None:
        """--cwd is where it runs; --env comes on top of what it inherits, and may be given several times."""
        args = ("--cwd", str(tmp_path), "--env", "A=1", "--env", "B=x=y", "--env", "C=")
        code, out, _ = run(*args, "--", "sh", "-c", "pwd -P; echo $A $B ${C-none} $D", env={**os.environ, "D": "d"})
        assert (code, out) == (0, f"{tmp_path.resolve()}\n1 x=y d\n")

    def test_queue(self) -> None:
        """A queue may be named."""
        assert run("--queue", "gpu", "--", "echo", "x")[:2] == (0, "x\n")

    def test_retry_until_it_works(self, tmp_path: Path) -> None:
        """With --retry a failed program is tried again, and stderr says why and when."""
        script = f"echo try; test -e {tmp_path}/seen || {{ : > {tmp_path}/seen; exit 7; }}"
        code, out, err = run("--retry", "2", "--", "sh", "-c", script)
        assert (code, out) == (0, "try\ntry\n")
        between, summary = err.splitlines()
        assert between == "jobtrio: attempt 1 of 3 failed with exit code 7; the next follows in 1 s"
        assert re.fullmatch(r"jobtrio: completed in \d+\.\d+ s, 2 attempts, 2 lines", summary)

    def test_retry_in_vain(self) -> None:
        """When every attempt failed, the exit code is the last one's."""
        code, _, err = run("--retry", "1", "--time-limit", "0.3", "--", "sleep", "60")
        assert code == 124
        assert err.startswith("jobtrio: attempt 1 of 2 timed out; the next follows in 1 s\n")
        assert "2 attempts" in err

    def test_no_input(self) -> None:
        """The program has no standard input: what waits for some sees its end."""
        assert run("--", "cat", stdin=subprocess.DEVNULL)[0] == 0
        assert run("--", "cat", input="nobody reads this")[:2] == (0, "")


@pytest.mark.once
class TestStopping:
    def test_interrupt_is_graceful(self, start: Callable[..., Command]) -> None:
        """After one Ctrl-C the program gets SIGTERM, its last words are shown, and the exit code is 130."""
        script = TELL + "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        command = start("--", "sh", "-c", script)
        command.lines_until("ready")
        command.send(signal.SIGINT)
        code, out, err = command.end()
        assert (code, out) == (130, "bye\n")
        assert "jobtrio: Ctrl-C: the program has 5 s to end; Ctrl-C kills it\n" in err
        summary = err.splitlines()[-1]
        assert re.fullmatch(r"jobtrio: cancelled after \d+\.\d+ s \(Ctrl-C\), 1 attempt, \d lines", summary)
        assert command.living() == []

    def test_second_interrupt_kills(self, start: Callable[..., Command]) -> None:
        """A second Ctrl-C ends at once what SIGTERM doesn't, children included."""
        command = start("--grace", "3600", "--", "sh", "-c", STUBBORN)
        command.lines_until("ready")
        assert command.living()
        command.send(signal.SIGINT)
        command.error_with("3600 s to end")
        command.send(signal.SIGINT)
        code, _, err = command.end()
        assert code == 130
        assert "cancelled after" in err
        assert command.living() == []

    def test_second_interrupt_reaches_groups_of_their_own(self, start: Callable[..., Command]) -> None:
        """What a shell's job control put into another group of the session is killed as well."""
        command = start("--grace", "3600", "--", "bash", "-c", "set -m; " + STUBBORN)
        command.lines_until("ready")
        command.send(signal.SIGINT)
        command.error_with("3600 s to end")
        command.send(signal.SIGINT)
        assert command.end()[0] == 130
        assert command.living() == []

    def test_grace_of_nothing(self, start: Callable[..., Command]) -> None:
        """With --grace 0 one Ctrl-C is enough for what SIGTERM doesn't end."""
        command = start("--grace", "0", "--", "sh", "-c", STUBBORN)
        command.lines_until("ready")
        command.send(signal.SIGINT)
        assert command.end()[0] == 130
        assert command.living() == []

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
    def test_other_signals_are_graceful(self, start: Callable[..., Command], number: int, code: int) -> None:
        """SIGTERM and SIGHUP act as one Ctrl-C, even where they come twice."""
        script = TELL + "trap 'sleep 0.2; echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
        command = start("--", "sh", "-c", script)
        command.lines_until("ready")
        command.send(number)
        command.error_with(f"{signal.Signals(number).name}: the program has 5 s to end")
        command.send(number)
        assert command.end()[:2] == (code, "bye\n")
        assert command.living() == []

    def test_interrupt_between_attempts(self, start: Callable[..., Command]) -> None:
        """Ctrl-C while the next attempt is waited for ends the job there."""
        command = start("--retry", "1", "--", "sh", "-c", TELL + "echo ready; exit 1")
        command.lines_until("ready")
        command.error_with("attempt 1 of 2 failed")
        command.send(signal.SIGINT)
        code, out, err = command.end()
        assert (code, out) == (130, "")
        assert "1 attempt," in err

    def test_quit_kills(self, start: Callable[..., Command]) -> None:
        """SIGQUIT, which nobody sends to be waited for, kills at once, and nobody says that there is time to end."""
        command = start("--grace", "3600", "--", "sh", "-c", STUBBORN)
        command.lines_until("ready")
        command.send(signal.SIGQUIT)
        code, _, err = command.end()
        assert code == 131
        assert "to end" not in err
        assert command.living() == []

    def test_ignored_signals_stay_ignored(self) -> None:
        """Under nohup a hang-up doesn't end the program."""
        script = "kill -HUP $PPID; echo on; exit 0"
        argv = ["sh", "-c", f'trap "" HUP; exec {sys.executable} -m jobtrio run -- sh -c "$0"', script]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "on\n")

    def test_ignored_children(self) -> None:
        """Where whoever started jobtrio ignores the end of children, exit codes are known all the same."""
        argv = f'trap "" CHLD; exec {sys.executable} -m jobtrio run -- sh -c "exit 3"'
        assert subprocess.run(["bash", "-c", argv], capture_output=True, check=False).returncode == 3

    def test_blocked_signals_are_heard(self) -> None:
        """Where whoever started jobtrio blocks signals, they stop it and reach the program all the same."""
        script = "trap 'echo bye; exit' TERM; kill -TERM $PPID; while :; do sleep 0.05; done"
        block = "import os, sys, signal as s; s.pthread_sigmask(s.SIG_BLOCK, {15}); os.execv(sys.argv[1], sys.argv[1:])"
        argv = [sys.executable, "-m", "jobtrio", "run", "--", "sh", "-c", script]
        done = subprocess.run([sys.executable, "-c", block, *argv], capture_output=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stdout) == (143, b"bye\n")

    def test_blocked_children(self) -> None:
        """Where whoever started jobtrio blocks what tells of the end of children, the program hears of those it has."""
        block = "import os, sys, signal as s; s.pthread_sigmask(s.SIG_BLOCK, {s.SIGCHLD}); "
        block += "os.execv(sys.argv[1], sys.argv[1:])"
        script = "import signal as s; print(*s.pthread_sigmask(s.SIG_BLOCK, ()))"
        argv = [sys.executable, "-m", "jobtrio", "run", "--", sys.executable, "-c", script]
        done = subprocess.run([sys.executable, "-c", block, *argv], capture_output=True, timeout=LIMIT, check=False)
        assert (done.returncode, done.stdout) == (0, b"\n")

    def test_interrupt_while_the_reader_stalls(self, start: Callable[..., Command]) -> None:
        """With a reader that doesn't read, a second Ctrl-C ends it all the same."""
        command = start(
            "--grace",
            "3600",
            "--",
            "sh",
            "-c",
            TELL + "echo ready; trap '' TERM; while :; do seq 10000; done",
        )
        command.lines_until("ready")
        wait_until_blocked(command.stdout)
        command.send(signal.SIGINT)
        command.error_with("3600 s to end")
        command.send(signal.SIGINT)
        assert command.wait() == 130
        assert command.living() == []

    def test_interrupt_while_stderr_stalls(self, start: Callable[..., Command], fifo: Path) -> None:
        """The same holds where what jobtrio has to say can't be written either."""
        reader, writer = os.pipe()
        fill(writer)
        script = TELL + f"trap 'echo > {fifo}' TERM; echo ready; while :; do sleep 0.05; done"
        command = start("--grace", "3600", "--", "sh", "-c", script, stderr=writer)
        os.close(writer)
        command.lines_until("ready")
        command.send(signal.SIGINT)
        fifo.read_bytes()
        command.send(signal.SIGINT)
        assert command.wait() == 130
        assert command.living() == []
        os.close(reader)

    def test_time_is_up_while_the_reader_stalls(self, start: Callable[..., Command]) -> None:
        """A time limit holds for a program whose output nobody reads; what it wrote comes in order."""
        command = start("--time-limit", "1.5", "--", "sh", "-c", TELL + "echo ready; exec seq 100000000")
        command.lines_until("ready")
        wait_until_blocked(command.stdout)
        deadline = time.monotonic() + 60
        while command.living():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        code, out, _ = command.end()
        assert code == 124
        numbers = out.splitlines()
        assert numbers[:-1] == [str(n) for n in range(1, len(numbers))]


@pytest.mark.once
class TestPipes:
    def test_reader_that_leaves(self, start: Callable[..., Command]) -> None:
        """When the reader leaves, the program ends too, without a word, and the exit code is 141."""
        command = start("--", "sh", "-c", TELL + "echo ready; exec yes")
        command.lines_until("ready")
        command.stdout.close()
        assert command.wait() == 141
        assert command.stderr.read() == b""
        assert command.living() == []

    def test_head(self) -> None:
        """In a pipeline with head it behaves as the program would by itself."""
        argv = f"{sys.executable} -m jobtrio run -- yes | head -n 1"
        done = subprocess.run(["bash", "-o", "pipefail", "-c", argv], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (141, "y\n", "")

    def test_reader_that_leaves_a_stubborn_program(self, start: Callable[..., Command], fifo: Path) -> None:
        """Where the program doesn't go when its reader has left, Ctrl-C kills it."""
        script = TELL + f"trap 'echo > {fifo}' TERM; echo ready; while :; do echo y; done"
        command = start("--grace", "3600", "--", "sh", "-c", script)
        command.lines_until("ready")
        command.stdout.close()
        fifo.read_bytes()
        command.send(signal.SIGINT)
        assert command.wait() == 141
        assert command.living() == []

    def test_reader_that_the_interrupt_ends_first(self, start: Callable[..., Command], fifo: Path) -> None:
        """Where Ctrl-C ends the reader as well, as it does in a pipeline, it is still what counts."""
        script = TELL + f"trap 'read x < {fifo}; echo bye; exit 0' TERM; echo ready; while :; do :; done"
        command = start("--", "sh", "-c", script)
        command.lines_until("ready")
        command.send(signal.SIGINT)
        command.error_with("to end")
        command.stdout.close()
        fifo.write_text("go\n")
        assert command.wait() == 130
        command.error_with("jobtrio: cancelled after")
        assert command.living() == []

    def test_summary_that_nobody_reads(self, start: Callable[..., Command]) -> None:
        """Where nobody reads what is said of the end, the exit code is the program's all the same."""
        reader, writer = os.pipe()
        os.close(reader)
        command = start("--", "sh", "-c", "exit 3", stderr=writer)
        os.close(writer)
        assert command.end() == (3, "", "")

    def test_stderr_whose_reader_leaves(self, start: Callable[..., Command]) -> None:
        """A reader of stderr that leaves ends the program as well."""
        command = start("--", "sh", "-c", TELL + "echo ready; yes >&2")
        command.lines_until("ready")
        command.stderr.close()
        assert command.wait() == 141
        assert command.living() == []


@pytest.mark.once
class TestTerminal:
    def test_interrupt_key(self, start: Callable[..., Command], terminal: tuple[int, int]) -> None:
        """Ctrl-C in a terminal reaches jobtrio alone; the program gets SIGTERM and is seen to the end."""
        ours, theirs = terminal
        traps = "trap 'echo got INT' INT; trap 'echo got TERM; exit 0' TERM; "
        script = TELL + traps + "echo ready; while :; do sleep 0.05; done"
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        command = start("--", "sh", "-c", script, start_new_session=True, **streams)
        os.close(theirs)
        shown = read_until(ours, b"ready\r\n")
        session = int(shown.split()[1])
        os.write(ours, b"\x03")
        shown = read_until(ours, None)
        assert b"got TERM" in shown
        assert b"got INT" not in shown
        assert b"^C\r\njobtrio: Ctrl-C: the program has 5 s" in shown
        assert re.search(rb"jobtrio: cancelled after .*\(Ctrl-C\), 1 attempt, \d lines\r\n$", shown)
        assert command.wait() == 130
        assert living_in_session(session) == []

    @pytest.mark.parametrize(("keys", "shown_as"), [([b"\x03", b"\x03"], b"^C"), ([b"\x1c"], b"^\\")])
    def test_keys_that_kill(
        self, start: Callable[..., Command], terminal: tuple[int, int], keys: list[bytes], shown_as: bytes
    ) -> None:
        """What is said at last of a program that was killed by a key is a line of its own."""
        ours, theirs = terminal
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        command = start("--", "sh", "-c", STUBBORN, start_new_session=True, **streams)
        os.close(theirs)
        session = int(read_until(ours, b"ready\r\n").split()[1])
        for key in keys[:-1]:
            os.write(ours, key)
            read_until(ours, b"Ctrl-C kills it\r\n")
        os.write(ours, keys[-1])
        assert shown_as + b"\r\njobtrio: cancelled after" in read_until(ours, None)
        assert command.wait() in {130, 131}
        assert living_in_session(session) == []

    def test_hang_up(self, start: Callable[..., Command], terminal: tuple[int, int]) -> None:
        """A terminal that is closed takes the program with it."""
        ours, theirs = terminal
        script = TELL + "echo ready; exec sleep 60"
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        command = start("--", "sh", "-c", script, start_new_session=True, **streams)
        os.close(theirs)
        session = int(read_until(ours, b"ready\r\n").split()[1])
        command.send(signal.SIGHUP)
        assert command.wait() == 129
        assert living_in_session(session) == []
