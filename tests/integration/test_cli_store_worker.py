"""Workers, submitters and watchers in processes of their own, on one store."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from patience import wait_until
from store_jobs import executors
from store_shell import LAUNCHER, LIMIT

import jobtrio
from jobtrio._processes import living_in_session
from jobtrio.cli._work_log import BATCH
from jobtrio.stores.sqlite import SqliteJobStore

if TYPE_CHECKING:
    from store_shell import Command, Shell

pytestmark = pytest.mark.once

MANY = 1_500
"""Jobs of which one tells more than a pipe holds."""


def test_watcher_alone_sees_the_loss(shell: Shell, tmp_path: Path) -> None:
    """A watcher learns that a job was lost though no worker is left."""
    worker = shell.worker("--lease", "3")
    job = shell.submit("wait", "--payload", json.dumps(str(tmp_path / "gate")))
    watcher = shell.start("watch", job)
    assert watcher.line() == "attempt 1"
    worker.send(signal.SIGKILL)
    watcher.error_with("attempt 1 was lost")
    assert shell.value("show", job)["job"]["state"] == "QUEUED"


def test_cancel_with_grace(shell: Shell, tmp_path: Path) -> None:
    """A job that is cancelled with a grace has that long to end by itself, or until a request with less."""
    shell.worker()
    watcher = shell.start("submit", "wait", "--payload", json.dumps(str(tmp_path / "gate")), "--watch")
    job = watcher.error_with("submitted").split()[-1]
    assert watcher.line() == "attempt 1"
    assert shell.ask("cancel", job, "--grace", "1h") == (0, "asked to stop\n", "")
    echo = shell.start("submit", "echo", "--watch")  # which the same worker is told of behind the request
    assert echo.end()[0] == 0
    assert shell.value("show", job)["job"]["state"] == "RUNNING"
    assert shell.ask("cancel", job)[0] == 0
    assert watcher.end()[0] == 125


def test_cancel_from_elsewhere(shell: Shell, tmp_path: Path) -> None:
    """A third process cancels a running job; its watcher is told why and exits with 125."""
    worker = shell.worker()
    watcher = shell.start("submit", "wait", "--payload", json.dumps(str(tmp_path / "gate")), "--watch")
    job = watcher.error_with("submitted").split()[-1]
    assert watcher.line() == "attempt 1"
    code, out, err = shell.ask("cancel", job, "--reason", "no need")
    assert (code, err) == (0, "")
    assert out in {"asked to stop\n", "cancelled\n"}  # the worker may be quicker than the second look
    code, _, err = watcher.end()
    assert code == 125
    assert err.startswith("jobtrio: cancelled after ")
    assert err.endswith(" (no need), 1 attempt\n")
    assert worker.error_with("cancelled").endswith(": no need")
    code, out, err = shell.ask("cancel", job)
    assert (code, out) == (1, "")
    assert err == f"jobtrio cancel: job {job!r} has ended already: cancelled\n"


STOPPING = [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C"), (signal.SIGHUP, "SIGHUP")]
"""The signals that drain a worker, and how it calls them."""


@pytest.mark.parametrize(("number", "name"), STOPPING)
def test_told_to_stop_before_the_store_is_there(number: signal.Signals, name: str, tmp_path: Path) -> None:
    """A worker that waits for its store when it starts ends at the first signal, and not when that wait is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"redis://127.0.0.1:{silent.getsockname()[1]}?outage_limit=3600"
        command = [sys.executable, "-c", LAUNCHER, "worker", "jobtrio.cli:programs", "--store", where]
        worker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
        connection, _ = silent.accept()
        worker.send_signal(number)
        _, err = worker.communicate(timeout=60)
        connection.close()
    assert worker.returncode == 0
    assert err.splitlines()[-1] == f"jobtrio: {name}: ends before it has begun"


AT_EXIT = """
import atexit, os, signal, jobtrio
executors = jobtrio.Executors()
executors.register("print")(print)
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
"""
"""A module with executors whose process gets a second SIGTERM when all is done."""

UNHEEDED = """
import contextlib, os, signal, jobtrio, trio
executors = jobtrio.Executors()
executors.register("print")(print)

class Late(trio.abc.Instrument):
    def task_exited(self, task):
        if "_obey" in task.name:
            os.kill(os.getpid(), signal.SIGTERM)

@contextlib.asynccontextmanager
async def block():
    trio.lowlevel.add_instrument(Late())
    yield
"""
"""One whose process gets it when the drain is over, and what heeds signals about to end."""


