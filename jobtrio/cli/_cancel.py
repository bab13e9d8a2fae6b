"""``jobtrio cancel``: asks a job, or all that match, to end, whichever process runs them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from jobtrio._errors import JobtrioError, UnknownJobError
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.cli import _options
from jobtrio.cli._bridge import add_token_option, is_bridge, run_at_server
from jobtrio.cli._endings import plural
from jobtrio.cli._filters import add_filters, check_states, filters_of, is_filtered
from jobtrio.cli._json import print_document, record_fields
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, run_with_store

if TYPE_CHECKING:
    import argparse

    from jobtrio._records import JobRecord
    from jobtrio._registry import JobRegistry
    from jobtrio.abc import JobStore
    from jobtrio.websocket import JobClient

HELP = "ask a job, or all that match, to end"

DESCRIPTION = """\
Ask a job to end, or all unfinished ones that match and are there by now. One
that waits ends at once, one that runs when all of it is gone; `jobtrio watch
ID` shows when.
"""

EPILOG = f"""\
{_options.DURATIONS}
{EXIT_CODES}
examples:
  jobtrio cancel 4f0c…
  jobtrio cancel 4f0c… --reason 'wrong file' --grace 10
  jobtrio cancel ws://127.0.0.1:8765/jobs/4f0c…
  jobtrio cancel --tag user=ann
  jobtrio cancel --queue builds --state scheduled,queued
"""

LIVING = tuple(state for state in JobState if state not in FINAL_STATES)

AT_ONCE = 32
"""Jobs that are asked at once: a store writes the requests of one moment together."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "id",
        metavar="ID|URL",
        nargs="?",
        help="the job's id, or its URL at a server; or else the options say which jobs",
    )
    add_filters(parser, LIVING)
    parser.add_argument("--reason", metavar="TEXT", type=_options.reason, help="why; everyone who watches it is told")
    parser.add_argument(
        "--grace",
        metavar="DURATION",
        type=_options.duration,
        default=0.0,
        help="how long it has to end by itself (default: 0)",
    )
    add_token_option(parser, help="for a server, the token")
    add_store_options(
        parser, json="print one JSON object: cancelled, and the job's record; or cancelled, with the ids of all"
    )


def run(options: argparse.Namespace) -> int:
    """Cancel the job, or the jobs, and return the exit code."""
    asks_all = is_filtered(options, is_named=options.id is not None, named="a job's ID")
    check_states(options, LIVING, "in which a job lives")
    if options.id is not None and is_bridge(options.id):
        return run_at_server(options, cancel_at_server)
    return run_with_store(options, cancel_all if asks_all else cancel)


async def cancel(options: argparse.Namespace, store: JobStore) -> int:
    """Ask the job to end, and say whether it will.

    *Cancellation*: the request may have been made.
    """
    async with open_client(store) as registry:
        accepted, record = await _ask(options, registry)
    return _answer(options, accepted, record)


async def cancel_at_server(options: argparse.Namespace, client: JobClient) -> int:
    """Ask a server's job to end, and say whether it will.

    *Cancellation*: the request may have been made.
    """
    return _answer(options, *await _ask(options, client))


async def _ask(options: argparse.Namespace, where: JobRegistry | JobClient) -> tuple[bool, JobRecord | None]:
    """Ask the job to end; return whether it will, and its record, or None where that can't be had."""
    accepted = await where.cancel(options.id, options.reason, grace=options.grace)
    record: JobRecord | None = None
    # The look may be forbidden, the job gone, or the store away: the request was made all the same.
    with suppress(JobtrioError):
        record = (await where.get(options.id)).record
    return accepted, record


def _answer(options: argparse.Namespace, accepted: bool, record: JobRecord | None) -> int:
    """Tell what became of the request, with the job's record where it can be had, and return the exit code."""
    if options.json:
        print_document({"cancelled": accepted, "job": None if record is None else record_fields(record)})
    elif accepted:
        print("cancelled" if record is not None and record.finished_at is not None else "asked to stop")
    if not accepted:
        how = "" if record is None else f": {record.state.lower()}"
        complain(options, f"job {options.id!r} has ended already{how}")
    return 0 if accepted else 1


async def cancel_all(options: argparse.Namespace, store: JobStore) -> int:
    """Ask all jobs that match to end, and say how many will; also where the store fails before all are asked.

    *Cancellation*: some may have been asked.
    """
    asked: list[str] = []
    try:
        async with open_client(store) as registry:
            await _ask_all(options, registry, asked)
    except BaseException:
        if asked:
            _tell(options, asked)
        raise
    _tell(options, asked)
    return 0


def _tell(options: argparse.Namespace, asked: list[str]) -> None:
    if options.json:
        print_document({"cancelled": asked})
    else:
        print(f"asked {plural(len(asked), 'job')} to end" if asked else "no job that lives matches")


async def _ask_all(options: argparse.Namespace, registry: JobRegistry, asked: list[str]) -> None:
    """Ask all that match, and note which of them will end so."""
    places = trio.Semaphore(AT_ONCE)
    failures: list[JobtrioError] = []

    async def ask(job_id: str) -> None:
        try:
            if await registry.cancel(job_id, options.reason, grace=options.grace):
                asked.append(job_id)
        except UnknownJobError:  # it has ended meanwhile, and is no longer kept
            pass
        except JobtrioError as exc:
            failures.append(exc)
        finally:
            places.release()

    filters = {"state": LIVING, **filters_of(options)}
    async with trio.open_nursery() as nursery:
        try:
            # The newest first: what is submitted meanwhile is not found, however quickly it comes.
            async for record in registry.find_all(**filters, newest_first=True):
                await places.acquire()
                if failures:
                    break  # those that are being asked get their answers
                nursery.start_soon(ask, record.id)
        except JobtrioError as exc:
            failures.append(exc)
    if failures:
        raise failures[0]
