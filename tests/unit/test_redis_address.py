"""Where a Redis is: what its URL may say, and that a password is never shown."""

from __future__ import annotations

from typing import Any

import pytest

from jobtrio.stores.redis import RedisJobStore
from jobtrio.stores.redis._address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://host", Address((("host", 6379),))),
        ("redis://host/", Address((("host", 6379),))),
        ("redis://host:1234/3", Address((("host", 1234),), 3)),
        ("rediss://host", Address((("host", 6379),), 0, True)),
        ("redis://[::1]:7000", Address((("::1", 7000),))),
        ("redis://one,two:7000/1", Address((("one", 6379), ("two", 7000)), 1)),
        ("redis://one:7000,[::1],[::2]:7000/1", Address((("one", 7000), ("::1", 6379), ("::2", 7000)), 1)),
        ("rediss://ann:a,b@[::1]:7000,two", Address((("::1", 7000), ("two", 6379)), 0, True, "ann", "a,b")),
        ("redis://ann:a%40b@host", Address((("host", 6379),), 0, False, "ann", "a@b")),
        ("redis://:secret@host", Address((("host", 6379),), 0, False, None, "secret")),
        ("redis://ann:p@ss@host", Address((("host", 6379),), 0, False, "ann", "p@ss")),
    ],
)
def test_understood(url: str, address: Address) -> None:
    """Hosts, ports, the database, TLS and the login are where URLs have them."""
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        *("", "host", "host:6379", "http://host", "redis:host", "redis://", "redis:///0", "redis://host:port"),
        *("redis://host:99999", "redis://host/x", "redis://host/-1", "redis://host/0?a=b", "redis://host/0#f"),
        *("redis://one,,two", "redis://host/١", "redis://host/0,1", "redis://host:0", "redis://one,[two"),
    ],
)
def test_refused(url: str) -> None:
    """What is no such URL is refused with what is allowed."""
    with pytest.raises(ValueError, match="url must be redis://HOST:6379"):
        parse_address(url)


@pytest.mark.parametrize(
    "url",
    [
        *("redis://ann:secret@host:port", "redis://ann:secret@", "http://ann:secret@host"),
        *("redis://ann:a/secret@host", "redis://ann:a/secret", "redis://ann:secret", "redis://ann:secret\uff0f@host"),
        *(
            "redis://ann:a[secret]@host",
            "redis://ann:a[secret@host",
            "redis://ann:a?secret@host",
            "redis://ann:a#secret@host",
            "redis://ann:a,secret/@host",
            "redis://ann:a,secret[@host,two",
        ),
    ],
)
def test_no_password_is_shown(url: str) -> None:
    """Neither an error nor the store's repr has the password."""
    with pytest.raises(ValueError, match="url must be") as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)
    store = RedisJobStore("rediss://ann:secret@host,other/2", prefix="jobs")
    assert repr(store) == "<RedisJobStore rediss://host:6379,other:6379/2 {jobs}:>"
    assert "secret" not in repr(parse_address("redis://ann:secret@host"))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"url": 1}, TypeError),
        ({"prefix": ""}, ValueError),
        ({"prefix": "a{b"}, ValueError),
        ({"prefix": "a:b"}, ValueError),
        ({"prefix": 1}, TypeError),
        ({"replicas": -1}, ValueError),
        ({"replicas": True}, TypeError),
        ({"outage_limit": 0}, ValueError),
        ({"outage_limit": "1"}, TypeError),
        ({"create": 1}, TypeError),
    ],
)
def test_parameters(options: dict[str, Any], error: type[Exception]) -> None:
    """Parameters that make no sense are refused by name."""
    (name,) = options
    with pytest.raises(error, match=name):
        RedisJobStore(**{"url": "redis://host", **options})