@pytest.mark.parametrize(
    ("module", "command", "options"),
    [
        (AT_EXIT, "worker", ()),
        (AT_EXIT, "serve", ("--port", "0")),
        (UNHEEDED, "worker", ("--lifespan", "late:block")),
    ],
    ids=["worker", "serve", "unheeded"],
)
def test_second_sigterm(shell: Shell, module: str, command: str, options: tuple[str, ...]) -> None:
    """A second SIGTERM changes nothing, however late it comes."""
    (shell.folder / "late.py").write_text(module)
    worker = shell.start(command, "late:executors", *options)
    worker.error_with("jobtrio: worker ")
    worker.send(signal.SIGTERM)
    assert worker.end()[0] == 0


KEPT = """
import contextlib, os, signal, threading, jobtrio, trio
executors = jobtrio.Executors()
executors.register("print")(print)

def stay():
    threading.main_thread().join()
    while True:  # one that comes as the wait begins interrupts it at the next one
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(0.1)

@contextlib.asynccontextmanager
async def kept():
    threading.Thread(target=stay).start()
    with trio.move_on_after(0.1):
        yield
"""


def test_sigterm_where_a_thread_is_left(shell: Shell) -> None:
    """A thread that doesn't end keeps the process, but SIGTERM ends it, also where it is the first one."""
    (shell.folder / "kept.py").write_text(KEPT)
    worker = shell.start("worker", "kept:executors", "--lifespan", "kept:kept")
    assert worker.end()[0] == 0


@pytest.mark.parametrize(("number", "name"), STOPPING)
def test_drain(shell: Shell, tmp_path: Path, number: int, name: str) -> None:
    """A signal drains a worker: what does not end within the grace returns to its queue, for the next."""
    worker = shell.worker("--grace", "0.2")
    gate = tmp_path / "gate"
    job = shell.submit("wait", "--payload", json.dumps(str(gate)))
    watcher = shell.start("watch", job)
    assert watcher.line() == "attempt 1"
    worker.send(number)
    assert name in worker.error_with("starts nothing more; 1 job may take 0.20 s to end")
    assert worker.error_with(f"returned {job} wait after ").endswith(": shutdown")
    code, _, err = worker.end()
    assert (code, err) == (0, "jobtrio: stopped; no job ended; 1 job returned to the queue\n")
    assert watcher.error_with("attempt 1 was given back by its worker: shutdown; it starts again")
    assert shell.value("show", job)["job"]["state"] == "QUEUED"
    gate.touch()
    shell.worker()
    assert watcher.line() == "attempt 2"
    assert watcher.end()[0] == 0


