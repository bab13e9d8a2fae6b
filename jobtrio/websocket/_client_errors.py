"""The errors that only a client can meet, and which error stands for what a server refuses.

Where the registry would have raised one of its own errors, that is raised here as there. Pure. It must not know who
asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobtrio._errors import (
    DuplicateJobError,
    JobtrioError,
    LaggedError,
    PayloadError,
    QueueFullError,
    StoreUnavailableError,
    UnknownExecutorError,
    UnknownJobError,
)
from jobtrio.websocket.protocol import FINAL_CODES, ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from jobtrio.websocket._client_link import LinkLostError
    from jobtrio.websocket.protocol import Refused

PASSING_STATUSES = {408, 425, 429} | set(range(500, 600)) - {501, 505}
"""The HTTP statuses of a server, or of a proxy before it, that another time may accept the connection.

Of those from 500 on, proxies have more than are registered, such as 521 for a server that is down.
"""

NOT_FOUND = 404
"""The status of a place where there is nothing, or nothing now."""


class ServerUnavailableError(JobtrioError, ConnectionError):
    """The server could not be reached in time, or did not answer. The call may have been carried out."""


class ServerRefusedError(JobtrioError):
    """The server will not do what was asked, however often it is asked.

    Attributes:
        code: The protocol's code for it, such as ``"forbidden"``, the close code, or the HTTP status, as text.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        why = f" ({self.code}): {self.message}" if self.message else f": {self.code}"
        return f"the server refused{why}"


class WrongEpochError(JobtrioError):
    """The stream that was to be resumed is gone, and the job's id stands for another: its numbers mean nothing here.

    Attributes:
        job_id: The job's id.
    """

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"the stream of job {self.job_id!r} is another than the one that was begun: subscribe from 0"


class NotExposedError(UnknownExecutorError):
    """As the server sees it: which executors there are is not for clients to know."""

    def __str__(self) -> str:
        return f"the server exposes no executor called {self.name!r}"


class KeyInUseError(DuplicateJobError):
    """As the server sees it: which job a key belongs to that this client may not see is not for it to know."""

    def __str__(self) -> str:
        return "the key belongs to another job, which this client may not see: give another"


def error_of(refused: Refused, subject: str) -> Exception:
    """Return the error that a refusal stands for.

    Args:
        refused: What the server said.
        subject: The job's id or the executor's name that it was about.
    """
    make = _ERRORS.get(refused.code)
    return ServerRefusedError(refused.code, refused.message) if make is None else make(refused, subject)


def final_error_of(lost: LinkLostError, *, was_found: bool) -> ServerRefusedError | None:
    """Return the error of a connection that would be lost or refused again, or None where another try may help.

    Args:
        lost: The connection.
        was_found: Whether there was one before. Then the place is right, and a proxy that finds nobody there may again.
    """
    if lost.is_final or lost.code in FINAL_CODES:
        return ServerRefusedError(str(lost.code or "protocol"), lost.reason)
    passing = PASSING_STATUSES | {NOT_FOUND} if was_found else PASSING_STATUSES
    if lost.status is not None and lost.status not in passing:
        return ServerRefusedError(str(lost.status), lost.reason)
    return None


_ERRORS: dict[str, Callable[[Refused, str], Exception]] = {
    ErrorCode.INVALID: lambda refused, _: ValueError(refused.message),
    ErrorCode.UNKNOWN_JOB: lambda _, subject: UnknownJobError(subject),
    ErrorCode.UNKNOWN_EXECUTOR: lambda _, subject: NotExposedError(subject),
    ErrorCode.FUTURE_CURSOR: lambda refused, _: ValueError(refused.message),
    ErrorCode.OUTDATED_CURSOR: lambda refused, _: LaggedError(refused.first or 0, refused.last or 0),
    ErrorCode.WRONG_EPOCH: lambda _, subject: WrongEpochError(subject),
    ErrorCode.PAYLOAD: lambda refused, _: PayloadError(refused.message),
    ErrorCode.DUPLICATE_JOB: lambda *_: KeyInUseError(""),
    ErrorCode.QUEUE_FULL: lambda refused, _: QueueFullError(refused.limit or 0),
    ErrorCode.UNAVAILABLE: lambda refused, _: StoreUnavailableError(refused.message),
}
