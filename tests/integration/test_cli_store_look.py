"""What a store holds, as the command shows it: list, show, stats, prune."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import select
import shlex
import signal
import sqlite3
import subprocess
import sys
import termios
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import store_jobs
import trio
from patience import wait_until
from store_shell import LIMIT

import jobtrio
from jobtrio.cli._records import moment_text
from jobtrio.executors import run_command
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from pathlib import Path

    from store_shell import Shell


async def fill(path: Path) -> dict[str, str]:
    """Put jobs of different fates into a store; return their ids."""
    retry = jobtrio.RetryPolicy(max_attempts=2, initial=0)
    keep_all = jobtrio.Retention(finished_for=math.inf)
    async with jobtrio.open_registry(store_jobs.executors, store=SqliteJobStore(path), retention=keep_all) as registry:
        words = await registry.submit("words", "to be", tags={"user": "ann", "kind": "text"})
        await words.wait()
        fail = await registry.submit("fail", tags={"user": "ann"}, retry=retry, job_id="the-failing-one")
        await fail.wait()
        later = await registry.submit(
            "echo", delay=1000, priority=jobtrio.JobPriority.HIGH, key="k", tags={"user": "bob"}
        )
        gone = await registry.submit("echo", queue="other", delay=1000)
        await gone.cancel("a\nb")
    return {"words": words.id, "fail": fail.id, "later": later.id, "gone": gone.id}


@pytest.fixture
def jobs(shell: Shell) -> dict[str, str]:
    """Return the jobs of different fates that the store holds, by what is told of them here."""
    return trio.run(fill, shell.folder / "jobs.db")


class TestList:
    def test_table(self, shell: Shell, jobs: dict[str, str]) -> None:
        """Each job is a line of a table whose columns are aligned, the oldest first."""
        code, out, err = shell.ask("list")
        assert (code, err) == (0, "")
        head, *rows = out.splitlines()
        assert [row.split()[0] for row in rows] == list(jobs.values())
        for name in ("STATE", "EXECUTOR", "QUEUE", "SUBMITTED", "TAGS", "NOTE"):
            column = head.index(name)
            assert all(row[column - 1] == " " and row[column] != " " for row in rows)
        note = head.index("NOTE")
        assert rows[0][note:] == "-"
        assert rows[1][note:] == "ValueError: row 2: 'thirty' is not a number"
        assert re.fullmatch(r"due \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", rows[2][note:])
        assert rows[3][note:] == "a b"
        assert re.search(r"FAILED +fail +default +normal +2/2 ", rows[1])
        assert re.search(r"SCHEDULED +echo +default +high +0 ", rows[2])
        assert [row[head.index("TAGS") : note].rstrip() for row in rows] == [
            "user=ann kind=text",
            "user=ann",
            "user=bob",
            "-",
        ]
        _, out, _ = shell.ask("list", "--state", "failed")
        assert "PRIORITY" not in out
        assert re.search(r"FAILED +fail +default +2/2 ", out)
        _, out, _ = shell.ask("list", "--state", "cancelled")
        assert "TAGS" not in out

    def test_json(self, shell: Shell, jobs: dict[str, str]) -> None:
        """With --json the list is an array of records, with times in ISO 8601 and names in place of numbers."""
        words, fail, later, gone = shell.value("list")
        assert (words["result"], words["tags"], words["payload"]) == (2, {"user": "ann", "kind": "text"}, "to be")
        assert fail["error"] == {
            "kind": "exception",
            "type": "ValueError",
            "message": "row 2: 'thirty' is not a number",
        }
        assert (later["priority"], later["key"], later["state"]) == ("HIGH", "k", "SCHEDULED")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", later["run_at"])
        assert (gone["state"], gone["cancel_reason"], gone["duration"]) == ("CANCELLED", "a\nb", None)

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            (["--state", "failed"], ["fail"]),
            (["--state", "failed,Cancelled", "--state", "scheduled"], ["fail", "later", "gone"]),
            (["--tag", "user=ann"], ["words", "fail"]),
            (["--tag", "user=ann", "--tag", "kind=text"], ["words"]),
            (["--queue", "other"], ["gone"]),
            (["--executor", "echo"], ["later", "gone"]),
            (["--executor", "echo", "--state", "running"], []),
            (["--key", "k"], ["later"]),
            (["--key", "k", "--state", "scheduled", "--executor", "echo"], ["later"]),
            (["--key", "k", "--state", "failed"], []),
            (["--key", "other"], []),
            (["--after", "the-failing-one"], ["later", "gone"]),
            (["--newest-first"], ["gone", "later", "fail", "words"]),
            (["--newest-first", "--after", "the-failing-one"], ["words"]),
        ],
    )
    def test_filters(self, shell: Shell, jobs: dict[str, str], options: list[str], found: list[str]) -> None:
        """Only jobs are listed that match all that is given."""
        assert [each["id"] for each in shell.value("list", *options)] == [jobs[name] for name in found]

    def test_pages(self, shell: Shell, jobs: dict[str, str]) -> None:
        """A full page ends with a word about how to get the next."""
        code, out, err = shell.ask("list", "--limit", "2")
        assert (code, len(out.splitlines())) == (0, 3)
        assert err == f"jobtrio list: there may be more: --after {jobs['fail']}\n"

    @pytest.mark.parametrize("name", ["the first, isn't it?", "--json"])
    def test_next_page_can_be_pasted(self, shell: Shell, name: str) -> None:
        """What is to be given for the next page is what a shell takes for a word, and the command for an id."""
        shell.submit("echo", f"--id={name}")
        options = shlex.split(shell.ask("list", "--limit", "1")[2].partition("there may be more: ")[2])
        assert shell.ask("list", *options, "--json") == (0, "[]\n", "")

    def test_reader_that_leaves(self, shell: Shell, jobs: dict[str, str]) -> None:
        """A reader that leaves early is no error."""
        command = shell.start("list")
        command.stdout.close()
        assert command.process.wait(60) in {0, 141}
        assert command.stderr.read() == b""


CLOSED = 'exec "$0" -m jobtrio "$@"'
"""A shell's script that runs the command, with a redirection behind it."""


