"""One subscription of a connection: takes what is pending and sends it, in as few messages as may be.

It owns what a client is told of a stream: batches, gaps, the ending, and why a stream can't go on. It must not know
what else the connection does.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, TypeAlias

import attrs
import trio
from msgspec.structs import replace

from jobtrio._errors import StoreUnavailableError
from jobtrio._job import has_stored
from jobtrio._messages import End, Gap, last_of
from jobtrio._state import JobState
from jobtrio._subscription import BATCH
from jobtrio._token_log import CUT_OFF
from jobtrio.websocket._batches import plain_texts, replies
from jobtrio.websocket._codes import ErrorCode
from jobtrio.websocket._refusals import AWAY, Refusal
from jobtrio.websocket._replies import Subscribed
from jobtrio.websocket._translation import progress_made
from jobtrio.websocket.protocol import encode_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobtrio._job import Job
    from jobtrio._messages import Message
    from jobtrio._records import JobRecord, Outcome
    from jobtrio._subscription import Subscription
    from jobtrio.websocket._limits import Limits
    from jobtrio.websocket._requests import OnGap
    from jobtrio.websocket.session import Session

Ending: TypeAlias = "Outcome | ErrorCode"
"""How a feed ended: with the job's outcome, or because it can't go on."""


@attrs.frozen
class Start:
    """Where a subscription is to begin.

    Attributes:
        after: The number of the last message that is not wanted, or "end".
        epoch: The epoch that this number is of; None for any.
        on_gap: What to do about messages no longer kept.
    """

    after: int | Literal["end"]
    epoch: str | None
    on_gap: OnGap


def epoch_of(record: JobRecord) -> str:
    """Return what names the incarnation of a job's stream: the same in every process, another for another job."""
    made = f"{record.id}\n{record.created_at.isoformat(timespec='microseconds')}"
    return blake2b(made.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class Feed:
    """A client's place in one job's stream.

    Args:
        subscription: The job's stream, with gaps as messages.
        sub: The subscription's number; None on a tail.
        on_gap: What the client wants done about gaps.
        plain: Whether it is sent nothing but the tokens' text.

    Attributes:
        job: The job.
        last: The number of the last message that was sent.
        has_ended: Whether the client was told how it ended.
        left: Set once nothing more is sent.
        tracebacks: Whether the client may see tracebacks, from now on.
    """

    def __init__(
        self,
        job: Job,
        subscription: Subscription,
        *,
        sub: int | None,
        on_gap: OnGap,
        tracebacks: bool,
        plain: bool = False,
    ) -> None:
        self.job: Job = job
        self.last: int = subscription.position
        self.has_ended: bool = False
        self.left: trio.Event = trio.Event()
        self._subscription = subscription
        self._sub = sub
        self._stops_at_gaps = on_gap == "raise"
        self.tracebacks: bool = tracebacks
        self._plain = plain
        self._was_full = False  # the last batch
        self._is_hurried = False
        self._pause = trio.CancelScope()  # in which it waits for its next batch

    def close(self) -> None:
        """Send nothing more."""
        self._pause.cancel()
        self._subscription.close()
        self.left.set()

    def hurry(self) -> None:
        """Collect no more messages for a batch: there is little time left to send what there is."""
        self._is_hurried = True
        self._pause.cancel()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def run(self, session: Session) -> Ending | None:
        """Send the job's messages until its end; return how it ended, or None once it is closed.

        Cancellation: no message is cut in half.
        """
        while True:
            await self._subscription._arrived()
            async with session.outbox:
                ending = await self._take_turn(session)
                self.has_ended = ending is not None
            if ending is not None or self.left.is_set():
                return ending
            await self._wait_flush(session)

    async def _take_turn(self, session: Session) -> Ending | None:
        """Take what is there and send it; return how the feed ended, if it has.

        What is there is taken in this turn and not kept: else each of a slow client's many streams would hold a batch.
        """
        try:
            batch = self._subscription._take_there()
        except trio.ClosedResourceError:
            return None
        except StoreUnavailableError:
            return await self._give_up(session, Refusal(ErrorCode.UNAVAILABLE, AWAY))
        except CUT_OFF as exc:
            return await self._give_up(session, Refusal(ErrorCode.UNAVAILABLE, str(exc)))
        except ValueError as exc:
            return await self._give_up(session, Refusal(ErrorCode.FUTURE_CURSOR, str(exc)))
        self._was_full = len(batch) >= BATCH
        return await self._pass_on(session, batch)

    async def _pass_on(self, session: Session, batch: list[Message]) -> Ending | None:
        """Send a batch, of which the first message alone may be a gap; return how the feed ended, if it has."""
        if not batch:  # it was woken for nothing
            return None
        first, last = batch[0], batch[-1]
        if self._stops_at_gaps and isinstance(first, Gap):
            return await self._give_up(session, _outdated(first.first, first.last))
        for text in self._texts(batch, session.terms.limits):
            if self.left.is_set():  # meanwhile, by an unsubscribe that waits for the outbox
                return None
            await session.send(text)
        self.last = last_of(last)
        return last.outcome if isinstance(last, End) else None

    async def _wait_flush(self, session: Session) -> None:
        """Wait until the next batch may go out: at the same moments for all sessions, which then share a wake-up."""
        interval = session.flush_interval(behind_full=self._was_full)
        if interval and not self._is_hurried:
            with trio.CancelScope() as self._pause:
                await session.terms.beats.wait(interval)

    def _texts(self, messages: list[Message], limits: Limits) -> Iterator[str]:
        if self._plain:
            return plain_texts(messages, items=limits.batch_items, size=limits.batch_bytes)
        return replies(
            messages,
            sub=self._sub,
            tracebacks=self.tracebacks,
            items=limits.batch_items,
            size=limits.batch_bytes,
        )

    async def _give_up(self, session: Session, refusal: Refusal) -> Ending:
        if not self._plain:
            await session.send(encode_reply(replace(refusal.reply, sub=self._sub)))
        return refusal.code


async def open_feed(
    job: Job, start: Start, *, sub: int | None, tracebacks: bool, plain: bool = False, paused: bool = False
) -> tuple[Feed, Subscribed]:
    """Return a job's feed from where it is to begin, and what to answer. The job is known and may be seen.

    Args:
        job: The job.
        start: Where to begin.
        sub: The subscription's number; None on a tail.
        tracebacks: Whether tracebacks may be seen.
        plain: Whether the tokens' text alone is shown.
        paused: Whether its queue is paused, as far as it still waits there.

    Raises:
        Refusal: There is no such place, or it is not known here yet.
        StoreUnavailableError: The store was away too long.

    Cancellation: nothing has changed.
    """
    epoch = epoch_of(job.record)
    if start.epoch is not None and start.epoch != epoch:
        message = "the job's stream is another one than the cursor is of: begin from 0"
        raise Refusal(ErrorCode.WRONG_EPOCH, message, epoch=epoch)
    span = await job.span()
    first, last = span.first, span.last
    # From here on nothing waits, unless to refuse: what is answered is what the subscription begins with.
    after = last if start.after == "end" else start.after
    if after > last:
        if not span.is_complete and await has_stored(job, after):  # and was shown elsewhere
            message = f"message {after} is not known here yet; try again"
            raise Refusal(ErrorCode.UNAVAILABLE, message)
        message = f"after must be the number of a message so far, 0 to {last}; got {after}"
        raise Refusal(ErrorCode.FUTURE_CURSOR, message, last=last)
    if after < first - 1 and start.on_gap == "raise":
        raise _outdated(after + 1, first - 1)
    if span.is_complete and after == last:
        after = last - 1  # the end once more
    subscription = job.subscribe(after, on_gap="yield", stored=True)
    feed = Feed(job, subscription, sub=sub, on_gap=start.on_gap, tracebacks=tracebacks, plain=plain)
    answer = Subscribed(
        sub=sub,
        job=job.id,
        epoch=epoch,
        state=job.record.state,
        attempt=job.record.attempt,
        first=first,
        last=last,
        progress=progress_made(span.progress) if start.after == "end" and span.progress is not None else None,
        paused=paused and job.record.state is JobState.QUEUED,
    )
    return feed, answer


def _outdated(first: int, last: int) -> Refusal:
    message = f"messages {first} to {last} are no longer kept"
    return Refusal(ErrorCode.OUTDATED_CURSOR, message, first=first, last=last)
