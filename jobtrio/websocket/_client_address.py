"""Where a client connects to, and with what token: read from what the user gave, once, before any connection.

Pure. It must not know how a connection is made.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs

from jobtrio._checks import show, show_url

PORTS = {"ws": 80, "wss": 443}
"""The schemes, and the port that each stands for."""

FORM = "ws://HOST:PORT/ws or wss://HOST:PORT/ws"
"""What a URL looks like, as errors name it."""

TOKEN_LIMIT = 4096
"""Characters of a token: what fits into a header's line everywhere."""

_USER = re.compile(r"[^/?#]*//[^/?#]*@")
"""How a URL begins that has a user's name or password."""

NO_USER = "no user's name or password may be in it: give the token as `token`"
"""What is wrong with such a URL."""


@attrs.frozen
class Address:
    """A server of the bridge.

    Attributes:
        host: Its name or address, without brackets.
        port: Its port.
        secure: Whether the connection is encrypted.
        resource: The path and the query.
    """

    host: str
    port: int
    secure: bool
    resource: str

    @property
    def authority(self) -> str:
        """The host and, where it isn't the scheme's own, the port, as the ``Host`` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS["wss" if self.secure else "ws"] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'wss' if self.secure else 'ws'}://{self.authority}{self.resource.partition('?')[0]}"


def parse_url(url: Any) -> Address:
    """Return the address that a URL stands for; without a path it is that of ``/ws``.

    Raises:
        TypeError, ValueError: It is no such URL; the message names ``url``, what it was, and what is allowed.
    """
    if not isinstance(url, str):
        raise TypeError(f"url must be {FORM}; got {show(url)}")
    if why := _flaw(url):
        raise ValueError(f"url must be {FORM}; got {show_url(url)}: {why}")
    parts = urlsplit(url)
    resource = (parts.path if parts.path not in {"", "/"} else "/ws") + (f"?{parts.query}" if parts.query else "")
    host = _network_name(parts.hostname or "")
    return Address(host, parts.port or PORTS[parts.scheme], parts.scheme == "wss", resource)


def parse_tail_url(url: str) -> tuple[str, str] | None:
    """Return the client's URL and the job's id for the URL of a job's tail, or None if it is none.

    Raises:
        ValueError: It is one in part, or says more than that.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in PORTS or not is_tail(parts.path):
        return None
    if parts.query or parts.fragment:
        must = "a job's URL must end with its id: options such as --after tell the rest"
        raise ValueError(f"{must}; got {show_url(url)}")
    before, _, job_id = parts.path.rpartition("/jobs/")
    client = parts._replace(path=f"{before}/ws", query="", fragment="").geturl()
    parse_url(client)
    return client, unquote(job_id)


def is_tail(path: str) -> bool:
    """Whether a path is that of one job's tail: it ends with ``/jobs/`` and an id."""
    _, jobs, job_id = path.rpartition("/jobs/")
    return bool(jobs and job_id and "/" not in job_id)


def check_token(token: Any) -> str | None:
    """Return ``token``, None or what can stand in a header: up to 4,096 ASCII characters, no space among them."""
    if token is None:
        return None
    allowed = f"1 to {TOKEN_LIMIT} printable ASCII characters without spaces"
    if not isinstance(token, str):
        raise TypeError(f"token must be None or {allowed}; got a {type(token).__name__}")
    # The token itself is not shown: errors end up in logs.
    if not (0 < len(token) <= TOKEN_LIMIT and all("!" <= char <= "~" for char in token)):
        got = "others" if 0 < len(token) <= TOKEN_LIMIT else f"{len(token)} characters"
        raise ValueError(f"token must be {allowed}; got {got}")
    return token


def _flaw(url: str) -> str:
    """Return what is wrong with a URL, or nothing."""
    if _USER.match(url):
        return NO_USER
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        return NO_USER if "@" in url else str(exc)  # which repeats the port: a part of a password that has a /
    if parts.scheme not in PORTS:
        return f"the scheme must be ws or wss, not {parts.scheme}" if parts.scheme else "the scheme is missing"
    if not host:
        return "the host is missing"
    if port == 0:
        return "the port must be from 1 to 65535"
    if any(char <= " " or char == "\x7f" for char in url):
        return "it must not have spaces or control characters: write %20 for a space"
    if not url.partition("//")[2].partition("/")[2].isascii():
        return "the path must be ASCII: write %C3%A4 for an ä"
    if "#" in url:
        return "nothing may follow a #"
    if is_tail(parts.path):
        return "/jobs/… shows one job to browsers; a client takes the path that ends with /ws"
    try:
        _network_name(host)
    except UnicodeError:
        return "its host can't be a name"
    return ""


def _network_name(host: str) -> str:
    return host.encode("idna").decode("ascii")
