"""psycopg's adapters as they come: what a program has registered, for a connection or for all, is for its own values.

A loader that makes decimals of numbers, say, would make rows that are no jobs. It must not know what is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import postgres
from psycopg.adapt import AdaptersMap
from psycopg.types.array import register_all_arrays

if TYPE_CHECKING:
    from psycopg.abc import AdaptContext


class _AsTheyCome:
    """A context for connections and cursors."""

    connection = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(types=postgres.types)
        postgres.register_default_adapters(self)
        register_all_arrays(self)


AS_THEY_COME: Final[AdaptContext] = _AsTheyCome()
