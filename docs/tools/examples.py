"""The examples: real programs in ``docs/examples``, run as the docs show them.

It owns where they are, which clock they need, and what of them a page may show. It must not know the pages.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import runpy
import signal
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
import trio.testing

from docs.tools import servers

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).parents[1] / "examples"

REAL_CLOCK = {
    "at_least_once.py",
    "backup.py",
    "call_from_threads.py",
    "desktop.py",
    "drain_on_sigterm.py",
    "durable_batch.py",
    "idempotent_executor.py",
    "monitor.py",
    "periodic.py",
    "outage.py",
    "program_progress.py",
    "psycopg_on_trio.py",
    "rate_limit.py",
    "request_turns.py",
    "run_program.py",
    "serve_streams.py",
    "serve_to_some.py",
    "shutdown.py",
    "submit_from_threads.py",
    "threads.py",
    "transactional_submit.py",
    "wrap_program.py",
}
"""Those with threads, files, processes or signals, which know no virtual clock. Each takes a few seconds at most."""

DATABASE = {"psycopg_on_trio.py", "submit_from_threads.py", "transactional_submit.py"}
"""Those that need a PostgreSQL server. Each is given an empty database, by ``DATABASE_URL``."""


def names() -> list[str]:
    """Return the examples' file names."""
    return sorted(path.name for path in FOLDER.glob("*.py"))


@cache
def run(name: str) -> str:
    """Run an example's ``main``, or all its tests, in a folder of its own, and return what it prints."""
    defined = runpy.run_path(str(FOLDER / name))
    out = io.StringIO()
    if name in DATABASE:
        os.environ["DATABASE_URL"] = servers.postgres().create_database()
    with contextlib.redirect_stdout(out), tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        if "main" in defined:
            _run_main(defined["main"], None if name in REAL_CLOCK else trio.testing.MockClock(autojump_threshold=0))
        else:
            for test in [value for key, value in defined.items() if key.startswith("test_")]:
                test()
    return out.getvalue()


def _run_main(main: Callable[[], Any], clock: trio.testing.MockClock | None) -> None:
    """Run what is async in Trio. What is not brings a loop of its own, and may take the signal of Ctrl-C."""
    if inspect.iscoroutinefunction(main):
        trio.run(main, clock=clock)
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        main()
    finally:
        signal.signal(signal.SIGINT, handler)


def source(name: str, *definitions: str) -> str:
    """Return an example's text, or only those of its top-level definitions that are named."""
    text = (FOLDER / name).read_text(encoding="utf-8")
    if not definitions:
        return text
    lines = text.splitlines()
    found = {getattr(node, "name", None): node for node in ast.parse(text).body}
    parts = []
    for definition in definitions:
        node = found[definition]
        decorators = getattr(node, "decorator_list", [])
        start = min(each.lineno for each in [node, *decorators])
        parts.append("\n".join(lines[start - 1 : node.end_lineno]) + "\n")
    return "\n\n".join(parts)
