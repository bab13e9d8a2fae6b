"""Importing: what `import jobtrio` costs beyond what it stands on, in fresh interpreters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import trio

from benchmarks._child import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._harness import Session, Side


async def run(session: Session) -> None:
    """Measure the import beside that of Trio and attrs."""
    tries = session.scale(3, 1)
    await session.compare(
        "import",
        "jobtrio, fresh interpreter",
        import_of("jobtrio", tries),
        import_of("trio, attrs", tries),
        versus="import trio, attrs",
    )


def import_of(names: str, tries: int) -> Side:
    """Make the side that times ``import names`` inside new interpreters, their own start left out."""
    program = f"import time; t = time.perf_counter()\nimport {names}\nprint(time.perf_counter() - t)"

    async def side() -> Sequence[float]:
        samples = []
        for _ in range(tries):
            done = await trio.run_process([sys.executable, "-c", program], capture_stdout=True, cwd=ROOT)
            samples.append(float(done.stdout))
        return samples

    return side
