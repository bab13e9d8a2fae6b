"""``jobtrio watch``: what it shows, from where on, and how it is left."""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import store_jobs
import trio
from store_shell import read_until

import jobtrio
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from pathlib import Path

    from store_shell import Command, Shell

pytestmark = pytest.mark.once

WORDS = "to be or not"


async def run_words(path: Path, retention: jobtrio.Retention) -> str:
    """Run a job that sends some words, and return its id."""
    async with jobtrio.open_registry(store_jobs.executors, store=SqliteJobStore(path), retention=retention) as registry:
        job = await registry.submit("words", WORDS)
        await job.wait()
    return job.id


@pytest.fixture
def words(shell: Shell) -> str:
    """Return the id of a job that has sent some words."""
    return trio.run(run_words, shell.folder / "jobs.db", jobtrio.Retention())


class TestEndedJob:
    def test_lines(self, shell: Shell, words: str) -> None:
        """A late watcher gets all of it, a token a line, and the summary."""
        code, out, err = shell.run("watch", words)
        assert (code, out) == (0, "to \nbe \nor \nnot \n")
        assert err.startswith("jobtrio: completed in ")
        assert err.endswith(", 1 attempt\n")

    def test_text(self, shell: Shell, words: str) -> None:
        """With --text the tokens are put together, and nothing is added."""
        assert shell.run("watch", "--text", words)[1] == "to be or not "

    def test_json(self, shell: Shell, words: str) -> None:
        """With --json each message is a line, behind the number that was given."""
        code, out, _ = shell.run("watch", "--json", "--after", "3", words)
        assert code == 0
        assert [json.loads(line) for line in out.splitlines()] == [
            {"type": "token", "seq": 4, "attempt": 1, "value": "not "},
            {"type": "end", "seq": 5, "outcome": {"type": "completed", "result": 4}},
        ]

    @pytest.mark.parametrize("after", ["4", "5", "1000"])
    def test_after_everything(self, shell: Shell, words: str, after: str) -> None:
        """Behind the last token there is nothing but the end, whatever number was given."""
        code, out, err = shell.run("watch", "--after", after, words)
        assert (code, out) == (0, "")
        assert "completed" in err

    def test_failed(self, shell: Shell) -> None:
        """A job that failed gives 1; its error is in the last line."""
        shell.worker()
        code, out, err = shell.run("submit", "fail", "--retry", "1", "--watch")
        assert (code, out) == (1, '{"row": 1}\n{"row": 1}\n')
        _, restart, ended = err.splitlines()
        error = "ValueError: row 2: 'thirty' is not a number"
        assert restart.startswith(f"jobtrio: attempt 1 of 2 failed: {error}; the next follows in ")
        assert ended.startswith("jobtrio: failed after ")
        assert ended.endswith(f", 2 attempts: {error}")

    def test_timed_out(self, shell: Shell) -> None:
        """A job whose time was up gives 124."""
        shell.worker()
        code, _, err = shell.run("submit", "wait", "--payload", '"/no/such/file"', "--time-limit", "0.1", "--watch")
        assert code == 124
        assert "jobtrio: timed out after " in err

    def test_gap(self, shell: Shell) -> None:
        """Messages that are no longer kept are said to be lost."""
        job = trio.run(run_words, shell.folder / "jobs.db", jobtrio.Retention(tokens_per_job=2))
        code, out, err = shell.run("watch", "--json", job)
        assert code == 0
        first, *rest = [json.loads(line) for line in out.splitlines()]
        assert first["type"] == "gap"
        assert rest[0]["seq"] == first["last"] + 1
        assert err.splitlines()[0] == f"jobtrio: messages 1 to {first['last']} are lost"


