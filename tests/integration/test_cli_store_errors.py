"""What the commands on a store refuse, and what they say of a store that can't be used."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from store_shell import Shell

COMMANDS = (
    *("run", "worker", "submit", "list", "show", "watch", "cancel", "rerun", "pause", "resume", "stats", "remove"),
    *("prioritize", "prune"),
)

ONE_JOB = ("show", "watch", "cancel", "rerun", "remove")

ONE_QUEUE = ("pause", "resume")


@pytest.mark.parametrize("name", COMMANDS)
def test_help(shell: Shell, name: str) -> None:
    """Every command's help names the store, JSON and exit codes."""
    code, out, err = shell.ask(name, "--help")
    assert (code, err) == (0, "")
    for part in ("--store URL", "JOBTRIO_STORE", "--json", "exit code:"):
        assert part in out


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["list", "--state", "asleep"], ["--state", "'asleep'", "scheduled,queued,running"]),
        (["list", "--tag", "user"], ["--tag", "'user'", "NAME=VALUE"]),
        (["list", "--tag", "user="], ["--tag", "NAME=VALUE"]),
        (["list", "--tag", "user=ann", "--tag", "user=bob"], ["--tag", "'user' was given twice"]),
        (["list", "--limit", "0"], ["--limit", "from 1"]),
        (["list", "--limit", "many"], ["--limit", "from 1 to 999999999", "'many'"]),
        (["list", "--store", "redis://ann:secret@host:x/"], ["--store", "redis://HOST:6379"]),
        (["list", "--store", "jobs.db"], ["--store", "sqlite:///jobs.db", "'jobs.db'"]),
        (["show"], ["ID"]),
        (["show", "a", "b"], ["unknown, or out of place: b", "jobtrio show --help"]),
        (["watch", "a", "--after", "-1"], ["--after"]),
        (["watch"], ["jobs' IDs, or --tag, --queue, --executor, --key and --state"]),
        (["watch", "a", "--queue", "q"], ["jobs' IDs, or --tag, --queue, --executor, --key and --state"]),
        (["watch", "a", "b", "--after", "1"], ["--after and --text are for one job"]),
        (["watch", "--tag", "user=ann", "--text"], ["--after and --text are for one job"]),
        (["watch", *map(str, range(1001))], ["at most 1000 jobs", "got 1001"]),
        (["cancel"], ["a job's ID, or --tag, --queue, --executor, --key and --state"]),
        (["cancel", "a", "--queue", "q"], ["a job's ID, or --tag, --queue, --executor, --key and --state"]),
        (["cancel", "--state", "failed"], ["--state", "scheduled,queued,running,retrying, in which", "'failed'"]),
        (["cancel", "--tag", "user"], ["--tag", "'user'", "NAME=VALUE"]),
        (["cancel", "a", "--grace", "nan"], ["--grace", "0 or more"]),
        (["cancel", "a", "--reason", "x" * 10_001], ["--reason", "10000 characters"]),
        (["rerun"], ["jobs' IDs, or --tag, --queue, --executor, --key and --state"]),
        (["rerun", "a", "--queue", "q"], ["jobs' IDs, or --tag, --queue, --executor, --key and --state"]),
        (["rerun", "--state", "running,failed"], ["completed,failed,cancelled, in which", "'running,failed'"]),
        (["rerun", "a", "--executors", "store_jobs"], ["must be given as MODULE:EXECUTORS", "'store_jobs'"]),
        (["prioritize", "--priority", "high"], ["jobs' IDs, or --tag, --queue, --executor, --key and --state"]),
        (
            ["prioritize", "a", "--queue", "q", "--priority", "high"],
            ["jobs' IDs, or --tag, --queue, --executor, --key and --state"],
        ),
        (
            ["prioritize", "--state", "running", "--priority", "low"],
            ["scheduled,queued,retrying, in which", "'running'"],
        ),
        (["prioritize", "a"], ["--priority"]),
        (["prioritize", "a", "--priority", "2"], ["--priority", "'2'", "low, normal, high, critical"]),
        (["prioritize", "a", "--priority", "low", "ws://ann:secret@h/jobs/b"], ["ID", "the job's id", "server's URL"]),
        (["run", "--", "ls", "d\udce9"], ["PROGRAM, its arguments", "UTF-8", r"'d\udce9'"]),
        (["run", "--env", "A=\udce9", "--", "ls"], ["--env must be UTF-8", r"'\udce9'"]),
        (["pause"], ["QUEUE"]),
        (["pause", "a", "b"], ["unknown, or out of place: b"]),
        (["pause", ""], ["QUEUE", "1 to 200 printable characters"]),
        (["resume", "a\nb"], ["QUEUE", "1 to 200 printable characters"]),
        (["prune"], ["--keep-for", "--keep"]),
        (["prune", "--keep-for", "3w"], ["--keep-for", "'3w'", "(s, m, h, d)"]),
        (["submit"], ["EXECUTOR"]),
        (["submit", "echo", "--payload", "hello"], ["--payload", "must be JSON", "'\"hello\"'"]),
        (["submit", "echo", "it's"], ["JSON", """: '"it'"'"'s"'"""]),
        (["submit", "echo", "--payload", "NaN"], ["--payload", "NaN is not JSON"]),
        (["submit", "echo", "--payload", "@none.json"], ["--payload", "'none.json'", "No such file"]),
        (["submit", "echo", "--priority", "urgent"], ["--priority", "'urgent'", "low, normal, high, critical"]),
        (["submit", "echo", "--time-limit", "0"], ["--time-limit", "above 0"]),
        (["submit", "echo", "--tag", "user=ann", "--tag", "user=bob"], ["--tag", "'user' was given twice"]),
        (["submit", "", "--payload", "1"], ["EXECUTOR", "1 to 200 printable characters"]),
        (["worker", "store_jobs:executors", "--queue", "gpu=0"], ["--queue", "from 1"]),
        (["worker", "store_jobs:executors", "--queue", "=1"], ["--queue", "1 to 200"]),
        (
            ["worker", "store_jobs:executors", "--queue", "gpu=1", "--queue", "gpu"],
            ["--queue", "'gpu' was given twice"],
        ),
        (["worker", "store_jobs:executors", "--total", "g=1", "--total", "g=2"], ["--total", "'g' was given twice"]),
        (["worker", "store_jobs:executors", "--total", "gpu"], ["--total", "NAME=N", "'gpu'"]),
        (["worker", "store_jobs:executors", "--total", "gpu=0"], ["--total", "from 1"]),
        (["worker", "store_jobs:executors", "--rate", "g=1/s", "--rate", "g=2/s"], ["--rate", "'g' was given twice"]),
        (["worker", "store_jobs:executors", "--rate", "gpu=60"], ["--rate", "NAME=N/TIME", "'gpu=60'"]),
        (["worker", "store_jobs:executors", "--rate", "60/m"], ["--rate", "NAME=N/TIME", "'60/m'"]),
        (["worker", "store_jobs:executors", "--rate", "=60/m"], ["--rate", "1 to 200 printable"]),
        (["worker", "store_jobs:executors", "--rate", "gpu=0/m"], ["--rate", "from 1"]),
        (["worker", "store_jobs:executors", "--rate", "gpu=1/0s"], ["--rate", "above 0", "'0s'"]),
        (["worker", "store_jobs:executors", "--rate", "gpu=1/2w"], ["--rate", "(s, m, h, d)", "'2w'"]),
        (["worker", "store_jobs:executors", "--rate", "gpu=1/2d"], ["--rate", "at most 86400 seconds", "'gpu=1/2d'"]),
        (["worker", "store_jobs:executors", "--rate", "gpu=9/m,10"], ["--rate", "burst", "at most starts, 9"]),
        (["worker", "store_jobs:executors", "--lease", "0.5"], ["--lease", "1 s or more"]),
        (["worker", "store_jobs:executors", "--max-running", "0"], ["--max-running", "from 1"]),
    ],
)
def test_bad_usage(shell: Shell, args: list[str], parts: list[str]) -> None:
    """Options that make no sense end with 2, and with the option, the value and what is allowed."""
    code, out, err = shell.ask(*args)
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err
    assert "secret" not in err
    assert not (shell.folder / "jobs.db").exists()


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("", ["--store is missing", "JOBTRIO_STORE"]),
        ("jobs.db", ["error: JOBTRIO_STORE: ", "'jobs.db'"]),
        ("redis://host:x", ["error: JOBTRIO_STORE: ", "its port is no number"]),
    ],
)
def test_store_in_the_environment(shell: Shell, url: str, parts: list[str]) -> None:
    """A store that is named nowhere, or wrongly in the environment, ends with 2."""
    code, _, err = shell.ask("list", variables={"JOBTRIO_STORE": url})
    assert code == 2
    for part in parts:
        assert part in err


