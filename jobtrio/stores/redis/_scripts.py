"""The store's scripts, read from the folder ``scripts`` once and found by name.

Each begins with a comment whose last line says which of the parts it is made with (``-- with: base moves``), and has a
function ``work`` that carries out one call; a part behind it carries out all that were gathered. It owns how a script
is put together and what it is allowed. It must not know what the scripts are for.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Final

import attrs

from jobtrio._entry import HISTORY
from jobtrio._policies import LONGEST_PERIOD, ROUNDED
from jobtrio._state import JobState

if TYPE_CHECKING:
    from jobtrio.stores.redis._link import Argument

FIELDS: Final = (
    *("state", "order", "created", "submission", "key", "plan", "body", "tags", "attempt", "claim", "losses"),
    *("failures", "cancel", "error", "result", "saved", "history", "ticket"),
)
"""The fields of a job's hash that make a `JobEntry`, in the order in which `_rows.entry_of` takes them.

A hash without the first is no job.
"""

LIGHT: Final = tuple(name for name in FIELDS if name not in ("body", "tags", "saved"))
"""Those without what users gave."""

VERSION: Final = 1
"""The format of what is stored."""

STATES: Final = tuple(JobState)
"""The states, in the order in which the scripts count."""

_NAMES: Final = (
    *("advance", "append", "by_key", "cancel", "claim", "counts", "delete", "expire", "find", "finish", "insert"),
    *("lapse", "leave", "next_starts", "open", "pause", "paused", "prune", "read", "release", "renew", "resume"),
    *("retry", "save_state", "set_priority", "start_held", "tagged", "workers"),
)
"""The scripts that have a file. Another file in the folder is a part, or not of jobtrio: an editor may have left it."""

READING: Final = frozenset({"read", "counts", "find", "by_key", "next_starts", "paused", "tagged", "workers"})
"""The scripts that write nothing."""

GROWING: Final = frozenset({"insert", "append", "save_state"})
"""The scripts that are refused where the server has no memory left; the others let jobs come to their end."""

_SAME: Final = {"append_last": "append"}
"""Scripts that differ from another one only in what they are allowed: that one's file is theirs."""

_FOLDER: Final = resources.files("jobtrio.stores.redis").joinpath("scripts")

_WITH: Final = re.compile(r"^-- with: (.*)$", re.MULTILINE)

_WORDS: Final = {
    "$FIELDS": ", ".join(f"'{name}'" for name in FIELDS),
    "$COUNT": str(len(FIELDS)),
    "$VERSION": str(VERSION),
    "$HISTORY": str(HISTORY),
    "$PERIOD": str(LONGEST_PERIOD),
    "$ROUNDED": str(ROUNDED),
    "$STATES": ", ".join(f"'{state}'" for state in STATES),
    **{f"${name}": str(number) for number, name in enumerate(FIELDS, 1)},
}
"""What stands for what in the files; a field's name for its number."""


@attrs.frozen(eq=False)
class Script:
    """One script.

    Attributes:
        name: Its file's name, without the suffix.
        text: All of it, as the server is given it.
        digest: What the server calls it by.
        writes: Whether it writes anything.
    """

    name: str
    text: bytes
    digest: bytes
    writes: bool


@attrs.frozen(eq=False)
class Run:
    """One call of a script.

    Attributes:
        script: The script.
        arguments: What its ``work`` is given.
        brings: About how many bytes the answer may have, where that may be many.
    """

    script: Script
    arguments: tuple[Argument, ...]
    brings: int = 0


def _read(name: str) -> Script:
    body = _text(_SAME.get(name, name))
    found = _WITH.search(body)
    assert found is not None, f"{name}.lua does not say what it is made with"
    texts = [*(_text(f"_{part}") for part in found[1].split()), body, _text("_each")]
    flags = "no-writes" if name in READING else "" if name in GROWING else "allow-oom"
    whole = "\n".join([f"#!lua flags={flags}" if flags else "#!lua", *texts])
    text = re.sub(r"\$\w+", lambda word: _WORDS[word[0]], whole).encode()
    digest = hashlib.sha1(text, usedforsecurity=False).hexdigest()
    return Script(name, text, digest.encode(), name not in READING)


def _text(name: str) -> str:
    return _FOLDER.joinpath(f"{name}.lua").read_text("utf-8")


SCRIPTS: Final = {name: _read(name) for name in (*_NAMES, *_SAME)}
"""Each script, by its name."""

MOST: Final = 2**53
"""The largest number of jobs that a script takes, to which its own numbers count exactly: for any larger one."""


def run(name: str, *arguments: Argument, brings: int = 0) -> Run:
    """Return a call of a script."""
    return Run(SCRIPTS[name], arguments, brings)
