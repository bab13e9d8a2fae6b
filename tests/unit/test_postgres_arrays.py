"""Array literals mean to PostgreSQL what the lists were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobtrio._codec import encode_value
from jobtrio.stores.postgres._arrays import array, arrays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from postgres_server import PostgresServer

printable = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=0, max_size=20)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3).map(ascii), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def connection(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(postgres_server.conninfo(), autocommit=True) as connection:
        yield connection


def back(connection: psycopg.Connection[tuple[object, ...]], literal: str, kind: str) -> object:
    row = connection.execute(f"SELECT %s::{kind}[]".encode(), [literal]).fetchone()
    assert row is not None
    return row[0]


@given(st.lists(printable | st.sampled_from(["NULL", "null", "{}", ",", '"', "\\", '\\"', "'", " "]) | st.none()))
@settings(max_examples=200, deadline=None)
def test_names(connection: psycopg.Connection[tuple[object, ...]], values: list[str | None]) -> None:
    """Printable texts come back as they were, and None as NULL."""
    assert back(connection, array(values), "text") == values


@given(st.lists(anything))
@settings(max_examples=200, deadline=None)
def test_values(connection: psycopg.Connection[tuple[object, ...]], values: list[object]) -> None:
    """Whatever JSON can hold comes back from its text, also what the texts of PostgreSQL can't hold."""
    texts = [encode_value("value", value).decode() for value in values]
    found = back(connection, array(texts), "text")
    assert isinstance(found, list)
    assert [json.loads(text) for text in found] == values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, -1, 2**63 - 1, -(2**63), None], "bigint"),
        ([0.0, -0.5, 1e300, 5e-324, 1764086400.123456, 0.1, None], "float8"),
        ([True, False, None], "boolean"),
        ([], "text"),
    ],
)
def test_others(
    connection: psycopg.Connection[tuple[object, ...]], values: list[int | float | bool | None], kind: str
) -> None:
    """Numbers and flags come back to the last bit, and an empty list as one."""
    assert back(connection, array(values), kind) == values


def test_columns() -> None:
    """Rows become columns; no rows become as many empty ones as asked for."""
    assert arrays([(1, "a"), (2, None)], 2) == ["{1,2}", '{"a",null}']
    assert arrays([], 3) == ["{}", "{}", "{}"]
