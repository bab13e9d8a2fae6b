"""What the commands that use the bridge have in common: a server's URL, the token, and the words for its failures.

A failure is one line on stderr and the exit code 1. The bridge is an extra: it is imported when it is asked for. It
must not know what is done with the server.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import trio

from jobtrio._checks import show_url
from jobtrio._errors import JobtrioError
from jobtrio.cli import _options
from jobtrio.cli._endings import one_line
from jobtrio.cli._filters import add_filters, filters_of, is_filtered
from jobtrio.cli._log import log_to_stderr
from jobtrio.cli._store import NOTHING_READ, complain, reason_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from jobtrio._state import JobState
    from jobtrio.websocket import JobClient

SCHEMES = ("ws://", "wss://")

MISTAKEN = ("http://", "https://")
"""How a browser's address begins: a slip of the pen where a server's path follows."""

PATIENCE = 5.0
"""Seconds to wait for a server that is away; what is watched already waits for ever."""

VARIABLE = "JOBTRIO_TOKEN"
"""The environment variable that holds the token."""

SERVER_URL = "ws://HOST:PORT/ws or wss://…"
"""What a server's URL is, as errors say it."""

JOB_URL = "ws://HOST:PORT/jobs/ID or wss://…"
"""What a job's URL is, as errors say it."""

NOT_KNOWN = ("unauthenticated", "4401")
"""How a server says that it does not know who asks."""


def is_bridge(text: str) -> bool:
    """Whether a text is the URL of a server, or meant to be, rather than a job's id."""
    text = text.lower()
    return text.startswith(SCHEMES) or (text.startswith(MISTAKEN) and ("/jobs/" in text or text.endswith("/ws")))


def is_url(text: str) -> bool:
    """Whether a text is the URL of a server, or of something that may be meant for one."""
    return text.lower().startswith(SCHEMES + MISTAKEN)


def job_of_store(text: str) -> str:
    """Return a job's id, or refuse a server's URL where only a store will do."""
    if is_bridge(text):
        what = "must be the job's id: only watch, cancel, rerun, list and submit take a server's URL"
        raise argparse.ArgumentTypeError(f"{what}; got {show_url(text)}")
    return text


def add_jobs(parser: argparse.ArgumentParser, states: Iterable[JobState]) -> None:
    """Add what says which jobs: their ids or URLs, or the options for all that match, where a URL is a server's."""
    parser.add_argument(
        "words",
        metavar="ID|URL",
        nargs="*",
        help="the job's id, or its URL at a server: ws://HOST:PORT/jobs/ID; or several of them; or else the options "
        "say which jobs, and a URL is a server's: ws://HOST:PORT/ws",
    )
    add_filters(parser, states)


def read_jobs(options: argparse.Namespace) -> str | None:
    """Leave each job's id or URL in the words once, and return the server's URL that goes with the options, or None.

    End with 2 where both or neither say which jobs.
    """
    words = options.words = list(dict.fromkeys(options.words))
    url: str | None = words.pop() if filters_of(options) and len(words) == 1 and is_url(words[0]) else None
    is_filtered(options, is_named=bool(words))
    return url


def add_token_option(parser: argparse.ArgumentParser, *, help: str) -> None:
    """Add where the token is; ``help`` says what it is for. No option holds the token itself: others can see those."""
    parser.add_argument(
        "--token-file", metavar="FILE", help=f"{help}: the first line of FILE (default: {VARIABLE} in the environment)"
    )


