"""An empty store of each kind for a test, as a URL, and the check of what is stored there in the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from postgres_invariants import check_schema
from psycopg.conninfo import conninfo_to_dict
from redis_invariants import check_jobs
from sqlite_invariants import check_file
from valkey_server import new_prefix, shared_server

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import pytest


def _sqlite(request: pytest.FixtureRequest) -> str:
    folder: Path = request.getfixturevalue("tmp_path")
    return f"sqlite:///{folder / 'jobs.db'}"


def _postgresql(request: pytest.FixtureRequest) -> str:
    parts = conninfo_to_dict(request.getfixturevalue("postgres"))
    login = f"{parts['user']}:{quote(str(parts['password']))}"
    return f"postgresql://{login}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def _redis(request: pytest.FixtureRequest) -> str:
    return f"{shared_server().url}?prefix={new_prefix()}"


_MAKERS: Final[dict[str, Callable[[pytest.FixtureRequest], str]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
    "redis": _redis,
}

STORES: Final = tuple(_MAKERS)
"""The kinds."""


def new_url(kind: str, request: pytest.FixtureRequest) -> str:
    """Return the URL of a store of this kind that has no jobs, for the test that asks."""
    return _MAKERS[kind](request)


def check_store(url: str, request: pytest.FixtureRequest, acknowledged: Collection[str] = ()) -> dict[str, str]:
    """Check all jobs of a store, and that those acknowledged are there; return each one's state."""
    if url.startswith("sqlite:"):
        return check_file(Path(url.removeprefix("sqlite:///")), acknowledged)
    if url.startswith("redis:"):
        return check_jobs(shared_server(), url.rpartition("=")[2], acknowledged)
    return check_schema(request.getfixturevalue("postgres"), acknowledged)
