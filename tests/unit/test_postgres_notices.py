"""What processes on one schema tell each other."""

from __future__ import annotations

import time

import pytest

from jobtrio.stores._hints import Hints
from jobtrio.stores.postgres._notices import NOTHING, PAYLOAD, Clock, Notices, payloads_of


def hints(*, ready: bool = False, due: float | None = None, messages: str = "", cancels: str = "") -> Hints:
    return Hints(ready, due, set(messages.split()), set(cancels.split()))


def notices(name: str, ahead: float = 0.0) -> Notices:
    """Return the notices of one process, for which the server's clock is so many seconds ahead."""
    clock = Clock()
    clock.note(time.monotonic() + ahead, time.monotonic())
    return Notices("jobtrio", name, clock)


def heard(sender: Notices, receiver: Notices, told: Hints) -> Hints:
    """Return what a process hears of what another tells."""
    found = Hints()
    for payload in payloads_of(told, sender.session, sender.clock):
        assert len(payload.encode()) <= PAYLOAD
        if some := receiver.read(payload):
            found.add(some)
    return found


def test_another_process_hears() -> None:
    """What one process tells is what another hears, and it does not hear itself."""
    one, other = notices("one"), notices("other")
    told = hints(ready=True, messages="a b", cancels="c")
    assert heard(one, other, told) == told
    assert heard(one, one, told) == Hints()
    assert not heard(one, other, hints(ready=False, messages="a")).ready


def test_times_go_by_the_servers_clock() -> None:
    """A time is the same moment for two machines whose clocks began differently."""
    one, other = notices("one", ahead=1000.0), notices("other", ahead=-500.0)
    due = time.monotonic() + 60.0
    found = heard(one, other, hints(due=due)).due
    assert found is not None
    assert found - due == pytest.approx(1500.0, abs=1.0)  # on the other machine's own clock


def test_an_answer_that_took_long() -> None:
    """An answer that was long on its way makes nothing fall due later; one by which a clock was set counts alone."""
    one = notices("one", ahead=1000.0)
    clock = one.clock
    due = time.monotonic() + 60.0
    clock.note(time.monotonic() + 1000.0 - 30.0, time.monotonic() - 40.0)
    assert clock.here(due + 1000.0) == pytest.approx(due, abs=1.0)
    assert clock.there(due) == pytest.approx(due + 1000.0, abs=1.0)
    clock.note(time.monotonic() + 900.0, time.monotonic() - 1.0)
    assert clock.there(due) == pytest.approx(due + 900.0, abs=1.0)
    assert due - 2.0 < clock.here(due + 900.0) <= due


def test_a_clock_that_is_not_known() -> None:
    """Before a process knows the server's clock, a time that it tells or hears of is one that has come."""
    fresh = Notices("jobtrio", "fresh", Clock())
    other = notices("other", ahead=1e9)
    due = time.monotonic() + 60.0
    for sender, receiver in ((fresh, other), (other, fresh)):
        found = heard(sender, receiver, hints(due=due)).due
        assert found is not None
        assert found <= time.monotonic()


def test_more_than_a_payload_holds() -> None:
    """Many or long ids are told in as many payloads as they need."""
    one, other = notices("one"), notices("other")
    told = Hints(True, None, {f"{n}-" + 'é😀"\\' * 40 for n in range(60)}, {f"job {n}" for n in range(2000)})
    assert len(payloads_of(told, "one", one.clock)) > 5
    assert heard(one, other, told) == told


@pytest.mark.parametrize("payload", ["", "x", "[]", "{}", '{"by": 1}', '{"by": "a", "messages": [1]}', "\x00"])
def test_nonsense_is_not_heard(payload: str) -> None:
    """Anybody may write to the channel."""
    assert notices("one").read(payload) is None


def test_what_is_unknown_is_passed_over() -> None:
    """A later version may tell more."""
    assert notices("one").read('{"by": "later", "ready": true, "more": 1}') == hints(ready=True)


def test_nothing_is_not_told() -> None:
    """Where there is nothing to tell, nothing is sent."""
    one = notices("one")
    assert one.telling(Hints()) == ("jobtrio:jobtrio", NOTHING)
    assert one.steps(Hints()) == []
    assert len(one.steps(hints(ready=True))) == 1


def test_later_times_are_not_told() -> None:
    """Who was told of a time looks then by himself, so only earlier ones are news, and later ones once it has come."""
    one = notices("one")
    now = time.monotonic()
    first = hints(due=now + 50.0)
    assert one.telling(first)[1] != NOTHING
    assert one.telling(first)[1] != NOTHING  # it was not sent
    one.told(first)
    assert one.telling(hints(due=now + 60.0))[1] == NOTHING
    one.told(hints(due=now + 60.0))
    assert '"ready' in one.telling(hints(ready=True, due=now + 60.0))[1].replace("\\", "")
    earlier = hints(due=now + 40.0)
    assert one.telling(earlier)[1] != NOTHING
    one.told(earlier)
    assert one.telling(first)[1] == NOTHING
    over = notices("other")
    over.told(hints(due=now - 1.0))
    assert over.telling(hints(due=now + 50.0))[1] != NOTHING


def test_notices_of_slow_writes() -> None:
    """Where writes take long, notices go behind their commit, as long as they do."""
    one = notices("one")
    news = hints(messages="a")
    told = one.telling(news)
    one.answered(time.monotonic() - 60.0)
    assert one.ways(news) == ((one.channel, NOTHING), [("notify", *told)])
    assert one.ways(hints()) == ((one.channel, NOTHING), [])
    one.answered(time.monotonic() + 60.0)  # however long this test stands still
    assert one.ways(news) == (told, [])
