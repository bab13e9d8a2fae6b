"""Cuts a program's output into lines as tokens: bytes in, ``{"stdout": "…"}`` out.

Pure: it knows neither pipes nor time. How the bytes were cut into chunks never shows in the tokens,
except where `idle` was called between them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

PART_LIMIT = 64 * 1024
"""Bytes of a line in one token. A longer line comes in parts."""

_ENDS = re.compile(rb"\r?\n|\r(?=[^\n])")
"""Where a line ends, or returns to its beginning. A ``\\r`` with nothing behind it yet may become either."""


class LineSplitter:
    r"""The lines of one stream, in order.

    A token without ``"partial"`` is a line or its last part: a line end followed it. One with
    ``"partial": True`` is followed by more of the same line; all its parts put together are the line. Parts
    come of lines over `PART_LIMIT`, never cut in the middle of a character, and of carriage returns: what a
    program draws over again (``"10%\r20%\r"``) comes as it is drawn, the return included. ``\r\n`` ends a
    line as ``\n`` does. Bytes that are not UTF-8 become backslash escapes.
    """

    def __init__(self, name: str) -> None:
        """Make tokens with the key ``name``."""
        self._name = name
        self._rest = bytearray()
        self._line_open = False

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Take the next bytes and yield the tokens that they complete. Exhaust it before the next call."""
        rest = self._rest
        searched = len(rest) - rest.endswith(b"\r")
        rest += data
        start = 0
        for end in _ENDS.finditer(rest, searched):
            line = bytes(rest[start : end.start()])
            start = end.end()
            if end[0] == b"\r":
                yield from self._tokens(line + b"\r", partial=True)
            else:
                yield from self._tokens(line, partial=False)
        del rest[:start]
        while len(rest) - rest.endswith(b"\r") > PART_LIMIT:
            cut = _cut_before(rest)
            yield self._token(bytes(rest[:cut]), partial=True)
            del rest[:cut]

    def idle(self) -> Iterator[dict[str, Any]]:
        """Yield what should be seen while nothing follows: a line that has returned to its beginning."""
        if self._rest.endswith(b"\r"):
            line = bytes(self._rest)
            self._rest.clear()
            yield from self._tokens(line, partial=True)

    def finish(self) -> Iterator[dict[str, Any]]:
        """Yield the last line, where the stream ended without a line end."""
        if self._rest or self._line_open:
            yield from self._tokens(bytes(self._rest), partial=False)

    def _tokens(self, line: bytes, *, partial: bool) -> Iterator[dict[str, Any]]:
        while len(line) > PART_LIMIT:
            cut = _cut_before(line)
            yield self._token(line[:cut], partial=True)
            line = line[cut:]
        yield self._token(line, partial=partial)

    def _token(self, part: bytes, *, partial: bool) -> dict[str, Any]:
        self._line_open = partial
        token: dict[str, Any] = {self._name: part.decode("utf-8", "backslashreplace")}
        if partial:
            token["partial"] = True
        return token


def _cut_before(line: bytes | bytearray) -> int:
    """Return where to cut a line over `PART_LIMIT`: there, or before the character that lies across it."""
    for cut in range(PART_LIMIT, PART_LIMIT - 4, -1):
        if line[cut] & 0xC0 != 0x80:  # not a continuation byte
            return cut
    return PART_LIMIT  # no character has so many: these bytes are no text
