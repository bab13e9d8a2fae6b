"""The scripts for the server, and where they come from."""

from __future__ import annotations

import shutil
from importlib import resources, util
from pathlib import Path
from typing import TYPE_CHECKING

from jobtrio.stores.redis import _scripts

if TYPE_CHECKING:
    import pytest

FOLDER = Path(_scripts.__file__).with_name("scripts")


def test_every_file_is_of_use() -> None:
    """Each file of the folder is a script, or a part of one."""
    texts = b"".join(script.text for script in _scripts.SCRIPTS.values()).decode()
    for file in FOLDER.iterdir():
        last = file.read_text().splitlines()[-1]
        assert file.stem in _scripts.SCRIPTS or (file.stem.startswith("_") and last in texts), file


def test_a_stray_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an editor has left in the folder is not loaded."""
    shutil.copytree(FOLDER, tmp_path / "scripts")
    (tmp_path / "scripts" / "read (copy).lua").write_text("return 'unfinished")
    (tmp_path / "scripts" / ".#read.lua").symlink_to("nowhere")
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)
    spec = util.spec_from_file_location("loaded_again", _scripts.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [*module.SCRIPTS] == [*_scripts.SCRIPTS]
