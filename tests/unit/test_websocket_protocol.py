"""The wire protocol's codec, message by message."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import attrs
import msgspec
import pytest
from other_texts import Label

import jobtrio
from jobtrio.websocket import _client_link, _values, protocol
from jobtrio.websocket.protocol import (
    ErrorCode,
    ProtocolError,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ERROR = jobtrio.JobError("exception", "ValueError", "no", "Traceback …")


def wrong(text: str | bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        decode_request(text)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"auth","id":1,"token":"t"}',
        '{"type":"submit","id":"a","executor":"e","payload":{"x":[1,null]},"subscribe":true,"key":"k","queue":"q",'
        '"priority":"HIGH","time_limit":1.5,"retry":{"max_attempts":4,'
        '"initial":1.5,"multiplier":2.0,"max_delay":9.0,"jitter":0.5},"delay":2.0,"expires_in":3.0,"tags":{"a":"b"},"metadata":{"c":1}}',
        '{"type":"subscribe","id":1,"job":"j","after":7,"epoch":"e","on_gap":"yield"}',
        '{"type":"subscribe","job":"j","after":"end"}',
        '{"type":"unsubscribe","id":1,"sub":3}',
        '{"type":"cancel","id":1,"job":"j","reason":"r","grace":0.5}',
        '{"type":"get","id":1,"job":"j"}',
        '{"type":"find","id":1,"tags":{"a":"b"},"state":["RUNNING","FAILED"],"limit":7,"after":"j"}',
        '{"type":"ping"}',
    ],
)
def test_requests_keep_their_fields(text: str) -> None:
    """Each request comes back as the same JSON after decoding and encoding."""
    assert json.loads(encode_request(decode_request(text))) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"hello","proto":"jobtrio.v1","heartbeat":15.0,"limits":{"message_bytes":65536,"subscriptions":32,'
        '"messages_per_second":50.0,"attempts":10}}',
        '{"type":"ok","id":1,"cancelled":false}',
        '{"type":"pong","id":"x"}',
        '{"type":"submitted","id":1,"job":"j","sub":1,"epoch":"e"}',
        '{"type":"subscribed","id":1,"sub":1,"job":"j","epoch":"e","state":"RUNNING","attempt":1,"first":1,"last":20}',
        '{"type":"events","sub":1,"seq":21,"attempt":1,"items":["a",{"b":null},3]}',
        '{"type":"progress","sub":1,"seq":23,"attempt":1,"done":1.0,"total":3.0,"note":null}',
        '{"type":"restart","sub":1,"seq":24,"attempt":1,"error":{"kind":"lost","type":"t","message":"m","traceback":""},'
        '"delay":1.0}',
        '{"type":"gap","sub":1,"first":1,"last":501}',
        '{"type":"end","sub":1,"seq":25,"outcome":{"type":"completed","result":4}}',
        '{"type":"end","seq":25,"outcome":{"type":"cancelled","reason":null}}',
        '{"type":"heartbeat","last":{"1":25}}',
        '{"type":"heartbeat","last":25}',
        '{"type":"error","id":1,"sub":2,"code":"outdated_cursor","message":"m","first":1,"last":5}',
    ],
)
def test_replies_keep_their_fields(text: str) -> None:
    """Each reply comes back as the same JSON after decoding and encoding."""
    assert json.loads(encode_reply(decode_reply(text))) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "code", "id"),
    [
        ("", "invalid", None),
        ("no JSON", "invalid", None),
        (b"\xff\xfe", "invalid", None),
        (b'{"type":"get","job":"\xff"}', "invalid", None),
        ("[]", "invalid", None),
        ("5", "invalid", None),
        ("null", "invalid", None),
        ("{}", "invalid", None),
        ('{"type":5,"id":3}', "invalid", 3),
        ('{"type":"dance","id":3}', "unknown_type", 3),
        ('{"type":"dance","id":[]}', "unknown_type", None),
        ('{"type":"ping","id":true}', "invalid", None),
        ('{"type":"ping","id":1.5}', "invalid", None),
        ('{"type":"ping","id":9223372036854775808}', "invalid", None),
        ('{"type":"ping","id":"' + "x" * 101 + '"}', "invalid", None),
        ('{"type":"ping","x":NaN}', "invalid", None),
        ('{"type":"submit","id":3,"executor":"e","payload":1e999}', "invalid", 3),
        ('{"type":"ping","x":"\\ud800"}', "invalid", None),
        ('{"type":"ping","x":' + "[" * 10_000 + "]" * 10_000 + "}", "invalid", None),
        ('{"type":"ping","x":' + '{"a":' * 10_000 + "1" + "}" * 10_000 + "}", "invalid", None),
        ('{"type":"submit","id":3,"executor":"e","payload":' + "[" * 30_000 + "]" * 30_000 + "}", "invalid", 3),
        ('{ "type": "ping", "id": "a-3", "x": ' + '{"a":' * 30_000 + "1" + "}" * 30_000 + "}", "invalid", "a-3"),
        (b'{"type":"ping","id":3,"x":' + b"[" * 30_000 + b"]" * 30_000 + b"}", "invalid", 3),
        ('{"x":{"type":"ping","id":3,"x":' + "[" * 30_000 + "]" * 30_000 + "}}", "invalid", None),
        ('{"type":"submit","id":0,"executor":"e","payload":' + "[" * 30_000 + "]" * 30_000 + "}", "invalid", 0),
        ('{"type":"submit","id":-3,"executor":"e","payload":NaN}', "invalid", -3),
        (b'{"type":"get","id":"a","job":"\xff"}', "invalid", "a"),
        ('{"type":"get","id":3,"job":"j"', "invalid", 3),
        ('{"type":"get","id":3', "invalid", None),
        ('{"type":"get","id":03,"job":', "invalid", None),
        ('{"type":"subscribe","id":3}', "invalid", 3),
        ('{"type":"subscribe","id":3,"job":"j","after":-1}', "invalid", 3),
        ('{"type":"subscribe","id":3,"job":"j","after":1.0}', "invalid", 3),
        ('{"type":"subscribe","id":3,"job":"j","after":true}', "invalid", 3),
        ('{"type":"subscribe","id":3,"job":"j","after":9223372036854775808}', "invalid", 3),
        ('{"type":"subscribe","id":3,"job":"j","after":"start"}', "invalid", 3),
        ('{"type":"subscribe","id":3,"job":"j","on_gap":"ignore"}', "invalid", 3),
        ('{"type":"subscribe","id":3,"job":5}', "invalid", 3),
        ('{"type":"submit","id":3,"executor":"e","priority":"URGENT"}', "invalid", 3),
        ('{"type":"submit","id":3,"executor":"e","payload":' + "9" * 5000 + "}", "invalid", 3),
        ('{"type":"find","id":3,"state":["DONE"]}', "invalid", 3),
        ('{"type":"find","id":3,"limit":0}', "invalid", 3),
    ],
)
def test_wrong_requests_say_what_they_are(text: str | bytes, code: str, id: Any) -> None:
    """A wrong request raises the protocol's own error, with its code and the request's id where that is usable."""
    error = wrong(text)
    assert (error.code, error.id) == (code, id)
    assert error.message


def test_the_last_of_doubled_keys_counts() -> None:
    """Of a field that appears twice the last one counts, and unknown fields are passed over."""
    assert decode_request('{"type":"get","job":"a","job":"b","id":1,"id":2,"new":[1]}') == protocol.Get(id=2, job="b")


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        ("a", "a"),
        (None, None),
        ([1, {"a": None}], [1, {"a": None}]),
        ((1, 2), [1, 2]),
        (10**30, 10**30),
        (float("nan"), {"repr": "nan"}),
        ({"deep": [float("-inf"), None]}, {"repr": "{'deep': [-inf, None]}"}),
        ("\ud800", {"repr": "'\\ud800'"}),
        (1j, {"repr": "1j"}),
        pytest.param(10**5000, {"repr": "<int whose repr raised ValueError>"}, id="huge"),
        ({(1, 2): 3}, {"repr": "{(1, 2): 3}"}),
    ],
)
def test_values_that_json_cannot_hold_go_as_their_repr(value: Any, encoded: Any) -> None:
    """A token and a result arrive as they are, or as their repr where JSON can't hold them."""
    events = json.loads(encode_reply(protocol.Events(seq=1, attempt=1, items=["x", value, "y"])))
    assert events["items"] == ["x", encoded, "y"]
    end = json.loads(encode_reply(protocol.Ended(seq=1, outcome=protocol.WireCompleted(result=value))))
    assert end["outcome"]["result"] == encoded


