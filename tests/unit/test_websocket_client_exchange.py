"""What a client says over a connection, step by step: the orders of events that a real connection seldom has."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from scripted_bridge import end, events

from jobtrio import JobState
from jobtrio.websocket import ServerRefusedError, _client_feed
from jobtrio.websocket._client_book import Book
from jobtrio.websocket._client_exchange import PAUSE, RATE_PAUSE
from jobtrio.websocket._client_feed import Feed
from jobtrio.websocket.protocol import (
    AnyReply,
    AnyRequest,
    ErrorCode,
    Get,
    Heartbeat,
    HelloLimits,
    Ok,
    ProtocolError,
    Refused,
    Subscribe,
    Subscribed,
    Unsubscribe,
    decode_request,
)


class Wire:
    """A book and its connection, with the clock in hand."""

    def __init__(self, **limits: Any) -> None:
        self.rung = 0
        self.book = Book(self._ring)
        self.now = 0.0
        given = {"message_bytes": 65536, "subscriptions": 32, "messages_per_second": 50.0, **limits}
        self.limits = HelloLimits(**given)
        self.attach()

    def attach(self, **limits: int) -> None:
        """Begin with a new connection."""
        self.exchange = self.book.attach(msgspec.structs.replace(self.limits, **limits))

    def _ring(self) -> None:
        self.rung += 1

    def feed(self, job_id: str = "j") -> Feed:
        feed = Feed(job_id, 0, None, self.book.feed_changed)
        self.book.add_feed(feed)
        return feed

    def said(self) -> list[AnyRequest]:
        """Return all that is to be said now."""
        texts = iter(lambda: self.exchange.next_text(self.now), None)
        return [decode_request(text) for text in texts]

    def hear(self, *replies: AnyReply) -> None:
        for reply in replies:
            self.exchange.take(reply, 10, self.now)

    def misread(self, **about: Any) -> bool:
        return self.exchange.take_unread(ProtocolError(ErrorCode.INVALID, "what is this", **about))

    def accept(self, request: AnyRequest, sub: int = 1) -> None:
        assert isinstance(request, Subscribe)
        self.hear(
            Subscribed(
                id=request.id, sub=sub, job=request.job, epoch="e", state=JobState.RUNNING, attempt=1, first=1, last=0
            )
        )


def test_end_while_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the end comes before a pausing subscription was given up, it is not given up, and asked for again."""
    monkeypatch.setattr(_client_feed, "MOST", 2)
    wire = Wire()
    feed = wire.feed()
    wire.accept(wire.said()[0])
    wire.hear(events(1, 2), events(3, 3), end(4))
    assert wire.said() == []
    feed.pop_many(2)
    (request,) = wire.said()
    assert isinstance(request, Subscribe)
    assert (request.after, request.epoch) == (2, "e")
    wire.accept(request, 2)
    wire.hear(events(3, 3, 2), end(4, 2))
    assert wire.said() == []
    assert feed.is_over


def test_read_before_it_was_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A consumer that has read on before its pause was told to the server is given what was dropped meanwhile."""
    monkeypatch.setattr(_client_feed, "MOST", 2)
    wire = Wire()
    feed = wire.feed()
    wire.accept(wire.said()[0])
    wire.hear(events(1, 2), events(3, 3))
    feed.pop_many(2)
    wire.hear(events(4, 4))
    assert feed.error is None
    given_up, asked = wire.said()
    assert isinstance(given_up, Unsubscribe)
    assert isinstance(asked, Subscribe)
    assert asked.after == 2


def test_pauses() -> None:
    """What can't be served now is asked for again when its time has come, and not if nobody wants it any more."""
    wire = Wire()
    for code, pause in (("unavailable", PAUSE), ("rate", RATE_PAUSE)):
        wanted, left = wire.feed("wanted"), wire.feed("left")
        for request in wire.said():
            wire.hear(Refused(id=request.id, code=code, message=""))
        left.close()
        assert wire.said() == []
        assert wire.exchange.next_time == wire.now + pause
        wire.now += pause
        (request,) = wire.said()
        assert isinstance(request, Subscribe)
        assert request.job == "wanted"
        wanted.close()
        wire.hear(Refused(id=request.id, code="unknown_job", message=""))
        assert wire.exchange.next_time is None


def test_of_use() -> None:
    """A connection was of use once something came of it; that a subscription was accepted is not yet that."""
    for reply in (events(1, 1), end(1), Heartbeat(last={"1": 0})):
        wire = Wire()
        wire.feed()
        wire.accept(wire.said()[0])
        assert not wire.exchange.has_progressed
        wire.hear(reply)
        assert wire.exchange.has_progressed


def test_heartbeat_of_numbers_that_nobody_has() -> None:
    """A heartbeat may name whatever it wants: of what is not watched, nothing follows from it."""
    wire = Wire()
    feed = wire.feed()
    wire.accept(wire.said()[0])
    wire.hear(Heartbeat(last={"9" * 5000: 1, "²": 1, "-1": 1, "": 1}))
    assert feed.is_wanting


def test_order() -> None:
    """What was wanted first is said first, on a new connection too."""
    wire = Wire()
    wire.feed("a")
    wire.book.add_call(Get(job="b"), "b", lambda: None, lambda: None)
    wire.feed("c")
    for _ in range(2):
        said = wire.said()
        assert [type(each).__name__ for each in said] in (
            ["Subscribe", "Get", "Subscribe"],
            ["Get", "Subscribe", "Subscribe"],
        )
        wire.attach()