def test_ctrl_c_on_a_terminal(shell: Shell) -> None:
    """On a terminal, which shows ^C, what is said of it is a line of its own."""
    ours, theirs = pty.openpty()
    worker = shell.start("worker", "store_jobs:executors", stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown, is_told = b"", False
    with open(ours, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # how Linux says that all is said
        while piece := terminal.read(4096):
            shown += piece
            if b"at once" in shown and not is_told:
                is_told = True
                worker.send(signal.SIGINT)
    assert worker.end()[0] == 0
    assert shown.decode().splitlines()[1:] == [
        "",
        "jobtrio: Ctrl-C: starts nothing more",
        "jobtrio: stopped; no job ended",
    ]


def test_drain_lets_jobs_end(shell: Shell, tmp_path: Path) -> None:
    """A job that ends within the grace has ended; nothing more is started."""
    worker = shell.worker("--grace", "60")
    gate = tmp_path / "gate"
    job = shell.submit("wait", "--payload", json.dumps(str(gate)))
    watcher = shell.start("watch", job)
    assert watcher.line() == "attempt 1"
    assert worker.error_with("started").split()[1:] == ["started", job, "wait"]
    worker.send(signal.SIGTERM)
    worker.error_with("starts nothing more")
    later = shell.submit("echo")
    gate.touch()
    assert worker.error_with("completed").split()[2] == job
    assert worker.end() == (0, "", "jobtrio: stopped; 1 completed\n")
    assert watcher.end()[0] == 0
    assert shell.value("show", later)["job"]["state"] == "QUEUED"


def test_second_signal(shell: Shell) -> None:
    """At Ctrl-C as a second signal the worker ends with whatever clings to it, and says so by its exit code."""
    worker = shell.worker("--grace", "60")
    watcher = shell.start("submit", "cling", "--watch")
    assert watcher.line() == "clinging"
    worker.send(signal.SIGTERM)
    worker.error_with("starts nothing more")
    worker.send(signal.SIGINT)
    worker.error_with("Ctrl-C: ends at once")
    assert worker.end()[0] == 130


def test_second_signal_kills_programs(shell: Shell) -> None:
    """No program runs on beside its next start elsewhere, however long it may take to end."""
    worker = shell.start("worker", "jobtrio.cli:programs")
    worker.error_with("jobtrio: worker ")
    payload = {"argv": ["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 1; done"], "grace": 3 * LIMIT}
    session = int(shell.start("submit", "run_command", json.dumps(payload), "--watch").line())
    worker.send(signal.SIGTERM)
    worker.error_with("starts nothing more")
    worker.send(signal.SIGINT)
    assert worker.end()[0] == 130
    deadline = time.monotonic() + LIMIT
    while (left := living_in_session(session)) and time.monotonic() < deadline:
        time.sleep(0.01)  # they were sent SIGKILL, which a busy system comes to a little later
    assert left == []


def test_second_signal_ends_the_grace(shell: Shell, tmp_path: Path) -> None:
    """At Ctrl-C as a second signal what can be cancelled returns to its queue without waiting for the grace."""
    worker = shell.worker("--grace", "60")
    watcher = shell.start("submit", "wait", "--payload", json.dumps(str(tmp_path / "gate")), "--watch")
    assert watcher.line() == "attempt 1"
    worker.send(signal.SIGTERM)
    worker.error_with("starts nothing more")
    worker.send(signal.SIGINT)
    worker.error_with("returned")
    assert worker.end()[0] == 0


def test_process_of_an_executor(shell: Shell, tmp_path: Path) -> None:
    """SIGTERM drains the worker, and ends a process that an executor has forked, as its ``terminate`` has it."""
    (tmp_path / "forking.py").write_text(
        "import multiprocessing, time, jobtrio, trio\n"
        "executors = jobtrio.Executors()\n"
        "@executors.register('fork')\n"
        "async def fork(job):\n"
        "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(10,))\n"
        "    child.start()\n"
        "    try:\n"
        "        await job.send('forked')\n"
        "        await trio.sleep_forever()\n"
        "    finally:\n"
        "        child.terminate()\n"
        "        child.join()\n"
        "        print(child.exitcode, flush=True)\n"
    )
    worker = shell.start("worker", "forking:executors")
    watcher = shell.start("submit", "fork", "--id", "forking", "--watch")
    assert watcher.line() == "forked"
    assert shell.ask("cancel", "forking")[0] == 0
    assert watcher.end()[0] == 125
    assert worker.line() == f"-{signal.SIGTERM}"


@pytest.mark.parametrize("command", ["worker", "serve --port 0"])
def test_ignored_children(shell: Shell, command: str) -> None:
    """Where whoever started a worker ignores the end of children, its programs' exit codes are known all the same."""
    argv = f'trap "" CHLD; exec {sys.executable} -m jobtrio {command} --store {shell.url} jobtrio.cli:programs'
    job = shell.submit("run_command", "--payload", '{"argv": ["sh", "-c", "exit 3"]}')
    with subprocess.Popen(["bash", "-c", argv], cwd=shell.folder, stderr=subprocess.DEVNULL) as worker:
        try:
            assert shell.ask("watch", job)[0] == 3
        finally:
            worker.terminate()


def test_queues_and_limits(shell: Shell, tmp_path: Path) -> None:
    """A worker serves the queues that it was given, as many jobs of each at once as it was told."""
    gate = tmp_path / "gate"
    payload = json.dumps(str(gate))
    ids = [shell.submit("wait", "--payload", payload, "--queue", queue) for queue in ("one", "one", "two", "other")]
    worker = shell.worker("--queue", "one=1", "--queue", "two", "--name", "w")
    for job in (ids[0], ids[2]):
        assert shell.start("watch", job).line() == "attempt 1"
    assert shell.value("stats")["running"] == [
        {"worker": "w", "queue": "one", "jobs": 1},
        {"worker": "w", "queue": "two", "jobs": 1},
    ]
    gate.touch()
    assert shell.ask("watch", ids[1])[0] == 0
    assert shell.value("show", ids[3])["job"]["state"] == "QUEUED"
    worker.send(signal.SIGTERM)
    assert worker.end()[0] == 0


def test_jobs_of_jobs(shell: Shell) -> None:
    """An executor of a worker's submits other jobs, by the worker's own registry."""
    shell.worker("--max-running", "2")
    job = shell.submit("whole", "--payload", '["a", "b"]')
    assert shell.ask("watch", job)[0] == 0
    assert shell.value("show", job)["job"]["result"] == ["a", "b"]
    assert [other["executor"] for other in shell.value("list", "--tag", f"of={job}")] == ["echo", "echo"]


def test_queue_without_a_limit(shell: Shell) -> None:
    """A queue without a number has as many jobs at once as the worker; the first line of the log says what it does."""
    worker = shell.start("worker", "store_jobs:executors", "--max-running", "7", "--queue", "a", "--queue", "b=2")
    line = worker.error_with("jobtrio: worker ")
    assert line.endswith("; queues: a (7 at once), b (2 at once); at most 7 jobs at once")


def test_a_limit_for_each_queue_of_a_pattern(shell: Shell, tmp_path: Path) -> None:
    """A pattern has its number for each of its queues: one that is full holds up none of the others."""
    worker = shell.start("worker", "store_jobs:executors", "--queue", "user:*=1", "--total", "user:*=3")
    line = worker.error_with("jobtrio: worker ")
    queues, limits = "user:* (1 of each at once)", "at most 100 jobs at once, 3 of each user:* over all workers"
    assert line.endswith(f"; queues: {queues}; {limits}")
    payload = json.dumps(str(tmp_path / "gate"))
    first, second = (shell.submit("wait", "--payload", payload, "--queue", "user:ann") for _ in range(2))
    assert shell.start("watch", first).line() == "attempt 1"
    assert shell.ask("watch", shell.submit("echo", "--payload", '"x"', "--queue", "user:bob"))[0] == 0
    assert shell.value("show", second)["job"]["state"] == "QUEUED"
    (tmp_path / "gate").touch()
    assert shell.ask("watch", second)[0] == 0


def test_a_rate(shell: Shell) -> None:
    """The first line of the log says how often jobs may start; one that comes too early waits."""
    rates = ("--rate", "api=1/m", "--rate", "user:*=600/h,20", "--rate", "default=1000/s")
    worker = shell.start("worker", "store_jobs:executors", *rates)
    line = worker.error_with("jobtrio: worker ")
    one, many = "1 start of api in 1 min 0 s", "600 starts of each user:* in 1 h 0 min (20 at once)"
    all_of_them = ", ".join(f"{each} over all workers" for each in (one, many, "1000 starts of default in 1.0 s"))
    assert line.endswith(f"; at most 100 jobs at once, {all_of_them}")
    first, second = (shell.submit("echo", "--payload", '"x"', "--queue", "api") for _ in range(2))
    assert shell.ask("watch", first)[0] == 0
    assert shell.ask("watch", shell.submit("echo", "--payload", '"x"'))[0] == 0
    assert shell.value("show", second)["job"]["state"] == "QUEUED"


def test_json(shell: Shell) -> None:
    """With --json a worker tells each change as a line of JSON on stdout."""
    worker = shell.worker("--json")
    job = shell.submit("fail", "--retry", "1")
    changes = [json.loads(worker.line()) for _ in range(5)]
    assert [each["state"] for each in changes] == ["RUNNING", "RETRYING", "QUEUED", "RUNNING", "FAILED"]
    assert {each["job_id"] for each in changes} == {job}
    assert [each["executor"] for each in changes] == ["fail"] * 5
    assert changes[-1]["reason"] == "ValueError: row 2: 'thirty' is not a number"


def test_json_that_is_read_late(shell: Shell, tmp_path: Path) -> None:
    """Each change names its executor, and the last line counts all jobs, though they ended long before it is read."""
    worker = shell.worker("--json")
    trio.run(_submit_echoes, tmp_path / "jobs.db", MANY)
    wait_until(lambda: shell.value("stats")["queues"]["default"]["COMPLETED"] == MANY)  # far more than a pipe holds
    changes = [json.loads(worker.line()) for _ in range(2 * MANY)]
    assert Counter((each["state"], each["executor"]) for each in changes) == {
        ("RUNNING", "echo"): MANY,
        ("COMPLETED", "echo"): MANY,
    }
    worker.send(signal.SIGTERM)
    code, _, err = worker.end()
    assert (code, err.splitlines()[-1]) == (0, f"jobtrio: stopped; {MANY} completed")


def test_json_that_is_not_read_in_the_end(shell: Shell, tmp_path: Path) -> None:
    """The last line counts all jobs, though the changes of most could not be written, and says how many these are."""
    worker = shell.worker("--json")
    trio.run(_submit_echoes, tmp_path / "jobs.db", MANY)
    wait_until(lambda: shell.value("stats")["queues"]["default"]["COMPLETED"] == MANY)
    worker.send(signal.SIGTERM)
    last = worker.error_with("jobtrio: stopped")
    match = re.fullmatch(rf"jobtrio: stopped; {MANY} completed; (\d+) changes not logged", last)
    assert match, last
    code, out, _ = worker.end()
    assert code == 0
    unwritten = 2 * MANY - out.count("\n")
    assert unwritten <= int(match[1]) <= unwritten + BATCH


async def _submit_echoes(path: Path, count: int) -> None:
    async with jobtrio.open_registry(executors, store=SqliteJobStore(path), queues={}) as registry:
        await registry.submit_many(jobtrio.JobSpec("echo", n) for n in range(count))


def test_json_that_cannot_be_written(shell: Shell) -> None:
    """A worker whose changes can't be written says so, once, works on, and counts in the end what is missing."""
    with open("/dev/full", "wb") as full:
        worker = shell.start("worker", "store_jobs:executors", "--json", stdout=full)
    for _ in range(2):
        assert shell.ask("submit", "echo", "--watch")[0] == 0
    worker.send(signal.SIGTERM)
    code, _, err = worker.end()
    assert code == 0
    lines = err.splitlines()
    assert lines.count("jobtrio: changes can't be logged: No space left on device; the work goes on") == 1
    assert lines[-1] == "jobtrio: stopped; 2 completed; 4 changes not logged"


def test_log_that_nobody_reads(shell: Shell) -> None:
    """A worker works on when the reader of its log has left."""
    worker = shell.worker()
    worker.stderr.close()
    for _ in range(2):
        assert shell.ask("submit", "echo", "--watch")[0] == 0
    worker.send(signal.SIGTERM)
    assert worker.process.wait(60) == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [("worker",), ("serve", "--port", "0")])
def test_prints_that_nobody_reads(shell: Shell, tmp_path: Path, command: tuple[str, ...], unbuffered: str) -> None:
    """Jobs that print come to their end also where the reader has left, as in a pipeline after Ctrl-C."""
    (tmp_path / "talking.py").write_text(
        "import sys, jobtrio\n"
        "executors = jobtrio.Executors()\n"
        "@executors.register('talk')\n"
        "async def talk(job):\n"
        "    for stream in (sys.stdout, sys.stderr):\n"
        "        print('ä' * 10_000, file=stream, flush=True)\n"
        "    print('', end='é')\n"
    )
    worker = shell.start(*command, "talking:executors", variables={"PYTHONUNBUFFERED": unbuffered})
    assert shell.ask("submit", "talk", "--watch")[0] == 0
    assert worker.line() == "ä" * 10_000
    for stream in (worker.process.stdout, worker.process.stderr):
        assert stream is not None
        stream.close()
    for _ in range(2):
        assert shell.ask("submit", "talk", "--watch")[0] == 0
    worker.send(signal.SIGTERM)
    assert worker.process.wait(60) == 0


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_prints_to_the_first_stdout(shell: Shell, tmp_path: Path, unbuffered: str) -> None:
    """Jobs may print to the stream that the process began with, and where nothing is buffered, none of theirs is."""
    (tmp_path / "talking.py").write_text(
        "import sys, jobtrio\n"
        "executors = jobtrio.Executors()\n"
        "@executors.register('talk')\n"
        "async def talk(job):\n"
        "    print('first', file=sys.__stdout__, flush=True)\n"
        f"    print('now', flush={not unbuffered})\n"
    )
    worker = shell.start("worker", "talking:executors", variables={"PYTHONUNBUFFERED": unbuffered})
    assert shell.ask("submit", "talk", "--watch")[0] == 0
    assert (worker.line(), worker.line()) == ("first", "now")


@pytest.mark.parametrize(("error", "code"), [("SystemExit(3)", 3), ("KeyboardInterrupt()", 130)])
def test_executor_that_exits(shell: Shell, tmp_path: Path, error: str, code: int) -> None:
    """An executor that ends the whole process does so, and the worker says why it is gone."""
    (tmp_path / "exiting.py").write_text(
        "import jobtrio\n"
        "executors = jobtrio.Executors()\n"
        "@executors.register('exit')\n"
        f"async def leave(job): raise {error}\n"
    )
    shell.submit("exit")
    for command in (["worker"], ["serve", "--port", "0"]):
        got, _, err = shell.run(*command, "exiting:executors")
        assert got == code
        assert err.splitlines()[-1] == f"jobtrio: the executor of a job has ended this worker: {error}"


def test_log_that_stalls(shell: Shell) -> None:
    """A worker whose log nobody reads, though somebody could, works all the same, and stops when it is told to."""
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(theirs, b"\n" * 4096)
    os.set_blocking(theirs, True)
    worker = shell.start("worker", "store_jobs:executors", stderr=theirs)
    os.close(theirs)
    assert shell.ask("submit", "echo", "--watch")[0] == 0
    worker.send(signal.SIGTERM)
    assert worker.process.wait(60) == 0
    os.close(ours)


def test_log_of_an_executor(shell: Shell, tmp_path: Path) -> None:
    """What an executor logs is shown under its own logger's name, and not as jobtrio's."""
    (tmp_path / "shop.py").write_text(
        "import logging, jobtrio\n"
        "executors = jobtrio.Executors()\n"
        "@executors.register('order')\n"
        "async def order(job): logging.getLogger('shop.orders').warning('order 3 is odd')\n"
    )
    worker = shell.start("worker", "shop:executors")
    assert shell.ask("submit", "order", "--watch")[0] == 0
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ shop.orders: order 3 is odd", worker.error_with("order 3 is odd").strip()
    )


