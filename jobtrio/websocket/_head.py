"""The request that opens a connection: bytes in, a checked request or an HTTP refusal out.

Nothing that a client sends reaches the WebSocket library before this has read it whole and found it plain: any byte
outside printable ASCII, any doubled or missing header is refused here. It is pure, and must not know sockets.
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64decode
from http import HTTPStatus

import attrs

from jobtrio.websocket._replies import PROTOCOL

BEARER = "jobtrio.bearer."
"""What the subprotocol begins with in which a browser hands over its token, as base64url."""

_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}) (/[!-~]*) HTTP/1\.1")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*+([!-~](?:[ -~\t]*[!-~])?)?[ \t]*")  # *+: or blanks take n²
_SINGLE = frozenset(
    {"host", "origin", "authorization", "upgrade", "sec-websocket-key", "sec-websocket-version", "content-length"}
)
"""Headers that must not appear twice."""


class HttpRefusal(Exception):  # noqa: N818 - an answer, not a fault
    """A connection is refused before it is accepted.

    Attributes:
        status: The HTTP status.
        message: Why, for people: the answer's body.
        headers: Headers of the answer.
    """

    def __init__(self, status: HTTPStatus, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.headers = headers

    def encode(self) -> bytes:
        """Return the answer."""
        body = f"{self.message}\n".encode()
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Connection: close",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


@attrs.frozen
class Head:
    """A checked request to open a WebSocket.

    Attributes:
        path: The path, percent-encoded.
        query: The query, percent-encoded.
        headers: The headers, the names in lower case.
        key: The client's nonce.
        speaks: Whether the client offered the protocol as a subprotocol.
        token: The token that it brought, or None.
    """

    path: str
    query: str
    headers: dict[str, str] = attrs.field(repr=False)
    key: str
    speaks: bool
    token: str | None = attrs.field(repr=False)


def parse_head(data: bytes) -> Head:
    """Return the request in ``data``, which ends with an empty line.

    Raises:
        HttpRefusal: It is not a proper request for a WebSocket.
    """
    try:
        first, *lines = data.decode("ascii").removesuffix("\r\n\r\n").split("\r\n")
    except UnicodeDecodeError:
        raise _bad("a byte outside ASCII") from None
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise _bad("not a request of HTTP/1.1")
    method, target = match.groups()
    if method != "GET":
        raise HttpRefusal(HTTPStatus.METHOD_NOT_ALLOWED, "only GET opens a WebSocket", (("Allow", "GET"),))
    headers = _headers(lines)
    _check_upgrade(headers)
    path, _, query = target.partition("?")
    offered = _items(headers.get("sec-websocket-protocol", ""))
    return Head(
        path=path,
        query=query,
        headers=headers,
        key=_key(headers),
        speaks=PROTOCOL in offered,
        token=_token(headers.get("authorization"), offered),
    )


def plain_request(head: Head) -> bytes:
    """Return a request of our own making that asks for the same: what the WebSocket library gets to see."""
    lines = [
        "GET / HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {head.key}",
    ]
    if head.speaks:
        lines.append(f"Sec-WebSocket-Protocol: {PROTOCOL}")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise _bad("a malformed header")
        name, value = match[1].lower(), match[2] or ""
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise _bad(f"the header {name} twice")
        else:
            headers[name] += f", {value}"
    if not headers.get("host"):
        raise _bad("no Host")
    if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
        raise _bad("a body")
    return headers


def _check_upgrade(headers: dict[str, str]) -> None:
    wanted = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    for name, value in wanted.items():
        if value.lower() not in (item.lower() for item in _items(headers.get(name.lower(), ""))):
            message = f"this is a WebSocket endpoint: connect with a WebSocket client ({name} is not {value})"
            answer = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
            raise HttpRefusal(HTTPStatus.UPGRADE_REQUIRED, message, answer)


def _key(headers: dict[str, str]) -> str:
    key = headers.get("sec-websocket-key", "")
    try:
        nonce = b64decode(key, validate=True)
    except ValueError:
        nonce = b""
    if len(nonce) != 16:
        raise _bad("Sec-WebSocket-Key must be 16 bytes as base64")
    return key


def _token(authorization: str | None, offered: list[str]) -> str | None:
    """Return the token from either place it may be in."""
    tokens = []
    if authorization is not None:
        scheme, _, value = authorization.partition(" ")
        if scheme.lower() == "bearer" and value.strip():
            tokens.append(value.strip())
    tokens += [_decoded(item[len(BEARER) :]) for item in offered if item.startswith(BEARER)]
    if len(tokens) > 1:
        raise _bad("more than one token")
    return tokens[0] if tokens else None


def _decoded(text: str) -> str:
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        if text and re.fullmatch("[A-Za-z0-9_-]+", text):
            return data.decode()
    except ValueError:
        pass
    raise _bad(f"what follows {BEARER} must be text as base64url without padding")


def _items(value: str) -> list[str]:
    return [item.strip() for item in value.split(",") if item.strip()]


def _bad(what: str) -> HttpRefusal:
    return HttpRefusal(HTTPStatus.BAD_REQUEST, f"bad handshake: {what}")
