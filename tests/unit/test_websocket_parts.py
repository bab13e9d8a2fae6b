"""The bridge's smaller parts: limits, rates, origins, batches, hooks, epochs."""

from __future__ import annotations

import json
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio
import trio.testing
from other_numbers import Whole

from jobtrio import End, Gap, JobPriority, JobRecord, JobState, Progress, Token
from jobtrio._records import Completed
from jobtrio.websocket import Handshake, Limits, _batches
from jobtrio.websocket._batches import ENVELOPE, plain_texts, replies
from jobtrio.websocket._feed import epoch_of
from jobtrio.websocket._origins import Origins
from jobtrio.websocket._times import Beats, RateLimit
from jobtrio.websocket._values import values_json

if TYPE_CHECKING:
    from trio.testing import MockClock


@pytest.mark.parametrize("name", [field.name for field in attrs.fields(Limits)])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "10", None, True])
def test_limits_that_make_no_sense(name: str, value: Any) -> None:
    """A limit that is not a number above 0 is refused by its name."""
    with pytest.raises((ValueError, TypeError), match=f"^{name} must be"):
        Limits(**{name: value})


def test_limits_of_other_kinds() -> None:
    """A limit that is a whole number of a class of its own is kept as a plain one, which clients can be told."""
    other: Any = Whole(2)
    limits = Limits(**{field.name: other for field in attrs.fields(Limits)})
    assert {type(value) for value in attrs.astuple(limits)} == {int}


def test_rate() -> None:
    """So many pass at once and so many a second; as many more are refused, and then it is enough."""
    rate = RateLimit(10, 100.0)
    assert [rate.take(100.0) for _ in range(21)] == ["pass"] * 10 + ["refuse"] * 9 + ["close"] * 2
    rate = RateLimit(10, 100.0)
    assert {rate.take(100 + n / 10) for n in range(1000)} == {"pass"}
    assert [rate.take(1000.0) for _ in range(11)] == ["pass"] * 10 + ["refuse"]


def test_rate_of_what_had_to_wait() -> None:
    """What gathered while the server did not listen passes as it would have in its time; what is too much does not."""
    rate = RateLimit(10, 100.0)
    assert rate.take(100.0) == "pass"
    verdicts = [rate.take(109.0, 0.0) for _ in range(121)]
    assert verdicts == ["pass"] * 99 + ["refuse"] * 9 + ["close"] * 13
    rate = RateLimit(10, 100.0)
    assert rate.take(109.0, 0.0) == "pass"
    assert [rate.take(110.0, 1.0), *(rate.take(110.0, 0.0) for _ in range(10))] == ["pass"] * 10 + ["refuse"]


def test_origins() -> None:
    """An origin is compared as a whole: scheme, host and port, whatever the case of its letters."""
    origins = Origins(
        ["https://Example.org", "http://[2001:db8::1]:8080", "tauri://localhost", "moz-extension://3f-0a"]
    )
    origins.add_own(["127.0.0.1", "::1", "Localhost"], 8765)
    for admitted in (
        None,
        "https://example.org",
        "HTTPS://EXAMPLE.ORG:443",
        "http://[2001:db8::1]:8080",
        "http://127.0.0.1:8765",
        "https://[::1]:8765",
        "http://localhost:8765",
        "tauri://localhost",
        "moz-extension://3f-0a",
    ):
        assert origins.admit(admitted), admitted
    for foreign in (
        "",
        "null",
        "*",
        "https://example.org:444",
        "http://example.org",
        "https://example.org.evil.example",
        "https://evil.example/https://example.org",
        "https://example.org@evil.example",
        "https://localhost",
        "http://localhost:8766",
        "http://::1:8765",
        "file://",
        "http://example.org:port",
        "https://example.org/",
        "https://example.org:443:443",
        "capacitor://localhost",
        "tauri://localhost:8765",
        "chrome-extension://3f-0a",
    ):
        assert not origins.admit(foreign), foreign