def test_log_of_an_executors_process(shell: Shell, tmp_path: Path) -> None:
    """So is what a process logs that an executor has forked, as for work that computes."""
    (tmp_path / "shop.py").write_text(
        "import logging, multiprocessing, jobtrio\n"
        "executors = jobtrio.Executors()\n"
        "log = logging.getLogger('shop.orders')\n"
        "@executors.register('order')\n"
        "def order(job):\n"
        "    log.warning('order %d is odd', 3)\n"
        "    child = multiprocessing.get_context('fork').Process(target=log.warning, args=('order %d is odd', 5))\n"
        "    child.start()\n"
        "    child.join()\n"
    )
    worker = shell.start("worker", "shop:executors")
    assert shell.ask("submit", "order", "--watch")[0] == 0
    worker.send(signal.SIGTERM)
    _, _, err = worker.end()
    said = [line.partition(" ")[2] for line in err.splitlines() if "odd" in line]  # behind the time
    assert said == [f"shop.orders: order {n} is odd" for n in (3, 5)]


def test_retention(shell: Shell) -> None:
    """A worker removes what it is not to keep; commands that look on remove nothing."""
    keeping = shell.worker()
    for _ in range(3):
        assert shell.ask("submit", "echo", "--watch")[0] == 0
    assert len(shell.value("list")) == 3
    keeping.send(signal.SIGTERM)
    assert keeping.end()[0] == 0
    shell.worker("--keep", "1")
    wait_until(lambda: len(shell.value("list")) == 1)


