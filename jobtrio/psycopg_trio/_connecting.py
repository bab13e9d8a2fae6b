"""Opens a connection to the first server that will do, each attempt within its time.

It owns the order of attempts, their time bound and what is said when all have failed. It must not know
what a connection is used for.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import psycopg
import trio
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo
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


async def open_wire(conninfo: str, params: dict[str, ConnParam]) -> PGconn:
    """Connect to the first address that answers and is what ``target_session_attrs`` asks for.

    Raises:
        psycopg.OperationalError: None did; says what each attempt ended with.

    *Cancellation*: no connection is left behind.
    """
    given = with_environment(conninfo_to_dict(conninfo, **params))
    limit = _limit(given.pop("connect_timeout", None))
    failures: list[tuple[str, psycopg.OperationalError]] = []
    for wanted in rounds(given):
        for host in hosts(wanted):
            try:
                with trio.fail_after(limit):
                    found = await addresses(host)
            except trio.TooSlowError:
                failures.append((_place(host), psycopg.errors.ConnectionTimeout(f"no address within {limit:g} s")))
                continue
            except psycopg.OperationalError as exc:
                failures.append((_place(host), exc))
                continue
            for attempt in found:
                try:
                    return await _connect(attempt, limit)
                except psycopg.OperationalError as exc:
                    logger.debug("connection attempt failed: %s: %s", _place(attempt), exc)
                    failures.append((_place(attempt), exc))
    raise _summary(failures)


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
    return type(last)("\n".join(lines))


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
    finally:
        if not done:
            wire.finish()
    if scope.cancelled_caught:
        raise psycopg.errors.ConnectionTimeout(f"no connection within {limit:g} s")
    wire.nonblocking = 1
    return wire