class Panic(BaseException):
    """An exception outside the hierarchy that code usually catches."""


class Panicky(set[int]):
    """A value whose own code raises, whatever is done to it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__({1})
        self.error = error

    def __iter__(self) -> Any:
        raise self.error

    def __repr__(self) -> str:
        raise self.error

    __str__ = __repr__


class Labelled:
    """A value whose repr is such a text."""

    def __repr__(self) -> str:
        return Label("a label")


def test_value_whose_repr_is_of_another_class() -> None:
    """A repr that is text of a class of its own stands for its value as plain text does."""
    test_values_that_json_cannot_hold_go_as_their_repr(Labelled(), {"repr": "a label"})


@pytest.mark.parametrize("error", [ValueError("broken"), Panic("broken")])
def test_values_whose_own_code_raises(error: BaseException) -> None:
    """Whatever a value's own code raises is about that value alone, but for what ends the program."""
    name = f"<Panicky whose repr raised {type(error).__name__}>"
    test_values_that_json_cannot_hold_go_as_their_repr(Panicky(error), {"repr": name})
    test_values_that_json_cannot_hold_go_as_their_repr([Panicky(error)], {"repr": name.replace("Panicky", "list")})
    assert _values.value_text(Panicky(error)) == name
    for kind in (KeyboardInterrupt, SystemExit):
        for encode in (_values.value_json, _values.value_text, lambda value: _values.values_json([value])):
            with pytest.raises(kind):
                encode(Panicky(kind()))


