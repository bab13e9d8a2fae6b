"""``jobtrio run --store``: a program as a job that is kept, watched and taken over."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from patience import wait_until

from jobtrio._processes import living_in_session

if TYPE_CHECKING:
    from pathlib import Path

    from store_shell import Shell

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        (["sh", "-c", "echo one; echo two >&2"], 0, "completed in "),
        (["sh", "-c", "exit 3"], 3, "failed with exit code 3 after "),
        (["sh", "-c", "kill -9 $$"], 137, "killed by SIGKILL after "),
        (["no-such-program-here"], 127, "can't run 'no-such-program-here': no such program"),
        (["/"], 126, "can't run '/': "),
    ],
)
def test_exit_codes(shell: Shell, program: list[str], code: int, words: str) -> None:
    """The exit codes are those of a run in memory, for the one who runs it and for a late watcher."""
    ran = shell.run("run", "--", *program)
    job = shell.value("list")[0]["id"]
    watched = shell.ask("watch", job)
    for got, out, err in (ran, watched):
        assert got == code
        assert out == ("one\n" if code == 0 else "")
        assert err.splitlines()[-1].startswith(f"jobtrio: {words}")


def test_record(shell: Shell, tmp_path: Path) -> None:
    """The job is kept with all that another process needs to run it, in a queue of its own."""
    assert (
        shell.run("run", "--time-limit", "5", "--env", "A=1", "--", "sh", "-c", "pwd; echo $A")[1] == f"{tmp_path}\n1\n"
    )
    job = shell.value("list")[0]
    assert job["executor"] == "run_command"
    assert job["payload"] == {
        "argv": ["sh", "-c", "pwd; echo $A"],
        "cwd": str(tmp_path),
        "env": {"A": "1"},
        "grace": 5.0,
    }
    assert job["queue"].startswith("run-")
    assert (job["state"], job["result"]) == ("COMPLETED", 0)


def test_watched_from_elsewhere(shell: Shell, tmp_path: Path) -> None:
    """Another process watches a run and cancels it; the one who runs it is told, and exits with 125."""
    command = shell.start("run", "--", "sh", "-c", "echo ready; exec sleep 60")
    assert command.line() == "ready"
    job = shell.value("list")[0]["id"]
    watcher = shell.start("watch", job)
    assert watcher.line() == "ready"
    assert shell.ask("cancel", job, "--reason", "no need")[0] == 0
    for each in (command, watcher):
        code, _, err = each.end()
        assert code == 125
        assert "jobtrio: cancelled after " in err
        assert "(no need)" in err


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")])
def test_told_to_stop_before_the_store_is_there(number: signal.Signals, name: str, tmp_path: Path) -> None:
    """A run that waits for its store ends at the first signal, and not when that wait is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"redis://127.0.0.1:{silent.getsockname()[1]}?outage_limit=3600"
        command = subprocess.Popen(
            [sys.executable, "-m", "jobtrio", "run", "--store", where, "--", "true"],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        connection, _ = silent.accept()
        command.send_signal(number)
        _, err = command.communicate(timeout=60)
        connection.close()
    assert command.returncode == 128 + number
    assert err == f"jobtrio: {name}: ends before the program was started\n"


def test_interrupt(shell: Shell) -> None:
    """Ctrl-C cancels the job, whose record says so, and gives 130."""
    command = shell.start("run", "--", "sh", "-c", "echo ready; exec sleep 60")
    assert command.line() == "ready"
    command.send(signal.SIGINT)
    code, _, err = command.end()
    assert code == 130
    assert "(Ctrl-C), 1 attempt, 1 line" in err
    assert shell.value("list")[0]["cancel_reason"] == "Ctrl-C"


def test_quit(shell: Shell) -> None:
    """SIGQUIT kills the program at once, and nobody says that it has time to end."""
    command = shell.start("run", "--", "sh", "-c", "trap '' TERM; echo ready; sleep 60")
    assert command.line() == "ready"
    command.send(signal.SIGQUIT)
    code, _, err = command.end()
    assert code == 131
    assert "to end" not in err


def test_taken_over(shell: Shell, tmp_path: Path) -> None:
    """When the process that runs the program is killed, a worker starts it again."""
    gate = tmp_path / "gate"
    script = f"echo pid $$; while ! test -e {gate}; do sleep 0.05; done; echo done"
    command = shell.start("run", "--", "sh", "-c", script)
    pid = int(command.line().split()[1])
    job = shell.value("list")[0]["id"]
    watcher = shell.start("watch", "--json", job)
    assert json.loads(watcher.line())["value"] == {"stdout": f"pid {pid}"}
    command.send(signal.SIGKILL)
    command.end()
    with contextlib.suppress(ProcessLookupError):  # where its watchdog was quicker
        os.killpg(pid, signal.SIGKILL)
    worker = shell.start("worker", "jobtrio.cli:programs")
    worker.error_with("jobtrio: worker ")
    assert json.loads(watcher.line())["error"]["kind"] == "lost"
    assert json.loads(watcher.line())["value"]["stdout"].startswith("pid ")
    gate.touch()
    assert json.loads(watcher.line())["value"] == {"stdout": "done"}
    assert watcher.end()[0] == 0


def test_queue(shell: Shell, tmp_path: Path) -> None:
    """With --queue the job waits its turn in that queue, which this process works off up to it."""
    first = shell.submit("run_command", "--payload", '{"argv": ["true"]}', "--queue", "builds")
    code, out, _ = shell.run("run", "--queue", "builds", "--", "echo", "second")
    assert (code, out) == (0, "second\n")
    assert shell.value("show", first)["job"]["state"] == "COMPLETED"


def test_queue_that_looks_like_a_pattern(shell: Shell) -> None:
    """A queue's name is a name, also where it ends in a star: other queues that it would match are left alone."""
    other = shell.submit("run_command", "--payload", '{"argv": ["true"]}', "--queue", "builds")
    for queue in ("b*", "*", "b" * 199 + "*"):
        assert shell.run("run", "--queue", queue, "--", "echo", "x")[:2] == (0, "x\n")
    assert shell.value("show", other)["job"]["state"] == "QUEUED"


def test_next_in_its_queue(shell: Shell, tmp_path: Path) -> None:
    """A job that this process has started while its own was still shown does not hold up the end: it goes back."""
    gate = tmp_path / "gate"
    wait = f"echo ready; while ! test -e {gate}; do sleep 0.05; done"
    say = "for n in $(seq 100); do printf '%09999d\\n' $n; done"  # more than a pipe holds
    command = shell.start("run", "--queue", "builds", "--", "sh", "-c", f"{wait}; {say}")
    assert command.line() == "ready"
    behind = shell.submit("run_command", '{"argv": ["sleep", "1000"]}', "--queue", "builds")
    gate.touch()
    wait_until(lambda: shell.value("show", behind)["job"]["state"] == "RUNNING")
    assert command.end()[0] == 0
    assert shell.value("show", behind)["job"]["state"] == "QUEUED"


def test_job_that_is_removed(shell: Shell) -> None:
    """A job that vanishes from the store ends the run with 1, and its program."""
    command = shell.start("run", "--", "sh", "-c", "echo $$; exec sleep 1000")
    session = int(command.line())
    with contextlib.closing(sqlite3.connect(shell.folder / "jobs.db")) as connection, connection:
        [(job,)] = connection.execute("DELETE FROM jobs RETURNING id").fetchall()
    code, _, err = command.end()
    assert code == 1
    assert err.endswith(f"\njobtrio run: no job has the id {job!r}: it never existed or is no longer kept\n")
    assert "Traceback" not in err
    assert living_in_session(session) == []


def test_interrupt_while_the_store_is_away(shell: Shell) -> None:
    """With the store away a second Ctrl-C kills the program and ends the command all the same."""
    command = shell.start("run", "--", "sh", "-c", "echo pid $$; exec sleep 60")
    pid = int(command.line().split()[1])
    holder = sqlite3.connect(shell.folder / "jobs.db", isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        command.send(signal.SIGINT)
        command.error_with("Ctrl-C kills it")
        command.send(signal.SIGINT)
        code = command.end()[0]
    finally:
        holder.close()
    assert code == 130
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_says_that_the_store_is_away(shell: Shell, tmp_path: Path) -> None:
    """A run that goes on without its store, and can't end, says so, and says when the store is back."""
    gate = tmp_path / "gate"
    command = shell.start("run", "--", "sh", "-c", f"echo on; while ! test -e {gate}; do sleep 0.05; done; exit 3")
    assert command.line() == "on"
    holder = sqlite3.connect(shell.folder / "jobs.db", isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        gate.touch()
        assert command.error_with("the store is away").startswith("jobtrio: the store is away: ")
    finally:
        holder.close()
    code, _, err = command.end()
    assert (code, err.splitlines()[0]) == (3, "jobtrio: the store is back")


def test_runs_its_own_job_alone(shell: Shell) -> None:
    """In a queue of its own a run starts no other job of the store, though it could."""
    other = shell.submit("run_command", "--payload", '{"argv": ["true"]}')
    assert shell.run("run", "--", "sleep", "0.2")[0] == 0
    assert shell.value("show", other)["job"]["state"] == "QUEUED"
