"""The tail: its address, what it sends, and by which code it ends, on a line without sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from bridge import executors, hang, words
from line import known, open_line, owners

import jobtrio
from jobtrio import Retention, RetryPolicy
from jobtrio.websocket import CloseCode, Handshake, Limits
from jobtrio.websocket._feed import Start
from jobtrio.websocket._tailing import TailAddress, TailSession, is_tail, parse_tail
from jobtrio.websocket.protocol import decode_retry_after
from jobtrio.websocket.session import LONGEST_PAUSE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from line import Line
    from trio.testing import MockClock

    from jobtrio import JobContext, JobRegistry
    from jobtrio.websocket._replies import Heartbeat


@pytest.fixture
async def registry() -> AsyncIterator[JobRegistry]:
    """Open a registry of the tests' executors."""
    async with jobtrio.open_registry(executors, retention=Retention(tokens_per_job=100)) as registry:
        yield registry
        await registry.shutdown()


async def texts(line: Line) -> tuple[list[str], CloseCode | None]:
    """Return all texts that a line shows and by which code it ends."""
    with trio.fail_after(100):
        heard = [text async for text in line._hears]
    return heard, line.ending.code


@pytest.mark.parametrize(
    ("query", "start", "is_plain"),
    [
        ("", Start(0, None, "yield"), False),
        ("after=7", Start(7, None, "yield"), False),
        ("after=end&epoch=a%26b&on_gap=raise", Start("end", "a&b", "raise"), False),
        ("after=9223372036854775807", Start(2**63 - 1, None, "yield"), False),
        ("format=text&on_gap=yield", Start(0, None, "raise"), True),
        ("format=json&later=1&&x", Start(0, None, "yield"), False),
        ("after=1&after=2", Start(2, None, "yield"), False),
    ],
)
def test_addresses(query: str, start: Start, is_plain: bool) -> None:
    """A tail's query says where to begin and what to send; what it does not know is passed over."""
    assert parse_tail("/jobs/a%20b", query) == TailAddress("a b", start, is_plain)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("after=-1", r"^after must be .* 0 to 9223372036854775807, or end; got '-1'$"),
        ("after=1.0", r"^after .* '1\.0'$"),
        ("after=1e3", r"^after .* '1e3'$"),
        ("after=True", r"^after .* 'True'$"),
        ("after=", r"^after .* ''$"),
        ("after=9223372036854775808", r"^after .* '9223372036854775808'$"),
        ("after=" + "9" * 5000, r"^after .* '9{50,200}…'?$"),
        ("after=%D9%A3", r"^after .* '٣'$"),
        ("after=last", r"^after .* 'last'$"),
        ("on_gap=ignore", r"^on_gap must be yield or raise; got 'ignore'$"),
        ("format=xml", r"^format must be json or text; got 'xml'$"),
        ("epoch=%ff", r"^the query must be UTF-8, .*; got 'epoch=%ff'$"),
        ("&".join("a=b" for _ in range(100)), r"^the query must be .* at most 50 fields; got 'a=b&"),
    ],
)
def test_addresses_that_make_no_sense(query: str, said: str) -> None:
    """A cursor that is no whole number from 0 to 2^63-1, and any other nonsense, is refused with what is allowed."""
    with pytest.raises(ValueError, match=said):
        parse_tail("/jobs/a", query)


def test_paths() -> None:
    """A tail's path is that of a job."""
    assert [is_tail(path) for path in ("/jobs/a", "/jobs/", "/jobs", "/ws", "/job/a")] == [True, *[False] * 4]


