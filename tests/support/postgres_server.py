"""A real PostgreSQL server on loopback, which a test may stop, kill, freeze and start again.

It ends with the tests, also when they are killed: a keeper of its own process waits for the end of a pipe
that only the tests' process holds, then ends what is left of the server and removes its files.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psutil  # type: ignore[import-untyped]
import psycopg
from postgres_install import Install
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_LIMIT = 60.0
"""Seconds within which a server must be ready."""

LEAN = {
    "fsync": "off",  # the tests kill servers, not machines
    "shared_buffers": "32MB",
    "max_connections": "100",
    "autovacuum_naptime": "5s",
    "timezone": "UTC",
}

KEEPER = """
import contextlib, shutil, sys
import psutil
sys.stdin.buffer.read()
folder = sys.argv[1]
with contextlib.suppress(OSError, ValueError, psutil.Error):
    with open(folder + "/data/postmaster.pid") as file:
        server = psutil.Process(int(file.readline()))
    if any(folder in part for part in server.cmdline()):  # and not a process that was given an old number
        left = [server, *server.children(recursive=True)]
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
shutil.rmtree(folder, ignore_errors=True)
"""


class PostgresServer:
    """A server with its data in a folder of its own; not yet started.

    Args:
        settings: Parameters of the server.
        primary: A running server that this one follows as a standby, until it is promoted.

    Attributes:
        port: Where it listens.
        changed: Whether it was started with other settings than it was made with.
        version: The first number of its version.
        unreserved: Settings by which it keeps no connections for administrators.
        can_be_copied: Whether there is the program that a standby is made with.
    """

    def __init__(self, settings: Mapping[str, str] | None = None, primary: PostgresServer | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobtrio-pg-"))
        self._keeper = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(self.folder)], stdin=subprocess.PIPE, start_new_session=True
        )
        self._install = Install(self.folder)
        self._settings = {**LEAN, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._password: str = primary._password if primary is not None else secrets.token_hex(16)
        self.port = free_port()
        self.changed = False
        self.version = self._install.version()
        reserved = ("superuser_reserved_connections", "reserved_connections")[: 1 + (self.version >= 16)]
        self.unreserved: dict[str, str] = dict.fromkeys(reserved, "0")
        self.can_be_copied: bool = self._install.has("pg_basebackup")
        if primary is None:
            self._initialise()
        else:
            self._run("pg_basebackup", "-D", self.folder / "data", "-d", primary.conninfo(), "-R", "-c", "fast")

    def _initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self._password)
        access = ["-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password_file}"]
        if self.version >= 16:
            # One iteration: a password keeps other users of this machine out, and costs a connection nothing.
            access += ["--set", "scram_iterations=1"]
        self._run("initdb", "-D", self.folder / "data", "-E", "UTF8", "--locale=C", "--no-sync", *access)

    def _run(self, *command: str | Path) -> None:
        done = self._install.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        _, said = done.communicate()
        assert done.returncode == 0, said.decode()

    def start(self, **settings: str) -> None:
        """Start the server and wait until it can be used.

        Args:
            settings: Wins over those it was made with, for this start.
        """
        assert not self.running
        self.changed = bool(settings)
        args: list[str | Path] = ["postgres", "-D", self.folder / "data", "-k", self.folder]
        args += ["-p", str(self.port), "-h", "127.0.0.1"]
        for name, value in {**self._settings, **settings}.items():
            args += ["-c", f"{name}={value}"]
        with (self.folder / "log").open("ab") as log:
            self._process = self._install.popen(args, stdout=log, stderr=log)
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until connections are accepted."""
        assert self._process is not None
        end = time.monotonic() + START_LIMIT
        while pq.PGconn.ping(self.conninfo().encode()) != pq.Ping.OK:
            assert self._process.poll() is None, f"the server ended:\n{self.log()}"
            assert time.monotonic() < end, f"the server is not ready:\n{self.log()}"
            time.sleep(0.01)

    @property
    def running(self) -> bool:
        """Whether the server's first process is there, even if it is frozen."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number of the server's first process."""
        assert self._process is not None
        return self._process.pid

    def stop(self, mode: str = "fast") -> None:
        """Stop the server.

        Args:
            mode: ``fast`` tells its clients (57P01), ``immediate`` as well but saves nothing, ``smart`` waits for them.
        """
        if self.running:
            assert self._process is not None
            number = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode]
            self._process.send_signal(number)
            self._process.wait(timeout=START_LIMIT)

    def kill(self) -> None:
        """Kill all of the server's processes at once, as a crash of the machine would."""
        if self.running:
            assert self._process is not None
            # The first stands still while the others are listed: it starts no more, and they are known as its own.
            os.kill(self.pid, signal.SIGSTOP)
            others = self.processes()[1:]
            self._process.kill()
            for process in others:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._process.wait(timeout=START_LIMIT)
            psutil.wait_procs(others, timeout=START_LIMIT)  # one that lingers would keep the next from starting

    def promote(self) -> None:
        """Have a standby become a server of its own."""
        self.execute("SELECT pg_promote()")

    def freeze(self) -> None:
        """Stop all of the server's processes where they are; the sockets stay open."""
        end = time.monotonic() + START_LIMIT
        while {_status(process) for process in self.processes()} - {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}:
            # Once more: the first process may just have started another.
            self._signal_all(signal.SIGSTOP)
            assert time.monotonic() < end, "the server does not stand still"
            time.sleep(0.001)

    def processes(self) -> list[psutil.Process]:
        """Return the server's processes, the first one first."""
        server = psutil.Process(self.pid)
        return [server, *server.children(recursive=True)]

    def thaw(self) -> None:
        """Let a frozen server go on."""
        if self.running:
            self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        # The first process comes first: it must not start another while the others are told.
        os.kill(self.pid, number)
        for process in self.processes()[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def restart(self, **settings: str) -> None:
        """Stop the server, ending its connections, and start it again."""
        self.stop()
        self.start(**settings)

    def conninfo(self, database: str = "postgres", **options: object) -> str:
        """Return a connection string for the superuser."""
        given: dict[str, Any] = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": database}
        return make_conninfo(**{**given, "password": self._password, **options})

    def create_database(self, **options: object) -> str:
        """Create an empty database and return its connection string."""
        name = f"db_{secrets.token_hex(6)}"
        self.execute("CREATE DATABASE {}", name)
        return self.conninfo(name, **options)

    def execute(self, statement: LiteralString, *names: str, database: str = "postgres") -> list[Any]:
        """Run one statement in a connection of its own, outside of any transaction, and return its rows."""
        with psycopg.connect(self.conninfo(database), autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        """Return the end of what the server has logged."""
        return (self.folder / "log").read_text(errors="replace")[-10_000:]

    def close(self) -> None:
        """End the server and remove its files."""
        self.kill()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait(timeout=START_LIMIT)


def _status(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return str(psutil.STATUS_ZOMBIE)  # it has just gone


def free_port() -> int:
    """Return a port that nobody listens on.

    It lies below those that systems hand out by themselves, so that none takes it while the server is down.
    """
    for _ in range(1000):
        port = random.randint(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@contextlib.contextmanager
def open_postgres(**settings: str) -> Iterator[PostgresServer]:
    """Open a started server with settings of its own; it is gone at the end of the block."""
    server = PostgresServer(settings)
    try:
        server.start()
        yield server
    finally:
        server.close()
