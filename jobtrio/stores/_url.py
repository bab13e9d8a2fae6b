"""From a store's URL to the store: the one place that reads them.

Only the store that a URL names is imported. It must not know where the URL was written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import attrs

from jobtrio._checks import show

if TYPE_CHECKING:
    from jobtrio.abc import JobStore

SYNCHRONOUS = ("FULL", "NORMAL")

FORMS = "sqlite:///jobs.db (beside you) or sqlite:////var/lib/jobs.db (from the root)"
"""The URLs that are understood, as errors name them."""

LATER = ("postgresql", "postgres", "redis", "rediss")
"""The schemes of stores that this version does not have."""


QUERY = "synchronous=FULL, synchronous=NORMAL, or outage_limit=SECONDS"
"""What may follow the path, as errors name it."""


@attrs.frozen
class StoreAddress:
    """Where a store is, and how it is to be used.

    Attributes:
        path: The SQLite file, as the URL has it: relative or absolute.
        options: What `SqliteJobStore` takes besides.
    """

    path: str
    options: dict[str, Any] = attrs.field(factory=dict)

    def make_store(self) -> JobStore:
        """Return the store, not opened yet."""
        from jobtrio.stores.sqlite import SqliteJobStore

        return SqliteJobStore(self.path, **self.options)


def parse_store_url(url: str) -> StoreAddress:
    """Return the address that a URL stands for.

    ``sqlite:///`` is followed by the path, which may be relative; ``?synchronous=NORMAL&outage_limit=30`` may follow
    that, either or both.

    Raises:
        ValueError: It is no such URL; the message has it and what is allowed.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme.lower() in LATER:
        # Not the URL itself: it may hold a password.
        raise ValueError(f"a store must be {FORMS}; {scheme.lower()} is not in this version")
    if not colon or scheme.lower() != "sqlite":
        raise ValueError(f"a store must be {FORMS}; got {show(url)}")
    if not rest.startswith("///"):
        raise ValueError(f"a store must be {FORMS}, with three slashes before the path; got {show(url)}")
    path, _, query = rest.removeprefix("///").partition("?")
    if not path or "\0" in unquote(path) or path == ":memory:":
        raise ValueError(f"a store must be {FORMS}, and name a file; got {show(url)}")
    return StoreAddress(unquote(path), _options(query, url))


def _options(query: str, url: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "synchronous" and value.upper() in SYNCHRONOUS:
            options[name] = value.upper()
        elif name == "outage_limit" and (seconds := _seconds(value)) > 0:
            options[name] = seconds
        else:
            raise ValueError(f"behind ? in a store's URL there must be {QUERY}; got {show(url)}")
    return options


def _seconds(text: str) -> float:
    """Return a finite number, or 0 for what is none."""
    try:
        seconds = float(text)
    except ValueError:
        return 0.0
    return seconds if math.isfinite(seconds) else 0.0
