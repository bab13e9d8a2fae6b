"""An empty store of each kind for a test, as a URL: what tests that only use the command are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict
from valkey_server import new_prefix, shared_server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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
