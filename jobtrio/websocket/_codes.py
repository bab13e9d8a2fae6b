"""The codes of the wire protocol: why a request was refused, and why a connection was closed.

It owns their names and numbers, and which of them are worth another try. It must not know who sends them.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from jobtrio._errors import JobtrioError

if TYPE_CHECKING:
    from jobtrio.websocket._requests import MessageId


class ErrorCode(StrEnum):
    """Why a request was refused: the ``code`` of an ``error``."""

    INVALID = "invalid"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_JOB = "unknown_job"
    UNKNOWN_EXECUTOR = "unknown_executor"
    UNKNOWN_SUB = "unknown_sub"
    FUTURE_CURSOR = "future_cursor"
    OUTDATED_CURSOR = "outdated_cursor"
    WRONG_EPOCH = "wrong_epoch"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    RATE = "rate"
    PAYLOAD = "payload"
    DUPLICATE_JOB = "duplicate_job"
    QUEUE_FULL = "queue_full"
    UNAVAILABLE = "unavailable"


class CloseCode(IntEnum):
    """Why a connection was closed.

    `TOO_BIG` and those from 4400 to 4413 are final: the same request would be refused again. After `RATE`, `DRAINING`,
    `TOO_SLOW`, `GOING_AWAY`, `INTERNAL` and `RESTART` a client may come back and resume where it left off.
    """

    COMPLETED = 1000  # a tail's job completed; elsewhere the usual close
    GOING_AWAY = 1001
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    FAILED = 4010
    CANCELLED = 4011
    TIMED_OUT = 4012
    INVALID = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    UNKNOWN_JOB = 4404
    AUTH_TIMEOUT = 4408
    BAD_CURSOR = 4409
    TOO_MANY_FRAMES = 4413
    RATE = 4429
    DRAINING = 4503
    TOO_SLOW = 4508


OUTCOME_CODES: frozenset[int] = frozenset(
    {CloseCode.COMPLETED, CloseCode.FAILED, CloseCode.CANCELLED, CloseCode.TIMED_OUT}
)
"""The codes by which a tail tells its job's outcome."""

FINAL_CODES: frozenset[int] = frozenset(
    code for code in CloseCode if code is CloseCode.TOO_BIG or CloseCode.INVALID <= code <= CloseCode.TOO_MANY_FRAMES
)
"""The codes after which the same would happen again: do not retry. After all others that tell no outcome, do."""


class ProtocolError(JobtrioError, ValueError):
    """A message that is not part of the protocol.

    Attributes:
        code: ``"invalid"`` or ``"unknown_type"``.
        message: What is wrong with it.
        id: The message's ``id``, where it has a usable one.
        sub: Its ``sub``, likewise.
    """

    def __init__(
        self, code: ErrorCode, message: str, id: MessageId | None = None, sub: MessageId | None = None
    ) -> None:
        super().__init__(code, message, id, sub)
        self.code: ErrorCode = code
        self.message: str = message
        self.id: MessageId | None = id
        self.sub: MessageId | None = sub

    def __str__(self) -> str:
        return self.message
