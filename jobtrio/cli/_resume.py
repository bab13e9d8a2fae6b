"""``jobtrio resume``: has the workers of a store start jobs of a paused queue again."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jobtrio.cli import _options
from jobtrio.cli._json import print_document
from jobtrio.cli._store import EXIT_CODES, add_store_options, open_client, run_with_store, warn_of_pattern

if TYPE_CHECKING:
    import argparse

    from jobtrio.abc import JobStore

HELP = "start jobs of a paused queue again"

DESCRIPTION = """\
Have the workers start the jobs of a queue again that `jobtrio pause` has
stopped. They do so at once. `jobtrio stats` tells which queues are paused.
"""

EPILOG = f"""\
{EXIT_CODES}
example:
  jobtrio resume gpu
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("queue", metavar="QUEUE", type=_options.name, help="the queue")
    add_store_options(parser, json="print one JSON object: the queue, and whether it is paused")


async def resume(options: argparse.Namespace, store: JobStore) -> int:
    """Resume the queue, and say so; one that is not paused stays as it is.

    *Cancellation*: it may be resumed.
    """
    async with open_client(store) as registry:
        await registry.resume(options.queue)
    if options.json:
        print_document({"queue": options.queue, "paused": False})
    else:
        print("resumed")
    warn_of_pattern(options)
    return 0


run = partial(run_with_store, work=resume)
