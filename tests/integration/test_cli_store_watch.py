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
from patience import wait_until
from store_shell import read_until

import jobtrio
from jobtrio.cli import _watch
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
        code, out, err = shell.ask("watch", words)
        assert (code, out) == (0, "to \nbe \nor \nnot \n")
        assert err.startswith("jobtrio: completed in ")
        assert err.endswith(", 1 attempt\n")

    def test_text(self, shell: Shell, words: str) -> None:
        """With --text the tokens are put together, and nothing is added."""
        assert shell.ask("watch", "--text", words)[1] == "to be or not "

    def test_json(self, shell: Shell, words: str) -> None:
        """With --json each message is a line, behind the number that was given."""
        code, out, _ = shell.ask("watch", "--json", "--after", "3", words)
        assert code == 0
        assert [json.loads(line) for line in out.splitlines()] == [
            {"type": "token", "seq": 4, "attempt": 1, "value": "not "},
            {"type": "end", "seq": 5, "outcome": {"type": "completed", "result": 4}},
        ]

    @pytest.mark.parametrize("after", ["4", "5", "1000"])
    def test_after_everything(self, shell: Shell, words: str, after: str) -> None:
        """Behind the last token there is nothing but the end, whatever number was given."""
        code, out, err = shell.ask("watch", "--after", after, words)
        assert (code, out) == (0, "")
        assert "completed" in err

    def test_failed(self, shell: Shell) -> None:
        """A job that failed gives 1; its error is in the last line."""
        shell.worker()
        code, out, err = shell.ask("submit", "fail", "--retry", "1", "--watch")
        assert (code, out) == (1, '{"row": 1}\n{"row": 1}\n')
        _, restart, ended = err.splitlines()
        error = "ValueError: row 2: 'thirty' is not a number"
        assert restart.startswith(f"jobtrio: attempt 1 of 2 failed: {error}; the next follows in ")
        assert ended.startswith("jobtrio: failed after ")
        assert ended.endswith(f", 2 attempts: {error}")

    def test_timed_out(self, shell: Shell) -> None:
        """A job whose time was up gives 124."""
        shell.worker()
        code, _, err = shell.ask("submit", "wait", "--payload", '"/no/such/file"', "--time-limit", "0.1", "--watch")
        assert code == 124
        assert "jobtrio: timed out after " in err

    def test_gap(self, shell: Shell) -> None:
        """Messages that are no longer kept are said to be lost."""
        job = trio.run(run_words, shell.folder / "jobs.db", jobtrio.Retention(tokens_per_job=2))
        code, out, err = shell.ask("watch", "--json", job)
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
        assert shell.ask("watch", job)[0] == 0

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
        assert shell.ask(*command[1:])[0] == 0

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
        assert shell.ask("cancel", job)[:2] == (0, "cancelled\n")
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


