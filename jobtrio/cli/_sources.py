"""Where the messages of a watched job come from: a store, or a server of the bridge.

Each source reads a job's stream to its end and then says how that was. It must not know what becomes of the
messages.
"""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, assert_never

import trio

from jobtrio._errors import JobtrioError, UnknownJobError
from jobtrio._messages import End, Gap, Progress, Restart, Token
from jobtrio._records import Completed, Failed
from jobtrio._state import FINAL_STATES, JobState
from jobtrio.cli._endings import printable
from jobtrio.cli._follow import follow
from jobtrio.cli._gaps import Filler
from jobtrio.cli._records import moment_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from jobtrio._job import Job
    from jobtrio._messages import Message
    from jobtrio._records import JobRecord, Outcome
    from jobtrio._registry import JobRegistry
    from jobtrio.abc import JobStore
    from jobtrio.websocket import RemoteJob


LOOK_UP = 1.0
"""Seconds for a server to tell what is only for the summary: it may be gone by the job's end."""

REFUSED_ALONE = ("forbidden", "too_many_subscriptions")
"""How a server refuses one stream, and perhaps no other."""


class Source(Protocol):
    """One job's stream.

    Attributes:
        attempts: How many attempts the job may have; None where it is not known.
        hint: How to end the job, for those who stop watching it.
    """

    attempts: int | None
    hint: str

    @property
    def has_ended(self) -> bool:
        """Whether the job is known to have ended, though its end may not be shown yet."""

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over messages as they come, to the `End`."""

    async def waiting(self) -> str | None:
        """Return what the job waits for; None where it waits for nothing, or that can't be told."""

    async def ending(self) -> tuple[Outcome, float | None, int | None]:
        """Return how the job ended, the seconds of its last attempt, and how many there were; None for the unknown."""


