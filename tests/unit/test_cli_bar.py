"""The progress bar in a terminal's last line."""

from __future__ import annotations

import os
import re
import sys

import pytest

import jobtrio
from jobtrio.cli import _bar

cell_len = pytest.importorskip("rich.cells").cell_len


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that stderr is a terminal of 60 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def drawn(progress: jobtrio.Progress) -> str:
    """Return the bar's line without colours."""
    draw = _bar.open_bar()
    assert draw is not None
    return re.sub(r"\x1b\[[\d;]*m", "", draw(progress))


def test_numbers_and_note() -> None:
    """The line has the note, a bar, the share and the numbers."""
    line = drawn(jobtrio.Progress(1, 1, 3, 12, "reading rows"))
    assert re.match(r"reading rows ━+[^━]? *━* * 25% 3/12", line.replace("╸", "━").replace("╺", "━"))
    assert len(line) < 60


def test_the_whole_is_shown_where_nothing_is_left() -> None:
    """Almost all is not rounded to all."""
    assert " 99% 199/200" in drawn(jobtrio.Progress(1, 1, 199, 200))
    assert "100% 200/200" in drawn(jobtrio.Progress(1, 1, 200, 200))


def test_one_line_whatever_the_note() -> None:
    """A long note is cut, so that the line stays one line, narrower than the terminal."""
    line = drawn(jobtrio.Progress(1, 1, 3, 12, "a\nb" * 100))
    assert "\n" not in line
    assert len(line) < 60


@pytest.mark.parametrize("columns", [0, 1, 2, 10, 20, 30, 40])
@pytest.mark.parametrize("note", [None, "読み込み中", "reading"])
def test_narrow_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, note: str | None) -> None:
    """Large numbers keep the line narrower than the terminal, at the cost of the note, the bar, and their own end."""
    monkeypatch.setenv("COLUMNS", str(columns))
    line = drawn(jobtrio.Progress(1, 1, 1234567890123, 2469135780246, note))
    assert cell_len(line) < max(columns, 2)
    assert columns < 20 or " 50% " in line


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-1", "utf-8"])
def test_encoding_that_lacks_some_of_the_note(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    """What a locale can't show is cut as the escapes that stand for it, so that these don't lengthen the line."""
    with open(os.devnull, "w", encoding=encoding) as terminal:
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", terminal)
        line = drawn(jobtrio.Progress(1, 1, 3, 12, "läuft: 読み込み中 " * 10))
    assert cell_len(line.encode(encoding, "backslashreplace").decode(encoding)) < 60
    assert line.startswith(r"l\xe4uft" if encoding == "ascii" else "läuft")


@pytest.mark.parametrize(("done", "total"), [(5, None), (5, 0), (20, 10), (-1, 10), (1e308, 1.5e308)])
def test_odd_numbers(done: float, total: float | None) -> None:
    """A total that is unknown, none, or exceeded is no reason to fail, nor are numbers near the end of floats."""
    assert f"{done:.15g}" in drawn(jobtrio.Progress(1, 1, done, total))


@pytest.mark.parametrize("term", ["", "dumb"])
def test_no_bar_on_a_simple_terminal(monkeypatch: pytest.MonkeyPatch, term: str) -> None:
    """A terminal that can't go back in its line gets none."""
    monkeypatch.setenv("TERM", term)
    assert _bar.open_bar() is None


def test_no_bar_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no terminal gets none."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert _bar.open_bar() is None


def test_no_bar_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rich isn't installed there is none."""
    monkeypatch.setitem(sys.modules, "rich", None)
    assert _bar.open_bar() is None