def closed(shell: Shell, redirection: str, *args: str) -> tuple[int, str, str]:
    """Run the command by a shell that closes one of its streams first."""
    argv = ["sh", "-c", f"{CLOSED} {redirection}", sys.executable, *args]
    env = {**os.environ, "JOBTRIO_STORE": shell.url}
    done = subprocess.run(argv, cwd=shell.folder, env=env, capture_output=True, text=True, check=False, timeout=LIMIT)
    return done.returncode, done.stdout, done.stderr


BUFFERED = {"PYTHONUNBUFFERED": ""}
"""The usual way: what is printed is written at the end."""


@pytest.mark.once
class TestLostOutput:
    @pytest.mark.parametrize(
        "args",
        [
            ["list"],
            ["list", "--json"],
            ["stats"],
            ["show", "the-failing-one"],
            ["watch", "the-failing-one", "--json"],
        ],
    )
    def test_full_disk(self, shell: Shell, jobs: dict[str, str], args: list[str]) -> None:
        """Output that can't be written is a failure, however little it is."""
        with open("/dev/full", "wb") as full:
            code, _, err = shell.run(*args, stdout=full, variables=BUFFERED)
        assert (code, err.count("\n")) == (1, 1)
        assert err == f"jobtrio {args[0]}: the output can't be written: No space left on device\n"

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize("more", [[], ["--json"], ["--json", "--watch"]])
    def test_full_disk_for_an_id(self, shell: Shell, more: list[str], unbuffered: str) -> None:
        """A job that was accepted is named all the same: whoever submitted it once more would have two."""
        with open("/dev/full", "wb") as full:
            code, _, err = shell.run("submit", "echo", *more, stdout=full, variables={"PYTHONUNBUFFERED": unbuffered})
        (job,) = shell.value("list", "--newest-first", "--limit", "1")
        told = f"No space left on device; submitted {job['id']}"
        assert (code, err) == (1, f"jobtrio submit: the output can't be written: {told}\n")

    @pytest.mark.parametrize("args", [["list"], ["list", "--json"], ["stats"], ["submit", "echo"]])
    def test_full_disk_for_both(self, shell: Shell, jobs: dict[str, str], args: list[str]) -> None:
        """Nor does the exit code change where nobody can be told why."""
        with open("/dev/full", "wb") as full:
            assert shell.run(*args, stdout=full, stderr=full, variables=BUFFERED) == (1, "", "")

    def test_nobody_reads(self, shell: Shell, jobs: dict[str, str]) -> None:
        """Where nobody reads the output any more, that is told by the exit code alone, however little it is."""
        reader, writer = os.pipe()
        os.close(reader)
        command = shell.start("list", stdout=writer, variables=BUFFERED)
        os.close(writer)
        assert command.end() == (141, "", "")

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_nobody_reads_on(self, shell: Shell, unbuffered: str) -> None:
        """Nor is it a success where a reader leaves in the midst of one write."""
        job = shell.submit("echo", json.dumps("x" * 100_000))
        command = shell.start("show", "--json", job, variables={"PYTHONUNBUFFERED": unbuffered})
        assert command.stdout.read(1) == b"{"
        command.stdout.close()
        assert command.process.wait(LIMIT) == 141

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    def test_interrupt_while_the_reader_stalls(self, shell: Shell, unbuffered: str) -> None:
        """Ctrl-C ends a command that has but a little to say to a reader that does not read."""
        job = shell.submit("echo", json.dumps("x" * (select.PIPE_BUF + 100)))  # more than is written at once or never
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b" " * select.PIPE_BUF)
        os.set_blocking(writer, True)
        full = waiting(reader)
        os.read(reader, select.PIPE_BUF)
        command = shell.start("show", "--json", job, stdout=writer, variables={"PYTHONUNBUFFERED": unbuffered})
        os.close(writer)
        wait_until(lambda: waiting(reader) >= full)
        command.send(signal.SIGINT)
        assert command.end() == (130, "", "")
        os.close(reader)


