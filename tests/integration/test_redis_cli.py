"""The commands on a Redis: the same as on a file, but for where the jobs are."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from redis_invariants import check_jobs
from valkey_server import free_port, new_prefix, shared_server

if TYPE_CHECKING:
    from pathlib import Path

    from store_shell import Shell

pytestmark = pytest.mark.once


@pytest.fixture
def prefix(shell: Shell) -> str:
    """Have the shell's commands use a prefix of the test's own."""
    prefix = new_prefix()
    shell.url = f"{shared_server().url}/0?prefix={prefix}"
    shell._env["JOBTRIO_STORE"] = shell.url
    return prefix


@pytest.mark.timeout(180)
def test_processes_share_it(shell: Shell, prefix: str, tmp_path: Path) -> None:
    """A job that one process submits runs in a second, is watched by a third, and looked at by more."""
    worker = shell.worker("--name", "one")
    gate = tmp_path / "gate"
    job = shell.submit("wait", "--payload", json.dumps(str(gate)), "--tag", "user=ann")
    watcher = shell.start("watch", job)
    assert watcher.line() == "attempt 1"
    assert [each["id"] for each in shell.value("list", "--tag", "user=ann", "--state", "running")] == [job]
    stats = shell.value("stats")
    assert [(each["name"], each["running"]) for each in stats["workers"]] == [("one", 1)]
    gate.touch()
    code, _, err = watcher.end()
    assert (code, err.startswith("jobtrio: completed in ")) == (0, True)
    assert [each["state"] for each in shell.value("show", job)["history"]] == ["QUEUED", "RUNNING", "COMPLETED"]
    worker.send(signal.SIGTERM)
    assert worker.end()[0] == 0
    assert shell.run("prune", "--keep", "0")[0] == 0
    assert shell.value("list") == []
    assert check_jobs(shared_server(), prefix) == {}


def test_nothing_there(shell: Shell, prefix: str) -> None:
    """Commands that look make no store, and say that there is none; so they do where no server is."""
    code, out, err = shell.run("list")
    assert (code, out) == (1, "")
    assert "there are no jobs under" in err
    assert shared_server().ask("KEYS", f"{{{prefix}}}:*") == []
    url = f"redis://ann:secret@127.0.0.1:{free_port()}?outage_limit=0.5"
    code, out, err = shell.run("list", "--store", url)
    assert (code, out) == (1, "")
    assert "away for 0.5 s" in err
    assert "refused" in err
    assert "secret" not in err
