"""The bridge's pure parts, and whole sessions, against anything that may come in."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import trio
import trio.testing
from bridge import executors
from hypothesis import example, given, settings
from hypothesis import strategies as st
from line import anybody, open_line

import jobtrio
from jobtrio import JobState
from jobtrio.websocket import Limits, protocol
from jobtrio.websocket._codes import CloseCode
from jobtrio.websocket._frames import FrameGate
from jobtrio.websocket._head import HttpRefusal, parse_head, plain_request
from jobtrio.websocket._tailing import parse_tail
from jobtrio.websocket._values import value_json, value_text, values_json

if TYPE_CHECKING:
    from line import Line

    from jobtrio import JobContext

text = st.text(max_size=20)
seconds = st.floats(0, 1e6)
numbers = st.integers(-(2**63) + 1, 2**63 - 1)
counts = st.integers(0, 2**63 - 1)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4), max_leaves=10
)
ids = st.none() | numbers | st.text(max_size=100)
tags = st.none() | st.dictionaries(text, text, max_size=3)

retries = st.builds(
    protocol.WireRetry,
    max_attempts=st.integers(1),
    initial=seconds,
    multiplier=st.floats(1, 1e6),
    max_delay=seconds,
    jitter=st.floats(0, 1),
)

requests = st.one_of(
    st.builds(protocol.Auth, id=ids, token=text),
    st.builds(
        protocol.Submit,
        id=ids,
        executor=text,
        payload=values,
        subscribe=st.booleans(),
        key=st.none() | text,
        queue=st.none() | text,
        priority=st.sampled_from(("LOW", "NORMAL", "HIGH", "CRITICAL")),
        time_limit=st.none() | seconds,
        retry=st.none() | retries,
        delay=st.none() | seconds,
        expires_in=st.none() | seconds,
        tags=tags,
        metadata=st.none() | st.dictionaries(text, values, max_size=3),
    ),
    st.builds(
        protocol.Subscribe,
        id=ids,
        job=text,
        after=counts | st.just("end"),
        epoch=st.none() | text,
        on_gap=st.sampled_from(("raise", "yield")),
    ),
    st.builds(protocol.Unsubscribe, id=ids, sub=counts),
    st.builds(protocol.Cancel, id=ids, job=text, reason=st.none() | text, grace=seconds),
    st.builds(protocol.Get, id=ids, job=text),
    st.builds(
        protocol.Find,
        id=ids,
        tags=tags,
        state=st.none() | st.lists(st.sampled_from(JobState), max_size=3),
        limit=st.integers(1, 1000),
        after=st.none() | text,
    ),
    st.builds(protocol.Ping, id=ids),
)

errors = st.builds(
    jobtrio.JobError, st.sampled_from(("exception", "timeout", "expired", "gave_up", "lost")), text, text, text
)
seqs = st.integers(1, 2**53)
messages = st.one_of(
    st.builds(jobtrio.Token, seqs, seqs, values),
    st.builds(jobtrio.Progress, seqs, seqs, seconds, st.none() | seconds, st.none() | text),
    st.builds(jobtrio.Restart, seqs, seqs, errors, seconds),
    st.builds(jobtrio.Gap, seqs, seqs),
    st.builds(
        jobtrio.End,
        seqs,
        st.builds(jobtrio.Completed, values)
        | st.builds(jobtrio.Failed, errors)
        | st.builds(jobtrio.Cancelled, st.none() | text),
    ),
)


def _mutated(draw: st.DrawFn, request: str) -> str:
    """Return a request with something in it replaced by something else."""
    message = json.loads(request)
    field = draw(st.sampled_from(sorted(message)))
    message[field] = draw(values | st.sampled_from([True, -1, 1.0, 2**63, 2**64, "end", [], {}]))
    return json.dumps(message)


@st.composite
def nearly_requests(draw: st.DrawFn) -> str:
    """Return the text of a request, or of something close to one."""
    encoded = protocol.encode_request(draw(requests))
    match draw(st.integers(0, 3)):
        case 0:
            return encoded
        case 1:
            return _mutated(draw, encoded)
        case 2:
            cut = draw(st.integers(0, len(encoded)))
            return encoded[:cut] + draw(text) + encoded[cut + draw(st.integers(0, 3)) :]
        case _:
            return encoded.replace(draw(st.sampled_from(list('":{},'))), draw(text), 1)


@given(st.binary(max_size=200) | text | nearly_requests())
@example(b'\xef\xbb\xbf{"type":"ping"}')
@example("\ud800")
def test_decoding_raises_nothing_else(data: str | bytes) -> None:
    """Whatever comes in, decoding returns a message or raises the protocol's own error, in both directions."""
    for decode in (protocol.decode_request, protocol.decode_reply):
        error = None
        try:
            decode(data)
        except protocol.ProtocolError as exc:
            error = exc
        if error is not None:
            assert error.code in ("invalid", "unknown_type")
            protocol.encode_reply(protocol.Refused(id=error.id, code=error.code, message=error.message))