class TestSeveral:
    def test_ids(self, shell: Shell) -> None:
        """Jobs given by their ids are watched together, and the code is that of the first that did not complete."""
        shell.worker()
        shell.submit("words", "--id", "good", "--payload", json.dumps(WORDS))
        shell.submit("fail", "--id", "bad")
        shell.submit("wait", "--id", "late", "--payload", '"/no/such/file"', "--time-limit", "1")
        code, out, err = shell.ask("watch", "good", "--store", shell.url, "bad", "late")
        assert code == 1
        lines = ["good | to ", "good | be ", "good | or ", "good | not ", 'bad  | {"row": 1}', "late | attempt 1"]
        assert sorted(out.splitlines()) == sorted(lines)
        good, bad, late = err.splitlines()[-3:]
        assert good.startswith("good | jobtrio: completed in ")
        assert bad.startswith("bad  | jobtrio: failed after ")
        assert late.startswith("late | jobtrio: timed out after ")
        assert shell.ask("watch", "late", "bad")[0] == 124
        assert shell.ask("watch", "late", "late")[:2] == (124, "attempt 1\n")

    def test_filters(self, shell: Shell, tmp_path: Path) -> None:
        """Those that match when it begins are watched, the oldest first, those that have ended by then included."""
        shell.worker()
        (tmp_path / "gate").touch()
        for job in ("old", "new", "other"):
            tag = ("--tag", "user=bob" if job == "other" else "user=ann")
            shell.submit("wait", "--id", job, "--key", job, "--payload", json.dumps(str(tmp_path / "gate")), *tag)
        assert shell.ask("watch", "new")[0] == 0
        code, out, err = shell.ask("watch", "--json", "--tag", "user=ann")
        assert code == 0
        lines = [json.loads(line) for line in out.splitlines()]
        for job in ("old", "new"):
            assert [line for line in lines if line["job"] == job] == [
                {"type": "token", "job": job, "seq": 1, "attempt": 1, "value": "attempt 1"},
                {"type": "end", "job": job, "seq": 2, "outcome": {"type": "completed", "result": "there"}},
            ]
        assert len(lines) == 4
        assert [line.partition(" |")[0] for line in err.splitlines()[-2:]] == ["old", "new"]
        assert shell.ask("watch", "--tag", "user=bob", "--executor", "wait")[1] == "other | attempt 1\n"
        assert shell.ask("watch", "--key", "new", "--tag", "user=ann")[1] == "new | attempt 1\n"

    def test_none(self, shell: Shell, words: str) -> None:
        """Where none matches, that is said, and none is watched."""
        assert shell.ask("watch", "--tag", "user=ann") == (1, "", "jobtrio watch: no job matches\n")

    def test_unknown_id(self, shell: Shell, words: str) -> None:
        """Where there is none of an id, that is told as of one that is removed, and the others are watched."""
        code, out, err = shell.ask("watch", "absent", words)
        assert code == 1
        assert out.splitlines() == [f"{words[:6]} | {word} " for word in WORDS.split()]
        said = "absent | jobtrio: no job has the id 'absent': it never existed or is no longer kept"
        assert err.splitlines().count(said) == 2
        assert err.splitlines()[-1].startswith(f"{words[:6]} | jobtrio: completed in ")

    def test_too_many(self, shell: Shell, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """More than can be watched are not watched in part."""
        shell.submit("echo")
        monkeypatch.setattr(_watch, "MOST", 1)
        code, out, err = shell.ask("watch", "--state", "queued,completed")
        assert (code, out) == (1, "")
        assert err.startswith("jobtrio watch: more than 1 jobs match: ")
        assert shell.ask("watch", "--state", "completed")[0] == 0

    def test_leaving(self, shell: Shell, words: str, tmp_path: Path) -> None:
        """Ctrl-C ends the watching, not the jobs, and says how many go on."""
        shell.worker()
        job = shell.submit("wait", "--payload", json.dumps(str(tmp_path / "gate")))
        watcher = shell.start("watch", words, job)
        assert sorted(watcher.line()[9:] for _ in range(5)) == ["attempt 1", "be ", "not ", "or ", "to "]
        watcher.error_with("jobtrio: completed")
        watcher.send(signal.SIGINT)
        assert watcher.end() == (130, "", "jobtrio: jobs that go on: 1 of 2\n")
        (tmp_path / "gate").touch()
        assert shell.ask("watch", job)[0] == 0

    @pytest.mark.parametrize("args", [[], ["--json"]])
    def test_reader_that_leaves(self, shell: Shell, words: str, tmp_path: Path, args: list[str]) -> None:
        """A reader that leaves ends the watching of all, also of those that go on, with 141."""
        shell.worker()
        jobs = [shell.submit("wait", "--payload", json.dumps(str(tmp_path / "gate"))) for _ in range(5)]
        reader, writer = os.pipe()
        os.close(reader)
        command = shell.start("watch", *args, words, *jobs, stdout=writer)
        os.close(writer)
        code, _, err = command.end()
        assert code == 141
        assert "Traceback" not in err

    def test_one_that_is_removed(self, shell: Shell, tmp_path: Path) -> None:
        """A job that vanishes from the store is told of, and the others go on; the code is 1."""
        shell.worker()
        for job in ("gone", "kept"):
            shell.submit("wait", "--id", job, "--payload", json.dumps(str(tmp_path / "gate")))
        watcher = shell.start("watch", "gone", "kept")
        assert sorted([watcher.line(), watcher.line()]) == ["gone | attempt 1", "kept | attempt 1"]
        with sqlite3.connect(shell.folder / "jobs.db") as connection:
            connection.execute("DELETE FROM jobs WHERE id = 'gone'")
        connection.close()
        said = watcher.error_with("no job has the id")
        assert said == "gone | jobtrio: no job has the id 'gone': it never existed or is no longer kept"
        (tmp_path / "gate").touch()
        code, _, err = watcher.end()
        assert code == 1
        assert err.splitlines()[-2] == said
        assert err.splitlines()[-1].startswith("kept | jobtrio: completed in ")

    def test_a_program(self, shell: Shell) -> None:
        """A program's last lines have no end, and each of them still has a line of its own."""
        shell.start("worker", "jobtrio.cli:programs").error_with("jobtrio: worker ")
        for job in ("a", "b"):
            argv = ["sh", "-c", f"printf 'out {job}'; printf 'err {job}' >&2"]
            shell.submit("run_command", "--id", job, "--payload", json.dumps({"argv": argv}))
        code, out, err = shell.ask("watch", "a", "b")
        assert code == 0
        assert sorted(out.splitlines()) == ["a | out a", "b | out b"]
        assert {"a | err a", "b | err b"} < set(err.splitlines())


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
        wait_until(lambda: shell.value("show", job)["job"]["state"] == "RUNNING")  # else it is said what it waits for
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
        code, out, err = shell.ask("submit", "steps", "--payload", json.dumps(str(tmp_path / "gate")), "--watch")
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