def test_messages_that_are_kept(shell: Shell) -> None:
    """A worker keeps as many of a job's messages as it is told, and who comes later is told which are missing."""
    shell.worker("--tokens-per-job", "5")
    job_id = shell.value("submit", "words", "--payload", json.dumps("word " * 2000))["id"]
    assert shell.ask("watch", job_id)[0] == 0
    gap, *others = map(json.loads, shell.ask("watch", job_id, "--json")[1].splitlines())
    assert (gap["type"], gap["first"]) == ("gap", 1)
    assert 5 <= sum(line["type"] == "token" for line in others) < 1000  # whole batches


@pytest.mark.parametrize(
    ("target", "code", "parts"),
    [
        ("store_jobs", 2, ["MODULE:EXECUTORS", "'store_jobs'"]),
        ("store_jobs:", 2, ["MODULE:EXECUTORS"]),
        ("./store_jobs.py:executors", 2, ["MODULE:EXECUTORS", "'./store_jobs.py:executors'"]),
        (".store_jobs:executors", 2, ["MODULE:EXECUTORS"]),
        ("app/jobs:executors", 2, ["MODULE:EXECUTORS", "'app/jobs:executors'"]),
        ("store_jobs:none", 2, ["store_jobs has no Executors 'none'; the module has executors, nothing"]),
        ("store_jobs:words", 2, ["words is <function words", ", not an Executors; the module has executors"]),
        ("store_jobs:nothing", 2, ["store_jobs:nothing has no executor"]),
        ("no.such:executors", 2, ["no module 'no'"]),
        ("no_such:executors", 2, ["no module 'no_such'"]),
        ("store_jobs.py:executors", 2, ["no module 'store_jobs.py'", "; modules are named without .py"]),
        ("broken:executors", 1, ["ZeroDivisionError", "jobtrio worker: importing broken has failed"]),
        ("needy:executors", 1, ["No module named 'missing_part'", "importing needy has failed"]),
        ("nameless:executors", 1, ["ModuleNotFoundError: no luck", "importing nameless has failed"]),
        ("spoilt:executors", 1, ["spoilt.py", "SyntaxError", "importing spoilt has failed"]),
        ("script:executors", 1, ["script.py", "SystemExit: 0", "importing script has failed"]),
        ("odd:executors", 1, ["odd.py", "GeneratorExit", "importing odd has failed"]),
        ("pressed:executors", 130, []),
        ("lazy:executors", 1, ["lazy.py", "RuntimeError: later", "looking up executors in lazy has failed"]),
    ],
)
def test_executors_that_are_not_there(shell: Shell, tmp_path: Path, target: str, code: int, parts: list[str]) -> None:
    """A module or executors that aren't there are named; a module's own error is shown, from the module on."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "needy.py").write_text("import missing_part\n")
    (tmp_path / "nameless.py").write_text("raise ModuleNotFoundError('no luck')\n")
    (tmp_path / "spoilt.py").write_text("def f(:\n")
    (tmp_path / "script.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "odd.py").write_text("raise GeneratorExit\n")
    (tmp_path / "pressed.py").write_text("raise KeyboardInterrupt\n")
    (tmp_path / "lazy.py").write_text("def __getattr__(name):\n    raise RuntimeError('later')\n")
    got, out, err = shell.run("worker", target)
    assert (got, out) == (code, "")
    assert "importlib" not in err
    assert "jobtrio/cli" not in err
    for part in parts:
        assert part in err
    assert bool(err) is (code != 130)  # after Ctrl-C there is nothing to say
    assert not os.path.exists(tmp_path / "jobs.db")


SHARED = """
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar

