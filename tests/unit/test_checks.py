"""The checks return a value in its normal form, or say what is allowed."""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import pytest
from other_numbers import Whole
from other_texts import Label

from jobtrio import _checks as checks


class Panic(BaseException):
    """An exception outside the hierarchy that code usually catches."""


class Unshowable:
    """A value whose repr raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        raise self.error


def test_show_is_bounded() -> None:
    """A long repr is cut to the limit, with an ellipsis; one that fits is left alone."""
    assert checks.show("x" * 78) == repr("x" * 78)
    cut = checks.show("x" * 79)
    assert (len(cut), cut[-1]) == (80, "…")
    assert checks.show(12345, limit=5) == "12345"
    assert checks.show(123456, limit=5) == "1234…"


class Odd(str):
    """Text whose length can't be told, which an exception may have for its own."""

    def __len__(self) -> int:
        raise Panic


def test_show_of_odd_text() -> None:
    """Text of a class of its own is shown as plain text."""
    shown = checks.show("odd", make=Odd)
    assert shown == "odd"
    assert type(shown) is str


def test_show_survives_a_bad_repr() -> None:
    """A repr that raises is told by type and error."""
    assert checks.show(Unshowable(LookupError("no repr"))) == "<Unshowable whose repr raised LookupError>"
    assert checks.show(Unshowable(Panic())) == "<Unshowable whose repr raised Panic>"
    with pytest.raises(SystemExit):
        checks.show(Unshowable(SystemExit()))


@pytest.mark.parametrize(("value", "seconds"), [(0, 0.0), (0.0, 0.0), (1, 1.0), (2.5, 2.5), (1e300, 1e300)])
def test_seconds(value: float, seconds: float) -> None:
    """Seconds come back as a float."""
    result = checks.check_seconds("wait", value)
    assert result == seconds
    assert type(result) is float


def test_whole_numbers_of_other_kinds() -> None:
    """Whole numbers of other classes, as numpy's, become plain ones wherever a number is wanted; truth values don't."""
    given: Any = Whole(2)
    numbers = [
        checks.check_count("limit", given),
        checks.plain_number(given),
        checks.check_seconds("wait", given),
        checks.check_number("share", given, low=1),
    ]
    assert [(type(number), number) for number in numbers] == [(int, 2), (int, 2), (float, 2.0), (float, 2.0)]
    assert math.isnan(checks._as_float("wait", Whole(10**400), ""))
    with pytest.raises(ValueError, match=r"^limit must be a whole number, 3 or more; got Whole\(2\)$"):
        checks.check_count("limit", given, low=3)
    for wrong in (True, 2.0, "2"):
        with pytest.raises(TypeError, match=r"^limit must be a whole number, 1 or more; got"):
            checks.check_count("limit", wrong)


def test_seconds_at_the_edges() -> None:
    """Zero and infinity are allowed only where it is said."""
    assert checks.check_seconds("wait", math.inf, infinite=True) == math.inf
    with pytest.raises(ValueError, match=r"^wait must be a number of seconds, 0 or more, finite; got inf$"):
        checks.check_seconds("wait", math.inf)
    with pytest.raises(ValueError, match=r"^wait must be a number of seconds, above 0, finite; got 0$"):
        checks.check_seconds("wait", 0, zero=False)
    with pytest.raises(ValueError, match=r"^wait must be a number of seconds, 0 or more \(inf allowed\); got -1$"):
        checks.check_seconds("wait", -1, infinite=True)
    assert checks.check_seconds("wait", 5e-324, zero=False) == 5e-324


@pytest.mark.parametrize("value", [math.nan, -0.5, -math.inf, 10**400, -(10**400)])
@pytest.mark.parametrize("infinite", [True, False])
def test_seconds_refuse(value: float, infinite: bool) -> None:
    """What is not a number of seconds at all is refused, infinite allowed or not."""
    with pytest.raises(ValueError, match="wait must be"):
        checks.check_seconds("wait", value, infinite=infinite)


@pytest.mark.parametrize("value", [True, "1", None, [1], 1j])
def test_seconds_of_another_type(value: Any) -> None:
    """A value that is no number, or a bool, is a `TypeError`."""
    with pytest.raises(TypeError, match="wait must be"):
        checks.check_seconds("wait", value)
    with pytest.raises(TypeError, match="share must be"):
        checks.check_number("share", value, low=0)


