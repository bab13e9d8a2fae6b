"""The command: ``python -m benchmarks [NAME ...]`` runs benchmarks, prints a table and writes JSON."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from benchmarks import _report
from benchmarks._harness import DEFAULT_ROUNDS, Session
from benchmarks._machine import timestamp
from benchmarks._options import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks._result import Row

NAMES = (
    *("submit", "registry", "fanout", "replay", "cancel", "memory"),
    *("stores", "postgres", "redis", "websocket", "import"),
)
ON_REQUEST = ("peers",)
"""Needs the package index, so it runs when named, or with ``--peers`` beside all the others."""
LEGEND = """A row has the median time, or the bytes, of one operation; the 99th percentile where single ones are timed;
what it is measured against; and how many times the other's cost or speed that is, the median of the rounds'."""
NAMED = ", ".join(NAMES + ON_REQUEST)
RESULTS = Path(__file__).parent / "results"
INTERRUPTED = 130
"""The exit status behind Ctrl-C."""
NOTHING_READ = 128 + signal.SIGPIPE
"""That where whoever read the table has left."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments name; return 1 with ``--check`` and a goal missed, 130 if interrupted, else 0."""
    try:
        return _main(arguments)
    except* BrokenPipeError:
        # Or the interpreter would complain at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return NOTHING_READ


def _main(arguments: Sequence[str] | None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES + ON_REQUEST]
    if unknown:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {NAMED}")
    if options.list:
        for name in NAMES + ON_REQUEST:
            print(f"{name:10} {_first_line(_module(name))}", flush=True)
        return 0
    session = Session(_rounds(options), options.tiny, options.peers, on_row=_show, on_note=_show_note)
    names = list(options.names or NAMES)
    if options.peers and not options.names:
        names += ON_REQUEST
    path = options.json or RESULTS / f"{timestamp()}-{os.getpid()}.json"
    try:
        _report.write_json(session, path)
    except OSError as exc:  # better now than when all is measured
        parser.error(f"the figures can't be written: {exc}; --json PATH puts them elsewhere")
    print(_report.heading(), flush=True)
    try:
        for name in names:
            _run(session, name)
    except KeyboardInterrupt:
        print(f"\ninterrupted; figures so far: {path}", file=sys.stderr)
        return INTERRUPTED
    finally:
        _report.write_json(session, path)  # also what was found before a failure
    return _conclude(session, path, check=options.check)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure jobtrio beside floors and peers, in turns, within one run.",
        epilog=LEGEND,
    )
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help=f"what to run: {NAMED}; all but {', '.join(ON_REQUEST)} by default")
    add("--tiny", action="store_true", help="one small unscored round of each, to see that it works")
    add("--peers", action="store_true", help="beside other libraries as well, in environments of their own")
    add("--rounds", type=count, metavar="N", help=f"scored rounds a row (default {DEFAULT_ROUNDS})")
    add("--json", type=Path, metavar="PATH", help="where to write the figures (default: results/)")
    add("--list", action="store_true", help="say what there is and run nothing")
    add("--check", action="store_true", help="exit with 1 if a goal is missed")
    return parser


def _rounds(options: argparse.Namespace) -> int:
    if options.rounds is not None:
        return int(options.rounds)
    return 1 if options.tiny else DEFAULT_ROUNDS


def _module(name: str) -> Any:
    return importlib.import_module(f"benchmarks.bench_{name}")


def _run(session: Session, name: str) -> None:
    session.begin(name)
    trio.run(_measure, session)


async def _measure(session: Session) -> None:
    with _cancelled_by_ctrl_c():
        await _module(session.benchmark).run(session)


@contextmanager
def _cancelled_by_ctrl_c() -> Iterator[None]:
    """Have Ctrl-C cancel what is within, which then ends what it started; raised anywhere, it could be lost."""
    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:
        before = signal.signal(signal.SIGINT, lambda *_: token.run_sync_soon(scope.cancel))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
    if scope.cancel_called:
        raise KeyboardInterrupt


def _show(row: Row) -> None:
    print(_report.table_line(row), flush=True)


def _show_note(note: str) -> None:
    print(f"  {note}", flush=True)


def _first_line(module: Any) -> str:
    return str(module.__doc__).partition("\n")[0]


def _conclude(session: Session, path: Path, *, check: bool) -> int:
    """Print the summary and return the exit status."""
    print(f"\nfigures: {path}", flush=True)
    scored = [row for row in session.rows if row.met is not None]
    missed = [row for row in scored if not row.met]
    if session.tiny:
        print("a tiny run: its figures mean nothing", flush=True)
    else:
        print(f"goals: {len(scored) - len(missed)} of {len(scored)} met", flush=True)
    return 1 if check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
