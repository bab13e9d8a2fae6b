"""Shows rows as a table for people and as JSON for programs. It measures nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks._machine import describe_machine, describe_versions, peak_memory, timestamp

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks._harness import Session
    from benchmarks._result import Figures, Goal, Row, Unit

COLUMNS = ("name", "variant", "value", "p99", "against", "its value", "ratio", "goal", "met")
WIDTHS = (31, 41, 9, 9, 33, 9, 13, 10, 3)


def heading() -> str:
    """Return the table's first two lines."""
    return _line(COLUMNS) + "\n" + "-" * (sum(WIDTHS) + 2 * len(WIDTHS) - 2)


def table_line(row: Row) -> str:
    """Return a row as a line of the table."""
    ratio, p99 = row.ratio, row.subject.p99
    return _line(
        (
            row.name,
            row.variant,
            amount(row.subject.median, row.unit),
            amount(p99, row.unit) if p99 is not None else "",
            row.versus,
            amount(row.other.median, row.unit) if row.other is not None else "",
            f"{_digits(ratio)} × {'speed' if row.speed else 'cost'}" if ratio is not None else "",
            goal_text(row.goal, row.unit) if row.goal is not None else "",
            {None: "", True: "yes", False: "NO"}[row.met],
        )
    )


def amount(value: float, unit: Unit) -> str:
    """Return seconds or bytes in three digits and the unit that suits them."""
    if unit == "B":
        return f"{value:.0f} B" if value < 10_000 else f"{value / 1024:.4g} KiB"
    for factor, name in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= factor:
            return f"{_digits(value / factor)} {name}"
    return f"{_digits(value * 1e9)} ns"


def _digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:.0f}"


def goal_text(goal: Goal, unit: Unit) -> str:
    """Return a goal as the table shows it."""
    sign = "≤" if goal.kind == "at most" else "≥"
    return f"{sign} {amount(goal.limit, unit)}" if goal.on == "value" else f"{sign} {goal.limit:g} ×"


def as_json(session: Session) -> dict[str, object]:
    """Return everything that a run found, down to the single rounds."""
    return {
        "at": timestamp(),
        "tiny": session.tiny,
        "rounds": session.rounds,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "peak_memory_bytes": peak_memory(),
        "notes": session.notes,
        "rows": [_row_as_json(row) for row in session.rows],
    }


def write_json(session: Session, path: Path) -> None:
    """Write a run's JSON file, and the folder that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(session), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _row_as_json(row: Row) -> dict[str, object]:
    return {
        "benchmark": row.benchmark,
        "name": row.name,
        "variant": row.variant,
        "unit": row.unit,
        "subject": _figures_as_json(row.subject),
        "versus": row.versus,
        "other": _figures_as_json(row.other) if row.other is not None else None,
        "ratio": row.ratio,
        "ratio_means": "times as fast" if row.speed else "times the cost",
        "ratios": row.ratios,
        "goal": goal_text(row.goal, row.unit) if row.goal is not None else None,
        "met": row.met,
    }


def _figures_as_json(figures: Figures) -> dict[str, object]:
    return {
        "median": figures.median,
        "p99": figures.p99,
        "samples": sum(len(samples) for samples in figures.rounds),
        "rounds": figures.of_rounds,
    }


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()