@pytest.mark.parametrize(
    "origin",
    [
        *("", "example.org", "https://example.org/path", 5, None, "https://", "//example.org"),
        *("https://*.example.org", "https://bücher.example", "https://example.org https", "https://a%2e.example"),
        *("wss://example.org", "ws://127.0.0.1:8000", "file://", "chrome extension://a"),
    ],
)
def test_allowed_origins_that_are_none(origin: Any) -> None:
    """What is allowed has to be origins as browsers send them: what none of them sends would allow nothing."""
    with pytest.raises(ValueError, match=r"^allowed_origins must be"):
        Origins([origin])


@pytest.mark.parametrize("allowed", ["https://example.org", 5])
def test_allowed_origins_are_several(allowed: Any) -> None:
    """A single text is not taken for several."""
    with pytest.raises(TypeError, match=r"^allowed_origins must be"):
        Origins(allowed)


def tokens(*values: Any, attempt: int = 1, start: int = 1) -> list[Any]:
    return [Token(seq, attempt, value) for seq, value in enumerate(values, start)]


def batches(messages: list[Any], items: int = 256, size: int = 65536) -> list[Any]:
    return [json.loads(text) for text in replies(messages, sub=7, tracebacks=False, items=items, size=size)]


def test_batches_of_tokens() -> None:
    """Tokens of one attempt that follow each other share a message; anything between them parts them."""
    messages = [
        *tokens("a", "b"),
        Progress(3, 1, 1),
        *tokens("c", start=4),
        *tokens("d", attempt=2, start=5),
        Gap(6, 9),
        *tokens("e", "f", attempt=2, start=10),
        End(12, Completed(None)),
    ]
    assert [(m["type"], m.get("seq"), m.get("items")) for m in batches(messages)] == [
        ("events", 1, ["a", "b"]),
        ("progress", 3, None),
        ("events", 4, ["c"]),
        ("events", 5, ["d"]),
        ("gap", None, None),
        ("events", 10, ["e", "f"]),
        ("end", 12, None),
    ]


@pytest.mark.parametrize("items", [1, 2, 7, 256])
@pytest.mark.parametrize("size", [200, 500, 65536])
def test_batches_keep_to_their_limits(items: int, size: int) -> None:
    """No message holds more items or bytes than it may, unless a single token is larger; no token is lost."""
    values = ["x" * (n * 37 % 300) for n in range(100)] + [float("nan"), None, "\ud800", {"é": "ü" * 20}]
    texts = list(replies(tokens(*values), sub=2**60, tracebacks=False, items=items, size=size))
    seq = 1
    for text in texts:
        message = json.loads(text)
        assert message["seq"] == seq
        seq += len(message["items"])
        assert 1 <= len(message["items"]) <= items
        assert len(text.encode()) <= size or len(message["items"]) == 1
    assert seq == len(values) + 1