def test_number_range() -> None:
    """Both ends of the range are in it; what is beyond, infinite or not a number is out."""
    assert checks.check_number("share", 0, low=0, high=1) == 0.0
    assert checks.check_number("share", 1, low=0, high=1) == 1.0
    for value in (-1e-9, 1 + 1e-9, math.nan, math.inf, 10**400):
        with pytest.raises(ValueError, match=r"^share must be a finite number from 0 to 1; got"):
            checks.check_number("share", value, low=0, high=1)
    for value in (0.5, math.inf):
        with pytest.raises(ValueError, match=r"^factor must be a finite number from 1; got"):
            checks.check_number("factor", value, low=1)


def test_count() -> None:
    """A count is a whole number of at least the lowest."""
    assert checks.check_count("size", 1) == 1
    assert checks.check_count("size", 0, low=0) == 0
    assert checks.check_count("size", sys.maxsize) == sys.maxsize
    assert checks.check_count("size", sys.maxsize + 1) == sys.maxsize
    with pytest.raises(ValueError, match=r"^size must be a whole number, 1 or more; got 0$"):
        checks.check_count("size", 0)
    with pytest.raises(ValueError, match=r"^size must be a whole number, 0 or more; got -1$"):
        checks.check_count("size", -1, low=0)
    for value in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match="size must be a whole number"):
            checks.check_count("size", value)


def test_name() -> None:
    """A name has 1 to 200 printable characters."""
    for value in ("a", "x" * 200, "ü 漢"):
        assert checks.check_name("key", value) == value
    for value in ("", "x" * 201, "a\tb", "\ud800"):
        with pytest.raises(ValueError, match=r"^key must be text of 1 to 200 printable characters; got"):
            checks.check_name("key", value)
    with pytest.raises(TypeError, match=r"^key must be text of 1 to 200 printable characters; got b'a'$"):
        checks.check_name("key", b"a")


def test_id_is_text() -> None:
    """An id to look up is any text: what nobody can have is unknown, not wrong."""
    checks.check_id("job_id", "")
    checks.check_id("job_id", "x" * 1000)
    with pytest.raises(TypeError, match=r"^job_id must be text; got 3$"):
        checks.check_id("job_id", 3)


def test_flag() -> None:
    """A flag is a bool and nothing that could pass for one."""
    assert checks.check_flag("lossless", True) is True
    assert checks.check_flag("lossless", False) is False
    with pytest.raises(TypeError, match=r"^lossless must be True or False; got 1$"):
        checks.check_flag("lossless", 1)


def test_text() -> None:
    """A text is None or at most 10,000 characters."""
    assert checks.check_text("reason", None) is None
    assert checks.check_text("reason", "") == ""
    assert checks.check_text("reason", "x" * 10_000) == "x" * 10_000
    with pytest.raises(ValueError, match="got 10001 characters"):
        checks.check_text("reason", "x" * 10_001)
    with pytest.raises(TypeError, match="reason must be None or text"):
        checks.check_text("reason", 3)


def test_tags_are_copied() -> None:
    """Tags come back as a dict of their own; none stand for None."""
    given = {"user": "ann"}
    tags = checks.check_tags("tags", given)
    assert tags == given
    assert tags is not given
    assert checks.check_tags("tags", MappingProxyType(given)) == given
    assert checks.check_tags("tags", {}) is None
    assert checks.check_tags("tags", None) is None


def test_tags_become_plain() -> None:
    """Text of a class of its own is kept as plain text, which every store can keep."""

    class Text(str):
        __slots__ = ()

    tags = checks.check_tags("tags", {Text("user"): "ann", "team": Text("red")})
    assert tags == {"user": "ann", "team": "red"}
    assert {type(text) for pair in (tags or {}).items() for text in pair} == {str}


