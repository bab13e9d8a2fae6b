"""Turns connection parameters into single addresses to try, names looked up without blocking.

libpq looks names up synchronously and puts no bound to an attempt of an asynchronous connection. So each host of
the parameters is looked up here, and each address becomes an attempt of its own. It must not know how to connect.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
import trio
from psycopg import pq
from psycopg.conninfo import make_conninfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Params: TypeAlias = dict[str, str]

LOOK_AGAIN: Final = 5.0
"""Seconds after which a name that is still being looked up is looked up anew: the way may be there again by then."""

_OURS = ("host", "hostaddr", "port", "connect_timeout", "target_session_attrs", "load_balance_hosts")


def with_environment(params: Mapping[str, object]) -> Params:
    """Return the parameters as text, with those of the environment that say where to connect and for how long.

    A service says that as well, and stands above the environment.
    """
    return {name: value for name, value in said_of(params).items() if name in _OURS or params.get(name) is not None}


def said_of(params: Mapping[str, object]) -> Params:
    """Return all that the parameters say, or a service or the environment, where libpq has no such value by itself."""
    given = {name: str(value) for name, value in params.items() if value is not None}
    options = _options_of(given) if "service" in given else pq.Conninfo.get_defaults()
    others = {
        option.keyword.decode(): option.val.decode()
        for option in options
        if option.val is not None and option.val != option.compiled
    }
    return {**others, **given}


def _options_of(params: Params) -> list[pq.ConninfoOption]:
    """Return all options of a connection with these parameters; those of a service that is not known are empty."""
    # The mode, which there is not, keeps libpq from connecting once it has read the service.
    wire = pq.PGconn.connect_start(make_conninfo(**{**params, "sslmode": "unconnected"}).encode())
    try:
        return wire.info
    finally:
        wire.finish()


def rounds(params: Params) -> Iterator[Params]:
    """Yield the parameters for each time that all hosts are gone through.

    Only ``prefer-standby`` takes two: a standby anywhere comes before a primary that is listed first.
    """
    if params.get("target_session_attrs") == "prefer-standby":
        yield {**params, "target_session_attrs": "standby"}
        yield {**params, "target_session_attrs": "any"}
    else:
        yield params


def hosts(params: Params) -> list[Params]:
    """Return the parameters for each host alone, in the order in which to try them.

    Raises:
        psycopg.OperationalError: The numbers of hosts, addresses and ports don't match.
    """
    lists = {name: params[name].split(",") for name in ("host", "hostaddr", "port") if params.get(name)}
    count = max(len(lists.get("host", "")), len(lists.get("hostaddr", "")), 1)
    for name, values in lists.items():
        if name == "port" and len(values) == 1:
            lists[name] = values * count
        elif len(values) != count:
            raise psycopg.OperationalError(f"{len(values)} values of {name} for {count} hosts: {params[name]!r}")
    single = [{**params, **{name: values[index] for name, values in lists.items()}} for index in range(count)]
    return _in_order(single, params)


async def addresses(params: Params) -> list[Params]:
    """Return the parameters of one host for each of its addresses, in the order in which to try them.

    Raises:
        psycopg.OperationalError: The name is not known, or can't be looked up now.

    *Cancellation*: the lookup is left to itself, and whoever wants the same name meanwhile joins in.
    """
    name = params.get("host", "")
    if params.get("hostaddr") or not name or name[0] in "/@":  # nothing to look up, or a Unix socket
        return [params]
    if _is_address(name):
        return [{**params, "hostaddr": name}]
    try:
        found = await _look_up(name)
    except (OSError, UnicodeError) as exc:  # the latter for what can't be a name at all
        raise psycopg.OperationalError(f"the host {name!r} is not known: {exc}") from exc
    except RuntimeError as exc:  # there is no thread to look it up in
        raise psycopg.OperationalError(f"the host {name!r} can't be looked up now: {exc}") from exc
    # The name stays: certificates and passwords are looked up by it.
    return _in_order([{**params, "hostaddr": str(address[0])} for *_, address in found], params)


class _Lookup:
    """A name that is being looked up, by a task of its own.

    The thread in which the system does it can't be stopped. Where no server of names answers, it may take half a
    minute: with another one for each try to connect, the application would soon have none left.
    """

    def __init__(self, name: str) -> None:
        self.begun: Final = trio.current_time()
        self._done = trio.Event()
        self._found: list[Any] = []
        self._error: Exception | None = None
        trio.lowlevel.spawn_system_task(self._run, name)

    async def _run(self, name: str) -> None:
        try:
            self._found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except Exception as exc:
            self._error = exc
        finally:
            self._done.set()
            lookups = _under_way.get()
            if lookups.get(name) is self:  # a later one may have its place
                del lookups[name]

    async def wait(self) -> list[Any]:
        """Return what was found, or raise the error."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._found


_under_way: Final = trio.lowlevel.RunVar[dict[str, _Lookup]]("_under_way")


async def _look_up(name: str) -> list[Any]:
    try:
        lookups = _under_way.get()
    except LookupError:
        _under_way.set(lookups := {})
    lookup = lookups.get(name)
    if lookup is None or trio.current_time() >= lookup.begun + LOOK_AGAIN:
        lookup = lookups[name] = _Lookup(name)
    return await lookup.wait()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _in_order(attempts: list[Params], params: Params) -> list[Params]:
    if params.get("load_balance_hosts") == "random":
        return random.sample(attempts, len(attempts))
    return attempts
