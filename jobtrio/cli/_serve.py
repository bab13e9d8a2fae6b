"""``jobtrio serve``: a worker that clients can reach over WebSocket, to watch its store's jobs and to submit some.

The work itself is the worker's, the bridge is `jobtrio.websocket`'s; who may do what is decided here, by one token.
"""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager, closing
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import attrs

from jobtrio._nursery import open_background_nursery
from jobtrio.cli import _options, _program
from jobtrio.cli._bridge import VARIABLE, add_token_option, need_bridge, token_of
from jobtrio.cli._endings import one_line
from jobtrio.cli._executors import load_executors, load_lifespan
from jobtrio.cli._output import outlive_readers
from jobtrio.cli._store import add_store_options, complain, run_with_store
from jobtrio.cli._worker import add_worker_options, worker_plan
from jobtrio.cli._working import Worker, serve_and_exit

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    import jobtrio
    from jobtrio.abc import JobStore
    from jobtrio.websocket._listening import Place
    from jobtrio.websocket._origins import Origins
    from jobtrio.websocket.server import Server

HELP = "run the jobs of a store, and serve them over WebSocket"

DESCRIPTION = f"""\
Run the jobs of a store as `jobtrio worker` does, and let clients watch them
over WebSocket: browsers, `jobtrio watch ws://…`, or
jobtrio.websocket.open_client.

Without a token it listens on this machine's own addresses alone, and clients
can watch, but neither submit nor cancel. With one (--token-file, or
{VARIABLE} in the environment) clients have to show it, and may do all of
it; what they submit has to be registered with expose=True. Web pages from other
origins are refused, except those that --allow-origin names.
"""

EPILOG = f"""\
{_options.DURATIONS}
exit code:
  0 drained      1 it could not work; stderr says why      2 bad usage
  130 Ctrl-C, as a second signal, found jobs or clients that did not end

examples:
  jobtrio serve app.jobs:executors --store sqlite:///jobs.db
  jobtrio serve app.jobs:executors --no-work --store sqlite:///jobs.db
  jobtrio serve app.jobs:executors --allow-origin http://127.0.0.1:8000
  jobtrio serve app.jobs:executors --host "" --token-file token \\
      --certificate cert.pem
"""

PARAMETERS = {
    "host must": "--host must",
    "authenticate is given": f"there is a token (--token-file, or {VARIABLE})",
    "allowed_origins must be origins": "--allow-origin must be an origin",
}
"""What errors say of a parameter, and how that is said of an option."""

