"""From what goes wrong to what a client is told of it.

It owns by which code a failure is told, and what of it is not. It must not know connections.
"""

from __future__ import annotations

from copy import copy
from typing import Any

import trio

from jobtrio._errors import (
    DuplicateJobError,
    PayloadError,
    QueueFullError,
    StoreError,
    UnknownExecutorError,
    UnknownJobError,
)
from jobtrio._submission import UnservedQueueError
from jobtrio.websocket._codes import ErrorCode
from jobtrio.websocket._replies import Refused

AWAY: str = "the store is away; try again"
"""All that clients are told of a store's failure: the error may name its server and who asks it."""


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """Something is refused.

    Attributes:
        code: By which code to say so.
        reply: What to answer, without the request's id.
    """

    def __init__(self, code: ErrorCode, message: str, **more: Any) -> None:
        super().__init__(code, message)
        self.code = code
        self.reply = Refused(code=code, message=message, **more)


def refusal_of(exc: Exception) -> Refusal:
    """Return how to tell a client of an exception; raise one that is a fault of jobtrio's own."""
    match exc:
        case Refusal():
            return copy(exc)  # or who keeps it would be kept by its traceback
        case UnknownJobError():
            return Refusal(ErrorCode.UNKNOWN_JOB, str(exc))
        case UnknownExecutorError():  # without the names that are known
            return Refusal(ErrorCode.UNKNOWN_EXECUTOR, f"no executor {exc.name!r} can be submitted to")
        case PayloadError():
            return Refusal(ErrorCode.PAYLOAD, str(exc))
        case DuplicateJobError():
            return Refusal(ErrorCode.DUPLICATE_JOB, str(exc))
        case QueueFullError():
            return Refusal(ErrorCode.QUEUE_FULL, str(exc), limit=exc.limit)
        case StoreError():
            return Refusal(ErrorCode.UNAVAILABLE, AWAY)
        case trio.ClosedResourceError():
            return Refusal(ErrorCode.UNAVAILABLE, "the server is shutting down")
        case UnservedQueueError():  # without the queues that are served
            return Refusal(ErrorCode.INVALID, f"queue must be one that this server serves; got {exc.queue!r}")
        case ValueError() | TypeError():
            return Refusal(ErrorCode.INVALID, str(exc))
    raise exc
