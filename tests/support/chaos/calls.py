"""Changes to the calls of whichever store a worker uses, within that worker's process."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from jobtrio.stores._url import parse_store_url

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.abc import JobStore


def store_at(url: str) -> type[JobStore]:
    """Return the kind of store that a URL names."""
    return type(parse_store_url(url).make_store())


def wrap(store: type[JobStore], name: str, change: Callable[..., Any]) -> None:
    """Put ``change(call, self, …)`` in the place of one of the store's calls."""
    call = getattr(store, name)

    @wraps(call)
    async def changed(self: JobStore, *args: Any, **options: Any) -> Any:
        return await change(call, self, *args, **options)

    setattr(store, name, changed)