FOR_WORK = ("--lifespan", "--max-running", "--queue", "--total", "--rate", "--grace", "--lease", "--keep-for", "--keep")
"""A worker's options that say nothing to one that runs no jobs."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    add_worker_options(parser)
    _add_bridge_options(parser)
    add_store_options(parser, json="print each change of a job's state as a line of JSON on stdout")


def _add_bridge_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--host",
        metavar="HOST",
        default="127.0.0.1",
        help='the name or address to listen on, "" for all of this machine (default: 127.0.0.1)',
    )
    add("--no-work", action="store_true", help="run no jobs, and leave them to workers")
    add("--port", metavar="N", type=_options.port, default=8765, help="the port, 0 for a free one (default: 8765)")
    add_token_option(parser, help="the token that clients have to show")
    add(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help='an origin of web pages that may connect, such as https://example.org; "null" for files, "*" for all; '
        "may be given several times",
    )
    add(
        "--flush-interval",
        metavar="DURATION",
        type=_options.duration,
        default=0.0,
        help="how long a client's messages are collected, for fewer and larger ones (default: 0)",
    )
    add("--certificate", metavar="FILE", help="a certificate chain (PEM), for wss://")
    add("--private-key", metavar="FILE", help="its private key, if not in the same file")


def run(options: argparse.Namespace) -> int:
    """Work and serve until told to stop, and return the exit code."""
    need_bridge(options)
    if options.no_work and (given := [name for name in FOR_WORK if _is_given(options, name)]):
        options.parser.error(f"{', '.join(given)}: of no use with --no-work")
    _program.heed_children()
    outlive_readers()
    options.loaded = load_executors(options)
    options.around = load_lifespan(options)
    options.token = token_of(options)
    options.ssl_context = _ssl_context(options)
    return run_with_store(options, work, make=True, quiet=False)


def _is_given(options: argparse.Namespace, name: str) -> bool:
    """Whether an option is something else than its default."""
    key = name.removeprefix("--").replace("-", "_")
    return bool(getattr(options, key) != options.parser.get_default(key))


async def work(options: argparse.Namespace, store: JobStore) -> int:
    """Run jobs and serve clients until told to stop.

    *Cancellation*: running jobs return to their queue, and clients are told to come back.
    """
    place, origins = await _listen(options)
    with closing(place):
        bridge = partial(_open_bridge, options, place, origins)
        plan = worker_plan(options)
        if options.no_work:
            plan = attrs.evolve(plan, queues={})
        return await serve_and_exit(Worker(store, plan, as_json=options.json, beside=bridge))


async def _listen(options: argparse.Namespace) -> tuple[Place, Origins]:
    """Listen before anything else is said or done; end with 1 where that can't be, with 2 where it makes no sense.

    Clients that come before the store is there wait for it.
    """
    from jobtrio.websocket._listening import open_place
    from jobtrio.websocket._origins import Origins

    try:
        origins = Origins(options.allow_origin)
        return await open_place(options.host, options.port, anywhere=options.token is not None), origins
    except ValueError as exc:  # of the host or an origin
        complain(options, one_line(_as_options(str(exc)), 1000))
        raise SystemExit(2) from None
    except OSError as exc:
        where = f"{options.host or 'all addresses'}, port {options.port}"
        complain(options, f"can't listen on {where}: {one_line(exc.strerror or str(exc))}")
        raise SystemExit(1) from None


def _as_options(text: str) -> str:
    """Return what is said of a parameter of `jobtrio.websocket.serve` as it is to be said of an option."""
    for name, option in PARAMETERS.items():
        text = text.replace(name, option)
    return text


@asynccontextmanager
async def _open_bridge(
    options: argparse.Namespace,
    place: Place,
    origins: Origins,
    registry: jobtrio.JobRegistry,
    say: Callable[[str], Awaitable[None]],
) -> AsyncIterator[None]:
    """Serve within the block; at its end, clients are told to come back."""
    from jobtrio.websocket.server import serve_at

    async with open_background_nursery() as nursery:
        start = partial(
            serve_at,
            place,
            origins,
            registry,
            authenticate=None if options.token is None else partial(_authenticate, options.token),
            authorize=None if options.token is None else _authorize,
            flush_interval=options.flush_interval,
            ssl_context=options.ssl_context,
        )
        server: Server = await nursery.start(start)
        await say(_greeting(server.url, watch_only=options.token is None))
        yield


async def _authenticate(token: str, handshake: Any) -> bool | None:
    """Let in whoever shows the token."""
    return True if compare_digest((handshake.token or "").encode(), token.encode()) else None


async def _authorize(principal: Any, action: str, job: Any) -> bool:
    """Allow everything, tracebacks too: the token is the owner's."""
    return True


def _greeting(url: str, *, watch_only: bool) -> str:
    what = "watching alone" if watch_only else "clients with the token"
    return f"jobtrio: serves {what} at {url}/ws and {url}/jobs/ID"


def _ssl_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    if options.certificate is None:
        if options.private_key is not None:
            options.parser.error("--private-key is of no use without --certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    files = [file for file in (options.certificate, options.private_key) if file is not None]
    try:
        for file in files:
            open(file, "rb").close()  # OpenSSL does not say which of the two it is
        context.load_cert_chain(options.certificate, options.private_key, password="")
    except (OSError, ValueError) as exc:
        why = one_line(str(exc))
        if isinstance(exc, ssl.SSLError):
            why += "; it takes a certificate chain and its private key, as PEM without a password"
        options.parser.error(f"--certificate: can't use {' and '.join(files)}: {why}")
    return context