def waiting(pipe: int) -> int:
    """Return how many bytes wait in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4), sys.byteorder)


def test_text_that_the_locale_lacks(shell: Shell) -> None:
    """What the terminal's encoding can't hold is shown as backslash escapes."""
    shell.submit("echo", "--id", "漢", "--payload", '"é"')
    for args, part in ((["list"], "\\u6f22"), (["show", "漢"], '"\\xe9"')):
        code, out, err = shell.run(*args, variables={"PYTHONIOENCODING": "ascii"})
        assert (code, err) == (0, "")
        assert part in out


@pytest.mark.once
class TestClosedStreams:
    @pytest.mark.parametrize(
        "args",
        [
            ["list"],
            ["list", "--json"],
            ["show", "the-failing-one"],
            ["show", "the-failing-one", "--json"],
            ["stats"],
            ["stats", "--json"],
            ["prune", "--keep", "9", "--json"],
            ["submit", "echo", "--json"],
            ["demo"],
        ],
    )
    def test_stdout(self, shell: Shell, jobs: dict[str, str], args: list[str]) -> None:
        """With stdout closed from the start a command does what it is to do all the same."""
        assert closed(shell, ">&-", *args) == (0, "", "")

    def test_stderr(self, shell: Shell, jobs: dict[str, str]) -> None:
        """With stderr closed from the start, stdout gets nothing that is not meant for it."""
        assert closed(shell, "2>&-", "show", "none") == (1, "", "")
        code, out, err = closed(shell, "2>&-", "list", "--limit", "1")
        assert (code, len(out.splitlines()), err) == (0, 2, "")
        (shell.folder / "broken.py").write_text("1 / 0")
        assert closed(shell, "2>&-", "worker", "broken:executors", "--json") == (1, "", "")
        for args in (["list", "--limit", "no", "--json"], ["submit"], ["worker", "nowhere:executors"], ["no"]):
            assert closed(shell, "2>&-", *args) == (2, "", "")

    def test_stdin(self, shell: Shell, jobs: dict[str, str]) -> None:
        """A payload that is to come from a closed standard input is bad usage."""
        code, out, err = closed(shell, "<&-", "submit", "echo", "--payload", "@-")
        assert (code, out) == (2, "")
        assert err.endswith("argument --payload: can't read the standard input: it is closed\n")


class TestShow:
    def test_failed_job(self, shell: Shell, jobs: dict[str, str]) -> None:
        """A job is shown with its record, its error and traceback, its history and its last messages."""
        code, out, err = shell.ask("show", jobs["fail"])
        assert (code, err) == (0, "")
        record, trace, history, messages = out.split("\n\n")
        assert re.search(r"^state +FAILED$", record, re.MULTILINE)
        assert re.search(r"^tags +user=ann$", record, re.MULTILINE)
        assert re.search(r"^ended +\S+ \S+, after \d+\.\d+ s$", record, re.MULTILINE)
        assert re.search(r"^error +ValueError: row 2: 'thirty' is not a number \(exception\)$", record, re.MULTILINE)
        assert trace.startswith("Traceback (most recent call last):")
        assert trace.endswith("\n  ValueError: row 2: 'thirty' is not a number")
        states = [line.split()[2] for line in history.splitlines()[1:]]
        assert states == ["QUEUED", "RUNNING", "RETRYING", "QUEUED", "RUNNING", "FAILED"]
        texts = [line.split(maxsplit=2)[2] for line in messages.splitlines()[1:]]
        failed = "failed: ValueError: row 2: 'thirty' is not a number"
        assert texts == ['{"row": 1}', f"restart: {failed}", '{"row": 1}', f"end: {failed}"]

    def test_text_that_a_terminal_would_obey(self, shell: Shell) -> None:
        """Of an error and its traceback, what is no plain text is shown as escapes; no line can pass for another."""
        executors = jobtrio.Executors()

        @executors.register("fail")
        async def fail(job: jobtrio.JobContext) -> None:
            raise ValueError("\x1b[2Jgone\nstate      COMPLETED")

        async def run() -> str:
            async with jobtrio.open_registry(executors, store=SqliteJobStore(shell.folder / "jobs.db")) as registry:
                job = await registry.submit("fail")
                await job.wait()
                return job.id

        code, out, err = shell.ask("show", trio.run(run))
        assert (code, err) == (0, "")
        assert "\x1b" not in out
        _, trace, *_ = out.split("\n\n")
        assert trace.endswith("\n  ValueError: \\x1b[2Jgone\n  state      COMPLETED")
        assert re.findall(r"^state +(\w+)$", out, re.MULTILINE) == ["FAILED"]

    def test_errors_that_a_line_tells(self, shell: Shell) -> None:
        """No more is told of a program that failed, or of an error without a traceback, unless the line is cut."""
        executors = jobtrio.Executors()
        executors.register("program")(run_command)

        @executors.register("slow", time_limit=0.01)
        async def slow(job: jobtrio.JobContext) -> None:
            await trio.sleep_forever()

        async def run() -> list[str]:
            async with jobtrio.open_registry(executors, store=SqliteJobStore(shell.folder / "jobs.db")) as registry:
                jobs = [
                    await registry.submit("program", {"argv": ["false"]}),
                    await registry.submit("slow"),
                    await registry.submit("program", {"argv": [str(program)]}),
                ]
                for job in jobs:
                    await job.wait()
                return [job.id for job in jobs]

        program = shell.folder / ("x" * 250)
        program.symlink_to("/bin/false")
        failed, late, long = trio.run(run)
        for job_id, told in ((failed, "'false' exited with 1"), (late, "longer than its time limit of 0.01 s")):
            code, out, err = shell.ask("show", job_id)
            assert (code, err) == (0, "")
            record, history, _ = out.split("\n\n")
            assert re.search(rf"^error .*{told}", record, re.MULTILINE)
            assert history.startswith("AT ")
        more = shell.ask("show", long)[1].split("\n\n")[1]
        assert more == f"CommandFailedError: '{program}' exited with 1"

    def test_names_that_a_terminal_would_obey(self, shell: Shell) -> None:
        """So are names that no jobtrio has written."""
        shell.submit("echo", "--key", "k")
        second = shell.submit("echo", "--tag", "a=b")
        evil = "\x1b[2J\n"
        with contextlib.closing(sqlite3.connect(shell.folder / "jobs.db")) as connection:
            connection.execute("UPDATE jobs SET id = ? WHERE key = 'k'", [evil])
            changed = [evil, evil, json.dumps({"a": evil}), second]
            connection.execute("UPDATE jobs SET executor = ?, queue = ?, tags = ? WHERE id = ?", changed)
            connection.commit()
        for args in (["show", second], ["list", "--limit", "1"], ["stats"], ["submit", "echo", "--key", "k"]):
            code, out, err = shell.ask(*args)
            assert code == 0, err
            assert "\x1b" not in out + err
            assert "\\x1b[2J\\n" in out

    def test_last_messages(self, shell: Shell, jobs: dict[str, str]) -> None:
        """As many of the last messages are shown as were asked for."""
        assert [each["seq"] for each in shell.value("show", "--messages", "2", jobs["words"])["messages"]] == [2, 3]
        assert shell.value("show", "--messages", "0", jobs["words"])["messages"] == []
        assert len(shell.value("show", "--messages", "100", jobs["words"])["messages"]) == 3

    def test_json(self, shell: Shell, jobs: dict[str, str]) -> None:
        """With --json all of it is one object, the traceback included."""
        value = shell.value("show", jobs["fail"])
        assert set(value) == {"job", "history", "messages"}
        assert "Traceback" in value["job"]["error"]["traceback"]
        assert value["history"][0] | {"at": "", "worker": ""} == {
            "job_id": jobs["fail"],
            "at": "",
            "previous": None,
            "state": "QUEUED",
            "attempt": 0,
            "worker": "",
            "reason": None,
        }
        assert value["messages"][-1]["outcome"]["type"] == "failed"


class TestStats:
    def test_counts(self, shell: Shell, jobs: dict[str, str]) -> None:
        """Every state is counted, as a table and as JSON."""
        counts = {"SCHEDULED": 1, "COMPLETED": 1, "FAILED": 1, "CANCELLED": 1}
        every = dict.fromkeys(("QUEUED", "RUNNING", "RETRYING"), 0) | counts
        stats = shell.value("stats")
        queues = stats.pop("queues")
        assert stats == {"states": every, "paused": {}, "workers": [], "running": []}
        assert sorted(queues) == ["default", "other", "texts"]
        assert {state: sum(counts[state] for counts in queues.values()) for state in every} == every
        code, out, _ = shell.ask("stats")
        assert code == 0
        head, *lines, blank, workers = out.splitlines()
        assert (blank, workers) == ("", "no worker is there")
        assert head.split() == ["STATE", "default", "other", "texts", "JOBS"]
        assert {line.split()[0]: int(line.split()[-1]) for line in lines} == every

    def test_counts_of_tags(self, shell: Shell) -> None:
        """With tags those jobs alone are counted that have all of them; paused queues are told all the same."""

        async def fill() -> None:
            store = SqliteJobStore(shell.folder / "jobs.db")
            async with jobtrio.open_registry(store_jobs.executors, store=store, queues={}) as registry:
                for n in range(6):
                    await registry.submit("echo", queue="ab"[n % 2], tags={"batch": "7", "half": str(n // 3)})
                await registry.submit("echo", tags={"batch": "8"})
                await registry.pause("a")

        trio.run(fill)
        for options, a, b in (
            (["--tag", "batch=7"], 3, 3),
            (["--tag", "batch=7", "--tag", "half=1"], 1, 2),
            (["--tag", "half=2"], 0, 0),
        ):
            stats = shell.value("stats", *options)
            queues = {queue: counts["QUEUED"] for queue, counts in stats["queues"].items()}
            assert queues == {queue: n for queue, n in (("a", a), ("b", b)) if n}
            assert (stats["states"]["QUEUED"], stats["paused"], stats["running"]) == (a + b, {"a": None}, [])
            out = shell.ask("stats", *options)[1]
            assert [line.split()[-1] for line in out.splitlines() if line.startswith("QUEUED")] == [str(a + b)]
        code, _, err = shell.ask("stats", "--tag", "batch")
        assert (code, "--tag" in err) == (2, True)

    @pytest.mark.parametrize(("queues", "head"), [(1, []), (8, [f"q{n}" for n in range(8)]), (9, [])])
    def test_columns(self, shell: Shell, queues: int, head: list[str]) -> None:
        """Queues have columns where there are several, up to eight."""

        async def fill() -> None:
            store = SqliteJobStore(shell.folder / "jobs.db")
            async with jobtrio.open_registry(store_jobs.executors, store=store, queues={}) as registry:
                await registry.submit_many([jobtrio.JobSpec("echo", queue=f"q{n}") for n in range(queues)])

        trio.run(fill)
        assert shell.ask("stats")[1].splitlines()[0].split() == ["STATE", *head, "JOBS"]


class TestPrioritize:
    def test_jobs(self, shell: Shell, jobs: dict[str, str]) -> None:
        """What waits has the priority then, and for what doesn't it is said why; the exit code tells if any is not."""
        waiting, other, ended = (shell.submit("echo") for _ in range(3))
        shell.ask("cancel", ended)
        said = f"{waiting} has priority high\n{other} has priority high\n"
        assert shell.ask("prioritize", waiting, "--priority", "HIGH", other, waiting) == (0, said, "")
        assert "priority high" in shell.ask("show", other)[1]
        code, out, err = shell.ask("prioritize", "--priority", "low", ended, "nobody", other)
        assert (code, out) == (1, f"{other} has priority low\n")
        assert err.splitlines() == [
            f"jobtrio prioritize: job {ended!r} has ended already: cancelled",
            "jobtrio prioritize: no job has the id 'nobody': it never existed or is no longer kept",
        ]
        assert {job: shell.value("show", job)["job"]["priority"] for job in (waiting, other, ended)} == {
            waiting: "HIGH",
            other: "LOW",
            ended: "NORMAL",
        }

    def test_json(self, shell: Shell, jobs: dict[str, str]) -> None:
        """One object names those that have the priority, and the others with their states."""
        waiting, ended = shell.submit("echo"), shell.submit("echo")
        shell.ask("cancel", ended)
        code, out, err = shell.ask("prioritize", waiting, ended, "nobody", "--priority", "critical", "--json")
        assert (code, len(err.splitlines())) == (1, 2)
        assert json.loads(out) == {"prioritized": [waiting], "refused": {ended: "CANCELLED", "nobody": None}}
        assert shell.value("prioritize", waiting, "--priority", "low") == {"prioritized": [waiting], "refused": {}}

    def test_a_running_job(self, shell: Shell) -> None:
        """Of a job that runs it is said that it does."""
        shell.worker()
        job = shell.submit("wait", "--payload", json.dumps(str(shell.folder / "never")))
        wait_until(lambda: shell.value("show", job)["job"]["state"] == "RUNNING")
        said = f"jobtrio prioritize: job {job!r} runs already\n"
        assert shell.ask("prioritize", job, "--priority", "high") == (1, "", said)