import trio

import jobtrio

executors = jobtrio.Executors()
shared = ContextVar("shared")

@executors.register("share")
async def share(job):
    await job.send(shared.get())
    try:
        await trio.sleep(job.payload)
    finally:
        await trio.lowlevel.cancel_shielded_checkpoint()
        print("job is over", flush=True)

@asynccontextmanager
async def lifespan():
    print("opened", flush=True)
    shared.set("a client")
    yield
    print("closed", flush=True)

@asynccontextmanager
async def breaking():
    async with trio.open_nursery() as nursery:
        shared.set("a client that breaks")
        nursery.start_soon(broken)
        yield

async def broken():
    while not await trio.Path("break").exists():
        await trio.sleep(0.01)
    raise OSError("the client is broken")

@asynccontextmanager
async def failing():
    raise OSError("no client")
    yield

@asynccontextmanager
async def guarded():
    async with trio.open_nursery():
        shared.set("a client")
        yield

@asynccontextmanager
async def suppressing():
    with suppress(Exception):
        yield

@asynccontextmanager
async def limited():
    shared.set("a client for a while")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limit, scope)
            yield

async def limit(scope):
    while not await trio.Path("break").exists():
        await trio.sleep(0.01)
    scope.cancel()

@asynccontextmanager
async def late():
    print("opening", flush=True)
    await trio.sleep_forever()
    yield

