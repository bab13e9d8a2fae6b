"""A gate on a Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gate

from jobtrio.stores.redis import RedisJobStore

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

OUTAGE_LIMIT = 4.5  # a third of it is what a connection and an answer may take, on a busy machine too


def open_gate(
    url: str, *, prefix: str = "gate", lease: float = 30.0, outage_limit: float = OUTAGE_LIMIT
) -> AbstractAsyncContextManager[gate.Gate]:
    """Open a registry on a server."""
    return gate.open_gate(RedisJobStore(url, prefix=prefix, outage_limit=outage_limit), lease=lease)
