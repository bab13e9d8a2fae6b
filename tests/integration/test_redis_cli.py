"""The commands on a Redis: the same as on a file, but for where the jobs are."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from store_shell import Shell
from valkey_server import ValkeyServer, free_port, new_prefix, shared_server

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once


@pytest.fixture
def prefix(shell: Shell) -> str:
    """Have the shell's commands use a prefix of the test's own."""
    prefix = new_prefix()
    shell.url = f"{shared_server().url}/0?prefix={prefix}"
    shell._env["JOBTRIO_STORE"] = shell.url
    return prefix


def test_nothing_there(shell: Shell, prefix: str) -> None:
    """Commands that look make no store, and say that there is none; so they do where no server is."""
    code, out, err = shell.run("list")
    assert (code, out) == (1, "")
    assert "there are no jobs under" in err
    assert shared_server().ask("KEYS", f"{{{prefix}}}:*") == []
    url = f"redis://ann:secret@127.0.0.1:{free_port()}?outage_limit=3"
    code, out, err = shell.run("list", "--store", url)
    assert (code, out) == (1, "")
    assert "away for 3 s" in err
    assert "refused" in err
    assert "secret" not in err


def test_watches_several_over_a_server_that_is_killed(tmp_path: Path) -> None:
    """Who watches several jobs is told once that the server is away and is back, and misses nothing."""
    with ValkeyServer() as server, ExitStack() as stack:
        shell = Shell(tmp_path, stack, f"{server.url}/0?outage_limit=60")
        shell.worker("--lease", "60")
        for job in "ab":
            shell.submit("wait", "--id", job, "--payload", json.dumps(str(tmp_path / "gate")))
        watcher = shell.start("watch", "a", "b")
        assert sorted([watcher.line(), watcher.line()]) == ["a | attempt 1", "b | attempt 1"]
        server.kill()
        watcher.error_with("is away")
        server.start()
        assert watcher.error_with("") == "jobtrio: the store is back"
        (tmp_path / "gate").touch()
        code, out, err = watcher.end()
    assert (code, out) == (0, "")
    assert len(err.splitlines()) == 4
    assert all("jobtrio: completed" in line for line in err.splitlines())
