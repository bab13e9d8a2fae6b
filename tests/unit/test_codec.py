"""Values as JSON: what comes back, what is refused, and that nothing else is ever raised."""

from __future__ import annotations

import dataclasses
import enum
import json
import random
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import attrs
import msgspec
import pytest

from jobtrio import PayloadError, Token
from jobtrio._codec import DEPTH_LIMIT, SHORT, SIZE_LIMIT, decode_value, encode_value, is_deeper, takes_more


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "null", "é😀", [None, [None]], {"a": {"b": None}}])
def test_comes_back(value: Any) -> None:
    """What JSON can hold is what it was."""
    assert decode_value(encode_value("x", value)) == value


@pytest.mark.parametrize("number", [1e308, -1e300, 1e-320, 2.2250738585072011e-308])
def test_numbers_near_the_ends_of_floats_take_no_longer(number: float) -> None:
    """A value full of the largest or smallest numbers is kept and read about as quickly as one of others."""

    def seconds(number: float) -> float:
        values = [number] * 10_000
        began = time.perf_counter()
        data = encode_value("x", values)
        assert decode_value(data) == decode_value(data.decode()) == values
        return time.perf_counter() - began

    usual = max(seconds(1.5) for _ in range(3))
    assert min(seconds(number) for _ in range(3)) < 50 * usual


class Colour(enum.Enum):
    RED = "red"


class Panic(BaseException):
    """An exception outside the hierarchy that code usually catches."""


class Panicky(set[int]):
    """A value whose own code raises when it is encoded, and when it is shown."""

    def __iter__(self) -> Any:
        raise Panic("broken")


@dataclasses.dataclass
class Point:
    x: int


@attrs.frozen
class Size:
    width: int


@pytest.mark.parametrize(
    ("value", "comes_back"),
    [
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        ({1: "a", 2.5: "b"}, {"1": "a", "2.5": "b"}),
        (b"jobs", "am9icw=="),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.50"), "1.50"),
        (Colour.RED, "red"),
        (Point(1), {"x": 1}),
        (Size(2), {"width": 2}),
    ],
)
def test_comes_back_as_json_made_it(value: Any, comes_back: Any) -> None:
    """What has no form of its own in JSON is accepted in another: the page on the SQLite store says in which."""
    assert decode_value(encode_value("x", value)) == comes_back


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "got <object"),
        ("\ud800", "surrogates"),
        (float("nan"), "it contains nan"),
        ([1, {"a": (float("-inf"),)}], "it contains -inf"),
        (msgspec.Raw(b'"\xff"'), "(0xff|Invalid UTF-8)"),
        (msgspec.Raw(b"[1e309]"), "out of range"),
        (msgspec.Raw(b"[1e300," + b"1e0," * SHORT + b"-1e309]"), "out of range"),
        ([Panicky({1})], ": broken"),
        ("x" * SIZE_LIMIT, f"at most {SIZE_LIMIT} bytes"),
    ],
)
def test_refused(value: Any, why: str) -> None:
    """What JSON can't hold is refused, by the name of what it is and with the reason."""
    with pytest.raises(PayloadError, match=rf"^the thing must be .*{why}"):
        encode_value("the thing", value)


def test_what_is_encoded_already() -> None:
    """Parts of a value may be JSON already, also beside a null, for which the value is looked through."""
    assert decode_value(encode_value("x", [None, msgspec.Raw(b'{"a": [null]}')])) == [None, {"a": [None]}]


def test_what_is_encoded_in_several_lines() -> None:
    """What is JSON already has no line breaks and no tabs in the end, which not all stores can hold."""
    pretty = msgspec.Raw(b'{\r\n\t"a b": [\n\t\t1,\t"\\n"\n\t]\n}\n')
    assert encode_value("x", pretty) == b'{"a b":[1,"\\n"]}'
    assert encode_value("x", [pretty, None]) == b'[{"a b":[1,"\\n"]},null]'


