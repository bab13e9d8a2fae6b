"""Ids: random, of one form, and never given out twice, not even by a forked child."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

from jobtrio import _ids
from jobtrio._ids import DRAWN, new_id

if TYPE_CHECKING:
    import pytest


def test_form() -> None:
    """An id is 32 hexadecimal digits: 128 bits."""
    assert all(len(bytes.fromhex(new_id())) == 16 for _ in range(3))


def test_no_id_comes_twice() -> None:
    """Ids differ, within a draw and across draws."""
    ids = [new_id() for _ in range(3 * DRAWN)]
    assert len(set(ids)) == len(ids)


class _Shared(list[str]):
    """Ids of which other threads take all, as soon as there are any."""

    def extend(self, ids: object) -> None:
        """Keep none."""


def test_other_threads_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever draws has an id of the draw, whatever other threads take of it."""
    monkeypatch.setattr(_ids, "_drawn", _Shared())
    assert len({new_id() for _ in range(3)}) == 3


FORK = """
import os
from jobtrio._ids import DRAWN, new_id
new_id()
child = os.fork()
ids = [new_id() for _ in range(DRAWN)]
if child:
    os.waitpid(child, 0)
os.write(1, ("\\n".join(ids) + "\\n").encode())
os._exit(0)
"""


def test_a_forked_child_draws_its_own() -> None:
    """A child that was forked in the middle of a draw gives out none of what the parent gives out."""
    # In a process of its own: to fork this one, with its threads, would be a deed of another kind.
    told = subprocess.run([sys.executable, "-c", FORK], capture_output=True, check=True, text=True).stdout.split()
    assert len(told) == 2 * DRAWN
    assert len(set(told)) == len(told)
