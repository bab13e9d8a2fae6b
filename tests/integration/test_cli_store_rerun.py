"""``rerun`` on each kind of store, with workers in processes of their own."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest
from store_urls import STORES, new_url

if TYPE_CHECKING:
    from store_shell import Shell

pytestmark = pytest.mark.once


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, shell: Shell) -> str:
    """Have the shell's commands use a store of each kind, and return its URL."""
    shell.url = shell._env["JOBTRIO_STORE"] = new_url(request.param, request)
    return shell.url


def test_runs_again(shell: Shell, url: str) -> None:
    """What failed is run again once, with all that it was given, and so is what fails again."""
    given = ("--retry", "1", "--time-limit", "20", "--tag", "user=ann", "--queue", "rows", "--priority", "low")
    old = shell.submit("fail", "[1]", *given)
    other = shell.submit("fail", "--tag", "user=bob")
    worker = shell.worker()
    assert shell.ask("watch", old, other)[0] == 1
    code, out, err = shell.ask("rerun", "--tag", "user=ann")
    first, last = out.splitlines()
    assert (code, err, last) == (0, "", "submitted 1 job")
    assert first.startswith(f"{old} is run again as ")
    new = first.split()[-1]
    code, _, err = shell.ask("watch", new)
    assert (code, "failed after" in err, "2 attempts" in err) == (1, True, True)
    found = shell.value("show", new)["job"]
    assert (found["payload"], found["queue"], found["priority"], found["tags"], found["metadata"]) == (
        [1],
        "rows",
        "LOW",
        {"user": "ann"},
        {"again": old},
    )
    assert shell.ask("rerun", old) == (0, f"{old} was run again before, as {new}\n", "")
    told = shell.value("rerun", "--state", "failed", "--queue", "rows")
    assert ([*told["submitted"]], told["already"]) == ([new], {old: new})
    assert shell.ask("watch", told["submitted"][new])[0] == 1

    code, out, _ = shell.ask("rerun", other, "--executors", "store_jobs:executors")
    assert (code, out.split()[0]) == (0, other)
    shell.ask("remove", new)  # its key is free again
    assert [*shell.value("rerun", old)["submitted"]] == [old]
    worker.send(signal.SIGTERM)
    assert worker.end()[0] == 0


def test_with_nobody_who_reads(shell: Shell) -> None:
    """All are submitted also where nobody reads the output any more."""
    for _ in range(3):
        shell.ask("cancel", shell.submit("echo"))
    reader, writer = os.pipe()
    os.close(reader)
    command = shell.start("rerun", "--state", "cancelled", stdout=writer)
    os.close(writer)
    assert command.end()[::2] == (141, "")
    assert len(shell.value("list", "--state", "queued")) == 3
