"""The errors that only a client can meet. All others are those of the registry, raised here as there."""

from __future__ import annotations

from jobtrio._errors import JobtrioError


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
        return (
            f"the server refused ({self.code}): {self.message}" if self.message else f"the server refused: {self.code}"
        )


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