@given(requests)
def test_requests_round_trip(request: protocol.AnyRequest) -> None:
    """A request comes out as it went in."""
    assert protocol.decode_request(protocol.encode_request(request)) == request


@given(messages, st.none() | seqs)
def test_messages_round_trip(message: Any, sub: int | None) -> None:
    """A job's message comes out as it went in."""
    reply = protocol.decode_reply(protocol.encode_reply(protocol.reply_to(message, sub, tracebacks=True)))
    assert isinstance(reply, protocol.JobStreamReply)
    assert (reply.sub, protocol.messages_of(reply)) == (sub, [message])


class Thing:
    """A value with code of its own."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __repr__(self) -> str:
        return self.what


anything = st.recursive(
    scalars
    | st.floats()
    | st.text(st.characters(codec=None, categories=("Cs", "Lu")), max_size=3)
    | st.binary(max_size=5)
    | st.complex_numbers()
    | st.builds(Thing, st.text(st.characters(codec=None), max_size=3))
    | st.dates()
    | st.integers(10**4299, 10**4301),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(max_size=2) | st.tuples(st.integers()), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(anything, max_size=5))
@settings(max_examples=200)
def test_any_value_can_be_sent(given: list[Any]) -> None:
    """Whatever a job sends goes over the wire, each value for itself as in a batch."""
    whole = json.loads(values_json(given))
    assert whole == [json.loads(value_json(value)) for value in given]
    for value in given:
        value_text(value).encode()
        if isinstance(value, float) and not math.isfinite(value):
            assert json.loads(value_json(value)) == {"repr": repr(value)}


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_heads(data: bytes) -> None:
    """Any bytes are a request or refused with an HTTP status."""
    refused = None
    try:
        head = parse_head(data + b"\r\n\r\n")
    except HttpRefusal as refusal:
        refused = refusal
    else:
        parse_head(plain_request(head))
    if refused is not None:
        assert 400 <= int(refused.status) < 500
        assert refused.encode().startswith(b"HTTP/1.1 4")


@given(st.lists(st.text(st.characters(max_codepoint=300), max_size=40), max_size=5))
def test_heads_with_any_headers(lines: list[str]) -> None:
    """A proper request with any lines added is let in or refused, and what is let in is plain."""
    start = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    data = (start + "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + "\r\n".join(lines)).encode("latin-1", "replace")
    try:
        head = parse_head(data + b"\r\n\r\n")
    except HttpRefusal:
        return
    assert all(" " <= char <= "~" or char == "\t" for value in head.headers.values() for char in value)
    assert plain_request(head).isascii()


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_tail_addresses(query: str) -> None:
    """Any query is an address or a `ValueError`."""
    try:
        address = parse_tail("/jobs/x", query)
    except ValueError:
        return
    assert address.start.after == "end" or 0 <= address.start.after < 2**63


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), max_size=20))
def test_frames_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    """What passes the gate does not depend on how it was cut, and is part of what came, in order."""

    def passed(sizes: list[int]) -> tuple[bytes, CloseCode | None]:
        gate, rest, out = FrameGate(100, 3), data, b""
        for size in [*sizes, len(data)]:
            gate.feed(rest[:size])
            rest = rest[size:]
            while piece := gate.take():
                out += piece
        return out, gate.verdict

    whole = passed([])
    assert passed(cuts) == whole
    rest = iter(data)
    assert all(byte in rest for byte in whole[0])


# -- whole sessions

steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), nearly_requests() | text | st.binary(max_size=20)),
        st.tuples(
            st.just("ask"),
            st.sampled_from(["subscribe", "unsubscribe", "cancel", "get", "submit", "ping", "find", "auth"]),
            st.integers(0, 5),
        ),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 0.3, 20.0])),
        st.tuples(st.just("stall"), st.booleans()),
    ),
    max_size=25,
)


def _request(kind: str, n: int, jobs: list[str]) -> dict[str, Any]:
    job = jobs[n % len(jobs)]
    fields: dict[str, dict[str, Any]] = {
        "subscribe": {"job": job, "after": "end" if n == 3 else n, "on_gap": "yield" if n % 2 else "raise"},
        "unsubscribe": {"sub": n},
        "cancel": {"job": job, "reason": "why"},
        "get": {"job": job},
        "submit": {"executor": "words", "payload": "a b c", "subscribe": bool(n % 2), "key": "k" if n == 4 else None},
        "ping": {},
        "find": {"limit": n + 1},
        "auth": {"token": "t"},
    }
    return fields[kind]


async def _interpret(steps: list[Any]) -> Line:
    async def count(job: JobContext) -> None:
        for n in range(30):
            await job.send(n)
            await trio.sleep(0.1)

    retention = jobtrio.Retention(tokens_per_job=8)
    async with jobtrio.open_registry(executors, retention=retention) as registry:
        jobs = [(await registry.submit(count)).id, (await registry.submit(count)).id, "none"]
        limits = Limits(messages_per_second=1e6, subscriptions=4)
        async with open_line(registry, authenticate=anybody, limits=limits) as line:
            asked = 0
            for step in steps:
                match step:
                    case ("say", said):
                        line.say(said)
                    case ("ask", kind, n):
                        asked += 1
                        line.say({"type": kind, "id": f"#{asked}", **_request(kind, n, jobs)})
                    case ("wait", delay):
                        await trio.sleep(delay)
                    case ("stall", True):
                        line.is_stalled = True
                    case ("stall", False):
                        line.read_again()
            line.read_again()
            await trio.sleep(50)
            line.leave()
            await trio.sleep(1)
            answers = [json.loads(text).get("id") for text in line.texts]
            assert [id for id in answers if isinstance(id, str) and id[:1] == "#"] == [
                f"#{n + 1}" for n in range(asked)
            ]
        await registry.shutdown()
    return line


@given(steps)
@settings(max_examples=150)
def test_sessions(steps: list[Any]) -> None:
    """Whatever a client says, each request with an `id` is answered once; streams have no hole and one ending."""
    line = trio.run(_interpret, steps, clock=trio.testing.MockClock(autojump_threshold=0))
    assert line.ending.code in (None, CloseCode.UNAUTHENTICATED)
    position: dict[int, int] = {}
    ended: set[int] = set()
    for message in map(json.loads, line.texts):
        sub = message.get("sub")
        if sub is None or message["type"] in ("subscribed", "submitted"):
            if message["type"] == "subscribed":
                position[sub] = -1
            continue
        assert sub not in ended
        match message["type"]:
            case "events":
                assert position.get(sub, 0) in (-1, message["seq"] - 1)
                position[sub] = message["seq"] + len(message["items"]) - 1
            case "gap":
                assert position.get(sub, 0) in (-1, message["first"] - 1)
                position[sub] = message["last"]
            case "end":
                assert position.get(sub, 0) in (-1, message["seq"] - 1)
                ended.add(sub)
            case "error":
                ended.add(sub)