@pytest.mark.parametrize("name", [*ONE_JOB, *ONE_QUEUE, "list", "stats", "prune"])
def test_no_file(shell: Shell, name: str) -> None:
    """Commands that look at a store don't make one: a file that isn't there is a slip of the pen."""
    args = {"prune": ["--keep", "1"]}.get(name, ["a"] if name in (*ONE_JOB, *ONE_QUEUE) else [])
    code, out, err = shell.ask(name, *args)
    assert (code, out, err) == (1, "", f"jobtrio {name}: there is no file 'jobs.db', hence no job\n")
    assert list(shell.folder.iterdir()) == []


def test_a_file_that_has_left_its_log(shell: Shell) -> None:
    """A file that isn't there, where its log is, is away: nobody is told that there is no job."""
    (shell.folder / "jobs.db-wal").write_bytes(b"what was acknowledged last")
    code, _, err = shell.ask("list", "--store", "sqlite:///jobs.db?outage_limit=0.1")
    assert code == 1
    assert "jobs.db is gone or empty, but its log" in err
    assert [path.name for path in shell.folder.iterdir()] == ["jobs.db-wal"]


def test_a_log_that_holds_nothing(shell: Shell) -> None:
    """Nothing is lost with an empty log: there is no file, and none is made."""
    (shell.folder / "jobs.db-wal").touch()
    code, _, err = shell.ask("list")
    assert (code, err) == (1, "jobtrio list: there is no file 'jobs.db', hence no job\n")
    assert [path.name for path in shell.folder.iterdir()] == ["jobs.db-wal"]


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (["run", "--store", "sqlite:///{}/jobs.db", "--", "true"], 2, "--cwd must be given, from the root"),
        (["run", "--store", "sqlite:///{}/jobs.db", "--cwd", "/", "--", "true"], 0, "completed"),
        (["submit", "--store", "sqlite:///jobs.db", "echo"], 1, "'jobs.db' can't be used: the current folder is gone"),
        (["worker", "--store", "sqlite:///{}/jobs.db", "no_such:executors"], 2, "there is no module 'no_such'"),
    ],
)
def test_current_directory_that_is_gone(tmp_path: Path, args: list[str], code: int, part: str) -> None:
    """Commands that need the directory which they were started in say so where it is gone; the others go on."""
    gone = tmp_path / "gone"
    gone.mkdir()
    command = [sys.executable, "-m", "jobtrio", *(arg.format(tmp_path) for arg in args)]
    remove_and_run = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command]
    done = subprocess.run(remove_and_run, cwd=gone, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "")
    assert part in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ONE_JOB)