@pytest.mark.parametrize("pair", ["[]", "{}"])
def test_depth(pair: str) -> None:
    """So many levels, and not one more."""
    value: Any = None
    for _ in range(DEPTH_LIMIT):
        value = [value] if pair == "[]" else {"a": value}
    assert decode_value(encode_value("x", value)) == value
    with pytest.raises(PayloadError, match="nested at most 200 levels"):
        encode_value("x", [value])


def test_depth_of_values_with_brackets_in_texts() -> None:
    """Only what is a list or a mapping counts as a level, whatever texts hold."""
    rng = random.Random(1)
    texts = ["", "[", "]}", '"', '""', '"[', "\\", "\\\\", '\\"{', '[""]', "\\[", "plain"]

    def drawn(most: int) -> tuple[Any, int]:
        if most == 0 or rng.random() < 0.3:
            return rng.choice([None, 1.5, *texts]), 0
        parts = [drawn(most - 1) for _ in range(rng.randrange(4))]
        levels = 1 + max((levels for _, levels in parts), default=0)
        if rng.random() < 0.5:
            return [value for value, _ in parts], levels
        return {f"{n}{rng.choice(texts)}": value for n, (value, _) in enumerate(parts)}, levels

    for _ in range(2_000):
        value, levels = drawn(8)
        data = json.dumps(value).encode()
        assert [is_deeper(data, most) for most in range(10)] == [levels > most for most in range(10)], data


@pytest.mark.parametrize("kind", [OSError, Panic])
def test_a_value_that_changes_meanwhile(kind: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a value that was encoded can't be looked at any more, that too is said as an error of the value's."""

    def fail(value: Any, **_: Any) -> Any:
        raise kind("it is gone")

    monkeypatch.setattr("msgspec.to_builtins", fail)
    with pytest.raises(PayloadError, match=r"^x must be what JSON can hold; got \[None, b''\]: it is gone"):
        encode_value("x", [None, b""])
    assert encode_value("x", {"a": [None, 1, 2.5, True, "é"]}) == '{"a":[null,1,2.5,true,"é"]}'.encode()  # it need not


NUMBERS = [0, -1, 2**64, 0.5, 1e300]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]


@pytest.mark.parametrize("others", [[None], [None, b"bytes"], [None, datetime(2026, 1, 1, tzinfo=UTC)], [], ["null"]])
def test_numbers_that_json_lacks_in_any_place(others: list[Any]) -> None:
    """A NaN or an infinity, which JSON would have as null, is refused in any place and beside anything."""
    rng = random.Random(2)

    def drawn(parts: list[Any]) -> Any:
        while len(parts) > 1:
            taken = [parts.pop(rng.randrange(len(parts))) for _ in range(rng.randint(1, len(parts)))]
            parts.append(rng.choice([taken, tuple(taken), dict(zip("abcdefghijk", taken, strict=False))]))
        return parts[0]

    for _ in range(300):
        value = drawn([*rng.sample(NUMBERS, 3), *others, "text"])
        assert b"text" in encode_value("x", value)
        value = drawn([*rng.sample(NUMBERS, 3), *others, rng.choice(NOT_FINITE)])
        with pytest.raises(PayloadError, match=r"it contains -?(nan|inf)"):
            encode_value("x", value)


def test_what_ends_the_program() -> None:
    """Ctrl-C while a value is encoded is not an error of the value's."""

    class Slow(set[int]):
        def __iter__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_value("x", Slow({1}))


def test_what_takes_more() -> None:
    """How much values take is told without an error, whatever they are."""
    messages = [Token(1, 1, {"part": ["four"] * 100})]
    size = len(json.dumps([{"attempt": 1, "seq": 1, "value": messages[0].value}], separators=(",", ":")))
    assert not takes_more(size, messages)
    assert takes_more(size - 1, messages)
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    assert takes_more(2**62, [Token(1, 1, deep)])
    assert takes_more(2**62, [Token(1, 1, object())])
