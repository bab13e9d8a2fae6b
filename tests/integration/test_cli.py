"""The ``jobtrio`` command as a user types it: help, usage, and the demo."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

import jobtrio
from jobtrio.cli import COMMANDS, _demo, main
from jobtrio.cli._demo_jobs import ACTS

if TYPE_CHECKING:
    import trio.testing

JOBS = [part.name for act in ACTS for part in act.parts]


def command(*args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m jobtrio`` with ``args`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "jobtrio", *args],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(env or {})},
    )


class Terminal(io.StringIO):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def shown() -> str:
    """Return what the demo prints into a pipe."""
    done = command("demo", env={"UV_RUN_RECURSION_DEPTH": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestUsage:
    def test_version(self) -> None:
        """``--version`` names the program and its version."""
        done = command("--version")
        assert (done.returncode, done.stdout) == (0, f"jobtrio {jobtrio.__version__}\n")

    def test_installed_command(self) -> None:
        """The installed command is the same as ``python -m jobtrio``."""
        script = Path(sys.executable).with_name("jobtrio")
        done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
        assert done.stdout == command("--help").stdout

    def test_help_lists_commands_and_examples(self) -> None:
        """``--help`` says what commands there are, and shows how to use them."""
        text = command("--help").stdout
        for part in ("demo ", "run ", "examples:", "jobtrio run -- make test"):
            assert part in text

    def test_help_of_run_names_every_option_and_exit_code(self) -> None:
        """``run --help`` names each option, each special exit code, and shows examples."""
        text = command("run", "--help").stdout
        options = (
            "--time-limit DURATION",
            "--retry N",
            "--grace DURATION",
            "--cwd DIR",
            "--env NAME=VALUE",
            "--json",
            "--queue",
        )
        for part in (*options, "124", "126", "127", "130", "143", "examples:", "-- PROGRAM"):
            assert part in text

    @pytest.mark.parametrize("name", ["", *COMMANDS])
    def test_help_fits_a_terminal(
        self, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No line of any command's help is wider than a terminal of 80 columns."""
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit, match=r"^0$"):
            main([*name.split(), "--help"])
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80

    @pytest.mark.parametrize(
        ("args", "parts"),
        [
            ([], ["COMMAND is missing", "demo", "worker", "jobtrio --help"]),
            (["--loud"], ["unknown: --loud", "COMMAND is missing", "jobtrio --help"]),
            (["play"], ["'play'", "demo", "run"]),
            (["--store", "sqlite:///a", "list"], ["'sqlite:///a'", "a command's options stand behind it"]),
            (["demo", "--loud"], ["--loud", "jobtrio demo --help"]),
        ],
    )
    def test_bad_usage(self, args: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """A command that isn't there ends with 2 and says which there are."""
        with pytest.raises(SystemExit, match=r"^2$"):
            main(args)
        out, err = capsys.readouterr()
        assert out == ""
        for part in parts:
            assert part in err

    @pytest.mark.parametrize("args", [["--evil"], ["list", "--evil"], ["submit", "a", "1", "evil"], ["evil"]])
    def test_words_that_a_terminal_would_obey(self, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """What makes no sense is told in one line of plain text: a script may have it from others."""
        with pytest.raises(SystemExit):
            main([*args[:-1], f"{args[-1]}\x1b[2J\njobtrio: completed"])
        shown = capsys.readouterr().err
        assert "\x1b" not in shown
        assert shown.count("\njobtrio") == 1
        assert "evil\\x1b[2J\\njobtrio: completed" in shown

    @pytest.mark.parametrize("args", [["--store", "URL", "list"], ["--store=URL", "list"], ["stats", "URL"], ["URL"]])
    def test_a_url_that_is_out_of_place(self, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """The password of a store's URL that stands where none is taken is not repeated."""
        with pytest.raises(SystemExit, match=r"^2$"):
            main([arg.replace("URL", "postgresql://ann:se@c/ret@host/db") for arg in args])
        assert "postgresql://…@host/db" in capsys.readouterr().err

    def test_reader_of_help_that_left(self) -> None:
        """Help that nobody reads any more ends without a complaint."""
        reader, writer = os.pipe()
        os.close(reader)
        argv = [sys.executable, "-m", "jobtrio", "--help"]
        done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, check=False)
        os.close(writer)
        assert (done.returncode, done.stderr) == (0, b"")

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize("args", [["--help"], ["--version"], ["run", "--help"]])
    def test_help_on_a_full_disk(self, args: list[str], unbuffered: str) -> None:
        """Help that can't be written ends with 1 and one line that says why."""
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        with open("/dev/full", "wb") as full:
            argv = [sys.executable, "-m", "jobtrio", *args]
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env)
        who = " ".join(["jobtrio", *args[:-1]])
        assert done.stderr == f"{who}: the output can't be written: No space left on device\n"
        assert done.returncode == 1


class TestDemo:
    def test_every_line_says_job_consumer_and_event(self, shown: str) -> None:
        """Between its titles the demo prints which job, which consumer, and what happened."""
        lines = [line for line in shown.partition("\nJOB")[0].splitlines() if line.startswith("  ")]
        assert len(lines) > 30
        for line in lines:
            job, who, kind, *rest = line.split()
            assert job in JOBS
            assert who in {"ann", "bob", "cyd", "you"}
            assert kind in {"token", "progress", "restart", "end", "cancel"}
            assert rest

    def test_both_consumers_see_the_same(self, shown: str) -> None:
        """Of each job both consumers see the same lines, the ending once and last."""
        for job in JOBS:
            ann = re.findall(rf"^  {job} +ann +(.*)$", shown, re.MULTILINE)
            bob = re.findall(rf"^  {job} +bob +(.*)$", shown, re.MULTILINE)
            assert ann == bob
            assert [line.startswith("end") for line in ann] == [False] * (len(ann) - 1) + [True]

    def test_shows_each_kind_of_fate(self, shown: str) -> None:
        """A retry, a time-out, a cancellation with its reason, progress, a failure and a replay are told."""
        for told in (
            r"upload +bob +restart +attempt 1 failed, ConnectionError: the server hung up; again in 0\.3 s",
            r"search +ann +end +timed out",
            r"report +you +cancel +nobody reads it\n",
            r"report +bob +end +cancelled, nobody reads it",
            r"backup +ann +progress +2 of 3 files saved",
            r"invoice +bob +end +failed, ValueError: row 2: 'thirty' is not a number",
            r"story +cyd +token +Once\n(.*\n){3}  story +cyd +end +completed",
        ):
            assert re.search(told, shown), told

    def test_ends_with_an_aligned_table_and_what_to_try(self, shown: str) -> None:
        """The table has a line for each job, in columns; behind it come commands that can be copied."""
        table = shown[shown.index("\nJOB ") + 1 :].splitlines()
        head, rows = table[0], table[1 : 1 + len(JOBS)]
        assert [row.split()[0] for row in rows] == JOBS
        for row in rows:
            assert row[head.index("OUTCOME") - 1] == " "
            assert row[head.index("OUTCOME")] != " "
        assert re.match(r"upload +0\.\d\d s +2 +3 +completed, uploaded", rows[JOBS.index("upload")])
        assert any(line.strip().startswith("uv run jobtrio run -- ") for line in table)

    def test_no_colour_in_a_pipe(self, shown: str) -> None:
        """Into a pipe there are no escapes."""
        assert "\033" not in shown

    @pytest.mark.parametrize(
        ("no_color", "term", "coloured"),
        [
            (None, "xterm", True),
            ("", "xterm", True),
            ("1", "xterm", False),
            (None, "dumb", False),
            (None, "", False),
        ],
    )
    async def test_colour_on_a_terminal(
        self,
        no_color: str | None,
        term: str,
        coloured: bool,
        autojump_clock: trio.testing.MockClock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """On a terminal that knows colours the endings are coloured, unless NO_COLOR is set to something."""
        monkeypatch.setenv("TERM", term)
        monkeypatch.delenv("NO_COLOR", raising=False)
        if no_color is not None:
            monkeypatch.setenv("NO_COLOR", no_color)
        terminal = Terminal()
        await _demo.Play(terminal).perform(ACTS)
        stream, table = terminal.getvalue().split("\nJOB ")
        for escape in ("\033[32mcompleted, 4 words\033[0m", "\033[31mfailed, ", "\033[33mtimed out"):
            assert (escape in stream) is coloured
            assert (escape in table) is coloured
        assert "\\x1b" not in table

    async def test_says_what_is_not_as_it_should_be(self, autojump_clock: trio.testing.MockClock) -> None:
        """Where a consumer sees something else than the demo set out to show, the problem is named."""
        wrong = attrs.evolve(ACTS[-1].parts[0], expected=("end: completed, paid",))
        play = _demo.Play(io.StringIO())
        await play.perform([attrs.evolve(ACTS[-1], parts=(wrong,))])
        assert len(play.problems) == 3
        assert "ann should have seen of 'invoice' ['end: completed, paid']; saw ['token: row 1" in play.problems[0]

    async def test_does_not_hang(self, autojump_clock: trio.testing.MockClock) -> None:
        """A job that doesn't end is a problem too: the demo gives up on it after a minute."""
        endless = attrs.evolve(ACTS[2].parts[0], options={})
        play = _demo.Play(io.StringIO())
        await play.perform([attrs.evolve(ACTS[2], parts=(endless,))])
        assert play.problems[0] == "it was not over after 60 s"

    def test_problems_make_it_fail(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        """With a problem the exit code is 1, stderr says which, and nothing claims that all went well."""
        wrong = attrs.evolve(ACTS[-1].parts[0], expected=("end: completed, paid",))
        monkeypatch.setattr(_demo, "ACTS", [attrs.evolve(ACTS[-1], parts=(wrong,))])
        previous = signal.getsignal(signal.SIGPIPE)
        try:
            assert main(["demo"]) == 1
        finally:
            signal.signal(signal.SIGPIPE, previous)
        out, err = capsys.readouterr()
        assert err.startswith("jobtrio demo: not as it should be: ann should have seen of 'invoice'")
        assert "Each job ended once" not in out

    def test_reader_that_leaves(self) -> None:
        """``jobtrio demo | head -1`` ends without a word."""
        argv = [sys.executable, "-m", "jobtrio", "demo"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == -signal.SIGPIPE

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_full_disk(self, unbuffered: str) -> None:
        """Output that can't be written ends the demo with 1 and one line that says why."""
        env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        with open("/dev/full", "wb") as full:
            argv = [sys.executable, "-m", "jobtrio", "demo"]
            done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=env)
        assert done.returncode == 1
        assert done.stderr == "jobtrio demo: the output can't be written: No space left on device\n"

    def test_interrupt(self) -> None:
        """Ctrl-C ends the demo with 130 and without a traceback."""
        argv = [sys.executable, "-c", INTERRUPTIBLE, sys.executable, "-m", "jobtrio", "demo"]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            while b"token" not in (line := process.stdout.readline()):
                assert line, "the demo has ended"
            process.send_signal(signal.SIGINT)
            assert process.stderr.read() == b""
        assert process.returncode == 130


INTERRUPTIBLE = """
import os, signal, sys
# A test run in the background of a shell ignores SIGINT, and so would all that it starts.
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
