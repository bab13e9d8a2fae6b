"""psycopg's adapters as they come: what a program has registered, for a connection or for all, is for its own values.

A loader that makes decimals of numbers, say, would make rows that are no jobs. It must not know what is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import postgres, pq
from psycopg.adapt import AdaptersMap, Loader
from psycopg.types.array import register_all_arrays

if TYPE_CHECKING:
    from typing import Any

    import psycopg
    from psycopg.abc import AdaptContext, Buffer


class _AsTheyCome:
    """A context for connections and cursors."""

    connection = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(types=postgres.types)
        postgres.register_default_adapters(self)
        register_all_arrays(self)


class _UTF8Loader(Loader):
    format = pq.Format.BINARY

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


AS_THEY_COME: Final[AdaptContext] = _AsTheyCome()
_UNCONVERTED: Final[AdaptContext] = _AsTheyCome()
_UNCONVERTED.adapters.register_loader("text", _UTF8Loader)


def adapters_for(connection: psycopg.BaseConnection[Any]) -> AdaptersMap:
    """Return the adapters for statements on a connection of the caller's.

    With SQL_ASCII the server sends texts as they are stored, and psycopg gives them as bytes.
    """
    is_unconverted = connection.info.parameter_status("client_encoding") == "SQL_ASCII"
    return (_UNCONVERTED if is_unconverted else AS_THEY_COME).adapters
