"""``jobtrio stats``: counts a store's jobs, and names its paused queues, its workers, and what these run."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from jobtrio._state import JobState
from jobtrio.cli._filters import add_tag_option
from jobtrio.cli._json import print_document, record_fields, time_field
from jobtrio.cli._records import moment_text
from jobtrio.cli._store import EXIT_CODES, add_store_options, open_client, run_with_store
from jobtrio.cli._table import render_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from jobtrio._records import WorkerReport
    from jobtrio.abc import JobStore

HELP = "count the jobs of a store"

DESCRIPTION = """\
Count a store's jobs by state and queue, and name the queues that are paused and
the workers that are present. With --tag, only jobs that have the tag are
counted.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio stats --store sqlite:///jobs.db
  jobtrio stats --tag batch=2026-12
  jobtrio stats --tag user=ann --json | jq .states
"""

QUEUES_SHOWN = 8
"""Queues that have a column of their own, at most."""

RUNNING_SHOWN = 10_000
"""Running jobs that are looked at to tell who runs them."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_tag_option(parser, help="count only jobs with this tag")
    add_store_options(parser, json="print one JSON object: states, queues, paused, workers, running")


async def stats(options: argparse.Namespace, store: JobStore) -> int:
    """Print the counts.

    *Cancellation*: nothing has changed.
    """
    async with open_client(store) as registry:
        tags = dict(options.tag)
        queues = await registry.counts(tags=tags)
        paused = await registry.paused()
        workers = await registry.workers()
        records = await registry.find(state=JobState.RUNNING, tags=tags, limit=RUNNING_SHOWN)
    states = {state: sum(counts[state] for counts in queues.values()) for state in JobState}
    running = Counter((record.worker or "-", record.queue) for record in records)
    if options.json:
        rows = [{"worker": worker, "queue": queue, "jobs": n} for (worker, queue), n in sorted(running.items())]
        ends = {queue: until and time_field(until) for queue, until in paused.items()}
        document = {"states": states, "queues": queues, "paused": ends}
        print_document({**document, "workers": list(map(record_fields, workers)), "running": rows})
    else:
        print(_by_queue(queues, states) + _paused(paused) + _workers(workers) + _running(running), end="")
    return 0


def _by_queue(queues: Mapping[str, Mapping[JobState, int]], states: Mapping[JobState, int]) -> str:
    """Return the counts, a line for each state and a column for each queue, or for all together where they are many."""
    shown = sorted(queues) if 1 < len(queues) <= QUEUES_SHOWN else []
    rows = [(state, *(str(queues[queue][state]) for queue in shown), str(n)) for state, n in states.items()]
    return render_table(("STATE", *shown, "JOBS"), rows, right=(*shown, "JOBS"))


def _paused(queues: Mapping[str, datetime | None]) -> str:
    if not queues:
        return ""
    if not any(queues.values()):
        return "\n" + render_table(("PAUSED",), [(queue,) for queue in queues])
    return "\n" + render_table(("PAUSED", "UNTIL"), [(queue, moment_text(until)) for queue, until in queues.items()])


def _workers(workers: Sequence[WorkerReport]) -> str:
    if not workers:
        return "\nno worker is there\n"
    rows = [(who.name, moment_text(who.started_at), moment_text(who.seen_at), str(who.running)) for who in workers]
    return "\n" + render_table(("WORKER", "SINCE", "SEEN", "RUNNING"), rows, right=("RUNNING",))


def _running(running: Mapping[tuple[str, str], int]) -> str:
    if not running:
        return ""
    rows = [(worker, queue, str(n)) for (worker, queue), n in sorted(running.items())]
    return "\n" + render_table(("WORKER", "QUEUE", "RUNNING"), rows, right=("RUNNING",))


run = partial(run_with_store, work=stats)
