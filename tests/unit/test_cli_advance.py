"""How much is done, in a terminal's last line."""

from __future__ import annotations

import re
import sys

import pytest

from jobtrio.cli import _advance
from jobtrio.cli._advance import Advance
from jobtrio.cli._screen import ERASE


def be_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say that stderr is a terminal, on which each step is drawn."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(_advance, "PAUSE", 0.0)


def drawn(text: str) -> list[str]:
    """Return what was drawn, each behind an erasure, without colours."""
    return [re.sub(r"\x1b\[[\d;]*m", "", line) for line in text.split(ERASE)]


@pytest.mark.parametrize("has_rich", [True, False])
def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], has_rich: bool) -> None:
    """It is drawn with a bar or without, makes room for what else is said, and is gone in the end."""
    be_a_terminal(monkeypatch)
    if has_rich:
        pytest.importorskip("rich")
        numbers = (r"work .*  0% 0/4", r"work .* 25% 1/4", r"work .* 75% 3/4")
    else:
        monkeypatch.setattr(_advance, "open_bar", lambda: None)
        numbers = (r"0 of 4 \(0 %\), work", r"1 of 4 \(25 %\), work", r"3 of 4 \(75 %\), work")
    with Advance("work", 4, is_shown=True) as advance:
        advance.step()
        advance.clear()
        print("said", file=sys.stderr)
        advance.step(2)
    before, first, second, said, last, after = drawn(capsys.readouterr().err)
    assert (before, said, after) == ("", "said\n", "")
    for line, expected in zip((first, second, last), numbers, strict=True):
        assert re.fullmatch(expected, line), line


def test_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """However quick the steps are, no more is drawn than can be seen."""
    be_a_terminal(monkeypatch)
    monkeypatch.setattr(_advance, "PAUSE", 3600.0)
    with Advance("work", 100, is_shown=True) as advance:
        for _ in range(100):
            advance.step()
    assert len(drawn(capsys.readouterr().err)) == 3


@pytest.mark.parametrize("is_shown", [True, False])
def test_elsewhere(is_shown: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is drawn where stderr is no terminal, nor what is not to be shown on one."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: not is_shown)
    with Advance("work", 1, is_shown=is_shown) as advance:
        advance.step()
        advance.clear()
    assert capsys.readouterr() == ("", "")
