"""What is shown of a job's messages, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

import jobtrio
from jobtrio.cli._output import STDERR, STDOUT
from jobtrio.cli._screen import ERASE, Screen, is_line, message_text, progress_text
from jobtrio.cli._table import render_table

ERROR = jobtrio.JobError("exception", "ValueError", "row 2", "Traceback …")


def draw(progress: jobtrio.Progress) -> str:
    """Draw what a bar would stand for."""
    return f"[{progress.done:g}]"


def shown(screen: Screen, *messages: jobtrio.Message) -> list[tuple[int, str]]:
    """Return what a screen shows of some messages that come at once."""
    return list(screen.pieces(messages))


def token(value: Any) -> jobtrio.Token:
    return jobtrio.Token(1, 1, value)


class TestTokens:
    @pytest.mark.parametrize(
        ("value", "piece"),
        [
            ({"stdout": "a"}, (STDOUT, "a\n")),
            ({"stderr": "a"}, (STDERR, "a\n")),
            ({"stdout": "a", "partial": True}, (STDOUT, "a")),
            ("word", (STDOUT, "word\n")),
            (3, (STDOUT, "3\n")),
            (None, (STDOUT, "null\n")),
            ({"stdout": "a", "more": 1}, (STDOUT, '{"stdout": "a", "more": 1}\n')),
            ({"stdout": 1}, (STDOUT, '{"stdout": 1}\n')),
            ({"é": []}, (STDOUT, '{"é": []}\n')),
        ],
    )
    def test_plain(self, value: Any, piece: tuple[int, str]) -> None:
        """A program's lines go where the program wrote them, all else to stdout, one a line."""
        assert shown(Screen(attempts=1), token(value)) == [piece]

    def test_text(self) -> None:
        """With ``as_text`` text is put together; other values begin a line of their own."""
        screen = Screen(attempts=1, as_text=True)
        pieces = shown(screen, token("to "), token("be"), token(1), token(2), token("!"))
        assert "".join(text for _, text in pieces) == "to be\n1\n2\n!"

    def test_lines_are_counted(self) -> None:
        """A line that comes in parts is one line; other tokens are none."""
        screen = Screen(attempts=1, as_json=True)
        shown(screen, token({"stdout": "a", "partial": True}), token({"stdout": "b"}), token("c"))
        assert screen.lines == 1

    def test_is_line(self) -> None:
        """What only resembles a program's line is none."""
        assert not is_line({"stdout": "a", "stderr": "b"})
        assert not is_line({"partial": True})
        assert not is_line("stdout")


class TestOthers:
    def test_restart(self) -> None:
        """A failed attempt is told with what follows; a lost one without a delay, since no policy counts it."""
        screen = Screen(attempts=3)
        lost = jobtrio.JobError("lost", "LeaseLost", "worker 'w' is gone or did not renew its lease")
        released = jobtrio.JobError("lost", "Released", "shutdown")
        pieces = shown(
            screen,
            jobtrio.Restart(1, 1, ERROR, 1.5),
            jobtrio.Restart(2, 2, lost, 0.0),
            jobtrio.Restart(3, 3, released, 0.0),
        )
        assert pieces == [
            (STDERR, "jobtrio: attempt 1 of 3 failed: ValueError: row 2; the next follows in 1.5 s\n"),
            (
                STDERR,
                "jobtrio: attempt 2 was lost: worker 'w' is gone or did not renew its lease; the job starts again\n",
            ),
            (STDERR, "jobtrio: attempt 3 was given back by its worker: shutdown; it starts again\n"),
        ]

    def test_restart_of_a_job_that_is_not_known(self) -> None:
        """Where it isn't known how many attempts there may be, none are told."""
        pieces = shown(Screen(attempts=None), jobtrio.Restart(1, 1, ERROR, 1.5))
        assert pieces == [(STDERR, "jobtrio: attempt 1 failed: ValueError: row 2; the next follows in 1.5 s\n")]

    def test_restart_after_more_attempts_than_the_policy_has(self) -> None:
        """Lost attempts have numbers but don't count: none is told as the last of those that there may be."""
        pieces = shown(Screen(attempts=2), jobtrio.Restart(4, 2, ERROR, 0.914123), jobtrio.Restart(5, 3, ERROR, 300))
        assert pieces == [
            (STDERR, "jobtrio: attempt 2 failed: ValueError: row 2; the next follows in 0.91 s\n"),
            (STDERR, "jobtrio: attempt 3 failed: ValueError: row 2; the next follows in 300 s\n"),
        ]

    def test_gap(self) -> None:
        """What is no longer kept is named."""
        assert shown(Screen(attempts=1), jobtrio.Gap(3, 7)) == [(STDERR, "jobtrio: messages 3 to 7 are lost\n")]

    def test_json(self) -> None:
        """With ``as_json`` each message is a line on stdout; what a person must know goes to stderr as well."""
        screen = Screen(attempts=2, as_json=True, as_text=True, tidy=True, bar=draw)
        messages = (
            token("a"),
            jobtrio.Progress(2, 1, 1, 2),
            jobtrio.Restart(3, 1, ERROR, 0),
            jobtrio.End(4, jobtrio.Completed()),
        )
        pieces = shown(screen, *messages)
        assert [json.loads(text)["type"] for fd, text in pieces if fd == STDOUT] == [
            "token",
            "progress",
            "restart",
            "end",
        ]
        assert len([text for fd, text in pieces if fd == STDERR]) == 1

    @pytest.mark.parametrize(
        ("progress", "text"),
        [
            (jobtrio.Progress(1, 1, 3, 12, "reading"), "3 of 12 (25 %), reading"),
            (jobtrio.Progress(1, 1, 199, 200), "199 of 200 (99 %)"),
            (jobtrio.Progress(1, 1, 200, 200), "200 of 200 (100 %)"),
            (jobtrio.Progress(1, 1, 1_000_000.0), "1000000"),
            (jobtrio.Progress(1, 1, 0.5, 0), "0.5 of 0"),
            (jobtrio.Progress(1, 1, 1, None, "a\nb"), "1, a b"),
            (jobtrio.Progress(1, 1, 1, None, ""), "1"),
        ],
    )
    def test_progress(self, progress: jobtrio.Progress, text: str) -> None:
        """Progress is told with what is known of it."""
        assert progress_text(progress) == text
        assert shown(Screen(attempts=1), progress) == [(STDERR, f"jobtrio: {text}\n")]

    @pytest.mark.parametrize(
        ("message", "cells"),
        [
            (jobtrio.Token(1, 2, "a\nb"), ("1", "2", "a b")),
            (jobtrio.Token(1, 2, {"a": 1}), ("1", "2", '{"a": 1}')),
            (jobtrio.Progress(1, 2, 1), ("1", "2", "progress: 1")),
            (jobtrio.Restart(1, 2, ERROR, 0), ("1", "2", "restart: failed: ValueError: row 2")),
            (jobtrio.Gap(1, 2), ("1-2", "-", "no longer kept")),
            (jobtrio.End(1, jobtrio.Completed(1)), ("1", "-", "end: completed")),
            (jobtrio.End(1, jobtrio.Failed(ERROR)), ("1", "-", "end: failed: ValueError: row 2")),
            (jobtrio.End(1, jobtrio.Cancelled("x")), ("1", "-", "end: cancelled: x")),
            (jobtrio.End(1, jobtrio.Cancelled()), ("1", "-", "end: cancelled")),
        ],
    )
    def test_cells(self, message: jobtrio.Message, cells: tuple[str, str, str]) -> None:
        """In a table a message is its number, its attempt, and one line."""
        assert message_text(message) == cells


