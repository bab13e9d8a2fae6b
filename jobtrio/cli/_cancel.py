"""``jobtrio cancel``: asks a job to end, whichever process runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio.cli import _options
from jobtrio.cli._bridge import job_of_store
from jobtrio.cli._records import record_fields
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, print_document, run_with_store

if TYPE_CHECKING:
    import argparse

    from jobtrio.abc import JobStore

DESCRIPTION = """\
Ask a job to end. One that waits ends at once, one that runs when all of it is
gone; `jobtrio watch ID` tells when.
"""

EPILOG = f"""\
{_options.DURATIONS}
{EXIT_CODES}
examples:
  jobtrio cancel 4f0c…
  jobtrio cancel 4f0c… --reason 'wrong file' --grace 10
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``cancel`` to the command's parser."""
    parser = commands.add_parser(
        "cancel",
        help="ask a job to end",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("id", metavar="ID", type=job_of_store, help="the job's id")
    parser.add_argument("--reason", metavar="TEXT", type=_options.reason, help="why: all who watch it are told")
    parser.add_argument(
        "--grace",
        metavar="DURATION",
        type=_options.duration,
        default=0.0,
        help="how long it has to end by itself (default: 0)",
    )
    add_store_options(parser, json="print one JSON object: cancelled, and the job's record")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Cancel the job and return the exit code."""
    return run_with_store(options, cancel)


async def cancel(options: argparse.Namespace, store: JobStore) -> int:
    """Ask the job to end, and say whether it will.

    *Cancellation*: the request may have been made.
    """
    async with open_client(store) as registry:
        accepted = await registry.cancel(options.id, options.reason, grace=options.grace)
        record = (await registry.get(options.id)).record
    if options.json:
        print_document({"cancelled": accepted, "job": record_fields(record)})
    elif accepted:
        print("cancelled" if record.finished_at is not None else "asked to stop")
    if not accepted:
        complain(options, f"job {options.id!r} has ended already: {record.state.lower()}")
    return 0 if accepted else 1
