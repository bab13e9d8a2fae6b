"""What a server says: one struct for each type of message.

It owns the fields. Answers carry the ``id`` of their request, messages of a job's stream the ``sub`` of their
subscription; on a tail neither appears. It must not know when each is sent.
"""

from datetime import datetime
from math import inf
from typing import Annotated, Any, TypeAlias

import msgspec

from jobtrio._checks import check_number
from jobtrio._records import ErrorKind
from jobtrio._state import JobState
from jobtrio.websocket._requests import MessageId, PriorityName, WireRetry

PROTOCOL: str = "jobtrio.v1"
"""The protocol's name, and the subprotocol's."""

Moment: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time, with its zone."""

Amount: TypeAlias = int | float
"""A number that stays whole where it is: beyond 2**53 a float would round it."""


class Reply(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True, frozen=True):
    """Any message of a server."""


class Answer(Reply, kw_only=True, frozen=True):
    """An answer to a request.

    Attributes:
        id: The request's.
    """

    id: MessageId | None = None


class HelloLimits(msgspec.Struct, kw_only=True, frozen=True):
    """What a client has to keep to.

    Attributes:
        message_bytes: The size of a message.
        subscriptions: Subscriptions at once.
        messages_per_second: Messages a second.
        attempts: The attempts that a submission's ``retry`` may ask for; left out by a server that knows no ``retry``.
    """

    message_bytes: int
    subscriptions: int
    messages_per_second: float
    attempts: int | None = None


class Hello(Reply, tag="hello", kw_only=True, frozen=True):
    """The first message of a multiplexed connection.

    Attributes:
        proto: The protocol's name.
        heartbeat: Seconds of silence after which a `Heartbeat` comes.
        limits: What to keep to.
    """

    proto: str
    heartbeat: float
    limits: HelloLimits


class Ok(Answer, tag="ok", kw_only=True, frozen=True):
    """It was done.

    Attributes:
        cancelled: Answering `Cancel`: whether the job lived and will end cancelled.
    """

    cancelled: bool | None = None


class Pong(Answer, tag="pong", kw_only=True, frozen=True):
    """A sign of life."""


class Submitted(Answer, tag="submitted", kw_only=True, frozen=True):
    """The job was accepted.

    Attributes:
        job: The job's id.
        sub: The subscription's number, where one was asked for, the client may watch the job, and it could be opened.
        epoch: The epoch of its stream, where there is a subscription.
    """

    job: str
    sub: int | None = None
    epoch: str | None = None


class Subscribed(Answer, tag="subscribed", kw_only=True, frozen=True):
    """A subscription begins.

    Attributes:
        sub: The subscription's number.
        job: The job's id.
        epoch: Names the incarnation of the job's stream; give it back with ``after``.
        state: The job's state.
        attempt: The current or last attempt; 0 before the first.
        first: The number of the oldest message that is kept.
        last: The number of the last message so far; 0 before the first.
        progress: Where it begins at the end, the newest `ProgressMade` of those messages, without ``sub``; left out
            if there is none.
        paused: Whether the job waits in a queue that is paused; left out where it doesn't, or that can't be told.
    """

    sub: int | None = None
    job: str
    epoch: str
    state: JobState
    attempt: int
    first: int
    last: int
    progress: "ProgressMade | None" = None
    paused: bool = False


class StreamReply(Reply, kw_only=True, frozen=True):
    """A message of a job's stream.

    Attributes:
        sub: The subscription's number.
    """

    sub: int | None = None


class Events(StreamReply, tag="events", kw_only=True, frozen=True):
    """Tokens of one attempt, in order.

    Attributes:
        seq: The first one's number; the others follow without holes.
        attempt: The attempt that sent them.
        items: Their values.
    """

    seq: int
    attempt: int
    items: list[Any]


class ProgressMade(StreamReply, tag="progress", kw_only=True, frozen=True):
    """How far an attempt is.

    Attributes:
        seq: The message's number.
        attempt: The attempt.
        done: How much is done.
        total: How much there is to do, if known.
        note: A remark.
    """

    seq: int
    attempt: int
    done: Amount
    total: Amount | None
    note: str | None

    def __post_init__(self) -> None:
        for name, amount in (("done", self.done), ("total", self.total)):
            if amount is not None:
                check_number(name, amount, low=-inf)  # whoever counts with a whole number takes it for a float


class WireError(msgspec.Struct, kw_only=True, frozen=True):
    """Why an attempt failed.

    Attributes:
        kind: What kind of failure it is.
        type: The exception's class.
        message: The exception's text.
        traceback: The formatted traceback, for those who may see it, or "".
    """

    kind: ErrorKind
    type: str
    message: str
    traceback: str


class Restarted(StreamReply, tag="restart", kw_only=True, frozen=True):
    """An attempt failed and another follows.

    Attributes:
        seq: The message's number.
        attempt: The attempt that failed.
        error: Why.
        delay: Seconds until the next attempt may start.
    """

    seq: int
    attempt: int
    error: WireError
    delay: float


class GapFound(StreamReply, tag="gap", kw_only=True, frozen=True):
    """Messages that are no longer kept.

    Attributes:
        first: The number of the first one that is gone.
        last: The number of the last one that is gone.
    """

    first: int
    last: int


class WireCompleted(msgspec.Struct, tag_field="type", tag="completed", kw_only=True, frozen=True):
    """The executor returned.

    Attributes:
        result: What it returned.
    """

    result: Any


class WireFailed(msgspec.Struct, tag_field="type", tag="failed", kw_only=True, frozen=True):
    """The job failed.

    Attributes:
        error: Why.
    """

    error: WireError


class WireCancelled(msgspec.Struct, tag_field="type", tag="cancelled", kw_only=True, frozen=True):
    """The job was cancelled.

    Attributes:
        reason: Why, or None.
    """

    reason: str | None


WireOutcome: TypeAlias = WireCompleted | WireFailed | WireCancelled


class Ended(StreamReply, tag="end", kw_only=True, frozen=True):
    """The job's ending: the last message of a subscription.

    Attributes:
        seq: The message's number.
        outcome: How the job ended.
    """

    seq: int
    outcome: WireOutcome


class WireRecord(msgspec.Struct, kw_only=True, frozen=True):
    """A job's record: the fields of `jobtrio.JobRecord`; times in UTC, the priority by name.

    Attributes:
        time_limit: Seconds that an attempt may take; None without a limit.
        retry: The retry policy; None for a single attempt.
    """

    id: str
    executor: str | None
    payload: Any
    queue: str
    priority: PriorityName
    tags: dict[str, str]
    metadata: Any
    key: str | None
    state: JobState
    attempt: int
    max_attempts: int
    created_at: Moment
    run_at: Moment | None
    started_at: Moment | None
    finished_at: Moment | None
    duration: float | None
    worker: str | None
    cancel_requested_at: Moment | None
    cancel_reason: str | None
    error: WireError | None
    result: Any
    time_limit: float | None = None
    retry: WireRetry | None = None
    expires_in: float | None = None


class JobFound(Answer, tag="job", kw_only=True, frozen=True):
    """A job's record.

    Attributes:
        job: The record.
        paused: Whether the job waits in a queue that is paused; left out where it doesn't, or that can't be told.
    """

    job: WireRecord
    paused: bool = False


class JobsFound(Answer, tag="jobs", kw_only=True, frozen=True):
    """The records of jobs, in the order that was asked for.

    Attributes:
        jobs: The records.
    """

    jobs: list[WireRecord]


class Heartbeat(Reply, tag="heartbeat", kw_only=True, frozen=True):
    """A sign of life after silence.

    Attributes:
        last: The number of the last message sent, by subscription; on a tail, that number alone.
    """

    last: dict[str, int] | int


class Refused(Answer, tag="error", kw_only=True, frozen=True):
    """A request was refused, or a subscription can't go on.

    Attributes:
        id: The request's, where it had a usable one.
        sub: The subscription that ends with this, where it is about one.
        code: An `ErrorCode`; a text, so that a client can live with codes that came after it.
        message: What is wrong, for people.
        first: With ``outdated_cursor``: the number of the first message that is gone.
        last: With ``outdated_cursor``: the number of the last message that is gone. With ``future_cursor``: the
            number of the last message so far.
        epoch: With ``wrong_epoch``: the job's epoch.
        limit: With ``queue_full`` and ``too_many_subscriptions``: how many there may be.
    """

    sub: int | None = None
    code: str
    message: str
    first: int | None = None
    last: int | None = None
    epoch: str | None = None
    limit: int | None = None


AnyReply: TypeAlias = (
    Hello
    | Ok
    | Pong
    | Submitted
    | Subscribed
    | Events
    | ProgressMade
    | Restarted
    | GapFound
    | Ended
    | JobFound
    | JobsFound
    | Heartbeat
    | Refused
)
"""Every message that a server may send."""
