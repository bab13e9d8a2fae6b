"""The benchmarks' command in this process, with benchmarks of the tests' own."""

from __future__ import annotations

import signal
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio

from benchmarks import __main__ as command
from benchmarks.fleet import __main__ as fleet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from benchmarks._harness import Session

    Benchmark = Callable[[Session], Awaitable[None]]


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """Return where a run's figures go."""
    return tmp_path / "figures.json"


@pytest.fixture
def run(figures: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return what runs one benchmark by the command."""

    def run(benchmark: Benchmark, *arguments: str) -> int:
        module: Any = SimpleNamespace(run=benchmark)
        monkeypatch.setattr(command, "_module", lambda _: module)
        return command.main(["submit", "--json", str(figures), *arguments])

    return run


def test_ctrl_c_within_a_nursery(run: Callable[..., int], figures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C cancels a benchmark, and is told in one line, however many tasks there are."""
    ended = []

    async def park(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    async def benchmark(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(park, "task")
            await trio.lowlevel.checkpoint()
            signal.raise_signal(signal.SIGINT)
            await park("body")

    assert run(benchmark) == 130
    assert sorted(ended) == ["body", "task"]
    assert capsys.readouterr().err == f"\ninterrupted; figures so far: {figures}\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_figures_that_cannot_be_written(
    run: Callable[..., int], figures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the figures can't be kept, nothing is measured."""
    figures.mkdir()

    async def benchmark(session: Session) -> None:
        raise AssertionError

    with pytest.raises(SystemExit, match="2"):
        run(benchmark)
    assert "the figures can't be written: " in capsys.readouterr().err


@pytest.mark.parametrize("rounds", ["0", "-1", "x", "1.5", "nan", "²"])
def test_rounds_that_make_no_sense(rounds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number of rounds that is none is refused with what is allowed."""
    with pytest.raises(SystemExit, match="2"):
        command.main(["--rounds", rounds])
    said = capsys.readouterr().err
    assert said.endswith(f"argument --rounds: must be a whole number of 1 or more; got {rounds}\n")


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        *((option, "0", "a whole number of 1 or more") for option in ("--calls", "--listeners", "--processors")),
        *(("--seconds", value, "seconds above 0") for value in ("0", "nan", "inf", "x")),
    ],
)
def test_fleet_that_makes_no_sense(option: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a fleet of which nothing is measured or simulated it is not said that it is not too large."""
    with pytest.raises(SystemExit, match="2"):
        fleet.main([option, value])
    assert capsys.readouterr().err.endswith(f"argument {option}: must be {allowed}; got {value}\n")
