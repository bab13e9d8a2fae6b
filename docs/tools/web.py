"""The web application in ``docs/examples/web``, run as its page tells: served by Hypercorn, and asked by curl.

It owns the server, what is asked of it, and what the terminal shows. It must not know the page.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from functools import cache
from http.client import HTTPConnection
from typing import TYPE_CHECKING

from docs.tools import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = examples.FOLDER / "web"

LIMIT = 60
"""Seconds that a part of an answer may take."""


def shown(request: str) -> str:
    """Return what the terminal shows of a request: the command, and the body of the answer.

    Raises:
        KeyError: There is no such request.
    """
    return _terminal()[request]


@contextmanager
def open_server() -> Iterator[int]:
    """Serve the application by its own command, within the block, and give the port."""
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "--bind", "127.0.0.1:0", "app:app"]
    with subprocess.Popen(command, cwd=FOLDER, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None  # it is a pipe
        said = ""
        try:
            while not (found := re.search(r"Running on http://127.0.0.1:(\d+) ", said)):
                said += (line := server.stderr.readline())
                if not line:
                    raise EOFError(f"the server ended: {said}")
            yield int(found[1])
        finally:
            server.terminate()
            server.communicate()


def ask(port: int, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, str]:
    """Return the status and the whole body of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


@cache
def _terminal() -> dict[str, str]:
    """Submit a job, watch it, and watch it again from its middle."""
    with open_server() as port:
        payload = '{"text": "to be or not"}'
        submitted = ask(port, "POST", "/jobs", payload)
        job_id = json.loads(submitted[1])["id"]
        path = f"/jobs/{job_id}/events"
        parts = {
            "submit": _curl(["-d", payload], "/jobs", submitted),
            "watch": _curl(["-N"], path, ask(port, "GET", path)),
            "resume": _curl(["-N", "-H", "Last-Event-ID: 3"], path, ask(port, "GET", path, Last_Event_ID="3")),
        }
        return {name: text.replace(job_id, "ID") for name, text in parts.items()}


def _curl(options: list[str], path: str, answer: tuple[int, str]) -> str:
    """Return how a request and its answer look in a terminal."""
    command = shlex.join(["curl", *options, f"http://127.0.0.1:8000{path}"])
    return f"$ {command}\n{answer[1].rstrip()}\n"
