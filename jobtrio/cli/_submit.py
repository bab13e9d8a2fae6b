"""``jobtrio submit``: puts a job into a store, for the workers that have its executor, or submits it to a server."""

from __future__ import annotations

import argparse
import shlex
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jobtrio
from jobtrio._errors import JobtrioError
from jobtrio.cli import _options
from jobtrio.cli._bridge import add_token_option, hint_of, is_url, refuse_for_server, run_with_client
from jobtrio.cli._endings import one_line, printable
from jobtrio.cli._executors import load_executors, stand_in
from jobtrio.cli._filters import add_tag_option
from jobtrio.cli._json import print_document, record_fields, submitted_line
from jobtrio.cli._output import STDERR, Output
from jobtrio.cli._sources import StoreSource, open_bridge_source
from jobtrio.cli._store import add_store_options, check_spec, complain, open_client, run_with_store
from jobtrio.cli._watcher import EXIT_CODES, Watcher, add_watch_options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jobtrio.abc import JobStore
    from jobtrio.cli._sources import Source
    from jobtrio.websocket import JobClient

HELP = "submit a job to a store or a server"

USAGE = "%(prog)s [options] [URL] EXECUTOR [JSON]"

DESCRIPTION = """\
Submit a job to a store, for a worker that has the executor, and print the
job's id. What is not given here is what the executor is registered with, if
--executors says where that is; else the queue is "default", with one attempt
and no limit.

With a URL before the executor the job is submitted to a server (`jobtrio
serve`), which knows what its executors are registered with.
"""

EPILOG = f"""\
{_options.DURATIONS}
{EXIT_CODES}
examples:
  jobtrio submit generate --payload '{{"text": "to be or not"}}' --watch
  jobtrio submit import --payload @order.json --key order-17 --retry 3
  jobtrio submit generate --executors app.jobs:executors --tag user=ann
  jobtrio submit report --at 18:30
  jobtrio submit ws://127.0.0.1:8765/ws generate '{{"text": "to be"}}' --watch
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add = parser.add_argument
    add(
        "words",
        nargs="+",
        metavar="EXECUTOR",
        help="the name of the executor; before it a server's URL, ws://HOST:PORT/ws, if it is to run there; "
        "after it what it is given, as for --payload",
    )
    add(
        "--payload",
        metavar="JSON",
        type=_options.json_value,
        help="what the executor is given: JSON, or @FILE, or @- for the standard input (default: null)",
    )
    add(
        "--executors",
        metavar="MODULE:EXECUTORS",
        help="where the executor is registered, for its registered options",
    )
    add("--id", metavar="ID", type=_options.name, help="the job's id (default: one is generated)")
    add(
        "--key",
        metavar="KEY",
        type=_options.name,
        help="an idempotency key: while the job is kept, the same key returns it",
    )
    _add_limits(parser)
    add_tag_option(parser, help="a tag to find the job by")
    add_token_option(parser, help="for a server, the token")
    add("--watch", action="store_true", help="watch the job to its end, as `jobtrio watch` does")
    add_watch_options(parser)
    add_store_options(parser, json="print the job's record as one JSON object; with --watch, one line a message")


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
    add("--time-limit", metavar="DURATION", type=_options.positive_duration, help="how long each attempt may take")
    add(
        "--retry",
        metavar="N",
        type=_options.count,
        help="how many more times it is tried, after about 1, 2, 4 … seconds",
    )
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--delay", metavar="DURATION", type=_options.duration, help="how long it has to wait before it may start"
    )
    start.add_argument(
        "--at",
        metavar="TIME",
        dest="delay",
        type=_options.time_to_come,
        help="when it may start: 18:30 for the next one, or 2030-01-31T18:30; in this machine's time zone, or with "
        "another's offset behind it, Z or +01:00",
    )
    add(
        "--expires-in",
        metavar="DURATION",
        type=_options.positive_duration,
        help="the time within which it has to start",
    )


def run(options: argparse.Namespace) -> int:
    """Submit the job, watch it where that is asked for, and return the exit code."""
    url = _read_words(options)
    if url is not None:
        return run_with_client(options, url, submit_to_server)
    options.known = stand_in(options.executor) if options.executors is None else load_executors(options)
    return run_with_store(options, submit, make=True, lasts=options.watch)


def _read_words(options: argparse.Namespace) -> str | None:
    """Take executor and payload from the words, and return the server's URL if that is the first; end with 2 else."""
    words = list(options.words)
    url = words.pop(0) if is_url(words[0]) else None
    if not 1 <= len(words) <= 2:
        must = "must be [URL] EXECUTOR [JSON], with quotes around the JSON"
        options.parser.error(f"what is given {must}; got {shlex.join(options.words)}")
    if len(words) == 2 and options.payload is not None:
        options.parser.error("the payload was given twice")
    options.executor = _value(options, "EXECUTOR", _options.name, words[0])
    if len(words) == 2:
        options.payload = _value(options, "JSON", _options.json_value, words[1])
    if url is not None:
        values = {"--id": options.id, "--executors": options.executors, "--store": options.store}
        refuse_for_server(options, values, ", which decides that itself")
    return url


def _value(options: argparse.Namespace, name: str, read: Callable[[str], Any], word: str) -> Any:
    try:
        return read(word)
    except argparse.ArgumentTypeError as exc:
        options.parser.error(f"argument {name}: {exc}")


async def submit(options: argparse.Namespace, store: JobStore) -> int:
    """Submit the job, and watch it where that is asked for.

    *Cancellation*: the job may have been accepted, and goes on.
    """
    spec = jobtrio.JobSpec(options.executor, options.payload, **_arguments(options))
    try:
        check_spec(spec, options.known)  # before a store is made for nothing
    except (TypeError, ValueError) as exc:
        if isinstance(exc, JobtrioError):
            raise
        complain(options, str(exc))
        return 2
    async with open_client(store, options.known) as registry:
        (job,) = await registry.submit_many([spec])
        if options.watch:
            await _tell(options, job.id)
            return await _watch(options, StoreSource(registry, store, job, options.store))
    with _named(job.id):
        if options.json:
            print_document(record_fields(job.record))
        else:
            print(printable(job.id))
    return 0


async def submit_to_server(options: argparse.Namespace, client: JobClient) -> int:
    """Submit the job to a server, and watch it where that is asked for.

    *Cancellation*: the job may have been accepted, and goes on.
    """
    job = await client.submit(options.executor, options.payload, **_arguments(options))
    if options.watch:
        await _tell(options, job.id)
        return await _watch(options, await open_bridge_source(job, hint_of(options, job.id)))
    if not options.json:
        with _named(job.id):
            print(printable(job.id))
        return 0
    try:
        record = await job.refresh()
    except JobtrioError as exc:
        complain(options, f"submitted {printable(job.id)}, whose record can't be had: {one_line(str(exc))}")
        return 1
    with _named(job.id):
        print_document(record_fields(record))
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


@contextmanager
def _named(job_id: str) -> Iterator[None]:
    """Name the job in the error where it is accepted and can't be printed: whoever submits again would have two."""
    try:
        yield
        print(end="", flush=True)
    except OSError as exc:
        exc.strerror = f"{exc.strerror}; submitted {printable(job_id)}"
        raise


async def _tell(options: argparse.Namespace, job_id: str) -> None:
    said = submitted_line(job_id) if options.json else (STDERR, f"jobtrio: submitted {printable(job_id)}\n")
    with _named(job_id):
        await Output().write([said])


async def _watch(options: argparse.Namespace, source: Source) -> int:
    return await Watcher(source, as_json=options.json, as_text=options.text).watch()
