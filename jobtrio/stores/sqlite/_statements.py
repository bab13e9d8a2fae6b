"""The store's SQL, read from ``statements.sql`` once and found by name.

It owns how that file is read. It must not know what the statements are for.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

from jobtrio.stores._texts import PARTS

ENTRY: Final = (*PARTS, "asides")
"""The columns that make a `JobEntry`, in the order in which `_rows.entry_of` takes them."""

MOST: Final = 2**63 - 1
"""The largest number that a statement takes: who wants no limit may give any larger one."""

_HEADING = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


def _read() -> dict[str, str]:
    text = resources.files("jobtrio.stores.sqlite").joinpath("statements.sql").read_text("utf-8")
    text = text.replace("{entry}", ", ".join(ENTRY)).replace("{job.entry}", ", ".join(f"job.{name}" for name in ENTRY))
    _, *parts = _HEADING.split(text)
    return {name: body.partition(";")[0].strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}


SQL: Final = _read()
"""Each statement's text, by its name."""
