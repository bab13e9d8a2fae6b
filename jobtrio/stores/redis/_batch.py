"""`Batch`: what goes to the server in one go, and which of the answers is whose.

Calls of one script become one command, since beginning a script costs more than what it does for one job. It must not
know how commands are sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from jobtrio.stores.redis._link import Command, WrongTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jobtrio.stores.redis._link import Argument
    from jobtrio.stores.redis._scripts import Run, Script

GROUP_CALLS: Final = 50
GROUP_BYTES: Final = 256 * 1024
"""Calls and bytes beyond which a script takes no more at once: the server answers nobody else meanwhile."""

Part: TypeAlias = "Command | Run"


class _Group:
    """Calls of one script."""

    __slots__ = ("_numbers", "arguments", "calls", "script", "size")

    def __init__(self, script: Script) -> None:
        self.script = script
        self.arguments: list[Argument] = []
        self.calls = 0
        self.size = 0
        self._numbers: dict[tuple[Argument, ...], int] = {}

    def add(self, run: Run, size: int) -> int:
        """Take in a call; return its number here: of those that only ask, and for the same, that of the first."""
        if not self.script.writes and self._numbers.setdefault(run.arguments, self.calls) < self.calls:
            return self._numbers[run.arguments]
        self.arguments.append(len(run.arguments))
        self.arguments += run.arguments
        self.size += size
        self.calls += 1
        return self.calls - 1

    @property
    def is_full(self) -> bool:
        return self.calls >= GROUP_CALLS or self.size >= GROUP_BYTES


class Batch:
    """Commands and calls of scripts that are sent together.

    Args:
        prefix: What all keys begin with: it stands for them, wherever a script is called.

    Attributes:
        writes: Whether any of the scripts writes.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._commands: list[Command | _Group] = []
        self._open: dict[Script, tuple[int, _Group]] = {}
        self.writes: bool = False

    def add(self, parts: Sequence[Part], size: int = 0) -> list[tuple[int, int | None]]:
        """Take in what belongs together, of so many bytes; return the places of its answers."""
        size -= sum(part.brings for part in parts if isinstance(part, Command))  # which is no script's answer
        return [self._add(part, size) for part in parts]

    def _add(self, part: Part, size: int) -> tuple[int, int | None]:
        if isinstance(part, Command):
            self._commands.append(part)
            return len(self._commands) - 1, None
        self.writes = self.writes or part.script.writes
        at, group = self._open.get(part.script, (0, None))
        if group is None or group.is_full:
            at, group = len(self._commands), _Group(part.script)
            self._commands.append(group)
            self._open[part.script] = at, group
        return at, group.add(part, size)

    def commands(self) -> list[Command]:
        """Return what is to be sent."""
        return [
            each
            if isinstance(each, Command)
            else Command(b"EVALSHA", (each.script.digest, 1, self._prefix, *each.arguments))
            for each in self._commands
        ]


def pick(answers: list[Any], places: list[tuple[int, int | None]]) -> list[Any]:
    """Return those of a batch's answers that are at these places, an exception for each that failed."""
    picked = []
    for at, number in places:
        answer = answers[at]
        if number is not None:
            picked.append(answer if isinstance(answer, BaseException) else answer[number])
        else:  # what is read without a script is hashes: somebody may have put something else in one's place
            picked.append([None] if isinstance(answer, WrongTypeError) else answer)
    return picked


def size_of(part: Part) -> int:
    """Return about how many bytes a call has: what may be long is bytes. Those that it may bring back count as well."""
    size = part.brings
    for each in part.arguments:
        if type(each) is bytes:
            size += len(each)
    return size
