"""What a person or a script sees of a job's messages: lines, or JSON, and on a terminal a progress bar.

It turns messages into pieces of output and keeps what is needed to draw the next one. It must not write
anything itself, nor know where the messages come from.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias, assert_never

from jobtrio._messages import End, Gap, Progress, Restart, Token
from jobtrio._records import Cancelled, Completed, Failed
from jobtrio.cli._endings import RELEASED, describe, one_line, shown_share
from jobtrio.cli._json import message_line
from jobtrio.cli._output import STDERR, STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jobtrio._messages import Message
    from jobtrio._records import Outcome
    from jobtrio.cli._output import Piece

ERASE = "\r\033[2K"
"""What empties the terminal's current line."""


DrawBar: TypeAlias = "Callable[[Progress], str]"
"""Returns how far a job is as one line, without its end."""


class Screen:
    """One job on its way onto the screen.

    Attributes:
        lines: How many lines its programs have written.
    """

    def __init__(
        self,
        *,
        attempts: int | None,
        as_json: bool = False,
        as_text: bool = False,
        tidy: bool = False,
        bar: DrawBar | None = None,
        job: str | None = None,
    ) -> None:
        """Prepare a screen.

        Args:
            attempts: How many attempts the job may have; None where it is not known.
            as_json: Whether stdout gets each message as a line of JSON, rather than what it says.
            as_text: Whether tokens that are text are put together, rather than one a line.
            tidy: Whether to end a line of stdout that has no end before something else is said: on a terminal.
            bar: What draws progress in stderr's last line; None shows it line by line.
            job: The job's id, where others are shown as well: then each line of JSON has it, each line an end, and it
                is told how the job ended.
        """
        self.lines = 0
        self._attempts = attempts
        self._as_json = as_json
        self._as_text = as_text
        self._tidy = tidy
        self._bar = None if as_json else bar
        self._job = job
        self._progress: Progress | None = None
        self._is_drawn = False
        self._at_start = True  # of a line of stdout

    def pieces(self, messages: Iterable[Message]) -> Iterator[Piece]:
        """Yield what is shown of some messages, and where, with the bar redrawn at the end."""
        shown = [piece for message in messages for piece in self._pieces(message) if piece[1]]
        if self._bar is None:
            yield from shown
            return
        if self._is_drawn:
            yield STDERR, ERASE
        yield from shown
        self._is_drawn = self._progress is not None and self._at_start
        if self._progress is not None and self._at_start:
            yield STDERR, self._bar(self._progress)

    def close(self) -> Iterator[Piece]:
        """Yield what leaves the screen fit for other lines, where the messages stop before the job's end."""
        if self._is_drawn:
            yield STDERR, ERASE
        yield from self._line_end()
        self._is_drawn = False

    def _pieces(self, message: Message) -> Iterator[Piece]:
        if isinstance(message, Token) and is_line(message.value) and not message.value.get("partial"):
            self.lines += 1
        if self._as_json:
            yield message_line(message, self._job)
        match message:
            case Token(value=value) if not self._as_json:
                yield from self._token(value)
            case Progress() if not self._as_json:
                yield from self._told(message)
            case Restart():
                self._progress = None
                yield from self._own_line(self._restart(message))
            case Gap(first, last):
                yield from self._own_line(f"jobtrio: messages {first} to {last} are lost")
            case End(outcome=outcome):
                self._progress = None
                yield from self._line_end()
                if self._job is not None:
                    yield STDERR, f"jobtrio: {outcome_text(outcome)}\n"

    def _token(self, value: Any) -> Iterator[Piece]:
        if is_line(value):
            fd, text = _line_of(value)
            if self._job is not None and not text.endswith("\n"):
                text += "\n"  # the next line may be another job's
            self._at_start = text.endswith("\n")
            yield fd, text
        elif self._as_text and isinstance(value, str):
            self._at_start = value.endswith("\n") or (self._at_start and not value)
            yield STDOUT, value
        else:
            start = "" if self._at_start else "\n"
            self._at_start = True
            yield STDOUT, f"{start}{_value_text(value)}\n"

    def _told(self, progress: Progress) -> Iterator[Piece]:
        self._progress = progress
        if self._bar is None:
            yield from self._own_line(f"jobtrio: {progress_text(progress)}")

    def _own_line(self, line: str) -> Iterator[Piece]:
        yield from self._line_end()
        yield STDERR, line + "\n"

    def _line_end(self) -> Iterator[Piece]:
        if self._tidy and not self._at_start:
            self._at_start = True
            yield STDOUT, "\n"

    def _restart(self, restart: Restart) -> str:
        error, delay = restart.error, restart.delay
        if error.kind == "lost":  # no policy limits these
            follows = "it starts again" if error.type == RELEASED else "the job starts again"
            return f"jobtrio: attempt {restart.attempt} {describe(error)}; {follows}"
        # The policy counts failures alone: where attempts were lost, the number may go beyond it.
        of = "" if self._attempts is None or restart.attempt >= self._attempts else f" of {self._attempts}"
        return f"jobtrio: attempt {restart.attempt}{of} {describe(error)}; the next follows in {round(delay, 2):g} s"


def _value_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)


def progress_text(progress: Progress) -> str:
    """Return how far a job is: "3 of 12 (25 %), reading"."""
    done, total, note = progress.done, progress.total, progress.note
    text = f"{done:.15g}"
    if total is not None:
        text += f" of {total:.15g}"
        if total > 0:
            text += f" ({shown_share(done, total):.0%})".replace("%", " %")
    return f"{text}, {one_line(note)}" if note else text


def message_text(message: Message) -> tuple[str, str, str]:
    """Return a message as cells of a table: its number, its attempt, and what it says."""
    match message:
        case Token(seq, attempt, value):
            return str(seq), str(attempt), one_line(_value_text(value))
        case Progress(seq, attempt):
            return str(seq), str(attempt), f"progress: {progress_text(message)}"
        case Restart(seq, attempt, error):
            return str(seq), str(attempt), f"restart: {describe(error)}"
        case Gap(first, last):
            return f"{first}-{last}", "-", "no longer kept"
        case End(seq, outcome):
            return str(seq), "-", f"end: {outcome_text(outcome)}"
        case _:
            assert_never(message)


def outcome_text(outcome: Outcome) -> str:
    """Return an outcome in a few words."""
    match outcome:
        case Completed():
            return "completed"
        case Failed(error):
            return describe(error)
        case Cancelled(reason):
            return f"cancelled: {one_line(reason)}" if reason else "cancelled"
        case _:
            assert_never(outcome)


def is_line(value: Any) -> bool:
    """Whether a token is what `run_command` sends: a line of a program's output, or a part of one."""
    return (
        isinstance(value, dict)
        and len(value.keys() & {"stdout", "stderr"}) == 1
        and value.keys() <= {"stdout", "stderr", "partial"}
        and isinstance(value.get("stdout", value.get("stderr")), str)
    )


def _line_of(value: dict[str, Any]) -> Piece:
    """Return such a token as its line, which has no end yet where more of it follows."""
    end = "" if value.get("partial") else "\n"
    if "stderr" in value:
        return STDERR, value["stderr"] + end
    return STDOUT, value["stdout"] + end