class TestPause:
    def test_a_queue(self, shell: Shell, jobs: dict[str, str]) -> None:
        """A queue is paused and resumed, once or twice; `stats` shows those that are paused."""
        end = "paused; jobtrio resume 'a queue' ends it\n"
        assert [shell.ask("pause", "a queue")] * 2 == [(0, end, "")] * 2
        assert shell.value("pause", "default") == {"queue": "default", "paused": True, "until": None}
        assert shell.value("stats")["paused"] == {"a queue": None, "default": None}
        assert "\n\nPAUSED\na queue\ndefault\n\nno worker" in shell.ask("stats")[1]
        for _ in range(2):
            assert shell.ask("resume", "a queue") == (0, "resumed\n", "")
        assert shell.value("resume", "default") == {"queue": "default", "paused": False}
        assert shell.value("stats")["paused"] == {}
        assert "PAUSED" not in shell.ask("stats")[1]

    def test_for_a_time(self, shell: Shell, jobs: dict[str, str]) -> None:
        """A queue is paused for a time; `pause`, `stats` and `watch` tell until when, and the longest pause counts."""
        began = datetime.now(UTC)
        told = shell.value("pause", "default", "--for", "1h")
        until = datetime.fromisoformat(told["until"])
        assert told == {"queue": "default", "paused": True, "until": told["until"]}
        assert began + timedelta(hours=1) <= until <= datetime.now(UTC) + timedelta(hours=1)
        shown = moment_text(until)
        again = shell.ask("pause", "default", "--for", "2s")[1]
        assert again.startswith(f"paused until {shown[:-4]}")  # but for what the two clocks of a store may be apart
        assert again.endswith("; jobtrio resume default ends it\n")
        assert [*shell.value("stats")["paused"]] == ["default"]
        shell.ask("pause", "gpu")
        assert re.search(rf"\n\nPAUSED   UNTIL\ndefault  {shown[:-4]}[^\n]*\ngpu      -\n", shell.ask("stats")[1])
        assert shell.value("stats")["paused"]["gpu"] is None
        assert shell.ask("resume", "default") == (0, "resumed\n", "")
        assert shell.value("pause", "default", "--for", "0.001")["queue"] == "default"

    @pytest.mark.parametrize(
        ("text", "said"), [("-1", "of 0 or more"), ("soon", "of 0 or more"), ("1e15", "the year 9999")]
    )
    def test_no_time(self, shell: Shell, jobs: dict[str, str], text: str, said: str) -> None:
        """What is no time to wait is refused, and pauses nothing."""
        code, _, err = shell.ask("pause", "default", "--for", text)
        assert code == 2
        assert said in err
        assert shell.value("stats")["paused"] == {}

    def test_how_it_ends(self, shell: Shell, jobs: dict[str, str]) -> None:
        """The command that ends it can be copied as it is, but for a password."""
        url = f"sqlite:///{shell.folder}/jobs.db"
        end = f"jobtrio resume --store {url} -- -q"
        assert shell.ask("pause", "--store", url, "--", "-q") == (0, f"paused; {end} ends it\n", "")

    @pytest.mark.parametrize("command", ["pause", "resume"])
    def test_no_pattern(self, shell: Shell, jobs: dict[str, str], command: str) -> None:
        """Of what would be a pattern for a worker it is said that it is the name of a single queue here."""
        code, _, err = shell.ask(command, "user:*")
        assert (code, err) == (0, f"jobtrio {command}: 'user:*' is the name of a single queue here, not a pattern\n")


