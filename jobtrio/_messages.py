"""The messages of a job's stream: what a consumer receives.

Frozen values, numbered from 1 without holes over all attempts of a job. The ending is a message of
its own type, so that no token can be taken for it. This module knows nothing of logs or channels.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import attrs

from jobtrio._records import JobError, Outcome


@attrs.frozen(slots=True, weakref_slot=False)
class Token:
    """One thing that the executor sent.

    Attributes:
        seq: The message's number in the job's stream, from 1.
        attempt: The attempt that sent it, from 1.
        value: What was sent.
    """

    seq: int
    attempt: int
    value: Any


@attrs.frozen(slots=True, weakref_slot=False)
class Progress:
    """How far an attempt is.

    Attributes:
        seq: The message's number in the job's stream.
        attempt: The attempt, from 1.
        done: How much is done, in a unit of the executor's choice.
        total: How much there is to do, or None if that is unknown.
        note: A remark, or None.
    """

    seq: int
    attempt: int
    done: float
    total: float | None = None
    note: str | None = None


@attrs.frozen(slots=True, weakref_slot=False)
class Restart:
    """An attempt is over without success and another follows: drop what it showed.

    Attributes:
        seq: The message's number in the job's stream.
        attempt: The attempt that failed.
        error: What ended it.
        delay: Seconds until the next attempt may start.
    """

    seq: int
    attempt: int
    error: JobError
    delay: float


@attrs.frozen(slots=True, weakref_slot=False)
class Gap:
    """Messages that this consumer was too late for. It has no number of its own.

    Attributes:
        first: The number of the first message that is gone.
        last: The number of the last message that is gone.
    """

    first: int
    last: int


@attrs.frozen(slots=True, weakref_slot=False)
class End:
    """The job's ending: the last message of every stream, exactly once.

    Attributes:
        seq: The last number of the job's stream.
        outcome: `Completed`, `Failed` or `Cancelled`.
    """

    seq: int
    outcome: Outcome


Message: TypeAlias = Token | Progress | Restart | Gap | End
"""What a `Subscription` receives."""


def first_of(message: Message) -> int:
    """Return the number of a message; of a gap, that of the first one that is gone."""
    return message.first if isinstance(message, Gap) else message.seq


def last_of(message: Message) -> int:
    """Return the number of a message; of a gap, that of the last one that is gone."""
    return message.last if isinstance(message, Gap) else message.seq
