"""The readers of an SQLite file: what they keep between two calls."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

import trio

from jobtrio.stores.sqlite._connection import Location
from jobtrio.stores.sqlite._readers import Readers

if TYPE_CHECKING:
    from pathlib import Path


class Answer:
    """An answer, which may be large."""


async def test_an_answer_is_kept_by_no_thread(tmp_path: Path) -> None:
    """What was read is gone with the last who has it, though no other call comes to the thread that has read it."""
    location = Location(str(tmp_path / "jobs.db"), "FULL")
    location.prepare()
    readers = Readers(location, patience=60.0)
    readers.start()
    try:
        answer: weakref.ref[Answer] = weakref.ref(await readers.calls.make(lambda _: Answer()))
        with trio.fail_after(10):
            while answer() is not None:  # noqa: ASYNC110 - the thread may be on its way to wait
                await trio.sleep(0.01)
    finally:
        await readers.aclose()
