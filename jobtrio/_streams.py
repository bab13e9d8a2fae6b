"""A job's stream in two plainer forms: its bare values, and lines of text.

Each wraps a subscription and translates the ending. It must not know where messages come from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from jobtrio._checks import text_by
from jobtrio._errors import JobCancelledError, JobFailedError
from jobtrio._messages import End, Token
from jobtrio._records import Completed, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from jobtrio._messages import Message


def unwrap(job_id: str, outcome: Outcome) -> Any:
    """Return the result of a completed job.

    Raises:
        JobFailedError: The job failed.
        JobCancelledError: The job was cancelled.
    """
    if isinstance(outcome, Completed):
        return outcome.result
    if isinstance(outcome, Failed):
        raise JobFailedError(job_id, outcome.error)
    raise JobCancelledError(job_id, outcome.reason)


class TokenStream:
    """The bare values that a job sends: an async iterator that stops on success and raises otherwise."""

    def __init__(
        self, job_id: str, subscription: AsyncIterator[Message], wait: Callable[[], Awaitable[Outcome]]
    ) -> None:
        self._job_id = job_id
        self._subscription = subscription
        self._wait = wait
        self._outcome: Outcome | None = None

    def __aiter__(self) -> TokenStream:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> Any:
        while True:
            try:
                message = await self._subscription.__anext__()
            except StopAsyncIteration:
                if self._outcome is None:
                    self._outcome = await self._wait()  # it began behind the `End`, and was given none
                unwrap(self._job_id, self._outcome)
                raise
            if isinstance(message, Token):
                return message.value
            if isinstance(message, End):
                self._outcome = message.outcome
                unwrap(self._job_id, message.outcome)


class TextStream:
    """A job's stream as plain text: each token as ``str``, then one line that says how it ended.

    An async iterator; ``[DONE]``, ``[ERROR] message`` or ``[CANCELLED]`` comes last, exactly once.
    """

    def __init__(self, subscription: AsyncIterator[Message]) -> None:
        self._subscription = subscription

    def __aiter__(self) -> TextStream:
        return self

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> str:
        while True:
            message = await self._subscription.__anext__()
            if isinstance(message, Token):
                return text_by(message.value, str, "a {} whose text")
            if isinstance(message, End):
                return _ending(message.outcome)


def _ending(outcome: Outcome) -> str:
    if isinstance(outcome, Completed):
        return "[DONE]"
    if isinstance(outcome, Failed):
        return "[ERROR] " + (" ".join(outcome.error.message.split()) or outcome.error.type)
    return "[CANCELLED]"
