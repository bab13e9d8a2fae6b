"""The stores: where jobs are kept. Each module holds one, and imports what it needs only itself; a URL names any."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobtrio.abc import JobStore

__all__ = ["store_from_url"]


def store_from_url(url: str) -> JobStore:
    """Return the store that a URL names, not opened yet, for `open_registry`.

    The URLs are those that the command takes: ``sqlite:///jobs.db``, ``sqlite:////var/lib/jobs.db`` for an
    absolute path, ``postgresql://user@host/database``, and ``redis://host:6379/0``, with options after a ``?``. Only
    the store that is named is imported.

    Args:
        url: The URL, for example from the environment.

    Raises:
        StoreError: The extra that the store needs is not installed.
        TypeError: The URL is not a string.
        ValueError: It names no store, or an option is invalid. The message says what is allowed, and shows no password.
    """
    from jobtrio.stores._url import parse_store_url  # not for those who name a store by its class

    return parse_store_url(url).make_store()