async def test_a_stream(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A tail shows all messages of a job in the order of their numbers, without `sub` and `id`."""

    async def work(job: JobContext) -> Any:
        await job.send("a")
        job.progress(1, 2, "half")
        if job.attempt == 1:
            raise ValueError("again")
        await job.send({"b": None})
        return [1]

    job = await registry.submit(work, retry=RetryPolicy(2, initial=1, jitter=0))
    await job.wait()
    async with open_line(registry, f"/jobs/{job.id}") as line:
        heard, code = await line.hear_out()
    assert code == CloseCode.COMPLETED
    epoch = heard[0].pop("epoch")
    error = {"kind": "exception", "type": "ValueError", "message": "again", "traceback": ""}
    assert heard == [
        {"type": "subscribed", "job": job.id, "state": "COMPLETED", "attempt": 2, "first": 1, "last": 7},
        {"type": "events", "seq": 1, "attempt": 1, "items": ["a"]},
        {"type": "progress", "seq": 2, "attempt": 1, "done": 1, "total": 2, "note": "half"},
        {"type": "restart", "seq": 3, "attempt": 1, "error": error, "delay": 1.0},
        {"type": "events", "seq": 4, "attempt": 2, "items": ["a"]},
        {"type": "progress", "seq": 5, "attempt": 2, "done": 1, "total": 2, "note": "half"},
        {"type": "events", "seq": 6, "attempt": 2, "items": [{"b": None}]},
        {"type": "end", "seq": 7, "outcome": {"type": "completed", "result": [1]}},
    ]
    for after in range(8):
        async with open_line(registry, f"/jobs/{job.id}?after={after}&epoch={epoch}") as line:
            again, code = await line.hear_out()
            assert again[1:] == (heard[after + 1 :] or heard[-1:])
            assert code == CloseCode.COMPLETED


@pytest.mark.parametrize(
    ("executor", "code"),
    [
        ("words", CloseCode.COMPLETED),
        ("break", CloseCode.FAILED),
        ("slow", CloseCode.TIMED_OUT),
        ("", CloseCode.CANCELLED),
    ],
)
@pytest.mark.parametrize("format", ["json", "text"])
async def test_outcomes(
    autojump_clock: MockClock, registry: JobRegistry, executor: str, code: CloseCode, format: str
) -> None:
    """The outcome is told by the close code, in both formats, of jobs that end later and of those that have ended."""
    limit = 5 if executor == "slow" else None
    name = {"slow": "hang", "": "hang"}.get(executor, executor)
    job = await registry.submit(name, "x", delay=5, time_limit=limit)
    for _ in range(2):
        async with open_line(registry, f"/jobs/{job.id}?format={format}") as line:
            if not executor:
                await trio.sleep(20)
                await job.cancel()
            assert (await texts(line))[1] == code


async def test_an_exception_group(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A job that raises a group fails as any other."""

    async def work(job: JobContext) -> None:
        raise ExceptionGroup("several", [ValueError("a"), KeyError("b")])

    job = await registry.submit(work)
    async with open_line(registry, f"/jobs/{job.id}") as line:
        heard, code = await line.hear_out()
    assert code == CloseCode.FAILED
    assert heard[-1]["outcome"]["error"]["type"] == "ExceptionGroup"


async def test_text(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """As text, nothing is sent but the tokens, which put together are what was sent, whatever it was."""
    tokens = ["a", "", "b c\n", 5, None, {"x": 1}, "\ud800", "é" * 100, object]

    async def work(job: JobContext) -> None:
        for n, token in enumerate(tokens):
            await job.send(token)
            job.progress(n)
            await trio.sleep(n % 2)

    job = await registry.submit(work)
    async with open_line(registry, f"/jobs/{job.id}?format=text") as line:
        heard, code = await texts(line)
    assert code == CloseCode.COMPLETED
    assert "".join(heard) == "".join(map(str, tokens)).replace("\ud800", "\\ud800")
    assert all(heard)


async def test_a_token_whose_text_raises(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A token or result whose own code raises goes as what can be said of it."""

    class Bad:
        def __str__(self) -> str:
            raise ValueError

        __repr__ = __str__

    async def work(job: JobContext) -> Bad:
        await job.send(Bad())
        return Bad()

    job = await registry.submit(work)
    async with open_line(registry, f"/jobs/{job.id}") as line:
        heard, _ = await line.hear_out()
        value = {"repr": "<Bad whose repr raised ValueError>"}
        assert heard[1]["items"] == [value]
        assert heard[2]["outcome"]["result"] == value
    async with open_line(registry, f"/jobs/{job.id}?format=text") as line:
        assert await texts(line) == (["<Bad whose repr raised ValueError>"], CloseCode.COMPLETED)


async def test_text_never_hides_a_gap(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Where text can't show all, it is refused, or ends as too slow, rather than leave something out."""
    started = trio.Event()

    async def work(job: JobContext) -> None:
        await job.send("x")
        await started.wait()
        for _ in range(500):
            await job.send("y")

    job = await registry.submit(work)
    async with open_line(registry, f"/jobs/{job.id}?format=text") as line:
        assert await line.hear_text() == "x"
        line.is_stalled = True
        started.set()
        await job.wait()
        line.read_again()
        heard, code = await texts(line)
        assert code == CloseCode.TOO_SLOW
        assert set("".join(heard)) <= {"y"}
    async with open_line(registry, f"/jobs/{job.id}?format=text") as line:
        assert await texts(line) == ([], CloseCode.BAD_CURSOR)


async def test_gaps(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """What is no longer kept is told of by a `gap`, or refused, as the address asks."""
    job = await registry.submit(words, " ".join("x" * 300))
    await job.wait()
    async with open_line(registry, f"/jobs/{job.id}?after=10") as line:
        heard, code = await line.hear_out()
        assert heard[1] == {"type": "gap", "first": 11, "last": 200}
        assert [message["seq"] for message in heard[2:]] == [201, 301]
        assert code == CloseCode.COMPLETED
    async with open_line(registry, f"/jobs/{job.id}?after=10&on_gap=raise") as line:
        heard, code = await line.hear_out()
        assert (heard[0]["code"], heard[0]["first"], heard[0]["last"]) == ("outdated_cursor", 11, 200)
        assert code == CloseCode.BAD_CURSOR


async def test_falling_behind(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A tail that falls behind and wants no gaps is closed as too slow, and can come back."""
    started = trio.Event()

    async def work(job: JobContext) -> None:
        await started.wait()
        for n in range(500):
            await job.send(n)

    job = await registry.submit(work)
    async with open_line(registry, f"/jobs/{job.id}?on_gap=raise") as line:
        await line.hear()
        line.is_stalled = True
        started.set()
        await job.wait()
        line.read_again()
        heard, code = await line.hear_out()
        assert heard[-1]["code"] == "outdated_cursor"
        assert code == CloseCode.TOO_SLOW
        assert 0.5 <= (decode_retry_after(line.ending.reason) or 0.0) <= 1.5
    async with open_line(registry, f"/jobs/{job.id}?after={heard[-1]['last']}&on_gap=raise") as line:
        again, code = await line.hear_out()
        assert again[1]["seq"] == heard[-1]["last"] + 1
        assert code == CloseCode.COMPLETED


@pytest.mark.parametrize(
    ("address", "error", "code"),
    [
        ("/jobs/none", "unknown_job", CloseCode.UNKNOWN_JOB),
        ("/jobs/%00", "unknown_job", CloseCode.UNKNOWN_JOB),
        ("/jobs/%ff%fe", "unknown_job", CloseCode.UNKNOWN_JOB),
        ("/jobs/" + "x" * 5000, "unknown_job", CloseCode.UNKNOWN_JOB),
        ("/jobs/a/b?after=end", "unknown_job", CloseCode.UNKNOWN_JOB),
        ("/jobs/{id}?after=x", "invalid", CloseCode.INVALID),
        ("/jobs/{id}?format=xml", "invalid", CloseCode.INVALID),
        ("/jobs/{id}?after=5", "future_cursor", CloseCode.BAD_CURSOR),
        ("/jobs/{id}?epoch=other", "wrong_epoch", CloseCode.BAD_CURSOR),
        ("/jobs/{id}?epoch=", "wrong_epoch", CloseCode.BAD_CURSOR),
    ],
)
async def test_refusals(
    autojump_clock: MockClock, registry: JobRegistry, address: str, error: str, code: CloseCode
) -> None:
    """What can't be shown is told by an `error`, and then by a code; as text by the code alone."""
    job = await registry.submit(hang)
    address = address.format(id=job.id)
    async with open_line(registry, address) as line:
        [message], closed = await line.hear_out()
        assert (message["type"], message["code"], closed) == ("error", error, code)
    if "format" not in address:
        async with open_line(registry, f"{address}{'&' if '?' in address else '?'}format=text") as line:
            assert await texts(line) == ([], code)


@pytest.mark.parametrize(("token", "code"), [("ok-ann", None), ("ok-bob", 4404), ("wrong", 4401), (None, 4401)])
async def test_who_may_watch(autojump_clock: MockClock, registry: JobRegistry, token: str | None, code: int) -> None:
    """A tail needs its token at once; somebody else's job is unknown."""
    job = await registry.submit(words, "a", tags={"user": "ann"})
    async with open_line(registry, f"/jobs/{job.id}", authenticate=known, authorize=owners, token=token) as line:
        _, closed = await line.hear_out()
        assert closed == (code or CloseCode.COMPLETED)


@pytest.mark.parametrize("path", ["/jobs/x", "/ws"])
@pytest.mark.parametrize("request_time", [0.0, 3.0])
async def test_authentication_that_hangs(
    autojump_clock: MockClock, registry: JobRegistry, path: str, request_time: float
) -> None:
    """A client that can't be authenticated in time is told so and closed; its request has taken a part of that time."""

    async def hook(handshake: object) -> None:
        await trio.sleep_forever()

    async with open_line(registry, path, authenticate=hook, request_time=request_time) as line:
        heard, code = await line.hear_out()
        assert [message["code"] for message in heard if message["type"] != "hello"] == ["unauthenticated"]
        assert code in (CloseCode.AUTH_TIMEOUT, CloseCode.UNAUTHENTICATED)
        assert trio.current_time() == 10 - request_time


async def test_heartbeats(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """A silent tail gives signs of life with the last number; as text it stays silent."""
    job = await registry.submit(words, "a", delay=40)
    async with (
        open_line(registry, f"/jobs/{job.id}", limits=Limits(heartbeat=15)) as line,
        open_line(registry, f"/jobs/{job.id}?format=text", limits=Limits(heartbeat=15)) as plain,
    ):
        heard, _ = await line.hear_out()
        assert [message["type"] for message in heard] == ["subscribed", "heartbeat", "heartbeat", "events", "end"]
        assert heard[1] == {"type": "heartbeat", "last": 0}
        assert (await texts(plain))[0] == ["a"]


async def test_what_is_being_sent_is_sign_enough(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """Where a client takes long to read, no sign of life waits behind it that would tell of less than was sent."""

    async def send(job: JobContext) -> None:
        for _ in range(3):
            job.send_nowait("x" * 100_000)
        await trio.sleep(100)

    job = await registry.submit(send)
    async with open_line(registry, f"/jobs/{job.id}", limits=Limits(heartbeat=2)) as line:
        assert (await line.hear())["type"] == "subscribed"
        line.is_stalled = True
        await trio.sleep(5)
        line.read_again()
        heard = [await line.hear() for _ in range(4)]
        assert [(message["type"], message.get("last")) for message in heard] == [("events", None)] * 3 + [
            ("heartbeat", 3)
        ]
        assert trio.current_time() == 7
    await job.cancel()


async def test_silence_before_the_stream(
    autojump_clock: MockClock, registry: JobRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tail that has not begun when its first sign of life is due says none, and does not spin until it has."""
    sign_of_life, calls = TailSession._sign_of_life, 0

    def counted(self: TailSession) -> Heartbeat | None:
        nonlocal calls
        calls += 1
        assert calls < 100
        return sign_of_life(self)

    async def thoughtful(handshake: Handshake) -> str:
        await trio.sleep(7)
        return "ann"

    monkeypatch.setattr(TailSession, "_sign_of_life", counted)
    job = await registry.submit(words, "a", delay=10)
    async with open_line(registry, f"/jobs/{job.id}", limits=Limits(heartbeat=2), authenticate=thoughtful) as line:
        heard, code = await line.hear_out()
    assert [message["type"] for message in heard] == ["subscribed", "heartbeat", "events", "end"]
    assert code == CloseCode.COMPLETED


async def test_what_a_client_says(autojump_clock: MockClock, registry: JobRegistry) -> None:
    """What a tail's client says is passed over, as long as it is not too much."""
    job = await registry.submit(hang)
    async with open_line(registry, f"/jobs/{job.id}") as line:
        for _ in range(30):
            line.say("anything", b"\x00", {"type": "unsubscribe", "sub": 1})
            await trio.sleep(1)
        assert not line.farewell
        line.say(*["x"] * 200)
        _, code = await line.hear_out()
        assert code == CloseCode.RATE


async def test_the_registry_goes(autojump_clock: MockClock) -> None:
    """In memory, a tail of a job that is shut down has its ending."""
    async with jobtrio.open_registry(executors) as registry:
        job = await registry.submit(hang)
        async with open_line(registry, f"/jobs/{job.id}") as line:
            await line.hear()
            await registry.shutdown()
            heard, code = await line.hear_out()
        assert heard[-1]["outcome"] == {"type": "cancelled", "reason": "shutdown"}
        assert code == CloseCode.CANCELLED


async def test_batches(autojump_clock: MockClock) -> None:
    """All that is pending goes out at once, and never more than the limits: items, bytes, a large token alone."""
    sizes = [10] * 600 + [30_000] * 5 + [100_000] + [10] * 3
    async with jobtrio.open_registry(executors) as fresh:
        again = await fresh.submit(_send_sizes, sizes)
        await again.wait()
        async with open_line(fresh, f"/jobs/{again.id}") as line:
            heard, _ = await line.hear_out()
    counts = [len(message["items"]) for message in heard if message["type"] == "events"]
    assert sum(counts) == len(sizes)
    assert max(counts) == 256
    assert counts[:2] == [256, 256]
    events = [text for text in line.texts if '"events"' in text]
    assert [len(text) > 65536 for text in events].count(True) == 1
    [large] = [text for text in events if len(text) > 65536]
    assert large.count('"') == 12  # type, seq, attempt, items, and the one token
    assert len(counts) <= 10


async def _send_sizes(job: JobContext) -> None:
    for size in job.payload:
        await job.send("x" * size)


def counting(count: int, at_once: int) -> Callable[[JobContext], Awaitable[None]]:
    """Make an executor that sends numbers, with a hundredth of a second between so many of them."""

    async def work(job: JobContext) -> None:
        for n in range(count):
            await job.send(n)
            if n % at_once == 0:
                await trio.sleep(0.01)

    return work


@pytest.mark.parametrize(("interval", "messages"), [(0.0, 100), (0.1, 11), (1.0, 2)])
async def test_flush_interval(autojump_clock: MockClock, registry: JobRegistry, interval: float, messages: int) -> None:
    """With an interval, fewer messages carry the same tokens; the first one is not held back."""
    job = await registry.submit(counting(100, 1), delay=1)
    async with open_line(registry, f"/jobs/{job.id}", flush_interval=interval) as line:
        await line.hear()
        start = trio.current_time()
        first = await line.hear()
        assert trio.current_time() - start < 1.1
        heard, _ = await line.hear_out()
    events = [first, *(message for message in heard if message["type"] == "events")]
    assert [item for message in events for item in message["items"]] == list(range(100))
    assert abs(len(events) - messages) <= 2


async def test_more_than_a_batch_in_the_interval(autojump_clock: MockClock) -> None:
    """A client that reads at once misses nothing, however many tokens come while they are collected."""
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=1_500)) as fresh:
        job = await fresh.submit(counting(5_000, 10), delay=1)
        async with open_line(fresh, f"/jobs/{job.id}", flush_interval=1.0) as line:
            heard, _ = await line.hear_out()
    assert [item for message in heard[1:-1] for item in message["items"]] == list(range(5_000))


@pytest.mark.parametrize(("send_time", "interval"), [(0.0, 1.0), (0.01, 0.0)])
async def test_behind_a_gap_nothing_is_waited_for(autojump_clock: MockClock, send_time: float, interval: float) -> None:
    """One that comes late to a stream that goes on is told of one gap, however long it takes to send that."""
    async with jobtrio.open_registry(retention=Retention(tokens_per_job=500)) as fresh:
        job = await fresh.submit(counting(4_000, 4))
        await trio.sleep(5)
        async with open_line(fresh, f"/jobs/{job.id}", flush_interval=interval) as line:
            line.send_time = send_time
            heard, _ = await line.hear_out()
    assert [message["type"] for message in heard].count("gap") == 1


@pytest.mark.parametrize(
    ("send_time", "interval", "most"),
    [(0.0005, 0.0, 650), (0.002, 0.0, 130), (0.02, 0.0, 25), (0.002, 0.25, 5)],  # the interval is kept to all the same
)
async def test_slowing_down(autojump_clock: MockClock, send_time: float, interval: float, most: int) -> None:
    """Where sending takes long, less is sent: what comes meanwhile goes along, and time is left to others."""
    sizes = await _sizes_of_batches(send_time, interval, tokens=500, every=0.001)
    assert most / 4 < len(sizes) <= most


async def test_slowing_down_has_a_bound(autojump_clock: MockClock) -> None:
    """However long sending takes, no batch waits for more than a moment besides."""
    sizes = await _sizes_of_batches(0.25, 0.0, tokens=200, every=0.01)
    assert max(sizes) < 100 * (0.25 + 2 * LONGEST_PAUSE)


async def _sizes_of_batches(send_time: float, interval: float, tokens: int, every: float) -> list[int]:
    """Return how many of a job's tokens came in each message."""

    async def work(job: JobContext) -> None:
        for n in range(tokens):
            await job.send(n)
            await trio.sleep(every)

    async with jobtrio.open_registry() as fresh:
        job = await fresh.submit(work, delay=1)
        async with open_line(fresh, f"/jobs/{job.id}", flush_interval=interval) as line:
            line.send_time = send_time
            heard, _ = await line.hear_out()
    events = [message["items"] for message in heard if message["type"] == "events"]
    assert [item for items in events for item in items] == list(range(tokens))
    return [len(items) for items in events]
