"""Ids for jobs: 128 random bits each, as 32 hexadecimal digits; and names for workers.

Ids are drawn from the system many at a time, since each draw lets other threads run before it returns: a store's
writer would commit what one submission brought instead of what a hundred did. It must not know what they are for.
"""

from __future__ import annotations

import os
import secrets
import socket

DRAWN = 64
"""Ids drawn at once."""

_SIZE = 16  # bytes of one id

_drawn: list[str] = []


def new_id() -> str:
    """Return an id that nobody has had. Threads may call it."""
    try:
        return _drawn.pop()
    except IndexError:
        digits = os.urandom(DRAWN * _SIZE).hex()
        own, *others = (digits[n : n + 2 * _SIZE] for n in range(0, len(digits), 2 * _SIZE))
        _drawn.extend(others)
        return own


def worker_name() -> str:
    """Return a name for this process: its host, its id, and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"[:200]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)  # a child must not give out what its parent will
