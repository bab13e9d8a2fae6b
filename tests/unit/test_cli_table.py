"""Tables of plain text."""

from __future__ import annotations

import io

import pytest

from jobtrio.cli._table import render_table

HEAD = ("ID", "N")


def test_columns() -> None:
    """A column is as wide as its widest cell; numbers may stand at the right, and no line ends with spaces."""
    assert render_table(HEAD, [("a", "1"), ("long", "12")], right=("N",)) == "ID     N\na      1\nlong  12\n"
    assert render_table(HEAD, [("long", "")]) == "ID    N\nlong\n"


def test_nothing() -> None:
    """Without rows there is the head."""
    assert render_table(HEAD, []) == "ID  N\n"


@pytest.mark.parametrize(("text", "columns"), [("né", 2), ("ne\u0301", 2), ("日本", 4), ("😀", 2), ("ﾊﾝ", 2)])
def test_width(text: str, columns: int) -> None:
    """Characters that a terminal shows two columns wide count so, and those that it puts onto another not at all."""
    first = render_table(HEAD, [(text, "1"), ("x" * 6, "2")]).splitlines()[1]
    assert first == f"{text}{' ' * (6 - columns)}  1"
    last = render_table(("N", "ID"), [("1", text), ("2", "x" * 6)], right=("ID",)).splitlines()[1]
    assert last == f"1  {' ' * (6 - columns)}{text}"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", r"n\xe9\u65e5"), ("latin-1", r"né\u65e5"), ("utf-8", "né日")]
)
def test_what_the_locale_lacks(monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str) -> None:
    """Columns stay in line where stdout shows escapes for some characters."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding, "backslashreplace", write_through=True))
    print(render_table(HEAD, [("né日", "1"), ("x" * 20, "2")]), end="")
    _, *rows = written.getvalue().decode(encoding).splitlines()
    assert [row.rstrip() for row in rows] == [
        f"{shown}{' ' * (20 - (4 if encoding == 'utf-8' else len(shown)))}  1",
        f"{'x' * 20}  2",
    ]


def test_cells_that_a_terminal_would_obey() -> None:
    """Names that a store was given by others may hold anything: it is shown as escapes, each cell in its line."""
    table = render_table(("ID", "q\x1b[2J"), [("a\nb", "\u202e"), ("\x9b", "1")], right=("q\x1b[2J",))
    assert table == "ID    q\\x1b[2J\na\\nb    \\u202e\n\\x9b         1\n"
