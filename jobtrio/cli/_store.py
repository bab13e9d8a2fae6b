"""What the commands that use a store have in common: its option, its opening, and the words for its failures.

A failure is one line on stderr and the exit code 1. It must not know what is done with the store.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from contextlib import asynccontextmanager, suppress
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import attrs
import trio

import jobtrio
from jobtrio._errors import JobtrioError
from jobtrio._patterns import is_pattern
from jobtrio._submission import Submissions
from jobtrio.cli import _options
from jobtrio.cli._endings import one_line
from jobtrio.cli._log import log_to_stderr
from jobtrio.stores._url import FORMS, parse_store_url

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jobtrio.abc import JobStore

VARIABLE = "JOBTRIO_STORE"
"""The environment variable that stands for ``--store``."""

KEEP_ALL = jobtrio.Retention(finished_jobs=2**31, finished_for=inf)
"""For commands that look at a store or put something into it: what is old, only workers and ``prune`` remove."""

NOTHING_READ = 128 + 13
"""The exit code where nobody reads the output any more: 128 + SIGPIPE."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a file says that can't take more."""

EXIT_CODES = """\
exit code:
  0 done      1 it could not be done; stderr says why      2 bad usage
  130 Ctrl-C  141 nobody reads the output any more
"""


def add_store_options(parser: argparse.ArgumentParser, *, json: str) -> None:
    """Add what every command with a store takes; ``json`` is the help of ``--json``."""
    parser.add_argument(
        "--store",
        metavar="URL",
        type=_options.store_url,
        help="where the jobs are: sqlite:///FILE, sqlite:////FILE for an absolute path, "
        f"postgresql://USER@HOST/DATABASE, or redis://HOST:6379/0 (default: {VARIABLE} in the environment)",
    )
    parser.add_argument("--json", action="store_true", help=json)


def url_of(options: argparse.Namespace) -> str:
    """Return the URL of the store that the options or the environment name; '' where neither does."""
    url: str = options.store or os.environ.get(VARIABLE, "")
    return url


def store_of(options: argparse.Namespace, *, make: bool = False) -> JobStore:
    """Return the store that the options name; end with 2 where they name none, with 1 where it isn't there.

    Args:
        options: The parsed options.
        make: Whether a store that isn't there is made, rather than taken for a slip of the pen.
    """
    url = url_of(options)
    if not url:
        options.parser.error(f"--store is missing: give it, or set {VARIABLE}; it must be {FORMS}")
    source = "--store" if options.store else VARIABLE
    try:
        address = parse_store_url(url)
    except ValueError as exc:
        options.parser.error(f"{source}: {exc}")
    if not make and (what := address.missing()):
        complain(options, f"{what}, hence no job")
        raise SystemExit(1)
    try:
        store = address.make_store(make=make)
    except ValueError as exc:
        options.parser.error(f"{source}: {exc}")
    except JobtrioError as exc:
        complain(options, one_line(str(exc), 1000))
        raise SystemExit(1) from None
    return store


def run_with_store(
    options: argparse.Namespace,
    work: Callable[[argparse.Namespace, JobStore], Awaitable[int]],
    *,
    make: bool = False,
    quiet: bool = True,
    lasts: bool = False,
) -> int:
    """Run ``work`` with the store that the options name, and return its exit code, or 1 where it fails.

    Args:
        options: The parsed options.
        work: What to do.
        make: Whether the store is made where it isn't there.
        quiet: Whether only errors are logged: a warning about the file is the worker's to give, with the time.
        lasts: Whether a job runs or is watched here: then warnings about it are shown.
    """
    store = store_of(options, make=make)
    level = logging.ERROR if quiet else logging.WARNING
    log_to_stderr(level, lasts=lasts, dated=not quiet)
    try:
        return trio.run(partial(work, options, store))
    except BrokenPipeError:
        return NOTHING_READ
    except (JobtrioError, OSError) as exc:
        complain(options, reason_of(exc))
        return 1


def reason_of(exc: JobtrioError | OSError) -> str:
    """Return in a line why something could not be done."""
    if isinstance(exc, OSError) and exc.errno in NO_ROOM:  # a store's own are StoreErrors
        return f"the output can't be written: {exc.strerror}"
    return one_line(str(exc), 1000)


@asynccontextmanager
async def open_client(
    store: JobStore, executors: jobtrio.Executors | None = None
) -> AsyncIterator[jobtrio.JobRegistry]:
    """Open a registry that submits, finds and watches, but runs nothing, nor removes anything by itself.

    *Cancellation*: as that of `open_registry`.
    """
    async with jobtrio.open_registry(executors, store=store, queues={}, retention=KEEP_ALL) as registry:
        yield registry


def check_spec(spec: jobtrio.JobSpec, executors: jobtrio.Executors) -> None:
    """Raise what submitting a job to a store would raise, without doing so."""
    submissions = Submissions(executors, limiter=trio.CapacityLimiter(1), queues=None, durable=True, worker="")
    submissions.entry(**attrs.asdict(spec, recurse=False))


def warn_of_pattern(options: argparse.Namespace) -> None:
    """Say of a queue's name that would be a pattern for a worker that it is none here."""
    if is_pattern(options.queue):
        complain(options, f"{options.queue!r} is the name of a single queue here, not a pattern")


def complain(options: argparse.Namespace, what: str) -> None:
    """Say in one line what could not be done."""
    if sys.stderr is not None:  # or it would go to stdout
        with suppress(OSError):  # there is nobody to tell
            print(f"jobtrio {options.command}: {what}", file=sys.stderr, flush=True)