class TestLeaving:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_signal(self, shell: Shell, tmp_path: Path, number: int) -> None:
        """A signal ends the watching, not the job, and says how to end that: by a line that a shell takes as it is."""
        shell.worker()
        gate = tmp_path / "gate"
        job = shell.submit("wait", "--id", "it's me", "--payload", json.dumps(str(gate)))
        watcher = shell.start("watch", job)
        assert watcher.line() == "attempt 1"
        watcher.send(number)
        code, _, err = watcher.end()
        told, _, line = err.partition("; to end it: ")
        assert (code, told) == (128 + number, "jobtrio: the job goes on")
        assert shlex.split(line) == ["jobtrio", "cancel", job]
        gate.touch()
        assert shell.run("watch", job)[0] == 0

    def test_signal_with_the_store_as_an_option(self, shell: Shell, tmp_path: Path) -> None:
        """Where the store was given as an option, the line to end the job gives it as well."""
        shell.worker()
        job = shell.submit("wait", "--payload", json.dumps(str(tmp_path / "gate")))
        watcher = shell.start("watch", "--store", shell.url, job)
        assert watcher.line() == "attempt 1"
        watcher.send(signal.SIGTERM)
        code, _, err = watcher.end()
        assert code == 128 + signal.SIGTERM
        command = shlex.split(err.partition("; to end it: ")[2])
        assert command == ["jobtrio", "cancel", "--store", shell.url, job]
        assert shell.run(*command[1:])[0] == 0

    def test_ended_already(self, shell: Shell) -> None:
        """Of a job that has ended by then it isn't said that it goes on, nor how to end it."""
        job = trio.run(run_words, shell.folder / "jobs.db", jobtrio.Retention(tokens_per_job=2))
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * select.PIPE_BUF)
        os.set_blocking(writer, True)
        watcher = shell.start("watch", job, stdout=writer)
        os.close(writer)
        watcher.error_with("are lost")
        watcher.send(signal.SIGINT)
        code, _, err = watcher.end()
        os.close(reader)
        assert (code, err) == (130, "jobtrio: the job has ended\n")

    def test_signals_that_are_ignored(self, shell: Shell, words: str) -> None:
        """A job can be watched also where whoever starts the command ignores all that would end it."""
        script = f"trap '' HUP INT TERM; exec {sys.executable} -m jobtrio watch --store {shell.url} {words}"
        done = subprocess.run(["sh", "-c", script], check=False, cwd=shell.folder, capture_output=True, text=True)
        assert (done.returncode, done.stdout.splitlines()) == (0, ["to ", "be ", "or ", "not "])

    def test_before_it_started(self, shell: Shell) -> None:
        """A job that never starts can be watched, left, and cancelled."""
        job = shell.submit("echo")
        watcher = shell.start("watch", "--json", job)
        assert shell.run("cancel", job)[:2] == (0, "cancelled\n")
        code, out, err = watcher.end()
        assert code == 125
        assert json.loads(out)["outcome"] == {"type": "cancelled", "reason": None}
        assert err == "jobtrio: cancelled before it started, 0 attempts\n"

    def test_reader_that_leaves(self, shell: Shell, words: str) -> None:
        """A reader that leaves ends the watching with 141."""
        reader, writer = os.pipe()
        os.close(reader)
        command = shell.start("watch", words, stdout=writer)
        os.close(writer)
        assert command.end() == (141, "", "")

    def test_job_that_is_removed(self, shell: Shell, tmp_path: Path) -> None:
        """A job that vanishes from the store while it is watched ends the watching with 1."""
        shell.worker()
        job = shell.submit("wait", "--payload", json.dumps(str(tmp_path / "gate")))
        watcher = shell.start("watch", job)
        assert watcher.line() == "attempt 1"
        with sqlite3.connect(shell.folder / "jobs.db") as connection:
            connection.execute("DELETE FROM jobs WHERE id = ?", [job])
        connection.close()
        code, _, err = watcher.end()
        assert code == 1
        assert err == f"jobtrio watch: no job has the id {job!r}: it never existed or is no longer kept\n"


class TestTerminal:
    def watch(self, shell: Shell, theirs: int, *args: str) -> Command:
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
        command = shell.start("watch", *args, start_new_session=True, **streams)
        os.close(theirs)
        return command

    def test_progress_bar(self, shell: Shell, tmp_path: Path, terminal: tuple[int, int]) -> None:
        """On a terminal progress is a bar in the last line, drawn over again, and gone at the end."""
        pytest.importorskip("rich")
        ours, theirs = terminal
        shell.worker()
        job = shell.submit("steps", "--payload", json.dumps(str(tmp_path / "gate")))
        while shell.value("show", job)["job"]["state"] != "RUNNING":
            pass  # else the watcher may say what the job waits for
        watcher = self.watch(shell, theirs, job)
        for done in (1, 2, 3):
            shown = read_until(ours, f"{done}/3".encode())
            assert f"step {done}".encode() in shown
            assert b"\n" not in shown
            if done > 1:
                assert b"\r\x1b[2K" in shown
            (tmp_path / f"gate.{done}").touch()
        rest = read_until(ours, None)
        assert rest.rpartition(b"\r\x1b[2K")[2].startswith(b"jobtrio: completed in ")
        assert watcher.process.wait(60) == 0

    def test_progress_in_a_pipe(self, shell: Shell, tmp_path: Path) -> None:
        """In a pipe progress comes as lines on stderr."""
        shell.worker()
        for done in (1, 2, 3):
            (tmp_path / f"gate.{done}").touch()
        code, out, err = shell.run("submit", "steps", "--payload", json.dumps(str(tmp_path / "gate")), "--watch")
        assert (code, out) == (0, "")
        assert err.splitlines()[1:4] == [
            "jobtrio: 1 of 3 (33 %), step 1",
            "jobtrio: 2 of 3 (67 %), step 2",
            "jobtrio: 3 of 3 (100 %), step 3",
        ]

    def test_text_ends_with_a_line(self, shell: Shell, words: str, terminal: tuple[int, int]) -> None:
        """On a terminal, text that has no end of its own gets one before the summary."""
        ours, theirs = terminal
        watcher = self.watch(shell, theirs, "--text", words)
        assert b"to be or not \r\njobtrio: completed" in read_until(ours, None)
        assert watcher.process.wait(60) == 0
