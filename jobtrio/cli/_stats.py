"""``jobtrio stats``: how many jobs a store has in each state, and who runs how many."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING

from jobtrio._state import JobState
from jobtrio.cli._store import EXIT_CODES, add_store_options, open_client, print_document, run_with_store
from jobtrio.cli._table import render_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobtrio.abc import JobStore

RUNNING_SHOWN = 10_000
"""Running jobs that are looked at to tell who runs them."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``stats`` to the command's parser."""
    parser = commands.add_parser(
        "stats",
        help="count the jobs of a store",
        description="Count the jobs of a store by their states, and those that run by worker and queue.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_store_options(parser, json="print one JSON object: states, running")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Count the jobs and return the exit code."""
    return run_with_store(options, stats)


async def stats(options: argparse.Namespace, store: JobStore) -> int:
    """Print the counts.

    *Cancellation*: nothing has changed.
    """
    async with open_client(store) as registry:
        counts = await store.counts()
        records = await registry.find(state=JobState.RUNNING, limit=RUNNING_SHOWN)
    states = {state: counts.get(state, 0) for state in JobState}
    running = Counter((record.worker or "-", record.queue) for record in records)
    if options.json:
        rows = [{"worker": worker, "queue": queue, "jobs": n} for (worker, queue), n in sorted(running.items())]
        print_document({"states": states, "running": rows})
    else:
        sys.stdout.write(_text(states, running))
    return 0


def _text(states: Mapping[JobState, int], running: Mapping[tuple[str, str], int]) -> str:
    text = render_table(("STATE", "JOBS"), [(state, str(n)) for state, n in states.items()], right=("JOBS",))
    if running:
        rows = [(worker, queue, str(n)) for (worker, queue), n in sorted(running.items())]
        text += "\n" + render_table(("WORKER", "QUEUE", "RUNNING"), rows, right=("RUNNING",))
    return text
