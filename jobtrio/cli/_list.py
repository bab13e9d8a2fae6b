"""``jobtrio list``: the jobs of a store or a server, as a table or as JSON."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from jobtrio._checks import show_url
from jobtrio._policies import JobPriority
from jobtrio._state import JobState
from jobtrio.cli import _options
from jobtrio.cli._bridge import SERVER_URL, add_token_option, is_url, run_for_jobs
from jobtrio.cli._endings import one_line, printable
from jobtrio.cli._filters import add_filters, filters_of
from jobtrio.cli._json import print_document, record_fields
from jobtrio.cli._records import attempt_text, moment_text, note_text, tags_text, took_text
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, run_with_store
from jobtrio.cli._table import render_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from jobtrio._records import JobRecord
    from jobtrio.abc import JobStore
    from jobtrio.websocket import JobClient

HELP = "list the jobs of a store or a server"

DESCRIPTION = """\
List the jobs that match, the oldest first. All filters given have to match.
With a URL the jobs are those that a server (`jobtrio serve`) shows.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio list --store sqlite:///jobs.db
  jobtrio list --state queued,running --tag user=ann
  jobtrio list --newest-first --limit 10
  jobtrio list --state failed --json | jq -r '.[].id'
  jobtrio list ws://127.0.0.1:8765/ws --tag user=ann
"""

HEAD = ("ID", "STATE", "EXECUTOR", "QUEUE", "PRIORITY", "ATTEMPT", "SUBMITTED", "TOOK", "TAGS", "NOTE")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add("url", metavar="URL", nargs="?", help="a server, ws://HOST:PORT/ws, rather than a store")
    add_filters(parser, JobState)
    add("--limit", metavar="N", type=_options.positive_count, default=100, help="how many at most (default: 100)")
    add("--newest-first", action="store_true", help="begin with the newest, rather than the oldest")
    add("--after", metavar="ID", help="only jobs after this one, the last of the page before")
    add_token_option(parser, help="for a server, the token")
    add_store_options(parser, json="print a JSON array of the jobs' records")


def run(options: argparse.Namespace) -> int:
    """List the jobs and return the exit code."""
    if options.url is None:
        return run_with_store(options, show_list)
    if not is_url(options.url):
        options.parser.error(f"argument URL: must be a server's, {SERVER_URL}; got {show_url(options.url)}")
    return run_for_jobs(options, options.url, show_list_of_server)


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
    _show(options, records)
    return 0


async def show_list_of_server(options: argparse.Namespace, client: JobClient) -> int:
    """Print a server's jobs that match.

    *Cancellation*: nothing has changed.
    """
    from jobtrio.websocket._requests import MOST_FOUND

    records: list[JobRecord] = []
    while len(records) < options.limit:
        page = await client.find(
            **filters_of(options),
            limit=min(options.limit - len(records), MOST_FOUND),
            after=records[-1].id if records else options.after,
            newest_first=options.newest_first,
        )
        if not page:
            break
        records += page
    _show(options, records)
    return 0


def _show(options: argparse.Namespace, records: Sequence[JobRecord]) -> None:
    if options.json:
        print_document([record_fields(record) for record in records])
        return
    unused = set()
    if all(record.priority is JobPriority.NORMAL for record in records):
        unused.add("PRIORITY")
    if not any(record.tags for record in records):
        unused.add("TAGS")
    columns = [column for column in zip(HEAD, *map(_row, records), strict=True) if column[0] not in unused]
    head, *rows = zip(*columns, strict=True)
    table = render_table(head, rows, right=("ATTEMPT", "TOOK"))
    print(table, end="", flush=True)
    if len(records) == options.limit:
        last = records[-1].id
        after = [f"--after={last}"] if last.startswith("-") else ["--after", last]
        complain(options, f"there may be more: {printable(shlex.join(after))}")


def _row(record: JobRecord) -> tuple[str, ...]:
    return (
        record.id,
        record.state,
        "-" if record.executor is None else record.executor,
        record.queue,
        record.priority.name.lower(),
        attempt_text(record),
        moment_text(record.created_at),
        took_text(record),
        one_line(tags_text(record), 60) or "-",
        note_text(record),
    )