def test_unknown_job(shell: Shell, name: str) -> None:
    """An unknown id ends with 1 and one line."""
    shell.submit("echo")
    code, out, err = shell.ask(name, "no\nsuch")
    assert (code, out) == (1, "")
    assert err == f"jobtrio {name}: no job has the id 'no\\nsuch': it never existed or is no longer kept\n"


def test_address_of_a_browser(shell: Shell) -> None:
    """What may be a server's address is a job's id where there is one, and else a reason to say what is."""
    job = shell.submit("echo", "--id", "https://example.org/")
    shell.ask("cancel", job)
    assert shell.ask("watch", job)[0] == 125
    code, out, err = shell.ask("watch", "HTTP://host:8765")
    assert (code, out) == (1, "")
    assert err.startswith("jobtrio watch: no job has the id 'HTTP://host:8765': ")
    assert err.endswith("; at a server a job's URL is ws://HOST:PORT/jobs/ID or wss://…\n")
    code, out, err = shell.ask("watch", "https://host", variables={"JOBTRIO_STORE": ""})
    assert (code, out) == (2, "")
    assert "a job's URL must be ws://HOST:PORT/jobs/ID or wss://…; got 'https://host'" in err


def test_asked_here(shell: Shell) -> None:
    """A command that runs in the tests' own process says there what it says as one of its own, by whatever way."""
    job = shell.submit("echo")
    assert shell.ask("cancel", job) == (0, "cancelled\n", "")
    for args in (["watch", job], ["watch", "--json", job], ["list", "--limit", "1"]):
        assert shell.ask(*args) == shell.run(*args)


