"""The systemd unit in the documentation: its command is one that there is, and systemd takes it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from docs.tools import pages
from jobtrio.cli import build_parser

if TYPE_CHECKING:
    from pathlib import Path

VERIFY = shutil.which("systemd-analyze")


def unit_file() -> str:
    """Return the unit as it stands in the page."""
    text = (pages.FOLDER / "howto" / "deploy.md").read_text(encoding="utf-8")
    (unit,) = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    return str(unit)


def test_its_command() -> None:
    """The command has the options that it is given."""
    (line,) = re.findall("^ExecStart=(.*)$", unit_file(), re.MULTILINE)
    program, *args = shlex.split(line)
    assert program.endswith("/jobtrio")
    options = build_parser().parse_args(args)
    (stop,) = re.findall("^TimeoutStopSec=(.*)$", unit_file(), re.MULTILINE)
    assert options.grace < float(stop)


@pytest.mark.skipif(VERIFY is None, reason="there is no systemd here, and only it can say")
@pytest.mark.parametrize("name", ["shop.service", "shop-worker@.service"])
def test_systemd_takes_it(tmp_path: Path, name: str) -> None:
    """`systemd-analyze verify` finds nothing wrong with it, also as a template for several workers."""
    unit = unit_file().replace("User=shop", "User=root").replace("/var/lib/shop", str(tmp_path))
    unit = unit.replace("/opt/shop/.venv/bin/jobtrio", "/bin/true")
    if "@" in name:
        unit = unit.replace("--grace", "--name shop-%i --grace")
    path = tmp_path / name
    path.write_text(unit, encoding="utf-8")
    assert VERIFY is not None
    run = subprocess.run([VERIFY, "verify", str(path)], check=False, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