def test_rings() -> None:
    """Whoever writes is told whenever there may be something to say."""
    wire = Wire()
    for act in (
        lambda: wire.feed(),
        lambda: wire.book.add_call(Get(job="b"), "b", lambda: None, lambda: None),
        lambda: wire.attach(),
    ):
        before = wire.rung
        act()
        assert wire.rung > before


def test_smaller_server() -> None:
    """Where the server takes fewer subscriptions after a restart, the newest fail, and the others go on."""
    wire = Wire()
    feeds = [wire.feed(f"{n}") for n in range(3)]
    wire.said()
    wire.book.detach()
    wire.attach(subscriptions=2)
    assert [feed.error is None for feed in feeds] == [True, True, False]
    assert len(wire.said()) == 2


def test_broken_end() -> None:
    """An end that leaves something out is not taken, and its subscription needs not be given up."""
    wire = Wire()
    feed = wire.feed()
    wire.accept(wire.said()[0])
    wire.hear(events(1, 1), end(5))
    assert feed.error is not None
    assert wire.said() == []


@pytest.mark.parametrize("answer", [Ok(), Refused(code="unknown_sub", message="")])
def test_place_of_what_was_given_up(answer: Ok | Refused) -> None:
    """A subscription that was given up keeps its place until the server has let go of it, and has said so."""
    wire = Wire(subscriptions=1)
    feed = wire.feed("left")
    wire.accept(wire.said()[0], 7)
    feed.close()
    wire.feed("next")
    (given_up,) = wire.said()
    assert isinstance(given_up, Unsubscribe)
    for late in (events(1, 1, 7), end(2, 7), Refused(sub=7, code="forbidden", message="")):
        wire.hear(late)
        assert wire.said() == []
    wire.hear(msgspec.structs.replace(answer, id=given_up.id))
    (request,) = wire.said()
    assert isinstance(request, Subscribe)
    assert request.job == "next"


def test_place_of_what_has_ended() -> None:
    """The place of a job that has ended is taken at once, though that of another was not let go of yet."""
    wire = Wire(subscriptions=2)
    feeds = wire.feed("ended"), wire.feed("left")
    for sub, request in enumerate(wire.said(), 1):
        wire.accept(request, sub)
    feeds[1].close()
    wire.feed("next")
    (given_up,) = wire.said()
    assert isinstance(given_up, Unsubscribe)
    wire.hear(end(1, 1))
    (request,) = wire.said()
    assert isinstance(request, Subscribe)
    assert request.job == "next"


def test_giving_up_one_too_many() -> None:
    """A subscription whose giving up was one message too many in its second is given up again, and its place waits."""
    wire = Wire(subscriptions=1)
    feed = wire.feed("left")
    wire.accept(wire.said()[0], 7)
    feed.close()
    wire.feed("next")
    for _ in range(2):
        (given_up,) = wire.said()
        assert isinstance(given_up, Unsubscribe)
        assert given_up.sub == 7
        wire.hear(Refused(id=given_up.id, code="rate", message=""))
        assert wire.said() == []
        assert wire.exchange.next_time == wire.now + RATE_PAUSE
        wire.now += RATE_PAUSE
    (given_up,) = wire.said()
    wire.hear(Ok(id=given_up.id))
    (request,) = wire.said()
    assert isinstance(request, Subscribe)
    assert request.job == "next"


def test_unread_answer_to_a_subscription() -> None:
    """A subscription whose answer can't be read here fails alone, and is given up at the server."""
    wire = Wire(subscriptions=2)
    feed, other = wire.feed("unread"), wire.feed("other")
    request, _ = wire.said()
    assert wire.misread(id=request.id, sub=7)
    assert isinstance(feed.error, ServerRefusedError)
    assert other.error is None
    wire.feed("next")
    (given_up,) = wire.said()
    assert isinstance(given_up, Unsubscribe)
    assert given_up.sub == 7
    wire.hear(events(1, 1, 7), Ok(id=given_up.id))
    assert len(wire.said()) == 1


def test_unread_answer_without_a_number() -> None:
    """Where it is not known what is to be given up, the subscription fails, and the connection with it."""
    wire = Wire()
    feed = wire.feed()
    (request,) = wire.said()
    assert not wire.misread(id=request.id)
    assert isinstance(feed.error, ServerRefusedError)


def test_unread_about_what_was_given_up() -> None:
    """What can't be read of a subscription that was given up, or about its giving up, harms nothing."""
    wire = Wire(subscriptions=1)
    feed = wire.feed()
    wire.accept(wire.said()[0], 7)
    feed.close()
    wire.feed("next")
    (given_up,) = wire.said()
    assert wire.misread(sub=7)
    assert wire.said() == []
    assert wire.misread(id=given_up.id)
    assert len(wire.said()) == 1


def test_text_for_an_id() -> None:
    """Answers that name no request of this client are nobody's."""
    wire = Wire()
    feed = wire.feed()
    wire.said()
    wire.hear(
        Refused(id="1", code="unknown_job", message=""),
        Refused(id="x", sub=9, code="unavailable", message=""),
        Subscribed(id="1", sub=1, job="j", epoch="e", state=JobState.RUNNING, attempt=1, first=1, last=0),
    )
    assert not feed.is_placed
    assert feed.error is None


def test_number_used_twice() -> None:
    """A server that gives one number to two subscriptions breaks the second alone."""
    wire = Wire()
    first, second = wire.feed("first"), wire.feed("second")
    for request in wire.said():
        wire.accept(request, 1)
    assert isinstance(second.error, ServerRefusedError)
    wire.hear(events(1, 1), end(2))
    assert first.is_over
    assert first.error is None
    assert wire.said() == []
