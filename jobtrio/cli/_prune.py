"""``jobtrio prune``: removes ended jobs from a store.

It opens the store without a registry: nothing else is to happen to it meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio._ids import worker_name
from jobtrio._outage import try_for
from jobtrio._policies import Retention
from jobtrio._state import FINAL_STATES
from jobtrio._token_log import TokenLog
from jobtrio.abc import StoreSettings
from jobtrio.cli import _options
from jobtrio.cli._endings import plural
from jobtrio.cli._json import print_document
from jobtrio.cli._store import EXIT_CODES, add_store_options, run_with_store

if TYPE_CHECKING:
    import argparse

    from jobtrio._entry import JobEntry
    from jobtrio.abc import JobStore

HELP = "remove ended jobs from a store"

DESCRIPTION = """\
Remove ended jobs, with their history and their messages: those that ended
longer ago than --keep-for, and of the others all but the newest --keep.
Unfinished jobs stay.
"""

EPILOG = f"""\
{_options.DURATIONS}
{EXIT_CODES}
examples:
  jobtrio prune --keep-for 7d
  jobtrio prune --keep 1000
"""

KEEP = 2**31


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "--keep-for",
        metavar="DURATION",
        type=_options.age,
        help="keep what ended within this time; inf for all",
    )
    parser.add_argument("--keep", metavar="N", type=_options.count, help="keep at most this many")
    add_store_options(parser, json="print one JSON object: removed, kept")


def run(options: argparse.Namespace) -> int:
    """Remove the jobs and return the exit code."""
    if options.keep_for is None and options.keep is None:
        options.parser.error("say what to keep: --keep-for DURATION, --keep N, or both")
    return run_with_store(options, prune)


async def prune(options: argparse.Namespace, store: JobStore) -> int:
    """Remove what is not to be kept, in slices.

    *Cancellation*: some may have been removed.
    """
    retention = Retention(
        finished_jobs=KEEP if options.keep is None else options.keep,
        finished_for=float("inf") if options.keep_for is None else options.keep_for,
    )
    settings = StoreSettings(worker_name(), retention, KEEP, Nobody(), lambda: TokenLog(1))
    async with store.open(settings):
        before = await _ended(store)
        while await try_for(store.outage_limit, store.prune) <= 0:
            pass
        kept = await _ended(store)
    removed = max(before - kept, 0)
    if options.json:
        print_document({"removed": removed, "kept": kept})
    else:
        print(f"removed {plural(removed, 'job')}, kept {kept}")
    return 0


async def _ended(store: JobStore) -> int:
    counts = await try_for(store.outage_limit, store.counts)
    return sum(of_queue[state] for of_queue in counts.values() for state in FINAL_STATES)


class Nobody:
    """A listener that wants to know nothing."""

    def changed(self, entry: JobEntry) -> None:
        """Heed no change."""

    def work_ready(self) -> None:
        """Start nothing."""

    def due_changed(self) -> None:
        """Await nothing."""

    def messages_added(self, job_id: str | None) -> None:
        """Read nothing."""

    def cancel_requested(self, job_id: str | None) -> None:
        """Cancel nothing."""
