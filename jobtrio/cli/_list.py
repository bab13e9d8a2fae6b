"""``jobtrio list``: a store's jobs, as a table or as JSON."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING

from jobtrio._state import JobState
from jobtrio.cli import _options
from jobtrio.cli._endings import printable
from jobtrio.cli._filters import add_filters, filters_of
from jobtrio.cli._records import attempt_text, moment_text, note_text, record_fields, took_text
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, print_document, run_with_store
from jobtrio.cli._table import render_table

if TYPE_CHECKING:
    import argparse

    from jobtrio._records import JobRecord
    from jobtrio.abc import JobStore

DESCRIPTION = """\
List the jobs that match, the oldest first. All that is given has to match.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio list --store sqlite:///jobs.db
  jobtrio list --state queued,running --tag user=ann
  jobtrio list --newest-first --limit 10
  jobtrio list --state failed --json | jq -r '.[].id'
"""

HEAD = ("ID", "STATE", "EXECUTOR", "QUEUE", "ATTEMPT", "SUBMITTED", "TOOK", "NOTE")


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``list`` to the command's parser."""
    parser = commands.add_parser(
        "list",
        help="list the jobs of a store",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add_filters(parser, JobState)
    add = parser.add_argument
    add("--limit", metavar="N", type=_options.positive_count, default=100, help="how many at most (default: 100)")
    add("--newest-first", action="store_true", help="begin with the newest, rather than the oldest")
    add("--after", metavar="ID", help="only jobs behind this one, the last of the page before")
    add_store_options(parser, json="print a JSON array of the jobs' records")
    parser.set_defaults(run=partial(run_with_store, work=show_list))


async def show_list(options: argparse.Namespace, store: JobStore) -> int:
    """Print the jobs that match.

    *Cancellation*: nothing has changed.
    """
    async with open_client(store) as registry:
        records = await registry.find(
            **filters_of(options),
            limit=options.limit,
            after=options.after,
            newest_first=options.newest_first,
        )
    if options.json:
        print_document([record_fields(record) for record in records])
        return 0
    table = render_table(HEAD, [_row(record) for record in records], right=("ATTEMPT", "TOOK"))
    print(table, end="", flush=True)
    if len(records) == options.limit:
        last = records[-1].id
        after = [f"--after={last}"] if last.startswith("-") else ["--after", last]
        complain(options, f"there may be more: {printable(shlex.join(after))}")
    return 0


def _row(record: JobRecord) -> tuple[str, ...]:
    return (
        record.id,
        record.state,
        "-" if record.executor is None else record.executor,
        record.queue,
        attempt_text(record),
        moment_text(record.created_at),
        took_text(record),
        note_text(record),
    )
