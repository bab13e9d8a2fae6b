"""A client's feed: what makes a stream whole over any number of connections, and what is kept of it meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from jobtrio import Completed, End, Gap, JobError, Progress, Restart, Token
from jobtrio.websocket import RemoteSubscription, _client_feed
from jobtrio.websocket._client_feed import BrokenStreamError, Feed

if TYPE_CHECKING:
    from jobtrio._messages import Message

LOST = JobError("lost", "Lost", "its worker is gone")


def is_wanting(feed: Feed) -> bool:
    """Return whether a feed wants more, asked anew at each call."""
    return feed.is_wanting


def make_feed(after: Any = 0, **options: Any) -> Feed:
    return Feed("job", after, options.get("epoch"), options.get("on_change", lambda feed: None))


def tokens(first: int, last: int, attempt: int = 1) -> list[Message]:
    return [Token(seq, attempt, f"{attempt}/{seq}") for seq in range(first, last + 1)]


def drain(feed: Feed) -> list[Message]:
    return feed.pop_many(1_000_000)


# -- one connection


def test_gives_what_came() -> None:
    """Messages are given in order, one by one or many at once, up to the end."""
    feed = make_feed()
    stream = [*tokens(1, 3), Progress(4, 1, 1.0), End(5, Completed(None))]
    feed.take(stream[:2], 10)
    feed.take(stream[2:], 10)
    assert [*feed.pop_many(1), *feed.pop_many(3), *feed.pop_many(3)] == stream
    assert feed.is_over
    assert feed.is_empty


def test_tells_of_changes() -> None:
    """Whoever waits is told of messages, of the end alone too, of an error, and of leaving, but not twice."""
    told: list[str] = []
    feed = make_feed(5, on_change=lambda feed: told.append("change"))
    feed.take(tokens(4, 5), 1)
    assert not told
    feed.take([End(5, Completed(None))], 1)
    assert told == ["change"]
    other = make_feed(on_change=lambda feed: told.append("change"))
    other.fail(ValueError())
    other.fail(KeyError())
    assert isinstance(other.error, ValueError)
    other.close()
    assert len(told) == 2
    third = make_feed(on_change=lambda feed: told.append("change"))
    third.close()
    third.close()
    assert len(told) == 3


@pytest.mark.parametrize("message", [Token(5, 1, ""), Gap(5, 6), End(5, Completed(None))])
def test_hole(message: Message) -> None:
    """A message that can't be the next one is an error, the end included: nothing is left out in silence."""
    feed = make_feed()
    feed.take(tokens(1, 3), 1)
    with pytest.raises(BrokenStreamError, match="message 5 came where 4 was due"):
        feed.take([message], 1)


def test_behind_the_end() -> None:
    """Nothing comes behind the end."""
    feed = make_feed()
    with pytest.raises(BrokenStreamError, match="behind the end"):
        feed.take([End(1, Completed(None)), Token(2, 1, "")], 1)


def test_before_its_place() -> None:
    """Where the place is the server's to say, nothing comes before it was said."""
    feed = make_feed("end")
    with pytest.raises(BrokenStreamError, match="before its place"):
        feed.take(tokens(1, 1), 1)
    feed.place(7, "e")
    feed.take(tokens(8, 8), 1)
    assert drain(feed) == tokens(8, 8)


def test_progress_before_its_place() -> None:
    """How far the job is, is told where the stream begins at the end; a connection behind that does not tell it."""
    feed = make_feed("end")
    assert feed.progress is None
    feed.place(7, "e", Progress(6, 1, 1, 2, None))
    feed.place(9, "e")
    assert feed.progress == Progress(6, 1, 1, 2, None)


def test_what_came_twice() -> None:
    """Messages that came before are passed over, and a gap begins where they end."""
    feed = make_feed()
    feed.take(tokens(1, 3), 1)
    feed.take(tokens(2, 5), 1)
    feed.take([Gap(4, 8)], 1)
    feed.take([Gap(1, 8)], 1)
    assert drain(feed) == [*tokens(1, 5), Gap(6, 8)]


def test_end_that_is_known() -> None:
    """A consumer that begins behind the end's own number is at the end at once, as in process."""
    feed = make_feed(3)
    feed.take([End(3, Completed(None))], 1)
    assert feed.is_over
    assert feed.is_empty


def test_end_of_what_has_ended() -> None:
    """A consumer that begins behind all there is gets the end of a job that has ended."""
    feed = make_feed("end")
    feed.place(3, "e")
    feed.take([End(3, Completed(None))], 1)
    assert drain(feed) == [End(3, Completed(None))]


# -- a consumer that reads slowly


def test_pauses_by_number() -> None:
    """With too many messages waiting it pauses, drops what still comes, and goes on where it was when half is read."""
    told: list[bool] = []
    feed = make_feed(on_change=lambda feed: told.append(feed.is_paused))
    feed.take(tokens(1, _client_feed.MOST), 1)
    assert not is_wanting(feed)
    feed.take(tokens(_client_feed.MOST + 1, _client_feed.MOST + 9), 1)
    assert feed.position == _client_feed.MOST
    feed.pop_many(_client_feed.MOST // 2 - 1)
    assert not is_wanting(feed)
    assert told == [True]
    feed.pop_many(1)
    assert is_wanting(feed)
    assert told == [True, False]
    assert len(drain(feed)) == _client_feed.MOST // 2


def test_pauses_by_size() -> None:
    """A few large messages make it pause as well; one that is larger than the limit is taken alone."""
    feed = make_feed()
    feed.take(tokens(1, 1), _client_feed.MOST_BYTES * 8)
    assert not is_wanting(feed)
    assert drain(feed) == tokens(1, 1)
    assert is_wanting(feed)
    for n in range(2, 6):
        feed.take(tokens(n, n), _client_feed.MOST_BYTES // 4)
    assert not is_wanting(feed)
    feed.pop_many(1)
    assert not is_wanting(feed)
    feed.pop_many(1)
    assert is_wanting(feed)


def test_left() -> None:
    """A consumer that left holds nothing, and gets nothing."""
    feed = make_feed()
    feed.take(tokens(1, 3), 1)
    feed.close()
    feed.take(tokens(4, 5), 1)
    assert feed.is_empty
    assert feed.is_over


async def test_place_before_the_first_message() -> None:
    """A consumer that begins behind all there is knows its place once the server has said it, received or not."""
    feed = make_feed("end")
    messages = RemoteSubscription(feed, trio.lowlevel.ParkingLot(), "yield")
    assert (messages.position, messages.epoch) == (0, None)
    feed.place(7, "e")
    assert (messages.position, messages.epoch) == (7, "e")
    feed.take(tokens(8, 9), 1)
    assert messages.position == 7
    messages.receive_nowait()
    feed.place(9, "e")
    assert messages.position == 8


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 12)), max_size=12))
def test_any_cuts(connections: list[tuple[float, float, int]]) -> None:
    """Cut anywhere, and begun again behind what came or before it, each message comes once and in order."""
    feed = make_feed()
    stream = [*tokens(1, 5), Restart(6, 1, LOST, 0.0), *tokens(7, 11, attempt=2), End(12, Completed(None))]
    received: list[Message] = []
    for begun, cut, read in [*connections, (1.0, 1.0, 0)]:
        assert isinstance(feed.position, int)
        first = round(begun * feed.position)
        feed.take(stream[first : first + round(cut * (len(stream) - first))], 1)
        received += feed.pop_many(read)
    assert received + drain(feed) == stream
