"""What is said over one connection: which request comes next, and what an answer is the answer to.

It begins with all that the client wants, and ends with the connection. Pure: it says what to send next, and takes what
came. It must not know how either travels.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from jobtrio._errors import PayloadError
from jobtrio.websocket._client_calls import Call
from jobtrio.websocket._client_errors import ServerRefusedError, WrongEpochError, error_of
from jobtrio.websocket._client_feed import BrokenStreamError
from jobtrio.websocket._replies import Answer
from jobtrio.websocket.protocol import (
    Ended,
    ErrorCode,
    Events,
    GapFound,
    Heartbeat,
    ProgressMade,
    Refused,
    Restarted,
    Submit,
    Subscribe,
    Subscribed,
    Unsubscribe,
    encode_request,
    messages_of,
    progress_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jobtrio.websocket._client_calls import Calls
    from jobtrio.websocket._client_feed import Feed
    from jobtrio.websocket.protocol import AnyReply, AnyRequest, HelloLimits, JobStreamReply, ProtocolError

PAUSE: Final = 0.5
"""Seconds until what the server can't do now is asked for again."""

RATE_PAUSE: Final = 1.0
"""Seconds until a request is made again that was one too many in its second."""


class Exchange:
    """How far one connection is with what a client wants.

    Attributes:
        has_progressed: Whether the connection was of use so far. That a subscription was accepted does not count: a
            server that falls over what follows would be asked again at once, and without end.
    """

    def __init__(self, calls: Calls, feeds: dict[Feed, None], limits: HelloLimits, on_due: Callable[[], None]) -> None:
        self.has_progressed: bool = False
        self._calls = calls
        self._feeds = feeds
        self._limits = limits
        self._on_due = on_due
        self._due: dict[Call | Feed | Unsubscribe, None] = {}  # may have something to send, the first to come first
        self._later: list[tuple[float, int, Call | Feed | Unsubscribe]] = []
        self._crowded: dict[Feed, None] = {}  # wait for a place
        self._asked: dict[int, Feed] = {}  # subscriptions that were not answered yet, by request
        self._live: dict[int, Feed] = {}  # by the server's number
        self._numbers: dict[Feed, int] = {}  # the other way round
        self._leaving: dict[int, Unsubscribe] = {}  # what was given up and keeps its place, by request
        self.refuse_excess()
        self._due.update(dict.fromkeys(calls))
        self._due.update(dict.fromkeys(feeds))

    # -- what to send

    def look_at(self, thing: Call | Feed | Unsubscribe) -> None:
        """See whether there is something to send for a call or a feed, or to give one up."""
        self._due[thing] = None
        self._on_due()

    def refuse_excess(self) -> None:
        """Fail the newest feeds where there are more than the server takes, those included that pause."""
        most = self._limits.subscriptions
        for feed in tuple(self._feeds)[most:]:
            why = f"this server takes {most} subscriptions a connection: open another client"
            feed.fail(ServerRefusedError(ErrorCode.TOO_MANY_SUBSCRIPTIONS, why))

    def next_text(self, now: float) -> str | None:
        """Return the next message to send, or None where there is none for now."""
        while self._later and self._later[0][0] <= now:
            self._due[heappop(self._later)[2]] = None
        while self._due:
            thing = next(iter(self._due))
            del self._due[thing]
            if (text := self._text(thing)) is not None:
                return text
        return None

    @property
    def next_time(self) -> float | None:
        """When there will be something to send, where that is known."""
        return self._later[0][0] if self._later else None

    def _text(self, thing: Call | Feed | Unsubscribe) -> str | None:
        match thing:
            case Call():
                return self._call_text(thing)
            case Unsubscribe():
                return encode_request(thing)
            case _:
                return self._feed_text(thing)

    def _call_text(self, call: Call) -> str | None:
        if call not in self._calls:
            return None
        error = self._excess(call.text) or self._unknown(call.request)
        if error is not None:
            self._calls.finish(call, error)
            return None
        return call.text

    def _feed_text(self, feed: Feed) -> str | None:
        number = self._numbers.get(feed)
        if number is not None and (feed.has_dropped or not feed.is_wanting):
            self._forget(feed)
            self._due[feed] = None  # it may want to go on already
            return encode_request(self._give_up(number))
        if number is None and feed.is_wanting and feed not in self._asked.values():
            return self._subscribe_text(feed)
        return None

    def _subscribe_text(self, feed: Feed) -> str | None:
        if len(self._live) + len(self._asked) + len(self._leaving) >= self._limits.subscriptions:
            self._crowded[feed] = None  # until the server has let go of one that its consumer has left
            return None
        id = next(self._calls.ids)
        request = Subscribe(id=id, job=feed.job_id, after=feed.position, epoch=feed.epoch, on_gap="yield")
        text = encode_request(request)
        if (error := self._excess(text)) is not None:
            feed.fail(error)
            return None
        self._asked[id] = feed
        return text

    def _excess(self, text: str) -> PayloadError | None:
        """Return the error for a request that is larger than the server takes: it would close the connection."""
        most, size = self._limits.message_bytes, len(text.encode())
        if size <= most:
            return None
        return PayloadError(f"a request must be at most {most} bytes for this server; got {size}")

    def _unknown(self, request: AnyRequest) -> ServerRefusedError | None:
        """Return the error for a request of which this server would pass over a part that changes what is done."""
        if isinstance(request, Submit) and request.retry is not None and self._limits.attempts is None:
            return ServerRefusedError("protocol", "the server does not know of retry policies of clients")
        return None

    def _look_later(self, thing: Call | Feed | Unsubscribe, at: float) -> None:
        heappush(self._later, (at, next(self._calls.ids), thing))
        self._on_due()

    def _free_place(self) -> None:
        """Look again at those that wait for a place."""
        self._due.update(dict.fromkeys(self._crowded))
        self._crowded.clear()
        self._on_due()

    # -- what came

    def take(self, reply: AnyReply, size: int, now: float) -> None:
        """Take a message of the server's, which was ``size`` bytes."""
        match reply:
            case Events() | ProgressMade() | Restarted() | GapFound() | Ended():
                self._take_stream(reply, size)
            case Heartbeat(last=dict(last)):
                self.has_progressed = True
                self._check_last(last.items())
            case Refused():
                self._take_refusal(reply, now)
            case Subscribed():
                self._take_subscribed(reply)
            case Answer(id=id):
                self._note_left(id)
                if (call := self._calls.find(id)) is not None:
                    self.has_progressed = True
                    self._calls.finish(call, reply)

    def take_unread(self, exc: ProtocolError) -> bool:
        """Fail what a message was about that can't be read here, and tell whether that is known."""
        error = ServerRefusedError("protocol", f"what it sent can't be read here: {exc}")
        id = exc.id if isinstance(exc.id, int) else -1
        number = exc.sub if isinstance(exc.sub, int) else None
        if (asking := self._asked.pop(id, None)) is not None:
            asking.fail(error)
            self._free_place()
            if number is not None and number not in self._live:
                self.look_at(self._give_up(number))
            return number is not None  # without it, what the server sends can't be stopped
        if (call := self._calls.find(id)) is not None:
            self._calls.finish(call, error)
            return True
        if number is not None and (feed := self._live.get(number)) is not None:
            feed.fail(error)
        # It may be given up already, and the server did not know yet.
        return self._note_left(id) or number is not None

    def _take_stream(self, reply: JobStreamReply, size: int) -> None:
        feed = self._live.get(-1 if reply.sub is None else reply.sub)
        if feed is None:  # given up, and the server did not know yet
            return
        self.has_progressed = True
        try:
            feed.take(messages_of(reply), size)
        except BrokenStreamError as exc:
            feed.fail(_broken(feed, str(exc)))
        if isinstance(reply, Ended):
            self._forget(feed)
            self._free_place()
            self.look_at(feed)  # one that pauses has not taken it, and asks again

    def _check_last(self, last: Iterable[tuple[str, int]]) -> None:
        """See that nothing is missing of what the server says it has sent."""
        live = {str(number): feed for number, feed in self._live.items()}
        for number, seq in last:
            feed = live.get(number)
            if feed is None or feed.has_dropped or not feed.is_wanting:
                continue
            if feed.position != "end" and seq > feed.position:
                feed.fail(_broken(feed, f"message {seq} was sent, and {feed.position} was the last that came"))

    def _take_subscribed(self, reply: Subscribed) -> None:
        feed = self._asked.pop(reply.id, None) if isinstance(reply.id, int) else None
        if feed is None:
            return
        if reply.sub is None or reply.sub in self._live:
            feed.fail(_broken(feed, f"it has the number {reply.sub}"))
        else:
            self._live[reply.sub] = feed
            self._numbers[feed] = reply.sub
            feed.place(reply.last, reply.epoch, None if reply.progress is None else progress_of(reply.progress))
            self.look_at(feed)  # its consumer may have left meanwhile

    def _take_refusal(self, refused: Refused, now: float) -> None:
        id = refused.id if isinstance(refused.id, int) else -1
        if refused.sub is not None and (feed := self._live.get(refused.sub)) is not None:
            self._forget(feed)
            self._free_place()
            self._refuse_feed(feed, refused, now)
        elif (asking := self._asked.pop(id, None)) is not None:
            self._free_place()
            self._refuse_feed(asking, refused, now)
        elif (call := self._calls.find(id)) is not None:
            self._refuse_call(call, refused, now)
        elif refused.code == ErrorCode.RATE and id in self._leaving:
            self._look_later(self._leaving[id], now + RATE_PAUSE)
        else:
            self._note_left(id)

    def _refuse_call(self, call: Call, refused: Refused, now: float) -> None:
        match refused.code:
            case ErrorCode.RATE:
                self._look_later(call, now + RATE_PAUSE)
            case ErrorCode.UNAVAILABLE:
                call.put_off(error_of(refused, call.subject))
                self._look_later(call, now + PAUSE)
            case _:
                self._calls.finish(call, error_of(refused, call.subject))

    def _refuse_feed(self, feed: Feed, refused: Refused, now: float) -> None:
        match refused.code:
            case ErrorCode.RATE:
                self._look_later(feed, now + RATE_PAUSE)
            case ErrorCode.UNAVAILABLE:
                self._look_later(feed, now + PAUSE)
            case ErrorCode.FUTURE_CURSOR if feed.is_placed:
                feed.fail(WrongEpochError(feed.job_id))
            case _:
                feed.fail(error_of(refused, feed.job_id))

    def _forget(self, feed: Feed) -> None:
        """Take nothing more for a subscription: it is over, or given up."""
        del self._live[self._numbers.pop(feed)]

    def _give_up(self, number: int) -> Unsubscribe:
        """Return what gives a subscription up; its place is not free before the server has answered."""
        id = next(self._calls.ids)
        self._leaving[id] = request = Unsubscribe(id=id, sub=number)
        return request

    def _note_left(self, id: Any) -> bool:
        """Take it that the server has answered what gives a subscription up, if it is that; tell whether it is."""
        is_left = self._leaving.pop(id, None) is not None
        if is_left:
            self._free_place()
        return is_left


def _broken(feed: Feed, why: str) -> ServerRefusedError:
    return ServerRefusedError("protocol", f"the stream of job {feed.job_id!r} is broken: {why}")
