"""The request that opens a connection: what is let in, what is turned down, and what the library gets to see."""

from __future__ import annotations

import base64
import contextlib
import time

import pytest
from raw_client import request

from jobtrio.websocket._head import Head, HttpRefusal, parse_head, plain_request


def refused(data: bytes) -> int:
    with pytest.raises(HttpRefusal) as caught:
        parse_head(data)
    return int(caught.value.status)


def bearer(token: str) -> str:
    return "jobtrio.bearer." + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


def test_a_plain_request() -> None:
    """A request with nothing but what is needed is let in."""
    head = parse_head(request("/jobs/a%20b?after=3&x"))
    assert (head.path, head.query, head.token, head.speaks) == ("/jobs/a%20b", "after=3&x", None, False)
    assert head.headers["host"] == "localhost"


def test_what_the_library_sees() -> None:
    """The library sees a request of our own making, with nothing of the client's in it but its nonce."""
    head = parse_head(request("/jobs/secret", "Sec-WebSocket-Protocol: a, jobtrio.v1", "Origin: http://x", "X: y"))
    seen = plain_request(head)
    assert b"secret" not in seen
    assert b"Origin" not in seen
    assert seen.count(b"\r\n") == 8
    assert parse_head(seen) == Head(
        path="/",
        query="",
        headers=parse_head(seen).headers,
        key=head.key,
        speaks=True,
        token=None,
    )


@pytest.mark.parametrize(
    "header", ["Host", "Connection", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Origin", "Cookie", "X-Any"]
)
@pytest.mark.parametrize("byte", ["\xff", "\x80", "\xe9", "\x00", "\x07", "\x1b", "\x7f"])
def test_bytes_outside_printable_ascii(header: str, byte: str) -> None:
    """A byte outside printable ASCII is refused, whichever header it is in."""
    assert refused(request("/ws", f"{header}: a{byte}b", drop=[header])) == 400


@pytest.mark.parametrize("value", [" " * 15_000, "x" + "\t" * 15_000, "x " * 7_500])
def test_refusing_takes_no_longer_than_reading(value: str) -> None:
    """A long header that is refused takes about as long as one that is let in, whatever it is made of."""

    def seconds(data: bytes) -> float:
        began = time.perf_counter()
        with contextlib.suppress(HttpRefusal):
            parse_head(data)
        return time.perf_counter() - began

    good, bad = request("/ws", "X: " + "x" * 15_000), request("/ws", f"X:{value}\x7f")
    assert refused(bad) == 400
    assert min(seconds(bad) for _ in range(3)) < 50 * max(seconds(good) for _ in range(3))


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\r\n\r\n",
        b"GET /ws\r\n\r\n",
        b"GET  /ws HTTP/1.1\r\n\r\n",
        request("/ws", version="HTTP/1.0"),
        request("/ws", version="HTTP/2.0"),
        request("ws"),
        request("http://localhost/ws"),
        request("/w\xe9s"),
        request("/w s"),
        request("*", method="OPTIONS"),
        request("/ws", "Host: other"),
        request("/ws", drop=["Host"]),
        request("/ws", "Host:", drop=["Host"]),
        request("/ws", " folded: line"),
        request("/ws", "no colon"),
        request("/ws", "space : before colon"),
        request("/ws", ": no name"),
        request("/ws", "bare\nline: feed"),
        request("/ws", "Origin: a", "Origin: b"),
        request("/ws", "Authorization: Bearer a", "Authorization: Bearer b"),
        request("/ws", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        request("/ws", drop=["Sec-WebSocket-Key"]),
        request("/ws", "Sec-WebSocket-Key: short", drop=["Sec-WebSocket-Key"]),
        request("/ws", "Sec-WebSocket-Key: " + base64.b64encode(b"x" * 15).decode(), drop=["Sec-WebSocket-Key"]),
        request("/ws", "Content-Length: 5"),
        request("/ws", "Transfer-Encoding: chunked"),
        request("/ws", "Sec-WebSocket-Protocol: jobtrio.v1, jobtrio.bearer."),
        request("/ws", "Sec-WebSocket-Protocol: jobtrio.v1, jobtrio.bearer.!"),
        request("/ws", "Sec-WebSocket-Protocol: jobtrio.v1, jobtrio.bearer.eA=="),
        request("/ws", "Sec-WebSocket-Protocol: jobtrio.v1, jobtrio.bearer._w"),
        request("/ws", f"Sec-WebSocket-Protocol: {bearer('a')}, {bearer('b')}"),
        request("/ws", f"Sec-WebSocket-Protocol: {bearer('a')}", "Authorization: Bearer a"),
    ],
)
def test_bad_requests(data: bytes) -> None:
    """A request that is malformed, ambiguous or incomplete is refused as such."""
    assert refused(data) == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "DELETE", "CONNECT", "PRI"])
