"""A client before a server that says anything at all, in any order: nothing but its own errors, within its bounds."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from jobtrio import End, Gap, JobState, Message
from jobtrio.websocket import _client_feed
from jobtrio.websocket._client_book import Book
from jobtrio.websocket._client_feed import Feed
from jobtrio.websocket._replies import Reply
from jobtrio.websocket.protocol import (
    AnyReply,
    Ended,
    ErrorCode,
    Events,
    GapFound,
    Get,
    Heartbeat,
    HelloLimits,
    Ok,
    Pong,
    ProgressMade,
    ProtocolError,
    Refused,
    Restarted,
    Submitted,
    Subscribed,
    WireCancelled,
    WireError,
)

ids = st.one_of(st.none(), st.integers(-1, 12), st.sampled_from(["1", "x"]))
subs = st.one_of(st.none(), st.integers(0, 3))
seqs = st.integers(0, 8)
error = WireError(kind="exception", type="E", message="", traceback="")

replies: st.SearchStrategy[AnyReply] = st.one_of(
    st.builds(Ok, id=ids, cancelled=st.booleans()),
    st.builds(Pong, id=ids),
    st.builds(Submitted, id=ids, job=st.just("j"), sub=subs),
    st.builds(
        Subscribed,
        id=ids,
        sub=subs,
        job=st.just("j"),
        epoch=st.sampled_from("ab"),
        state=st.just(JobState.RUNNING),
        attempt=st.integers(0, 3),
        first=seqs,
        last=seqs,
    ),
    st.builds(Events, sub=subs, seq=seqs, attempt=st.integers(1, 3), items=st.lists(st.integers(), max_size=6)),
    st.builds(ProgressMade, sub=subs, seq=seqs, attempt=st.just(1), done=st.just(1.0), total=st.none(), note=st.none()),
    st.builds(Restarted, sub=subs, seq=seqs, attempt=st.just(1), error=st.just(error), delay=st.just(0.0)),
    st.builds(GapFound, sub=subs, first=seqs, last=seqs),
    st.builds(Ended, sub=subs, seq=seqs, outcome=st.just(WireCancelled(reason=None))),
    st.builds(Heartbeat, last=st.one_of(seqs, st.dictionaries(st.sampled_from(["0", "1", "x"]), seqs, max_size=3))),
    st.builds(
        Refused,
        id=ids,
        sub=subs,
        code=st.sampled_from(
            ["rate", "unavailable", "unknown_job", "future_cursor", "wrong_epoch", "queue_full", "new"]
        ),
        message=st.just(""),
    ),
)

unread = st.builds(ProtocolError, st.just(ErrorCode.INVALID), st.just(""), id=ids, sub=st.one_of(subs, st.just("x")))

steps = st.one_of(
    replies,
    unread,
    st.sampled_from(["attach", "detach", "speak", "call"]),
    st.tuples(st.sampled_from(["feed", "read", "leave"]), st.integers(0, 3)),
)


class Client:
    """A client without tasks: what it wants, what it has, and the clock."""

    def __init__(self) -> None:
        self.book = Book(lambda: None)
        self.feeds: list[Feed] = []
        self.seen: dict[Feed, list[Message]] = {}
        self.now = 0.0

    def do(self, step: Any) -> None:
        exchange = self.book.exchange
        match step:
            case "attach":
                self.book.attach(HelloLimits(message_bytes=65536, subscriptions=2, messages_per_second=50.0))
            case "detach":
                self.book.detach()
            case "call":
                self.book.add_call(Get(job="j"), "j", lambda: None, lambda: None)
            case "speak":
                self.now += 0.3
                while exchange is not None and exchange.next_text(self.now) is not None:
                    pass
            case ("feed", after):
                feed = Feed("j", after or "end", None, self.book.feed_changed)
                self.feeds.append(feed)
                self.seen[feed] = []
                self.book.add_feed(feed)
            case ("read" | "leave" as what, n) if n < len(self.feeds):
                feed = self.feeds[n]
                if what == "leave":
                    feed.close()
                else:
                    self.seen[feed] += feed.pop_many(2)
            case Reply() if exchange is not None:
                exchange.take(cast("AnyReply", step), 10, self.now)
            case ProtocolError() if exchange is not None:
                exchange.take_unread(step)


@given(st.lists(steps, max_size=60))
def test_anything(actions: list[Any]) -> None:
    """No order of messages raises anything, leaves a hole in a stream, or makes more wait or be asked for than may."""
    most, _client_feed.MOST = _client_feed.MOST, 5
    try:
        client = Client()
        for step in ["attach", *actions]:
            client.do(step)
            for feed in client.feeds:
                assert feed._count <= 5 + 6
            if (exchange := client.book.exchange) is not None:
                assert len(exchange._asked) + len(exchange._live) + len(exchange._leaving) <= 2
        for feed, seen in client.seen.items():
            seen += feed.pop_many(1000)
            _check_whole(seen)
    finally:
        _client_feed.MOST = most


def _check_whole(seen: list[Message]) -> None:
    """Each message follows on the one before it, and an end is the last."""
    last: int | None = None
    for message in seen:
        first = message.first if isinstance(message, Gap) else message.seq
        assert last is None or first == last + 1 or (isinstance(message, End) and first <= last)
        last = message.last if isinstance(message, Gap) else message.seq
    assert not any(isinstance(message, End) for message in seen[:-1])
