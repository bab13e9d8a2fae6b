"""`RemoteJob`: the handle to one job of a server. It must not know connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobtrio._messages import End
from jobtrio._streams import TokenStream, unwrap

if TYPE_CHECKING:
    from jobtrio._records import JobRecord, Outcome
    from jobtrio._subscription import OnGap
    from jobtrio.websocket._client_feed import Start
    from jobtrio.websocket._client_subscription import RemoteSubscription
    from jobtrio.websocket.client import JobClient


class RemoteJob:
    """One job of a server, as its submitter and its watchers see it.

    Attributes:
        id: The job's id.
        record: What was known of the job when it was last asked for, by `JobClient.get` or `refresh`; None before.
        is_paused: Whether it then waited in a queue that was paused, as far as the server tells.
    """

    def __init__(self, id: str, owner: JobClient, record: JobRecord | None = None, *, is_paused: bool = False) -> None:
        self.id: str = id
        self.record: JobRecord | None = record
        self.is_paused: bool = is_paused
        self._owner = owner

    async def refresh(self) -> JobRecord:
        """Ask for the job's record, and return it.

        Raises what `JobClient.get` raises.

        Cancellation: nothing has changed.
        """
        found = await self._owner.get(self.id)
        assert found.record is not None  # it was asked for
        self.record, self.is_paused = found.record, found.is_paused
        return found.record

    def subscribe(self, after: Start = 0, *, epoch: str | None = None, on_gap: OnGap = "raise") -> RemoteSubscription:
        """Return a channel that receives the job's messages, as `JobClient.subscribe` does."""
        return self._owner.subscribe(self.id, after, epoch=epoch, on_gap=on_gap)

    def tokens(self, after: Start = 0) -> TokenStream:
        """Return an async iterator over the bare values that the job sends, after message number ``after``.

        At the job's end the iteration stops if the job completed, and otherwise raises.

        Raises:
            JobFailedError: While iterating: the job failed.
            JobCancelledError: While iterating: the job was cancelled.
            LaggedError: While iterating: messages are no longer kept. Further iteration goes on after them.
            JobtrioError, ValueError: While iterating: what `RemoteSubscription.receive` raises.
            TypeError, ValueError: ``after`` is neither a number of 0 or more nor ``"end"``.

        Cancellation: the job goes on, and no value is lost.
        """
        return TokenStream(self.id, self.subscribe(after), self.wait)

    async def wait(self) -> Outcome:
        """Wait until the job has ended and return its outcome.

        Raises what `RemoteSubscription.receive` raises.

        Cancellation: the job goes on.
        """
        with self.subscribe("end", on_gap="yield") as messages:
            while not isinstance(message := await messages.receive(), End):
                pass
            return message.outcome

    async def result(self) -> Any:
        """Wait until the job has ended and return what its executor returned.

        Raises:
            JobFailedError: The job failed.
            JobCancelledError: The job was cancelled.
            JobtrioError: What `RemoteSubscription.receive` raises.

        Cancellation: the job goes on.
        """
        return unwrap(self.id, await self.wait())

    async def cancel(self, reason: str | None = None, *, grace: float = 0.0) -> bool:
        """Ask the job to end, as `JobClient.cancel` does.

        Cancellation: the request may have been made.
        """
        return await self._owner.cancel(self.id, reason, grace=grace)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteJob) and other.id == self.id and other._owner is self._owner

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<RemoteJob {self.id!r}>"
