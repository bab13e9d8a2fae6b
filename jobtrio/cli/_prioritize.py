"""``jobtrio prioritize``: gives jobs that wait another priority."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING

from jobtrio._errors import JobtrioError, UnknownJobError
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.cli import _options
from jobtrio.cli._bridge import job_of_store
from jobtrio.cli._endings import printable
from jobtrio.cli._json import print_document
from jobtrio.cli._store import EXIT_CODES, add_store_options, complain, open_client, run_with_store

if TYPE_CHECKING:
    from jobtrio._registry import JobRegistry
    from jobtrio.abc import JobStore

HELP = "give jobs that wait another priority"

DESCRIPTION = """\
Give jobs another priority: those that wait for a start. One that is ready goes
to the end of the line of its new priority; one that has it already stays where
it is. A job that runs or has ended stays as it is.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio prioritize 4f0c… --priority high
  jobtrio prioritize 4f0c… 9d21… --priority low
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("words", metavar="ID", nargs="+", help="the job's id; or several")
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
    return run_with_store(options, prioritize)


async def prioritize(options: argparse.Namespace, store: JobStore) -> int:
    """Give the jobs the priority in turn, and say of each what became of it; also where the store fails on the way.

    *Cancellation*: some may have been given it.
    """
    report = _Report(options)
    try:
        async with open_client(store) as registry:
            for job_id in dict.fromkeys(options.words):
                await _prioritize(options, registry, job_id, report)
    finally:
        report.tell()
    return 1 if report.refused else 0


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
        refused: The states of those that were not given the priority, by their ids; None for unknown ones.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.refused: dict[str, JobState | None] = {}
        self._options = options
        self._set: list[str] = []

    def is_set(self, job_id: str) -> None:
        """Say that a job has the priority."""
        self._set.append(job_id)
        if not self._options.json:
            print(f"{printable(job_id)} has priority {self._options.priority.name.lower()}")

    def is_refused(self, job_id: str, state: JobState | None, why: str) -> None:
        """Say that a job has not."""
        self.refused[job_id] = state
        complain(self._options, why)

    def tell(self) -> None:
        """Print the document, where that is asked for and there is something to tell."""
        if self._options.json and (self._set or self.refused):
            print_document({"prioritized": self._set, "refused": self.refused})
