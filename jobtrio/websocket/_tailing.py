"""The tail: a connection that shows one job's stream and asks nothing of its client.

It owns what a tail's address may say, and by which code it is closed. It must not know what carries it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeVar, assert_never
from urllib.parse import parse_qsl, unquote

import attrs
import trio

from jobtrio._checks import show
from jobtrio._records import Cancelled, Completed, Failed
from jobtrio.websocket._codes import CloseCode, ErrorCode
from jobtrio.websocket._desk import Desk
from jobtrio.websocket._feed import Feed, Start, open_feed
from jobtrio.websocket._gatekeeper import Stranger
from jobtrio.websocket._refusals import Refusal, refusal_of
from jobtrio.websocket._replies import Heartbeat
from jobtrio.websocket._requests import LARGEST, OnGap
from jobtrio.websocket.session import Session

if TYPE_CHECKING:
    from jobtrio._records import Outcome
    from jobtrio.websocket._feed import Ending

PREFIX = "/jobs/"
"""What a tail's path begins with; the job's id follows."""

ON_GAP: tuple[OnGap, ...] = ("yield", "raise")

MOST_FIELDS = 50
"""Fields of a query, at most: those that are not known are passed over."""

T = TypeVar("T", bound=str)

_CLOSE_CODES: dict[ErrorCode, CloseCode] = {
    ErrorCode.INVALID: CloseCode.INVALID,
    ErrorCode.UNAUTHENTICATED: CloseCode.UNAUTHENTICATED,
    ErrorCode.FORBIDDEN: CloseCode.FORBIDDEN,
    ErrorCode.UNKNOWN_JOB: CloseCode.UNKNOWN_JOB,
    ErrorCode.FUTURE_CURSOR: CloseCode.BAD_CURSOR,
    ErrorCode.OUTDATED_CURSOR: CloseCode.BAD_CURSOR,
    ErrorCode.WRONG_EPOCH: CloseCode.BAD_CURSOR,
    ErrorCode.UNAVAILABLE: CloseCode.DRAINING,
}


@attrs.frozen
class TailAddress:
    """What a tail's address asks for.

    Attributes:
        job_id: The job.
        start: Where to begin.
        is_plain: Whether nothing is to be sent but the tokens' text.
    """

    job_id: str
    start: Start
    is_plain: bool


def parse_tail(path: str, query: str) -> TailAddress:
    """Return what the address of a tail asks for.

    Raises:
        ValueError: It makes no sense.
    """
    given = _fields_of(query)
    text = given.get("after", "0")
    after: int | Literal["end"]
    if text == "end":
        after = "end"
    elif re.fullmatch("[0-9]{1,19}", text) and int(text) <= LARGEST:
        after = int(text)
    else:
        raise ValueError(f"after must be the number of a message, 0 to {LARGEST}, or end; got {show(text)}")
    is_plain = _one_of(given, "format", "json", ("json", "text")) == "text"
    # Text can't tell of a gap: where there is one, the stream can't be shown.
    on_gap = "raise" if is_plain else _one_of(given, "on_gap", "yield", ON_GAP)
    return TailAddress(unquote(path[len(PREFIX) :]), Start(after, given.get("epoch"), on_gap), is_plain)


def _fields_of(query: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS))
    except ValueError as exc:
        raise ValueError(f"the query must be UTF-8, and at most {MOST_FIELDS} fields; got {show(query)}") from exc


def _one_of(given: dict[str, str], name: str, default: T, allowed: tuple[T, ...]) -> T:
    text = given.get(name, default)
    for value in allowed:
        if value == text:
            return value
    raise ValueError(f"{name} must be {' or '.join(allowed)}; got {show(text)}")


class TailSession(Session):
    """A connection that shows one job."""

    _feed: Feed | None = None
    _is_plain = False

    def feeds(self) -> list[Feed]:
        """Return what it shows of a job now."""
        return [] if self._feed is None else [self._feed]

    async def _speak(self) -> None:
        self._nursery.start_soon(self._guarded, self._listen)
        self._is_plain = "format=text" in self._handshake.query  # also where that makes no sense
        try:
            address = parse_tail(self._handshake.path, self._handshake.query)
            self._is_plain = address.is_plain
            await self._show(address)
        except Stranger as exc:
            code = ErrorCode.FORBIDDEN if exc.known else ErrorCode.UNAUTHENTICATED
            await self._leave(Refusal(code, "the client was refused"))
        except Exception as exc:
            await self._leave(refusal_of(exc))

    async def _show(self, address: TailAddress) -> None:
        with trio.move_on_at(self._deadline) as scope:
            principal = await self.terms.gatekeeper.identify(self._handshake)
        if scope.cancelled_caught:
            await self._tell(Refusal(ErrorCode.UNAUTHENTICATED, "nobody said in time who the client is"))
            self.stop(CloseCode.AUTH_TIMEOUT)
            return
        desk = Desk(self.terms.registry, self.terms.gatekeeper, principal)
        job = await desk.find_job(address.job_id, "subscribe")
        tracebacks = await desk.allows("traceback", job.record)
        paused = not self._is_plain and await self.terms.pauses.hold(job.record)
        feed, answer = await open_feed(
            job, address.start, sub=None, tracebacks=tracebacks, plain=self._is_plain, paused=paused
        )
        with feed:
            self._feed = feed
            if not self._is_plain:
                await self.say(answer)
            self._close_after(await feed.run(self))

    def _close_after(self, ending: Ending | None) -> None:
        match ending:
            case None:
                pass
            case ErrorCode.OUTDATED_CURSOR:
                self.stop(CloseCode.TOO_SLOW, self.terms.retry_after())
            case ErrorCode():
                self._stop_for(ending)
            case _:
                self.stop(code_of(ending))

    async def _leave(self, refusal: Refusal) -> None:
        await self._tell(refusal)
        self._stop_for(refusal.code)

    async def _tell(self, refusal: Refusal) -> None:
        if not self._is_plain:
            await self.say(refusal.reply)

    def _stop_for(self, code: ErrorCode) -> None:
        close = _CLOSE_CODES[code]
        self.stop(close, self.terms.retry_after() if close is CloseCode.DRAINING else "")

    async def _listen(self) -> None:
        """Pass over what the client says, as long as it is not too much."""
        while True:
            await self._receive()

    def _sign_of_life(self) -> Heartbeat | None:
        return None if self._is_plain or self._feed is None else Heartbeat(last=self._feed.last)


def code_of(outcome: Outcome) -> CloseCode:
    """Return the close code by which a tail tells an outcome."""
    match outcome:
        case Completed():
            return CloseCode.COMPLETED
        case Failed(error):
            return CloseCode.TIMED_OUT if error.kind == "timeout" else CloseCode.FAILED
        case Cancelled():
            return CloseCode.CANCELLED
        case _:
            assert_never(outcome)


def is_tail(path: str) -> bool:
    """Tell whether a path is a tail's."""
    return path.startswith(PREFIX) and len(path) > len(PREFIX)
