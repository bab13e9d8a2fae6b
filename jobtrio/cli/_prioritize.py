"""``jobtrio prioritize``: gives jobs that wait, or all of these that match, another priority."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from jobtrio._errors import JobtrioError, UnknownJobError
from jobtrio._state import FINAL_STATES, WAITING_STATES, JobState
from jobtrio.cli import _options
from jobtrio.cli._advance import Advance
from jobtrio.cli._bridge import job_of_store
from jobtrio.cli._endings import plural, printable
from jobtrio.cli._filters import add_filters, check_states, filters_of, is_filtered
from jobtrio.cli._json import print_document
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, run_with_store

if TYPE_CHECKING:
    from jobtrio._registry import JobRegistry
    from jobtrio.abc import JobStore

HELP = "give jobs that wait another priority"

DESCRIPTION = """\
Give jobs another priority: those that wait for a start, by their IDs, or all of
them that match and are there by now. One that is ready goes to the end of the
line of its new priority; one that has it already stays where it is. A job that
runs or has ended stays as it is.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio prioritize 4f0c… --priority high
  jobtrio prioritize 4f0c… 9d21… --priority low
  jobtrio prioritize --tag user=ann --priority high
  jobtrio prioritize --queue builds --state scheduled,queued --priority low
"""

WAITING = tuple(state for state in JobState if state in WAITING_STATES)

QUICK = 32
"""Jobs that are done so soon that nobody wonders. Each is awaited before the next, so that they keep their order."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "words", metavar="ID", nargs="*", help="the job's id; or several; or else the options say which jobs"
    )
    add_filters(parser, WAITING)
    parser.add_argument(
        "--priority",
        metavar="LEVEL",
        type=_options.priority,
        required=True,
        help="low, normal, high or critical",
    )
    add_store_options(
        parser,
        json="print one JSON object: prioritized, with ids, and refused, with the states of the others",
    )


def run(options: argparse.Namespace) -> int:
    """Give the jobs the priority and return the exit code."""
    for word in options.words:
        try:
            job_of_store(word)
        except argparse.ArgumentTypeError as exc:
            options.parser.error(f"argument ID: {exc}")
    is_filtered(options, is_named=bool(options.words))
    check_states(options, WAITING, "in which a job waits")
    return run_with_store(options, prioritize)


async def prioritize(options: argparse.Namespace, store: JobStore) -> int:
    """Give the jobs the priority in turn, and say what became of them; also where the store fails on the way.

    *Cancellation*: some may have been given it.
    """
    given: list[str] = []
    refused: dict[str, JobState | None] = {}
    try:
        async with open_client(store) as registry:
            ids = [*dict.fromkeys(options.words)] or await _matching(options, registry)
            is_shown = len(ids) > QUICK and not (options.words or options.json)
            with Advance("prioritizing", len(ids), is_shown=is_shown) as advance:
                for job_id in ids:
                    if await _prioritize(options, registry, job_id, refused):
                        given.append(job_id)
                    advance.step()
    except BaseException:
        if given or refused:
            _tell(options, given, refused)
        raise
    _tell(options, given, refused)
    return 1 if refused else 0


async def _matching(options: argparse.Namespace, registry: JobRegistry) -> list[str]:
    """Return the ids of all jobs that match, in the order of their submission, which they keep in their new line."""
    filters = {"state": WAITING, **filters_of(options)}
    # The newest first: what is submitted meanwhile is not found, however quickly it comes.
    found = [record.id async for record in registry.find_all(**filters, newest_first=True)]
    return found[::-1]


async def _prioritize(
    options: argparse.Namespace, registry: JobRegistry, job_id: str, refused: dict[str, JobState | None]
) -> bool:
    """Tell whether a job has the priority now; of one that was named, say so, or note its state and say why not."""
    try:
        if await registry.set_priority(job_id, options.priority):
            if options.words and not options.json:
                print(f"{printable(job_id)} has priority {options.priority.name.lower()}")
            return True
        state, why = await _state_of_refused(registry, job_id)
    except UnknownJobError as exc:
        state, why = None, str(exc)
    if options.words:  # of all that match, what has begun since it was found does not match any more
        refused[job_id] = state
        complain(options, why)
    return False


async def _state_of_refused(registry: JobRegistry, job_id: str) -> tuple[JobState | None, str]:
    """Return the state of a job that does not wait, None where that can't be had, and what to say of it."""
    state: JobState | None = None
    with suppress(JobtrioError):  # it is not changed, whatever it is
        state = (await registry.get(job_id)).state
    if state in FINAL_STATES:
        why = f"has ended already: {state.lower()}"
    else:
        why = "runs already" if state is JobState.RUNNING else "runs, or has ended"  # or did so then
    return state, f"job {job_id!r} {why}"


def _tell(options: argparse.Namespace, given: list[str], refused: dict[str, JobState | None]) -> None:
    """Print the document where that is asked for, or else how many of all that match have the priority now."""
    if options.json:
        print_document({"prioritized": given, "refused": refused})
    elif not options.words:
        have = f"{'has' if len(given) == 1 else 'have'} priority {options.priority.name.lower()}"
        print(f"{plural(len(given), 'job')} {have}" if given else "no job that waits matches")
