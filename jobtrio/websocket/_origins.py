"""From which web pages a browser may connect: pure.

It owns the comparison of an ``Origin`` with where the bridge listens and with what was allowed. The ``Host`` header
has no say in it: a page that has its own name point to this machine controls both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from jobtrio._checks import show

ANY = "*"
"""Stands for every origin."""

TOLD = 100
"""Refused origins that are remembered, and told of: no more, so that a flood of them fills no log."""

_PORTS = {"http": 80, "https": 443}
"""Where pages of these schemes come from by default; those of apps and of a browser's extensions come from no port."""

_NOT_OF_PAGES = frozenset({"", "ws", "wss"})
"""What is no scheme of a page, but easily given for one."""

_HOST = re.compile(r"[0-9a-z._:-]+")
"""A host as browsers send it: other letters are written in these, as in ``xn--bcher-kva.example``."""


class Origins:
    """The origins that may connect.

    Args:
        allowed: Origins of other pages, ``"null"`` and ``"*"`` among them if they are to be.

    Raises:
        TypeError, ValueError: What is allowed are not origins.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._admitted: set[object] = set()
        self._told: set[str] = set()
        if isinstance(allowed, str) or not isinstance(allowed, Iterable):
            raise TypeError(f"allowed_origins must be several origins, or None; got {show(allowed)}")
        for origin in allowed:
            known = origin if origin in (ANY, "null") else _parsed(origin)
            if known is None:
                raise ValueError(
                    "allowed_origins must be origins as browsers send them, such as "
                    '"https://example.org:8000" or "https://xn--bcher-kva.example", "null", or "*" for all; '
                    f"got {show(origin)}"
                )
            self._admitted.add(known)

    def add_own(self, hosts: Iterable[str], port: int) -> None:
        """Admit pages that come from where the bridge listens: from these names and addresses, and this port."""
        self._admitted |= {(scheme, host.lower(), port) for host in hosts for scheme in _PORTS}

    def admit(self, origin: str | None) -> bool:
        """Tell whether a page of this origin may connect; None stands for a client that is no browser."""
        if origin is None or ANY in self._admitted:
            return True
        return (origin if origin == "null" else _parsed(origin)) in self._admitted

    def is_news(self, refused: str) -> bool:
        """Tell, once for each of the first hundred, whether this refused origin is worth a word."""
        if refused in self._told or len(self._told) >= TOLD:
            return False
        self._told.add(refused)
        return True


def _parsed(origin: object) -> tuple[str, str, int] | None:
    """Return an origin's scheme, host and port, or None for what is not one."""
    if not isinstance(origin, str):
        return None
    try:
        parts = urlsplit(origin)
        port = _PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
    except ValueError:
        return None
    if parts.scheme in _NOT_OF_PAGES or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    if parts.hostname is None or _HOST.fullmatch(parts.hostname) is None:
        return None
    return parts.scheme, parts.hostname, port
