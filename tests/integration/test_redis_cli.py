"""The commands on a Redis: the same as on a file, but for where the jobs are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from valkey_server import free_port, new_prefix, shared_server

if TYPE_CHECKING:
    from store_shell import Shell

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
    url = f"redis://ann:secret@127.0.0.1:{free_port()}?outage_limit=0.5"
    code, out, err = shell.run("list", "--store", url)
    assert (code, out) == (1, "")
    assert "away for 0.5 s" in err
    assert "refused" in err
    assert "secret" not in err