@asynccontextmanager
async def lasting():
    shared.set("a client")
    yield
    print("closing", flush=True)
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

@asynccontextmanager
async def lingering():
    print("opening", flush=True)
    try:
        await trio.sleep_forever()
        yield
    finally:
        print("closing", flush=True)
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

@asynccontextmanager
async def exiting():
    raise SystemExit(0)
    yield

async def bare():
    yield

async def awaited():
    pass

@contextmanager
def plain():
    yield
"""
"""A module with executors that share a client, and with blocks that open it."""


def share(shell: Shell, tmp_path: Path, lifespan: str) -> Command:
    """Start a worker of `SHARED` in such a block."""
    (tmp_path / "shared.py").write_text(SHARED)
    return shell.start("worker", "shared:executors", "--lifespan", f"shared:{lifespan}", "--grace", "0")


def test_lifespan(shell: Shell, tmp_path: Path) -> None:
    """The block is entered before any job starts, holds for executors, and is left once all jobs are over."""
    worker = share(shell, tmp_path, "lifespan")
    assert worker.line() == "opened"
    job = shell.submit("share", "--payload", "1000")
    assert shell.start("watch", job).line() == "a client"
    worker.send(signal.SIGTERM)
    code, out, _ = worker.end()
    assert (code, out) == (0, "job is over\nclosed\n")
    assert shell.value("show", job)["job"]["state"] == "QUEUED"


def test_lifespan_that_breaks(shell: Shell, tmp_path: Path) -> None:
    """What a background task of the block raises ends the worker, whose jobs return to their queue."""
    worker = share(shell, tmp_path, "breaking")
    job = shell.submit("share", "--payload", "1000")
    assert shell.start("watch", job).line() == "a client that breaks"
    (tmp_path / "break").touch()
    code, out, err = worker.end()
    assert (code, out) == (1, "job is over\n")
    assert "OSError: the client is broken" in err
    assert err.endswith("RuntimeError: the block that --lifespan names has failed\n")
    assert shell.value("show", job)["job"]["state"] == "QUEUED"


def test_lifespan_that_ends_by_itself(shell: Shell, tmp_path: Path) -> None:
    """A block that cancels its own scope ends the worker in order, which says why it stops."""
    worker = share(shell, tmp_path, "limited")
    job = shell.submit("share", "--payload", "1000")
    assert shell.start("watch", job).line() == "a client for a while"
    (tmp_path / "break").touch()
    code, out, err = worker.end()
    assert (code, out) == (0, "job is over\n")
    assert err.splitlines()[-2:] == [
        "jobtrio: the block that --lifespan names has ended by itself",
        "jobtrio: stopped; no job ended; 1 job returned to the queue",
    ]
    assert shell.value("show", job)["job"]["state"] == "QUEUED"


@pytest.mark.parametrize("lifespan", ["guarded", "suppressing"])
def test_lifespan_around_what_fails(shell: Shell, tmp_path: Path, lifespan: str) -> None:
    """What fails within the block is told as without one."""
    (tmp_path / "jobs.db").write_text("no database")
    worker = share(shell, tmp_path, lifespan)
    code, _, err = worker.end()
    assert code == 1
    assert err.startswith("jobtrio worker: ")
    assert err.count("\n") == 1


def test_lifespan_that_is_not_open_yet(shell: Shell, tmp_path: Path) -> None:
    """A signal ends a worker whose block is being entered."""
    worker = share(shell, tmp_path, "late")
    assert worker.line() == "opening"
    worker.send(signal.SIGTERM)
    code, _, err = worker.end()
    assert code == 0
    assert err.splitlines()[-1] == "jobtrio: SIGTERM: ends before it has begun"


def test_lifespan_that_does_not_end(shell: Shell, tmp_path: Path) -> None:
    """Ctrl-C behind the first signal ends a worker that waits for its block to be left."""
    worker = share(shell, tmp_path, "lasting")
    worker.error_with("jobtrio: worker ")
    worker.send(signal.SIGTERM)
    assert worker.line() == "closing"
    worker.send(signal.SIGINT)
    assert worker.end()[0] == 130


def test_lifespan_that_does_not_begin(shell: Shell, tmp_path: Path) -> None:
    """So it does where the block is still being entered, and that can't be interrupted at once."""
    worker = share(shell, tmp_path, "lingering")
    assert worker.line() == "opening"
    worker.send(signal.SIGTERM)
    assert worker.line() == "closing"
    worker.send(signal.SIGINT)
    code, _, err = worker.end()
    assert code == 130
    assert err.splitlines()[-1] == "jobtrio: Ctrl-C: ends at once"