class Envelope(msgspec.Struct):
    """What a program may have that reads parts of its messages later: where they are missing, it passes for JSON."""

    name: str
    rest: msgspec.Raw = msgspec.Raw()


@pytest.mark.parametrize(
    "value",
    [
        Envelope("a"),
        msgspec.Raw(),
        msgspec.Raw(b"1,2"),
        msgspec.Raw(b"no"),
        msgspec.Raw(b'"\xff"'),
        {"a": [msgspec.Raw(b"}")]},
        [None, msgspec.Raw(b"[")],
    ],
    ids=lambda value: "",  # they are told by address, which is another one in every process
)
def test_values_that_only_look_encoded_go_as_their_repr(value: Any) -> None:
    """Text that is passed on as JSON and is none breaks no message, nor does it change the number of any other."""
    test_values_that_json_cannot_hold_go_as_their_repr(value, {"repr": repr(value)})


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (msgspec.Raw(b"null"), None),
        (msgspec.Raw(b'{"a": [null]}'), {"a": [None]}),
        ([None, msgspec.Raw(b'"\xc3\xa4"')], [None, "ä"]),
        (Envelope("a", msgspec.Raw(b"1")), {"name": "a", "rest": 1}),
    ],
)
def test_values_that_are_encoded_already(value: Any, encoded: Any) -> None:
    """Parts of a value may be JSON already."""
    test_values_that_json_cannot_hold_go_as_their_repr(value, encoded)


