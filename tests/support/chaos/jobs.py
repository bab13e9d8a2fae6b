"""The executors of the workers, which do what payloads tell them and write down in a file what they do.

A module as an application would have it: ``jobtrio worker chaos.jobs:executors``. Each line of the file is written
whole, at once, so that a kill can't leave half of one.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import trio

import jobtrio
from chaos.calls import store_at, wrap
from chaos.tasks import tell_at

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from jobtrio.abc import JobStore

JOURNAL: Final = "CHAOS_JOURNAL"
WORKER: Final = "CHAOS_WORKER"
SABOTAGE: Final = "CHAOS_SABOTAGE"
"""Environment variables: the file, the worker's name, and what its store is to get wrong."""

STORE: Final = "JOBTRIO_STORE"
"""The environment variable with the store's URL, as the command has it."""


POLICY: Final = jobtrio.RetryPolicy(max_attempts=4, initial=0.05, multiplier=1.0, jitter=0.0)
SLOW: Final = 0.01
"""Seconds between tokens from which on each is written down."""

SAVED: Final = 30
"""Tokens after which no more states are saved."""

LATE: Final = 0.3
"""Seconds from which on it is written down how long a claim takes, or reading what earlier attempts sent."""

CLINGS: Final = 0.3
"""Seconds that an executor goes on after it was cancelled, where it is told to cling."""

executors = jobtrio.Executors()

_asked: Final[dict[str, float]] = {}
_claimed: Final[dict[tuple[str, int], float]] = {}
"""When each claim was first asked for, by its id, and that which has brought an attempt, by job and number."""


class PlannedError(Exception):
    """What executors raise when they are told to."""


@executors.register("work", retry=POLICY)
async def work(job: jobtrio.JobContext) -> list[Any]:
    """Send tokens, save states, and end as the payload says."""
    note(job, "claimed", [_claimed[job.id, job.attempt], job.priority])
    note(job, "started", job.saved_state)
    try:
        await _send(job)
        if job.payload["ending"] == "hang":
            await trio.sleep_forever()
        if job.attempt <= job.payload["fails"]:
            await _fail(job.payload["ending"])
    except trio.Cancelled:
        note(job, "cancelled")
        if job.payload["ending"] != "cling":
            raise
        with trio.CancelScope(shield=True):
            await trio.sleep(CLINGS)
    except Exception as exc:
        note(job, "raised", type(exc).__name__)
        raise
    note(job, "returned")
    return [job.attempt, worker()]


async def _send(job: jobtrio.JobContext) -> None:
    payload = job.payload
    padding = "x" * payload["padding"]
    for number in range(payload["tokens"]):
        await trio.sleep(payload["pause"])
        await job.send([job.attempt, number, worker(), padding])
        if payload["pause"] >= SLOW:
            note(job, "token", number)
        if payload["saves"] and number < SAVED and number % 3 == 0:
            await job.save_state([job.attempt, number])
            note(job, "saved", [job.attempt, number])
    note(job, "sent", payload["tokens"])


async def _fail(ending: str) -> None:
    match ending:
        case "raise":
            raise PlannedError("as told")
        case "later":
            raise jobtrio.RetryLater(0.1)
        case "give_up":
            raise jobtrio.GiveUp("as told")
        case "time_out":
            await trio.sleep_forever()


def note(job: jobtrio.JobContext, what: str, value: Any = None) -> None:
    """Write down what an attempt does."""
    _note(what, job.id, job.attempt, value)


def _note(what: str, job_id: str, attempt: int, value: Any) -> None:
    line = json.dumps([time.time(), worker(), what, job_id, attempt, value])
    os.write(_journal(), line.encode() + b"\n")


async def _note_claim(call: Callable[..., Awaitable[Any]], store: JobStore, claim_id: str, **options: Any) -> Any:
    asked = _asked.setdefault(claim_id, time.time())
    with _noting_late(""):
        claims = await call(store, claim_id, **options)
    _claimed.update(((claim.entry.id, claim.attempt), asked) for claim in claims)
    return claims


async def _note_late_reading(call: Callable[..., Awaitable[Any]], store: JobStore, job_id: str, *args: Any) -> Any:
    with _noting_late(job_id):
        return await call(store, job_id, *args)


@contextmanager
def _noting_late(job_id: str) -> Iterator[None]:
    """Write down how long an answer takes within the block where that is long."""
    began = time.monotonic()
    try:
        yield
    finally:
        if time.monotonic() - began > LATE:
            _note("waited", job_id, 0, time.monotonic() - began)


@cache
def worker() -> str:
    """Return this worker's name."""
    return os.environ[WORKER]


@cache
def _journal() -> int:
    return os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def read_journal(path: Path) -> list[list[Any]]:
    """Return all lines of a file, by time."""
    text = path.read_text() if path.exists() else ""
    return sorted((json.loads(line) for line in text.splitlines()), key=lambda line: float(line[0]))


def _end_with_parent() -> None:
    """Wait for the end of standard input, which is that of the process that started this one; then end as well."""
    while os.read(0, 4096):
        pass
    os._exit(1)


if WORKER in os.environ:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tell_at(signal.SIGUSR1)
    wrap(store_at(os.environ[STORE]), "claim", _note_claim)
    wrap(store_at(os.environ[STORE]), "read_messages", _note_late_reading)
    if SABOTAGE in os.environ:
        from chaos.sabotage import sabotage

        sabotage(os.environ[SABOTAGE].split(), os.environ[STORE])
