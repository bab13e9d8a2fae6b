"""Where Python lacks what it has on POSIX systems only, all works but programs: a stand-in, by taking it away."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from jobtrio import __main__ as command

if TYPE_CHECKING:
    from pathlib import Path

TAKE_AWAY = """
import multiprocessing, os, signal, socket, sqlite3, subprocess, sys
import trio

pair, family = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda *_: pair(family)  # Trio has one
MISSING = {
    os: "O_DIRECTORY fork getpgid getsid getuid killpg pidfd_open register_at_fork setsid waitid",
    signal: "SIGCHLD SIGHUP SIGKILL SIGQUIT pidfd_send_signal pthread_sigmask",
    socket: "AF_UNIX",
}
for module, names in MISSING.items():
    for name in names.split():
        delattr(module, name)
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
"""
"""What Windows has not. Trio and what it needs is there before, as it has its own ways there."""

JOBS = """
import jobtrio
import jobtrio.psycopg_trio, jobtrio.stores.postgres, jobtrio.stores.redis, jobtrio.testing, jobtrio.websocket
from jobtrio.executors import run_command
from jobtrio.stores.sqlite import SqliteJobStore

executors = jobtrio.Executors()
executors.register("program")(run_command)

@executors.register("work")
def work(job):  # in a thread
    job.send("at work")
    return job.payload + 1

async def both(store):
    async with jobtrio.open_registry(executors, store=store) as registry:
        job = await registry.submit("work", 1)
        async with job.subscribe() as messages:
            print([type(message).__name__ async for message in messages], await job.result())
        program = await registry.submit("program", {"argv": [sys.executable]})
        outcome = await program.wait()
        print(outcome.error)

async def main(path):
    await both(None)
    async with jobtrio.open_registry(executors, queues={}, store=SqliteJobStore(path)):  # somebody else has it open
        await both(SqliteJobStore(path))

trio.run(main, sys.argv[1])
"""


def test_jobs(tmp_path: Path) -> None:
    """Jobs run, in memory and in a file; programs are refused with a reason."""
    text = subprocess.check_output([sys.executable, "-c", TAKE_AWAY + JOBS, str(tmp_path / "jobs.db")], text=True)
    jobs, programs, *others = text.splitlines()
    assert jobs == "['Token', 'End'] 2"
    assert "programs can be run on POSIX systems only" in programs
    assert others == [jobs, programs]


def test_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says that it needs more, instead of failing somewhere."""
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(SystemExit, match="needs a POSIX system"):
        command.main()
