"""``jobtrio watch``: shows a job's messages live, whichever process or machine runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio._errors import UnknownJobError
from jobtrio.cli import _options
from jobtrio.cli._bridge import JOB_URL, add_token_option, hint_of, is_bridge, is_url, run_at_server
from jobtrio.cli._sources import StoreSource, open_bridge_source
from jobtrio.cli._store import add_store_options, complain, open_client, run_with_store, url_of
from jobtrio.cli._watcher import EXIT_CODES, Watcher, add_watch_options

if TYPE_CHECKING:
    import argparse

    from jobtrio.abc import JobStore
    from jobtrio.cli._sources import Source
    from jobtrio.websocket import JobClient

HELP = "show a job's messages live, whichever process runs it"

DESCRIPTION = """\
Show a job's messages from the first that is kept, and then as they come, until
the job ends. Tokens go to stdout, one a line; those of a program's stderr, all
else, and a summary go to stderr. On a terminal, progress is a bar where rich is
installed (the extra "cli"). Ctrl-C ends the watching, not the job.

With a URL the job is watched at a server (`jobtrio serve`); where the connection
is lost, it goes on with the next one.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio watch 4f0c…
  jobtrio watch --text 4f0c… >answer.txt
  jobtrio watch --json --after 120 4f0c…
  jobtrio watch ws://127.0.0.1:8765/jobs/4f0c…
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("id", metavar="ID|URL", help="the job's id, or its URL at a server: ws://HOST:PORT/jobs/ID")
    parser.add_argument(
        "--after",
        metavar="N",
        type=_options.count,
        default=0,
        help="show what comes behind message number N (default: 0)",
    )
    add_watch_options(parser)
    add_token_option(parser, help="for a server, the token")
    add_store_options(parser, json="show each message as a line of JSON on stdout")


def run(options: argparse.Namespace) -> int:
    """Watch the job and return the exit code."""
    if is_bridge(options.id) or (is_url(options.id) and not url_of(options)):
        return run_at_server(options, watch_at_server)
    return run_with_store(options, watch, lasts=True)


async def watch(options: argparse.Namespace, store: JobStore) -> int:
    """Show the job's messages to its end.

    *Cancellation*: the job goes on.
    """
    async with open_client(store) as registry:
        try:
            job = await registry.get(options.id)
        except UnknownJobError as exc:
            if not is_url(options.id):
                raise
            complain(options, f"{exc}; at a server a job's URL is {JOB_URL}")
            return 1
        return await _watcher(options, StoreSource(registry, store, job, options.store)).watch()


async def watch_at_server(options: argparse.Namespace, client: JobClient) -> int:
    """Show the messages of a server's job to its end.

    *Cancellation*: the job goes on.
    """
    from jobtrio.websocket import RemoteJob

    job = RemoteJob(options.id, client)
    return await _watcher(options, await open_bridge_source(job, hint_of(options, job.id))).watch()


def _watcher(options: argparse.Namespace, source: Source) -> Watcher:
    return Watcher(source, after=options.after, as_json=options.json, as_text=options.text)
