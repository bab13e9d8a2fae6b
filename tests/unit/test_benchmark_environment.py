"""The environments of the peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import _peer_environment
from benchmarks._peer_environment import Environment, make_environment

if TYPE_CHECKING:
    from pathlib import Path

UV = """#!/bin/sh
echo "$1" >>{folder}/said
if [ -e {folder}/network ] || [ "$1" = venv ]; then mkdir -p {folder}/.venv-some; else exit 2; fi
"""


async def test_environment_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that can't be made whole is made anew the next time; a whole one is left as it is."""
    uv = tmp_path / "uv"
    uv.write_text(UV.format(folder=tmp_path), encoding="utf-8")
    uv.chmod(0o700)
    monkeypatch.setattr(_peer_environment, "__file__", str(tmp_path / "module.py"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    some = Environment(".venv-some", ("some==1",))
    with pytest.raises(SystemExit, match="can't be made"):
        await make_environment(some)
    (tmp_path / "network").touch()
    for _ in range(2):
        assert await make_environment(some) == tmp_path / ".venv-some" / "bin" / "python"
    assert (tmp_path / "said").read_text(encoding="utf-8").split() == ["venv", "pip", "venv", "pip"]
