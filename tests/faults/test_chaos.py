"""Chaos, in its short form: workers share a store while things go wrong, and nothing is lost, torn or ended twice.

``python -m tests.chaos`` does the same for longer, with as many seeds as it is told.
"""

from __future__ import annotations

import pytest
from chaos.command import run_seed
from chaos.plan import DEAF, SHORT
from chaos.rig import STORES
from chaos.trace import tell

pytestmark = pytest.mark.once

LIMIT = 300
"""Seconds a run may take: its own limits add up to less."""


@pytest.mark.timeout(LIMIT)
@pytest.mark.parametrize("seed", [1, DEAF], ids=["", "deaf"])
@pytest.mark.parametrize("store", STORES)
def test_chaos(store: str, seed: int) -> None:
    """Kills, stops, cuts and restarts leave all promises kept, also where workers do not notice what they lost."""
    facts, violations = run_seed(store, seed, SHORT)
    assert not violations, tell(facts, violations)


OF_FENCING = {"restarts_are_between_attempts", "tokens_are_the_attempts", "ends_are_the_holders"}
"""The checks that are to find a store without fencing."""


@pytest.mark.timeout(LIMIT)
def test_broken_fencing_is_found() -> None:
    """Where those who lost a job write all the same, the checks find it: they would find a store that lets them.

    All leases end amid long jobs, since none is renewed; that is no harm while the store refuses who has lost one.
    """
    assert not OF_FENCING & _found(2, "leases")
    assert any(OF_FENCING & _found(seed, "leases fencing") for seed in (2, 3, 6))  # who writes when is chance


def _found(seed: int, sabotage: str) -> set[str]:
    return {violation.check for violation in run_seed("sqlite", seed, SHORT, sabotage)[1]}
