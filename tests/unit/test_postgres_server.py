"""The server that the tests bring along does what tests ask of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from patience import wait_until

if TYPE_CHECKING:
    from postgres_server import PostgresServer

ABANDONING = """
import sys, time
sys.path.insert(0, sys.argv[1])
from postgres_server import PostgresServer
server = PostgresServer()
server.start()
if sys.argv[2] == "frozen":
    server.freeze()
print(server.pid, server.folder, flush=True)
time.sleep(60)
"""


def test_fresh_databases(postgres: str) -> None:
    """A test's database is empty and speaks UTF-8."""
    with psycopg.connect(postgres) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (0,)
        assert connection.execute("SELECT '\u2713'").fetchone() == ("\u2713",)


def test_needs_a_password(postgres_server: PostgresServer) -> None:
    """Other users of the machine are kept out."""
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.conninfo(password="guess"))


def test_kill_keeps_what_was_committed(own_postgres: PostgresServer) -> None:
    """A committed row is there after the whole server was killed and started again on the same port."""
    conninfo = own_postgres.create_database()
    with psycopg.connect(conninfo) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    own_postgres.kill()
    assert not own_postgres.running
    own_postgres.start()
    with psycopg.connect(conninfo) as connection:
        assert connection.execute("SELECT a FROM t").fetchone() == (1,)


def test_stop_tells_clients(own_postgres: PostgresServer) -> None:
    """A fast stop ends connections with 57P01."""
    with psycopg.connect(own_postgres.conninfo(), autocommit=True) as connection:
        own_postgres.restart(default_transaction_read_only="on")
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        own_postgres.execute("CREATE TABLE t (a int)")
    own_postgres.restart()


def test_freeze(own_postgres: PostgresServer) -> None:
    """A frozen server goes on with what it was sent once it thaws."""
    with psycopg.connect(own_postgres.conninfo(), autocommit=True) as connection:
        own_postgres.freeze()
        connection.pgconn.send_query(b"SELECT 1")
        states = {process.status() for process in _server_processes(own_postgres.pid)}
        assert states - {psutil.STATUS_ZOMBIE} == {psutil.STATUS_STOPPED}  # a stopped parent learns of no end
        own_postgres.thaw()
        assert connection.pgconn.get_result() is not None
        assert connection.pgconn.get_result() is None


@pytest.mark.once
@pytest.mark.parametrize("state", ["working", "frozen"])
def test_gone_when_tests_are_killed(state: str) -> None:
    """A server whose tests were killed ends, and its files go."""
    support = str(Path(__file__).parents[1] / "support")
    args = [sys.executable, "-c", ABANDONING, support, state]
    with subprocess.Popen(args, stdout=subprocess.PIPE) as tests:
        assert tests.stdout is not None
        pid, folder = tests.stdout.readline().decode().split()
        processes = _server_processes(int(pid))
        assert len(processes) > 1
        os.kill(tests.pid, signal.SIGKILL)
    _, left = psutil.wait_procs(processes, timeout=60)
    assert not left
    wait_until(lambda: not Path(folder).exists())  # the keeper's last act


def _server_processes(pid: int) -> list[psutil.Process]:
    server = psutil.Process(pid)
    return [server, *server.children(recursive=True)]
