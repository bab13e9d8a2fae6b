"""The ``jobtrio`` command: its parser, and the way into its subcommands.

Each subcommand is a module of its own: its ``HELP``, ``DESCRIPTION`` and ``EPILOG``, ``add_options`` and ``run``. This
module knows their order and what is common to them: the version, usage errors,
Ctrl-C, and a reader of the output that left. It must not know what any of them does.
"""

from __future__ import annotations

import argparse
import re
import select
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import jobtrio
from jobtrio.cli import (
    _cancel,
    _demo,
    _list,
    _pause,
    _prioritize,
    _prune,
    _remove,
    _rerun,
    _resume,
    _run,
    _serve,
    _show,
    _stats,
    _submit,
    _watch,
    _worker,
)
from jobtrio.cli._endings import printable
from jobtrio.cli._output import drop, prepare_stdout
from jobtrio.cli._program import programs as programs
from jobtrio.cli._store import NOTHING_READ, complain

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    module.__name__.rpartition("._")[2]: module
    for module in (
        _demo,
        _run,
        _worker,
        _serve,
        _submit,
        _list,
        _show,
        _watch,
        _cancel,
        _rerun,
        _prioritize,
        _pause,
        _resume,
        _stats,
        _remove,
        _prune,
    )
}
"""The subcommands, in the order in which ``--help`` shows them."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell gives it: 128 + SIGINT."""

HEEDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD)
"""The signals that tell subcommands, and the programs that they run, to end, or that a child has ended."""

EXAMPLES = """\
examples:
  jobtrio demo                  see what a job can do, in a few seconds
  jobtrio run -- make test      run a program as a job and watch it
  jobtrio run --help            all that `run` can do

  export JOBTRIO_STORE=sqlite:///jobs.db        jobs that survive: workers here,
  jobtrio worker app.jobs:executors             submitters and watchers anywhere
  jobtrio submit generate --payload '{"text": "to be"}' --watch

  jobtrio serve app.jobs:executors              the same over WebSocket,
  jobtrio watch ws://127.0.0.1:8765/jobs/ID     for browsers and other machines
"""


class Parser(argparse.ArgumentParser):
    """A parser that keeps the layout of its texts, and tells that help can't be written, which argparse does not."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)
        self.set_defaults(parser=self)  # by which a subcommand refuses what its options say together

    def error(self, message: str) -> NoReturn:
        """End with 2 and say why, where that can be said."""
        if sys.stderr is None:  # or the usage would go to stdout
            self.exit(2)
        place = "; a command's options stand behind it" if message.startswith("argument COMMAND: ") else ""
        said = re.sub(r"://\S*@", "://…@", message)  # a store's URL that is out of place may hold a password
        super().error(printable(said) + place)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is None or file is not sys.stdout:
            super()._print_message(message, file)
            return
        try:
            file.write(message)
            file.flush()
        except BrokenPipeError:  # whoever asked has read enough
            pass
        except OSError as exc:
            self.exit(1, f"{self.prog}: the output can't be written: {exc.strerror}\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command."""
    parser = Parser(
        prog="jobtrio",
        description="Run jobs whose output people watch.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"jobtrio {jobtrio.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, module in COMMANDS.items():
        texts: dict[str, Any] = {
            text.lower(): getattr(module, text, None) for text in ("HELP", "USAGE", "DESCRIPTION", "EPILOG")
        }
        command = commands.add_parser(name, **texts)
        module.add_options(command)
        command.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    Args:
        argv: The arguments behind the command's name; None takes those of the process.

    Raises:
        SystemExit: With 0 for ``--help`` and ``--version``, or 1 where they can't be written; with 2 for bad usage.
    """
    prepare_stdout()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)  # whoever started this may have blocked them, for programs too
    code, unwritten = INTERRUPTED, None
    try:
        parser = build_parser()
        options, unknown = parser.parse_known_args(argv)
        if options.command is None:
            first = f"unknown: {' '.join(unknown)}; " if unknown else ""
            parser.error(f"{first}COMMAND is missing: one of {', '.join(COMMANDS)}; jobtrio --help says what they do")
        if "words" in options and (words := _left_words(unknown)):
            options.words += words
            unknown = []
        if unknown:
            known = f"{options.parser.prog} --help lists what is known"
            options.parser.error(f"unknown, or out of place: {' '.join(unknown)}; {known}")
        code = int(options.run(options))
    except* KeyboardInterrupt:  # may come from within nurseries
        _drop_what_stalls()
    finally:
        unwritten = _flush()
    if isinstance(unwritten, KeyboardInterrupt):
        return INTERRUPTED
    if code or unwritten is None:
        return code
    if isinstance(unwritten, BrokenPipeError):
        return NOTHING_READ
    complain(options, f"the output can't be written: {unwritten.strerror}")
    _flush()  # the complaint, which may lie in the buffer where stderr can't be written either
    return 1


def _left_words(unknown: list[str]) -> list[str]:
    """Return what argparse has left over, if all of it is words: it takes only those that stand together."""
    cut = unknown.index("--") if "--" in unknown else len(unknown)
    words, behind = unknown[:cut], unknown[cut + 1 :]
    has_option = any(word.startswith("-") and not word[1:2].isdigit() for word in words)  # and not a number
    return [] if has_option else words + behind


def _drop_what_stalls() -> None:
    """Drop what is buffered for a reader that does not read: it would hold up the end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None and not select.select([], [stream], [], 0)[1]:
                drop(stream.fileno())


def _flush() -> OSError | KeyboardInterrupt | None:
    """Write what is buffered, so that the interpreter has nothing left to complain of, or to wait for, at its exit.

    Returns why stdout was not written, or None.
    """
    unwritten = None
    for stream in (sys.stdout, sys.stderr):
        try:
            # None where the descriptor was closed before the start.
            if stream is not None:
                stream.flush()
        except (OSError, KeyboardInterrupt) as exc:
            drop(stream.fileno())
            if stream is sys.stdout:
                unwritten = exc
    return unwritten