class TestRemove:
    def test_ended_job(self, shell: Shell, jobs: dict[str, str]) -> None:
        """An ended job goes, with its history and its messages; the others stay."""
        assert shell.ask("remove", jobs["fail"]) == (0, "removed\n", "")
        assert [each["id"] for each in shell.value("list")] == [jobs["words"], jobs["later"], jobs["gone"]]
        assert shell.ask("show", jobs["fail"])[0] == 1
        record = shell.value("show", jobs["words"])["job"]
        assert shell.value("remove", jobs["words"]) == {"removed": True, "job": record}

    def test_living_job(self, shell: Shell, jobs: dict[str, str]) -> None:
        """One that lives stays, and the command says what is to be done first."""
        job = jobs["later"]
        code, out, err = shell.ask("remove", job)
        assert (code, out) == (1, "")
        assert err == f"jobtrio remove: job {job!r} lives, it is scheduled: jobtrio cancel {job} ends it\n"
        code, out, err = shell.ask("remove", job, "--json")
        assert code == 1
        assert json.loads(out) == {"removed": False, "job": shell.value("show", job)["job"]}
        assert err.startswith(f"jobtrio remove: job {job!r} lives")


class TestPrune:
    def test_newest_are_kept(self, shell: Shell, jobs: dict[str, str]) -> None:
        """Of the ended jobs as many are kept as were asked for, the newest; living ones stay."""
        code, out, err = shell.ask("prune", "--keep", "1")
        assert (code, out, err) == (0, "removed 2 jobs, kept 1\n", "")
        assert [each["id"] for each in shell.value("list")] == [jobs["later"], jobs["gone"]]

    def test_young_are_kept(self, shell: Shell, jobs: dict[str, str]) -> None:
        """What ended within the time stays, what ended before goes."""
        assert shell.value("prune", "--keep-for", "1h") == {"removed": 0, "kept": 3}
        with sqlite3.connect(shell.folder / "jobs.db") as connection:
            connection.execute("UPDATE jobs SET finished_at = finished_at - 7200 WHERE id = ?", [jobs["words"]])
        connection.close()
        assert len(shell.value("list")) == len(shell.value("list")) == 4  # which removes nothing itself
        assert shell.value("prune", "--keep", "3") == {"removed": 0, "kept": 3}
        assert shell.value("prune", "--keep-for", "1h") == {"removed": 1, "kept": 2}
        assert shell.value("prune", "--keep-for", "0") == {"removed": 2, "kept": 0}
        assert [each["id"] for each in shell.value("list")] == [jobs["later"]]


