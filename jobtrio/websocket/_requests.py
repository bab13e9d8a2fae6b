"""What a client may say: one struct for each type of message.

It owns the fields and what their values may be. It must not know what becomes of a request.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec.structs import asdict

from jobtrio._policies import RetryPolicy
from jobtrio._state import JobState

LARGEST: int = 2**63 - 1
"""The largest whole number that is taken from the wire, but for those inside payloads."""

MOST_FOUND: int = 1000
"""Jobs that a search returns at once, at most."""

MessageId: TypeAlias = (
    Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)] | Annotated[str, msgspec.Meta(max_length=100)]
)
"""What names a request in its answer: a whole number, or text of at most 100 characters."""

Cursor: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)] | Literal["end"]
"""Where to start: behind the message of this number, or behind all that is there now."""

SubId: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=LARGEST)]
OnGap: TypeAlias = Literal["raise", "yield"]
PriorityName: TypeAlias = Literal["LOW", "NORMAL", "HIGH", "CRITICAL"]


class Request(msgspec.Struct, tag_field="type", kw_only=True, omit_defaults=True, frozen=True):
    """Any message of a client.

    Attributes:
        id: Comes back unchanged in the answer.
    """

    id: MessageId | None = None


class Auth(Request, tag="auth", kw_only=True, frozen=True):
    """Say who one is. Answer: `Ok`.

    Attributes:
        token: What the server's ``authenticate`` hook is given.
    """

    token: str


class WireRetry(msgspec.Struct, kw_only=True, frozen=True):
    """A retry policy.

    Attributes:
        max_attempts: All attempts, the first one included.
        initial: Seconds before the second attempt.
        multiplier: What each delay is multiplied by for the next.
        max_delay: Seconds that no delay exceeds before the jitter.
        jitter: The share of the delay that it may move by, from 0 to 1.
    """

    max_attempts: int
    initial: float
    multiplier: float
    max_delay: float
    jitter: float

    def __post_init__(self) -> None:
        RetryPolicy(**asdict(self))  # which refuses what makes no sense


class Submit(Request, tag="submit", kw_only=True, frozen=True):
    """Submit a job. Answer: `Submitted`.

    Attributes:
        executor: The name of an executor that is exposed.
        payload: What the executor is given.
        subscribe: Whether to subscribe to its stream, from the beginning, and be told of messages no longer kept by
            `GapFound`.
        key: Stands for the job: while that is kept, another submission with this key gets the same job.
        queue: The queue to wait in; None for the executor's own.
        priority: The priority's name.
        time_limit: Seconds an attempt may take; None for the executor's own.
        retry: The retry policy; None for the executor's own.
        delay: Seconds until the earliest start.
        expires_in: Seconds within which the first attempt has to start.
        tags: Text by name, to find the job by; at most 1,000.
        metadata: Anything by name.
    """

    executor: str
    payload: Any = None
    subscribe: bool = False
    key: str | None = None
    queue: str | None = None
    priority: PriorityName = "NORMAL"
    time_limit: float | None = None
    retry: WireRetry | None = None
    delay: float | None = None
    expires_in: float | None = None
    tags: dict[str, str] | None = None
    metadata: dict[str, Any] | None = None


class Subscribe(Request, tag="subscribe", kw_only=True, frozen=True):
    """Watch a job. Answer: `Subscribed`, followed by the job's messages.

    Attributes:
        job: The job's id.
        after: The number of the last message that is not wanted, or ``"end"``.
        epoch: The epoch in which ``after`` was seen; None for any.
        on_gap: What to do about messages no longer kept: ``"raise"`` to end with `Refused`, ``"yield"`` to be told by
            `GapFound`.
    """

    job: str
    after: Cursor = 0
    epoch: str | None = None
    on_gap: OnGap = "raise"


class Unsubscribe(Request, tag="unsubscribe", kw_only=True, frozen=True):
    """Stop watching. Answer: `Ok`, and nothing of that subscription behind it.

    Attributes:
        sub: The subscription's number.
    """

    sub: SubId


class Cancel(Request, tag="cancel", kw_only=True, frozen=True):
    """Ask a job to end. Answer: `Ok` with ``cancelled``.

    Attributes:
        job: The job's id.
        reason: Why.
        grace: Seconds between telling the job to stop and cancelling it.
    """

    job: str
    reason: str | None = None
    grace: float = 0.0


class Get(Request, tag="get", kw_only=True, frozen=True):
    """Ask for a job's record. Answer: `JobFound`.

    Attributes:
        job: The job's id.
    """

    job: str


class Find(Request, tag="find", kw_only=True, frozen=True):
    """Ask for the records of the jobs that match, in the order of their submission. Answer: `JobsFound`.

    Attributes:
        tags: Tags that must all match.
        state: States, any of which matches; None for all.
        key: The key of the job, which at most one has; None for any job.
        limit: How many at most; no more than 1,000.
        after: The id of the last job of the page before.
        newest_first: Whether the newest come first, rather than the oldest.
    """

    tags: dict[str, str] | None = None
    state: list[JobState] | None = None
    key: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST_FOUND)] = 100
    after: str | None = None
    newest_first: bool = False


class Ping(Request, tag="ping", kw_only=True, frozen=True):
    """Ask for a sign of life. Answer: `Pong`."""


AnyRequest: TypeAlias = Auth | Submit | Subscribe | Unsubscribe | Cancel | Get | Find | Ping
"""Every message that a client may send."""