def test_other_methods(method: str) -> None:
    """Only GET opens a WebSocket, and the answer says so."""
    with pytest.raises(HttpRefusal) as caught:
        parse_head(request("/ws", method=method))
    assert b"HTTP/1.1 405 Method Not Allowed\r\n" in caught.value.encode()
    assert b"\r\nAllow: GET\r\n" in caught.value.encode()


@pytest.mark.parametrize(
    ("name", "value"),
    [("Upgrade", "h2c"), ("Connection", "keep-alive"), ("Sec-WebSocket-Version", "8"), ("Sec-WebSocket-Version", "")],
)
def test_no_upgrade(name: str, value: str) -> None:
    """A plain GET, and one for another protocol or version, is told what is served here."""
    for data in (request("/ws", f"{name}: {value}", drop=[name]), request("/ws", drop=[name])):
        with pytest.raises(HttpRefusal) as caught:
            parse_head(data)
        answer = caught.value.encode()
        assert answer.startswith(b"HTTP/1.1 426 Upgrade Required\r\n")
        assert b"\r\nUpgrade: websocket\r\n" in answer
        assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


@pytest.mark.parametrize(
    ("offered", "speaks", "token"),
    [
        ("jobtrio.v1", True, None),
        ("graphql-ws", False, None),
        ("graphql-ws,jobtrio.v1", True, None),
        (",".join(f"p{n}" for n in range(500)), False, None),
        (f"jobtrio.v1, {bearer('köstlich')}", True, "köstlich"),
        (bearer("x"), False, "x"),
        ("JOBTRIO.V1", False, None),
    ],
)
def test_subprotocols(offered: str, speaks: bool, token: str | None) -> None:
    """The protocol is chosen only where it was offered, and a token may come beside it."""
    head = parse_head(request("/ws", f"Sec-WebSocket-Protocol: {offered}"))
    assert (head.speaks, head.token) == (speaks, token)
    assert (b"Sec-WebSocket-Protocol: jobtrio.v1\r\n" in plain_request(head)) == speaks


def test_subprotocols_in_several_headers() -> None:
    """Subprotocols may be offered in several headers."""
    head = parse_head(request("/ws", "Sec-WebSocket-Protocol: a", f"sec-websocket-protocol: jobtrio.v1,{bearer('t')}"))
    assert (head.speaks, head.token) == (True, "t")


@pytest.mark.parametrize(
    ("value", "token"),
    [("Bearer abc", "abc"), ("bearer  abc ", "abc"), ("Basic abc", None), ("Bearer", None), ("", None)],
)
def test_authorization(value: str, token: str | None) -> None:
    """The token is taken from the header where its scheme is Bearer."""
    assert parse_head(request("/ws", f"Authorization: {value}")).token == token


def test_a_token_is_not_shown() -> None:
    """What stands for a request in a log has no token in it."""
    assert "s3cret" not in repr(parse_head(request("/ws", "Authorization: Bearer s3cret")))


def test_connection_may_have_several_options() -> None:
    """Firefox sends keep-alive beside Upgrade; the case of letters does not matter."""
    head = parse_head(
        request("/ws", "Connection: keep-alive, upgrade", "Upgrade: WebSocket", drop=["Connection", "Upgrade"])
    )
    assert head.path == "/ws"
