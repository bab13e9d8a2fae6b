"""``jobtrio watch``: shows a job's messages live, whichever process runs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from jobtrio.cli import _options
from jobtrio.cli._store import add_store_options, open_client, run_with_store
from jobtrio.cli._watcher import EXIT_CODES, Watcher, add_watch_options

if TYPE_CHECKING:
    from jobtrio.abc import JobStore

DESCRIPTION = """\
Show a job's messages from the first that is kept, and then as they come, until
the job ends. Tokens go to stdout, one a line; those of a program's stderr, all
else, and a summary go to stderr. On a terminal, progress is a bar where rich is
installed (the extra "cli"). Ctrl-C ends the watching, not the job.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio watch 4f0c…
  jobtrio watch --text 4f0c… >answer.txt
  jobtrio watch --json --after 120 4f0c…
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``watch`` to the command's parser."""
    parser = commands.add_parser(
        "watch",
        help="show a job's messages live, whichever process runs it",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("id", metavar="ID", help="the job's id")
    parser.add_argument(
        "--after",
        metavar="N",
        type=_options.count,
        default=0,
        help="show what comes behind message number N (default: 0)",
    )
    add_watch_options(parser)
    add_store_options(parser, json="show each message as a line of JSON on stdout")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Watch the job and return the exit code."""
    return run_with_store(options, watch)


async def watch(options: argparse.Namespace, store: JobStore) -> int:
    """Show the job's messages to its end.

    *Cancellation*: the job goes on.
    """
    async with open_client(store) as registry:
        job = await registry.get(options.id)
        watcher = Watcher(registry, job, after=options.after, as_json=options.json, as_text=options.text)
        return await watcher.watch()
