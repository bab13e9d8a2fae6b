"""A client's URL and token: what they stand for, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from jobtrio.websocket._client_address import TOKEN_LIMIT, Address, check_token, parse_tail_url, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("url", "address", "authority"),
    [
        ("ws://127.0.0.1:8765/ws", Address("127.0.0.1", 8765, False, "/ws"), "127.0.0.1:8765"),
        ("ws://host", Address("host", 80, False, "/ws"), "host"),
        ("ws://host:80/", Address("host", 80, False, "/ws"), "host"),
        ("WSS://Host/jobtrio/ws?a=b", Address("host", 443, True, "/jobtrio/ws?a=b"), "host"),
        ("wss://host:80/ws", Address("host", 80, True, "/ws"), "host:80"),
        ("ws://[::1]:9/ws", Address("::1", 9, False, "/ws"), "[::1]:9"),
        ("ws://bücher.example/ws", Address("xn--bcher-kva.example", 80, False, "/ws"), "xn--bcher-kva.example"),
        ("ws://host/jobs", Address("host", 80, False, "/jobs"), "host"),
        ("ws://host//a@b?for=http://c@d", Address("host", 80, False, "//a@b?for=http://c@d"), "host"),
    ],
)
def test_url(url: str, address: Address, authority: str) -> None:
    """A URL gives host, port, and path; without a path it is that of the bridge."""
    assert parse_url(url) == address
    assert parse_url(url).authority == authority
    assert "?" not in str(parse_url(url))


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("", ["the scheme is missing", "got ''"]),
        ("host:80/ws", ["the scheme must be ws or wss, not host"]),
        ("http://host/ws", ["the scheme must be ws or wss, not http"]),
        ("ws:///ws", ["the host is missing"]),
        ("ws://host:0/ws", ["the port must be from 1 to 65535"]),
        ("ws://host:65536/ws", ["url must be", "Port"]),
        ("ws://host:x/ws", ["url must be", "Port"]),
        ("ws://[::1/ws", ["url must be", "Invalid IPv6 URL"]),
        ("ws://host/w s", ["spaces", "%20"]),
        ("ws://host/ws\n", ["spaces or control"]),
        ("ws://host/ä", ["the path must be ASCII"]),
        ("ws://host/ws#part", ["nothing may follow a #"]),
        ("ws://host/jobs/17", ["ends with /ws"]),
        ("ws://" + "ü" * 70 + ".example/ws", ["its host can't be a name"]),
        ("ws://" + "u" * 70 + ".example/ws", ["its host can't be a name"]),
        ("ws://jobs..example/ws", ["its host can't be a name"]),
    ],
)
def test_bad_url(url: str, parts: list[str]) -> None:
    """What is no URL of a bridge is refused, with what is wrong."""
    with pytest.raises(ValueError, match=r"^url must be ws://HOST:PORT/ws") as caught:
        parse_url(url)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "ws://ann:secret@host/ws",
        "http://ann:secret@host/ws",
        "ws://ann:secret@/ws",
        "ws://ann:secret@host:x/ws",
        "ws://ann:secret@ho℀st/ws",
        "ws://ann:secret@[::1/ws",
        "ws://ann:secret@host/w s",
        "ws://ann:se/secret@host/ws",
        "ws://ann:secret/#@host/ws",
        "ws://ann:a?secret@host/ws",
    ],
)
def test_url_with_a_password(url: str) -> None:
    """A URL with a password is refused, and not repeated in the error, whatever else is wrong with it."""
    with pytest.raises(ValueError, match="give the token") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("parse", [parse_url, parse_tail_url])
@pytest.mark.parametrize(
    "url", ["ws://ann:secret@host/jobs/17", "ws://ann:secret@host/jobs/17?after=3", "ws://host/jobs/17?token=secret"]
)
def test_tail_url_with_a_password(parse: Callable[[str], object], url: str) -> None:
    """The error for a job's URL does not repeat a password either, nor what may be one in its query."""
    with pytest.raises(ValueError, match=r"got .ws://.*host/") as caught:
        parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["ws:ann:secret@host/ws", "ws:/ann:secret@host/ws", "ws://host/ws?token=secret#part"])
def test_bad_url_that_may_hold_a_password(url: str) -> None:
    """What a URL may hold where it should not is not repeated either."""
    with pytest.raises(ValueError, match="url must be") as caught:
        parse_url(url)
    assert "secret" not in str(caught.value)


def test_url_that_is_no_text() -> None:
    """A URL is text."""
    with pytest.raises(TypeError, match="url must be"):
        parse_url(b"ws://host/ws")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("ws://host:1/jobs/a%2Fb", ("ws://host:1/ws", "a/b")),
        ("wss://host/x/jobs/17", ("wss://host/x/ws", "17")),
        ("ws://host/ws", None),
        ("ws://host/jobs/", None),
        ("http://host/jobs/17", None),
        ("17", None),
        ("ws://[", None),
    ],
)
def test_tail_url(url: str, found: tuple[str, str] | None) -> None:
    """The URL of a job's tail gives the client's, and the job."""
    assert parse_tail_url(url) == found


@pytest.mark.parametrize("rest", ["?after=3", "#3"])
def test_tail_url_that_says_more(rest: str) -> None:
    """What would be passed over is refused: it is for browsers, and the command has options for it."""
    with pytest.raises(ValueError, match="options such as --after"):
        parse_tail_url(f"ws://host/jobs/17{rest}")


@pytest.mark.parametrize("token", [None, "a", "!~" * (TOKEN_LIMIT // 2)])
def test_token(token: str | None) -> None:
    """A token is what can stand in a header."""
    assert check_token(token) == token


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", "0 characters"),
        ("a" * (TOKEN_LIMIT + 1), "4097 characters"),
        ("two words", "others"),
        ("line\n", "others"),
        ("schön", "others"),
        (b"bytes", "a bytes"),
        (7, "a int"),
    ],
)
def test_bad_token(token: Any, told: str) -> None:
    """What can't stand in a header is refused, and not repeated in the error, which tells what is wrong with it."""
    with pytest.raises((TypeError, ValueError), match=rf"^token must be .*; got {told}$") as caught:
        check_token(token)
    assert not isinstance(token, str) or not token or token not in str(caught.value)
