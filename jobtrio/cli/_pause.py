"""``jobtrio pause``: has no worker of a store start more jobs of a queue."""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING

from jobtrio.cli import _options
from jobtrio.cli._json import print_document, time_field
from jobtrio.cli._records import moment_text
from jobtrio.cli._sources import resume_command
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, run_with_store, warn_of_pattern

if TYPE_CHECKING:
    import argparse

    from jobtrio.abc import JobStore

HELP = "start no more jobs of a queue"

DESCRIPTION = """\
Have no worker start a job of a queue, until `jobtrio resume QUEUE`, or for a
time. Running jobs keep running. New ones are accepted, and wait. If a queue is
paused twice, the pause that ends later counts.
"""

EPILOG = f"""\
{_options.DURATIONS}
{EXIT_CODES}
examples:
  jobtrio pause gpu
  jobtrio pause --for 30s answers
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("queue", metavar="QUEUE", type=_options.name, help="the queue; it need not have jobs")
    parser.add_argument(
        "--for",
        metavar="DURATION",
        dest="seconds",
        type=_options.duration,
        default=inf,
        help="how long (default: until it is resumed)",
    )
    add_store_options(parser, json="print one JSON object: the queue, whether it is paused, and until when")


async def pause(options: argparse.Namespace, store: JobStore) -> int:
    """Pause the queue, and say how it goes on.

    *Cancellation*: it may be paused.
    """
    async with open_client(store) as registry:
        try:
            await registry.pause(options.queue, options.seconds)
        except ValueError as exc:  # of a time that the calendar does not know
            complain(options, str(exc))
            return 2
        paused = await registry.paused()
    is_paused, until = options.queue in paused, paused.get(options.queue)  # it may have been paused for longer
    if options.json:
        print_document({"queue": options.queue, "paused": is_paused, "until": until and time_field(until)})
    elif not is_paused:
        print("paused, and over by now")
    else:
        limit = "" if until is None else f" until {moment_text(until)}"
        print(f"paused{limit}; {resume_command(options.queue, options.store)} ends it")
    warn_of_pattern(options)
    return 0


run = partial(run_with_store, work=pause)