def test_a_value_without_an_end_goes_as_its_repr() -> None:
    """A list that holds itself, and one that is 100,000 deep, are no reason to fail."""
    loop: list[Any] = []
    loop.append(loop)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    items = json.loads(encode_reply(protocol.Events(seq=1, attempt=1, items=[loop, deep])))["items"]
    assert items == [{"repr": "[[...]]"}, {"repr": "<list whose repr raised RecursionError>"}]


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        (
            '"type":"submit","executor":"e","priority":"URGENT"',
            "'URGENT' - at `$.priority`; allowed: LOW, NORMAL, HIGH, CRITICAL",
        ),
        ('"type":"find","state":["DONE"]', "'DONE' - at `$.state[0]`; allowed: SCHEDULED, QUEUED, RUNNING, RETRYING, "),
        ('"type":"subscribe","job":"j","on_gap":"ignore"', "'ignore' - at `$.on_gap`; allowed: raise, yield"),
        ('"type":"subscribe","job":"j","after":"start"', "'start' - at `$.after`; allowed: a whole number, end"),
    ],
)
def test_wrong_words_are_told_what_is_allowed(fields: str, allowed: str) -> None:
    """Where there are only so many words, an error names the field, what was given, and the words."""
    assert allowed in str(wrong(f"{{{fields}}}"))


def nested(levels: int) -> list[Any]:
    """Return lists within each other."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_depth_of_values() -> None:
    """How deep a value may be that goes as it is, is the same in every Python; many that are not deep all go."""
    limit = _values.DEPTH_LIMIT
    items = json.loads(encode_reply(protocol.Events(seq=1, attempt=1, items=[nested(limit), nested(limit + 1), 1])))[
        "items"
    ]
    assert items == [nested(limit), {"repr": repr(nested(limit + 1))}, 1]
    many = [{"a": ["[" * 1_000]} for _ in range(limit)]
    assert json.loads(encode_reply(protocol.Events(seq=1, attempt=1, items=many)))["items"] == many


def test_digits_of_whole_numbers() -> None:
    """Whole numbers of 4,300 digits go both ways; a message with longer ones is refused, and they go as their repr."""
    largest = 10**4300 - 1
    text = f'{{"type":"submit","id":3,"executor":"e","payload":{largest}}}'
    request = protocol.decode_request(text)
    assert isinstance(request, protocol.Submit)
    assert request.payload == largest
    error = wrong(text.replace(":9", ":99"))
    assert (error.code, error.id) == ("invalid", 3)
    items = json.loads(encode_reply(protocol.Events(seq=1, attempt=1, items=[largest, largest + 1])))["items"]
    assert items == [largest, {"repr": "<int whose repr raised ValueError>"}]


def test_depth_of_requests() -> None:
    """So is how deep a client's message may be."""
    limit = _values.DEPTH_LIMIT
    text = json.dumps({"type": "submit", "id": 3, "executor": "e", "payload": nested(limit - 1)})
    request = protocol.decode_request(text)
    assert isinstance(request, protocol.Submit)
    assert request.payload == nested(limit - 1)
    for deeper in (text.replace("[]", "[[]]"), text.replace("[]", "[[]]").encode()):
        error = wrong(deeper)
        assert (error.code, error.id) == ("invalid", 3)
        assert "nested too deeply" in str(error)
    texts = json.dumps({"type": "submit", "id": 3, "executor": "e", "payload": ["[{" * 1_000, [[]] * 1_000]})
    assert isinstance(protocol.decode_request(texts), protocol.Submit)