@pytest.mark.parametrize("small", [0, 40])
def test_batches_are_encoded_bit_by_bit(monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    """What waits to be sent of a batch of large tokens is not encoded before its turn, nor again and again."""
    encoded = 0

    def counted(values: list[Any]) -> bytes:
        nonlocal encoded
        data = values_json(values)
        encoded += len(data)
        return data

    monkeypatch.setattr(_batches, "values_json", counted)
    values = [*range(small), *("x" * 100_000 for _ in range(256 - small))]
    texts = replies(tokens(*values), sub=1, tracebacks=False, items=256, size=65536)
    held = []
    tracemalloc.start()
    try:
        for _ in texts:
            held.append(tracemalloc.get_traced_memory()[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(held) == 256 - small + bool(small)
    assert max(held) < 1_000_000  # while it is being sent
    assert peak < 16_000_000  # for a moment
    assert encoded < 2 * 25_600_000


def test_batches_are_as_few_as_may_be() -> None:
    """No message would have had room for the first token of the next, whatever sizes follow each other."""
    values = ["x" * (n * 7919 % 400) for n in range(256)]
    texts = list(replies(tokens(*values), sub=1, tracebacks=False, items=256, size=2000))
    items = [json.loads(text)["items"] for text in texts]
    sizes = [len(json.dumps(each, separators=(",", ":"))) for each in items]
    for size, (first, *_) in zip(sizes, items[1:], strict=False):
        assert size + len(first) + 3 > 2000 - ENVELOPE


def test_plain_texts() -> None:
    """As text, tokens are put together up to a size, and nothing else is shown."""
    messages = [*tokens("ab", "", "cd"), Progress(4, 1, 1), *tokens("e" * 20, "f", start=5), End(7, Completed(1))]
    assert list(plain_texts(messages, items=9, size=4)) == ["abcd", "e" * 20, "f"]
    assert list(plain_texts([Progress(1, 1, 1)], items=9, size=4)) == []


@pytest.mark.parametrize("items", [1, 7, 256])
@pytest.mark.parametrize("size", [200, 500, 65536])
def test_plain_texts_keep_to_their_limits(items: int, size: int) -> None:
    """As text, too, no message holds more tokens or bytes than it may, unless a single token is larger."""
    values = [str(n % 10) + "語" * (n * 37 % 90) for n in range(300)]
    texts = list(plain_texts(tokens(*values), items=items, size=size))
    assert "".join(texts) == "".join(values)
    counts = [len(text.replace("語", "")) for text in texts]
    assert max(counts) <= items
    assert all(len(text.encode()) <= size or count == 1 for text, count in zip(texts, counts, strict=True))


def test_epochs() -> None:
    """The epoch names the job, and another one that was made later under the same id."""
    now = datetime.now(UTC)
    record = JobRecord("a", "e", None, "q", JobPriority.LOW, {}, {}, None, JobState.QUEUED, 0, 1, now)
    later = attrs.evolve(record, state=JobState.RUNNING, attempt=5, started_at=now)
    assert epoch_of(record) == epoch_of(later)
    others = [attrs.evolve(record, id="b"), attrs.evolve(record, created_at=now + timedelta(microseconds=1))]
    assert len({epoch_of(each) for each in (record, *others)}) == 3


def test_a_handshake_shows_no_secrets() -> None:
    """What stands for a handshake in a log has neither token nor headers in it."""
    handshake = Handshake(
        "/ws", "", {"authorization": "Bearer s3cret", "cookie": "s3cret"}, None, "127.0.0.1", "s3cret"
    )
    assert "s3cret" not in repr(handshake)
    assert "127.0.0.1" in repr(handshake)


async def test_beats(autojump_clock: MockClock) -> None:
    """Those who wait for the same moment wake up together; who is late waits for the next one."""
    beats = Beats()
    woken: list[float] = []

    async def wait(delay: float, interval: float) -> None:
        await trio.sleep(delay)
        await beats.wait(interval)
        woken.append(trio.current_time())

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for delay in (0.0, 0.1, 0.49, 0.5, 0.7):
            nursery.start_soon(wait, delay, 0.5)
        nursery.start_soon(wait, 0.3, 0.25)
    assert [round(at - start, 6) for at in woken] == [0.5, 0.5, 0.5, 0.5, 1.0, 1.0]
    assert not beats._waiting


async def test_beats_when_some_leave(autojump_clock: MockClock) -> None:
    """When those with the timer are cancelled, one after the other, the rest wait on for the same moment."""
    beats = Beats()
    woken: list[float] = []

    async def wait(seconds: float) -> None:
        with trio.move_on_after(seconds):
            await beats.wait(1.0)
            woken.append(trio.current_time() - start)

    start = trio.current_time()
    assert start % 1.0 == 0
    async with trio.open_nursery() as nursery:
        for seconds in (0.3, 0.3, 0.5, 5, 5, 5):
            nursery.start_soon(wait, seconds)
            await trio.testing.wait_all_tasks_blocked()
    assert woken == [1.0] * 3
    assert not beats._waiting
