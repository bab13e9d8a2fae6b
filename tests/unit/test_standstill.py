"""A test that failed while the machine stood still is run again, and no other is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

SUPPORT = Path(__file__).parents[1] / "support"

BEGIN = """
import os, subprocess, sys, time
from pathlib import Path
import pytest, trio
from hypothesis import Phase, given, settings, strategies

RUNS = Path(__file__).with_suffix(".runs")

def check():
    with RUNS.open("a") as file:
        file.write(".")
    STANDING
    assert RUNS.stat().st_size > FAILURES

def stand_still():
    wake = "import os, time\\nwhile True: time.sleep(0.6); os.kill({}, 18)".format(os.getpid())
    with subprocess.Popen([sys.executable, "-c", wake]) as waking:
        os.kill(os.getpid(), 19)
        waking.kill()
"""

PLAIN = """
def test():
    check()
"""

OF_TRIO = """
async def test(tmp_path):
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    await trio.sleep(0)
    check()
"""

WITH_EXAMPLES = """
@settings(max_examples=1, database=None, phases=[Phase.generate], deadline=None)
@given(strategies.just(1))
async def test(n):
    await trio.sleep(0)
    check()
"""

WITH_A_FIXTURE = """
@pytest.fixture
def thing():
    check()

def test(thing):
    pass
"""


@attrs.frozen
class Case:
    """A test that fails so often, and what becomes of it; where it is not beside a standstill, it is run once."""

    text: str
    failures: int
    outcome: str
    runs: int
    stands_still: bool = True


CASES = {
    "plain": Case(PLAIN, 1, "PASSED", 2),
    "of_trio": Case(OF_TRIO, 1, "PASSED", 2),
    "with_examples": Case(WITH_EXAMPLES, 2, "PASSED", 3),  # one that failed is tried once more, in the same run
    "with_a_fixture": Case(WITH_A_FIXTURE, 1, "PASSED", 2),
    "failing_each_time": Case(PLAIN, 9, "FAILED", 3),
    "passing": Case(PLAIN, 0, "PASSED", 1),
    "beside_none": Case(PLAIN, 1, "FAILED", 1, stands_still=False),
    "beside_none_of_trio": Case(OF_TRIO, 1, "FAILED", 1, stands_still=False),
    "beside_none_with_a_fixture": Case(WITH_A_FIXTURE, 1, "ERROR", 1, stands_still=False),
}


@pytest.mark.once
def test_which_tests_are_run_again(tmp_path: Path) -> None:
    """Those that failed beside a standstill, which is told; what they come to then counts."""
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    for name, case in CASES.items():
        begin = BEGIN.replace("FAILURES", str(case.failures))
        begin = begin.replace("STANDING", "stand_still()" if case.stands_still else "pass")
        (tmp_path / f"test_{name}.py").write_text(begin + case.text)
    command = [sys.executable, "-m", "pytest", "-p", "standstill", "-p", "no:cacheprovider", "-rA", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(SUPPORT)}
    said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False).stdout
    for name, case in CASES.items():
        runs = (tmp_path / f"test_{name}.runs").stat().st_size
        is_told = f"RUN AGAIN test_{name}.py::test - the machine stood still for " in said
        if is_told and not case.stands_still:
            continue  # the machine may have stood still indeed
        assert (runs, is_told) == (case.runs, case.runs > 1), (name, said)
        assert f"{case.outcome} test_{name}.py::test" in said, (name, said)
