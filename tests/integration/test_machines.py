"""Workers that share a store as those of several machines do: by its URL alone, each a process of its own."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from patience import wait_until
from sqlite_invariants import stop_between_writes
from store_shell import Shell
from store_urls import STORES, check_store, new_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.once, pytest.mark.timeout(540)]


@pytest.fixture(params=STORES)
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """Return a shell with a store of each kind in turn; what it started is gone when the test is over."""
    with contextlib.ExitStack() as stack:
        yield Shell(tmp_path, stack, new_url(request.param, request))


def history(shell: Shell, job: str) -> list[dict[str, Any]]:
    """Return a job's history."""
    found: list[dict[str, Any]] = shell.value("show", job)["history"]
    return found


def test_the_work_is_shared(shell: Shell, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Three workers run a job each, as their limits say; all commands tell of all jobs, and remove them."""
    gate = tmp_path / "gate"
    for name in ("a", "b", "c"):
        shell.worker("--name", name, "--max-running", "1")
    jobs = [shell.submit("wait", "--payload", json.dumps(str(gate)), "--tag", f"number={n}") for n in range(4)]
    watchers = [shell.start("watch", job) for job in jobs]
    for watcher in watchers[:3]:
        assert watcher.line() == "attempt 1"
    stats = shell.value("stats")
    assert [(each["name"], each["running"]) for each in stats["workers"]] == [("a", 1), ("b", 1), ("c", 1)]
    assert [each["jobs"] for each in stats["running"]] == [1, 1, 1]
    assert (stats["states"]["RUNNING"], stats["states"]["QUEUED"]) == (3, 1)
    records = shell.value("list", "--state", "running")
    assert [record["id"] for record in records] == jobs[:3]
    assert {record["worker"] for record in records} == {"a", "b", "c"}
    assert [record["id"] for record in shell.value("list", "--tag", "number=3")] == jobs[3:]
    gate.touch()
    for watcher in watchers:
        code, _, err = watcher.end()
        assert (code, err.startswith("jobtrio: completed in ")) == (0, True)
    ended = shell.value("list")
    assert [(record["id"], record["state"], record["attempt"]) for record in ended] == [
        (job, "COMPLETED", 1) for job in jobs
    ]
    code, _, err = shell.ask("prune", "--keep", "0")
    assert (code, err) == (0, "")
    assert check_store(shell.url, request) == {}


def test_drained(shell: Shell, tmp_path: Path) -> None:
    """A worker that is told to end starts nothing more; what does not end in its grace goes on elsewhere at once."""
    first = shell.worker("--name", "first", "--max-running", "2", "--grace", "2", "--lease", "600")
    quick, slow = tmp_path / "quick", tmp_path / "slow"
    jobs = [shell.submit("wait", "--payload", json.dumps(str(gate))) for gate in (quick, slow)]
    watchers = [shell.start("watch", job) for job in jobs]
    for watcher in watchers:
        assert watcher.line() == "attempt 1"
    later = shell.submit("echo")  # for which the first has no room
    first.send(signal.SIGTERM)
    first.error_with("starts nothing more; 2 jobs may take 2.0 s to end")
    quick.touch()
    code, _, err = first.end()
    assert code == 0
    assert err.endswith("jobtrio: stopped; 1 completed; 1 job returned to the queue\n")
    assert shell.value("stats")["workers"] == []
    states = [(each["state"], each["worker"]) for each in history(shell, later)]
    assert [state for state, _ in states] == ["QUEUED"]
    shell.worker("--name", "second")
    assert watchers[1].line() == "attempt 2"
    slow.touch()
    assert [watcher.end()[0] for watcher in watchers] == [0, 0]
    steps = [(each["state"], each["attempt"], each["reason"]) for each in history(shell, jobs[1])]
    assert (steps[2], steps[3][:2]) == (("QUEUED", 1, "shutdown"), ("RUNNING", 2))
    assert history(shell, jobs[1])[-1]["worker"] == "second"


def test_killed(shell: Shell, tmp_path: Path) -> None:
    """The jobs of a worker that dies start elsewhere within two leases, by themselves."""
    lease = 5.0
    gate = tmp_path / "gate"
    first = shell.worker("--name", "first", "--lease", str(lease))
    jobs = [shell.submit("wait", "--payload", json.dumps(str(gate))) for _ in range(3)]
    watchers = [shell.start("watch", job) for job in jobs]
    for watcher in watchers:
        assert watcher.line() == "attempt 1"
    shell.worker("--name", "second", "--lease", "600")
    killed = time.time()
    first.send(signal.SIGKILL)
    first.end()
    for watcher in watchers:
        assert watcher.line() == "attempt 2"
    for job in jobs:
        again = history(shell, job)[3]
        assert (again["state"], again["worker"]) == ("RUNNING", "second")
        assert datetime.fromisoformat(again["at"]).timestamp() - killed < 2 * lease
    # It is not said to be there for longer than it can be.
    wait_until(lambda: [each["name"] for each in shell.value("stats")["workers"]] == ["second"])
    gate.touch()
    for watcher in watchers:
        code, _, err = watcher.end()
        lost, *_, ended = err.splitlines()
        assert lost.startswith("jobtrio: attempt 1 was lost: worker 'first' ")
        assert lost.endswith("; the job starts again")
        assert (code, ended.endswith(", 2 attempts")) == (0, True)


def test_stood_still(shell: Shell, tmp_path: Path) -> None:
    """A worker that stands still past its lease has lost its job; when it goes on it writes nothing, and works on."""
    gate = tmp_path / "gate"
    first = shell.worker("--name", "first", "--lease", "4")
    job = shell.submit("wait", "--payload", json.dumps(str(gate)))
    watcher = shell.start("watch", job)
    assert watcher.line() == "attempt 1"
    if shell.url.startswith("sqlite:"):
        stop_between_writes(first.send, tmp_path / "jobs.db")
    else:
        first.send(signal.SIGSTOP)
    shell.worker("--name", "second", "--lease", "600")
    assert watcher.line() == "attempt 2"
    first.send(signal.SIGCONT)
    lost = f"Z jobtrio: job {job}: attempt 1 is lost: its lease was not renewed in time"
    assert first.error_with("lost").endswith(lost)
    # Until it is there again, and has heard.
    wait_until(lambda: ("first", 0) in {(each["name"], each["running"]) for each in shell.value("stats")["workers"]})
    gate.touch()
    assert watcher.end()[0] == 0
    steps = [(each["state"], each["attempt"], each["worker"]) for each in history(shell, job)]
    assert [step for step in steps if step[0] in ("RUNNING", "COMPLETED")] == [
        ("RUNNING", 1, "first"),
        ("RUNNING", 2, "second"),
        ("COMPLETED", 2, "second"),
    ]
    first.send(signal.SIGTERM)
    assert first.end()[0] == 0


def test_total(shell: Shell, tmp_path: Path) -> None:
    """Workers that are told how many jobs of a queue may run over all of them run together no more."""
    gates = [tmp_path / name for name in ("x", "y", "z")]
    workers = [shell.worker("--name", name, "--total", "few=2") for name in ("a", "b")]
    jobs = [shell.submit("wait", "--payload", json.dumps(str(gate)), "--queue", "few") for gate in gates]
    watchers = [shell.start("watch", job) for job in jobs]
    for watcher in watchers[:2]:
        assert watcher.line() == "attempt 1"
    shell.run("submit", "echo", "--watch")  # it came later and has run: the third was passed over
    assert [record["state"] for record in shell.value("list", "--queue", "few")] == ["RUNNING", "RUNNING", "QUEUED"]
    stats = shell.ask("stats")[1]
    assert [line.split()[0] for line in stats.split("\n\n")[1].splitlines()] == ["WORKER", "a", "b"]
    gates[0].touch()
    assert watchers[0].end()[0] == 0
    assert watchers[2].line() == "attempt 1"
    for gate in gates[1:]:
        gate.touch()
    assert [watcher.end()[0] for watcher in watchers[1:]] == [0, 0]
    for worker in workers:
        worker.send(signal.SIGTERM)
        assert worker.end()[0] == 0
    assert shell.value("stats")["workers"] == []
