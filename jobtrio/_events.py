"""The registry's events: every change of state, to whoever asked for them.

A log like a job's, kept only while somebody listens. It must not know what the changes mean.
"""

from __future__ import annotations

import weakref
from threading import get_ident
from typing import TYPE_CHECKING, NamedTuple

import trio

from jobtrio._checks import other_run
from jobtrio._messages import Token
from jobtrio._records import Completed, Transition
from jobtrio._subscription import Subscription
from jobtrio._token_log import TokenLog

if TYPE_CHECKING:
    from jobtrio._entry import JobEntry
    from jobtrio._messages import Message

EVENTS_KEPT = 10_000
"""How far behind a consumer of events may fall."""

LET_GO_EVERY = 256
"""Events between two looks at which of them all consumers have taken: those are kept no longer."""


class Event(NamedTuple):
    """A change, and what it does not tell of its job: who is told may not find that any more.

    Attributes:
        change: The change.
        executor: The name of the job's executor; None for a held job that has none yet.
    """

    change: Transition
    executor: str | None


class EventSubscription(trio.abc.ReceiveChannel[Transition]):
    """Receives every `Transition` of its registry from the moment it was made; ends when the registry is closed.

    Falling more than 10,000 behind raises `LaggedError`; reading goes on after the gap.
    """

    __slots__ = ("__weakref__", "_inner", "_listeners", "_thread")

    def __init__(self, log: TokenLog, listeners: weakref.WeakSet[EventSubscription], thread: int) -> None:
        self._thread = thread
        self._inner = Subscription(log, log.last)
        self._listeners = listeners
        listeners.add(self)

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> Transition:
        """Return the next change, waiting for it if need be.

        Raises:
            trio.EndOfChannel: The registry was closed.
            trio.ClosedResourceError: This subscription was closed.
            LaggedError: It fell too far behind; reading goes on after the gap.
            RuntimeError: It was awaited in a run of Trio other than the registry's, which could not wake it.

        Cancellation: no change is lost; the next call receives it.
        """
        self._check_run("received from", "events.receive", "run")
        return _event(await self._inner.receive()).change

    @trio.lowlevel.enable_ki_protection
    def receive_nowait(self) -> Transition:
        """Return the next change, or raise `trio.WouldBlock`; otherwise as `receive`."""
        return _event(self._inner.receive_nowait()).change

    async def _receive_event(self) -> Event:
        """Return the next change with what it leaves out; else as `receive`, for this package's own use."""
        return _event(await self._inner.receive())

    def _receive_event_nowait(self) -> Event:
        return _event(self._inner.receive_nowait())

    @trio.lowlevel.enable_ki_protection
    def close(self) -> None:
        """Close the channel.

        Raises:
            RuntimeError: Called from a thread other than Trio's while a receiver waits.
        """
        if self._inner._waiting:
            self._check_run("closed", "events.close", "run_sync")
        self._listeners.discard(self)
        self._inner.close()

    async def aclose(self) -> None:
        """Close it, as `close` does. Cancellation: it is closed all the same."""
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> EventSubscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_run(self, done: str, instead: str, by: str) -> None:
        if get_ident() != self._thread:
            raise other_run(f"events must be {done}", instead, by)


class Events:
    """All subscriptions to a registry's events.

    Attributes:
        log: The events kept for them; None while nobody listens.
    """

    def __init__(self) -> None:
        self.log: TokenLog | None = None
        self._told: weakref.WeakKeyDictionary[JobEntry, tuple[int, int]] = weakref.WeakKeyDictionary()
        self._listeners: weakref.WeakSet[EventSubscription] = weakref.WeakSet()
        self._closed = False
        self._thread = get_ident()  # that of the registry's run, which has it alone

    def subscribe(self) -> EventSubscription:
        """Return a new subscription."""
        if self.log is None:
            self.log = TokenLog(EVENTS_KEPT)
            if self._closed:
                self.log.finish(Completed())
        return EventSubscription(self.log, self._listeners, self._thread)

    @trio.lowlevel.enable_ki_protection
    def publish(self, transition: Transition, executor: str | None = None) -> None:
        """Tell everybody of a change of a job with this executor, unless all have had their end."""
        if self.log is not None and not self._closed:
            if not self._listeners:
                self.log = None
                self._told.clear()
                return
            if self.log.send(0, Event(transition, executor)) % LET_GO_EVERY == 0:
                # The default: the collector may empty the set meanwhile.
                taken = min((each._inner.position for each in self._listeners), default=self.log.last)
                self.log.let_go(taken)

    def publish_in_order(self, known: JobEntry, told: JobEntry, worker: str) -> None:
        """Tell everybody of a job's newest change, and before it of earlier ones by ``worker`` that were not told.

        A store's answers may come in another order than the changes: what was told is not told again. A submission
        is told in any case, since the answer to it may come after that to the claim by which the job was started.

        Args:
            known: What stands for the job in this process.
            told: The job as of that change.
            worker: This process.
        """
        before, now = self._told.get(known), told.progress
        executor = told.plan.executor
        if before is None or not told.steps:
            self.publish(told.last_transition(), executor)
        elif now > before:
            *others, last = told.history_behind(before)
            for transition in others:
                if transition.worker == worker:
                    self.publish(transition, executor)
            self.publish(last, executor)
        is_listened_to = self.log is not None  # else what is noted would be out of date when somebody is
        if is_listened_to and (before is None or now > before):
            self._told[known] = now

    def close(self) -> None:
        """End all subscriptions, behind what they have not read yet."""
        self._closed = True
        if self.log is not None:
            self.log.finish(Completed())


def _event(message: Message) -> Event:
    if isinstance(message, Token):
        assert isinstance(message.value, Event)
        return message.value
    raise trio.EndOfChannel
