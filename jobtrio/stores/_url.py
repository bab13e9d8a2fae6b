"""From a store's URL to the store: the one place that reads them.

Only the store that a URL names is imported. It must not know where the URL was written.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode

import attrs

from jobtrio._checks import show, show_url
from jobtrio._errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from jobtrio.abc import JobStore

Options: TypeAlias = "Mapping[str, Callable[[str], Any]]"
"""What turns an option's text into what the store takes, by its name; into None, where it makes no sense."""

FORMS = (
    "sqlite:///jobs.db (beside you), sqlite:////var/lib/jobs.db (from the root), "
    "postgresql://user@host/database, or redis://host:6379/0"
)
"""The URLs that are understood, as errors name them."""

SQLITE_QUERY = "synchronous=FULL, synchronous=NORMAL, or outage_limit=SECONDS"
REDIS_QUERY = "prefix=NAME, replicas=N, or outage_limit=SECONDS"
POSTGRES_QUERY = "schema=NAME, pool_size=N, listen=false, outage_limit=SECONDS, and what libpq knows"
"""What may follow the path, as errors name it."""


@attrs.frozen
class Address:
    """Where a store is, and how it is to be used.

    Attributes:
        kind: Which store: ``"sqlite"``, ``"redis"`` or ``"postgres"``.
        place: SQLite's file as the URL has it, relative or absolute; of a server, the URL that it is given.
        options: What the store takes besides.
    """

    kind: str
    place: str = attrs.field(repr=False)  # it may hold a password
    options: dict[str, Any] = attrs.field(factory=dict)

    def make_store(self, *, make: bool = True) -> JobStore:
        """Return the store, not opened yet. Without ``make`` a server's is not to be made where it isn't there.

        Raises:
            StoreError: The extra that it needs is not installed.
            ValueError: The URL or an option makes no sense.
        """
        if self.kind == "sqlite":
            from jobtrio.stores.sqlite import SqliteJobStore

            return SqliteJobStore(self.place, **self.options)
        try:
            if self.kind == "redis":
                from jobtrio.stores.redis import RedisJobStore

                return RedisJobStore(self.place, create=make, **self.options)
            from jobtrio.stores.postgres import PostgresJobStore

            return PostgresJobStore(self.place, create=make, **self.options)
        except ImportError as exc:
            name = "Redis" if self.kind == "redis" else "PostgreSQL"
            raise StoreError(f"{name} needs an extra: pip install 'jobtrio[{self.kind}]' ({exc})") from exc

    def missing(self) -> str | None:
        """Say that there is no file. Of a server, or a file that one may not see, that is said when it is opened."""
        if self.kind == "sqlite":
            from jobtrio.stores.sqlite._connection import left_log

            try:
                os.stat(self.place)
            except (FileNotFoundError, NotADirectoryError):
                if left_log(self.place) is None:  # else it is away
                    return f"there is no file {self.place!r}"
            except OSError:
                pass
        return None


def parse_store_url(url: str) -> Address:
    """Return the address that a URL stands for.

    ``sqlite:///`` is followed by the path, which may be relative; ``?synchronous=NORMAL&outage_limit=30`` may follow
    that, either or both. ``redis://`` and ``rediss://`` are as `RedisJobStore` has them, with ``prefix``, ``replicas``
    and ``outage_limit`` besides in the query. ``postgresql://`` is as libpq has it, with ``schema``, ``pool_size``,
    ``listen`` and ``outage_limit`` besides in its query.

    Raises:
        TypeError: It is no text.
        ValueError: It is no such URL; the message says what is allowed.
    """
    if not isinstance(url, str):
        raise TypeError(f"a store must be {FORMS}; got {show(type(url))}")
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower() if colon else ""
    if scheme not in _PARSERS:
        raise ValueError(f"a store must be {FORMS}; got {show_url(url)}")
    return _PARSERS[scheme](rest, url)


def _pairs(query: str) -> list[tuple[str, str]]:
    """Return names and values from behind the ?. A plus sign is itself, as libpq has it, and no space."""
    return parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)


def _options(pairs: Iterable[tuple[str, str]], known: Options, allowed: str) -> dict[str, Any]:
    """Return what is behind the ?, as the store takes it.

    Raises:
        ValueError: It makes no sense, or is not known; in that case the value may be a password.
    """
    options: dict[str, Any] = {}
    for name, value in pairs:
        option = known[name](value) if name in known else None
        if option is None:
            got = f"{name}={show(value)}" if name in known else f"{show(name)}, which is none of them"
            raise ValueError(f"behind ? in a store's URL there must be {allowed}; got {got}")
        options[name] = option
    return options


# -- SQLite


def _sqlite(rest: str, url: str) -> Address:
    if not rest.startswith("///"):
        raise ValueError(f"a store must be {FORMS}, with three slashes before the path; got {show_url(url)}")
    path, _, query = rest.removeprefix("///").partition("?")
    if not path or "\0" in unquote(path) or path == ":memory:":
        raise ValueError(f"a store must be {FORMS}, and name a file; got {show_url(url)}")
    options = _options(_pairs(query), _SQLITE_OPTIONS, SQLITE_QUERY)
    return Address("sqlite", unquote(path, errors="surrogateescape"), options)


# -- Redis


def _redis(rest: str, url: str) -> Address:
    place, _, query = rest.partition("?")
    pairs = _pairs(query)
    if any("@" in name for name, _ in pairs):
        raise ValueError(f"behind ? in a store's URL there must be {REDIS_QUERY}; in a password it is %3F")
    options = _options(pairs, _REDIS_OPTIONS, REDIS_QUERY)
    return Address("redis", f"{url.partition(':')[0].lower()}:{place}", options)


# -- PostgreSQL


def _postgres(rest: str, url: str) -> Address:
    if not rest.startswith("//"):
        raise ValueError(f"a store must be {FORMS}, with two slashes before the host")
    place, _, query = rest.partition("?")
    pairs = _pairs(query)
    options = _options([pair for pair in pairs if pair[0] in _POSTGRES_OPTIONS], _POSTGRES_OPTIONS, POSTGRES_QUERY)
    others = [pair for pair in pairs if pair[0] not in _POSTGRES_OPTIONS]
    conninfo = f"postgresql:{place}{'?' if others else ''}{urlencode(others, quote_via=quote)}"
    return Address("postgres", conninfo, options)


def _synchronous(text: str) -> str | None:
    return text.upper() if text.upper() in ("FULL", "NORMAL") else None


def _flag(text: str) -> bool | None:
    return {"true": True, "1": True, "false": False, "0": False}.get(text.lower())


def _name(text: str) -> str | None:
    return text or None


def _count(text: str, low: int) -> int | None:
    is_count = text.isdecimal() and text.isascii() and len(text) < 10 and int(text) >= low
    return int(text) if is_count else None


def _seconds(text: str) -> float | None:
    """Return a finite number above 0, or None for what is none."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None


_SQLITE_OPTIONS: Final[Options] = {
    "synchronous": _synchronous,
    "outage_limit": _seconds,
}

_REDIS_OPTIONS: Final[Options] = {
    "prefix": _name,
    "replicas": partial(_count, low=0),
    "outage_limit": _seconds,
}

_POSTGRES_OPTIONS: Final[Options] = {
    "schema": _name,
    "pool_size": partial(_count, low=1),
    "listen": _flag,
    "outage_limit": _seconds,
}

_PARSERS: Final[Mapping[str, Callable[[str, str], Address]]] = {
    "sqlite": _sqlite,
    "redis": _redis,
    "rediss": _redis,
    "postgresql": _postgres,
    "postgres": _postgres,
}
