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
    report = _Report(options)
    try:
        async with open_client(store) as registry:
            ids = [*dict.fromkeys(options.words)] or await _matching(options, registry)
            is_shown = len(ids) > QUICK and not (options.words or options.json)
            with Advance("prioritizing", len(ids), is_shown=is_shown) as advance:
                for job_id in ids:
                    await _prioritize(options, registry, job_id, report)
                    advance.step()
    except BaseException:
        if report.has_begun:
            report.tell()
        raise
    report.tell()
    return 1 if report.refused else 0


async def _matching(options: argparse.Namespace, registry: JobRegistry) -> list[str]:
    """Return the ids of all jobs that match, in the order of their submission, which they keep in their new line."""
    filters = {"state": WAITING, **filters_of(options)}
    # The newest first: what is submitted meanwhile is not found, however quickly it comes.
    found = [record.id async for record in registry.find_all(**filters, newest_first=True)]
    return found[::-1]


async def _prioritize(options: argparse.Namespace, registry: JobRegistry, job_id: str, report: _Report) -> None:
    try:
        if await registry.set_priority(job_id, options.priority):
            report.is_set(job_id)
            return
    except UnknownJobError as exc:
        report.is_refused(job_id, None, str(exc))
        return
    state: JobState | None = None
    with suppress(JobtrioError):  # it is not changed, whatever it is
        state = (await registry.get(job_id)).state
    if state in FINAL_STATES:
        why = f"has ended already: {state.lower()}"
    else:
        why = "runs already" if state is JobState.RUNNING else "runs, or has ended"  # or did so then
    report.is_refused(job_id, state, f"job {job_id!r} {why}")


class _Report:
    """What is told of the jobs.

    Attributes:
        refused: The states of those that were not given the priority, by their ids; None for unknown ones. Of all
            that match there are none: what has begun since it was found does not match any more.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.refused: dict[str, JobState | None] = {}
        self._options = options
        self._set: list[str] = []

    @property
    def has_begun(self) -> bool:
        """Whether there is something to tell."""
        return bool(self._set or self.refused)

    def is_set(self, job_id: str) -> None:
        """Note that a job has the priority, and say so where it was named."""
        self._set.append(job_id)
        if self._options.words and not self._options.json:
            print(f"{printable(job_id)} has {self._priority()}")

    def is_refused(self, job_id: str, state: JobState | None, why: str) -> None:
        """Note and say that a job that was named has not."""
        if self._options.words:
            self.refused[job_id] = state
            complain(self._options, why)

    def tell(self) -> None:
        """Print the document where that is asked for, or else how many of all that match have the priority now."""
        if self._options.json:
            print_document({"prioritized": self._set, "refused": self.refused})
        elif not self._options.words:
            have = "has" if len(self._set) == 1 else "have"
            jobs = f"{plural(len(self._set), 'job')} {have} {self._priority()}"
            print(jobs if self._set else "no job that waits matches")

    def _priority(self) -> str:
        return f"priority {self._options.priority.name.lower()}"