class StoreSource:
    """A job in a store."""

    def __init__(self, registry: JobRegistry, store: JobStore, job: Job, url: str | None) -> None:
        """Prepare to read.

        Args:
            registry: The registry that reads the store.
            store: The store, which it has opened.
            job: The job.
            url: The store as the command was told it; None where the environment says so, to every command.
        """
        self._registry = registry
        self._store = store
        self._job = job
        self._url = url
        self.attempts: int | None = job.record.max_attempts
        self.hint: str = f"; to end it: {cancel_command(job.id, url)}"

    @property
    def has_ended(self) -> bool:
        """Whether the job is known to have ended."""
        return self._job.outcome is not None

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over messages as they come, to the `End`, whichever process the job runs in.

        What the store keeps is handed over, however slow it is taken.

        Raises:
            UnknownJobError: The job is no longer kept.

        *Cancellation*: the job goes on.
        """
        filler = Filler(self._registry, self._store, self._job, show)
        await follow(self._registry, self._job, filler.show, after=after)

    async def waiting(self) -> str | None:
        """Return what the job waits for. *Cancellation*: nothing has changed."""
        with suppress(JobtrioError):
            record = (await self._registry.get(self._job.id)).record
            if record.state is JobState.QUEUED and record.queue in (paused := await self._registry.paused()):
                ended_by = resume_command(record.queue, self._url)
                return f"{_paused_text(record, paused[record.queue])}; {ended_by} ends that"
            return _wait_text(record, len(await self._registry.workers()))
        return None

    async def ending(self) -> tuple[Outcome, float | None, int | None]:
        """Return how the job ended. *Cancellation*: nothing has changed."""
        await trio.lowlevel.checkpoint()
        outcome, record = self._job.outcome, self._job.record
        assert outcome is not None  # follow() returns behind the End
        return outcome, record.duration, record.attempt


class BridgeSource:
    """A job of a server."""

    def __init__(self, job: RemoteJob, record: JobRecord | None, hint: str = "") -> None:
        """Prepare to read.

        Args:
            job: The job.
            record: What is known of it; None where the server doesn't tell.
            hint: How to end it; may be empty.
        """
        self._job = job
        self._outcome: Outcome | None = None
        self._has_begun = record is not None and record.state is JobState.RUNNING
        self._attempt = record.attempt if record is not None and self._has_begun else None  # the present or the next
        self.attempts: int | None = None if record is None else record.max_attempts
        self.hint: str = hint
        self.has_ended: bool = record is not None and record.state in FINAL_STATES

    async def follow(self, show: Callable[[list[Message]], Awaitable[None]], after: int) -> None:
        """Hand over messages as they come, to the `End`, over as many connections as that takes.

        Raises:
            JobtrioError: The server can't give this stream.
            ValueError: ``after`` is beyond the job's last message.

        *Cancellation*: the job goes on.
        """
        if self._attempt is None and after == 0:
            self._attempt = 1
        with self._job.subscribe(after, on_gap="yield") as messages:
            while True:
                try:
                    batch = await messages.receive_batch()
                except trio.EndOfChannel:
                    return
                self._note(batch)
                await show(batch)

    async def waiting(self) -> str | None:
        """Return what the job waits for, as far as the server tells. *Cancellation*: nothing has changed."""
        with suppress(JobtrioError):
            record = await self._job.refresh()
            return _paused_text(record) if self._job.is_paused else _wait_text(record, None)
        return None

    async def ending(self) -> tuple[Outcome, float | None, int | None]:
        """Return how the job ended, without what is not known.

        Raises:
            JobtrioError: The server can't give the end that `follow` was told to begin behind.

        *Cancellation*: nothing has changed.
        """
        outcome = self._outcome if self._outcome is not None else await self._job.wait()
        with trio.move_on_after(LOOK_UP), suppress(JobtrioError):
            record = await self._job.refresh()
            return outcome, record.duration, record.attempt
        # It may be watched and not looked up, or is gone already, or the server is.
        return outcome, None, self._attempt if self._has_begun or _has_run(outcome) else None

    def _note(self, batch: list[Message]) -> None:
        for message in batch:
            match message:
                case Token(attempt=attempt) | Progress(attempt=attempt):
                    self._attempt, self._has_begun = attempt, True
                case Restart(attempt=attempt):
                    self._attempt, self._has_begun = attempt + 1, False
                case Gap():  # a restart may be in it
                    self._attempt, self._has_begun = None, False
                case End(outcome=outcome):
                    self._outcome, self.has_ended = outcome, True
                case _:
                    assert_never(message)


async def open_bridge_source(job: RemoteJob, hint: str = "") -> BridgeSource:
    """Return a server's job as a source, with what the server tells of it, and with how to end it.

    Raises:
        JobtrioError: The server is away.

    *Cancellation*: nothing has changed.
    """
    from jobtrio.websocket import ServerRefusedError

    try:
        return BridgeSource(job, await job.refresh(), hint)
    except (UnknownJobError, ServerRefusedError):  # it may be watched and not looked up; else watching says so
        return BridgeSource(job, None, hint)


def is_of_one(exc: Exception) -> bool:
    """Whether an error is about one job alone, so that others can be watched on."""
    return isinstance(exc, UnknownJobError) or getattr(exc, "code", None) in REFUSED_ALONE


def _wait_text(record: JobRecord, workers: int | None) -> str | None:
    """Return what a job waits for, given how many workers are there, where that is known."""
    if record.state is JobState.SCHEDULED:
        return f"the job starts at {moment_text(record.run_at)} at the earliest"
    if record.state is not JobState.QUEUED:
        return None
    if record.executor is None:
        return "the job is held until somebody executes it"
    there = {None: "", 0: "; no worker is there"}.get(workers, f"; workers that are there: {workers}")
    return f"the job waits in queue {record.queue!r} for a worker that runs {record.executor!r}{there}"


def _paused_text(record: JobRecord, until: datetime | None = None) -> str:
    limit = "" if until is None else f" until {moment_text(until)}"
    return f"the job waits in queue {record.queue!r}, which is paused{limit}"


def _has_run(outcome: Outcome) -> bool:
    """Whether only a job that has run can end so: one that waits can be cancelled, or expire."""
    return isinstance(outcome, Completed) or (isinstance(outcome, Failed) and outcome.error.kind != "expired")


def cancel_command(job_id: str, url: str | None) -> str:
    """Return the command that ends a job of a store, for people to copy.

    Args:
        job_id: The job's id.
        url: The store as this command was told it; None where the environment says so, to every command.
    """
    return _command("cancel", job_id, url)


def resume_command(queue: str, url: str | None) -> str:
    """Return the command by which a paused queue of a store goes on, likewise."""
    return _command("resume", queue, url)


def _command(command: str, name: str, url: str | None) -> str:
    store = ""
    if url is not None:  # without what may be a password
        store = f"--store {'…' if '@' in url or 'password=' in url else shlex.quote(url)} "
    dashes = "-- " if name.startswith("-") else ""
    return f"jobtrio {command} {store}{dashes}{printable(shlex.quote(name))}"
