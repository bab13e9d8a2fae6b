"""``jobtrio watch``: shows the messages of a job, or of several, live, whichever process or machine runs them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from jobtrio._errors import JobtrioError, UnknownJobError
from jobtrio._state import JobState
from jobtrio.cli import _options
from jobtrio.cli._bridge import (
    JOB_URL,
    add_jobs,
    add_token_option,
    hint_of,
    is_bridge,
    is_url,
    read_jobs,
    run_at_server,
    run_for_jobs,
)
from jobtrio.cli._filters import filters_of
from jobtrio.cli._joint_watcher import JointWatcher
from jobtrio.cli._sources import StoreSource, open_bridge_source
from jobtrio.cli._store import add_store_options, complain, open_client, run_with_store, url_of
from jobtrio.cli._watcher import EXIT_CODES, Watcher, add_watch_options

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator

    from jobtrio._records import JobRecord
    from jobtrio.abc import JobStore
    from jobtrio.cli._sources import Source
    from jobtrio.websocket import JobClient

HELP = "show the messages of jobs live, whichever process runs them"

DESCRIPTION = """\
Show a job's messages from the first that is kept, and then as they come, until
the job ends. Tokens go to stdout, one a line; those of a program's stderr, all
else, and a summary go to stderr. On a terminal, progress is a bar if rich is
installed (the extra "cli"). Ctrl-C ends the watching, not the job.

With a URL the job is watched at a server (`jobtrio serve`); if the connection
is lost, watching goes on over the next one.

Several jobs are given by their IDs, by their URLs at one server, or by what
they have in common: all that match when it begins. Each line then begins as
its job's id does; with --json it has the whole id. It goes on until all have
ended. The exit code is 0 if all completed, else that of the first that did
not, in the order in which they were given, or submitted.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio watch 4f0c…
  jobtrio watch --text 4f0c… >answer.txt
  jobtrio watch --json --after 120 4f0c…
  jobtrio watch ws://127.0.0.1:8765/jobs/4f0c…
  jobtrio watch 4f0c… 9d21…
  jobtrio watch --tag user=ann --state queued,running
  jobtrio watch --tag user=ann ws://127.0.0.1:8765/ws
"""

MOST = 1000
"""Jobs that are watched together, at most."""

SHARE = 16
"""Of those, jobs that one connection to a server is used for: it takes 50 messages a second, and 3 a job are sent."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_jobs(parser, JobState)
    parser.add_argument(
        "--after",
        metavar="N",
        type=_options.count,
        default=0,
        help="of one job, show what comes after message number N (default: 0)",
    )
    add_watch_options(parser)
    add_token_option(parser, help="for a server, the token")
    add_store_options(parser, json="show each message as a line of JSON on stdout")


def run(options: argparse.Namespace) -> int:
    """Watch the job, or the jobs, and return the exit code."""
    url, words = read_jobs(options), options.words
    if len(words) == 1:
        (options.id,) = words
        if is_bridge(options.id) or (is_url(options.id) and not url_of(options)):
            return run_at_server(options, watch_at_server)
        return run_with_store(options, watch, lasts=True)
    if options.after or options.text:
        options.parser.error("--after and --text are for one job")
    if len(words) > MOST:
        options.parser.error(f"at most {MOST} jobs are watched together; got {len(words)}")
    if url is not None or any(map(is_bridge, words)):
        return run_for_jobs(options, url, watch_several_at_server)
    return run_with_store(options, watch_several, lasts=True)


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


async def watch_several(options: argparse.Namespace, store: JobStore) -> int:
    """Show the messages of several jobs to their ends.

    *Cancellation*: the jobs go on.
    """
    async with open_client(store) as registry:
        ids = options.words or await _ids(registry.find_all(**filters_of(options)))
        sources: dict[str, Source | None] = {}
        for job_id in ids:
            try:
                sources[job_id] = StoreSource(registry, store, await registry.get(job_id), options.store)
            except UnknownJobError:
                if options.words:  # else it was removed since it was found
                    sources[job_id] = None
        return await JointWatcher(sources, as_json=options.json).watch()


async def watch_several_at_server(options: argparse.Namespace, client: JobClient) -> int:
    """Show the messages of several jobs of a server to their ends.

    *Cancellation*: the jobs go on.
    """
    from jobtrio.websocket import RemoteJob

    ids = options.words or await _ids(client.find_all(**filters_of(options)))
    sources: dict[str, Source | None] = {}
    async with AsyncExitStack() as clients:
        for number, job_id in enumerate(ids):
            if number > 0 and number % SHARE == 0:
                client = await clients.enter_async_context(options.open_client())
            sources[job_id] = await open_bridge_source(RemoteJob(job_id, client))
        return await JointWatcher(sources, as_json=options.json).watch()


async def _ids(found: AsyncIterator[JobRecord]) -> list[str]:
    """Return the ids of the jobs that were found."""
    ids: list[str] = []
    async for record in found:
        if len(ids) == MOST:
            raise JobtrioError(f"more than {MOST} jobs match: say more of those to watch, as by --state running")
        ids.append(record.id)
    if not ids:
        raise JobtrioError("no job matches")
    return ids


def _watcher(options: argparse.Namespace, source: Source) -> Watcher:
    return Watcher(source, after=options.after, as_json=options.json, as_text=options.text)
