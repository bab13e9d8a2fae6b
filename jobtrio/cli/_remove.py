"""``jobtrio remove``: takes an ended job out of a store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jobtrio._errors import IllegalTransitionError
from jobtrio.cli._bridge import job_of_store
from jobtrio.cli._json import print_document, record_fields
from jobtrio.cli._sources import cancel_command
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, run_with_store

if TYPE_CHECKING:
    import argparse

    from jobtrio.abc import JobStore

HELP = "remove one ended job from a store"

DESCRIPTION = """\
Remove a job that has ended, with its history and its messages. One that has
not ended stays: cancel it first.
"""

EPILOG = f"""\
{EXIT_CODES}
example:
  jobtrio remove 4f0c…
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("id", metavar="ID", type=job_of_store, help="the job's id")
    add_store_options(parser, json="print one JSON object: removed, and the job's record")


async def remove(options: argparse.Namespace, store: JobStore) -> int:
    """Remove the job, unless it lives, and say so.

    *Cancellation*: it may have been removed.
    """
    lives: str | None = None  # in which state
    async with open_client(store) as registry:
        record = (await registry.get(options.id)).record
        try:
            await registry.remove(options.id)
        except IllegalTransitionError as exc:
            lives = exc.previous
    if options.json:
        print_document({"removed": lives is None, "job": record_fields(record)})
    elif lives is None:
        print("removed")
    if lives is None:
        return 0
    end = f"{cancel_command(options.id, options.store)} ends it"
    complain(options, f"job {options.id!r} lives, it is {lives.lower()}: {end}")
    return 1


run = partial(run_with_store, work=remove)
