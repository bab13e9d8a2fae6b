"""``jobtrio pause``: has no worker of a store start more jobs of a queue."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jobtrio.cli import _options
from jobtrio.cli._json import print_document
from jobtrio.cli._sources import resume_command
from jobtrio.cli._store import EXIT_CODES, add_store_options, open_client, run_with_store, warn_of_pattern

if TYPE_CHECKING:
    import argparse

    from jobtrio.abc import JobStore

HELP = "start no more jobs of a queue"

DESCRIPTION = """\
Have no worker start a job of a queue, until `jobtrio resume QUEUE`. Running
jobs keep running. New ones are accepted, and wait.
"""

EPILOG = f"""\
{EXIT_CODES}
example:
  jobtrio pause gpu
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("queue", metavar="QUEUE", type=_options.name, help="the queue; it need not have jobs")
    add_store_options(parser, json="print one JSON object: the queue, and whether it is paused")


async def pause(options: argparse.Namespace, store: JobStore) -> int:
    """Pause the queue, and say how it goes on.

    *Cancellation*: it may be paused.
    """
    async with open_client(store) as registry:
        await registry.pause(options.queue)
    if options.json:
        print_document({"queue": options.queue, "paused": True})
    else:
        print(f"paused; {resume_command(options.queue, options.store)} ends it")
    warn_of_pattern(options)
    return 0


run = partial(run_with_store, work=pause)