@pytest.mark.parametrize("args", [["list"], ["submit", "echo"], ["worker", "store_jobs:executors"], ["run", "true"]])
@pytest.mark.parametrize("kind", ["text", "foreign", "newer", "folder"])
def test_file_that_is_no_store(shell: Shell, args: list[str], kind: str) -> None:
    """A file that is something else ends with 1 and one line, and is left as it was."""
    path = shell.folder / "jobs.db"
    if kind == "folder":
        path.mkdir()
    elif kind == "text":
        path.write_text("not SQLite at all\n" * 100)
    else:
        if kind == "newer":
            shell.submit("echo")
        with sqlite3.connect(path) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS strange (x)" if kind == "foreign" else "PRAGMA user_version = 99"
            )
        connection.close()
    before = path.read_bytes() if path.is_file() else b""
    code, out, err = (shell.run if args[0] == "worker" else shell.ask)(*args)
    assert (code, out) == (1, "")
    lines = [line for line in err.splitlines() if "WAL-reset" not in line]
    assert len(lines) == 1
    assert re.match(rf"jobtrio {args[0]}: .*jobs\.db", lines[0])
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_locked_file(shell: Shell) -> None:
    """A file that another program keeps locked is told at once, and ends with 1 in a bounded time."""
    shell.submit("echo", "--id", "a")
    holder = sqlite3.connect(shell.folder / "jobs.db", isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        code, out, err = shell.run("cancel", "a", "--store", f"{shell.url}?outage_limit=2")
    finally:
        holder.close()
    assert (code, out) == (1, "")
    assert re.fullmatch(r"jobtrio: the store is away: .*locked.*\njobtrio cancel: .*locked.*\n", err)


@pytest.mark.parametrize(
    ("args", "answer"),
    [
        (("cancel", "a"), "cancelled\n"),
        (("prune", "--keep", "0"), "removed 0 jobs, kept 0\n"),
    ],
)
def test_file_that_is_locked_for_a_while(shell: Shell, args: tuple[str, ...], answer: str) -> None:
    """Meanwhile it is said what is waited for, also by a command that asks but once."""
    shell.submit("echo", "--id", "a")
    holder = sqlite3.connect(shell.folder / "jobs.db", isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        command = shell.start(*args, "--store", f"{shell.url}?outage_limit=60")
        assert command.error_with("away").startswith("jobtrio: the store is away: ")
    finally:
        holder.close()
    assert command.end() == (0, answer, "jobtrio: the store is back\n")
