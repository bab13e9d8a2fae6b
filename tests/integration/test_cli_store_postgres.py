"""The commands on jobs in PostgreSQL, in processes of their own."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from store_shell import Shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres_server import PostgresServer

pytestmark = pytest.mark.once


@pytest.fixture
def url(postgres: str) -> str:
    """The database's URL."""
    return url_of(postgres)


def url_of(conninfo: str) -> str:
    given = conninfo_to_dict(conninfo)
    user = f"{given['user']}:{quote(str(given['password']))}"
    return f"postgresql://{user}@{given['host']}:{given['port']}/{given['dbname']}?schema=work"


@pytest.fixture
def shell(tmp_path: Path, url: str) -> Iterator[Shell]:
    """A shell whose store is the database; what it started is gone when the test is over."""
    with contextlib.ExitStack() as stack:
        yield Shell(tmp_path, stack, url)


@pytest.mark.parametrize("command", ["list", "stats", "show id", "watch id", "cancel id", "prune --keep 1"])
def test_a_database_without_jobs(shell: Shell, postgres: str, command: str) -> None:
    """Commands that look at jobs make no schema where there is none: it may be a slip of the pen."""
    code, out, err = shell.run(*command.split())
    assert (code, out) == (1, "")
    assert "there is no schema 'work' with jobs" in err
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT to_regnamespace('work')").fetchone() == (None,)


def test_a_server_that_is_away(shell: Shell) -> None:
    """A server that is not there is named at once, and in the last line, without the password."""
    for place in ("127.0.0.1:1", "127.0.0.1:1/nowhere"):
        url = f"postgresql://ann:secret@{place}?outage_limit=1"
        code, out, err = shell.run("list", "--store", url)
        assert (code, out) == (1, "")
        meanwhile, last = err.splitlines()
        assert meanwhile.startswith("jobtrio: the store is away: ")
        assert last.startswith("jobtrio list: the store was away for 1 s: ")
        assert "secret" not in err


@pytest.mark.parametrize("command", ["watch", "submit"])
def test_watches_on_while_the_server_is_away(own_postgres: PostgresServer, tmp_path: Path, command: str) -> None:
    """Who watches a job is told that the server is away, and that it is back."""
    with contextlib.ExitStack() as stack:
        shell = Shell(tmp_path, stack, f"{url_of(own_postgres.create_database())}&outage_limit=60")
        shell.worker("--lease", "60")
        job = ["wait", json.dumps(str(tmp_path / "gate"))]
        words = ["watch", shell.submit(*job)] if command == "watch" else ["submit", *job, "--watch"]
        watcher = shell.start(*words)
        assert watcher.line() == "attempt 1"
        own_postgres.stop()
        assert watcher.error_with("is away").startswith("jobtrio: the store is away: ")
        own_postgres.start()
        assert watcher.error_with("is back") == "jobtrio: the store is back"
        (tmp_path / "gate").touch()
        assert watcher.end()[0] == 0


def test_options_that_make_no_sense(shell: Shell) -> None:
    """What is wrong with the URL is bad usage, and said without the password."""
    for rest in ("?pool_size=0", "?schema=pg_x", ":port/db"):
        code, out, err = shell.run("list", "--store", f"postgresql://ann:secret@host{rest}")
        assert (code, out) == (2, "")
        assert "must be" in err
        assert "secret" not in err