def test_tags_refuse() -> None:
    """The error names the key or the value that is wrong."""
    with pytest.raises(TypeError, match=r"^a key of tags must be text"):
        checks.check_tags("tags", {1: "a"})
    with pytest.raises(TypeError, match=r"^tags\['a'\] must be text"):
        checks.check_tags("tags", {"a": 1})
    with pytest.raises(ValueError, match=r"^tags\['a'\] must be text of 1 to 200"):
        checks.check_tags("tags", {"a": "x" * 201})
    with pytest.raises(ValueError, match=r"^a key of tags must be text of 1 to 200"):
        checks.check_tags("tags", {"": "a"})
    with pytest.raises(TypeError, match="tags must be a mapping of text to text"):
        checks.check_tags("tags", [("a", "b")])


def test_tags_are_at_most_so_many() -> None:
    """Every tag is work for a store, at the job's end as well."""
    given = {str(n): "a" for n in range(1_000)}
    assert checks.check_tags("tags", given) == given
    with pytest.raises(ValueError, match=r"^tags must be at most 1000; got 1001$"):
        checks.check_tags("tags", given | {"one": "more"})


def test_tags_of_a_text_class() -> None:
    """A subclass of text is text, and held to the same rules."""
    assert checks.check_tags("tags", {Label("a"): Label("b")}) == {"a": "b"}
    with pytest.raises(ValueError, match="a key of tags"):
        checks.check_tags("tags", {Label("a\n"): Label("b")})


@pytest.mark.parametrize("kind", [str, Label])
def test_clean_text(kind: type[str]) -> None:
    """Text that UTF-8 can hold is left alone, other text gets escapes; either is plain text then."""
    for text, clean in (("ä\n😀", "ä\n😀"), ("a\ud800", "a\\ud800")):
        found = checks.clean_text(kind(text))
        assert (type(found), found) == (str, clean)


def test_metadata() -> None:
    """Metadata has text keys and any values, and is copied one level deep."""
    given = {"a": [1]}
    metadata = checks.check_metadata("metadata", given)
    assert metadata == given
    assert metadata is not given
    assert metadata is not None
    assert metadata["a"] is given["a"]
    assert checks.check_metadata("metadata", {}) is None
    assert checks.check_metadata("metadata", None) is None
    with pytest.raises(TypeError, match="a key of metadata must be text"):
        checks.check_metadata("metadata", {1: 1})
    with pytest.raises(TypeError, match="metadata must be a mapping with text keys"):
        checks.check_metadata("metadata", 3)


def test_metadata_with_keys_of_a_text_class() -> None:
    """A key that is text of a class of its own is kept as the plain text."""
    metadata = checks.check_metadata("metadata", {Label("a"): 1})
    assert metadata == {"a": 1}
    assert [type(key) for key in metadata] == [str]


def test_moment_in_utc() -> None:
    """A moment is aware and comes back in UTC."""
    east = timezone(timedelta(hours=2))
    moment = checks.check_moment("run_at", datetime(2030, 1, 1, 2, tzinfo=east))
    assert moment == datetime(2030, 1, 1, tzinfo=UTC)
    assert moment.tzinfo is UTC
    with pytest.raises(ValueError, match="has no time zone"):
        checks.check_moment("run_at", datetime(2030, 1, 1))
    with pytest.raises(TypeError, match="run_at must be an aware datetime"):
        checks.check_moment("run_at", "2030-01-01")


@pytest.mark.parametrize(
    "moment",
    [
        datetime.max.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(-timedelta(hours=12))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=12))),
        datetime(9999, 1, 1, 0, 0, 1, tzinfo=UTC),
    ],
)
def test_moment_at_the_end_of_time(moment: datetime) -> None:
    """A moment that a record could not hold is refused by name."""
    with pytest.raises(ValueError, match=r"^run_at must be an aware datetime before the year 9999; got"):
        checks.check_moment("run_at", moment)


def test_moment_last_and_first() -> None:
    """The last moment that is allowed and the first that there is are kept as they are."""
    for moment in (datetime(9999, 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC)):
        assert checks.check_moment("run_at", moment) == moment


@pytest.mark.parametrize("check", [checks.check_name, checks.check_text])
def test_text_of_another_kind(check: Any) -> None:
    """Text that only derives from `str` comes back as what JSON can hold, whatever it says of itself."""

    class Markup(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "something else"

    checked = check("name", Markup("me"))
    assert type(checked) is str
    assert checked == "me"