class TestSubmit:
    def test_registered_options(self, shell: Shell) -> None:
        """With --executors the job gets what its executor is registered with, unless other is given."""
        plain = shell.submit("words")
        known = shell.submit("words", "--executors", "store_jobs:executors")
        given = shell.submit("words", "--executors", "store_jobs:executors", "--queue", "mine")
        assert [shell.value("show", job)["job"]["queue"] for job in (plain, known, given)] == [
            "default",
            "texts",
            "mine",
        ]

    def test_unknown_executor(self, shell: Shell) -> None:
        """With --executors a name that isn't registered there is refused."""
        code, out, err = shell.ask("submit", "word", "--executors", "store_jobs:executors")
        assert (code, out) == (1, "")
        assert err.startswith("jobtrio submit: no executor is registered as 'word'; registered: 'cling', 'echo'")

    def test_payloads(self, shell: Shell) -> None:
        """A payload is JSON, on the command line, in a file, or on the standard input."""
        (shell.folder / "payload.json").write_text('{"a": [1, "é"]}', "utf-8")
        ids = [shell.submit("echo", "--payload", "@payload.json"), shell.submit("echo", "--payload", "[1, null]")]
        reader = shell.folder / "payload.json"
        with reader.open("rb") as file:
            code, out, _ = shell.run("submit", "echo", "--payload", "@-", stdin=file)
        assert code == 0
        payloads = [shell.value("show", job)["job"]["payload"] for job in (*ids, out.strip())]
        assert payloads == [{"a": [1, "é"]}, [1, None], {"a": [1, "é"]}]

    def test_options_in_between(self, shell: Shell) -> None:
        """Options may stand before, between and behind the words."""
        ids = [
            shell.submit("--queue", "q", "echo", "[1]", "--priority", "low"),
            shell.submit("echo", "--queue", "q", "[1]"),
            shell.submit("echo", "[1]", "--queue", "q"),
        ]
        jobs = shell.value("list", "--queue", "q")
        assert [job["id"] for job in jobs] == ids
        assert {(job["executor"], str(job["payload"])) for job in jobs} == {("echo", "[1]")}

    @pytest.mark.parametrize("words", [["-7"], ["-1e5"], ["--", "-7"]])
    def test_negative_numbers(self, shell: Shell, words: list[str]) -> None:
        """A number below 0 is a payload, wherever it stands."""
        number = float(words[-1])
        jobs = [shell.submit("echo", "--queue", "q", *words), shell.submit("--queue", "q", "echo", *words)]
        assert [shell.value("show", job)["job"]["payload"] for job in jobs] == [number, number]

    def test_key(self, shell: Shell) -> None:
        """A key stands for the job: the second submission gets the first one's id."""
        assert shell.submit("echo", "--key", "order-17") == shell.submit("echo", "--key", "order-17")

    def test_id_in_use(self, shell: Shell) -> None:
        """An id that is in use is refused in one line."""
        shell.submit("echo", "--id", "a")
        code, _, err = shell.ask("submit", "echo", "--id", "a")
        assert code == 1
        assert err == "jobtrio submit: job_id 'a' is in use: give another, or none to have one made\n"

    def test_limits(self, shell: Shell) -> None:
        """What limits a job is stored with it."""
        job = shell.submit("echo", "--retry", "2", "--delay", "60", "--expires-in", "90", "--time-limit", "5")
        record = shell.value("show", job)["job"]
        assert (record["max_attempts"], record["state"]) == (3, "SCHEDULED")
        policy = {"max_attempts": 3, "initial": 1.0, "multiplier": 2.0, "max_delay": 300.0, "jitter": 0.1}
        assert (record["time_limit"], record["retry"], record["expires_in"]) == (5.0, policy, 90.0)
        shown = shell.ask("show", job)[1]
        assert re.search(r"^expires    if not started within 1 min 30 s$", shown, re.MULTILINE)
        assert re.search(r"^time limit 5\.0 s$", shown, re.MULTILINE)
        assert re.search(r"^retries    3 attempts, after 1\.0 s, 2 times as long each,", shown, re.MULTILINE)
        plain = shell.submit("echo")
        assert not re.search(r"^(expires|time limit|retries) ", shell.ask("show", plain)[1], re.MULTILINE)
        record = shell.value("show", plain)["job"]
        assert (record["time_limit"], record["retry"], record["expires_in"]) == (None, None, None)
        assert shell.ask("submit", "echo", "1e999")[0] == 1  # JSON, but no number that could be stored
        code, _, err = shell.ask("submit", "echo", "--delay", "60", "--expires-in", "30")
        assert code == 2
        assert err.startswith("jobtrio submit: expires_in must exceed the delay of 60 s")

    def test_at(self, shell: Shell) -> None:
        """A job may start at a time rather than after one; not both."""
        record = shell.value("show", shell.submit("echo", "--at", "2100-01-31T18:30Z"))["job"]
        assert record["state"] == "SCHEDULED"
        due = datetime.fromisoformat(record["run_at"])
        assert abs(due - datetime(2100, 1, 31, 18, 30, tzinfo=UTC)) < timedelta(minutes=10)
        code, _, err = shell.ask("submit", "echo", "--at", "18:30", "--delay", "1")
        assert code == 2
        assert "argument --delay: not allowed with argument --at" in err

    @pytest.mark.parametrize(
        "args", [["echo", "--delay", "60", "--expires-in", "30"], ["echo", "--delay", "9e9d"], ["echo", "1e999"]]
    )
    def test_no_store_is_made_for_nothing(self, shell: Shell, args: list[str]) -> None:
        """What can't be submitted leaves no new file behind."""
        assert shell.ask("submit", *args)[0] in (1, 2)
        assert not (shell.folder / "jobs.db").exists()

    def test_json(self, shell: Shell) -> None:
        """With --json the record is printed; with --watch as well, a line for each message."""
        assert shell.value("submit", "echo", "--id", "a")["state"] == "QUEUED"
        shell.worker()
        code, out, _ = shell.ask("submit", "words", "--payload", '"to be"', "--watch", "--json")
        first, *messages = [json.loads(line) for line in out.splitlines()]
        assert code == 0
        assert set(first) == {"type", "job"}
        assert first["type"] == "submitted"
        assert [each["type"] for each in messages] == ["token", "token", "end"]
