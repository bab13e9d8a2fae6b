"""What an executor is given: the job as it sees it, and how it speaks.

It owns the sending side of a stream while the attempt lasts. It must not know who listens, nor how
attempts are started or judged.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any

import trio

from jobtrio._checks import check_number, check_seconds, check_text, from_thread, plain_number
from jobtrio._errors import JobEndedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jobtrio._entry import JobEntry
    from jobtrio._policies import JobPriority
    from jobtrio._registry import JobRegistry
    from jobtrio._token_log import TokenLog


class JobContext:
    """One attempt of a job, as its executor sees it.

    Made by the registry for each attempt; once the attempt is over, everything that sends raises `JobEndedError`. It
    belongs to Trio's thread: in another one call its methods through ``trio.from_thread``.

    Attributes:
        nursery: The attempt's own nursery, for child tasks. The attempt ends when they have.
        registry: The registry that runs the job: to submit other jobs, or to find some.
        attempt: The attempt's number, from 1.
    """

    __slots__ = (
        "_entry",
        "_log",
        "_open",
        "_prepare",
        "_save",
        "_stopping",
        "_thread",
        "attempt",
        "nursery",
        "registry",
        "watches_stopping",
    )

    def __init__(
        self,
        entry: JobEntry,
        nursery: trio.Nursery,
        registry: JobRegistry,
        open_log: Callable[[JobEntry], TokenLog],
        save: Callable[[JobEntry, Any], Awaitable[None]],
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        self._entry = entry
        self._log: TokenLog | None = None  # begun when something is sent: many jobs send nothing
        self._open: Callable[[JobEntry], TokenLog] | None = open_log  # None when the attempt is over
        self._save = save
        self._prepare = prepare  # checks a token that has to be stored
        self._stopping: trio.Event | None = None
        self._thread = get_ident()  # that of the registry's run, which has it alone
        self.attempt: int = entry.attempt
        self.nursery: trio.Nursery = nursery
        self.registry: JobRegistry = registry
        self.watches_stopping: bool = False

    @property
    def id(self) -> str:
        """The job's id."""
        return self._entry.id

    @property
    def payload(self) -> Any:
        """What the job was submitted with."""
        return self._entry.payload

    @property
    def tags(self) -> dict[str, str]:
        """The job's tags; a copy."""
        return dict(self._entry.tags or ())

    @property
    def metadata(self) -> dict[str, Any]:
        """The job's metadata; a copy."""
        return dict(self._entry.metadata or ())

    @property
    def queue(self) -> str:
        """The queue the job waited in."""
        return self._entry.plan.queue

    @property
    def priority(self) -> JobPriority:
        """The job's priority."""
        return self._entry.plan.priority

    @property
    def cancel_scope(self) -> trio.CancelScope:
        """The nursery's scope, which ends the attempt at its deadline or when the job is cancelled.

        An executor that cancels the scope itself ends the job as `Cancelled` without a reason. It may also move the
        scope's deadline, to limit the time without progress for example; that does not move the end of a grace period.
        """
        return self.nursery.cancel_scope

    @property
    def deadline(self) -> float:
        """When the attempt's time is up, by Trio's clock; inf without a limit.

        A grace period brings it forward to the period's end.
        """
        return self.nursery.cancel_scope.deadline

    @property
    def stopping(self) -> trio.Event:
        """Set when the attempt should come to an end: its job was cancelled or lost, or the registry is shutting down.

        With a grace period that is before the attempt is cancelled, otherwise at the same moment. A time limit does not
        set it.

        An attempt that returns after it was told to stop does not count as a success. The one exception is a shutdown:
        if the executor never checked this event, and no job that it submitted was refused, the attempt succeeds.
        """
        self.watches_stopping = True
        return self.stop_event()

    def stop_event(self) -> trio.Event:
        """Return the event behind `stopping`, without this counting as a check of it."""
        if self._stopping is None:
            self._stopping = trio.Event()
        return self._stopping

    @property
    def saved_state(self) -> Any:
        """What `save_state` saved last, in this attempt or an earlier one; None at first."""
        return self._entry.saved_state

    async def send(self, token: Any) -> int:
        """Send a token to every consumer and return its number. Always a checkpoint.

        Waits while a lossless consumer has not read what the token would displace.

        Raises:
            JobEndedError: The attempt is over.
            PayloadError: The token can't be stored (durable stores).

        Cancellation: nothing was sent.
        """
        if get_ident() != self._thread:
            self._refuse_thread("job.send, token", "run")
        await trio.lowlevel.checkpoint_if_cancelled()
        log = self._open_log()
        if self._prepare is not None:
            self._prepare(token)
        while log.is_full:
            await log.wait_room()
            log = self._open_log()
        seq = log.send(self.attempt, token)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return seq

    def send_nowait(self, token: Any) -> int:
        """Send a token to every consumer, at once, and return its number.

        Raises:
            trio.WouldBlock: A lossless consumer has not read what the token would displace.
            JobEndedError: The attempt is over.
            PayloadError: The token can't be stored (durable stores).
        """
        log = self._open_log_here("job.send_nowait, token")
        if self._prepare is not None:
            self._prepare(token)
        if log.is_full:
            raise trio.WouldBlock
        return log.send(self.attempt, token)

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> int:
        """Tell every consumer how far the attempt is, at once; return the message's number.

        Args:
            done: How much is done, 0 or more, in a unit of the executor's choice.
            total: How much there is to do, 0 or more; None if that is unknown.
            note: A remark.

        Raises:
            TypeError, ValueError: A parameter is invalid.
            JobEndedError: The attempt is over.
        """
        check_number("done", done, low=0)
        if total is not None:
            check_number("total", total, low=0)
        note = check_text("note", note)
        total = None if total is None else plain_number(total)
        return self._open_log_here("job.progress, done").progress(self.attempt, plain_number(done), total, note)

    def extend(self, seconds: float) -> float:
        """Move the attempt's deadline ``seconds`` further away and return it, by Trio's clock.

        What was decided stays: an attempt whose time is up, or that was told to stop, gains nothing.

        Args:
            seconds: How much further; above 0, finite.

        Raises:
            TypeError, ValueError: `seconds` is invalid.
            JobEndedError: The attempt is over.
        """
        seconds = check_seconds("seconds", seconds, zero=False)
        scope = self.nursery.cancel_scope
        self._open_log_here("job.extend, seconds")
        if not scope.cancel_called and not (self._stopping is not None and self._stopping.is_set()):
            scope.deadline += seconds
        return scope.deadline

    async def save_state(self, value: Any) -> None:
        """Keep ``value`` for the job's next attempt, as durably as the job itself.

        In memory the object itself is kept, so what is changed in it afterwards is changed in what was saved.

        Raises:
            JobEndedError: The attempt is over, or its worker has lost the job.
            PayloadError: The value can't be stored (durable stores).

        Cancellation: either the value or the one before it is kept.
        """
        if get_ident() != self._thread:
            self._refuse_thread("job.save_state, value", "run")
        await trio.lowlevel.checkpoint()
        if self._open is None:  # asked behind the checkpoint: it may be another attempt's turn since
            raise JobEndedError(self._entry.id)
        await self._save(self._entry, value)

    def close(self) -> None:
        """Make everything that sends raise from now on. Called by the registry when the attempt is over."""
        log, self._log, self._open = self._log, None, None
        if log is not None:
            log.room_made()  # for a send of a task that is not the attempt's: it looks again, and raises

    def __repr__(self) -> str:
        return f"<JobContext {self.id!r} attempt {self.attempt}>"

    def _open_log_here(self, instead: str) -> TokenLog:
        """Return the log, for what is no checkpoint; ``instead`` is what another thread than Trio's has to call."""
        if get_ident() != self._thread:
            self._refuse_thread(instead, "run_sync")
        return self._open_log()

    def _refuse_thread(self, instead: str, by: str) -> None:
        """Raise `RuntimeError` for another thread than the run's, where nobody could be woken; not behind the end."""
        if self._open is not None:
            raise RuntimeError(f"a JobContext belongs to Trio's thread; in another one say {from_thread(instead, by)}")

    def _open_log(self) -> TokenLog:
        if self._log is None:
            if self._open is None:
                raise JobEndedError(self._entry.id)
            self._log = self._open(self._entry)
        return self._log