def token_of(options: argparse.Namespace) -> str | None:
    """Return the token that the options or the environment name, or None; end with 2 where it can't be one."""
    from jobtrio.websocket._client_address import check_token

    token = os.environ.get(VARIABLE) or None
    if options.token_file is not None:
        try:
            token = Path(options.token_file).read_text("utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as exc:
            options.parser.error(f"--token-file: can't read {options.token_file!r}: {one_line(_options.cause(exc))}")
    try:
        return check_token(token)
    except ValueError as exc:
        source = VARIABLE if options.token_file is None else "--token-file"
        options.parser.error(f"{source}: {exc}")
        raise AssertionError from None  # error() has ended the program


def need_bridge(options: argparse.Namespace) -> Any:
    """Import the bridge and return it, or end with 1 where the extra isn't installed."""
    try:
        import trio_websocket  # noqa: F401
    except ImportError:
        complain(options, "it needs the extra websocket: pip install 'jobtrio[websocket]'")
        raise SystemExit(1) from None
    import jobtrio.websocket

    return jobtrio.websocket


def refuse_for_server(options: argparse.Namespace, values: Mapping[str, object], why: str = "") -> None:
    """End with 2 where one of some options that are not for a server was given; ``values`` are theirs, by name."""
    if given := [name for name, value in values.items() if value is not None]:
        options.parser.error(f"{', '.join(given)}: not for a server{why}")


def run_at_server(options: argparse.Namespace, work: Callable[[argparse.Namespace, JobClient], Awaitable[int]]) -> int:
    """Run ``work`` for the job whose URL is given as its id, and return the exit code; end with 2 where it is none."""
    need_bridge(options)
    refuse_for_server(options, {"--store": options.store})
    url, options.id = job_at_server(options, options.id)
    return run_with_client(options, url, work)


def run_for_jobs(
    options: argparse.Namespace, url: str | None, work: Callable[[argparse.Namespace, JobClient], Awaitable[int]]
) -> int:
    """Run ``work`` for jobs of a server, whose URLs are given, or with its own URL those that match.

    Returns the exit code; ends with 2 where their URLs are none, or of more than one server.
    """
    need_bridge(options)
    values = {"--queue": options.queue, "--executor": options.executor, "--store": options.store}
    refuse_for_server(options, values)
    if url is None:
        servers, options.words = zip(*(job_at_server(options, word) for word in options.words), strict=True)
        url = servers[0]
        if set(servers) != {url}:
            options.parser.error("the jobs must be of one server")
    return run_with_client(options, url, work)


def job_at_server(options: argparse.Namespace, text: str) -> tuple[str, str]:
    """Return the server's URL and the job's id for a job's URL; end with 2 where it is none."""
    from jobtrio.websocket._client_address import parse_tail_url

    try:
        found = parse_tail_url(text)
    except ValueError as exc:
        options.parser.error(str(exc))
    if found is None:
        options.parser.error(f"a job's URL must be {JOB_URL}; got {show_url(text)}")
        raise AssertionError  # error() has ended the program
    return found


def run_with_client(
    options: argparse.Namespace, url: str, work: Callable[[argparse.Namespace, JobClient], Awaitable[int]]
) -> int:
    """Run ``work`` with a client of the server, and return its exit code, or 1 where it fails."""
    bridge = need_bridge(options)
    token = token_of(options)
    options.url = url
    options.open_client = partial(bridge.open_client, url, token=token, outage_limit=PATIENCE)
    log_to_stderr(logging.WARNING)

    async def run() -> int:
        async with options.open_client() as client:
            return await work(options, client)

    try:
        return trio.run(run)
    except BrokenPipeError:
        return NOTHING_READ
    except bridge.ServerRefusedError as exc:
        complain(options, _about_token(options, token) if exc.code in NOT_KNOWN else one_line(str(exc), 1000))
        return 1
    except (JobtrioError, OSError) as exc:
        complain(options, reason_of(exc))
        return 1
    except RecursionError:  # jobtrio's own servers send nothing of the kind
        complain(options, "what the server sent can't be shown: nested too deeply")
        return 1
    except ValueError as exc:  # of the URL, or a value that only the server can judge
        complain(options, one_line(str(exc), 1000))
        return 2


def hint_of(options: argparse.Namespace, job_id: str) -> str:
    """Return how to end a job of the server that the command talks to, for those who stop watching it.

    Nothing where there is no token, without which a server lets nobody cancel, or where the job's URL isn't known.
    """
    from jobtrio.websocket._client_address import parse_url

    has_token = options.token_file is not None or os.environ.get(VARIABLE)
    server, ws, rest = str(parse_url(options.url)).rpartition("/ws")  # without what may be a secret in the query
    if not has_token or not ws or rest:
        return ""
    job_url = f"{server}/jobs/{quote(job_id, safe='')}"
    file = "" if options.token_file is None else f"--token-file {shlex.quote(options.token_file)} "
    return f"; to end it: jobtrio cancel {file}{shlex.quote(job_url)}"


def _about_token(options: argparse.Namespace, token: str | None) -> str:
    if token is None:
        return f"the server refused: it wants a token: by --token-file, or {VARIABLE} in the environment"
    source = VARIABLE if options.token_file is None else options.token_file
    return f"the server refused: the token in {source} is not the one that it wants"
