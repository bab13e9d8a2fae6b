"""``jobtrio run``: its options, and what they mean.

The run itself, with its output and its signals, is `WatchedRun`'s.
"""

from __future__ import annotations

import argparse
import os
from itertools import chain
from typing import TYPE_CHECKING

import trio

from jobtrio._checks import clean_text
from jobtrio.cli import _options, _program
from jobtrio.cli._store import add_store_options, run_with_store, url_of
from jobtrio.cli._watched_run import RunPlan, WatchedRun

if TYPE_CHECKING:
    from jobtrio.abc import JobStore

HELP = "run a program as a job and watch it"

USAGE = "jobtrio run [OPTION ...] -- PROGRAM [ARGUMENT ...]"

DESCRIPTION = """\
Run a program as a job and watch it. Each line appears as the program writes it,
on stdout or stderr as the program chose; a summary on stderr says how it ended.
The program has no standard input; JOBTRIO_JOB and JOBTRIO_ATTEMPT in its
environment say whose it is. When its time is up or it is cancelled, it and all
that it started get SIGTERM, and after the grace period SIGKILL. Ctrl-C cancels
it, a second Ctrl-C kills it; nothing is left running.

With --store the job is kept: others can watch and cancel it, and when this
process dies, a worker with jobtrio.cli:programs or with an executor named
run_command starts it again. A job of your own queue is run by this process
unless such a worker is quicker; with --queue it waits its turn, and this
process helps.

Many programs buffer their output when it does not go to a terminal; for those
use an option of their own (python -u) or stdbuf -oL.
"""

EPILOG = f"""\
{_options.DURATIONS}
exit code:
  the program's own, or 128 + n when signal n killed it
  124 its time was up      126 it can't be executed      127 it isn't found
  125 it was cancelled by others
  1   the store is away, or the output can't be written
  130 Ctrl-C               143 SIGTERM                   129 SIGHUP, 131 SIGQUIT
  141 nobody reads the output any more                   2   bad usage

examples:
  jobtrio run -- make test
  jobtrio run --time-limit 10m --retry 2 -- ./import.sh orders.csv
  jobtrio run --cwd /srv/app --env DEBUG=1 -- sh -c 'make && ./check'
  jobtrio run --json -- make test >messages.jsonl
  jobtrio run --store sqlite:///jobs.db -- ./import.sh orders.csv
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add(
        "--time-limit",
        metavar="DURATION",
        type=_options.positive_duration,
        help="how long each attempt may take (default: no limit)",
    )
    add(
        "--retry",
        metavar="N",
        type=_options.count,
        default=0,
        help="how many more times a failed program is tried, after 1, 2, 4 … seconds (default: 0)",
    )
    add(
        "--grace",
        metavar="DURATION",
        type=_options.duration,
        default=5.0,
        help="the time between SIGTERM and SIGKILL (default: 5s)",
    )
    add("--cwd", metavar="DIR", type=_options.directory, help="the directory to run it in")
    add(
        "--env",
        metavar="NAME=VALUE",
        type=_options.variable,
        action="append",
        default=[],
        help="an environment variable for it, besides those that it inherits; may be given several times",
    )
    add("--queue", metavar="NAME", type=_options.name, help="the job's queue (default: one of its own)")
    add_store_options(parser, json="show each message of the job as a line of JSON on stdout")
    add("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Run the program that the options name and return its exit code."""
    argv = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not argv:
        options.parser.error("PROGRAM is missing: put it behind --, as in: jobtrio run -- ls -l")
    if not argv[0]:
        options.parser.error("PROGRAM must be a program's name or path; got ''")
    _program.heed_children()
    options.argv = argv
    if url_of(options):
        # A worker that takes over may have been started elsewhere.
        try:
            options.cwd = os.path.abspath(options.cwd or ".")
        except FileNotFoundError:
            options.parser.error("--cwd must be given, from the root: the current directory is gone")
        for text in (*argv, options.cwd, *chain.from_iterable(options.env)):
            if clean_text(text) != text:
                must = "with a store, PROGRAM, its arguments, --cwd and --env must be UTF-8, as must the locale"
                options.parser.error(f"{must}; got {text!r}")
        return run_with_store(options, perform, make=True, lasts=True)
    return trio.run(perform, options, None)


async def perform(options: argparse.Namespace, store: JobStore | None) -> int:
    """Run the program as a job of the store, or in memory, and return its exit code.

    *Cancellation*: ends the program and its group, as that of any job.
    """
    payload = {"argv": options.argv, "cwd": options.cwd, "env": dict(options.env), "grace": options.grace}
    plan = RunPlan(
        payload=payload,
        queue=options.queue,
        time_limit=options.time_limit,
        retries=options.retry,
        as_json=options.json,
        store=store,
    )
    return await WatchedRun(plan).perform()
