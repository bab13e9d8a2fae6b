"""``jobtrio submit``: puts a job into a store, for the workers that have its executor."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import jobtrio
from jobtrio._errors import JobtrioError
from jobtrio.cli import _options
from jobtrio.cli._executors import load_executors, stand_in
from jobtrio.cli._output import STDERR, STDOUT, Output, to_json
from jobtrio.cli._records import record_fields
from jobtrio.cli._store import add_store_options, complain, open_client, print_document, run_with_store
from jobtrio.cli._watcher import EXIT_CODES, Watcher, add_watch_options

if TYPE_CHECKING:
    from jobtrio.abc import JobStore

DESCRIPTION = """\
Put a job into a store, for a worker that has the executor, and print the job's
id. What is not given here is what the executor is registered with, if --executors
tells where that is; else the queue is "default", with one attempt and no limit.
"""

EPILOG = f"""\
{EXIT_CODES}
examples:
  jobtrio submit generate --payload '{{"text": "to be or not"}}' --watch
  jobtrio submit import --payload @order.json --key order-17 --retry 3
  jobtrio submit generate --executors app.jobs:executors --tag user=ann
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``submit`` to the command's parser."""
    parser = commands.add_parser(
        "submit",
        help="put a job into a store",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("executor", metavar="EXECUTOR", type=_options.name, help="the name of the executor")
    add(
        "--payload",
        metavar="JSON",
        type=_options.json_value,
        help="what the executor is given: JSON, or @FILE, or @- for the standard input (default: null)",
    )
    add(
        "--executors",
        metavar="MODULE:EXECUTORS",
        help="where the executor is registered, for what it is registered with",
    )
    add("--id", metavar="ID", type=_options.name, help="the job's id (default: one is made)")
    add("--key", metavar="KEY", type=_options.name, help="stands for the job: while it is kept, none is added under it")
    _add_limits(parser)
    add(
        "--tag",
        metavar="NAME=VALUE",
        type=_options.tag,
        action="append",
        default=[],
        help="a tag to find the job by; may be given several times",
    )
    add("--watch", action="store_true", help="watch the job to its end, as `jobtrio watch` does")
    add_watch_options(parser)
    add_store_options(parser, json="print the job's record as one JSON object; with --watch, one line a message")
    parser.set_defaults(run=run, parser=parser)


def _add_limits(parser: argparse.ArgumentParser) -> None:
    """Add when and how often it may run."""
    add = parser.add_argument
    add("--queue", metavar="NAME", type=_options.name, help="the queue to wait in")
    add(
        "--priority",
        metavar="LEVEL",
        type=_options.priority,
        default=jobtrio.JobPriority.NORMAL,
        help="low, normal, high or critical (default: normal)",
    )
    add("--time-limit", metavar="S", type=_options.positive_seconds, help="seconds that each attempt may take")
    add(
        "--retry",
        metavar="N",
        type=_options.count,
        help="how many more times it is tried, after about 1, 2, 4 … seconds",
    )
    add("--delay", metavar="S", type=_options.seconds, help="seconds until it may start")
    add("--expires-in", metavar="S", type=_options.positive_seconds, help="seconds within which it has to start")


def run(options: argparse.Namespace) -> int:
    """Submit the job, watch it where that is asked for, and return the exit code."""
    options.known = (
        stand_in(options.executor) if options.executors is None else load_executors(options, options.executors)
    )
    return run_with_store(options, submit, make=True)


async def submit(options: argparse.Namespace, store: JobStore) -> int:
    """Submit the job, and watch it where that is asked for.

    *Cancellation*: the job may have been accepted, and goes on.
    """
    async with open_client(store, options.known) as registry:
        try:
            job = await registry.submit(options.executor, options.payload, **_arguments(options))
        except (TypeError, ValueError) as exc:
            if isinstance(exc, JobtrioError):
                raise
            complain(options, str(exc))
            return 2
        if options.watch:
            return await _watch(options, registry, job)
    if options.json:
        print_document(record_fields(job.record))
    else:
        print(job.id)
    return 0


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    given = {
        "job_id": options.id,
        "key": options.key,
        "queue": options.queue,
        "priority": options.priority,
        "time_limit": options.time_limit,
        "retry": None if options.retry is None else jobtrio.RetryPolicy(max_attempts=options.retry + 1),
        "delay": options.delay,
        "expires_in": options.expires_in,
        "tags": dict(options.tag),
    }
    return {name: value for name, value in given.items() if value is not None}


async def _watch(options: argparse.Namespace, registry: jobtrio.JobRegistry, job: jobtrio.Job) -> int:
    said = (STDERR, f"jobtrio: submitted {job.id}\n")
    if options.json:
        said = (STDOUT, to_json({"type": "submitted", "job": job.id}))
    await Output().write([said])
    return await Watcher(registry, job, as_json=options.json, as_text=options.text).watch()
