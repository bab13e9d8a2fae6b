"""Opens a connection to the first server that will do, each attempt within its time.

It owns the order of attempts, their time bound and what is said when all have failed. It must not know
what a connection is used for.
"""

from __future__ import annotations

import logging
import math
import sys
from typing import TYPE_CHECKING

import psycopg
import trio
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import finish_pgconn
from psycopg.waiting import Wait

from ._addresses import addresses, hosts, rounds, with_environment
from ._cancelling import poll_until_done
from ._driving import wait_for_socket

if TYPE_CHECKING:
    from psycopg.abc import ConnParam
    from psycopg.pq.abc import PGconn

    from ._addresses import Params

CONNECT_TIMEOUT = 10.0
"""Seconds for each address, where the parameters and the environment don't say."""

logger = logging.getLogger("psycopg")


async def open_wire(conninfo: str, params: dict[str, ConnParam], within: float = math.inf) -> PGconn:
    """Connect to the first address that answers and is what ``target_session_attrs`` asks for.

    Args:
        conninfo: What is known of the server.
        params: What wins over that.
        within: Seconds for all attempts together, so that the last has no less time than the first. Each has
            ``connect_timeout`` besides.

    Raises:
        psycopg.OperationalError: None did; says what each attempt ended with.

    *Cancellation*: no connection is left behind.
    """
    check_conninfo(conninfo)
    check_seconds(within=within)
    given = with_environment(conninfo_to_dict(conninfo, **params))
    limit = _limit(given.pop("connect_timeout", None))
    give_up_at = trio.current_time() + within

    def share(left: int) -> float:
        return min(limit, max(give_up_at - trio.current_time(), 0.0) / (1 + left))

    failures: list[tuple[str, psycopg.OperationalError]] = []
    places = [host for wanted in rounds(given) for host in hosts(wanted)]
    for later, host in zip(range(len(places))[::-1], places, strict=True):
        try:
            found = await _addresses(host, share(later))
        except psycopg.OperationalError as exc:
            failures.append((_place(host), exc))
            continue
        for left, attempt in zip(range(len(found))[::-1], found, strict=True):
            try:
                return await _connect(attempt, share(left + later))
            except psycopg.OperationalError as exc:
                logger.debug("connection attempt failed: %s: %s", _place(attempt), exc)
                failures.append((_place(attempt), exc))
    raise _summary(failures)


async def _addresses(host: Params, limit: float) -> list[Params]:
    try:
        with trio.fail_after(limit):
            return await addresses(host)
    except trio.TooSlowError:
        raise psycopg.errors.ConnectionTimeout(f"no address within {limit:.4g} s") from None


def check_conninfo(conninfo: object) -> None:
    """Raise `TypeError` where a connection string is no text; it may hold a password, and is not shown."""
    if not isinstance(conninfo, str):
        raise TypeError(f"conninfo must be text; got {type(conninfo)}")


def check_seconds(**given: float) -> None:
    """Raise `TypeError` or `ValueError` where one that was given is no number of seconds."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name} must be a number of seconds, 0 or more; got {value!r}")
        if not (0 <= value <= sys.float_info.max or value == math.inf):
            raise ValueError(f"{name} must be a number of seconds, 0 or more; got {value!r}")


def _limit(value: str | None) -> float:
    if value is None:
        return CONNECT_TIMEOUT
    try:
        seconds = float(value)
    except ValueError:
        raise psycopg.ProgrammingError(f"connect_timeout must be a number of seconds; got {value!r}") from None
    return seconds if seconds > 0 else math.inf


def _place(params: Params) -> str:
    return ", ".join(f"{name} {params[name]!r}" for name in ("host", "hostaddr", "port") if params.get(name))


def _summary(failures: list[tuple[str, psycopg.OperationalError]]) -> psycopg.OperationalError:
    last = failures[-1][1]
    if len(failures) == 1:
        return last
    lines = [f"none of {len(failures)} attempts to connect succeeded:"]
    lines += [f"- {place}: {str(exc).strip()}" for place, exc in failures]
    return type(last)("\n".join(lines), pgconn=last.pgconn)


async def _connect(params: Params, limit: float) -> PGconn:
    wire = pq.PGconn.connect_start(make_conninfo(**params).encode())
    done = False
    try:
        with trio.move_on_after(limit) as scope:
            if wire.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(wire.get_error_message())
            await wait_for_socket(wire.socket, Wait.W)
            await poll_until_done(wire, wire.connect_poll)
            done = True
    except psycopg.OperationalError as exc:
        # Whether it lacks a password, for instance, is asked of the error.
        raise psycopg.OperationalError(str(exc), pgconn=finish_pgconn(wire)) from None
    finally:
        if not done:
            wire.finish()
    if scope.cancelled_caught:
        raise psycopg.errors.ConnectionTimeout(f"no connection within {limit:.4g} s")
    wire.nonblocking = 1
    return wire
