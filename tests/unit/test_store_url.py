"""Store URLs: what they stand for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobtrio.stores._url import StoreAddress, parse_store_url
from jobtrio.stores.sqlite import SqliteJobStore


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///jobs.db", "jobs.db"),
        ("sqlite:///./a/jobs.db", "./a/jobs.db"),
        ("sqlite:////var/lib/jobs.db", "/var/lib/jobs.db"),
        ("SQLite:///jobs.db", "jobs.db"),
        ("sqlite:///my%20jobs%3F.db", "my jobs?.db"),
    ],
)
def test_path(url: str, path: str) -> None:
    """Three slashes come before the path, whose escapes are undone; a fourth begins an absolute one."""
    assert parse_store_url(url) == StoreAddress(path)


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("synchronous=NORMAL", {"synchronous": "NORMAL"}),
        ("synchronous=full&outage_limit=0.5", {"synchronous": "FULL", "outage_limit": 0.5}),
    ],
)
def test_options(query: str, options: dict[str, object]) -> None:
    """How durable a commit is, and how long to wait for a file that is away, can be said in the URL."""
    assert parse_store_url(f"sqlite:///jobs.db?{query}").options == options


def test_makes_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address makes the store that it names, a relative path seen from the current directory."""
    monkeypatch.chdir(tmp_path)
    store = parse_store_url("sqlite:///jobs.db?outage_limit=3").make_store()
    assert isinstance(store, SqliteJobStore)
    assert store.outage_limit == 3
    assert store.path == str(Path.cwd() / "jobs.db")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("", ["got ''"]),
        ("jobs.db", ["'jobs.db'"]),
        ("mysql://host/jobs", ["'mysql://host/jobs'"]),
        ("sqlite:jobs.db", ["three slashes"]),
        ("sqlite://jobs.db", ["three slashes"]),
        ("sqlite:///", ["name a file"]),
        ("sqlite:///:memory:", ["name a file"]),
        ("sqlite:///a%00b", ["name a file"]),
        ("sqlite:///jobs.db?synchronous=OFF", ["synchronous=NORMAL", "synchronous=OFF"]),
        ("sqlite:///jobs.db?mode=ro", ["synchronous=NORMAL", "mode=ro"]),
        ("sqlite:///jobs.db?outage_limit=0", ["outage_limit=SECONDS"]),
        ("sqlite:///jobs.db?outage_limit=inf", ["outage_limit=SECONDS"]),
        ("sqlite:///jobs.db?outage_limit=soon", ["outage_limit=SECONDS"]),
    ],
)
def test_refused(url: str, parts: list[str]) -> None:
    """What is no URL of a store is refused with the URL and what is allowed."""
    with pytest.raises(ValueError, match=r"a store") as caught:
        parse_store_url(url)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "redis", "rediss", "Redis"])
def test_not_yet(scheme: str) -> None:
    """Stores that don't exist yet are named as such, and a password is not shown."""
    with pytest.raises(ValueError, match=f"{scheme.lower()} is not in this version") as caught:
        parse_store_url(f"{scheme}://ann:secret@host/jobs")
    assert "secret" not in str(caught.value)