@pytest.mark.parametrize("rest", ['"', '"a'])
def test_refusing_a_text_that_never_ends_takes_no_longer(rest: str) -> None:
    """A message that is cut off within a text is refused about as quickly as a whole one, whatever is in the text."""

    def seconds(end: str) -> float:
        text = "[" * 501 + '"' + f"\\{rest}" * (12_000 // (1 + len(rest))) + end
        began = time.perf_counter()
        assert wrong(text).code == "invalid"
        return time.perf_counter() - began

    whole = max(seconds('"' + "]" * 501) for _ in range(3))
    assert min(seconds("") for _ in range(3)) < 50 * whole


@pytest.mark.parametrize("number", ["1e308", "-1E+0300", "1e-320", "2.2250738585072011e-308"])
@pytest.mark.parametrize(
    "text",
    [
        '{"type":"submit","id":1,"executor":"e","payload":%s}',
        '{"type":"submit","id":1,"executor":"e","metadata":{"a":%s}}',
        '{"type":"nothing","id":%s}',
        '{"type":"events","seq":1,"attempt":1,"items":%s}',
    ],
)
def test_numbers_near_the_ends_of_floats_take_no_longer(text: str, number: str) -> None:
    """A message full of the largest or smallest numbers is read about as quickly as one of others, and as exactly."""
    decode = decode_reply if "events" in text else decode_request

    def seconds(number: str) -> float:
        whole = text % f"[{','.join([number] * (60_000 // len(number)))}]"
        began = time.perf_counter()
        with contextlib.suppress(ProtocolError):
            decode(whole)
        return (time.perf_counter() - began) / whole.count(",")

    usual = max(seconds("1.5") for _ in range(3))
    assert min(seconds(number) for _ in range(3)) < 50 * usual
    if "events" in text:
        reply = decode_reply(text % f"[{number}]")
        assert isinstance(reply, protocol.Events)
        assert reply.items == [float(number)]
    elif "payload" in text:
        request = decode_request(text % f"[{number}]")
        assert isinstance(request, protocol.Submit)
        assert request.payload == [float(number)]
        assert "out of range" in str(wrong(text % "1e309"))


def test_a_value_too_large_for_a_client_goes_as_its_repr() -> None:
    """No message is larger than a client takes, though memory holds values of any size."""
    size = _values.VALUE_LIMIT - 2
    largest, larger = "x" * size, "y" * (size + 1)
    items = json.loads(encode_reply(protocol.Events(seq=1, attempt=1, items=["a", larger, "b"])))["items"]
    assert items == ["a", {"repr": f"'{'y' * (_values.REPR_LIMIT - 2)}…"}, "b"]
    assert json.loads(encode_reply(protocol.Events(seq=1, attempt=1, items=[largest])))["items"] == [largest]
    end = json.loads(encode_reply(protocol.Ended(seq=1, outcome=protocol.WireCompleted(result=[larger]))))
    assert list(end["outcome"]["result"]) == ["repr"]
    assert 3 * _values.VALUE_LIMIT < _client_link.MESSAGE_LIMIT - 2**20  # a record has three, and little else


@pytest.mark.parametrize("kind", [str, bytes])
@pytest.mark.parametrize(
    "wrap", [lambda large: large, lambda large: {"a": 1, "b": [large], "c": 2}, lambda large: (0, [{"x": large}])]
)
def test_a_value_far_too_large_takes_no_longer(wrap: Callable[[Any], Any], kind: type[Any]) -> None:
    """A value that is plainly too large is not encoded for every client that asks for it, nor is all of its repr."""

    def value(size: int) -> Any:
        return wrap("é" * size if kind is str else b"\0" * size)

    def seconds(size: int) -> float:
        large = value(size)
        began = time.thread_time()
        text = json.loads(_values.value_json(large))["repr"]
        ended = time.thread_time()
        assert text == beginning
        return ended - began

    beginning = f"{repr(value(_values.REPR_LIMIT))[: _values.REPR_LIMIT - 1]}…"

    usual = max(seconds(_values.VALUE_LIMIT + 1) for _ in range(5))
    assert min(seconds(4 * _values.VALUE_LIMIT) for _ in range(5)) < 2 * usual


def test_large_parts_together_are_too_large() -> None:
    """Neither is one whose parts are too large together; one that is not goes as it is."""
    third = "x" * (_values.VALUE_LIMIT // 3)
    assert json.loads(_values.value_json([third, third])) == [third, third]
    assert list(json.loads(_values.value_json([third, third, third, third]))) == ["repr"]
    many = [third[:1000]] * 10_000
    assert json.loads(_values.value_json({"a": many})) == {"a": many}


def test_messages_survive_the_way_to_a_client() -> None:
    """A client gets the messages that the server's subscription received, tracebacks only if it may."""
    messages: list[jobtrio.Message] = [
        jobtrio.Token(1, 1, {"a": 1}),
        jobtrio.Progress(2, 1, 1.0, None, "x"),
        jobtrio.Restart(3, 1, ERROR, 2.0),
        jobtrio.Gap(4, 9),
        jobtrio.End(10, jobtrio.Completed([1])),
        jobtrio.End(10, jobtrio.Failed(ERROR)),
        jobtrio.End(10, jobtrio.Cancelled("why")),
    ]
    for message in messages:
        reply = decode_reply(encode_reply(protocol.reply_to(message, 3, tracebacks=True)))
        assert isinstance(reply, protocol.JobStreamReply)
        assert reply.sub == 3
        assert protocol.messages_of(reply) == [message]
    hidden = encode_reply(protocol.reply_to(messages[5], 3))
    assert "Traceback" not in hidden


@pytest.mark.parametrize("done", [1, 2**60 + 1, 10**30, pytest.param(10**308, id="1e308"), 0.5, 1.0])
def test_progress_counts_at_a_client_as_in_the_process(done: float) -> None:
    """A whole number stays one: a float would have rounded a count beyond 2**53."""
    message = jobtrio.Progress(1, 1, done, done)
    reply = decode_reply(encode_reply(protocol.reply_to(message)))
    assert isinstance(reply, protocol.ProgressMade)
    assert (reply.done, type(reply.done)) == (done, type(done))
    assert protocol.messages_of(reply) == [message]


def test_halves_of_surrogate_pairs_in_texts_are_escaped() -> None:
    """An error's text with bytes of a broken file name can be sent."""
    error = jobtrio.JobError("exception", "OSError", "no file \udcff", "")
    end = json.loads(encode_reply(protocol.reply_to(jobtrio.End(1, jobtrio.Failed(error)))))
    assert end["outcome"]["error"]["message"] == "no file \\udcff"


def test_records_survive_the_way_to_a_client() -> None:
    """A client gets the record as it is in process, alone and among others."""
    now = datetime.now(UTC)
    record = jobtrio.JobRecord(
        id="j",
        executor="e",
        payload={"a": 1},
        queue="default",
        priority=jobtrio.JobPriority.HIGH,
        tags={"t": "u"},
        metadata={"m": 1},
        key="k",
        state=jobtrio.JobState.FAILED,
        attempt=2,
        max_attempts=3,
        created_at=now,
        run_at=now,
        started_at=now,
        finished_at=now,
        worker="w",
        cancel_requested_at=now,
        cancel_reason="r",
        error=ERROR,
        result=None,
        time_limit=7.5,
        retry=jobtrio.RetryPolicy(max_attempts=3, initial=0, multiplier=3, max_delay=900, jitter=0),
        expires_in=60.0,
    )
    text = encode_reply(protocol.JobFound(id=1, job=protocol.wire_record(record)))
    reply = decode_reply(text)
    assert isinstance(reply, protocol.JobFound)
    assert protocol.record_of(reply.job) == record
    with pytest.raises(ProtocolError, match="timezone"):  # a record's times can be compared with each other
        decode_reply(text.replace('Z","run_at"', '","run_at"'))
    many = decode_reply(encode_reply(protocol.JobsFound(id=1, jobs=[protocol.wire_record(record)])))
    assert isinstance(many, protocol.JobsFound)
    assert [protocol.record_of(job) for job in many.jobs] == [record]


RECORD = jobtrio.JobRecord(
    *("j", "e", None, "q", jobtrio.JobPriority.LOW, {}, {}, None, jobtrio.JobState.QUEUED, 0, 3, datetime.now(UTC)),
    time_limit=float("inf"),
    retry=jobtrio.RetryPolicy(),
    expires_in=60.0,
)


def test_limits_of_a_record() -> None:
    """A client lives with a server that does not tell them, takes no limit for none, and refuses those of no sense."""
    text = encode_reply(protocol.JobFound(id=1, job=protocol.wire_record(RECORD)))
    reply = decode_reply(text)
    assert isinstance(reply, protocol.JobFound)
    assert protocol.record_of(reply.job) == attrs.evolve(RECORD, time_limit=None)
    limits = ',"time_limit":null,"retry":{"max_attempts":3,'
    before, _, behind = text.partition(limits)
    assert behind.endswith('},"expires_in":60.0}}')
    reply = decode_reply(before + "}}")
    assert isinstance(reply, protocol.JobFound)
    assert protocol.record_of(reply.job) == attrs.evolve(RECORD, time_limit=None, retry=None, expires_in=None)
    with pytest.raises(ProtocolError, match="max_attempts must be a whole number, 1 or more") as caught:
        decode_reply(text.replace('"max_attempts":3,"initial"', '"max_attempts":0,"initial"'))
    assert caught.value.id == 1


class Stubborn(jobtrio.RetryPolicy):
    """A policy of a class of its own, as a store in memory keeps it."""


def test_a_policy_of_another_class() -> None:
    """It is told as a plain one, however large its numbers are."""
    record = attrs.evolve(RECORD, retry=Stubborn(10**30, max_delay=10**300))
    reply = decode_reply(encode_reply(protocol.JobFound(job=protocol.wire_record(record))))
    assert isinstance(reply, protocol.JobFound)
    assert protocol.record_of(reply.job).retry == jobtrio.RetryPolicy(10**30, max_delay=1e300)


def test_a_payload_that_json_cannot_hold_is_not_sent() -> None:
    """A client's submission with such a payload fails before anything goes out."""
    with pytest.raises(jobtrio.PayloadError):
        encode_request(protocol.Submit(executor="e", payload=float("nan")))
    with pytest.raises(jobtrio.PayloadError):
        encode_request(protocol.Submit(executor="e", metadata={"a": object()}))
    with pytest.raises(ProtocolError) as caught:
        encode_request(protocol.Get(job="\ud800"))
    assert caught.value.code == ErrorCode.INVALID


def test_a_payload_that_is_nested_too_deeply_is_not_sent() -> None:
    """However deep a payload is, it is sent, or refused by the error that says so."""
    payload: Any = None
    for _ in range(1200):
        payload = [payload]
        with contextlib.suppress(jobtrio.PayloadError):
            encode_request(protocol.Submit(executor="e", payload=payload))
    with pytest.raises(jobtrio.PayloadError, match="nested"):
        encode_request(protocol.Submit(executor="e", payload=payload))


def test_replies_of_a_type_to_come_are_told_apart() -> None:
    """A client can pass over a message that a newer server sends."""
    with pytest.raises(ProtocolError) as caught:
        decode_reply('{"type":"news"}')
    assert caught.value.code == ErrorCode.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("text", "id", "sub"),
    [
        ('{"type":"end","sub":7,"seq":1,"outcome":{"type":"failed","error":{"kind":"invented"}}}', None, 7),
        ('{"seq":"x","sub":7,"type":"gap"}', None, 7),
        ('{"type":"subscribed","id":3,"sub":7,"state":"INVENTED"}', 3, 7),
        ('{"type":"error","id":"a","sub":7,"code":5}', "a", 7),
        ('{"type":"job","id":3,"job":{"sub":7}}', 3, None),
        ('{"type":"events","id":{},"sub":true}', None, None),
        ('{"type":"events","sub":18446744073709551616}', None, None),
    ],
)
def test_wrong_replies_say_what_they_are_about(text: str, id: Any, sub: Any) -> None:
    """A wrong reply tells which call and which subscription it harms, so that it harms no other."""
    with pytest.raises(ProtocolError) as caught:
        decode_reply(text)
    error = caught.value
    assert (error.code, error.id, error.sub) == ("invalid", id, sub)


@pytest.mark.parametrize(
    ("reason", "seconds"),
    [(protocol.encode_retry_after(1.25), 1.25), (None, None), ("", None), ("gone", None), ('{"retry_after":-1}', None)],
)
def test_the_reason_of_a_close_says_when_to_come_back(reason: str | None, seconds: float | None) -> None:
    """A client reads the delay out of the reason, and nothing out of other reasons."""
    assert protocol.decode_retry_after(reason) == seconds