class TestBar:
    def test_redrawn_below_what_comes(self) -> None:
        """The bar is erased before anything is written and drawn again below it."""
        screen = Screen(attempts=1, bar=draw)
        assert shown(screen, jobtrio.Progress(1, 1, 1)) == [(STDERR, "[1]")]
        assert shown(screen, token("a"), jobtrio.Progress(1, 1, 2), jobtrio.Progress(1, 1, 3)) == [
            (STDERR, ERASE),
            (STDOUT, "a\n"),
            (STDERR, "[3]"),
        ]
        assert shown(screen, jobtrio.End(1, jobtrio.Completed())) == [(STDERR, ERASE)]

    def test_not_behind_a_part_of_a_line(self) -> None:
        """While a line has no end yet no bar is drawn behind it."""
        screen = Screen(attempts=1, bar=draw, as_text=True)
        shown(screen, jobtrio.Progress(1, 1, 1))
        assert shown(screen, token("")) == [(STDERR, ERASE), (STDERR, "[1]")]
        assert shown(screen, token("a")) == [(STDERR, ERASE), (STDOUT, "a")]
        assert shown(screen, token("b")) == [(STDOUT, "b")]
        assert shown(screen, token("\n")) == [(STDOUT, "\n"), (STDERR, "[1]")]

    def test_gone_with_its_attempt(self) -> None:
        """A restart takes the bar away until there is progress again."""
        screen = Screen(attempts=2, bar=draw)
        shown(screen, jobtrio.Progress(1, 1, 1))
        pieces = shown(screen, jobtrio.Restart(2, 1, ERROR, 0), token("a"))
        assert pieces[0] == (STDERR, ERASE)
        assert pieces[-1] == (STDOUT, "a\n")

    @pytest.mark.parametrize(("tidy", "rest"), [(True, [(STDOUT, "\n")]), (False, [])])
    def test_closing(self, tidy: bool, rest: list[tuple[int, str]]) -> None:
        """What is left unfinished is ended on a terminal, and left as it is elsewhere."""
        screen = Screen(attempts=1, as_text=True, tidy=tidy)
        shown(screen, token("a"))
        assert list(screen.close()) == rest
        assert list(screen.close()) == []

    def test_closing_erases_the_bar(self) -> None:
        """A bar that is left goes away."""
        screen = Screen(attempts=1, bar=draw)
        shown(screen, jobtrio.Progress(1, 1, 1))
        assert list(screen.close()) == [(STDERR, ERASE)]
        assert list(screen.close()) == []


def test_table() -> None:
    """Columns are as wide as their widest cell, numbers stand at the right, and no line ends in blanks."""
    table = render_table(("NAME", "N", "NOTE"), [("a", "10", "-"), ("longer", "9", "x")], right=("N",))
    assert table == "NAME     N  NOTE\na       10  -\nlonger   9  x\n"
    assert render_table(("A", "B"), []) == "A  B\n"