@pytest.mark.parametrize(
    ("target", "code", "parts"),
    [
        ("lifespan", 2, ["--lifespan must be given as MODULE:NAME", "'lifespan'"]),
        ("shared:none", 2, ["an async context manager; shared has no 'none'"]),
        ("shared:executors", 2, ["shared:executors is <"]),
        ("shared:bare", 2, ["shared:bare is <function bare", "decorate it with contextlib.asynccontextmanager"]),
        ("shared:awaited", 2, ["shared:awaited is <function awaited"]),
        ("shared:plain", 1, ["async", "RuntimeError: the block that --lifespan names has failed"]),
        ("shared:failing", 1, ["no client", "RuntimeError: the block that --lifespan names has failed"]),
        ("shared:exiting", 1, ["SystemExit", "RuntimeError: the block that --lifespan names has failed"]),
    ],
)
def test_lifespan_that_is_none(shell: Shell, tmp_path: Path, target: str, code: int, parts: list[str]) -> None:
    """What does not make such a block is named."""
    (tmp_path / "shared.py").write_text(SHARED)
    got, out, err = shell.run("worker", "shared:executors", "--lifespan", target)
    assert (got, out) == (code, "")
    for part in parts:
        assert part in err


def test_module_beside_the_user(shell: Shell, tmp_path: Path) -> None:
    """The installed command, too, finds a module in the current directory."""
    (tmp_path / "beside.py").write_text("print('imported', flush=True)\n")
    script = Path(sys.executable).with_name("jobtrio")
    command = [str(script), "worker", "--store", "sqlite:///jobs.db", "beside:executors"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "imported\n")
    assert "beside has no Executors 'executors'; the module has none" in done.stderr
