"""What running jobs write: messages, states, and how their attempts end.

It owns that messages go in calls of bounded size, and what a claim's entry learns from an answer.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from jobtrio._codec import encode_value
from jobtrio._entry import final_state, reason_of
from jobtrio._records import Cancelled, Completed, Failed
from jobtrio._state import JobState
from jobtrio.stores import _rules as rules
from jobtrio.stores._announcer import Settled
from jobtrio.stores._chunks import restart_text
from jobtrio.stores._texts import plain_text, value_of
from jobtrio.stores.redis._rows import entry_of
from jobtrio.stores.redis._scripts import run
from jobtrio.stores.redis._streams import pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jobtrio._messages import Message
    from jobtrio._records import JobError, Outcome
    from jobtrio.abc import Claim
    from jobtrio.stores.redis._link import Argument
    from jobtrio.stores.redis._session import Session

Answer: TypeAlias = "bytes | list[Any] | None"
"""None where the claim does not hold the job; when it ended, where it did as asked; else its row."""


@attrs.frozen
class Ending:
    """How a job is to end.

    Attributes:
        outcome: The outcome, as it will be read again.
        error: What is kept as the job's error, or None.
        result: What a completed job returned, as text; ``b""`` for None.
        reason: Why, for the history.
    """

    outcome: Outcome
    error: JobError | None
    result: bytes
    reason: str | None


def ending_of(outcome: Outcome, error: JobError | None) -> Ending:
    """Return how a job is to end, or raise `PayloadError` for a result that can't be stored."""
    if isinstance(outcome, Failed):
        return Ending(outcome, outcome.error, b"", reason_of(outcome.error))
    if isinstance(outcome, Cancelled):
        return Ending(outcome, error, b"", outcome.reason)
    text = encode_value("a result", outcome.result)
    return Ending(Completed(value_of(text)), error, b"" if text == b"null" else text, None)


async def finish(session: Session, claim: Claim, ending: Ending, messages: Sequence[Message]) -> bool:
    """End a running job."""
    error, reason = ending.error, ending.reason
    arguments = (
        *(str(final_state(ending.outcome)), plain_text(reason)),
        *(b"" if error is None else plain_text(error), ending.result),
    )
    return await _settle(session, claim, "finish", arguments, messages, partial(_finished, session, claim, ending))


def _finished(session: Session, claim: Claim, ending: Ending, answer: Answer) -> bool:
    if not isinstance(answer, bytes):
        return _learned(session, claim, answer)
    session.announcer.ended(claim.entry, ending.outcome, ending.error, session.settings.worker, float(answer))
    return True


async def retry(
    session: Session, claim: Claim, error: JobError, delay: float, counts: bool, messages: Sequence[Message]
) -> bool:
    """Let a failed attempt be followed by another."""

    def retried(answer: list[Any] | None) -> bool:
        written = _learned(session, claim, answer)
        if written and claim.entry.state is JobState.RETRYING:
            session.announcer.falls_due_in(delay)
        return written

    restart = restart_text(claim.attempt, error, delay)
    arguments = (repr(delay), plain_text(reason_of(error)), plain_text(error), restart, int(counts))
    return await _settle(session, claim, "retry", arguments, messages, retried)


async def release(session: Session, claim: Claim, reason: str, messages: Sequence[Message]) -> bool:
    """Return a running job to its queue unfinished."""

    def released(answer: list[Any] | None) -> bool:
        written = _learned(session, claim, answer)
        if written and claim.entry.state is JobState.QUEUED:
            session.announcer.listener.work_ready()
        return written

    restart = restart_text(claim.attempt, rules.released(reason), 0.0)
    return await _settle(session, claim, "release", (plain_text(reason), restart), messages, released)


async def append(session: Session, claim: Claim, messages: Sequence[Message]) -> bool:
    """Append an attempt's messages."""
    for piece in pieces(messages):
        if not await _append(session, claim, piece):
            return False
    return True


async def save_state(session: Session, claim: Claim, value: Any) -> bool:
    """Keep a value for the job's next attempt."""
    text = encode_value("a state", value)

    def saved(held: int) -> bool:
        if held:
            claim.entry.saved_state = value_of(text)
        return bool(held)

    save = (session.name, next(session.saves), text)
    return await session.call(run("save_state", claim.entry.id, claim.id, claim.attempt, *save), saved)


async def _append(session: Session, claim: Claim, piece: list[Argument], name: str = "append") -> bool:
    keep = session.settings.retention.tokens_per_job
    return await session.call(run(name, claim.entry.id, claim.id, claim.attempt, keep, *piece), bool)


async def _settle(
    session: Session,
    claim: Claim,
    name: str,
    arguments: tuple[Argument, ...],
    messages: Sequence[Message],
    after: Callable[[Any], bool],
) -> bool:
    """Call a script that ends an attempt: all of them begin with the claim, and end with the last messages."""
    *before, last = pieces(messages)
    for piece in before:
        await _append(session, claim, piece, "append_last")  # where the claim is lost, the script says so
    held = (claim.entry.id, claim.id, claim.attempt, session.worker, session.settings.retention.tokens_per_job)
    return await session.call(run(name, *held, *arguments, *last), after)


def _learned(session: Session, claim: Claim, answer: list[Any] | None) -> bool:
    settled = None
    if answer is not None:
        is_news, row = answer
        settled = Settled(entry_of(row), bool(is_news))
    return session.announcer.settled(claim.entry, settled)
