"""Where a server is: a URL, read once.

``redis://`` and ``rediss://`` (with TLS), a user and a password, one host or several with commas between, and the
number of a database. It must not know how a connection is made.
"""

from __future__ import annotations

import re
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

from jobtrio._checks import show

FORMS: Final = (
    "redis://HOST:6379, with USER:PASSWORD@ before the host (%2F for a / in them, and the like) "
    "and /DATABASE behind it, or rediss:// for TLS"
)
"""The URLs that are understood, as errors name them."""

PORT: Final = 6379

_OTHERS: Final = re.compile(r"(//[^/?#]*?),([^@/?#]*)(?=[/?#]|$)")
"""The hosts behind the first: Python's parser of URLs knows but one, and only that may be in brackets."""


@attrs.frozen
class Address:
    """Where to find the server, and as whom.

    Attributes:
        hosts: Hosts and ports, of which one is in use; the others are tried when it is away.
        database: The number of the database.
        tls: Whether to connect by TLS.
        user: The user, or None.
        password: The password, or None.
    """

    hosts: tuple[tuple[str, int], ...]
    database: int = 0
    tls: bool = False
    user: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)

    def __str__(self) -> str:
        """Return the address without user and password."""
        hosts = ",".join(place_text(host) for host in self.hosts)
        database = f"/{self.database}" if self.database else ""
        return f"{'rediss' if self.tls else 'redis'}://{hosts}{database}"


def parse_address(url: Any) -> Address:
    """Return the address that a URL stands for.

    Raises:
        TypeError, ValueError: It is no such URL. The message does not have it, since it may hold a password.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be text, {FORMS}; got {show(type(url))}")
    try:
        others = _OTHERS.search(url)
        return _address(_split(_OTHERS.sub(r"\1", url, 1)), others[2].split(",") if others else [])
    except ValueError as exc:
        raise ValueError(f"url must be {FORMS}; {exc}") from None


def place_text(host: tuple[str, int]) -> str:
    """Return a host and its port, as a URL has them."""
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def _split(text: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:  # its message has what is wrong, which may be the password
        raise ValueError("its host can't be read") from None


def _address(parts: SplitResult, others: list[str]) -> Address:
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError(f"its scheme is {parts.scheme!r}")
    if parts.query or parts.fragment:
        raise ValueError("it has something behind the database, as URLs for store_from_url may")
    login, _, host = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    database = parts.path.removeprefix("/")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("its database is no number")  # it may be a password with a slash
    return Address(
        tuple(map(_host, [host, *others])),
        int(database or 0),
        parts.scheme == "rediss",
        unquote(user) or None,
        unquote(password) or None,
    )


def _host(text: str) -> tuple[str, int]:
    one = _split(f"//{text}")
    if not one.hostname:
        raise ValueError("it has no host")
    try:
        port = PORT if one.port is None else one.port
    except ValueError:  # likewise: its message is not to be shown
        port = 0
    if port == 0:
        raise ValueError("its port is no number from 1 to 65535")
    return one.hostname, port
