"""A test that failed while the machine stood still is run again, and no other is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"

BEGIN = """
import os, subprocess, sys, time
from pathlib import Path
import pytest, trio
from hypothesis import Phase, given, settings, strategies

RUNS = Path(__file__).with_name("runs")

def check():
    with RUNS.open("a") as file:
        file.write(".")
    STANDING
    assert RUNS.stat().st_size > FAILURES

def stand_still():
    wake = "import os, signal, time; time.sleep(1.5); os.kill({}, signal.SIGCONT)".format(os.getpid())
    waking = subprocess.Popen([sys.executable, "-c", wake])
    os.kill(os.getpid(), 19)
    waking.wait()
"""

TESTS = {
    "plain": """
def test():
    check()
""",
    "of Trio": """
async def test(tmp_path):
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    await trio.sleep(0)
    check()
""",
    "of Trio, with examples": """
@settings(max_examples=1, database=None, phases=[Phase.generate], deadline=None)
@given(strategies.just(1))
async def test(n):
    await trio.sleep(0)
    check()
""",
    "with a fixture that fails": """
@pytest.fixture
def thing():
    check()

def test(thing):
    pass
""",
}


def result(folder: Path, kind: str, failures: int, standing: str) -> tuple[int, int, str]:
    """Run a test that fails so often; return the exit code, how often it was run, and what was said."""
    text = BEGIN.replace("FAILURES", str(failures)).replace("STANDING", standing) + TESTS[kind]
    (folder / "test_it.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    command = [sys.executable, "-m", "pytest", "-p", "standstill", "-p", "no:cacheprovider", "-q", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, (folder / "runs").stat().st_size, done.stdout


@pytest.mark.parametrize("kind", TESTS)
def test_a_failure_beside_a_standstill(tmp_path: Path, kind: str) -> None:
    """The test is run again, which is told, and what it comes to then counts."""
    failing = 2 if kind.endswith("examples") else 1  # an example that failed is tried once more, in the same run
    code, runs, said = result(tmp_path, kind, failing, "stand_still()")
    assert (code, runs) == (0, failing + 1), said
    assert "RUN AGAIN test_it.py::test - the machine stood still for 1." in said
    assert "1 passed" in said


def test_one_that_fails_each_time(tmp_path: Path) -> None:
    """It has failed in the end."""
    code, runs, said = result(tmp_path, "plain", 9, "stand_still()")
    assert (code, runs) == (1, 3), said
    assert "1 failed" in said


@pytest.mark.parametrize("kind", ["plain", "of Trio", "with a fixture that fails"])
def test_a_failure_beside_none(tmp_path: Path, kind: str) -> None:
    """The test has failed, and is not run again."""
    code, runs, said = result(tmp_path, kind, 1, "pass")
    assert (code, runs) == (1, 1) or "RUN AGAIN" in said, said  # the machine may have stood still indeed


def test_one_that_passes(tmp_path: Path) -> None:
    """It has passed, whatever the machine did."""
    code, runs, said = result(tmp_path, "plain", 0, "stand_still()")
    assert (code, runs, "RUN AGAIN" in said) == (0, 1, False), said
